//! What is known of each server's agent: for metrics, status, and whoever steers by load.
//!
//! Written by the one task that reads beats; read by anybody at any time, without a lock. The servers are those whose
//! check expects heartbeats, so what a packet says makes nothing grow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;

use super::super::Target;
use super::packet::{Load, State};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted = 0,
    /// Without a session yet, or with one of a former run: answered by a challenge.
    NoSession = 1,
    /// Of a session that a newer one has replaced, or too long after its challenge.
    StaleSession = 2,
    /// Its sequence number was seen already, or a later one was.
    Replayed = 3,
    /// Held back for more than a second, or dated more than a second ahead.
    OutOfTime = 4,
    /// Under a key that may not speak for the server.
    NotAllowed = 5,
    // From here on the server is not known, or not for sure.
    Malformed = 6,
    UnknownKey = 7,
    Forged = 8,
    UnknownServer = 9,
}

impl Outcome {
    pub const ALL: [Outcome; 10] = [
        Outcome::Accepted,
        Outcome::NoSession,
        Outcome::StaleSession,
        Outcome::Replayed,
        Outcome::OutOfTime,
        Outcome::NotAllowed,
        Outcome::Malformed,
        Outcome::UnknownKey,
        Outcome::Forged,
        Outcome::UnknownServer,
    ];

    /// The value of the metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::NoSession => "no_session",
            Outcome::StaleSession => "stale_session",
            Outcome::Replayed => "replayed",
            Outcome::OutOfTime => "out_of_time",
            Outcome::NotAllowed => "not_allowed",
            Outcome::Malformed => "malformed",
            Outcome::UnknownKey => "unknown_key",
            Outcome::Forged => "forged",
            Outcome::UnknownServer => "unknown_server",
        }
    }

    /// Whether it is counted for a server.
    pub fn is_of_a_server(self) -> bool {
        (self as usize) <= Outcome::NotAllowed as usize
    }
}

/// What is known of a server's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// None was heard, or it was lost or has left.
    Absent = 0,
    Ready = 1,
    NotReady = 2,
}

/// The figures of one server: of one public address.
#[derive(Debug)]
pub struct Server {
    pub address: IpAddr,
    /// How often it shall beat: the shortest interval of its checks.
    pub every: Duration,
    pub targets: Vec<Arc<Target>>,
    /// Kept while the server stays known, whatever else of it changes.
    pub tally: Arc<Tally>,
}

#[derive(Debug)]
pub struct Tally {
    counts: [AtomicU64; Outcome::NotAllowed as usize + 1],
    late: AtomicU64,
    lost: AtomicU64,
    presence: AtomicU8,
    born: Instant,
    /// Microseconds after `born`, plus one; 0 before the first.
    last: AtomicU64,
    load: ArcSwapOption<(Load, Instant)>,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            counts: Default::default(),
            late: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            presence: AtomicU8::new(Presence::Absent as u8),
            born: Instant::now(),
            last: AtomicU64::new(0),
            load: ArcSwapOption::empty(),
        }
    }

    /// Beats with this outcome; 0 for those that are not counted for a server.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.counts.get(outcome as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// Times a beat was half an interval late.
    pub fn late(&self) -> u64 {
        self.late.load(Relaxed)
    }

    /// Times the agent was lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    pub fn presence(&self) -> Presence {
        match self.presence.load(Relaxed) {
            v if v == Presence::Ready as u8 => Presence::Ready,
            v if v == Presence::NotReady as u8 => Presence::NotReady,
            _ => Presence::Absent,
        }
    }

    /// Time since the last beat that counted.
    pub fn last_beat_age(&self, now: Instant) -> Option<Duration> {
        let last = self.last.load(Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.born + Duration::from_micros(last)))
    }

    /// The load that was reported last, and when. It stays when the agent is lost: its age tells.
    pub fn load(&self) -> Option<(Load, Instant)> {
        self.load.load().as_deref().copied()
    }

    pub(super) fn add(&self, outcome: Outcome) {
        if let Some(count) = self.counts.get(outcome as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn beat(&self, state: State, load: Load, now: Instant) {
        self.add(Outcome::Accepted);
        let us = u64::try_from(now.saturating_duration_since(self.born).as_micros()).unwrap_or(u64::MAX - 1);
        self.last.store(us.saturating_add(1), Relaxed);
        self.set_presence(match state {
            State::Ready => Presence::Ready,
            State::NotReady => Presence::NotReady,
            State::Leaving => Presence::Absent,
        });
        if load != Load::default() {
            self.load.store(Some(Arc::new((load, now))));
        }
    }

    pub(super) fn add_late(&self) {
        self.late.fetch_add(1, Relaxed);
    }

    pub(super) fn add_lost(&self) {
        self.lost.fetch_add(1, Relaxed);
        self.set_presence(Presence::Absent);
    }

    fn set_presence(&self, presence: Presence) {
        self.presence.store(presence as u8, Relaxed);
    }
}

/// The servers by public address.
pub type Servers = HashMap<IpAddr, Server>;

/// A handle to the figures of all agents. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Beats(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    servers: ArcSwap<Servers>,
    /// Told when `servers` is another.
    changed: Notify,
    /// Packets of no server.
    counts: [AtomicU64; Outcome::ALL.len()],
}

impl Beats {
    /// From now on heartbeats are expected of the servers of these targets ([`Target::beats_of`]), and of no others.
    /// Servers that stay keep their figures and sessions. To be called after the prober was told of the targets.
    pub fn retarget(&self, targets: &[Target]) {
        let before = self.0.servers.load();
        let mut servers = Servers::new();
        for target in targets {
            let (Some(address), Some(every)) = (target.beats_of, target.check.heartbeat) else { continue };
            let tally = || before.get(&address).map_or_else(|| Arc::new(Tally::new()), |server| server.tally.clone());
            let server =
                servers.entry(address).or_insert_with(|| Server { address, every, targets: vec![], tally: tally() });
            server.every = server.every.min(every);
            server.targets.push(Arc::new(target.clone()));
        }
        self.0.servers.store(Arc::new(servers));
        self.0.changed.notify_one();
    }

    /// All servers that heartbeats are expected of.
    pub fn servers(&self) -> Arc<Servers> {
        self.0.servers.load_full()
    }

    /// The figures of the server with this public address; `None` when no heartbeats are expected of it.
    pub fn of(&self, address: IpAddr) -> Option<Arc<Tally>> {
        self.0.servers.load().get(&address).map(|server| server.tally.clone())
    }

    /// Packets with this outcome that are not counted for a server.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.0.counts[outcome as usize].load(Relaxed)
    }

    pub(super) fn add(&self, outcome: Outcome) {
        self.0.counts[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Check, CheckKind};

    fn target(address: &str, heartbeat: Option<u64>, port: u16) -> Target {
        let heartbeat = heartbeat.map(Duration::from_millis);
        let (every, timeout) = (Duration::from_millis(500), Duration::from_millis(250));
        let check = Check {
            kind: CheckKind::Tcp,
            every,
            timeout,
            adaptive: false,
            fall: 3,
            rise: 10,
            port,
            heartbeat,
            load: Default::default(),
        };
        let ip: IpAddr = address.parse().unwrap();
        Target { address: (ip, port).into(), check: Arc::new(check), beats_of: heartbeat.map(|_| ip) }
    }

    #[test]
    fn a_server_is_one_whatever_its_targets_and_beats_at_the_shortest_interval() {
        let beats = Beats::default();
        let targets =
            [target("192.0.2.1", Some(500), 80), target("192.0.2.1", Some(100), 81), target("192.0.2.2", None, 80)];
        beats.retarget(&targets);
        let servers = beats.servers();
        assert_eq!(servers.len(), 1, "only those that heartbeats are expected of");
        let server = &servers[&"192.0.2.1".parse::<IpAddr>().unwrap()];
        assert_eq!((server.every, server.targets.len()), (Duration::from_millis(100), 2));
    }

    #[test]
    fn figures_stay_while_the_server_does() {
        let beats = Beats::default();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        beats.retarget(&[target("192.0.2.1", Some(100), 80)]);
        let now = Instant::now();
        let load = Load { sessions: Some(7), ..Load::default() };
        beats.of(address).unwrap().beat(State::Ready, load, now);
        beats.retarget(&[target("192.0.2.1", Some(200), 80)]);
        let tally = beats.of(address).unwrap();
        assert_eq!((tally.count(Outcome::Accepted), tally.presence()), (1, Presence::Ready));
        assert_eq!(tally.load(), Some((load, now)));
        let age = tally.last_beat_age(now + Duration::from_secs(1)).unwrap();
        assert!((Duration::from_secs(1)..Duration::from_millis(1001)).contains(&age), "{age:?}");
        beats.retarget(&[]);
        assert!(beats.of(address).is_none());
    }

    #[test]
    fn a_beat_without_load_leaves_the_last_load_with_its_time() {
        let (tally, now) = (Tally::new(), Instant::now());
        let load = Load { cpu_permille: Some(250), ..Load::default() };
        tally.beat(State::Ready, load, now);
        tally.beat(State::Ready, Load::default(), now + Duration::from_secs(5));
        assert_eq!(tally.load(), Some((load, now)));
    }

    #[test]
    fn outcomes_have_distinct_labels_in_order() {
        let labels: std::collections::BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.label()).collect();
        assert_eq!(labels.len(), Outcome::ALL.len());
        assert!(Outcome::ALL.iter().enumerate().all(|(index, outcome)| *outcome as usize == index));
    }
}
