//! A toy stream origin in this process: a health page and a live HLS playlist that moves with the wall clock, so that
//! all origins show the same live edge. It can be killed, hung, made to fail, frozen, and revived, as the real ones do.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Length of a segment of the playlist, seconds.
const SEGMENT_SECONDS: u64 = 1;
/// Segments in the playlist.
const WINDOW: u64 = 5;
/// Connections held at one time; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 256;
/// Before accepting again after a failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// How an origin behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Serving,
    /// Every request is answered 503.
    Failing,
    /// All is served as before, but the playlist stands where it stood at this time since the Unix epoch.
    Frozen {
        at: Duration,
    },
    /// Connections are accepted, requests are read, nothing is ever answered.
    Hung,
    /// Nobody listens: connections are refused.
    Killed,
}

/// A toy origin. Dropping it ends it as [`Origin::kill`] does, but without waiting.
pub struct Origin {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// `None` while killed. The lock is held over each change, so that changes follow one another.
    process: Mutex<Option<Process>>,
}

/// What a real origin's process would hold: the listener and its connections.
struct Process {
    stop: CancellationToken,
    done: JoinHandle<()>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Origin {
    /// Listens and serves. Port 0 takes a free one; [`Origin::address`] tells which. Must be called within a tokio
    /// runtime.
    pub async fn bind(address: SocketAddr) -> io::Result<Origin> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let mode = watch::Sender::new(Mode::Serving);
        let process = Mutex::new(Some(Process::start(listener, &mode)));
        Ok(Origin { address, mode, process })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    /// Ends as a killed process does: the listener and all connections are closed, new ones are refused. Returns once
    /// that is so.
    pub async fn kill(&self) {
        let mut process = self.process.lock().await;
        if let Some(mut process) = process.take() {
            process.stop.cancel();
            // An error says that the task panicked; its sockets are closed then, too.
            let _ = (&mut process.done).await;
        }
        self.mode.send_replace(Mode::Killed);
    }

    /// Stops answering, on the connections of now too. Requests that wait are answered after [`Origin::revive`].
    /// Errors: a killed origin listens again first, and another program may have taken its port.
    pub async fn hang(&self) -> io::Result<()> {
        self.be(Mode::Hung).await
    }

    /// Answers 503 to everything. Errors: as [`Origin::hang`].
    pub async fn fail(&self) -> io::Result<()> {
        self.be(Mode::Failing).await
    }

    /// Goes on serving a playlist that moves no more, as an origin does whose encoder died. Errors: as
    /// [`Origin::hang`].
    pub async fn freeze(&self) -> io::Result<()> {
        let at = match self.mode() {
            Mode::Frozen { at } => at,
            _ => now(),
        };
        self.be(Mode::Frozen { at }).await
    }

    /// Serves again, whatever it did before. Errors: as [`Origin::hang`].
    pub async fn revive(&self) -> io::Result<()> {
        self.be(Mode::Serving).await
    }

    async fn be(&self, mode: Mode) -> io::Result<()> {
        let mut process = self.process.lock().await;
        if process.is_none() {
            let listener = TcpListener::bind(self.address).await?;
            *process = Some(Process::start(listener, &self.mode));
        }
        self.mode.send_replace(mode);
        Ok(())
    }
}

impl Process {
    fn start(listener: TcpListener, mode: &watch::Sender<Mode>) -> Process {
        let stop = CancellationToken::new();
        let done = tokio::spawn(serve(listener, router(mode.subscribe()), stop.clone()));
        Process { stop, done }
    }
}

/// Serves until `stop`, then closes the listener and every connection.
async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let service = TowerToHyperService::new(router.clone());
                    connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                }
                // Out of file descriptors: the connection stays in the backlog, so this would spin.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

fn router(mode: watch::Receiver<Mode>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/live.m3u8",
            get(|State(mode): State<watch::Receiver<Mode>>| async move {
                let time = match *mode.borrow() {
                    Mode::Frozen { at } => at,
                    _ => now(),
                };
                ([(header::CONTENT_TYPE, "application/vnd.apple.mpegurl")], playlist(time))
            }),
        )
        .route("/{segment}", get(|Path(name): Path<String>| async move { segment(&name, now()) }))
        .layer(middleware::from_fn_with_state(mode.clone(), behave))
        .with_state(mode)
}

/// Answers, fails or hangs, by what the origin is told to be at that time.
async fn behave(State(mut mode): State<watch::Receiver<Mode>>, request: Request, next: Next) -> Response {
    // An error says that the origin is dropped, and with it this connection.
    let now = mode.wait_for(|mode| *mode != Mode::Hung).await.map(|mode| *mode);
    match now {
        Ok(Mode::Failing) | Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Ok(_) => next.run(request).await,
    }
}

/// Time since the Unix epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The numbers of the segments in the playlist.
fn window(now: Duration) -> std::ops::Range<u64> {
    let edge = now.as_secs() / SEGMENT_SECONDS;
    edge.saturating_sub(WINDOW)..edge
}

/// A live media playlist (RFC 8216 §6.2.2): the last segments, and no end.
fn playlist(now: Duration) -> String {
    let window = window(now);
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{SEGMENT_SECONDS}\n#EXT-X-MEDIA-SEQUENCE:{}\n",
        window.start
    );
    for number in window {
        text += &format!("#EXTINF:{SEGMENT_SECONDS}.000,\nsegment-{number}.ts\n");
    }
    text
}

/// A segment: null packets of an MPEG transport stream (ISO 13818-1 §2.4.3.3), no picture. Those that have just left the
/// playlist are still there (RFC 8216 §6.2.2).
fn segment(name: &str, now: Duration) -> Response {
    let number = name.strip_prefix("segment-").and_then(|name| name.strip_suffix(".ts")).and_then(|n| n.parse().ok());
    let window = window(now);
    if !number.is_some_and(|number: u64| number >= window.start.saturating_sub(WINDOW) && number < window.end) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let mut packet = [0xFF; 188];
    packet[..4].copy_from_slice(&[0x47, 0x1F, 0xFF, 0x10]);
    ([(header::CONTENT_TYPE, "video/mp2t")], packet.repeat(7)).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    async fn origin() -> Origin {
        Origin::bind("127.0.0.21:0".parse().unwrap()).await.unwrap()
    }

    async fn ask(stream: &mut TcpStream, path: &str) -> String {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = vec![0; 16_384];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    async fn get(origin: &Origin, path: &str) -> String {
        ask(&mut TcpStream::connect(origin.address()).await.unwrap(), path).await
    }

    #[test]
    fn the_playlist_moves_on_by_one_segment_every_second() {
        let at = |ms| playlist(Duration::from_millis(ms));
        assert_eq!(
            at(1_000_000),
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:995\n\
             #EXTINF:1.000,\nsegment-995.ts\n#EXTINF:1.000,\nsegment-996.ts\n#EXTINF:1.000,\nsegment-997.ts\n\
             #EXTINF:1.000,\nsegment-998.ts\n#EXTINF:1.000,\nsegment-999.ts\n"
        );
        assert_eq!(at(1_000_999), at(1_000_000));
        let next = at(1_001_000);
        assert!(next.contains("#EXT-X-MEDIA-SEQUENCE:996\n") && next.ends_with("segment-1000.ts\n"), "{next}");
    }

    #[tokio::test]
    async fn it_serves_health_playlist_and_the_segments_of_the_playlist() {
        let origin = origin().await;
        assert!(get(&origin, "/healthz").await.ends_with("\r\n\r\nok\n"));
        let playlist = get(&origin, "/live.m3u8").await;
        let newest = playlist.lines().last().unwrap();
        let segment = get(&origin, &format!("/{newest}")).await;
        assert!(segment.starts_with("HTTP/1.1 200 OK") && segment.contains("video/mp2t"), "{segment}");
        for none in [
            "/segment-1.ts",
            "/segment-.ts",
            "/segment-18446744073709551615.ts",
            "/segment-99999999999999999999.ts",
            "/other",
        ] {
            assert!(get(&origin, none).await.starts_with("HTTP/1.1 404"), "{none}");
        }
    }

    #[tokio::test]
    async fn killed_it_closes_its_connections_and_refuses_new_ones() {
        let origin = origin().await;
        let mut open = TcpStream::connect(origin.address()).await.unwrap();
        assert!(ask(&mut open, "/healthz").await.starts_with("HTTP/1.1 200"));
        origin.kill().await;
        let closed = timeout(Duration::from_secs(20), open.read(&mut [0])).await.expect("closed at once");
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        let refused = TcpStream::connect(origin.address()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        origin.kill().await;
        assert_eq!(origin.mode(), Mode::Killed);
    }

    #[tokio::test]
    async fn revived_it_serves_at_the_same_address() {
        let origin = origin().await;
        for _ in 0..3 {
            origin.kill().await;
            origin.revive().await.unwrap();
            assert!(get(&origin, "/healthz").await.starts_with("HTTP/1.1 200"));
        }
    }

    #[tokio::test]
    async fn failing_it_answers_503_until_revived() {
        let origin = origin().await;
        let mut open = TcpStream::connect(origin.address()).await.unwrap();
        origin.fail().await.unwrap();
        assert!(ask(&mut open, "/healthz").await.starts_with("HTTP/1.1 503"));
        origin.revive().await.unwrap();
        assert!(ask(&mut open, "/healthz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn frozen_it_serves_all_but_a_playlist_that_moves_until_revived() {
        let origin = origin().await;
        origin.freeze().await.unwrap();
        let frozen = get(&origin, "/live.m3u8").await;
        assert!(frozen.starts_with("HTTP/1.1 200"), "{frozen}");
        let edge = |answer: &str| answer.lines().last().unwrap().to_owned();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        origin.freeze().await.unwrap();
        assert_eq!(edge(&get(&origin, "/live.m3u8").await), edge(&frozen), "frozen twice it stands where it stood");
        assert!(get(&origin, "/healthz").await.starts_with("HTTP/1.1 200"));
        origin.revive().await.unwrap();
        assert_ne!(edge(&get(&origin, "/live.m3u8").await), edge(&frozen));
    }

    #[tokio::test]
    async fn hung_it_accepts_and_says_nothing_until_revived() {
        let origin = origin().await;
        let mut open = TcpStream::connect(origin.address()).await.unwrap();
        assert!(ask(&mut open, "/healthz").await.starts_with("HTTP/1.1 200"));
        origin.hang().await.unwrap();
        let mut new = TcpStream::connect(origin.address()).await.unwrap();
        for stream in [&mut open, &mut new] {
            timeout(Duration::from_millis(100), ask(stream, "/healthz")).await.expect_err("no answer while hung");
        }
        origin.revive().await.unwrap();
        let mut answer = [0; 12];
        open.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }

    #[tokio::test]
    async fn a_hung_origin_can_be_killed_and_a_killed_one_can_come_back_hung() {
        let origin = origin().await;
        origin.hang().await.unwrap();
        let mut waiting = TcpStream::connect(origin.address()).await.unwrap();
        timeout(Duration::from_millis(50), ask(&mut waiting, "/healthz")).await.expect_err("hung");
        origin.kill().await;
        let closed = timeout(Duration::from_secs(20), waiting.read(&mut [0])).await.expect("closed at once");
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        origin.hang().await.unwrap();
        let mut new = TcpStream::connect(origin.address()).await.unwrap();
        timeout(Duration::from_millis(50), ask(&mut new, "/healthz")).await.expect_err("hung again");
    }

    #[tokio::test]
    async fn reviving_fails_when_the_port_was_taken_and_can_be_tried_again() {
        let origin = origin().await;
        origin.kill().await;
        let thief = TcpListener::bind(origin.address()).await.unwrap();
        assert_eq!(origin.revive().await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(origin.mode(), Mode::Killed);
        drop(thief);
        origin.revive().await.unwrap();
        assert_eq!(origin.mode(), Mode::Serving);
    }

    #[tokio::test]
    async fn dropped_it_stops() {
        let origin = origin().await;
        let mut open = TcpStream::connect(origin.address()).await.unwrap();
        assert!(ask(&mut open, "/healthz").await.starts_with("HTTP/1.1 200"));
        drop(origin);
        let closed = timeout(Duration::from_secs(20), open.read(&mut [0])).await.expect("closed");
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
}
