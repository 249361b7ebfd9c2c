//! From a query on a socket to the demand of its cell.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
use hickory_proto::rr::{Name, RecordType};
use tokio_util::sync::CancellationToken;

use meridian::answer::{Client, Outcome, Transport, respond};
use meridian::config::settings::TcpLimits;
use meridian::config::{Shared, load_zones};
use meridian::demand::asked::Asked;
use meridian::geo::Database;
use meridian::health::Verdict;
use meridian::server::bind;
use meridian::snapshot::{Served, Snapshot};

const ZONE: &str = r#"
zone = "count.example"
ns = ["ns1.elsewhere.example"]
[region.us]
near = "Ashburn"
a = ["192.0.2.1", "192.0.2.2"]
aaaa = ["2001:db8::1"]
[region.eu]
near = "Frankfurt"
a = ["192.0.2.11"]
aaaa = ["2001:db8::2"]
[region.six]
near = "London"
aaaa = ["2001:db8::6"]
[stream.live]
regions = ["us", "eu"]
[stream.six]
regions = ["six"]
[records]
www = { CNAME = "live" }
text = { TXT = "here" }
"#;

fn snapshot() -> Snapshot {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("count.example.toml");
    std::fs::write(&file, ZONE).unwrap();
    let loaded = load_zones(&[file], &Shared::default());
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
    Snapshot::compile(zones, &Arc::new(Database::bundled()), |_| Verdict::Up, None)
}

fn query(name: &str, rtype: RecordType, subnet: Option<&str>, payload: u16) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(format!("{name}.count.example.")).unwrap(), rtype));
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    if let Some(subnet) = subnet {
        edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new(subnet.parse().unwrap(), 24, 0)));
    }
    message.edns = Some(edns);
    message.to_vec().unwrap()
}

fn asked_from(snapshot: &Snapshot, source: &str, port: u16, query: &[u8]) -> Option<Asked> {
    let client = Client { address: source.parse().unwrap(), port, transport: Transport::Udp };
    match respond(snapshot, query, client, &mut [0; 1232]) {
        Outcome::Answered { asked, .. } => asked,
        Outcome::Dropped => None,
    }
}

#[test]
fn only_steered_answers_of_one_type_are_told_of() {
    let snapshot = snapshot();
    let told = |name: &str, rtype| asked_from(&snapshot, "192.0.2.77", 53, &query(name, rtype, None, 1232)).is_some();
    assert!(told("live", RecordType::A) && told("www", RecordType::A) && told("six", RecordType::AAAA));
    assert!(!told("live", RecordType::AAAA), "its viewers ask for A too");
    for (name, rtype) in [("x7f3a.live", RecordType::A), ("text", RecordType::TXT), ("six", RecordType::A)] {
        assert!(!told(name, rtype), "{name} {rtype}");
    }
    for rtype in [RecordType::ANY, RecordType::MX] {
        assert!(!told("live", rtype), "{rtype}");
    }
}

#[test]
fn a_key_is_what_the_answer_is_cached_under() {
    let snapshot = snapshot();
    let key = |source: &str, port, subnet| {
        asked_from(&snapshot, source, port, &query("live", RecordType::A, subnet, 1232)).expect("told")
    };
    assert_eq!(key("192.0.2.77", 1, None), key("192.0.2.77", 2, None), "a resolver is one, whatever its port");
    assert_ne!(key("192.0.2.77", 1, None), key("192.0.2.78", 1, None));
    assert_eq!(key("2001:db8::1", 1, None), key("2001:db8::2", 1, None), "of IPv6 its /64");
    let ours = Some("8.8.8.0");
    assert_eq!(key("192.0.2.77", 1, ours), key("192.0.2.78", 1, ours), "the block asks, not the resolver");
    assert_ne!(key("192.0.2.77", 1, ours), key("192.0.2.77", 1, Some("193.0.6.0")));
}

#[tokio::test]
async fn workers_tell_over_udp_and_tcp() {
    let snapshot = Arc::new(snapshot());
    let epoch = snapshot.epoch();
    let published = Arc::new(ArcSwap::new(snapshot));
    let stop = CancellationToken::new();
    let sockets = bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap();
    let address = sockets.addresses()[0];
    let mut running = sockets.serve(published.clone(), TcpLimits::default(), stop.clone()).unwrap();
    let mut taps = running.take_taps();
    assert!(running.take_taps().is_empty());

    let (steered, other) = (query("live", RecordType::A, None, 1232), query("text", RecordType::TXT, None, 1232));
    let talk = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for query in [&steered, &other, &steered, &steered] {
            udp.send_to(query, address).unwrap();
            udp.recv(&mut [0; 1232]).unwrap();
        }
        let mut tcp = std::net::TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for query in [&steered, &other] {
            tcp.write_all(&[&(query.len() as u16).to_be_bytes(), &query[..]].concat()).unwrap();
            let mut length = [0; 2];
            tcp.read_exact(&mut length).unwrap();
            tcp.read_exact(&mut vec![0; u16::from_be_bytes(length).into()]).unwrap();
        }
    });
    talk.await.unwrap();
    let (mut told, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(10));
    // An answer may be on its way before the worker has published what it tells of it.
    while told.len() < 4 && Instant::now() < deadline {
        taps.iter_mut().for_each(|tap| assert_eq!(tap.drain(epoch, &mut told), 0));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|asked| *asked == told[0]), "one resolver, one stream: {told:?}");
    stop.cancel();
    running.stopped().await;
}
