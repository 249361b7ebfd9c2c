use std::fs;

use crate::config::load_node;
use crate::config::settings::Node;

use super::*;

const SUM: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn token(name: &str, sum: &str) -> String {
    format!("[[admin.token]]\nname = {name:?}\nrole = \"operate\"\nsha256 = \"{sum}\"\n")
}

/// A directory with a certificate and its key.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["dns1.example.net".to_owned()]).unwrap();
    fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    dir
}

/// The settings, and each fault as one line: its place in the file, what, rule and help.
fn read(dir: &Path, text: &str) -> (Node, Vec<String>) {
    let file = dir.join("meridian.toml");
    fs::write(&file, text).unwrap();
    let (node, _, faults) = load_node(Some(&file)).unwrap();
    let line = |fault: &Diagnostic| {
        let more = fault.rule.iter().chain(&fault.help).map(|more| format!("; {more}")).collect::<String>();
        format!("{}:{} {}{more}", fault.at.line, fault.at.column, fault.what)
    };
    (node, faults.iter().map(line).collect())
}

#[test]
fn a_public_address_with_a_certificate_and_a_token_is_taken() {
    let dir = directory();
    let text = "[admin]\nlisten = \"192.0.2.53:8053\"\ntls = { cert = \"cert.pem\", key = \"key.pem\" }\n".to_owned();
    let (node, faults) = read(dir.path(), &(text + &token("alice", SUM)));
    assert_eq!(faults, [""; 0]);
    assert_eq!(node.admin, "192.0.2.53:8053".parse().unwrap());
    let tls = node.access.tls.as_ref().unwrap();
    assert_eq!((&tls.cert, &tls.key), (&dir.path().join("cert.pem"), &dir.path().join("key.pem")));
    let alice = &node.access.tokens[0];
    assert_eq!((&*alice.name, alice.role, alice.sha256[0]), ("alice", Role::Operate, 0x2c));
    assert!(!format!("{node:?}").contains("PRIVATE"), "a key is not for the log");
}

#[test]
fn a_public_address_without_certificate_or_token_is_refused() {
    let dir = directory();
    let tls = "tls = { cert = \"cert.pem\", key = \"key.pem\" }\n";
    for (more, missing) in
        [("", "a certificate and a token"), (tls, "a token"), (&*token("alice", SUM), "a certificate")]
    {
        for address in ["0.0.0.0:8053", "[::]:8053", "192.0.2.53:8053"] {
            let (_, faults) = read(dir.path(), &format!("[admin]\nlisten = \"{address}\"\n{more}"));
            let wanted = format!("2:10 `admin.listen` is {address}, and {missing} is missing; whoever reaches");
            assert!(faults.len() == 1 && faults[0].starts_with(&wanted), "{faults:?}");
        }
    }
    for address in ["127.0.0.1:8053", "127.9.9.9:1", "[::1]:8053", "[::ffff:127.0.0.1]:8053"] {
        assert_eq!(read(dir.path(), &format!("[admin]\nlisten = \"{address}\"\n")).1, [""; 0], "{address}");
    }
}

#[test]
fn a_token_that_is_incomplete_or_malformed_is_refused_with_its_place() {
    let dir = directory();
    for (text, wanted) in [
        ("[[admin.token]]\nname = \"a\"\nrole = \"root\"\nsha256 = \"SUM\"", "3:8 `admin.token.role` is \"root\""),
        ("[[admin.token]]\nname = \"a\"\nsha256 = \"SUM\"", "1:3 `admin.token` has no `role`"),
        ("[[admin.token]]\nname = \"local\"\nrole = \"read\"\nsha256 = \"SUM\"", "2:8 `admin.token.name` is \"local\""),
        ("[[admin.token]]\nname = \"a b\"\nrole = \"read\"\nsha256 = \"SUM\"", "2:8 `admin.token.name`"),
        ("[[admin.token]]\nname = \"a\"\nrole = \"read\"\nsha256 = \"mrd_x\"", "4:10 `admin.token.sha256` is not 64"),
        ("[[admin.token]]\nname = \"a\"\nrole = \"read\"\nsha256 = \"SUM\"\ntoken = \"x\"", "5:1 unknown key `token`"),
        ("[admin]\ntoken = 7", "2:9 `admin.token` is a whole number, not an array"),
        ("[admin]\ntoken = [7]", "2:10 `admin.token` is a whole number, not a table"),
    ] {
        let (_, faults) = read(dir.path(), &text.replace("SUM", SUM));
        assert!(faults.iter().any(|fault| fault.contains(wanted.split_once(' ').unwrap().1)), "{text}: {faults:?}");
    }
    let (_, faults) = read(dir.path(), &(token("a", SUM) + &token("b", &SUM.to_uppercase())));
    assert!(faults.len() == 1 && faults[0].contains("a and b have one token"), "{faults:?}");
    let other = SUM.replace('2', "3");
    assert_eq!(read(dir.path(), &(token("a", SUM) + &token("a", &other))).1, [""; 0], "one name may have two");
}

#[test]
fn a_certificate_and_key_that_are_no_use_are_refused_with_the_file() {
    let dir = directory();
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    fs::write(dir.path().join("other.pem"), other).unwrap();
    fs::write(dir.path().join("empty.pem"), "").unwrap();
    fs::write(dir.path().join("huge.pem"), vec![b'\n'; 2 << 20]).unwrap();
    for (cert, key, wanted) in [
        ("cert.pem", "other.pem", "other.pem: does not go with"),
        ("empty.pem", "key.pem", "empty.pem: holds no certificate"),
        ("cert.pem", "empty.pem", "empty.pem: no private key"),
        ("cert.pem", "cert.pem", "cert.pem: no private key"),
        ("none.pem", "key.pem", "none.pem: No such file"),
        ("huge.pem", "key.pem", "huge.pem: larger than 1 MiB"),
        (".", "key.pem", "not a file"),
        ("", "key.pem", "names no file"),
    ] {
        let text = format!("[admin]\ntls = {{ cert = \"{cert}\", key = \"{key}\" }}\n");
        let (_, faults) = read(dir.path(), &text);
        assert!(faults.len() == 1 && faults[0].contains(wanted), "{cert} {key}: {faults:?}");
    }
    let (_, faults) = read(dir.path(), "[admin]\ntls = { cert = \"cert.pem\" }\n");
    assert!(faults.len() == 1 && faults[0].contains("`admin.tls` has no `key`"), "{faults:?}");
}
