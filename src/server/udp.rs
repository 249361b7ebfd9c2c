//! DNS over UDP: each worker thread owns a socket, a batch of buffers and a shard of the counters.
//!
//! Receive, answer, send; nothing else happens on these threads, and nothing is allocated after their start.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use arrayvec::ArrayVec;
use socket2::{Domain, Protocol, Socket, Type};

use super::mmsg::{self, BATCH, Batch, Datagram, Wait};
use super::{Answers, counters::Shard, tap::Teller};
use crate::answer::query::HEADER_LEN;
use crate::answer::{Client, Outcome, Transport};

/// How long a worker without queries sleeps before it looks at the stop flag and lets an old snapshot go.
const PATIENCE: Duration = Duration::from_millis(50);
/// What a stopping worker spends at most on queries that wait in its socket.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// Asked of the kernel for queries that wait. It takes twice as much, some 2,000 queries by its reckoning, and less where
/// net.core.rmem_max is lower. That is a pause of a tenth of a second at 20,000 queries a second, and a few milliseconds
/// of waiting in overload: more would only make resolvers ask again before they are answered.
const RECEIVE_BUFFER: usize = 1 << 20;

/// One socket a worker, all bound to `address`. With port 0 all get the port that the first was given.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<UdpSocket>> {
    let mut sockets: Vec<UdpSocket> = Vec::new();
    for _ in 0..workers {
        let bound = sockets.first().map(UdpSocket::local_addr).transpose()?;
        sockets.push(bind_one(bound.unwrap_or(address), bound.is_some())?);
    }
    Ok(sockets)
}

fn bind_one(address: SocketAddr, shares: bool) -> io::Result<UdpSocket> {
    let v6 = address.is_ipv6();
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if v6 {
        // [::] and 0.0.0.0 are two listeners; IPv4 never comes mapped, so clients keep their family.
        socket.set_only_v6(true)?;
    }
    // The first socket is bound without SO_REUSEPORT and gets it afterwards. Otherwise a second server of the same
    // user would silently share the port with us, and port 0 might be one that is in use.
    if shares {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    if !shares {
        socket.set_reuse_port(true)?;
    }
    if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
        tracing::debug!(%address, %error, "UDP receive buffer stays at the system's default");
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let socket = UdpSocket::from(socket);
    if address.ip().is_unspecified() {
        mmsg::tell_local_address(&socket, v6)?;
    }
    if let Err(error) = mmsg::ignore_path_mtu(&socket, v6) {
        tracing::debug!(%address, %error, "path MTU discovery stays on");
    }
    Ok(socket)
}

/// Answers until `stop`, and then what already waits in the socket. Blocks.
pub fn run<S: Answers>(
    socket: &UdpSocket,
    worker: usize,
    published: Arc<ArcSwap<S>>,
    mut teller: Teller,
    stop: &AtomicBool,
) {
    let mut batch = Batch::new();
    let mut snapshots = Cache::new(published);
    let mut troubled = false;
    let mut last_answers: Option<Instant> = None;
    loop {
        if last_answers.is_none() && stop.load(Relaxed) {
            last_answers = Some(Instant::now() + LAST_ANSWERS);
        }
        let wait = match last_answers {
            None => Wait::ForOne,
            Some(until) if Instant::now() < until => Wait::No,
            Some(_) => return,
        };
        let received = batch.receive(socket, wait);
        // Read after the wait, so that no answer is older than its query, and read when nothing came too, so that a
        // worker without queries holds no old snapshot.
        let snapshot: &S = snapshots.load();
        match received {
            Ok(_) => {
                troubled = false;
                let shard = snapshot.counters().udp(worker);
                // No query should make `respond` panic. Should one do so all the same, it costs this batch and not
                // the worker. The batch's buffers are plain bytes, valid whatever they hold, and so are the teller's.
                let answered = catch_unwind(AssertUnwindSafe(|| answer(&mut batch, snapshot, shard, &mut teller)));
                teller.publish();
                if answered.is_ok() {
                    shard.unsent(batch.send(socket));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && wait == Wait::No => return,
            Err(error) if is_ordinary(&error) => {}
            Err(error) => {
                if !troubled {
                    tracing::warn!(worker, %error, "receiving from the UDP socket fails; trying on");
                    troubled = true;
                }
                // An error that stays must not take a whole core.
                thread::sleep(PATIENCE);
            }
        }
    }
}

/// Takes a batch through the stages of its answers, each stage for all before the next.
fn answer<S: Answers>(batch: &mut Batch, snapshot: &S, shard: Shard<'_>, teller: &mut Teller) {
    let (datagrams, answers) = batch.parts();
    let mut pending: ArrayVec<_, BATCH> = datagrams.map(|datagram| read(datagram, snapshot)).collect();
    S::seek(&mut pending);
    teller.begin(snapshot.epoch());
    for (pending, answer) in pending.iter().zip(answers) {
        let outcome = S::write(pending, answer.room());
        shard.record(outcome);
        if let Outcome::Answered { length, asked, .. } = outcome {
            answer.is(length);
            teller.tell(asked);
        }
    }
}

fn read<'q, S: Answers>(Datagram { bytes, cut, peer }: Datagram<'q>, snapshot: &'q S) -> S::Pending<'q> {
    let query = match (peer.port(), cut) {
        // Nobody can be answered at port 0, and what has no header is not answered.
        (0, _) => &[],
        // What is cut can't be trusted to mean what its beginning says. Its header alone says enough for a FORMERR.
        (_, true) => &bytes[..HEADER_LEN.min(bytes.len())],
        (_, false) => bytes,
    };
    snapshot.read(query, Client { address: peer.ip(), port: peer.port(), transport: Transport::Udp })
}

/// Nothing came in time, a signal, or the ICMP error of an answer sent before.
fn is_ordinary(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        WouldBlock | TimedOut | Interrupted | ConnectionRefused | HostUnreachable | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::{Toy, query, toy};

    #[test]
    fn a_query_from_port_0_is_dropped() {
        let (toy, bytes, mut out) = (toy(1, 0), query(1, b"q"), [0; mmsg::SLOT]);
        let mut outcome = |peer: &str| {
            let datagram = Datagram { bytes: &bytes, cut: false, peer: peer.parse().unwrap() };
            Toy::write(&read(datagram, &toy), &mut out)
        };
        assert_eq!(outcome("192.0.2.1:0"), Outcome::Dropped);
        assert!(matches!(outcome("192.0.2.1:1"), Outcome::Answered { .. }));
    }
}
