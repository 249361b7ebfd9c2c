//! Whatever bytes come in: `respond` does not panic, answers no response, stays within the limit, and what goes out can
//! be decoded.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
use hickory_proto::rr::{Name, RecordType};
use meridian::answer::{Client, Outcome, Transport, UDP_PAYLOAD, respond};
use meridian::config::{Shared, load_zones};
use meridian::geo::Database;
use meridian::health::Verdict;
use meridian::snapshot::{Served, Snapshot};
use proptest::prelude::*;

const ZONE: &str = r#"
zone = "stream.example"
ns   = ["ns1.stream.example"]
[region.us]
near = "Ashburn"
a    = ["192.0.2.11", "192.0.2.12", "192.0.2.13"]
aaaa = ["2001:db8:1::11"]
[region.eu]
near = "Frankfurt"
a    = ["192.0.2.21"]
[stream."@"]
[stream."*.game"]
[records]
ns1 = { A = "198.51.100.53" }
www = { CNAME = "@" }
old = { DNAME = "www" }
child = { NS = "ns.child", DS = "1 13 1 0000000000000000000000000000000000000000" }
"ns.child" = { A = "198.51.100.54" }
large = { TXT = "LARGE" }
"#;

static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let zone = write("stream.example.toml", &ZONE.replace("LARGE", &"x".repeat(1500)));
    let overrides = write("overrides.toml", "\"203.0.112.0/20\" = { near = \"London, GB\" }\n");
    let loaded = load_zones(&[zone], &Shared::default());
    assert!(!loaded.has_errors(), "{:#?}", loaded.diagnostics);
    let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
    let database = Database::load(&[], Some(Path::new(&overrides))).unwrap();
    Snapshot::compile(zones, &Arc::new(database), |_| Verdict::Up, None)
});

/// A message that a resolver could send.
fn sound_query() -> impl Strategy<Value = Vec<u8>> {
    let names = ["", "www.", "old.", "a.old.", "child.", "x.child.", "a.b.game.", "large.", "no.", "*.game."];
    let rtype = prop_oneof![
        3 => prop::sample::select(vec![1u16, 2, 5, 6, 16, 28, 39, 43, 252, 255]),
        1 => any::<u16>(),
    ];
    let subnet = prop::option::of((any::<IpAddr>(), 0u8..=32));
    let edns = prop::option::of((any::<u16>(), subnet));
    (any::<u16>(), prop::sample::select(names.to_vec()), rtype, edns).prop_map(|(id, name, rtype, edns)| {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii(format!("{name}stream.example.")).unwrap();
        message.add_query(Query::query(name, RecordType::from(rtype)));
        if let Some((payload, subnet)) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            if let Some((address, source)) = subnet {
                edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new(address, source, 0)));
            }
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    })
}

/// The same with some bytes changed, cut off at the end or added to it.
fn broken_query() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let tail = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 0..40)];
    let cut = prop::option::weighted(0.3, any::<prop::sample::Index>());
    (sound_query(), changes, cut, tail).prop_map(|(mut message, changes, cut, tail)| {
        for (place, byte) in changes {
            *place.get_mut(&mut message) = byte;
        }
        message.truncate(cut.map_or(usize::MAX, |cut| cut.index(message.len())));
        message.extend(tail);
        message
    })
}

fn check(message: &[u8], client: Client) -> Result<(), TestCaseError> {
    let room = if client.transport == Transport::Udp { UDP_PAYLOAD } else { usize::from(u16::MAX) };
    let mut out = vec![0xAA; room];
    let nothing_to_answer = message.len() < 12 || message[2] & 0x80 != 0;
    let (length, rcode) = match respond(&SNAPSHOT, message, client, &mut out) {
        Outcome::Dropped => {
            prop_assert!(nothing_to_answer);
            return Ok(());
        }
        Outcome::Answered { length, rcode, .. } => (length, rcode),
    };
    prop_assert!(!nothing_to_answer);
    // An option of family 0 is echoed as it came; hickory-proto knows families 1 and 2.
    let mut known = out[..length].to_vec();
    if let Some(subnet) = known.last_chunk_mut::<8>().filter(|option| **option == [0, 8, 0, 4, 0, 0, 0, 0]) {
        subnet[5] = 1;
    }
    let answer = Message::from_vec(&known).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&out[..2], &message[..2]);
    prop_assert_eq!(out[2] & 0xF8, message[2] & 0x78 | 0x80, "QR and the opcode");
    prop_assert!(answer.queries.len() <= 1 && !answer.metadata.recursion_available);
    let high = answer.edns.as_ref().map_or(0, Edns::rcode_high);
    prop_assert_eq!(u16::from(high) << 4 | u16::from(answer.metadata.response_code.low()), rcode);
    if let Ok(query) = Message::from_vec(message) {
        let limit = match client.transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => {
                query.edns.as_ref().map_or(512, |edns| usize::from(edns.max_payload()).clamp(512, UDP_PAYLOAD))
            }
        };
        prop_assert!(length <= limit, "{length} bytes of {limit}");
    }
    // Pure: the same again.
    let mut again = vec![0x55; room];
    respond(&SNAPSHOT, message, client, &mut again);
    prop_assert_eq!(&again[..length], &out[..length]);
    Ok(())
}

fn client() -> impl Strategy<Value = Client> {
    let transport = prop::sample::select(vec![Transport::Udp, Transport::Tcp]);
    (any::<IpAddr>(), any::<u16>(), transport).prop_map(|(address, port, transport)| Client {
        address,
        port,
        transport,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn any_bytes_are_answered_soundly_or_not_at_all(
        message in prop::collection::vec(any::<u8>(), 0..600),
        client in client(),
    ) {
        check(&message, client)?;
    }

    #[test]
    fn broken_queries_are_answered_soundly_or_not_at_all(message in broken_query(), client in client()) {
        check(&message, client)?;
    }
}
