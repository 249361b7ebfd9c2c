//! Real sockets on loopback: what each kind of server makes of its verdict.

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
    let check = Check { kind, every: ms(100), timeout: ms(80), fall: 3, rise: 2, port: address.port() };
    Target { address, check: Arc::new(check) }
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
        head.push(stream.read_u8().await.ok()?);
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

    async fn event(&mut self) -> Event {
        timeout(PLENTY, self.events.recv()).await.expect("an event in time").expect("the channel is open")
    }

    fn stats(&self) -> Arc<TargetStats> {
        self.prober.stats().targets()[0].clone()
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

#[tokio::test]
async fn a_server_that_answers_is_up() {
    let (verdict, cause) = first_verdict(http(answering(OK).await)).await;
    assert_eq!(verdict, Verdict::Up);
    assert!(cause.starts_with("answered in "), "{cause}");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_refused() {
    assert_eq!(first_verdict(http(nobody().await)).await, down("refused"));
    assert_eq!(first_verdict(target(nobody().await, CheckKind::Tcp)).await, down("refused"));
}

#[tokio::test]
async fn a_tcp_check_is_content_with_a_connection() {
    let address = server(|stream, _| async move { drop(stream) }).await;
    assert_eq!(first_verdict(target(address, CheckKind::Tcp)).await.0, Verdict::Up);
}

#[tokio::test]
async fn a_server_that_never_answers_is_down_by_silence() {
    let address = server(|stream, _| async move {
        sleep(PLENTY).await;
        drop(stream);
    })
    .await;
    assert_eq!(first_verdict(http(address)).await, down("no answer in 80ms"));
}

#[tokio::test]
async fn many_probes_go_over_one_connection() {
    let mut watched = Watched::new(&[http(answering(OK).await)]);
    assert_eq!(watched.event().await.verdict, Verdict::Up);
    while watched.stats().results(Kind::Success) < 10 {
        watched.quiet(ms(20)).await;
    }
    assert_eq!(watched.stats().connects(), 1);
}
