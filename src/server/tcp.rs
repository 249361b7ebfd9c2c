//! DNS over TCP (RFC 7766): a task a connection, which reads what has come, answers all of it and writes once.
//!
//! Queries that arrive together are answered together and in order; as an answer is ready at once, none waits for
//! another. The large buffers belong to the runtime's threads and are used between two awaits only, so an idle
//! connection holds none, and one in the middle of a message holds the bytes that have arrived.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Answers;
use super::connections::{Connections, DRAIN, Permit};
use crate::answer::{Client, Outcome, Transport};

/// Connections that wait to be accepted, before the kernel's own bound.
const BACKLOG: i32 = 4096;
/// "a two-byte length field which gives the message length" (RFC 1035 §4.2.2).
const PREFIX: usize = 2;
/// Longest message (RFC 1035 §4.2.2), in or out.
const MESSAGE: usize = u16::MAX as usize;
/// Bytes read in one turn. With a message that is not whole yet, a connection holds at most 80 KiB.
const READ: usize = 16 << 10;
/// Answers gathered for one write, unless a single one is longer. It bounds what a peer that does not read can make
/// us hold.
const WRITE: usize = 16 << 10;
/// Rest after an accept that failed for want of descriptors or memory, and the idle connections closed before it.
const ACCEPT_REST: Duration = Duration::from_millis(50);
const ACCEPT_ROOM: usize = 32;
/// Such a shortage comes and goes many times a second; it is told so often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// A listening socket that nobody accepts from yet.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart need not wait for old connections in TIME_WAIT. Unlike for UDP, two listeners still collide.
    socket.set_reuse_address(true)?;
    // Inherited by the connections: answers are written whole, so there is nothing to wait for.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the shutdown.
pub(super) async fn accept<S: Answers>(
    listener: TcpListener,
    published: Arc<ArcSwap<S>>,
    connections: Arc<Connections>,
) {
    let (mut failures, mut said) = (0_u64, None::<Instant>);
    loop {
        let accepted = tokio::select! {
            biased;
            () = connections.leaving() => return,
            accepted = async {
                let room = connections.room().await;
                listener.accept().await.map(|(stream, peer)| (stream, peer, room))
            } => accepted,
        };
        match accepted {
            Ok((stream, peer, room)) => {
                // A refused stream is closed by dropping it.
                if let Some(permit) = connections.admit(peer.ip(), room) {
                    connections.spawn(converse(stream, peer, published.clone(), permit));
                }
            }
            Err(error) if concerns_one_peer(&error) => {}
            Err(error) => {
                // Out of descriptors or memory. The connection still waits in the kernel and accept would fail again
                // at once: let idle ones go and rest.
                failures += 1;
                if said.is_none_or(|said| said.elapsed() >= COMPLAIN_EVERY) {
                    tracing::warn!(%error, failures, "cannot accept TCP connections; closing idle ones and trying on");
                    said = Some(Instant::now());
                }
                for _ in 0..ACCEPT_ROOM {
                    connections.evict();
                }
                sleep(ACCEPT_REST).await;
            }
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

/// One connection from its accept to its close.
async fn converse<S: Answers>(stream: TcpStream, peer: SocketAddr, published: Arc<ArcSwap<S>>, permit: Permit) {
    let (idle, read, pipeline) = {
        let limits = permit.limits();
        (limits.idle, limits.read, limits.pipeline)
    };
    let client = Client { address: peer.ip(), port: peer.port(), transport: Transport::Tcp };
    let mut talk = Talk { stream, client, held: Vec::new(), pipeline };
    let mut leaving = pin!(permit.leaving());
    let mut told_to_leave = false;
    let mut deadline = Instant::now() + idle;
    // Rings at the deadline or before. It is set again when it rings early and not at each query, which would move
    // it in the runtime's timers every time.
    let mut alarm = pin!(sleep_until(deadline));
    loop {
        let message_begun = !talk.held.is_empty();
        if deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        tokio::select! {
            biased;
            ready = talk.stream.readable() => if ready.is_err() {
                return;
            },
            () = &mut leaving, if !told_to_leave => {
                if !message_begun {
                    return;
                }
                // What has begun is still answered.
                told_to_leave = true;
                deadline = deadline.min(Instant::now() + DRAIN);
                continue;
            }
            () = &mut alarm => {
                if deadline <= Instant::now() {
                    return;
                }
                alarm.as_mut().reset(deadline);
                continue;
            }
        }
        permit.busy();
        let mut turn = talk.read(&published);
        let answered = loop {
            match turn {
                Turn::Nothing => break false,
                Turn::Over => return,
                Turn::Answered { unsent, next } => {
                    if !unsent.is_empty() {
                        let patience = if permit.is_leaving() { read.min(DRAIN) } else { read };
                        // The peer reads slowly. Nothing more is read from it until it has taken this.
                        let sent = timeout(patience, talk.stream.write_all(&unsent)).await;
                        if !matches!(sent, Ok(Ok(()))) {
                            published.load().counters().tcp().unsent(1);
                            return;
                        }
                    }
                    match next {
                        Next::Wait => break true,
                        Next::Continue => {
                            tokio::task::yield_now().await;
                            turn = talk.go_on(&published);
                        }
                        Next::Close => return,
                    }
                }
            }
        };
        // Asked here too: a peer that never rests would not let the wait above see it. One message is finished, not all
        // that may follow.
        if permit.is_leaving() && (answered || talk.held.is_empty()) {
            return;
        }
        if talk.held.is_empty() {
            permit.idle();
            if answered {
                deadline = Instant::now() + idle;
            }
        } else if answered || !message_begun {
            // The first bytes of a message; its later ones get no further delay.
            deadline = Instant::now() + read;
        } else if deadline <= Instant::now() {
            return;
        }
    }
}

/// A connection between two awaits.
struct Talk {
    stream: TcpStream,
    client: Client,
    /// What has arrived of messages that are not answered yet. Without capacity while there is none.
    held: Vec<u8>,
    pipeline: usize,
}

enum Turn {
    /// No whole message has arrived.
    Nothing,
    /// The peer has closed or failed.
    Over,
    Answered {
        /// What the socket did not take at once.
        unsent: Vec<u8>,
        next: Next,
    },
}

enum Next {
    Wait,
    /// More whole messages are held.
    Continue,
    Close,
}

/// Buffers of a runtime thread.
struct Scratch {
    input: Box<[u8]>,
    /// Room for one more answer, however long, when [`WRITE`] is not reached.
    output: Box<[u8]>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; READ].into(),
        output: vec![0; WRITE + PREFIX + MESSAGE].into(),
    });
}

impl Talk {
    /// Takes what has arrived, and answers the whole messages in it.
    fn read<S: Answers>(&mut self, published: &ArcSwap<S>) -> Turn {
        SCRATCH.with_borrow_mut(|Scratch { input, output }| {
            let n = match self.stream.try_read(input) {
                // "If the client closes", what it sent whole was answered already.
                Ok(0) => return Turn::Over,
                Ok(n) => n,
                Err(error) if is_for_later(&error) => return Turn::Nothing,
                Err(_) => return Turn::Over,
            };
            if self.held.is_empty() {
                // The common case: whole messages, answered where they lie.
                let (consumed, turn) = self.answer(&input[..n], output, published);
                self.held.extend_from_slice(&input[consumed..n]);
                return turn;
            }
            self.held.extend_from_slice(&input[..n]);
            self.answer_held(output, published)
        })
    }

    /// Answers whole messages that a turn before left.
    fn go_on<S: Answers>(&mut self, published: &ArcSwap<S>) -> Turn {
        SCRATCH.with_borrow_mut(|Scratch { output, .. }| self.answer_held(output, published))
    }

    fn answer_held<S: Answers>(&mut self, output: &mut [u8], published: &ArcSwap<S>) -> Turn {
        let mut held = std::mem::take(&mut self.held);
        let (consumed, turn) = self.answer(&held, output, published);
        if consumed < held.len() {
            held.drain(..consumed);
            self.held = held;
        }
        turn
    }

    /// Answers the whole messages at the front of `bytes`, as many as one turn may, in one write. Returns the bytes
    /// that are done with.
    fn answer<S: Answers>(&self, bytes: &[u8], output: &mut [u8], published: &ArcSwap<S>) -> (usize, Turn) {
        let snapshot = published.load();
        let shard = snapshot.counters().tcp();
        let (mut consumed, mut written, mut answers) = (0, 0, 0);
        let next = loop {
            let Some(query) = whole_message(&bytes[consumed..]) else { break Next::Wait };
            if answers == self.pipeline || written >= WRITE {
                break Next::Continue;
            }
            let outcome = snapshot.respond(query, self.client, &mut output[written + PREFIX..][..MESSAGE]);
            shard.record(outcome);
            consumed += PREFIX + query.len();
            answers += 1;
            match outcome {
                Outcome::Answered { length, .. } => {
                    let prefix = u16::try_from(length).expect("respond writes at most 65,535 bytes");
                    output[written..written + PREFIX].copy_from_slice(&prefix.to_be_bytes());
                    written += PREFIX + length;
                }
                // No header, or a response: this peer does not speak DNS, or has lost count of its bytes.
                Outcome::Dropped => break Next::Close,
            }
        };
        if answers == 0 {
            return (consumed, Turn::Nothing);
        }
        let sent = match self.stream.try_write(&output[..written]) {
            Ok(n) => n,
            Err(error) if is_for_later(&error) => 0,
            Err(_) => {
                shard.unsent(answers);
                return (consumed, Turn::Over);
            }
        };
        (consumed, Turn::Answered { unsent: output[sent..written].to_vec(), next })
    }
}

/// The first message of `bytes` without its length, if all of it is there.
fn whole_message(bytes: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX>()?;
    rest.get(..u16::from_be_bytes(*prefix) as usize)
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
