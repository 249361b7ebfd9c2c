//! HTTP over TCP with every wait and size bounded, so that no client of the admin address can wear the server out.
//!
//! One request a connection: scrapes and tools come seldom, and a connection then has one short life.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// Connections at one time; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// A client must have sent its whole header by then.
const HEADER_TIME: Duration = Duration::from_secs(2);
/// A connection is closed after that, whatever it does.
const WHOLE_TIME: Duration = Duration::from_secs(10);
/// Answers under way get this long when the server stops.
const DRAIN_TIME: Duration = Duration::from_millis(500);
/// Request line and header; the least that hyper takes.
const HEADER_BYTES: usize = 8 * 1024;
const HEADER_LINES: usize = 64;

/// Serves `router` until `stop`, then waits a moment for answers under way. No handler reads a request's body, so none
/// is ever held.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let router = router.clone();
                connections.spawn(async move {
                    // A client that fails or stalls is its own loss.
                    let _ = timeout(WHOLE_TIME, connection(stream, router)).await;
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

async fn connection(stream: TcpStream, router: Router) -> hyper::Result<()> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADER_LINES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    async fn server() -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(listener, Router::new().route("/healthz", get(|| async { "ok\n" })), stop.clone()));
        (address, stop)
    }

    /// Sends `request` and reads until the server closes; a reset counts as the end.
    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_request_is_answered_and_the_connection_closed() {
        let (address, _stop) = server().await;
        let answer = ask(address, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_giant_header_is_refused() {
        let (address, _stop) = server().await;
        let long = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(64 * 1024));
        let many = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(100));
        for request in [long, many] {
            let answer = ask(address, &request).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_body_without_end_is_not_read() {
        let (address, _stop) = server().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n").await.unwrap();
        let chunk = vec![b'a'; 64 * 1024];
        let sent = timeout(Duration::from_secs(5), async {
            let mut sent = 0;
            while stream.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
            }
            sent
        });
        let sent = sent.await.expect("the server closes the connection");
        assert!(sent < 32 << 20, "{sent} bytes were taken");
    }

    #[tokio::test]
    async fn a_client_that_trickles_its_header_is_cut_off() {
        let (address, _stop) = server().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let began = Instant::now();
        for byte in
            b"GET /healthz HTTP/1.1\r\nhost: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".iter().cycle()
        {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        assert!(began.elapsed() < HEADER_TIME + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn idle_connections_beyond_the_limit_only_delay_a_request() {
        let (address, _stop) = server().await;
        let mut idle = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = timeout(Duration::from_secs(9), ask(address, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(answer.expect("served within the header time of those before it").ends_with("ok\n"));
    }

    #[tokio::test]
    async fn stopping_closes_the_listener() {
        let (address, stop) = server().await;
        stop.cancel();
        let closed = async {
            while TcpStream::connect(address).await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(1), closed).await.expect("no new connection after the stop");
    }
}
