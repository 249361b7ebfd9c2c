//! The node's end: one task that reads beats, answers those without a session, and notices those that do not come.
//!
//! All that waits in the socket is read before any beat is judged late, and a timer that rang late is no lateness of a
//! beat: a busy node doubts nobody for its own sake. Nothing is ever sent to who has no key, and never more than was
//! received.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::super::doubts::{Doubt, Doubter};
use super::super::{Reports, Target};
use super::figures::{Beats, Outcome, Server, Servers};
use super::gate::{Arrival, Fate, Gate, Mint, Refusal};
use super::hush::Hush;
use super::keys::KeyFile;
use super::packet::{Beat, Challenge, Load, MAX_PACKET, Packet, Sealed};
use super::watch::{Step, Watch};

/// Asked of the kernel, which may give less: beats of thousands of servers that come while this machine is busy.
const SOCKET_BUFFER: usize = 4 << 20;
/// Packets read in a row before lateness is judged all the same: who floods the socket must not hide that beats stop.
const MAX_DRAIN: usize = 4096;
/// Packets read before other tasks of the runtime get their turn.
const MAX_TURN: usize = 256;
/// No packet is taken to have waited in the socket for longer.
const MAX_WAITED: Duration = Duration::from_secs(5);
/// The socket is looked at no less often: a packet has come at most so long before it is read, unless this machine
/// is too busy to look.
const GLANCE: Duration = Duration::from_millis(100);
/// How often the file of keys is looked at.
const KEYS_LOOK: Duration = Duration::from_secs(1);
/// Between two words about the load of one server.
const LOAD_GAP: Duration = Duration::from_secs(1);
/// Between two words about refused beats of one server.
const REFUSED_GAP: Duration = Duration::from_secs(60);
/// After an error of the socket that is not "nothing there".
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Probes that confirm a late beat, and the bounds of their time-out where the server is near.
const CONFIRMATIONS: u32 = 2;
const CONFIRM_MIN: Duration = Duration::from_millis(100);
const CONFIRM_MAX: Duration = Duration::from_millis(150);
/// They go over new connections, which take three round trips (TCP, TLS 1.3, HTTP) where most probes, over a kept one,
/// take one; and one more, for what varies.
const CONFIRM_TIMES: u32 = 4;

/// What heartbeats tell of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// A beat is late.
    Late,
    /// It came all the same.
    Came,
    /// The server says that it takes nobody; until `Ready`.
    NotReady,
    Ready,
}

/// Who judges targets. Must not block.
pub trait Ear: Send + Sync + 'static {
    fn hear(&self, target: &Target, word: Word);
    /// The load that the server with this public address has reported; once a second for a server.
    fn load(&self, _server: IpAddr, _load: &Load) {}
}

/// Tells of doubts to the one, and of load to the other.
pub struct Ears<E> {
    pub ear: E,
    pub reports: Arc<dyn Reports>,
}

impl<E: Ear> Ear for Ears<E> {
    fn hear(&self, target: &Target, word: Word) {
        self.ear.hear(target, word);
    }

    fn load(&self, server: IpAddr, load: &Load) {
        self.reports.beat(server, load);
    }
}

impl Ear for Doubter {
    fn hear(&self, target: &Target, word: Word) {
        match word {
            Word::Late => {
                if let Some(timeout) = confirm_timeout(self.recent_p95(target), target.check.timeout) {
                    self.doubt(target, Doubt { confirmations: CONFIRMATIONS, timeout });
                }
            }
            Word::Came => {
                self.clear(target);
            }
            Word::NotReady => {
                self.set_not_ready(target, true);
            }
            Word::Ready => {
                self.set_not_ready(target, false);
            }
        }
    }
}

/// The time-out of probes that confirm a late beat. `None`: the server is too far away to be confirmed in time, so
/// that a doubt would take it down whenever its agent pauses; its regular probes judge alone.
///
/// `p95` and not the 99th percentile: where one packet in a hundred is lost, that is the time of a packet sent again,
/// and heartbeats would be of no use wherever a path is less than perfect. `own`: the time-out of the check.
fn confirm_timeout(p95: Option<Duration>, own: Duration) -> Option<Duration> {
    let Some(p95) = p95 else { return Some(own) };
    let need = p95.saturating_mul(CONFIRM_TIMES);
    if need <= CONFIRM_MAX { Some(need.max(CONFIRM_MIN)) } else { (need <= own).then_some(own) }
}

/// Something about an agent that is worth noting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The server's public address.
    pub server: IpAddr,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Its beats come, under this key.
    Found {
        key: Arc<str>,
        from: SocketAddr,
    },
    /// They have not come for that long; probes alone judge from here on. `untold`: it was lost so many times more since
    /// that was last told; see [`Hush`].
    Lost {
        silent: Duration,
        slow: Option<Slow>,
        untold: u32,
    },
    /// It has ended as planned.
    Left,
    /// It says that its server takes nobody, or does again.
    NotReady,
    Ready,
    /// Authentic beats do not count, for this reason; told once a minute for a server.
    Refused {
        why: Outcome,
        from: SocketAddr,
    },
}

/// An agent beats more slowly than its zone expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    pub every: Duration,
    pub expected: Duration,
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "beats come every {:?}, the zone expects {:?}", self.every, self.expected)
    }
}

/// A bound socket that is not read yet.
#[derive(Debug)]
pub struct Receiver {
    socket: std::net::UdpSocket,
}

impl Receiver {
    /// Errors: the address cannot be had. IPv6 addresses are for IPv6 alone, as for DNS.
    pub fn bind(address: SocketAddr) -> io::Result<Receiver> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        // Less than wanted is still enough for most.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        socket.bind(&address.into())?;
        Ok(Receiver { socket: socket.into() })
    }

    /// With the port that stands for port 0.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Reads beats until `stop`; must be called within a tokio runtime. What beats tell of targets goes to `ear`, what
    /// is worth noting to `events`, of which those that find it full are lost.
    ///
    /// Errors, at once: the system gives no file descriptor or random bytes.
    pub fn serve(
        self,
        keys: KeyFile,
        beats: Beats,
        ear: impl Ear,
        events: mpsc::Sender<Event>,
        stop: CancellationToken,
    ) -> io::Result<JoinHandle<()>> {
        let direct = self.socket.try_clone()?;
        let socket = UdpSocket::from_std(self.socket)?;
        let mint = Mint::new().map_err(|_| io::Error::other("the system gives no random bytes"))?;
        let start = Instant::now();
        let task = Task {
            socket,
            direct,
            keys,
            mint,
            servers: Arc::default(),
            agents: HashMap::new(),
            looks: BinaryHeap::new(),
            beats,
            ear: Box::new(ear),
            events,
            start,
            empty: start,
            out: Vec::with_capacity(MAX_PACKET),
        };
        Ok(tokio::spawn(task.run(stop)))
    }
}

/// What is remembered of one server's agent.
struct Agent {
    gate: Gate,
    watch: Watch,
    hush: Hush,
    /// How often it says that it beats.
    every: Duration,
    /// Whether `looks` holds it.
    looked_for: bool,
    told_refused: Option<Instant>,
    told_load: Option<Instant>,
}

struct Task {
    socket: UdpSocket,
    /// The same socket, asked past tokio's knowledge of whether there is something.
    direct: std::net::UdpSocket,
    keys: KeyFile,
    mint: Mint,
    servers: Arc<Servers>,
    agents: HashMap<IpAddr, Agent>,
    /// When to look at whom; one entry a server at most.
    looks: BinaryHeap<Reverse<(Instant, IpAddr)>>,
    beats: Beats,
    ear: Box<dyn Ear>,
    events: mpsc::Sender<Event>,
    start: Instant,
    /// When the socket was last seen empty.
    empty: Instant,
    out: Vec<u8>,
}

impl Task {
    async fn run(mut self, stop: CancellationToken) {
        let mut glance = interval(GLANCE);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut keys_look = interval(KEYS_LOOK);
        keys_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.adopt();
        loop {
            let next = self.looks.peek().map(|Reverse((at, _))| *at);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.beats.changed() => self.adopt(),
                _ = keys_look.tick() => self.refresh_keys().await,
                ready = self.socket.readable() => if ready.is_err() {
                    sleep(ERROR_PAUSE).await;
                },
                () = until(next) => {}
                _ = glance.tick() => {}
            }
            // Whatever was waited for meanwhile: a packet must not meet servers of a file that is not in use any more.
            if !Arc::ptr_eq(&self.servers, &self.beats.servers()) {
                self.adopt();
            }
            self.drain().await;
            self.look();
        }
    }

    /// Takes over the servers of now.
    fn adopt(&mut self) {
        self.servers = self.beats.servers();
        let (servers, now) = (&self.servers, Instant::now());
        self.agents.retain(|address, _| servers.contains_key(address));
        self.looks.retain(|Reverse((_, address))| servers.contains_key(address));
        for (address, server) in servers.iter() {
            let fresh = || Agent {
                gate: Gate::default(),
                watch: Watch::new(server.every, now),
                hush: Hush::default(),
                every: server.every,
                looked_for: false,
                told_refused: None,
                told_load: None,
            };
            let agent = self.agents.entry(*address).or_insert_with(fresh);
            agent.watch.set_every(server.every);
            // Targets may be new.
            if agent.watch.is_not_ready() {
                server.targets.iter().for_each(|target| self.ear.hear(target, Word::NotReady));
            }
        }
    }

    async fn refresh_keys(&mut self) {
        let mut file = self.keys.clone();
        // Off the runtime's threads, as it blocks on the file system.
        if let Ok(file) = spawn_blocking(move || {
            file.refresh();
            file
        })
        .await
        {
            self.keys = file;
        }
    }

    /// Reads all that waits, within bounds.
    async fn drain(&mut self) {
        let mut buffer = [0; MAX_PACKET + 1];
        for count in 1..=MAX_DRAIN {
            match self.receive(&mut buffer) {
                Ok((length, from)) => self.packet(&buffer[..length], from),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.empty = Instant::now();
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // An error that a former packet of ours brought back; it says nothing about those that wait.
                    sleep(ERROR_PAUSE).await;
                    return;
                }
            }
            if count % MAX_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self.socket.try_recv_from(buffer) {
            // tokio may not have heard yet from the kernel what waits there.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.direct.recv_from(buffer),
            received => received,
        }
    }

    fn us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }

    fn packet(&mut self, bytes: &[u8], from: SocketAddr) {
        let Ok(sealed) = Sealed::read(bytes) else { return self.beats.add(Outcome::Malformed) };
        let Some(key) = self.keys.keys().get(sealed.key_name()).cloned() else {
            return self.beats.add(Outcome::UnknownKey);
        };
        let beat = match sealed.open(&key.mac) {
            Ok(Packet::Beat(beat)) => beat,
            // A challenge of ours that somebody sent back.
            Ok(Packet::Challenge(_)) | Err(super::packet::Flaw::Malformed) => {
                return self.beats.add(Outcome::Malformed);
            }
            Err(super::packet::Flaw::Forged) => return self.beats.add(Outcome::Forged),
        };
        let servers = Arc::clone(&self.servers);
        if !beat.server.iter().any(|address| servers.contains_key(&address)) {
            return self.beats.add(Outcome::UnknownServer);
        }
        // For all of them or for none: a beat tells of one machine.
        if beat.server.iter().any(|address| !key.may_speak_for(address)) {
            for server in beat.server.iter().filter_map(|address| servers.get(&address)) {
                self.refused(server, Outcome::NotAllowed, from);
            }
            return;
        }
        let now = Instant::now();
        let earliest = self.empty.max(now.checked_sub(MAX_WAITED).unwrap_or(self.start));
        let arrival = Arrival { earliest: self.us(earliest), latest: self.us(now) };
        let ours = beat.nonce.is_some_and(|nonce| self.mint.is_ours(&nonce, &beat.server, beat.instance));
        let mut challenge = false;
        for server in beat.server.iter().filter_map(|address| servers.get(&address)) {
            let Some(agent) = self.agents.get_mut(&server.address) else { continue };
            match agent.gate.judge(&beat, ours, arrival) {
                Fate::Counts { .. } => self.counts(server, &beat, &key.name, from, now),
                Fate::Refused { why, challenge: wanted } => {
                    challenge |= wanted;
                    match why {
                        // How every session begins.
                        Refusal::NoSession => server.tally.add(Outcome::NoSession),
                        Refusal::StaleSession => self.refused(server, Outcome::StaleSession, from),
                        Refusal::Replayed => self.refused(server, Outcome::Replayed, from),
                        Refusal::OutOfTime => self.refused(server, Outcome::OutOfTime, from),
                    }
                }
            }
        }
        if challenge {
            let nonce = self.mint.issue(arrival.latest, &beat.server, beat.instance);
            let answer = Challenge { instance: beat.instance, sequence: beat.sequence, nonce };
            Packet::Challenge(answer).seal(&key.name, &key.mac, &mut self.out);
            // Lost here or on its way is the same: the next beat asks again.
            let _ = self.direct.send_to(&self.out, from);
        }
    }

    fn counts(&mut self, server: &Server, beat: &Beat, key: &Arc<str>, from: SocketAddr, now: Instant) {
        server.tally.beat(beat.state, beat.load, now);
        let Some(agent) = self.agents.get_mut(&server.address) else { return };
        agent.every = Duration::from_millis(beat.every_ms.into());
        if beat.load != Load::default() && agent.told_load.is_none_or(|told| now >= told + LOAD_GAP) {
            agent.told_load = Some(now);
            self.ear.load(server.address, &beat.load);
        }
        let stayed = agent.hush.beat(now);
        let steps = agent.watch.beat(beat.state, now);
        if let (Some(due), false) = (agent.watch.due(), agent.looked_for) {
            agent.looked_for = true;
            self.looks.push(Reverse((due, server.address)));
        }
        if stayed {
            self.found(server, key, from);
        }
        for step in steps {
            self.step(server, step, Some((key, from)));
        }
    }

    fn refused(&mut self, server: &Server, why: Outcome, from: SocketAddr) {
        server.tally.add(why);
        let Some(agent) = self.agents.get_mut(&server.address) else { return };
        let now = Instant::now();
        // A packet that the network doubled or turned round is nobody's fault.
        if why == Outcome::Replayed || agent.told_refused.is_some_and(|told| now < told + REFUSED_GAP) {
            return;
        }
        agent.told_refused = Some(now);
        warn!(server = %server.address, %from, why = why.label(), "heartbeats refused");
        self.tell(server, What::Refused { why, from });
    }

    /// Looks at those who are due. The earliest entry of a server may be older than its last beat: then it is put back.
    fn look(&mut self) {
        let now = Instant::now();
        let servers = Arc::clone(&self.servers);
        while self.looks.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, address))) = self.looks.pop() else { return };
            let (Some(agent), Some(server)) = (self.agents.get_mut(&address), servers.get(&address)) else { continue };
            let step = agent.watch.look(now);
            match agent.watch.due() {
                // Never before now, so that this ends.
                Some(due) => self.looks.push(Reverse((due.max(now + Duration::from_micros(1)), address))),
                None => agent.looked_for = false,
            }
            if let Some(step) = step {
                self.step(server, step, None);
            }
        }
    }

    fn step(&mut self, server: &Server, step: Step, by: Option<(&Arc<str>, SocketAddr)>) {
        let say = |word| server.targets.iter().for_each(|target| self.ear.hear(target, word));
        let address = server.address;
        match step {
            Step::Found => {
                let told = self.agents.get_mut(&address).is_none_or(|agent| agent.hush.found());
                if let (Some((key, from)), true) = (by, told) {
                    self.found(server, key, from);
                }
            }
            Step::Doubt => {
                server.tally.add_late();
                say(Word::Late);
            }
            Step::Cleared => say(Word::Came),
            Step::NotReady => {
                warn!(server = %address, "its agent says that the server is not ready");
                say(Word::NotReady);
                self.tell(server, What::NotReady);
            }
            Step::Ready => {
                info!(server = %address, "its agent says that the server is ready again");
                say(Word::Ready);
                self.tell(server, What::Ready);
            }
            Step::Lost => {
                server.tally.add_lost();
                say(Word::Ready);
                self.lost(server);
            }
            Step::Left => {
                info!(server = %address, "agent has ended; probes alone judge the server");
                say(Word::Ready);
                self.tell(server, What::Left);
            }
        }
    }

    fn found(&self, server: &Server, key: &Arc<str>, from: SocketAddr) {
        info!(server = %server.address, %from, %key, "agent found");
        self.tell(server, What::Found { key: key.clone(), from });
    }

    fn lost(&mut self, server: &Server) {
        let Some(agent) = self.agents.get_mut(&server.address) else { return };
        let now = Instant::now();
        let Some(untold) = agent.hush.lost(now) else { return };
        let silent = server.tally.last_beat_age(now).unwrap_or_default();
        let slow = (agent.every > server.every).then_some(Slow { every: agent.every, expected: server.every });
        let why = slow.map_or_else(String::new, |slow| format!(": {slow}"));
        warn!(server = %server.address, ?silent, untold, "agent lost{why}; probes alone judge the server");
        self.tell(server, What::Lost { silent, slow, untold });
    }

    fn tell(&self, server: &Server, what: What) {
        // Waiting for a reader would keep beats waiting.
        let _ = self.events.try_send(Event { server: server.address, what });
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
