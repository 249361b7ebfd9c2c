//! A zone file: from its text to a checked [`Zone`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hickory_proto::rr::Name;
use toml::de::DeTable;

use super::check::CheckSpec;
use super::diagnostic::{At, Diagnostic};
use super::records::PlacedRrset;
use super::region::RegionSpec;
use super::settings::{Event, Family, MAX_REGIONS, Policy, Region, SESSION_BITS, Soa, Stream, Units, Zone};
use super::tree::{File, Item, Placed, Table};
use super::{capacity, event, money, names, records, region, rules, stream, syntax, units};
use crate::steering::money::Money;

/// What `meridian.toml` gives to every zone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shared {
    /// Regions that zones may use by name; a zone's own region of that name stands instead.
    pub regions: Vec<RegionSpec>,
    pub check: Option<CheckSpec>,
    /// Private CAs that were looked at, whether they could be read or not.
    pub named: Vec<PathBuf>,
}

/// Keys of the whole zone, which TOML takes for a table's own once any `[table]` has begun.
const TOP: [&str; 8] = ["zone", "ns", "contact", "ttl", "soa", "min_regions", "session", "money"];

pub(super) fn belongs_above(key: &str, _: &Item<'_>) -> Option<String> {
    TOP.contains(&key).then(|| format!("`{key}` belongs to the whole zone: move it above the first [table]"))
}

/// What came of one file.
#[derive(Debug, Default)]
pub struct ZoneFile {
    /// `None` when the file has an error.
    pub zone: Option<Zone>,
    /// Which zone it is, even when the rest of the file has faults.
    pub apex: Option<Placed<Name>>,
    /// In the order of the text.
    pub faults: Vec<Diagnostic>,
    /// Private CAs that were looked at, whether they could be read or not.
    pub named: Vec<PathBuf>,
}

/// Reads one zone.
pub fn read(path: &Path, text: String, modified: u32, shared: &Shared) -> ZoneFile {
    let digest = fnv1a(text.as_bytes());
    let file = File::new(path, text);
    let text = syntax::check(&file);
    let (root, _) = DeTable::parse_recoverable(&text);
    let (apex, zone) = read_root(&file, root.get_ref(), shared);
    let zone = zone.filter(|_| !file.has_errors()).map(|zone| Zone { modified, digest, ..zone });
    ZoneFile { zone, apex, faults: file.take_faults(), named: file.take_named() }
}

/// 64-bit FNV-1a: the same on every machine and in every version, as it is kept in the state directory.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn read_root(file: &File, root: &DeTable<'_>, shared: &Shared) -> (Option<Placed<Name>>, Option<Zone>) {
    let mut table = Table::root(file, root);
    let zone = table.take("zone");
    let zone_at = zone.as_ref().map_or_else(|| At::start(&file.path), Item::at);
    if zone.is_none() {
        let fault = Diagnostic::error(At::start(&file.path), "`zone` is missing");
        file.report_missing(fault.help("say which zone this is: zone = \"stream.example\""));
    }
    let apex = zone.and_then(|item| apex(&item));
    // Without a usable apex the rest is read all the same, as if the zone were the root: its own faults count.
    let origin = apex.clone().unwrap_or_else(Name::root);
    let ns = ns(&mut table, &origin);
    let contact = table
        .take("contact")
        .and_then(|item| names::mailbox(item.string()?).map_err(|flaw| item.report_flaw(flaw)).ok());
    let ttl = table.take("ttl").and_then(|item| stream::ttl(&item)).unwrap_or(stream::DEFAULT_TTL);
    let soa = table.take("soa");
    let min_regions =
        table.take("min_regions").and_then(|item| item.integer(1..=MAX_REGIONS as i64).map(|n| item.placed(n as u8)));
    let session = table.take("session").and_then(|item| capacity::session(&item));
    let money = table.take("money").and_then(|item| money::read(&item));
    let check =
        table.take("check").and_then(|item| Some((item.key_at(), CheckSpec::read(item.table()?, belongs_above))));
    let regions = table.take("region").and_then(|item| item.table());
    let regions = regions.map(|table| region::read_all(table, &belongs_above)).unwrap_or_default();
    let streams = table.take("stream").and_then(|item| item.table());
    let events = table.take("event").map(|item| event::read_all(&item, &origin)).unwrap_or_default();
    let records = table.take("records").and_then(|item| item.table());

    let soa = read_soa(soa, contact, &origin);
    let own = regions.len();
    let mut all = regions;
    all.extend(
        shared.regions.iter().filter(|s| region::position(&all[..own], &s.name).is_none()).cloned().collect::<Vec<_>>(),
    );
    let context = stream::Context { apex: &origin, regions: &all, ttl, mend: &belongs_above };
    let streams = match streams {
        Some(table) if !table.is_empty() => stream::read_all(table, &context),
        // Regions of the node alone do not turn a plain static zone into a steered one.
        _ if own > 0 => {
            let own_only = stream::Context { regions: &all[..own], ..context };
            vec![stream::apex(&own_only, zone_at.clone())]
        }
        _ => Vec::new(),
    };
    let records = records.map(|table| records::read_all(table, &origin)).unwrap_or_default();
    table.done();

    let placed = apex.clone().map(|value| Placed { value, at: zone_at });
    let Some(apex) = apex.filter(|_| !file.is_broken()) else { return (placed, None) };
    // A faulty stream may be the one that uses a region.
    let lossy = file.has_errors();
    rules::check(&rules::Names { apex: &apex, ns: &ns, records: &records, streams: &streams }, file);
    warn_of_mixed_families(file, &all, &streams);
    require_locations(file, &all, &streams);
    // The stream that is not there may be one with a fault.
    let events = event::resolve(events, &streams, |fault| {
        if !lossy {
            file.report(fault)
        }
    });
    let used = used(&streams);
    let unused = all[..own].iter().enumerate().filter(|(i, _)| !used.contains_key(&(*i as u8)));
    for (_, spec) in unused.filter(|_| !lossy) {
        file.report(
            Diagnostic::warning(spec.at.clone(), format!("region {} is used by no stream", spec.name))
                .rule("it is neither probed nor answered")
                .help("add it to the `regions` of a stream, or remove it"),
        );
    }
    let units = one_unit(file, &all, &used, session);
    let regions = resolve_regions(file, &all, &used, &streams, check.as_ref(), session, shared, lossy);
    if let Some(min) = min_regions.as_ref().filter(|min| !lossy && usize::from(min.value) > regions.len()) {
        let count = regions.len();
        file.report(
            Diagnostic::error(
                min.at.clone(),
                format!("`min_regions` is {}, more than the zone has in use: {count}", min.value),
            )
            .rule("no drain could ever be taken")
            .help(if count == 0 { "remove it".to_owned() } else { format!("write {count} or less") }),
        );
    }
    let whole = Whole {
        apex,
        ns: ns.into_iter().map(|ns| ns.value).collect(),
        soa,
        min_regions: min_regions.map_or(1, |min| min.value),
        session_bits: session.unwrap_or(SESSION_BITS),
        units,
        money,
    };
    (placed, Some(assemble(file, whole, regions, streams, events, records, &used)))
}

fn apex(item: &Item<'_>) -> Option<Name> {
    let apex = names::absolute(item.string()?).map_err(|flaw| item.report_flaw(flaw)).ok()?;
    if apex.iter().any(|label| label.contains(&b'*')) {
        item.report(
            item.fault(format!("`zone` is {apex}, a wildcard"))
                .help("a wildcard goes into [stream.\"*.x\"] or [records]"),
        );
        return None;
    }
    Some(apex)
}

fn ns(table: &mut Table<'_>, apex: &Name) -> Vec<Placed<Name>> {
    let Some(item) = table.take("ns") else {
        let fault = Diagnostic::error(table.at(), "`ns` is missing").rule("a zone has name servers (RFC 1034 §4.2.1)");
        table.file.report_missing(fault.help("name this server, and its fellows: ns = [\"ns1.example.net\"]"));
        return Vec::new();
    };
    if item.one_or_more().is_empty() {
        let fault = item.fault("`ns` is empty").rule("a zone has name servers (RFC 1034 §4.2.1)");
        item.report(fault.help("name this server, and its fellows: ns = [\"ns1.example.net\"]"));
    }
    let mut seen = HashSet::new();
    let mut list: Vec<Placed<Name>> = Vec::new();
    for (text, element) in item.strings() {
        let Some(name) = names::read_absolute(&element, text, apex) else { continue };
        if seen.insert(name.clone()) {
            list.push(element.placed(name));
        } else {
            item.report(element.fault(format!("`ns` has {name} twice")).help("remove one of them"));
        }
    }
    list
}

fn read_soa(item: Option<Item<'_>>, contact: Option<Name>, apex: &Name) -> Soa {
    let mut soa = Soa {
        // An apex without room for one more label stands for itself.
        contact: contact.unwrap_or_else(|| apex.prepend_label("hostmaster").unwrap_or_else(|_| apex.clone())),
        serial: None,
        refresh: 3600,
        retry: 600,
        expire: 7 * 86_400,
        negative: 30,
    };
    let Some(mut table) = item.and_then(|item| item.table()) else { return soa };
    let mut timer = |key: &'static str, low: u32, value: &mut u32| {
        if let Some(seconds) = table.take(key).and_then(|item| units::seconds(&item, low..=units::MAX_SECONDS)) {
            *value = seconds;
        }
    };
    timer("refresh", 1, &mut soa.refresh);
    timer("retry", 1, &mut soa.retry);
    timer("expire", 1, &mut soa.expire);
    timer("negative", 0, &mut soa.negative);
    soa.serial = table.take("serial").and_then(|item| item.integer(0..=u32::MAX.into())).map(|n| n as u32);
    table.done();
    soa
}

/// Which streams use each region, itself or by a rule.
fn used(streams: &[Stream]) -> BTreeMap<u8, BTreeSet<usize>> {
    let mut used: BTreeMap<u8, BTreeSet<usize>> = BTreeMap::new();
    for (i, stream) in streams.iter().enumerate() {
        let rules = stream.rules.iter().map(|rule| &rule.steering);
        for region in rules.chain([&stream.steering]).flat_map(|steering| &steering.regions) {
            used.entry(*region).or_default().insert(i);
        }
    }
    used
}

fn require_locations(file: &File, regions: &[RegionSpec], streams: &[Stream]) {
    let mut told = BTreeSet::new();
    for stream in streams {
        let steerings = stream.rules.iter().map(|rule| &rule.steering).chain([&stream.steering]);
        for steering in steerings.filter(|steering| steering.policy == Policy::Nearest) {
            for region in steering.regions.iter().filter_map(|r| regions.get(usize::from(*r))) {
                if !region.located && told.insert(region.name.clone()) {
                    file.report(
                        Diagnostic::error(region.at.clone(), format!("region {} has no location", region.name))
                            .rule(format!("policy `nearest` of stream {} measures distances", stream.label))
                            .help("add near = \"London\", or at = [51.51, -0.13]"),
                    );
                }
            }
        }
    }
}

fn warn_of_mixed_families(file: &File, regions: &[RegionSpec], streams: &[Stream]) {
    for (family, name) in [(Family::V4, "A"), (Family::V6, "AAAA")] {
        let in_use: Vec<&RegionSpec> = used(streams).keys().filter_map(|r| regions.get(usize::from(*r))).collect();
        let without: Vec<&RegionSpec> =
            in_use.iter().copied().filter(|r| !r.declares(family) && !r.servers.is_empty()).collect();
        let Some(first) = without.first().filter(|_| in_use.iter().any(|r| r.declares(family))) else { continue };
        let names = without.iter().map(|r| &*r.name).collect::<Vec<_>>().join(", ");
        file.report(
            Diagnostic::warning(first.at.clone(), format!("some regions have {name} addresses, but not {names}"))
                .rule(format!("clients that ask for {name} are never sent there"))
                .help(format!("give each region {name} addresses, or none")),
        );
    }
}

/// Sessions and bits/s can be compared only by what a session takes.
fn one_unit(file: &File, regions: &[RegionSpec], used: &BTreeMap<u8, BTreeSet<usize>>, session: Option<f64>) -> Units {
    let capacities = used.keys().filter_map(|region| {
        let spec = regions.get(usize::from(*region))?;
        Some((spec, spec.capacity.as_ref()?))
    });
    let (mut bits, mut sessions) = (None, None);
    for (spec, capacity) in capacities {
        bits = bits.or(capacity.in_bits().then_some(spec));
        sessions = sessions.or(capacity.in_sessions().then_some(spec));
    }
    if let (Some(bits), Some(sessions), None) = (bits, sessions, session) {
        file.report(
            Diagnostic::error(
                sessions.at.clone(),
                format!("region {} has its capacity in sessions, region {} in bits/s", sessions.name, bits.name),
            )
            .rule(capacity::ONE_UNIT)
            .help("say it at the top of the file, like session = \"5Mbps\", or write all capacities in one unit"),
        );
    }
    match (bits, sessions, session) {
        (_, _, Some(_)) => Units::Both,
        (_, Some(_), None) => Units::Sessions,
        (Some(_), None, None) => Units::Bits,
        (None, None, None) => Units::Unsaid,
    }
}

/// The regions in use, by position in `all`, with their checks.
#[expect(clippy::too_many_arguments, reason = "what regions are, and what is written around them")]
fn resolve_regions(
    file: &File,
    all: &[RegionSpec],
    used: &BTreeMap<u8, BTreeSet<usize>>,
    streams: &[Stream],
    check: Option<&(At, CheckSpec)>,
    session: Option<f64>,
    shared: &Shared,
    lossy: bool,
) -> Vec<Region> {
    let node = shared.check.clone().unwrap_or_default();
    let zone = check.map_or_else(|| node.clone(), |(_, spec)| spec.over(&node));
    zone.verify(file);
    // Regions that lack a host, by the place of the check that would need it.
    let mut hostless: BTreeMap<At, Vec<&str>> = BTreeMap::new();
    let mut any_check = false;
    let mut regions = Vec::new();
    for (position, users) in used {
        let Some(spec) = all.get(usize::from(*position)) else { continue };
        let merged = spec.check.as_ref().map_or_else(|| zone.clone(), |own| own.over(&zone));
        merged.verify(file);
        if let (Some(at), false) = (&spec.check_at, merged.names_kind()) {
            file.report(
                Diagnostic::error(at.clone(), format!("the check of region {} is of no kind", spec.name))
                    .rule("there is no [check] for it to differ from")
                    .help("add http = \"/healthz\", https = \"/healthz\" or tcp = 1935"),
            );
        }
        any_check |= merged.names_kind();
        let host = sole_host(users, streams);
        if let (Some(at), None) = (merged.needs_host(), &host) {
            hostless.entry(at.clone()).or_default().push(&spec.name);
        }
        regions.push(Region {
            name: spec.name.clone(),
            location: spec.location,
            near: spec.near.clone(),
            servers: spec.servers.clone(),
            min_up: spec.min_up,
            ramp: spec.ramp,
            capacity: spec.capacity.as_ref().map(|written| written.resolve(session)),
            cost: spec.cost,
            check: merged.resolve(host.as_deref().unwrap_or_default()).map(Arc::new),
        });
    }
    for (at, names) in hostless {
        let (word, names) = (if names.len() == 1 { "region" } else { "regions" }, names.join(", "));
        let example = streams.iter().find(|s| !s.owner.is_wildcard()).map_or(&streams[0], |s| s);
        let example = example.owner.to_ascii();
        file.report(
            Diagnostic::error(at, format!("the check of {word} {names} needs a `host`"))
                .rule("only where one stream, and no wildcard, uses a region is its name the host to ask for")
                .help(format!("add host = \"{}\"", example.trim_start_matches("*.").trim_end_matches('.'))),
        );
    }
    let excused = any_check || lossy && zone.names_kind();
    if let Some((at, _)) = check.filter(|_| !excused) {
        let fault = Diagnostic::error(at.clone(), "[check] checks nothing");
        file.report(if zone.names_kind() {
            fault.rule("no stream uses a region").help("add [region.NAME], or remove [check]")
        } else {
            fault.rule("it names no kind of check").help("add http = \"/healthz\", https = \"/healthz\" or tcp = 1935")
        });
    }
    regions
}

/// The name of the only stream that uses a region, where a server can be asked for it.
fn sole_host(users: &BTreeSet<usize>, streams: &[Stream]) -> Option<String> {
    let mut users = users.iter().filter_map(|i| streams.get(*i));
    let only = users.next().filter(|stream| users.next().is_none() && !stream.owner.is_wildcard())?;
    names::host(&only.owner.to_ascii()).ok()
}

/// What is said of a zone as a whole.
struct Whole {
    apex: Name,
    ns: Vec<Name>,
    soa: Soa,
    min_regions: u8,
    session_bits: f64,
    units: Units,
    money: Option<Money>,
}

/// Regions that nobody uses are left out, so positions move.
fn assemble(
    file: &File,
    whole: Whole,
    regions: Vec<Region>,
    mut streams: Vec<Stream>,
    events: Vec<Event>,
    records: Vec<PlacedRrset>,
    used: &BTreeMap<u8, BTreeSet<usize>>,
) -> Zone {
    if regions.len() > MAX_REGIONS && !file.has_errors() {
        let fault = Diagnostic::error(
            At::start(&file.path),
            format!("{} regions in use, more than {MAX_REGIONS}", regions.len()),
        );
        file.report(fault.rule(format!("a zone has at most {MAX_REGIONS} regions, shared ones counted")));
    }
    let moved: HashMap<u8, u8> = used.keys().copied().zip(0..=u8::MAX).collect();
    for stream in &mut streams {
        let rules = stream.rules.iter_mut().map(|rule| &mut rule.steering);
        for region in rules.chain([&mut stream.steering]).flat_map(|steering| &mut steering.regions) {
            *region = moved.get(region).copied().unwrap_or_default();
        }
    }
    let Whole { apex, ns, soa, min_regions, session_bits, units, money } = whole;
    Zone {
        name: apex,
        file: file.path.clone(),
        ns,
        soa,
        min_regions,
        session_bits,
        units,
        money,
        regions,
        streams,
        events,
        records: records.into_iter().map(|placed| placed.rrset).collect(),
        modified: 0,
        digest: 0,
    }
}
