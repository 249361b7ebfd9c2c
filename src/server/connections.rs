//! TCP connections: how many there are, who may have one more, and how they end.
//!
//! When all seats are taken, the connection that is idle longest makes room: a server "MAY use zero timeouts when
//! experiencing heavy load" (RFC 7766 §6.2.3), and clients must expect that a connection closes between queries, but
//! have no better place to go when a new one is refused. When none is idle, one that never rests makes room; only when
//! there is none of these either the new one is refused. A source that has its share is refused another, so that it can't push out other sources.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::settings::TcpLimits;

/// How long a connection may take to finish its message after a stop.
pub const DRAIN: Duration = Duration::from_secs(2);

/// Seats looked at to find the longest idle one. Up to so many connections the choice is exact; with more it is the
/// longest idle of a sample, so that a flood of connections costs the same each, however many there are.
const SAMPLE: usize = 64;

/// Connections that were told to close and have not done so yet may be so many beyond the limit. Then accepting waits.
const OVERLAP: usize = 16;

/// Idle connections closed, at most, when the process has no more descriptors or memory.
const SHORTAGE: usize = 32;

/// In [`Seat::since`], beside the time: in the middle of a message.
const BUSY: u64 = 1 << 63;

/// All connections of all listeners.
pub struct Connections {
    pub(super) limits: TcpLimits,
    /// Taken when a connection opens and when it closes, never for a query.
    table: Mutex<Table>,
    /// Sockets: connections of the table, and those of [`OVERLAP`].
    sockets: AtomicUsize,
    start: Instant,
    accepted: AtomicU64,
    refused: AtomicU64,
    evicted: AtomicU64,
}

/// Numbers since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Open now.
    pub open: usize,
    pub accepted: u64,
    /// Closed unserved: the source had its share, or no connection was idle.
    pub refused: u64,
    /// Closed while idle to make room.
    pub evicted: u64,
}

#[derive(Default)]
struct Table {
    seats: Vec<Option<Arc<Seat>>>,
    free: Vec<usize>,
    per_source: HashMap<IpAddr, usize>,
    /// Where the next sample begins.
    cursor: usize,
}

struct Seat {
    stream: TcpStream,
    source: IpAddr,
    /// By [`Connections::now`]: since when it is idle, or with [`BUSY`], since when it has not been idle.
    since: AtomicU64,
    /// Evicted: it is closed at the end of its next turn.
    leaving: AtomicBool,
}

/// A connection that has a seat; gives it back and closes the stream when dropped.
pub(super) struct Permit {
    connections: Arc<Connections>,
    seat: Arc<Seat>,
    number: usize,
}

impl Connections {
    pub(super) fn new(limits: TcpLimits) -> Connections {
        Connections {
            limits,
            table: Mutex::default(),
            sockets: AtomicUsize::new(0),
            start: Instant::now(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    pub fn usage(&self) -> Usage {
        Usage {
            open: self.table().open(),
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
        }
    }

    /// Whether one more socket may be accepted. Where several threads ask at once, each may take one.
    pub(super) fn has_room(&self) -> bool {
        self.sockets.load(Relaxed) < self.limits.connections.saturating_add(OVERLAP)
    }

    /// A seat for a connection from `peer`. `None`: refused, and closed.
    pub(super) fn admit(self: &Arc<Connections>, stream: TcpStream, peer: IpAddr) -> Option<Permit> {
        let source = source(peer);
        let mut table = self.table();
        let full = table.open() >= self.limits.connections;
        if table.per_source.get(&source).is_some_and(|n| *n >= self.limits.per_source)
            || full && !self.evict_from(&mut table)
        {
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        let (since, leaving) = (AtomicU64::new(self.now()), AtomicBool::new(false));
        let seat = Arc::new(Seat { stream, source, since, leaving });
        let number = table.take(seat.clone());
        self.accepted.fetch_add(1, Relaxed);
        self.sockets.fetch_add(1, Relaxed);
        Some(Permit { connections: self.clone(), seat, number })
    }

    /// Closes some of the connections that are idle longest, at most half of all: those that have just come may not
    /// have had the time to ask.
    pub(super) fn make_room(&self) {
        let mut table = self.table();
        for _ in 0..(table.open() / 2).clamp(1, SHORTAGE) {
            if !self.evict_from(&mut table) {
                return;
            }
        }
    }

    /// Closes the connection that is idle longest; when none is idle, one that has not been idle for longer than a
    /// message may take. False when there is none of either.
    ///
    /// The thread that has the connection is told by the end of the stream, and closes it. A query that has just come
    /// stands before that end and is still answered.
    fn evict_from(&self, table: &mut Table) -> bool {
        let restless = self.now().saturating_sub(self.limits.read.as_millis() as u64);
        let Some((number, seat)) = table.longest_idle(restless) else { return false };
        seat.leaving.store(true, Relaxed);
        // Fails when the peer has gone by itself.
        let _ = seat.stream.shutdown(Shutdown::Read);
        table.give_back(number, &seat);
        self.evicted.fetch_add(1, Relaxed);
        true
    }

    /// Milliseconds since the start.
    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No code panics while it holds the lock half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn open(&self) -> usize {
        self.seats.len() - self.free.len()
    }

    fn take(&mut self, seat: Arc<Seat>) -> usize {
        *self.per_source.entry(seat.source).or_default() += 1;
        match self.free.pop() {
            Some(number) => {
                self.seats[number] = Some(seat);
                number
            }
            None => {
                self.seats.push(Some(seat));
                self.seats.len() - 1
            }
        }
    }

    /// Does nothing for a seat that was taken away before; its number may have another holder by now.
    fn give_back(&mut self, number: usize, seat: &Arc<Seat>) {
        if !self.seats[number].as_ref().is_some_and(|holder| Arc::ptr_eq(holder, seat)) {
            return;
        }
        self.seats[number] = None;
        self.free.push(number);
        if let Some(n) = self.per_source.get_mut(&seat.source) {
            *n -= 1;
            if *n == 0 {
                self.per_source.remove(&seat.source);
            }
        }
    }

    /// `restless`: who has not been idle since then is taken when nobody is idle. A peer that begins its next message
    /// before it reads an answer would else keep its seat for ever.
    fn longest_idle(&mut self, restless: u64) -> Option<(usize, Arc<Seat>)> {
        let length = self.seats.len();
        let sample = (0..length.min(SAMPLE)).map(|i| (self.cursor + i) % length);
        let idle = sample.filter_map(|number| {
            let seat = self.seats[number].as_ref()?;
            let since = seat.since.load(Relaxed);
            (since < BUSY || since & !BUSY < restless).then_some((since, number, seat))
        });
        let longest = idle.min_by_key(|(since, ..)| *since).map(|(_, number, seat)| (number, seat.clone()));
        self.cursor = (self.cursor + SAMPLE) % length.max(1);
        longest
    }
}

impl Permit {
    pub(super) fn stream(&self) -> &TcpStream {
        &self.seat.stream
    }

    /// `now`: by [`Connections::now`].
    pub(super) fn busy(&self, now: u64) {
        // Stored by the thread that has the connection alone.
        if self.seat.since.load(Relaxed) < BUSY {
            self.seat.since.store(now | BUSY, Relaxed);
        }
    }

    /// To be closed, whatever the peer has still to say.
    pub(super) fn is_leaving(&self) -> bool {
        self.seat.leaving.load(Relaxed)
    }

    /// `now`: by [`Connections::now`].
    pub(super) fn idle(&self, now: u64) {
        self.seat.since.store(now, Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.connections.table().give_back(self.number, &self.seat);
        self.connections.sockets.fetch_sub(1, Relaxed);
    }
}

/// What counts as one source: an IPv6 host commonly has a whole /64 to take addresses from.
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_query_that_comes_just_before_the_eviction_can_still_be_answered() {
        let connections = Arc::new(Connections::new(TcpLimits::default()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let permit = connections.admit(stream, peer.ip()).unwrap();
        client.write_all(b"query").unwrap();
        permit.stream().peek(&mut [0]).unwrap();

        connections.make_room();
        let mut received = Vec::new();
        permit.stream().read_to_end(&mut received).unwrap();
        assert_eq!(received, b"query");
        permit.stream().write_all(b"answer").unwrap();
        assert_eq!(connections.usage().open, 0);
        drop(permit);
        received.clear();
        client.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"answer");
        assert_eq!(connections.usage(), Usage { open: 0, accepted: 1, refused: 0, evicted: 1 });
    }

    #[test]
    fn who_is_busy_keeps_its_seat_for_as_long_as_a_message_may_take_unless_others_are_idle() {
        let limits = TcpLimits { read: Duration::from_millis(20), ..TcpLimits::default() };
        let connections = Arc::new(Connections::new(limits));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
        let permits: Vec<_> =
            (0..3).map(|_| connections.admit(listener.accept().unwrap().0, [192, 0, 2, 1].into())).collect();
        let permits: Vec<Permit> = permits.into_iter().map(Option::unwrap).collect();
        permits[0].busy(connections.now());
        permits[1].busy(connections.now());
        let leaving = || permits.iter().map(Permit::is_leaving).collect::<Vec<_>>();
        connections.make_room();
        assert_eq!(leaving(), [false, false, true]);
        connections.make_room();
        assert_eq!(leaving(), [false, false, true], "none is idle, and none has been busy for long");
        std::thread::sleep(Duration::from_millis(60));
        permits[1].idle(connections.now());
        permits[1].busy(connections.now());
        connections.make_room();
        assert_eq!(leaving(), [true, false, true], "the other has rested since");
    }
}
