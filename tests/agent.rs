//! `meridian agent` as a process, beside a node's receiver and prober and a stream server that can stand still.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use meridian::config::settings::{Check, CheckKind, HttpCheck};
use meridian::config::{Shared, load_zones};
use meridian::geo::Database;
use meridian::health::beats::figures::Tally;
use meridian::health::beats::keys::{KeyFile, new_line};
use meridian::health::beats::{Beats, Event, Outcome, Receiver, What};
use meridian::health::{self, Prober, Target, Verdict};
use meridian::snapshot::{Served, Snapshot};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const SERVER: &str = "192.0.2.1";
const LONG: Duration = Duration::from_secs(20);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A stream server on threads of its own; while it stands still it takes connections and says nothing, as a stopped
/// process does.
struct Origin {
    address: SocketAddr,
    still: Arc<AtomicBool>,
}

impl Origin {
    fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Origin { address: listener.local_addr().unwrap(), still: Arc::default() };
        let still = origin.still.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, still) = (stream.unwrap(), still.clone());
                std::thread::spawn(move || {
                    let mut buffer = [0; 1024];
                    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                        while still.load(Ordering::SeqCst) {
                            std::thread::sleep(ms(5));
                        }
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                    }
                });
            }
        });
        origin
    }
}

/// The part of a node that has to do with heartbeats.
struct Node {
    address: SocketAddr,
    beats: Beats,
    events: mpsc::Receiver<Event>,
    verdicts: mpsc::Receiver<health::Event>,
    prober: Prober,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Node {
    async fn start(address: &str, keys: &std::path::Path, origin: &Origin) -> Node {
        let http = HttpCheck { path: "/".into(), host: "live.stream.example".into(), status: vec![], contains: None };
        let check = Check {
            kind: CheckKind::Http(http),
            every: ms(500),
            timeout: ms(250),
            adaptive: false,
            fall: 3,
            rise: 2,
            port: origin.address.port(),
            heartbeat: Some(ms(100)),
            load: Default::default(),
        };
        let beats_of = Some(SERVER.parse().unwrap());
        let targets = [Target { address: origin.address, check: Arc::new(check), beats_of }];
        let receiver = Receiver::bind(address.parse().unwrap()).unwrap();
        let address = receiver.local_addr().unwrap();
        let (verdict_sender, mut verdicts) = mpsc::channel(64);
        let (event_sender, events) = mpsc::channel(64);
        let (beats, stop) = (Beats::default(), CancellationToken::new());
        let mut prober = Prober::new(verdict_sender);
        prober.retarget(&targets);
        beats.retarget(&targets);
        let keys = KeyFile::open(keys).unwrap();
        let task = receiver.serve(keys, beats.clone(), prober.doubter(), event_sender, stop.clone()).unwrap();
        let first = timeout(LONG, verdicts.recv()).await.unwrap().unwrap();
        assert_eq!(first.verdict, Verdict::Up);
        Node { address, beats, events, verdicts, prober, stop, task }
    }

    fn tally(&self) -> Arc<Tally> {
        self.beats.of(SERVER.parse::<IpAddr>().unwrap()).unwrap()
    }

    /// The next event of which `wanted` is true; others are passed over.
    async fn event(&mut self, wanted: impl Fn(&What) -> bool) {
        let found = async { while !wanted(&self.events.recv().await.unwrap().what) {} };
        timeout(LONG, found).await.expect("the event comes");
    }

    async fn found(&mut self) {
        self.event(|what| matches!(what, What::Found { .. })).await;
    }

    async fn verdict(&mut self) -> health::Event {
        timeout(LONG, self.verdicts.recv()).await.expect("a verdict").unwrap()
    }

    /// Waits until so many more beats have counted.
    async fn more(&self, beats: u64) {
        let (tally, before) = (self.tally(), self.tally().count(Outcome::Accepted));
        let counted = async {
            while tally.count(Outcome::Accepted) < before + beats {
                sleep(ms(1)).await;
            }
        };
        timeout(LONG, counted).await.expect("beats count");
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        drop(self.prober);
    }
}

struct Agent(Child);

impl Agent {
    fn start(node: SocketAddr, keys: &std::path::Path, more: &[&str]) -> Agent {
        let child = Command::new(env!("CARGO_BIN_EXE_meridian"))
            .args(["agent", "--to", &node.to_string(), "--server", SERVER, "--key-file"])
            .arg(keys)
            .args(more)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Agent(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Files {
    _folder: tempfile::TempDir,
    keys: PathBuf,
    agent_keys: PathBuf,
    ready: PathBuf,
}

/// A key that node and agent share.
fn files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let files =
        Files { keys: path("heartbeat.keys"), agent_keys: path("agent.keys"), ready: path("ready"), _folder: folder };
    let line = new_line("edge").unwrap();
    std::fs::write(&files.keys, &line).unwrap();
    std::fs::write(&files.agent_keys, &line).unwrap();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_is_lost_and_its_server_stays_up() {
    let (files, origin) = (files(), Origin::start());
    let mut node = Node::start("127.0.0.1:0", &files.keys, &origin).await;
    let agent = Agent::start(node.address, &files.agent_keys, &[]);
    node.found().await;
    node.more(5).await;
    drop(agent);
    node.event(|what| matches!(what, What::Lost { .. })).await;
    assert!(node.tally().late() >= 1 && node.tally().lost() == 1);
    assert!(node.verdicts.try_recv().is_err(), "probes answered for the server");
    let again = Agent::start(node.address, &files.agent_keys, &[]);
    node.found().await;
    drop(again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_paused_goes_on_where_it_was() {
    let (files, origin) = (files(), Origin::start());
    let mut node = Node::start("127.0.0.1:0", &files.keys, &origin).await;
    let agent = Agent::start(node.address, &files.agent_keys, &[]);
    node.found().await;
    agent.signal(Signal::STOP);
    node.event(|what| matches!(what, What::Lost { .. })).await;
    agent.signal(Signal::CONT);
    node.found().await;
    node.more(5).await;
    let tally = node.tally();
    assert_eq!((tally.count(Outcome::OutOfTime), tally.count(Outcome::Replayed)), (0, 0));
    assert!(node.verdicts.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_with_its_agent_is_down_at_once() {
    let (files, origin) = (files(), Origin::start());
    let mut node = Node::start("127.0.0.1:0", &files.keys, &origin).await;
    let agent = Agent::start(node.address, &files.agent_keys, &[]);
    node.found().await;
    node.more(10).await;
    let start = Instant::now();
    agent.signal(Signal::STOP);
    origin.still.store(true, Ordering::SeqCst);
    let down = node.verdict().await;
    eprintln!("down after {:?}: {}", start.elapsed(), down.cause);
    assert_eq!(down.verdict, Verdict::Down);
    assert!(start.elapsed() < ms(1500), "{:?}", start.elapsed());
    origin.still.store(false, Ordering::SeqCst);
    assert_eq!(node.verdict().await.verdict, Verdict::Up);
    agent.signal(Signal::CONT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_restarted_hears_its_agents_within_a_second() {
    let (files, origin) = (files(), Origin::start());
    let mut node = Node::start("127.0.0.1:0", &files.keys, &origin).await;
    let _agent = Agent::start(node.address, &files.agent_keys, &[]);
    node.found().await;
    let address = node.address.to_string();
    node.stop().await;
    let mut node = Node::start(&address, &files.keys, &origin).await;
    let start = Instant::now();
    node.found().await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_told_to_stop_says_so_and_exits_with_0() {
    let (files, origin) = (files(), Origin::start());
    let mut node = Node::start("127.0.0.1:0", &files.keys, &origin).await;
    let mut agent = Agent::start(node.address, &files.agent_keys, &[]);
    node.found().await;
    agent.signal(Signal::TERM);
    node.event(|what| *what == What::Left).await;
    let status = tokio::task::block_in_place(|| agent.0.wait()).unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(node.tally().lost(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_changed_while_beats_go_on() {
    let (files, origin) = (files(), Origin::start());
    let old = std::fs::read_to_string(&files.keys).unwrap();
    let new = new_line("edge-2").unwrap();
    std::fs::write(&files.keys, format!("{old}\n{new}\n")).unwrap();
    let mut node = Node::start("127.0.0.1:0", &files.keys, &origin).await;
    let _agent = Agent::start(node.address, &files.agent_keys, &[]);
    node.found().await;
    std::fs::write(&files.agent_keys, &new).unwrap();
    sleep(ms(1500)).await;
    std::fs::write(&files.keys, &new).unwrap();
    sleep(ms(1500)).await;
    node.more(5).await;
    assert_eq!((node.beats.count(Outcome::UnknownKey), node.beats.count(Outcome::Forged)), (0, 0));
    assert_eq!(node.tally().count(Outcome::NoSession), 1, "the session went on");
    assert_eq!(node.tally().lost(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_ready_is_down_though_it_answers_until_it_is() {
    let (files, origin) = (files(), Origin::start());
    std::fs::write(&files.ready, "").unwrap();
    let mut node = Node::start("127.0.0.1:0", &files.keys, &origin).await;
    let ready = ["--ready-command", "test", "-e", files.ready.to_str().unwrap()];
    let _agent = Agent::start(node.address, &files.agent_keys, &ready);
    node.found().await;
    std::fs::remove_file(&files.ready).unwrap();
    let down = node.verdict().await;
    assert_eq!((down.verdict, &*down.cause), (Verdict::Down, "its agent says it is not ready"));
    sleep(ms(1500)).await;
    assert!(node.verdicts.try_recv().is_err(), "answers do not bring it back");
    std::fs::write(&files.ready, "").unwrap();
    assert_eq!(node.verdict().await.verdict, Verdict::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_stuck_holds_up_no_beat() {
    let (files, origin) = (files(), Origin::start());
    let mut node = Node::start("127.0.0.1:0", &files.keys, &origin).await;
    let _agent = Agent::start(node.address, &files.agent_keys, &["--sessions-command", "sleep", "600"]);
    node.found().await;
    node.more(30).await;
    let (load, _) = node.tally().load().expect("figures of the machine");
    assert!(load.cpu_permille.is_some() && load.sessions.is_none(), "{load:?}");
    assert_eq!(node.tally().lost(), 0);
}

#[test]
fn an_agent_without_a_sound_file_of_keys_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("agent.keys");
    let run = || {
        let out = Command::new(env!("CARGO_BIN_EXE_meridian"))
            .args(["agent", "--to", "127.0.0.1:1", "--server", SERVER, "--key-file"])
            .arg(&keys)
            .output()
            .unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, said) = run();
    assert_eq!(code, Some(1));
    assert!(said.contains("agent.keys: cannot be read"), "{said}");
    std::fs::write(&keys, "edge c2hvcnQ=\n").unwrap();
    let (code, said) = run();
    assert_eq!(code, Some(1));
    assert!(said.contains("line 1: the secret of edge has 5 bytes"), "{said}");
}

#[test]
fn heartbeats_are_expected_of_public_addresses_where_the_check_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let zone = folder.path().join("stream.example.toml");
    let text = r#"
zone = "stream.example"
ns   = ["ns1.example.net"]
[check]
http = "/"
heartbeat = "100ms"
[region.us]
near = "Ashburn"
[[region.us.server]]
a = "192.0.2.11"
aaaa = "2001:db8:1::11"
probe = "127.0.0.1:8081"
[region.eu]
near  = "Frankfurt"
a     = ["192.0.2.21"]
check = { tcp = 1935, heartbeat = "1s" }
[region.ap]
near  = "Singapore"
a     = ["192.0.2.31"]
check = { tcp = 1935 }
"#;
    std::fs::write(&zone, text).unwrap();
    let loaded = load_zones(&[zone], &Shared::default());
    assert!(!loaded.has_errors(), "{:#?}", loaded.diagnostics);
    let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
    let database = Database::load(&[], None).unwrap();
    let snapshot = Snapshot::compile(zones, &Arc::new(database), |_| Verdict::Up, None);
    let mut expected: Vec<(String, u64)> = snapshot
        .targets()
        .iter()
        .map(|target| (target.beats_of.unwrap().to_string(), target.check.heartbeat.unwrap().as_millis() as u64))
        .collect();
    expected.sort();
    let all = [("192.0.2.11", 100), ("192.0.2.21", 1000), ("192.0.2.31", 100), ("2001:db8:1::11", 100)];
    assert_eq!(expected, all.map(|(address, every)| (address.to_owned(), every)));
}
