//! UDP over loopback.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::*;
use crate::server::mmsg::{BATCH, SLOT};

fn client(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// The next datagram and where it came from.
fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 65_535];
    let (n, from) = socket.recv_from(&mut bytes).expect("an answer in time");
    bytes.truncate(n);
    (bytes, from)
}

fn nothing_comes(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    socket.recv_from(&mut [0; 512]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn a_wildcard_socket_answers_from_the_address_that_was_asked() {
    let server = Server::start("0.0.0.0:0", 1, limits());
    let client = client("127.0.0.1:0");
    for last in [77, 1, 254] {
        let asked = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), server.address.port()));
        client.send_to(&query(last.into(), b"q"), asked).unwrap();
        assert_eq!(receive(&client), (answer(&query(last.into(), b"q")), asked));
    }
    server.stop().await;
}

#[tokio::test]
async fn ipv6_and_ipv4_wildcards_share_a_port_and_keep_families_apart() {
    if UdpSocket::bind("[::]:0").is_err() {
        return eprintln!("this machine has no IPv6");
    }
    // Other tests take ports too, so one is tried after the other until it is free for both families and protocols. Those
    // below the ephemeral ones are taken by nobody's connection.
    let first = 10_000 + (std::process::id() * 7 % 20_000) as u16;
    let both = |port: u16| bind(&[(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()], 1);
    let free = (first..32_000).find_map(|port| Some((port, both(port).ok()?)));
    let (port, sockets) = free.expect("a port is free");
    let server = Server::serve(sockets, limits());
    let v6 = client("[::1]:0");
    let asked: SocketAddr = format!("[::1]:{port}").parse().unwrap();
    v6.send_to(&query(6, b"q"), asked).unwrap();
    assert_eq!(receive(&v6), (answer(&query(6, b"q")), asked));

    // WHO panics unless the client is an IPv4 one, so a mapped address would not be answered.
    let v4 = client("127.0.0.1:0");
    v4.send_to(&query(4, &[WHO]), ("127.0.0.1", port)).unwrap();
    let mut expected = answer(&query(4, &[WHO]));
    expected.extend([127, 0, 0, 1]);
    expected.extend(v4.local_addr().unwrap().port().to_be_bytes());
    assert_eq!(receive(&v4).0, expected);
    server.stop().await;
}

#[tokio::test]
async fn queries_that_waited_before_serve_are_all_answered_and_counted() {
    let sockets = bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap();
    let client = client("127.0.0.1:0");
    let n = 5 * BATCH as u16 + 3;
    for id in 0..n {
        client.send_to(&query(id, b"q"), sockets.addresses()[0]).unwrap();
    }
    let server = Server::serve(sockets, limits());
    for id in 0..n {
        assert_eq!(receive(&client).0, answer(&query(id, b"q")), "each once, in the order sent");
    }
    assert!(nothing_comes(&client));
    assert_eq!(answered(&server.stop().await, "udp"), u64::from(n));
}

#[tokio::test]
async fn what_waits_when_the_server_stops_is_still_answered() {
    let server = Server::start("127.0.0.1:0", 1, limits());
    let client = client("127.0.0.1:0");
    for id in 0..300 {
        client.send_to(&query(id, b"q"), server.address).unwrap();
    }
    let begin = Instant::now();
    let totals = server.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(answered(&totals, "udp"), 300);
}

#[tokio::test]
async fn all_workers_of_an_address_get_queries() {
    let server = Server::start("127.0.0.1:0", 4, limits());
    // Each client port goes to one worker, chosen by the kernel; 64 ports miss one of four once in 25 million runs.
    for id in 0..64 {
        let client = client("127.0.0.1:0");
        client.send_to(&query(id, b"q"), server.address).unwrap();
        receive(&client);
    }
    let counters = server.published.load().counters.clone();
    let busy = (0..4).filter(|worker| counters.udp(*worker).outside() > 0).count();
    assert_eq!(busy, 4);
    server.stop().await;
}

#[tokio::test]
async fn responses_and_short_messages_get_nothing() {
    let server = Server::start("127.0.0.1:0", 1, limits());
    let client = client("127.0.0.1:0");
    client.send_to(&[], server.address).unwrap();
    client.send_to(&query(1, b"")[..11], server.address).unwrap();
    client.send_to(&answer(&query(2, b"q")), server.address).unwrap();
    client.send_to(&query(3, b"q"), server.address).unwrap();
    assert_eq!(receive(&client).0, answer(&query(3, b"q")));
    assert!(nothing_comes(&client));
    let totals = server.stop().await;
    assert_eq!((totals.dropped["udp"], answered(&totals, "udp")), (3, 1));
}

#[tokio::test]
async fn of_an_overlong_datagram_only_the_header_is_believed() {
    let server = Server::start("127.0.0.1:0", 1, limits());
    let client = client("127.0.0.1:0");
    let whole = query(1, &[b'q'; SLOT - HEADER_LEN]);
    client.send_to(&whole, server.address).unwrap();
    assert_eq!(receive(&client).0, answer(&whole));
    client.send_to(&query(2, &[b'q'; SLOT - HEADER_LEN + 1]), server.address).unwrap();
    assert_eq!(receive(&client).0, answer(&query(2, b"")));
    client.send_to(&query(3, &[b'q'; 60_000]), server.address).unwrap();
    assert_eq!(receive(&client).0, answer(&query(3, b"")));
    server.stop().await;
}

#[tokio::test]
async fn a_panic_costs_its_batch_and_not_the_worker() {
    let server = Server::start("127.0.0.1:0", 1, limits());
    let client = client("127.0.0.1:0");
    client.send_to(&query(1, &[PANIC]), server.address).unwrap();
    assert!(nothing_comes(&client));
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.send_to(&query(2, b"q"), server.address).unwrap();
    assert_eq!(receive(&client).0, answer(&query(2, b"q")));
    server.stop().await;
}

#[tokio::test]
async fn clients_that_are_gone_do_not_disturb_the_others() {
    let server = Server::start("127.0.0.1:0", 1, limits());
    let staying = client("127.0.0.1:0");
    for id in 0..200 {
        // The answer meets a closed port, and the kernel may tell the server so.
        client("127.0.0.1:0").send_to(&query(id, b"q"), server.address).unwrap();
        staying.send_to(&query(id, b"q"), server.address).unwrap();
    }
    for id in 0..200 {
        assert_eq!(receive(&staying).0, answer(&query(id, b"q")));
    }
    server.stop().await;
}

#[tokio::test]
async fn the_next_batch_is_answered_from_a_new_snapshot_and_the_old_one_is_let_go() {
    let server = Server::start("127.0.0.1:0", 3, limits());
    let old = server.published.swap(Arc::new(toy(3, 0xEE)));
    let client = client("127.0.0.1:0");
    client.send_to(&query(0x0101, b"q"), server.address).unwrap();
    assert_eq!(receive(&client).0, answer(&query(0x01EE, b"q")));
    // Two of three workers had no query; they let go of it all the same.
    let begin = Instant::now();
    while Arc::strong_count(&old) > 1 {
        assert!(begin.elapsed() < Duration::from_secs(5), "a worker holds the old snapshot");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.stop().await;
}

#[test]
fn a_port_in_use_is_refused_even_by_another_server_of_ours() {
    let first = bind(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
    let taken = first.addresses()[0];
    let error = bind(&[taken], 2).map(|_| ()).unwrap_err();
    let port = taken.port();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot listen on 127.0.0.1:{port} (UDP): Address already in use (os error 98)\n  \
             the port is taken, on this address or on all, by a program or by another `listen` of ours\n  \
             help: find it with `ss -ulnp 'sport = :{port}'` and stop it, or listen elsewhere"
        )
    );
}

#[test]
fn an_address_listed_twice_is_refused() {
    let free = bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap().addresses()[0];
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, free.port()));
    for second in [free, everywhere] {
        let error = bind(&[free, second], 1).map(|_| ()).unwrap_err();
        assert_eq!((error.address, error.cause.kind()), (second, io::ErrorKind::AddrInUse));
    }
}

#[test]
fn a_port_that_only_tcp_uses_is_refused() {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = bind(&[tcp.local_addr().unwrap()], 1).map(|_| ()).unwrap_err();
    assert_eq!((error.protocol, error.cause.kind()), ("TCP", io::ErrorKind::AddrInUse));
    assert!(error.to_string().contains("ss -tlnp"));
}

#[test]
fn an_address_of_another_machine_is_refused_with_the_mend() {
    let error = bind(&["192.0.2.1:0".parse().unwrap()], 1).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("cannot listen on 192.0.2.1:0 (UDP): "), "{error}");
    assert!(error.contains("no network interface of this machine has the address 192.0.2.1"), "{error}");
    assert!(error.contains("help: `ip address`"), "{error}");
}

#[test]
fn a_privileged_port_is_refused_with_the_mend() {
    let denied = |port| BindError {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        protocol: "UDP",
        cause: io::ErrorKind::PermissionDenied.into(),
    };
    assert!(denied(53).to_string().contains("CAP_NET_BIND_SERVICE"));
    assert!(!denied(5300).to_string().contains("CAP_NET_BIND_SERVICE"), "another cause than the port");
}
