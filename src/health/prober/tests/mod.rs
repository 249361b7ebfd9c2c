//! Real sockets on loopback.

mod answers;
mod exec;
mod faults;
mod hls;
mod hostile;
mod lifecycle;
mod tls;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::settings::{Check, CheckKind, HttpCheck};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Long enough for a busy machine; a test that passes does not wait for it.
const PLENTY: Duration = Duration::from_secs(20);

fn http(address: SocketAddr) -> Target {
    http_check(address, |_| {})
}

fn http_check(address: SocketAddr, change: impl FnOnce(&mut HttpCheck)) -> Target {
    let mut http =
        HttpCheck { path: "/healthz".into(), host: "live.stream.example".into(), status: vec![], contains: None };
    change(&mut http);
    target(address, CheckKind::Http(http))
}

fn target(address: SocketAddr, kind: CheckKind) -> Target {
    let check = Check {
        kind,
        every: ms(100),
        timeout: ms(80),
        adaptive: false,
        fall: 3,
        rise: 2,
        port: address.port(),
        heartbeat: None,
        load: Default::default(),
    };
    Target { address, check: Arc::new(check), beats_of: None }
}

/// Changes the check of a target.
fn with(mut target: Target, change: impl FnOnce(&mut Check)) -> Target {
    change(Arc::make_mut(&mut target.check));
    target
}

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.9:0").await.unwrap().local_addr().unwrap()
}

/// A server that treats each connection so.
async fn server<F, Fut>(mut handle: F) -> SocketAddr
where
    F: FnMut(TcpStream, usize) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(handle(stream, number));
        }
    });
    address
}

/// Reads one request head. `None`: the connection ended.
async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// A server that answers each request with the same bytes.
async fn answering(answer: &'static [u8]) -> SocketAddr {
    server(move |mut stream, _| async move {
        while request(&mut stream).await.is_some() && stream.write_all(answer).await.is_ok() {}
    })
    .await
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

struct Watched {
    prober: Prober,
    events: mpsc::Receiver<Event>,
}

impl Watched {
    fn new(targets: &[Target]) -> Watched {
        let (sender, events) = mpsc::channel(64);
        let mut prober = Prober::new(sender);
        prober.retarget(targets);
        Watched { prober, events }
    }

    /// Watches one target that must be up at first.
    async fn up(target: Target) -> Watched {
        let mut watched = Watched::new(&[target]);
        assert_eq!(watched.event().await.verdict, Verdict::Up);
        watched
    }

    async fn event(&mut self) -> Event {
        timeout(PLENTY, self.events.recv()).await.expect("an event in time").expect("the channel is open")
    }

    fn stats(&self) -> Arc<TargetStats> {
        self.prober.stats().targets()[0].clone()
    }

    /// Waits until so many probes have ended so, and fails if a verdict changes meanwhile.
    async fn quiet_until(&mut self, kind: Kind, count: u64) {
        let enough = Instant::now() + PLENTY;
        while self.stats().results(kind) < count {
            assert!(Instant::now() < enough, "{:?}", self.stats());
            self.quiet(ms(10)).await;
        }
    }

    async fn quiet(&mut self, time: Duration) {
        if let Ok(event) = timeout(time, self.events.recv()).await {
            panic!("unexpected: {event:?}");
        }
    }
}

/// The first verdict and its cause.
async fn first_verdict(target: Target) -> (Verdict, String) {
    let event = Watched::new(&[target]).event().await;
    (event.verdict, event.cause.to_string())
}

fn down(cause: &str) -> (Verdict, String) {
    (Verdict::Down, cause.into())
}
