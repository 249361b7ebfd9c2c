//! DNS over TCP (RFC 7766): each worker thread owns a listener an address, and the connections that it accepts.
//!
//! ```text
//! wait ──► accept ──► a turn for each connection that is ready, or was not done ──► every 50 ms: deadlines ─┐
//!   ▲                                                                                                       │
//!   └───────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What a turn does is told in [`conversation`](super::conversation). A connection has one turn, then all others that
//! are ready have theirs, so none waits for a peer that never rests. An idle connection is a slot of a table and a
//! socket: no task, no timer and no buffer.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use socket2::{Domain, Protocol, Socket, Type};

use super::Answers;
use super::connections::{Connections, DRAIN, Permit};
use super::conversation::{Conversation, Scratch, Turn};
use super::epoll::{Interest, Poller, Ready};
use super::tap::Teller;
use crate::answer::{Client, Transport};

/// Connections that wait to be accepted, before the kernel's own bound.
const BACKLOG: i32 = 4096;
/// Connections accepted in a row before those that are open get their turn.
const ACCEPTS: usize = 64;
/// How often deadlines and the stop flag are looked at, and how long a worker without queries holds an old snapshot. So
/// late at most is a connection closed. After an accept that failed for want of descriptors or memory, the worker tries
/// again so soon, or once a connection of its own has closed.
const TICK: Duration = Duration::from_millis(50);
/// Such a shortage comes and goes many times a second; it is told so often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Tokens from here on are listeners, those below are slots.
const LISTENERS: u64 = 1 << 32;
/// In [`Worker::deadlines`]: the slot is free.
const NEVER: u64 = u64::MAX;

/// Listening sockets that nobody accepts from yet, one a worker; the kernel spreads connections over them.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    (0..workers).map(|worker| bind_one(address, worker > 0)).collect()
}

fn bind_one(address: SocketAddr, shares: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart need not wait for old connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    // Inherited by the connections: answers are written whole, so there is nothing to wait for.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    // As for UDP, the first socket shares its address only after it has found it free.
    if shares {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    if !shares {
        socket.set_reuse_port(true)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A connection and its seat.
struct Slot {
    talk: Conversation,
    permit: Permit,
    /// In [`Worker::again`].
    queued: bool,
}

/// A thread's listeners and connections.
pub(super) struct Worker {
    poller: Poller,
    /// None any more after the stop.
    listeners: Vec<TcpListener>,
    /// Nothing is accepted before a connection of ours closes or a tick has passed.
    paused: bool,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// When the connection of a slot is closed, by [`Connections::now`]. Apart from the slots, so that to look at all of
    /// them takes a microsecond for some thousand.
    deadlines: Vec<u64>,
    /// Slots with whole messages that their last turn did not answer.
    again: Vec<usize>,
    scratch: Scratch,
    teller: Teller,
    connections: Arc<Connections>,
    now: u64,
    /// No deadline is later. After the stop, the end of the drain.
    latest: u64,
    stopping: bool,
    failures: u64,
    told: Option<Instant>,
}

impl Worker {
    /// Fails when the kernel has no more descriptors or memory.
    pub(super) fn new(
        listeners: Vec<TcpListener>,
        connections: Arc<Connections>,
        teller: Teller,
    ) -> io::Result<Worker> {
        let poller = Poller::new()?;
        for (token, listener) in (LISTENERS..).zip(&listeners) {
            poller.add(listener, token, Interest::Read)?;
        }
        Ok(Worker {
            poller,
            listeners,
            paused: false,
            slots: Vec::new(),
            free: Vec::new(),
            deadlines: Vec::new(),
            again: Vec::new(),
            scratch: Scratch::new(),
            teller,
            now: connections.now(),
            connections,
            latest: NEVER - 1,
            stopping: false,
            failures: 0,
            told: None,
        })
    }

    /// Serves until `stop`, and then at most [`DRAIN`] longer. Blocks.
    pub(super) fn run<S: Answers>(mut self, published: Arc<ArcSwap<S>>, stop: &AtomicBool) {
        let mut snapshots = Cache::new(published);
        let mut ready = Ready::new();
        let mut next_tick = self.now;
        loop {
            let patience = if self.again.is_empty() { TICK } else { Duration::ZERO };
            let waited = self.poller.wait(&mut ready, patience);
            self.now = self.connections.now();
            // Read after the wait, so that no answer is older than its query, and read when nothing came too, so that
            // a worker without queries holds no old snapshot.
            let snapshot: &S = snapshots.load();
            match waited {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.complain(&error, "waiting for TCP connections fails; trying on");
                    thread::sleep(TICK);
                }
            }
            let again = std::mem::take(&mut self.again);
            for token in ready.tokens().filter(|token| *token < LISTENERS) {
                self.turn_unless_queued(token as usize, snapshot);
            }
            for number in again {
                // The slot may have got another connection since.
                if let Some(slot) = self.slots[number].as_mut().filter(|slot| slot.queued) {
                    slot.queued = false;
                    self.turn(number, snapshot);
                }
            }
            // After the turns: a connection that was accepted with a message waiting is not idle any more when others
            // are to make room.
            for token in ready.tokens().filter(|token| *token >= LISTENERS) {
                self.accept((token - LISTENERS) as usize);
            }
            if self.now >= next_tick {
                next_tick = self.now + TICK.as_millis() as u64;
                self.close_late(snapshot);
                self.resume();
                if stop.load(Relaxed) && !self.stopping {
                    self.stop(snapshot);
                }
            }
            if self.stopping && self.free.len() == self.slots.len() {
                return;
            }
        }
    }

    fn accept(&mut self, listener: usize) {
        for accepted in 0..ACCEPTS {
            if self.paused || self.stopping {
                return;
            }
            if !self.connections.has_room() {
                return self.pause();
            }
            match self.listeners[listener].accept() {
                Ok((stream, peer)) => self.open(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if concerns_one_peer(&error) => {}
                // Out of descriptors or memory, which the kernel says also when nobody waits any more. Someone who does
                // is told of again.
                Err(_) if accepted > 0 => return,
                Err(error) => {
                    // The connection still waits in the kernel and accept would fail again at once: let idle ones go,
                    // and rest until one has gone.
                    self.complain(&error, "cannot accept TCP connections; closing idle ones and trying on");
                    self.connections.make_room();
                    return self.pause();
                }
            }
        }
    }

    /// A stream that is refused, or that the kernel can't watch for want of memory, is closed by dropping it.
    fn open(&mut self, stream: TcpStream, peer: SocketAddr) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let Some(permit) = self.connections.admit(stream, peer.ip()) else { return };
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.deadlines.push(NEVER);
            self.slots.len() - 1
        });
        if self.poller.add(permit.stream(), number as u64, Interest::Read).is_err() {
            self.free.push(number);
            return;
        }
        let client = Client { address: peer.ip(), port: peer.port(), transport: Transport::Tcp };
        self.slots[number] = Some(Slot { talk: Conversation::new(client), permit, queued: false });
        self.set_deadline(number, self.connections.limits.idle);
    }

    fn turn_unless_queued<S: Answers>(&mut self, number: usize, snapshot: &S) {
        // None: closed since the kernel told of it.
        if self.slots[number].as_ref().is_some_and(|slot| !slot.queued) {
            self.turn(number, snapshot);
        }
    }

    fn turn<S: Answers>(&mut self, number: usize, snapshot: &S) {
        let Some(Slot { talk, permit, queued }) = &mut self.slots[number] else { return };
        let (was_in_message, had_unsent) = (talk.is_in_message(), talk.has_unsent());
        let (scratch, teller, limits) = (&mut self.scratch, &mut self.teller, &self.connections.limits);
        // No query should make `respond` panic. Should one do so all the same, it costs its connection and not the
        // worker. What the buffers hold after it is not read.
        let turn = catch_unwind(AssertUnwindSafe(|| {
            talk.turn(&mut permit.stream(), snapshot, limits.pipeline, scratch, teller)
        }));
        teller.publish();
        let turn = turn.unwrap_or(Turn::Over { unsent: 0 });
        let mut watched = true;
        if talk.has_unsent() != had_unsent && !matches!(turn, Turn::Over { .. }) {
            let interest = if talk.has_unsent() { Interest::Write } else { Interest::Read };
            watched = self.poller.set(permit.stream(), number as u64, interest).is_ok();
        }
        match turn {
            Turn::Over { unsent } => {
                snapshot.counters().tcp().unsent(unsent);
                self.close(number);
            }
            _ if !watched => self.close(number),
            // It has made room for another, and what it was owed it has.
            Turn::More if permit.is_leaving() => self.close(number),
            Turn::More => {
                permit.busy(self.now);
                *queued = true;
                self.again.push(number);
                self.set_deadline(number, self.connections.limits.read);
            }
            Turn::Unsent => {
                permit.busy(self.now);
                // The peer reads slowly. It has this time for all of it.
                if !had_unsent {
                    self.set_deadline(number, self.connections.limits.read);
                }
            }
            // One message is finished, not all that may follow.
            Turn::Rest { answered }
                if (self.stopping || permit.is_leaving()) && (answered || !talk.is_in_message()) =>
            {
                self.close(number)
            }
            Turn::Rest { answered } if talk.is_in_message() => {
                permit.busy(self.now);
                // The first bytes of a message; its later ones get no further delay.
                if answered || !was_in_message {
                    self.set_deadline(number, self.connections.limits.read);
                }
            }
            Turn::Rest { answered } => {
                permit.idle(self.now);
                if answered {
                    self.set_deadline(number, self.connections.limits.idle);
                }
            }
        }
    }

    fn set_deadline(&mut self, number: usize, patience: Duration) {
        self.deadlines[number] = self.now.saturating_add(patience.as_millis() as u64).min(self.latest);
    }

    fn close(&mut self, number: usize) {
        self.slots[number] = None;
        self.deadlines[number] = NEVER;
        self.free.push(number);
        self.resume();
    }

    fn close_late<S: Answers>(&mut self, snapshot: &S) {
        for number in 0..self.deadlines.len() {
            if self.deadlines[number] <= self.now {
                let unsent = self.slots[number].as_ref().is_some_and(|slot| slot.talk.has_unsent());
                snapshot.counters().tcp().unsent(usize::from(unsent));
                self.close(number);
            }
        }
    }

    /// Accepts no more, and closes what is idle. Queries that have arrived are answered.
    fn stop<S: Answers>(&mut self, snapshot: &S) {
        self.stopping = true;
        self.listeners.clear();
        self.latest = self.now + DRAIN.as_millis() as u64;
        for number in 0..self.slots.len() {
            if self.slots[number].is_some() {
                self.deadlines[number] = self.deadlines[number].min(self.latest);
                self.turn_unless_queued(number, snapshot);
            }
        }
    }

    fn pause(&mut self) {
        self.watch_listeners(Interest::Nothing);
        self.paused = true;
    }

    fn resume(&mut self) {
        if self.paused {
            self.watch_listeners(Interest::Read);
            self.paused = false;
        }
    }

    fn watch_listeners(&self, interest: Interest) {
        for (token, listener) in (LISTENERS..).zip(&self.listeners) {
            self.poller.set(listener, token, interest).expect("to change what is watched needs no memory");
        }
    }

    fn complain(&mut self, error: &io::Error, what: &'static str) {
        self.failures += 1;
        if self.told.is_none_or(|told| told.elapsed() >= COMPLAIN_EVERY) {
            tracing::warn!(%error, failures = self.failures, "{what}");
            self.told = Some(Instant::now());
        }
    }
}

/// Errors of the connection that was to be accepted, not of ours (accept(2)).
fn concerns_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | Interrupted
            | HostUnreachable
            | NetworkUnreachable
            | NetworkDown
            | TimedOut
    ) || matches!(error.raw_os_error(), Some(libc::EPROTO | libc::ENOPROTOOPT | libc::EPERM))
}
