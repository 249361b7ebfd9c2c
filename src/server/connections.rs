//! TCP connections: how many there are, who may have one more, and how they end.
//!
//! When all seats are taken, the connection that is idle longest makes room: a server "MAY use zero timeouts when
//! experiencing heavy load" (RFC 7766 §6.2.3), and clients must expect that a connection closes between queries, but
//! have no better place to go when a new one is refused. Only when no connection is idle the new one is refused. A
//! source that has its share is refused another, so that it can't push out other sources.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

use crate::config::settings::TcpLimits;

/// How long a connection that is told to leave, by a shutdown or to make room, may take to finish its message.
pub const DRAIN: Duration = Duration::from_secs(2);

/// Seats looked at to find the longest idle one. Up to so many connections the choice is exact; with more it is the
/// longest idle of a sample, so that a flood of connections costs the same each, however many there are.
const SAMPLE: usize = 64;

/// Connections that were told to close and have not done so yet, and those being accepted, may be so many beyond the
/// limit. Then accepting waits.
const OVERLAP: usize = 16;

/// In [`Seat::idle_since`]: in the middle of a message.
const BUSY: u64 = u64::MAX;

/// All connections of all listeners.
pub struct Connections {
    pub(super) limits: TcpLimits,
    /// Taken when a connection opens and when it closes, never for a query.
    table: Mutex<Table>,
    /// Sockets: connections of the table, and those of [`OVERLAP`].
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    leave: CancellationToken,
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
    source: IpAddr,
    /// Milliseconds since [`Connections::start`], or [`BUSY`].
    idle_since: AtomicU64,
    leave: CancellationToken,
}

/// The right to be connected; gives the seat back when dropped.
pub(super) struct Permit {
    connections: Arc<Connections>,
    seat: Arc<Seat>,
    number: usize,
    _room: Room,
}

/// The right to hold a socket.
pub(super) struct Room(#[expect(dead_code, reason = "held, not used")] OwnedSemaphorePermit);

impl Connections {
    pub(super) fn new(limits: TcpLimits, shutdown: &CancellationToken) -> Connections {
        let sockets = limits.connections.saturating_add(OVERLAP).min(Semaphore::MAX_PERMITS);
        Connections {
            limits,
            room: Arc::new(Semaphore::new(sockets)),
            table: Mutex::default(),
            tasks: TaskTracker::new(),
            leave: shutdown.child_token(),
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

    /// Runs a listener or a connection, which [`Connections::drained`] waits for.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits until one more socket may be accepted.
    pub(super) async fn room(&self) -> Room {
        Room(self.room.clone().acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// A seat for a connection from `peer`. `None`: refused.
    pub(super) fn admit(self: &Arc<Connections>, peer: IpAddr, room: Room) -> Option<Permit> {
        let source = source(peer);
        let mut table = self.table();
        let full = table.open() >= self.limits.connections;
        if table.per_source.get(&source).is_some_and(|n| *n >= self.limits.per_source)
            || full && !self.evict_from(&mut table)
        {
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        let leave = self.leave.child_token();
        let seat = Arc::new(Seat { source, idle_since: AtomicU64::new(self.now()), leave });
        let number = table.take(seat.clone());
        self.accepted.fetch_add(1, Relaxed);
        Some(Permit { connections: self.clone(), seat, number, _room: room })
    }

    /// Closes the connection that is idle longest. False when none is idle.
    pub(super) fn evict(&self) -> bool {
        self.evict_from(&mut self.table())
    }

    fn evict_from(&self, table: &mut Table) -> bool {
        let Some((number, seat)) = table.longest_idle() else { return false };
        // Its task may just be reading a query; it then answers that before it leaves.
        seat.leave.cancel();
        table.give_back(number, &seat);
        self.evicted.fetch_add(1, Relaxed);
        true
    }

    pub(super) async fn leaving(&self) {
        self.leave.cancelled().await;
    }

    /// Waits until all tasks have ended, at most a little longer than [`DRAIN`]. Only a peer that had left answers
    /// unread before the shutdown can take longer; nothing is owed to it.
    pub(super) async fn drained(&self) {
        self.tasks.close();
        let _ = tokio::time::timeout(DRAIN + Duration::from_millis(500), self.tasks.wait()).await;
    }

    fn now(&self) -> u64 {
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

    fn longest_idle(&mut self) -> Option<(usize, Arc<Seat>)> {
        let length = self.seats.len();
        let sample = (0..length.min(SAMPLE)).map(|i| (self.cursor + i) % length);
        let idle = sample.filter_map(|number| {
            let seat = self.seats[number].as_ref()?;
            let since = seat.idle_since.load(Relaxed);
            (since != BUSY).then_some((since, number, seat))
        });
        let longest = idle.min_by_key(|(since, ..)| *since).map(|(_, number, seat)| (number, seat.clone()));
        self.cursor = (self.cursor + SAMPLE) % length.max(1);
        longest
    }
}

impl Permit {
    pub(super) fn busy(&self) {
        self.seat.idle_since.store(BUSY, Relaxed);
    }

    pub(super) fn idle(&self) {
        self.seat.idle_since.store(self.connections.now(), Relaxed);
    }

    /// Ready when the connection has to close as soon as it is idle.
    pub(super) fn leaving(&self) -> WaitForCancellationFuture<'_> {
        self.seat.leave.cancelled()
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.seat.leave.is_cancelled()
    }

    pub(super) fn limits(&self) -> &TcpLimits {
        &self.connections.limits
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.connections.table().give_back(self.number, &self.seat);
    }
}

/// What counts as one source: an IPv6 host commonly has a whole /64 to take addresses from.
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}
