//! The beats to one node.
//!
//! Ticks are absolute: a late one does not shift those after it, and those that were missed are left out. A challenge
//! is answered at once, so a session stands one round trip after the first beat.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::gather::{Complaint, Report};
use crate::health::beats::keys::Key;
use crate::health::beats::packet::{Addresses, Beat, Challenge, Load, MAX_PACKET, Nonce, Packet, Sealed, State};

/// How often a name is looked up again, and how long that may take.
const LOOKUP_EVERY: Duration = Duration::from_secs(60);
const LOOKUP_RETRY: Duration = Duration::from_secs(5);
const LOOKUP_PATIENCE: Duration = Duration::from_secs(10);
/// A node that has not answered for that long since the first beat is complained of.
const NO_ANSWER: Duration = Duration::from_secs(5);
/// Between the two last words; one may be lost.
const LAST_WORDS_GAP: Duration = Duration::from_millis(20);

pub(super) struct Link {
    node: String,
    server: Addresses,
    instance: u64,
    every: Duration,
    key: watch::Receiver<Arc<Key>>,
    reports: watch::Receiver<Report>,
    start: Instant,
    /// Of the last packet to this node.
    sequence: u64,
    /// Of the beat that the challenge in use answered.
    challenged: u64,
    nonce: Option<Nonce>,
    way: Option<(SocketAddr, UdpSocket)>,
    out: Vec<u8>,
    unsent: Complaint,
    unanswered: Complaint,
}

impl Link {
    pub(super) fn new(
        node: String,
        server: Addresses,
        instance: u64,
        every: Duration,
        key: watch::Receiver<Arc<Key>>,
        reports: watch::Receiver<Report>,
    ) -> Link {
        Link {
            node,
            server,
            instance,
            every,
            key,
            reports,
            start: Instant::now(),
            sequence: 0,
            challenged: 0,
            nonce: None,
            way: None,
            out: Vec::with_capacity(MAX_PACKET),
            unsent: Complaint::default(),
            unanswered: Complaint::default(),
        }
    }

    /// Until `stop`, then says that the agent leaves.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut lookup = self.look_up(Duration::ZERO);
        let mut buffer = [0; MAX_PACKET + 1];
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => self.beat(),
                received = receive(&self.way, &mut buffer) => match received {
                    Ok(length) => self.answer(&buffer[..length]),
                    // What the network brought back of a former packet.
                    Err(_) => sleep(Duration::from_millis(1)).await,
                },
                found = &mut lookup => {
                    let wait = self.found(found.unwrap_or_default()).await;
                    lookup = self.look_up(wait);
                }
            }
        }
        lookup.abort();
        for gap in [LAST_WORDS_GAP, Duration::ZERO] {
            self.send(State::Leaving, Load::default());
            sleep(gap).await;
        }
    }

    fn look_up(&self, wait: Duration) -> JoinHandle<Vec<SocketAddr>> {
        let node = self.node.clone();
        tokio::spawn(async move {
            sleep(wait).await;
            match timeout(LOOKUP_PATIENCE, lookup_host(&node)).await {
                Ok(Ok(addresses)) => addresses.collect(),
                Ok(Err(_)) | Err(_) => Vec::new(),
            }
        })
    }

    /// Takes one of the node's addresses, the one in use where it is still among them. Gives the time to the next look.
    async fn found(&mut self, addresses: Vec<SocketAddr>) -> Duration {
        if self.way.as_ref().is_some_and(|(address, _)| addresses.contains(address)) {
            return LOOKUP_EVERY;
        }
        let Some(address) = addresses.first().copied() else {
            self.unsent.say(&format!("{} has no address", self.node), "its name is looked up again");
            return LOOKUP_RETRY;
        };
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        match UdpSocket::bind(any).await {
            Ok(socket) => {
                (self.way, self.nonce) = (Some((address, socket)), None);
                // Not at the next tick: a node may be waiting for its servers.
                self.beat();
                LOOKUP_EVERY
            }
            Err(error) => {
                self.unsent.say(&format!("no socket for {address}"), &error.to_string());
                LOOKUP_RETRY
            }
        }
    }

    fn beat(&mut self) {
        let said = self.reports.borrow().at(Instant::now());
        let Some((state, load)) = said else { return };
        self.send(state, load);
        if self.nonce.is_none() && self.way.is_some() && self.start.elapsed() > NO_ANSWER {
            self.unanswered.say(
                &format!("{} does not answer beats", self.node),
                "is it there, does it know the key, and does a zone of it have `heartbeat` for this server?",
            );
        }
    }

    fn send(&mut self, state: State, load: Load) {
        let Some((address, socket)) = &self.way else { return };
        self.sequence += 1;
        let beat = Beat {
            server: self.server,
            instance: self.instance,
            nonce: self.nonce,
            sequence: self.sequence,
            sent: u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX),
            every_ms: u16::try_from(self.every.as_millis()).unwrap_or(u16::MAX),
            state,
            load,
        };
        {
            let key = self.key.borrow();
            Packet::Beat(beat).seal(&key.name, &key.mac, &mut self.out);
        }
        // Never waits: the next tick brings a beat that is newer.
        if let Err(error) = socket.try_send_to(&self.out, *address) {
            self.unsent.say(&format!("cannot send to {} ({address})", self.node), &error.to_string());
        }
    }

    /// Takes a challenge that answers a beat of ours, each at most once; anything else is left alone.
    fn answer(&mut self, bytes: &[u8]) {
        let Some(Challenge { nonce, sequence, .. }) = self.challenge(bytes) else { return };
        if self.nonce.is_none() {
            info!(node = self.node, "a node watches the beats");
        }
        (self.nonce, self.challenged) = (Some(nonce), sequence);
        self.beat();
    }

    fn challenge(&self, bytes: &[u8]) -> Option<Challenge> {
        let sealed = Sealed::read(bytes).ok()?;
        let key = self.key.borrow();
        // The key may have changed since the beat; the next beat is answered under the new one.
        if sealed.key_name() != &*key.name {
            return None;
        }
        let Ok(Packet::Challenge(challenge)) = sealed.open(&key.mac) else { return None };
        let ours = challenge.instance == self.instance;
        let expected = challenge.sequence > self.challenged && challenge.sequence <= self.sequence;
        (ours && expected).then_some(challenge)
    }
}

async fn receive(way: &Option<(SocketAddr, UdpSocket)>, buffer: &mut [u8]) -> std::io::Result<usize> {
    match way {
        Some((_, socket)) => socket.recv_from(buffer).await.map(|(length, _)| length),
        None => std::future::pending().await,
    }
}
