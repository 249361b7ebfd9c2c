//! Servers that send without end: the verdict comes in time, and their bytes cost bounded work.

use tokio_rustls::TlsAcceptor;

use super::tls::{Ca, HOST, https};
use super::*;

/// A server on threads of its own, so that what a flood costs the test's thread is the prober's work alone.
pub(super) fn flooding<F>(flood: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static,
{
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let flood = Arc::new(flood);
            sender.send(server(move |stream, _| flood(stream)).await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    address.recv().unwrap()
}

/// Answers each request, then each connection, with one piece for ever.
fn flooding_with(piece: &'static [u8]) -> SocketAddr {
    let many = piece.repeat(16 * 1024 / piece.len());
    flooding(move |mut stream| {
        let many = many.clone();
        Box::pin(async move {
            let _ = stream.read(&mut [0; 4096]).await;
            while stream.write_all(&many).await.is_ok() {}
        })
    })
}

fn flooding_over_tls(acceptor: TlsAcceptor, piece: &'static [u8]) -> SocketAddr {
    let many = piece.repeat(16 * 1024 / piece.len());
    flooding(move |stream| {
        let (acceptor, many) = (acceptor.clone(), many.clone());
        Box::pin(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if request(&mut stream).await.is_some() {
                while stream.write_all(&many).await.is_ok() {}
            }
        })
    })
}

/// Time on a processor that this thread has had.
fn spent() -> Duration {
    let figures = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(figures.split_whitespace().next().unwrap().parse().unwrap())
}

/// Probes until the target is down, and a while longer; the cause. The probes after the verdict are far away.
pub(super) async fn down_at_bounded_cost(target: Target) -> String {
    let check = with(target, |check| (check.every, check.timeout) = (PLENTY * 10, ms(400)));
    let bound = check.check.timeout * 2 + ms(20) * check.check.fall;
    let before = (spent(), Instant::now());
    let mut watched = Watched::new(&[check]);
    let event = watched.event().await;
    let took = event.at.duration_since(before.1);
    assert_eq!(event.verdict, Verdict::Down, "{}", event.cause);
    // A busy machine may double a time-out.
    assert!(took < bound * 2 + ms(500), "{took:?}");
    watched.quiet(ms(500)).await;
    let cost = spent() - before.0;
    println!("down in {took:?}, {cost:?} of work: {}", event.cause);
    assert!(cost < ms(300), "{cost:?} of work");
    event.cause.to_string()
}

const TOO_MUCH: &str = "no whole answer in 512 KiB";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[tokio::test]
async fn endless_interim_responses_are_down() {
    assert_eq!(down_at_bounded_cost(http(flooding_with(CONTINUE))).await, TOO_MUCH);
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX: y\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(down_at_bounded_cost(http(flooding_with(hints))).await, TOO_MUCH);
}

#[tokio::test]
async fn endless_interim_responses_over_tls_are_down() {
    let ca = Ca::new();
    let address = flooding_over_tls(ca.sign(HOST, |_| {}), CONTINUE);
    assert_eq!(down_at_bounded_cost(https(address, Some(&ca))).await, TOO_MUCH);
}

#[tokio::test]
async fn interim_responses_before_an_answer_are_no_failure() {
    let address = answering(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let mut watched = Watched::up(http(address)).await;
    watched.quiet_until(Kind::Success, 5).await;
    assert_eq!(watched.stats().connects(), 1, "kept alive");
}

#[tokio::test]
async fn a_switch_of_protocols_that_nobody_asked_for_is_down() {
    let address = answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n").await;
    assert_eq!(first_verdict(http(address)).await, down("status 101"));
}

#[tokio::test]
async fn an_answer_of_http_0_9_is_not_http() {
    let address = flooding_with(b"<html>all is well</html>\n");
    assert_eq!(down_at_bounded_cost(http(address)).await, "the answer is not HTTP");
}

#[tokio::test]
async fn empty_lines_chunk_extensions_and_trailers_without_end_are_down() {
    let contains = |address| http_check(address, |http| http.contains = Some("ok".into()));
    assert_eq!(down_at_bounded_cost(http(flooding_with(b"\r\n"))).await, "headers too long");
    for (head, more) in [
        (&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"[..], &b"extension;"[..]),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-More: and more\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0000000000000000000"),
    ] {
        let address = flooding(move |mut stream| {
            Box::pin(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(head).await;
                let many = more.repeat(100);
                while stream.write_all(&many).await.is_ok() {}
            })
        });
        down_at_bounded_cost(contains(address)).await;
    }
}

#[tokio::test]
async fn tls_records_without_end_in_the_handshake_are_down() {
    for (name, record) in [
        ("handshake without data", &[0x16, 3, 3, 0, 0][..]),
        ("change cipher spec", &[0x14, 3, 3, 0, 1, 1]),
        ("application data without data", &[0x17, 3, 3, 0, 0]),
        ("alert without data", &[0x15, 3, 3, 0, 0]),
        ("warning", &[0x15, 3, 3, 0, 2, 1, 90]),
        ("hello request", &[0x16, 3, 3, 0, 4, 0, 0, 0, 0]),
    ] {
        let cause = down_at_bounded_cost(https(flooding_with(record), None)).await;
        println!("{name}: {cause}");
    }
}

/// Answers a request if it should, and when the answer has been read sends key updates for ever: records without data.
fn key_updates(acceptor: TlsAcceptor, answers: bool) -> SocketAddr {
    flooding(move |stream| {
        let acceptor = acceptor.clone();
        Box::pin(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if request(&mut stream).await.is_none() {
                return;
            }
            if answers {
                let _ = stream.write_all(OK).await;
                sleep(ms(200)).await;
            }
            loop {
                for _ in 0..64 {
                    let _ = stream.get_mut().1.refresh_traffic_keys();
                }
                if stream.flush().await.is_err() {
                    return;
                }
            }
        })
    })
}

#[tokio::test]
async fn key_updates_without_end_are_down() {
    let ca = Ca::new();
    let address = key_updates(ca.sign(HOST, |_| {}), false);
    let cause = down_at_bounded_cost(https(address, Some(&ca))).await;
    assert!(cause.starts_with("TLS: "), "{cause}");
}

#[tokio::test]
async fn key_updates_without_end_after_an_answer_cost_the_connection_not_a_core() {
    let ca = Ca::new();
    let address = key_updates(ca.sign(HOST, |_| {}), true);
    let before = spent();
    let far = with(https(address, Some(&ca)), |check| (check.every, check.timeout) = (PLENTY * 10, PLENTY));
    let mut watched = Watched::up(far).await;
    watched.quiet(ms(1000)).await;
    let cost = spent() - before;
    println!("{cost:?} of work");
    assert!(cost < ms(400), "{cost:?} of work");
    assert_eq!(watched.stats().connects(), 2, "asked again once, not in a loop");
}
