//! HTTP over TCP and TLS with every wait and size bounded, so that no client of the admin address can wear the server
//! out.
//!
//! One request a connection: scrapes and tools come seldom, and a connection then has one short life. A handler whose
//! answer takes longer says so with the request's [`Lease`].

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::impatient::Impatient;

/// Connections at one time. One more ends the oldest that has not sent all of its request, header and body; where all have
/// sent theirs it waits, and those behind it wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// A TLS handshake must be over by then.
const HANDSHAKE_TIME: Duration = Duration::from_secs(3);
/// A client must have sent its whole header by then.
const HEADER_TIME: Duration = Duration::from_secs(2);
/// A connection is closed after that, whatever it does, unless its [`Lease`] is longer.
const WHOLE_TIME: Duration = Duration::from_secs(10);
/// A client that takes nothing of an answer for so long is gone.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// Answers under way get this long when the server stops.
const DRAIN_TIME: Duration = Duration::from_millis(500);
/// Request line and header; the least that hyper takes.
const HEADER_BYTES: usize = 8 * 1024;
const HEADER_LINES: usize = 64;

/// Who is at the other end; an extension of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// How long a connection may last; an extension of every request.
#[derive(Clone, Debug)]
pub struct Lease(Arc<watch::Sender<Option<Instant>>>);

impl Lease {
    fn new(time: Duration) -> Lease {
        Lease(Arc::new(watch::Sender::new(Some(Instant::now() + time))))
    }

    /// From now on.
    pub fn extend(&self, time: Duration) {
        self.0.send_replace(Some(Instant::now() + time));
    }

    /// As long as the client takes what it is sent. Whoever gives this must bound the number of such connections.
    pub fn without_end(&self) {
        self.0.send_replace(None);
    }

    async fn expired(&self) {
        let mut until = self.0.subscribe();
        loop {
            let end = *until.borrow_and_update();
            tokio::select! {
                () = async { match end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                } } => return,
                // The sender is ours, so there is always one.
                _ = until.changed() => {}
            }
        }
    }
}

/// Connections that have not sent their whole request yet, by age.
#[derive(Clone, Default)]
struct Unheard(Arc<Mutex<BTreeMap<u64, CancellationToken>>>);

impl Unheard {
    /// Cancels `evicted` when the connection has to make room before its [`Place`] is left.
    fn enter(&self, number: u64, evicted: CancellationToken) -> Place {
        self.change(|all| all.insert(number, evicted));
        Place { unheard: self.clone(), number }
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<u64, CancellationToken>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end_oldest(&self) {
        if let Some((_, oldest)) = self.change(BTreeMap::pop_first) {
            oldest.cancel();
        }
    }
}

/// A connection's place among the unheard.
struct Place {
    unheard: Unheard,
    number: u64,
}

impl Place {
    /// All of the request has come, or nobody waits for the rest of it. Once is enough.
    fn leave(&self) {
        self.unheard.change(|all| all.remove(&self.number));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A body that leaves the connection's place at its end, or when a handler wants no more of it.
struct Awaited {
    body: Incoming,
    place: Arc<Place>,
}

impl Body for Awaited {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) {
            self.place.leave();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.place.leave();
    }
}

/// Serves `router` until `stop`, then waits a moment for answers under way.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    let unheard = Unheard::default();
    for number in 0.. {
        let next = async {
            let accepted = listener.accept().await;
            if accepted.is_ok() && permits.available_permits() == 0 {
                unheard.end_oldest();
            }
            (Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed"), accepted)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, tls) = (router.clone(), tls.clone());
                let evicted = CancellationToken::new();
                let place = Arc::new(unheard.enter(number, evicted.clone()));
                let stop = stop.clone();
                connections.spawn(async move {
                    let lease = Lease::new(WHOLE_TIME);
                    // A client that fails or stalls is its own loss.
                    tokio::select! {
                        _ = connection(stream, Peer(peer), tls, router, lease.clone(), place) => {}
                        () = lease.expired() => {}
                        () = evicted.cancelled() => {}
                        // A stream of events would go on.
                        () = async { stop.cancelled().await; sleep(DRAIN_TIME).await } => {}
                    }
                    drop(permit);
                });
            }
            Err(error) => pause(&error).await,
        }
    }
    connections.close();
    let _ = timeout(DRAIN_TIME, connections.wait()).await;
}

/// Out of file descriptors, or a connection that was reset before it was accepted: the loop must neither end nor spin.
async fn pause(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        warn!(%error, "the admin address cannot accept a connection");
        sleep(Duration::from_millis(200)).await;
    }
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    tls: Option<TlsAcceptor>,
    router: Router,
    lease: Lease,
    place: Arc<Place>,
) -> io::Result<()> {
    // Events are small and wanted at once.
    stream.set_nodelay(true)?;
    let stream = Impatient::new(stream, WRITE_TIME);
    match tls {
        None => exchange(stream, peer, router, lease, place).await,
        Some(tls) => {
            let stream = timeout(HANDSHAKE_TIME, tls.accept(stream)).await??;
            exchange(stream, peer, router, lease, place).await
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    router: Router,
    lease: Lease,
    place: Arc<Place>,
) -> io::Result<()> {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        if request.body().is_end_stream() {
            place.leave();
        }
        let mut request = request.map(|body| Awaited { body, place: Arc::clone(&place) });
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(lease.clone());
        router.call(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADER_LINES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
