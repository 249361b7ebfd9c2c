//! The program itself, run on free ports with files of its own, and asked with dig and curl as an operator would.

#![allow(dead_code, reason = "each test program uses a part of it")]

#[path = "../ports/mod.rs"]
mod ports;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub use ports::free_address;
use serde_json::Value;
use tempfile::TempDir;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two regions; London is nearest to [`LONDON`], Ashburn to [`NEW_YORK`] by the bundled database.
pub const ZONE: &str = r#"
zone = "stream.example"
ns   = ["ns1.example.net", "ns2.example.net"]

[region.us]
near = "Ashburn"
a    = ["192.0.2.11"]

[region.eu]
near = "London"
a    = ["192.0.2.21"]

[stream.live]
"#;
pub const LONDON: &str = "81.2.69.0/24";
pub const NEW_YORK: &str = "71.183.0.0/24";

pub fn meridian() -> Command {
    Command::new(env!("CARGO_BIN_EXE_meridian"))
}

/// A directory with `zones/stream.example.toml` and no databases, so that the bundled one is used.
pub struct Files {
    pub dir: TempDir,
}

impl Files {
    pub fn new(zone: &str) -> Files {
        let files = Files { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(files.path("zones")).unwrap();
        files.put("zones/stream.example.toml", zone);
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Saves as editors do that write a new file and rename it over the old one.
    pub fn put_over(&self, name: &str, text: impl AsRef<[u8]>) {
        let new = self.path(&format!("{name}.tmp"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    /// A command run in the directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = meridian();
        command.current_dir(self.dir.path()).args(arguments).stdin(Stdio::null());
        command
    }

    pub fn serve(&self) -> Node {
        self.serve_with(&[])
    }

    pub fn serve_with(&self, more: &[&str]) -> Node {
        let listen = free_address().to_string();
        let arguments = ["serve", "--listen", &listen, "--admin", "127.0.0.1:0", "--log", "json"];
        Node::start(self.command(&[&arguments, more].concat()))
    }
}

/// A running program; killed when it goes.
pub struct Node {
    pub child: Child,
    pub dns: SocketAddr,
    pub admin: SocketAddr,
    log: Arc<Mutex<Vec<Value>>>,
}

impl Node {
    /// Returns once it answers. Its log must be JSON.
    pub fn start(mut command: Command) -> Node {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in lines.map_while(Result::ok) {
                    let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    log.lock().unwrap().push(event);
                }
            }
        });
        let unknown = "0.0.0.0:0".parse().unwrap();
        let mut node = Node { child, dns: unknown, admin: unknown, log };
        let answering = node.wait_for_log("answering");
        let address = |key: &str| answering[key].as_str().unwrap().parse().unwrap();
        (node.dns, node.admin) = (address("dns"), address("admin"));
        node
    }

    /// A program whose log nobody reads here, and which is told where to listen.
    pub fn unheard(child: Child, dns: SocketAddr, admin: SocketAddr) -> Node {
        Node { child, dns, admin, log: Arc::default() }
    }

    /// The first event of the log with this message.
    pub fn wait_for_log(&self, message: &str) -> Value {
        let found = || self.log.lock().unwrap().iter().find(|event| event["message"] == message).cloned();
        poll(found).unwrap_or_else(|| panic!("waited in vain until the log says {message:?}; it is:\n{}", self.log()))
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().iter().map(|event| format!("{event}\n")).collect()
    }

    /// The addresses of an answer, sorted; or what dig says when there is none.
    pub fn dig(&self, name: &str, subnet: &str) -> String {
        let answer = self.dig_all(name, &["A", "+short", &format!("+subnet={subnet}")]);
        let mut lines: Vec<&str> = answer.lines().collect();
        lines.sort_unstable();
        lines.join(" ")
    }

    pub fn dig_all(&self, name: &str, more: &[&str]) -> String {
        let (server, port) = (format!("@{}", self.dns.ip()), self.dns.port().to_string());
        let dig = Command::new("dig")
            .args([&server, "-p", &port, name])
            .args(["+tries=1", "+time=5"])
            .args(more)
            .output()
            .expect("dig is installed (Debian: bind9-dnsutils)");
        String::from_utf8(dig.stdout).unwrap()
    }

    pub fn wait_for_answer(&self, subnet: &str, wanted: &str) {
        let name = "live.stream.example";
        if poll(|| (self.dig(name, subnet) == wanted).then_some(())).is_none() {
            let now = self.dig(name, subnet);
            panic!("waited in vain until {subnet} gets {wanted:?}; it gets {now:?}; the log:\n{}", self.log());
        }
    }

    /// Status and body.
    pub fn http(&self, method: &str, path: &str) -> (u16, String) {
        http(self.admin, method, path)
    }

    /// The value of a sample in `/metrics`, named with its labels.
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let (_, text) = self.http("GET", "/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    pub fn wait_for_metric(&self, sample: &str, wanted: f64) {
        self.wait_until(sample, wanted, |value| value == wanted);
    }

    /// Waits for a counter to have come so far: a file that is seen half written is one reload more.
    pub fn wait_for_count(&self, sample: &str, wanted: f64) {
        self.wait_until(sample, wanted, |value| value >= wanted);
    }

    fn wait_until(&self, sample: &str, wanted: f64, is_there: impl Fn(f64) -> bool) {
        let mut last = None;
        let reached = || {
            last = self.metric(sample);
            last.is_some_and(&is_there).then_some(())
        };
        if poll(reached).is_none() {
            panic!("waited in vain until {sample} is {wanted}; it is {last:?}; the log:\n{}", self.log());
        }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// The exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(since.elapsed() < PATIENCE, "the program does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn http(admin: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {admin}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// What `found` gives, asked until there is something.
pub fn wait_for<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    poll(found).unwrap_or_else(|| panic!("waited in vain until {what}"))
}

fn poll<T>(mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let since = Instant::now();
    loop {
        match found() {
            None if since.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(20)),
            found => return found,
        }
    }
}

pub fn touch_back(path: &Path, seconds: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}
