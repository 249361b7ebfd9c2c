//! Every address inside a returned ECS scope gets the same answer (RFC 7871 §7.3.1): what makes an answer safe to cache.
//!
//! Asked of the real `respond` over the bundled database, with overrides that split prefixes, rules, and regions that go
//! up and down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use proptest::prelude::*;

use meridian::answer::{Client, Outcome, Transport, respond};
use meridian::config::{Shared, load_zones};
use meridian::geo::Database;
use meridian::health::Verdict;
use meridian::snapshot::standing::{Forced, Share, Standing};
use meridian::snapshot::{Served, Snapshot, TargetId};

const ZONE: &str = r#"
zone = "scopes.example"
ns = ["ns.elsewhere.example"]
[check]
tcp = 80
[region.us]
near = "Ashburn"
a = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
aaaa = ["2001:db8:1::1"]
[region.eu]
near = "Frankfurt"
a = ["192.0.2.11", "192.0.2.12"]
aaaa = ["2001:db8:2::1", "2001:db8:2::2", "2001:db8:2::3"]
[region.ap]
near = "Singapore"
a = ["192.0.2.21"]
[region.af]
near = "Johannesburg"
a = ["192.0.2.31", "192.0.2.32", "192.0.2.33", "192.0.2.34"]
aaaa = ["2001:db8:4::1", "2001:db8:4::2"]
[stream.near]
[stream.one]
answers = 1
[stream.ruled]
rules = [
  { from = ["DE", "203.0.113.0/24", "198.51.100.0/23", "2001:db8::/32"], regions = ["af"] },
  { from = ["Asia", "AU"], policy = "weighted", weights = { us = 1, eu = 3, ap = 0, af = 2 } },
  { from = ["South America"], regions = ["us"], answers = 3 },
]
[stream.order]
policy = "priority"
regions = ["ap", "us"]
[stream.shares]
policy = "weighted"
weights = { us = 1, eu = 1, ap = 1, af = 1 }
rules = [{ from = ["FR"], regions = ["eu"] }]
"#;

const OVERRIDES: &str = r#"
"203.0.112.0/24" = { near = "Tokyo" }
"8.8.8.0/24" = { near = "Cape Town" }
"100.64.0.0/10" = { near = "Sydney" }
"2001:db8::/33" = { near = "London" }
"2001:db8:1234::/48" = { near = "Lima" }
"#;

static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let (zone, overrides) = (dir.path().join("zone.toml"), dir.path().join("overrides.toml"));
    std::fs::write(&zone, ZONE).unwrap();
    std::fs::write(&overrides, OVERRIDES).unwrap();
    let loaded = load_zones(&[zone], &Shared::default());
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("geoip/world.mmdb");
    let database = Database::load(&[world], Some(&overrides)).unwrap();
    let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
    Snapshot::compile(zones, &Arc::new(database), |_| Verdict::Up, None)
});

/// Rcode, records as text in order, scope.
type Reply = (u16, Vec<String>, Option<u8>);

fn ask(snapshot: &Snapshot, name: &str, rtype: RecordType, address: IpAddr, source: u8, id: u16) -> Reply {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(format!("{name}.scopes.example.")).unwrap();
    let mut query = Query::query(name, rtype);
    query.set_query_class(DNSClass::IN);
    message.add_query(query);
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new(address, source, 0)));
    message.edns = Some(edns);
    let client = Client { address: Ipv4Addr::LOCALHOST.into(), port: 4000, transport: Transport::Udp };
    let mut out = [0; 1232];
    let Outcome::Answered { length, rcode, .. } = respond(snapshot, &message.to_vec().unwrap(), client, &mut out)
    else {
        panic!("a query is answered");
    };
    let reply = Message::from_vec(&out[..length]).unwrap();
    let scope = reply.edns.as_ref().and_then(|edns| match edns.option(EdnsCode::Subnet) {
        Some(EdnsOption::Subnet(subnet)) => Some(subnet.scope_prefix()),
        _ => None,
    });
    (rcode, reply.answers.iter().map(|record| record.to_string()).collect(), scope)
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            Ipv4Addr::from_bits(address.to_bits() & (u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0))).into()
        }
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & (u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)))
                .into()
        }
    }
}

/// The bits of `address` up to `length`, those of `other` behind.
fn within(address: IpAddr, length: u8, other: u128) -> IpAddr {
    match (masked(address, length), address) {
        (IpAddr::V4(block), _) => {
            let host = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            Ipv4Addr::from_bits(block.to_bits() | (other as u32 & host)).into()
        }
        (IpAddr::V6(block), _) => {
            let host = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            Ipv6Addr::from_bits(block.to_bits() | (other & host)).into()
        }
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    let low = any::<u16>();
    prop_oneof![
        4 => any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        // Around overrides and rules.
        1 => (198u8..=203, low).prop_map(|(a, b)| Ipv4Addr::new(a, 51, (b >> 8) as u8, b as u8).into()),
        1 => (110u8..=115, low).prop_map(|(c, b)| Ipv4Addr::new(203, 0, c, b as u8).into()),
        1 => low.prop_map(|b| Ipv4Addr::new(8, 8, (b >> 8) as u8 % 16, b as u8).into()),
        2 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(0x2u128 << 124 | bits >> 4).into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(0x2001_0db8u128 << 96 | bits >> 32).into()),
        // IPv4 inside IPv6, and the neighbourhood of such blocks.
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into()),
        1 => any::<u32>().prop_map(|bits| Ipv6Addr::from_bits(0x64_ff9bu128 << 96 | u128::from(bits)).into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(0x2002u128 << 112 | bits >> 16).into()),
        1 => any::<u64>().prop_map(|bits| Ipv6Addr::from_bits(u128::from(bits)).into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(0x64_ff9bu128 << 96 | bits >> 40).into()),
    ]
}

fn verdicts() -> impl Strategy<Value = Vec<(TargetId, Verdict)>> {
    let targets = 0..SNAPSHOT.targets().len() as u32;
    proptest::collection::vec((targets.prop_map(TargetId), prop_oneof![Just(Verdict::Up), Just(Verdict::Down)]), 0..40)
}

/// Regions that ramp, drain, or are forced.
fn standings() -> impl Strategy<Value = Vec<(u32, u8, Standing)>> {
    let share = prop_oneof![Just(0.0), Just(1.0), 0.0..1.0];
    let forced = prop_oneof![4 => Just(None), 1 => Just(Some(Forced::Up)), 1 => Just(Some(Forced::Down))];
    let one = (0u8..4, share, forced).prop_map(|(region, share, forced)| {
        (0, region, Standing { share: Share::of(share), forced, ..Standing::default() })
    });
    proptest::collection::vec(one, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_address_inside_a_returned_scope_gets_the_same_answer(
        address in address(),
        shorter in 0u8..40,
        others in proptest::collection::vec(any::<u128>(), 8),
        down in verdicts(),
        standings in standings(),
        stream in prop_oneof![Just("near"), Just("one"), Just("ruled"), Just("order"), Just("shares")],
        rtype in prop_oneof![3 => Just(RecordType::A), 1 => Just(RecordType::AAAA)],
        id: u16,
    ) {
        let snapshot = SNAPSHOT.with_verdicts(&down).with_standings(standings.into_iter().map(|(fleet, region, standing)| ((fleet, region), standing)));
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let source = whole - shorter.min(whole - 1);
        let asked = masked(address, source);
        let (rcode, records, scope) = ask(&snapshot, stream, rtype, asked, source, id);
        prop_assert_eq!(rcode, 0);
        prop_assert!(!records.is_empty(), "every family is declared");
        let scope = scope.unwrap();
        if stream == "order" {
            prop_assert_eq!(scope, 0, "no geography");
            return Ok(());
        }
        prop_assert!(scope > 0);
        for other in others.into_iter().chain([0, u128::MAX]) {
            let neighbour = within(asked, scope, other);
            // Sources of every length that is at least the scope.
            let source = whole - (other as u8) % (whole - scope + 1);
            let neighbour = masked(neighbour, source);
            let same = ask(&snapshot, stream, rtype, neighbour, source, id.wrapping_add(other as u16));
            prop_assert_eq!(&same, &(rcode, records.clone(), Some(scope)), "{}/{} in {}/{}", neighbour, source, asked, scope);
        }
    }
}

#[test]
fn a_source_shorter_than_the_scope_gets_the_longer_scope() {
    let (_, _, scope) = ask(&SNAPSHOT, "near", RecordType::A, "203.0.0.0".parse().unwrap(), 8, 1);
    assert!(scope.unwrap() > 8);
}

#[test]
fn records_of_one_answer_are_of_one_region() {
    for i in 0..2000u32 {
        let address = Ipv4Addr::from_bits(i.wrapping_mul(0x9E37_79B1));
        let (_, records, _) = ask(&SNAPSHOT, "near", RecordType::A, address.into(), 32, 1);
        let tens: Vec<&str> = records.iter().map(|record| &record[record.rfind('.').unwrap() + 1..]).collect();
        let region = |last: &str| last.parse::<u8>().unwrap() / 10;
        assert!(tens.iter().all(|last| region(last) == region(tens[0])), "{records:?}");
    }
}
