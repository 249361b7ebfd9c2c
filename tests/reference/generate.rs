//! Zones and questions made of few labels, valid as the checks of zone files would have them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::{DNSClass, Name, RecordType};
use meridian::config::At;
use meridian::config::settings::{Check, CheckKind, Policy, Region, Server, Soa, Steering, Stream, Zone};
use meridian::zone::Rrset;
use proptest::prelude::*;

const PROBE_PORT: u16 = 7;

#[derive(Clone)]
pub struct World {
    pub zones: Vec<Zone>,
    /// Addresses whose probes fail.
    pub down: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug)]
pub struct Question {
    pub id: u16,
    pub name: Name,
    pub rtype: RecordType,
    pub class: DNSClass,
    /// The advertised payload size.
    pub edns: Option<u16>,
    pub subnet: Option<(IpAddr, u8)>,
    pub client: IpAddr,
}

impl World {
    pub fn is_down(&self, probed: SocketAddr) -> bool {
        assert_eq!(probed.port(), PROBE_PORT);
        self.down.contains(&probed.ip())
    }
}

/// The zones about as a person would write them, for the report of a failure.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for zone in &self.zones {
            writeln!(f, "zone {} negative {}", zone.name, zone.soa.negative)?;
            for region in &zone.regions {
                let checked = if region.check.is_some() { "checked" } else { "" };
                writeln!(f, "  region {} min_up {:?} {checked}", region.name, region.min_up)?;
                for server in region.servers.iter() {
                    writeln!(f, "    server {:?} {:?} weight {}", server.a, server.aaaa, server.weight)?;
                }
            }
            for Stream { owner, ttl, steering, fallback, .. } in &zone.streams {
                writeln!(f, "  {owner} {ttl} {steering:?} fallback {fallback:?}")?;
            }
            for rrset in &zone.records {
                writeln!(f, "  {} {} {} {:?}", rrset.owner, rrset.ttl, rrset.rtype, rrset.rdata)?;
            }
        }
        writeln!(f, "down {:?}", self.down)
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn wire(name: &Name) -> Box<[u8]> {
    let labels = name.iter().flat_map(|label| [&[label.len() as u8], label].concat());
    labels.chain([0]).collect()
}

/// Names of up to three labels below `apex`, mostly of `a`, `b` and `*`.
fn name_below(apex: &'static str) -> impl Strategy<Value = Name> {
    let label = prop_oneof![4 => Just("a"), 4 => Just("b"), 1 => Just("c"), 2 => Just("*")];
    prop::collection::vec(label, 0..4).prop_map(move |labels| {
        labels.into_iter().rev().fold(name(apex), |name, label| name.prepend_label(label).unwrap())
    })
}

/// Names that records point to: mostly ours, some elsewhere.
fn target() -> impl Strategy<Value = Name> {
    prop_oneof![
        4 => prop::sample::select(vec!["a.example.", "b.example.", "c.example.", "a.b.example."]).prop_map(name),
        4 => name_below("example."),
        3 => name_below("b.example."),
        1 => Just(name("www.elsewhere.")),
    ]
    // A wildcard may be pointed to, but is of little interest.
    .prop_filter("no wildcards", |name| !name.iter().any(|label| label == b"*"))
}

/// A delegation to a name server below the cut, with its glue.
fn delegation(apex: &'static str) -> impl Strategy<Value = Vec<Rrset>> {
    (name_below(apex), any::<[u8; 4]>(), any::<bool>()).prop_map(|(cut, address, elsewhere_too)| {
        let server = cut.prepend_label("a").unwrap();
        let mut ns = vec![wire(&server)];
        ns.extend(elsewhere_too.then(|| wire(&name("ns.elsewhere."))));
        vec![
            Rrset { owner: cut, rtype: RecordType::NS, ttl: 3600, rdata: ns },
            Rrset { owner: server, rtype: RecordType::A, ttl: 7200, rdata: vec![address.to_vec().into()] },
        ]
    })
}

fn rrset(apex: &'static str) -> impl Strategy<Value = Rrset> {
    let names = prop::collection::vec(target(), 1..3);
    let data = prop_oneof![
        4 => any::<[u8; 4]>().prop_map(|a| (RecordType::A, vec![a.to_vec().into_boxed_slice()])),
        1 => any::<[[u8; 16]; 2]>().prop_map(|a| (RecordType::AAAA, a.iter().map(|a| a.to_vec().into()).collect())),
        1 => Just((RecordType::TXT, vec![b"\x01x".to_vec().into_boxed_slice(), b"\x00".to_vec().into()])),
        4 => target().prop_map(|target| (RecordType::CNAME, vec![wire(&target)])),
        1 => target().prop_map(|target| (RecordType::DNAME, vec![wire(&target)])),
        3 => names.prop_map(|names| (RecordType::NS, names.iter().map(wire).collect())),
        1 => Just((RecordType::DS, vec![[[0, 1, 13, 2].as_slice(), &[9; 32]].concat().into()])),
        1 => target().prop_map(|target| {
            (RecordType::MX, vec![[&[0, 10], &*wire(&target)].concat().into_boxed_slice()])
        }),
        1 => Just((RecordType::Unknown(65280), vec![vec![1, 2, 3].into_boxed_slice()])),
    ];
    (name_below(apex), 1u32..100_000, data).prop_map(|(owner, ttl, (rtype, mut rdata))| {
        rdata.sort();
        rdata.dedup();
        Rrset { owner, rtype, ttl, rdata }
    })
}

fn stream(apex: &'static str) -> impl Strategy<Value = Stream> {
    let regions = prop::sample::subsequence(vec![0u8, 1, 2], 1..4).prop_shuffle();
    let policy = prop_oneof![
        Just(Policy::Nearest),
        Just(Policy::Priority),
        prop::collection::vec(1u16..5, 3).prop_map(Policy::Weighted),
    ];
    let fallback = prop::option::weighted(0.3, target());
    (name_below(apex), 5u32..86_400, regions, policy, 1u8..4, fallback).prop_map(
        move |(owner, ttl, regions, policy, answers, fallback)| {
            let policy = match policy {
                Policy::Weighted(weights) => Policy::Weighted(weights[..regions.len()].to_vec()),
                other => other,
            };
            let bias = vec![0; regions.len()];
            Stream {
                needs: vec![],
                // Refused at the apex, and beside static records.
                fallback: fallback.filter(|_| owner != name(apex)),
                label: owner.to_string().into(),
                owner,
                ttl,
                steering: Steering { regions, policy, bias, answers },
                rules: Vec::new(),
                at: At::start(Path::new("zones/generated.toml")),
            }
        },
    )
}

fn regions(zone: u8) -> impl Strategy<Value = Vec<Region>> {
    let server = (any::<bool>(), any::<bool>(), 1u16..4);
    let region = (prop::collection::vec(server, 1..4), prop::option::of(1u32..3), any::<bool>());
    prop::collection::vec(region, 3).prop_map(move |regions| {
        let numbered = regions.into_iter().enumerate();
        numbered
            .map(|(region, (servers, min_up, checked))| make_region(zone, region as u8, &servers, min_up, checked))
            .collect()
    })
}

fn make_region(zone: u8, region: u8, servers: &[(bool, bool, u16)], min_up: Option<u32>, checked: bool) -> Region {
    let check = Check {
        kind: CheckKind::Tcp,
        every: Duration::from_millis(500),
        timeout: Duration::from_millis(250),
        adaptive: false,
        fall: 3,
        rise: 10,
        port: PROBE_PORT,
        heartbeat: None,
        load: Default::default(),
    };
    let servers: Vec<Server> = servers
        .iter()
        .enumerate()
        .map(|(number, &(a, aaaa, weight))| Server {
            a: (a || !aaaa).then(|| Ipv4Addr::new(192, zone, region, number as u8)),
            aaaa: aaaa.then(|| Ipv6Addr::new(0x2001, 0xdb8, zone.into(), region.into(), 0, 0, 0, number as u16)),
            weight: NonZeroU16::new(weight).unwrap(),
            probe: None,
        })
        .collect();
    Region {
        name: format!("r{region}").into(),
        location: meridian::geo::Point::new(f64::from(region) * 20.0, f64::from(region) * 30.0),
        near: None,
        // Refused where a declared family has fewer servers.
        ramp: std::time::Duration::ZERO,
        capacity: None,
        cost: None,
        min_up: min_up.filter(|&min_up| {
            let enough = |declared: usize| declared == 0 || declared >= min_up as usize;
            let (a, aaaa) = (
                servers.iter().filter(|server| server.a.is_some()),
                servers.iter().filter(|server| server.aaaa.is_some()),
            );
            enough(a.count()) && enough(aaaa.count())
        }),
        servers: servers.into(),
        check: checked.then(|| Arc::new(check)),
    }
}

/// Leaves out what the checks of zone files would refuse.
fn make_valid(zone: &mut Zone) {
    let apex = zone.name.clone();
    let is_wild = |name: &Name| name.iter().any(|label| label == b"*");
    let mut seen = BTreeSet::new();
    zone.records.retain(|rrset| {
        let kept = match rrset.rtype {
            RecordType::NS | RecordType::DNAME => !is_wild(&rrset.owner) && rrset.owner != apex,
            RecordType::CNAME => rrset.owner != apex,
            _ => true,
        };
        kept && seen.insert((rrset.owner.clone(), u16::from(rrset.rtype)))
    });
    let owners = |records: &[Rrset], rtype: RecordType| -> BTreeSet<Name> {
        records.iter().filter(|rrset| rrset.rtype == rtype).map(|rrset| rrset.owner.clone()).collect()
    };
    // A cut holds NS and DS alone; below it only glue. Nothing is below a DNAME, and no cut is at one.
    let cuts = owners(&zone.records, RecordType::NS);
    zone.records.retain(|rrset| match rrset.rtype {
        RecordType::NS | RecordType::DS => cuts.contains(&rrset.owner),
        RecordType::A | RecordType::AAAA => true,
        _ => !cuts.contains(&rrset.owner),
    });
    let below = |names: &BTreeSet<Name>, owner: &Name| names.iter().any(|name| name != owner && name.zone_of(owner));
    let at_or_below = |names: &BTreeSet<Name>, owner: &Name| names.iter().any(|name| name.zone_of(owner));
    zone.records.retain(|rrset| !below(&cuts, &rrset.owner) || matches!(rrset.rtype, RecordType::A | RecordType::AAAA));
    let dnames = owners(&zone.records, RecordType::DNAME);
    zone.records.retain(|rrset| !below(&dnames, &rrset.owner));
    // A CNAME is alone.
    let cnames = owners(&zone.records, RecordType::CNAME);
    zone.records.retain(|rrset| rrset.rtype == RecordType::CNAME || !cnames.contains(&rrset.owner));

    let mut taken = BTreeSet::new();
    zone.streams.retain(|stream| {
        !at_or_below(&cuts, &stream.owner)
            && !below(&dnames, &stream.owner)
            && !cnames.contains(&stream.owner)
            && taken.insert(stream.owner.clone())
    });
    zone.records
        .retain(|rrset| !(taken.contains(&rrset.owner) && matches!(rrset.rtype, RecordType::A | RecordType::AAAA)));
    let static_owners: BTreeSet<Name> = zone.records.iter().map(|rrset| rrset.owner.clone()).collect();
    for stream in &mut zone.streams {
        if static_owners.contains(&stream.owner) {
            stream.fallback = None;
        }
    }
}

fn bare_zone(apex: &str) -> Zone {
    Zone {
        name: name(apex),
        file: Path::new("zones/generated.toml").into(),
        ns: vec![name("ns1.elsewhere."), name("ns2.elsewhere.")],
        soa: Soa {
            contact: name("hostmaster.elsewhere."),
            serial: None,
            refresh: 3600,
            retry: 600,
            expire: 604_800,
            negative: 30,
        },
        min_regions: 1,
        session_bits: meridian::config::settings::SESSION_BITS,
        units: meridian::config::settings::Units::Unsaid,
        money: None,
        regions: Vec::new(),
        streams: Vec::new(),
        events: Vec::new(),
        records: Vec::new(),
        modified: 0,
        digest: 0,
    }
}

/// A static zone of single records; `data` is RDATA, a byte a character.
pub fn zone_of_records(apex: &str, records: &[(&str, RecordType, &str)]) -> Zone {
    let rrset = |&(owner, rtype, data): &(&str, RecordType, &str)| Rrset {
        owner: name(owner),
        rtype,
        ttl: 60,
        rdata: vec![data.chars().map(|byte| byte as u8).collect()],
    };
    Zone { records: records.iter().map(rrset).collect(), ..bare_zone(apex) }
}

fn zone(apex: &'static str, number: u8) -> impl Strategy<Value = Zone> {
    let single = rrset(apex).prop_map(|rrset| vec![rrset]);
    let records = prop::collection::vec(prop_oneof![9 => single, 1 => delegation(apex)], 0..16);
    let streams = prop::collection::vec(stream(apex), 0..3);
    let negative = prop::sample::select(vec![0, 30, 300, 7200]);
    (records, streams, regions(number), negative).prop_map(move |(records, streams, regions, negative)| {
        let mut zone = bare_zone(apex);
        zone.soa.negative = negative;
        (zone.records, zone.streams, zone.regions) = (records.concat(), streams, regions);
        make_valid(&mut zone);
        if zone.streams.is_empty() {
            zone.regions.clear();
        }
        zone
    })
}

/// One zone, or a parent and a child that need not know of each other, with some servers down.
pub fn world() -> impl Strategy<Value = World> {
    let child = prop_oneof![zone("b.example.", 1), zone("b.a.example.", 1)];
    let zones = (zone("example.", 0), prop::option::weighted(0.4, child));
    (zones, prop::num::u64::ANY).prop_map(|((mut parent, child), down)| {
        if let Some(child) = &child {
            // At a child's apex the parent holds NS and DS or nothing, and below it nothing but glue.
            let apex = &child.name;
            let delegated = parent.records.iter().any(|rrset| rrset.rtype == RecordType::NS && rrset.owner == *apex);
            parent.records.retain(|rrset| delegated || !apex.zone_of(&rrset.owner));
            // Nor is a DNAME above it.
            parent.records.retain(|rrset| rrset.rtype != RecordType::DNAME || !rrset.owner.zone_of(apex));
            parent.streams.retain(|stream| !apex.zone_of(&stream.owner));
        }
        let zones: Vec<Zone> = [parent].into_iter().chain(child).collect();
        let servers = zones.iter().flat_map(|zone| &zone.regions).flat_map(|region| region.servers.iter());
        let addresses =
            servers.flat_map(|server| [server.a.map(IpAddr::from), server.aaaa.map(IpAddr::from)]).flatten();
        // Two in three are down in one world, one in three in the other.
        let threshold = if down & 1 == 0 { 85 } else { 170 };
        let is_down = |number: usize| (down.rotate_left(number as u32 * 5) & 0xff) < threshold;
        let down = addresses.enumerate().filter(|(number, _)| is_down(*number)).map(|(_, address)| address).collect();
        World { zones, down }
    })
}

/// One zone with nothing steered and without delegations and DNAMEs, of which hickory-server's Catalog knows little;
/// nor does it know of a `*` that is no first label.
pub fn static_world() -> impl Strategy<Value = World> {
    zone("example.", 0).prop_map(|mut zone| {
        zone.streams.clear();
        zone.regions.clear();
        zone.records.retain(|rrset| !matches!(rrset.rtype, RecordType::NS | RecordType::DS | RecordType::DNAME));
        zone.records.retain(|rrset| !rrset.owner.iter().skip(1).any(|label| label == b"*"));
        World { zones: vec![zone], down: BTreeSet::new() }
    })
}

pub fn question(world: &World) -> impl Strategy<Value = Question> + use<> {
    let owners: Vec<Name> = world
        .zones
        .iter()
        .flat_map(|zone| {
            let records = zone.records.iter().map(|rrset| rrset.owner.clone());
            records.chain(zone.streams.iter().map(|stream| stream.owner.clone())).chain([zone.name.clone()])
        })
        .collect();
    let below = (prop::sample::select(owners.clone()), prop::sample::select(vec!["a", "z", "*"]))
        .prop_map(|(name, label)| name.prepend_label(label).unwrap());
    let qname = prop_oneof![
        4 => prop::sample::select(owners),
        2 => below,
        3 => name_below("example."),
        1 => name_below("b.example."),
        1 => Just(name("elsewhere.")),
    ];
    let types = vec![
        (6, RecordType::A),
        (3, RecordType::AAAA),
        (1, RecordType::NS),
        (1, RecordType::SOA),
        (1, RecordType::CNAME),
        (1, RecordType::DNAME),
        (2, RecordType::DS),
        (1, RecordType::MX),
        (1, RecordType::TXT),
        (2, RecordType::ANY),
        (1, RecordType::AXFR),
        (1, RecordType::RRSIG),
        (1, RecordType::Unknown(65280)),
    ];
    let types = types.into_iter().flat_map(|(weight, rtype)| std::iter::repeat_n(rtype, weight)).collect::<Vec<_>>();
    let class = prop_oneof![20 => Just(DNSClass::IN), 1 => Just(DNSClass::CH), 2 => Just(DNSClass::ANY)];
    let edns = prop::option::of(prop::sample::select(vec![0, 512, 1232, 4096, 65_535]));
    let subnet = prop::option::of((any::<u32>(), 0u8..=32, any::<u128>(), 0u8..=128, any::<bool>()));
    let client = any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits)));
    let shout = any::<bool>();
    (any::<u16>(), qname, prop::sample::select(types), class, edns, subnet, client, shout).prop_map(
        |(id, qname, rtype, class, edns, subnet, client, shout)| {
            let labels = qname.iter().map(|label| if shout { label.to_ascii_uppercase() } else { label.to_vec() });
            let labels: Vec<Vec<u8>> = labels.collect();
            let subnet = subnet.map(|(v4, source4, v6, source6, is_v4)| match is_v4 {
                true => {
                    (Ipv4Addr::from(v4 & u32::MAX.checked_shl(32 - u32::from(source4)).unwrap_or(0)).into(), source4)
                }
                false => {
                    (Ipv6Addr::from(v6 & u128::MAX.checked_shl(128 - u32::from(source6)).unwrap_or(0)).into(), source6)
                }
            });
            let name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
            Question { id, name, rtype, class, edns, subnet: subnet.filter(|_| edns.is_some()), client }
        },
    )
}
