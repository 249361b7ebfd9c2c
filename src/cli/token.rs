//! `meridian token NAME`: a fresh token, and the lines that let it in.

use std::io::{self, Write};

use clap::Args;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

use super::complain;
use crate::config::admin::{Role, check_name};

/// Tells leak scanners and people what it is.
const PREFIX: &str = "mrd_";
const BYTES: usize = 32;

#[derive(Args)]
pub struct TokenArgs {
    /// Who will hold it; shown as the author of what is done with it
    name: String,
    #[arg(long, value_enum)]
    role: Role,
}

/// Gives the exit code. Errors are those of `out`.
pub fn run(args: &TokenArgs, out: &mut dyn Write) -> io::Result<u8> {
    if let Err(what) = check_name(&args.name) {
        complain(&format!("{:?}: {what}", args.name));
        return Ok(2);
    }
    let mut bytes = [0; BYTES];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        complain("the system gives no random bytes");
        return Ok(1);
    }
    let token = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
    let sum = HEXLOWER.encode(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    writeln!(out, "# the token, which is shown this once; for --token-file or MERIDIAN_TOKEN")?;
    writeln!(out, "{token}\n")?;
    writeln!(out, "# for meridian.toml")?;
    writeln!(out, "[[admin.token]]\nname = {:?}\nrole = \"{}\"\nsha256 = \"{sum}\"", args.name, args.role.name())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_node;

    fn made(name: &str) -> (u8, String) {
        let mut out = Vec::new();
        let code = run(&TokenArgs { name: name.to_owned(), role: Role::Operate }, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_lines_let_the_token_in() {
        let (code, text) = made("alice@ops\"\\");
        let token = text.lines().find(|line| line.starts_with(PREFIX)).unwrap();
        assert_eq!((code, token.len()), (0, 4 + 43));
        let (_, lines) = text.split_once("# for meridian.toml\n").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("meridian.toml");
        std::fs::write(&file, lines).unwrap();
        let (node, _, faults) = load_node(Some(&file)).unwrap();
        assert_eq!(faults, []);
        let known = &node.access.tokens[0];
        assert_eq!((&*known.name, known.role), ("alice@ops\"\\", Role::Operate));
        assert_eq!(known.sha256, digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        assert!(!lines.contains(token), "the file does not hold the token itself");
    }

    #[test]
    fn no_two_are_the_same_and_names_that_would_mislead_are_refused() {
        assert_ne!(made("alice").1, made("alice").1);
        for name in ["", "local", "a b", "new\nline", &"a".repeat(65)] {
            assert_eq!(made(name), (2, String::new()), "{name:?}");
        }
    }
}
