//! The answer path allocates nothing, whatever is asked.

use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
use hickory_proto::rr::{Name, RecordType};

use meridian::answer::{Client, Outcome, Transport, respond};
use meridian::config::{Shared, load_zones};
use meridian::geo::Database;
use meridian::health::Verdict;
use meridian::snapshot::{Served, Snapshot};

const ZONE: &str = r#"
zone = "count.example"
ns = ["ns.count.example"]
[region.us]
near = "Ashburn"
a = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
[region.eu]
near = "Frankfurt"
a = ["192.0.2.11"]
aaaa = ["2001:db8::1"]
[stream.live]
[stream.shares]
policy = "weighted"
weights = { us = 1, eu = 2 }
rules = [{ from = ["DE"], regions = ["eu"] }]
[records]
ns = { A = "198.51.100.53" }
www = { CNAME = "live" }
child = { NS = "ns.child" }
"ns.child" = { A = "198.51.100.60" }
old = { DNAME = "new.elsewhere.example." }
"*.wild" = { TXT = "here" }
"#;

#[test]
fn no_answer_allocates() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("count.example.toml");
    std::fs::write(&file, ZONE).unwrap();
    let loaded = load_zones(&[file], &Shared::default());
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
    let snapshot = Snapshot::compile(zones, &Arc::new(Database::bundled()), |_| Verdict::Up, None);

    let mut rcodes = Vec::new();
    for (name, rtype) in [
        ("live", RecordType::A),
        ("live", RecordType::AAAA),
        ("live", RecordType::MX),
        ("shares", RecordType::A),
        ("www", RecordType::A),
        ("a.child", RecordType::A),
        ("child", RecordType::DS),
        ("x.old", RecordType::A),
        ("a.b.wild", RecordType::TXT),
        ("nothing.here", RecordType::A),
        ("live", RecordType::ANY),
        ("live", RecordType::AXFR),
    ] {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(format!("{name}.count.example.")).unwrap(), rtype));
        let mut edns = Edns::new();
        edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new("203.0.113.0".parse().unwrap(), 24, 0)));
        message.edns = Some(edns);
        let mut wire = message.to_vec().unwrap();
        for _ in 0..2 {
            for transport in [Transport::Udp, Transport::Tcp] {
                let client = Client { address: "192.0.2.77".parse().unwrap(), port: 4000, transport };
                let mut out = vec![0; 65_535];
                let mut outcome = Outcome::Dropped;
                let counted = allocation_counter::measure(|| outcome = respond(&snapshot, &wire, client, &mut out));
                assert_eq!(counted.count_total, 0, "{name} {rtype}");
                if let Outcome::Answered { rcode, .. } = outcome {
                    rcodes.push(rcode);
                }
            }
            // The second time the message is cut short, and malformed.
            wire.truncate(wire.len() - 3);
        }
    }
    rcodes.sort_unstable();
    rcodes.dedup();
    assert_eq!(rcodes, [0, 1, 3, 5], "every kind of answer was asked for");
}
