//! The check of kind `exec`: a program of the operator's, whose exit code is the answer.
//!
//! It is run as it is written, without a shell, in a process group of its own, with nothing in its environment but
//! `PATH` and what is being asked about. Exit code 0 is success. Any other end is a failure, whose cause is the first
//! line that the program wrote. When the probe is given up, at its time-out or before, the whole group is killed: a
//! program that hangs leaves no children behind. What it writes is read to its end, so that it can't block, and
//! forgotten but for the beginning, so that it can't fill memory.

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::group::Group;
use super::probe::Outcome;
use crate::config::settings::ExecCheck;

/// Bytes of each of the two outputs that are looked at.
const MAX_LOOK: usize = 4096;
/// Bytes of the first line that become the cause.
const MAX_CAUSE: usize = 200;

/// How to probe one target by a program.
pub(super) struct Exec {
    check: ExecCheck,
    address: SocketAddr,
}

impl Exec {
    pub(super) fn new(check: &ExecCheck, address: SocketAddr) -> Exec {
        Exec { check: check.clone(), address }
    }

    /// Runs the program to its end. Dropping the future kills it and all that it has started in its group.
    pub(super) async fn run(&self) -> Outcome {
        let start = Instant::now();
        let mut group = match self.spawn() {
            Ok(group) => group,
            Err(error) => {
                let program = self.check.program.display();
                return Outcome::Local(format!("can't start {program}: {error}").into());
            }
        };
        let (stdout, stderr) = group.outputs();
        let (mut out, mut err) = (Beginning::default(), Beginning::default());
        let ended = group.wait(async { tokio::join!(out.read(stdout), err.read(stderr)) }).await;
        let status = match ended {
            Ok(status) => status,
            Err(error) => {
                return Outcome::Local(format!("can't wait for {}: {error}", self.check.program.display()).into());
            }
        };
        if status.success() {
            return Outcome::Success { rtt: start.elapsed() };
        }
        let said = out.first_line().or_else(|| err.first_line());
        Outcome::Hard(cause(status, said))
    }

    fn spawn(&self) -> io::Result<Group> {
        let mut command = Command::new(&self.check.program);
        command.args(&self.check.arguments).env_clear().env("MERIDIAN_ADDRESS", self.address.ip().to_string());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if self.address.port() != 0 {
            command.env("MERIDIAN_PORT", self.address.port().to_string());
        }
        if let Some(host) = &self.check.host {
            command.env("MERIDIAN_HOST", host.trim_end_matches('.'));
        }
        Group::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
    }
}

/// The beginning of an output; the rest is read and forgotten.
#[derive(Default)]
struct Beginning(Vec<u8>);

impl Beginning {
    /// Reads to the end, or to an error, which is as good.
    async fn read(&mut self, output: Option<impl AsyncRead + Unpin>) {
        let Some(mut output) = output else { return };
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = output.read(&mut piece).await {
            let room = MAX_LOOK - self.0.len();
            self.0.extend_from_slice(&piece[..length.min(room)]);
        }
    }

    fn first_line(&self) -> Option<String> {
        let lines = self.0.split(|&byte| byte == b'\n' || byte == b'\r');
        lines.map(sanitized).find(|line| !line.is_empty())
    }
}

/// For logs and terminals: no character that moves a cursor, colours or turns text around, and not too long.
fn sanitized(line: &[u8]) -> String {
    let turns = |c: char| matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let text = String::from_utf8_lossy(line);
    let mut text: String = text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect();
    text.truncate(text.trim_end().len());
    let start = text.len() - text.trim_start().len();
    text.drain(..start);
    if text.len() > MAX_CAUSE {
        text.truncate(text.floor_char_boundary(MAX_CAUSE));
        text.push('…');
    }
    text
}

fn cause(status: ExitStatus, said: Option<String>) -> Arc<str> {
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    };
    match said {
        Some(said) => format!("{end}: {said}").into(),
        None => end.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_cause_is_the_first_line_that_says_anything() {
        let line = |text: &[u8]| Beginning(text.to_vec()).first_line();
        assert_eq!(line(b"\n \t\r\nCRITICAL - no picture\nmore\n").as_deref(), Some("CRITICAL - no picture"));
        assert_eq!(line(b""), None);
        assert_eq!(line(b"\n\x07\x1b\n"), None);
    }

    #[test]
    fn what_a_program_writes_can_not_move_a_terminal() {
        assert_eq!(sanitized("\x1b[31mred\x07\u{9b}x\u{202e}y".as_bytes()), "[31mred  x y");
        assert_eq!(sanitized(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let cut = sanitized("é".repeat(300).as_bytes());
        assert_eq!(cut, format!("{}…", "é".repeat(100)));
        assert_eq!(sanitized("x".repeat(200).as_bytes()).len(), 200);
    }

    proptest! {
        #[test]
        fn any_bytes_become_one_short_line(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let line = sanitized(&bytes);
            prop_assert!(line.len() <= MAX_CAUSE + '…'.len_utf8());
            prop_assert!(!line.chars().any(char::is_control));
        }
    }
}
