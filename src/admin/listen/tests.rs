use std::net::SocketAddr;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;

async fn server() -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let length = |body: axum::body::Bytes| async move { format!("{} bytes\n", body.len()) };
    let router = Router::new().route("/healthz", get(|| async { "ok\n" })).route("/length", post(length));
    tokio::spawn(serve(listener, None, router, stop.clone()));
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

#[tokio::test]
async fn a_request_is_served_at_once_behind_connections_that_say_nothing() {
    let (address, _stop) = server().await;
    let mut idle = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let answer = timeout(HEADER_TIME / 2, ask(address, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    assert!(answer.expect("those that wait longest make room").ends_with("ok\n"));
}

#[tokio::test]
async fn a_request_is_served_at_once_behind_connections_whose_body_never_comes() {
    let (address, _stop) = server().await;
    let mut waiting = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").await.unwrap();
        waiting.push(stream);
    }
    for (request, wanted) in [
        ("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", "ok\n"),
        ("POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc", "3 bytes\n"),
    ] {
        let answer = timeout(HEADER_TIME / 2, ask(address, request)).await;
        let answer = answer.expect("those that wait longest make room");
        assert!(answer.ends_with(wanted), "{answer}");
    }
}

#[tokio::test]
async fn who_has_sent_everything_makes_no_room_for_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = |body: axum::body::Bytes| async move {
        sleep(Duration::from_millis(500)).await;
        format!("{} bytes\n", body.len())
    };
    let router = Router::new().route("/length", post(slow));
    tokio::spawn(serve(listener, None, router, CancellationToken::new()));
    let first =
        tokio::spawn(
            async move { ask(address, "POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc").await },
        );
    sleep(Duration::from_millis(100)).await;
    let mut idle = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(first.await.unwrap().ends_with("3 bytes\n"));
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_when_it_was_last_said_to() {
    let lease = Lease::new(Duration::from_secs(10));
    let began = Instant::now();
    let other = lease.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(9)).await;
        other.without_end();
        sleep(Duration::from_secs(1000)).await;
        other.extend(Duration::from_secs(5));
    });
    lease.expired().await;
    assert_eq!(began.elapsed().as_secs(), 9 + 1000 + 5);
}

#[tokio::test]
async fn a_tls_handshake_that_stalls_is_cut_off() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Some(TlsAcceptor::from(Arc::new(config))), Router::new(), CancellationToken::new()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The head of a record, and nothing of what it announces.
    stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let ended = timeout(HANDSHAKE_TIME + Duration::from_secs(2), stream.read_to_end(&mut Vec::new())).await;
    ended.expect("the server closes the connection").ok();
}
