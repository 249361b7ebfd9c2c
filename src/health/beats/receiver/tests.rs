//! The receiver on real sockets, beside a hand that plays agents good and bad.

mod distant;

use std::path::PathBuf;
use std::sync::Mutex;

use ring::hmac;
use tokio::time::timeout;

use super::super::figures::Presence;
use super::super::packet::{Addresses, Load, Nonce, State};
use super::*;
use crate::config::settings::{Check, CheckKind};

const SERVER: &str = "192.0.2.1";
const EVERY: Duration = Duration::from_millis(100);
const SECRETS: [&str; 2] = ["MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA=="];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn target() -> Target {
    let address: IpAddr = SERVER.parse().unwrap();
    let check = Check {
        kind: CheckKind::Tcp,
        every: ms(500),
        timeout: ms(250),
        adaptive: false,
        fall: 3,
        rise: 10,
        port: 80,
        heartbeat: Some(EVERY),
        load: Default::default(),
    };
    Target { address: (address, 80).into(), check: Arc::new(check), beats_of: Some(address) }
}

/// Remembers what it heard.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Word>>>);

impl Ear for Heard {
    fn hear(&self, target: &Target, word: Word) {
        assert_eq!(target.beats_of, Some(SERVER.parse().unwrap()));
        self.0.lock().unwrap().push(word);
    }
}

impl Heard {
    fn take(&self) -> Vec<Word> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A node that expects heartbeats of one server.
struct Node {
    address: SocketAddr,
    beats: Beats,
    heard: Heard,
    events: mpsc::Receiver<Event>,
    keys: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Node {
    fn start(keys: &str) -> Node {
        Node::start_at("127.0.0.1:0".parse().unwrap(), keys)
    }

    fn start_at(address: SocketAddr, keys: &str) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heartbeat.keys");
        std::fs::write(&path, keys).unwrap();
        let receiver = Receiver::bind(address).unwrap();
        let address = receiver.local_addr().unwrap();
        let (sender, events) = mpsc::channel(16);
        let (beats, heard, stop) = (Beats::default(), Heard::default(), CancellationToken::new());
        beats.retarget(&[target()]);
        let file = KeyFile::open(&path).unwrap();
        let task = receiver.serve(file, beats.clone(), heard.clone(), sender, stop.clone()).unwrap();
        Node { address, beats, heard, events, keys: path, stop, task, _folder: folder }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Waits for so many beats of the server with this outcome.
    async fn count(&self, outcome: Outcome, at_least: u64) {
        let count = || match outcome.is_of_a_server() {
            true => self.beats.of(SERVER.parse().unwrap()).unwrap().count(outcome),
            false => self.beats.count(outcome),
        };
        let counted = timeout(Duration::from_secs(10), async {
            while count() < at_least {
                sleep(ms(1)).await;
            }
        });
        counted.await.unwrap_or_else(|_| panic!("{outcome:?}: {} of {at_least}", count()));
        assert_eq!(count(), at_least, "{outcome:?}");
    }

    async fn event(&mut self) -> What {
        let event = timeout(Duration::from_secs(10), self.events.recv()).await.expect("an event").unwrap();
        assert_eq!(event.server, SERVER.parse::<IpAddr>().unwrap());
        event.what
    }
}

/// Plays an agent, beat by beat.
struct Hand {
    socket: UdpSocket,
    name: &'static str,
    key: hmac::Key,
    next: Beat,
    start: Instant,
}

impl Hand {
    async fn new(node: SocketAddr, secret: usize) -> Hand {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(node).await.unwrap();
        let server = Addresses::from(SERVER.parse::<IpAddr>().unwrap());
        let bytes = data_encoding::BASE64.decode(SECRETS[secret].as_bytes()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let (state, load) = (State::Ready, Load::default());
        let next = Beat { server, instance: 7, nonce: None, sequence: 0, sent: 0, every_ms: 100, state, load };
        Hand { socket, name: ["old", "new"][secret], key, next, start: Instant::now() }
    }

    /// The next beat in wire form, dated so many microseconds ahead.
    fn seal(&mut self, ahead: u64) -> Vec<u8> {
        self.next.sequence += 1;
        self.next.sent = self.start.elapsed().as_micros() as u64 + ahead;
        let mut bytes = Vec::new();
        Packet::Beat(self.next).seal(self.name, &self.key, &mut bytes);
        bytes
    }

    async fn send(&mut self) {
        let bytes = self.seal(0);
        self.socket.send(&bytes).await.unwrap();
    }

    /// What comes back within a moment.
    async fn challenge(&self) -> Option<Nonce> {
        let mut bytes = [0; 512];
        let length = timeout(ms(300), self.socket.recv(&mut bytes)).await.ok()?.unwrap();
        match Sealed::read(&bytes[..length]).unwrap().open(&self.key).unwrap() {
            Packet::Challenge(challenge) => {
                assert_eq!((challenge.instance, challenge.sequence), (self.next.instance, self.next.sequence));
                Some(challenge.nonce)
            }
            Packet::Beat(_) => panic!("a beat came back"),
        }
    }

    /// Begins a session.
    async fn begin(&mut self) {
        self.send().await;
        self.next.nonce = Some(self.challenge().await.expect("a challenge"));
        self.send().await;
    }
}

fn old() -> String {
    format!("old {}\n", SECRETS[0])
}

#[tokio::test]
async fn a_beat_counts_once_its_challenge_is_answered() {
    let mut node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    hand.next.load = Load { sessions: Some(12), bits_per_s: Some(5_000_000), cpu_permille: Some(250) };
    hand.begin().await;
    node.count(Outcome::Accepted, 1).await;
    node.count(Outcome::NoSession, 1).await;
    assert!(matches!(node.event().await, What::Found { key, from }
        if &*key == "old" && from == hand.socket.local_addr().unwrap()));
    let tally = node.beats.of(SERVER.parse().unwrap()).unwrap();
    assert_eq!(tally.load().unwrap().0, hand.next.load);
    assert_eq!(tally.presence(), Presence::Ready);
    assert!(tally.last_beat_age(Instant::now()).unwrap() < Duration::from_secs(5));
}

#[tokio::test]
async fn replayed_and_reordered_beats_do_not_count() {
    let node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    hand.begin().await;
    let [second, third] = [hand.seal(0), hand.seal(0)];
    for bytes in [&third, &second, &third] {
        hand.socket.send(bytes).await.unwrap();
    }
    node.count(Outcome::Replayed, 2).await;
    node.count(Outcome::Accepted, 2).await;
    assert_eq!(hand.challenge().await, None, "who plays back is told nothing");
}

#[tokio::test]
async fn forged_beats_and_other_nonsense_are_counted_and_never_answered() {
    let node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    let mut forger = Hand::new(node.address, 1).await;
    forger.name = "old";
    forger.send().await;
    node.count(Outcome::Forged, 1).await;
    forger.name = "new";
    forger.send().await;
    node.count(Outcome::UnknownKey, 1).await;
    let mut bytes = hand.seal(0);
    *bytes.last_mut().unwrap() ^= 1;
    hand.socket.send(&bytes).await.unwrap();
    node.count(Outcome::Forged, 2).await;
    for nonsense in [&b""[..], b"MB", &[0xFF; 1500]] {
        hand.socket.send(nonsense).await.unwrap();
    }
    node.count(Outcome::Malformed, 3).await;
    hand.next.server = Addresses::from("192.0.2.99".parse::<IpAddr>().unwrap());
    hand.send().await;
    node.count(Outcome::UnknownServer, 1).await;
    assert_eq!((hand.challenge().await, forger.challenge().await), (None, None));
    assert_eq!(node.beats.servers().len(), 1, "nothing grows");
    node.count(Outcome::Accepted, 0).await;
}

#[tokio::test]
async fn beats_that_are_held_back_or_dated_ahead_do_not_count() {
    let mut node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    hand.begin().await;
    assert!(matches!(node.event().await, What::Found { .. }));
    let held = hand.seal(0);
    let ahead = hand.seal(1_100_000);
    hand.socket.send(&ahead).await.unwrap();
    node.count(Outcome::OutOfTime, 1).await;
    assert!(matches!(node.event().await, What::Refused { why: Outcome::OutOfTime, .. }));
    sleep(ms(1200)).await;
    hand.socket.send(&held).await.unwrap();
    node.count(Outcome::OutOfTime, 2).await;
    node.count(Outcome::Accepted, 1).await;
}

#[tokio::test]
async fn what_was_captured_before_a_restart_of_the_node_does_not_count_and_a_new_session_is_quick() {
    let node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    hand.begin().await;
    let captured = hand.seal(0);
    let address = node.address;
    node.stop().await;
    let node = Node::start_at(address, &old());
    hand.socket.send(&captured).await.unwrap();
    node.count(Outcome::NoSession, 1).await;
    node.count(Outcome::Accepted, 0).await;
    let start = Instant::now();
    hand.next.nonce = Some(hand.challenge().await.expect("a challenge"));
    hand.send().await;
    node.count(Outcome::Accepted, 1).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_was_captured_before_a_restart_of_the_agent_does_not_count() {
    let node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    hand.begin().await;
    let captured = hand.seal(0);
    (hand.next.instance, hand.next.nonce, hand.next.sequence) = (8, None, 0);
    hand.begin().await;
    node.count(Outcome::Accepted, 2).await;
    hand.socket.send(&captured).await.unwrap();
    node.count(Outcome::StaleSession, 1).await;
    assert_eq!(hand.challenge().await, None);
}

#[tokio::test]
async fn a_key_speaks_for_its_servers_only() {
    let mut node = Node::start(&format!("old {} 198.51.100.0/24\n{}", SECRETS[0], old().replace("old", "any")));
    let mut hand = Hand::new(node.address, 0).await;
    hand.send().await;
    node.count(Outcome::NotAllowed, 1).await;
    assert!(matches!(node.event().await, What::Refused { why: Outcome::NotAllowed, .. }));
    assert_eq!(hand.challenge().await, None);
    hand.name = "any";
    hand.begin().await;
    node.count(Outcome::Accepted, 1).await;
}

#[tokio::test]
async fn keys_are_changed_without_a_gap() {
    let node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    hand.begin().await;
    std::fs::write(&node.keys, format!("{}new {}\n", old(), SECRETS[1])).unwrap();
    let mut turned = Hand::new(node.address, 1).await;
    let mut unknown = 0;
    // The agent changes over when it likes; until the node knows the new key, the old one counts.
    timeout(Duration::from_secs(10), async {
        loop {
            hand.send().await;
            turned.send().await;
            match turned.challenge().await {
                Some(nonce) => break turned.next.nonce = Some(nonce),
                None => unknown += 1,
            }
        }
    })
    .await
    .expect("the new key is read");
    node.count(Outcome::UnknownKey, unknown).await;
    // The session goes on under the other key: the next beat counts.
    turned.next = hand.next;
    turned.start = hand.start;
    let before = node.beats.of(SERVER.parse().unwrap()).unwrap().count(Outcome::Accepted);
    turned.send().await;
    node.count(Outcome::Accepted, before + 1).await;
    std::fs::write(&node.keys, format!("new {}\n", SECRETS[1])).unwrap();
    sleep(KEYS_LOOK + ms(300)).await;
    turned.send().await;
    node.count(Outcome::Accepted, before + 2).await;
    hand.send().await;
    node.count(Outcome::UnknownKey, unknown + 1).await;
}

#[tokio::test]
async fn a_late_beat_is_a_doubt_and_the_next_one_clears_it() {
    let mut node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    hand.begin().await;
    assert!(matches!(node.event().await, What::Found { .. }));
    let start = Instant::now();
    timeout(Duration::from_secs(5), async {
        while node.heard.0.lock().unwrap().is_empty() {
            sleep(ms(1)).await;
        }
    })
    .await
    .expect("a doubt");
    let after = start.elapsed();
    assert!((ms(130)..ms(600)).contains(&after), "{after:?}");
    hand.send().await;
    node.count(Outcome::Accepted, 2).await;
    assert_eq!(node.heard.take(), [Word::Late, Word::Came]);
    assert!(
        matches!(node.event().await, What::Lost { silent, slow: None, untold: 0 } if silent >= Duration::from_secs(1))
    );
    assert_eq!(node.heard.take(), [Word::Late, Word::Ready]);
    hand.send().await;
    assert!(matches!(node.event().await, What::Found { .. }), "beats are watched again");
    let tally = node.beats.of(SERVER.parse().unwrap()).unwrap();
    assert_eq!((tally.late(), tally.lost()), (2, 1));
}

#[tokio::test]
async fn an_agent_slower_than_its_zone_is_told_of_with_the_cause_and_not_for_ever() {
    let mut node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    hand.next.every_ms = 2000;
    hand.begin().await;
    let slow = Slow { every: ms(2000), expected: EVERY };
    assert_eq!(slow.to_string(), "beats come every 2s, the zone expects 100ms");
    for _ in 0..3 {
        assert!(matches!(node.event().await, What::Found { .. }));
        assert!(matches!(node.event().await, What::Lost { slow: Some(why), untold: 0, .. } if why == slow));
        hand.send().await;
    }
    let tally = node.beats.of(SERVER.parse().unwrap()).unwrap();
    timeout(Duration::from_secs(10), async {
        while tally.lost() < 4 {
            sleep(ms(10)).await;
        }
    })
    .await
    .expect("lost once more");
    assert!(node.events.try_recv().is_err(), "neither that it was found nor that it was lost");
}

#[tokio::test]
async fn not_ready_is_heard_at_once_and_by_targets_that_are_new() {
    let mut node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    hand.next.state = State::NotReady;
    hand.begin().await;
    assert!(matches!(node.event().await, What::Found { .. }));
    assert_eq!(node.event().await, What::NotReady);
    assert_eq!(node.heard.take(), [Word::NotReady]);
    node.beats.retarget(&[target()]);
    timeout(Duration::from_secs(5), async {
        while node.heard.0.lock().unwrap().is_empty() {
            hand.send().await;
            sleep(ms(5)).await;
        }
    })
    .await
    .expect("told again");
    assert_eq!(node.heard.take(), [Word::NotReady]);
    hand.next.state = State::Ready;
    hand.send().await;
    assert_eq!(node.event().await, What::Ready);
    assert_eq!(node.heard.take(), [Word::Ready]);
}

#[tokio::test]
async fn an_agent_that_leaves_is_not_missed() {
    let mut node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    hand.begin().await;
    hand.next.state = State::Leaving;
    hand.send().await;
    assert!(matches!(node.event().await, What::Found { .. }));
    assert_eq!(node.event().await, What::Left);
    node.heard.take();
    sleep(ms(1500)).await;
    assert_eq!(node.heard.take(), []);
    assert!(node.events.try_recv().is_err());
}

#[tokio::test]
async fn beats_of_a_server_that_no_zone_has_any_more_are_dropped() {
    let node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    hand.begin().await;
    node.count(Outcome::Accepted, 1).await;
    node.beats.retarget(&[]);
    hand.send().await;
    node.count(Outcome::UnknownServer, 1).await;
}

// The runtime has one thread, and that stands still: beats wait in the socket, and no server is doubted for it.
#[tokio::test]
async fn a_starved_node_reads_what_waits_before_it_doubts() {
    let node = Node::start(&old());
    let mut hand = Hand::new(node.address, 0).await;
    hand.begin().await;
    node.count(Outcome::Accepted, 1).await;
    for round in 0..3 {
        std::thread::sleep(ms(400));
        let bytes = hand.seal(0);
        hand.socket.try_send(&bytes).unwrap();
        node.count(Outcome::Accepted, round + 2).await;
    }
    assert_eq!(node.heard.take(), []);
}
