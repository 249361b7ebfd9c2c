//! A zone file of any text: faults, or a zone that compiles and answers for its apex.
#![no_main]

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::RecordType;
use libfuzzer_sys::fuzz_target;
use meridian::answer::{Client, Outcome, Transport, UDP_PAYLOAD, respond};
use meridian::config::{Shared, load_zones};
use meridian::geo::Database;
use meridian::health::Verdict;
use meridian::snapshot::{Served, Snapshot};

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("room for a file"));
static DATABASE: LazyLock<Arc<Database>> = LazyLock::new(|| Arc::new(Database::empty()));

fuzz_target!(|text: &[u8]| {
    let path: PathBuf = FOLDER.path().join("fuzzed.toml");
    std::fs::write(&path, text).expect("room for a file");
    let loaded = load_zones(&[path], &Shared::default());
    if loaded.has_errors() {
        return;
    }
    for zone in &loaded.zones {
        let served = Served { zone: Arc::new(zone.clone()), serial: 1 };
        let snapshot = Snapshot::compile(vec![served], &DATABASE, |_| Verdict::Up, None);
        let mut query = Message::new(1, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(zone.name.clone(), RecordType::SOA));
        let query = query.to_vec().expect("a name of a zone can be asked for");
        let client = Client { address: Ipv4Addr::LOCALHOST.into(), port: 53, transport: Transport::Udp };
        let outcome = respond(&snapshot, &query, client, &mut [0; UDP_PAYLOAD]);
        assert!(matches!(outcome, Outcome::Answered { rcode: 0, .. }), "{outcome:?}");
    }
});
