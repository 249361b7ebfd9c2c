//! Any message over UDP: no panic, and the answer can be decoded.
#![no_main]

use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use hickory_proto::op::Message;
use libfuzzer_sys::fuzz_target;
use meridian::answer::{Client, Outcome, Transport, UDP_PAYLOAD, respond};
use meridian::config::{Shared, load_zones};
use meridian::geo::Database;
use meridian::health::Verdict;
use meridian::snapshot::{Served, Snapshot};

const ZONE: &str = r#"
zone = "x"
ns   = ["ns.x"]
[region.us]
near = "Ashburn"
a    = ["192.0.2.11", "192.0.2.12", "192.0.2.13"]
aaaa = ["2001:db8:1::11"]
[region.eu]
near = "Frankfurt"
a    = ["192.0.2.21"]
[stream."@"]
[stream."*.g"]
[records]
ns = { A = "198.51.100.53" }
w  = { CNAME = "@" }
d  = { DNAME = "w" }
c  = { NS = "ns.c", DS = "1 13 1 0000000000000000000000000000000000000000" }
"ns.c" = { A = "198.51.100.54" }
t  = { TXT = "LARGE" }
"#;

static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("room for a file");
    let path = folder.path().join("x.toml");
    std::fs::write(&path, ZONE.replace("LARGE", &"x".repeat(1500))).expect("room for a file");
    let loaded = load_zones(&[path], &Shared::default());
    assert!(!loaded.has_errors(), "{:#?}", loaded.diagnostics);
    let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
    Snapshot::compile(zones, &Arc::new(Database::empty()), |_| Verdict::Up, None)
});

fuzz_target!(|message: &[u8]| {
    let client = Client { address: Ipv4Addr::LOCALHOST.into(), port: 4096, transport: Transport::Udp };
    let mut out = [0; UDP_PAYLOAD];
    if let Outcome::Answered { length, .. } = respond(&SNAPSHOT, message, client, &mut out) {
        // An option of family 0 is echoed as it came; hickory-proto knows families 1 and 2.
        let mut answer = out[..length].to_vec();
        if let Some(subnet) = answer.last_chunk_mut::<8>().filter(|option| **option == [0, 8, 0, 4, 0, 0, 0, 0]) {
            subnet[5] = 1;
        }
        let answer = Message::from_vec(&answer).expect("answers can be decoded");
        assert_eq!(answer.metadata.id.to_be_bytes(), message[..2]);
    }
});
