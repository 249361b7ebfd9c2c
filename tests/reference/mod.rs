//! What the right answer is, worked out slowly from a zone's settings by the algorithm of RFC 1034 §4.3.2.
//!
//! It stands beside the server so that two readings of the RFCs meet: it shares no code with `answer` and `snapshot`,
//! keeps records as hickory-proto's types in ordered maps, and walks names label by label.
//!
//! Steered names have several right answers. For these it tells the sets of addresses of which one must be given.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, NS, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecoder, BinEncodable, BinEncoder, NameEncoding, Restrict};
use meridian::config::settings::{CheckKind, Family, Region, Stream, Zone};

const SOA_TTL: u32 = 300;
const NS_TTL: u32 = 86_400;
/// CNAMEs and DNAMEs that one answer follows.
const MAX_CHAIN: usize = 12;

/// A record as sets hold it: names compare case-blind, data byte for byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rr {
    owner: Name,
    rtype: u16,
    ttl: u32,
    data: Data,
}

/// RDATA, uncompressed.
pub type Data = Vec<u8>;

impl fmt::Debug for Rr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rtype = RecordType::from(self.rtype);
        write!(f, "{} {} {} {}", self.owner, self.ttl, rtype, rdata(rtype, &self.data))
    }
}

impl Rr {
    pub fn is_a(&self, rtype: RecordType) -> bool {
        self.rtype == u16::from(rtype)
    }

    pub fn is_owned_by(&self, name: &Name) -> bool {
        self.owner == *name
    }
}

impl From<&Record> for Rr {
    fn from(record: &Record) -> Rr {
        assert_eq!(record.dns_class, DNSClass::IN, "{record}");
        let mut data = Vec::new();
        let mut encoder = BinEncoder::new(&mut data);
        encoder.set_name_encoding(NameEncoding::Uncompressed);
        record.data.emit(&mut encoder).expect("what was decoded can be encoded");
        if record.record_type() == RecordType::CNAME {
            // A CNAME made from a DNAME holds labels of the question, in whatever case they were asked.
            data.make_ascii_lowercase();
        }
        Rr { owner: record.name.clone(), rtype: record.record_type().into(), ttl: record.ttl, data }
    }
}

pub type Section = BTreeSet<Rr>;

/// One address RRset of which the server may choose the addresses.
#[derive(Clone, Debug)]
pub struct Choice {
    pub owner: Name,
    pub ttl: u32,
    /// By region: the addresses that it may give, and how many of them.
    pub regions: Vec<(BTreeSet<Data>, usize)>,
}

#[derive(Clone, Debug)]
pub struct Expected {
    pub rcode: ResponseCode,
    pub authoritative: bool,
    pub answer: Section,
    pub choice: Option<Choice>,
    pub authority: Section,
    pub additional: Section,
    /// May stand in the additional section, too.
    pub optional: Section,
    /// No answer to this question depends on the client.
    pub scope_zero: bool,
}

impl Expected {
    fn of(rcode: ResponseCode, authoritative: bool) -> Expected {
        Expected {
            rcode,
            authoritative,
            answer: Section::new(),
            choice: None,
            authority: Section::new(),
            additional: Section::new(),
            optional: Section::new(),
            scope_zero: true,
        }
    }

    /// What is wrong with `answer`, if anything.
    pub fn mismatch(&self, answer: &Message) -> Option<String> {
        let section = |records: &[Record]| -> Result<Section, String> {
            let set: Section = records.iter().map(Rr::from).collect();
            if set.len() == records.len() { Ok(set) } else { Err(format!("a record twice in {records:?}")) }
        };
        let compare = || -> Result<(), String> {
            let expect = |what: &str, fine: bool| if fine { Ok(()) } else { Err(what.to_owned()) };
            expect("rcode", answer.metadata.response_code == self.rcode)?;
            expect("AA", answer.metadata.authoritative == self.authoritative)?;
            expect("authority", section(&answer.authorities)? == self.authority)?;
            let additional = section(&answer.additionals)?;
            expect("additional", additional.is_superset(&self.additional))?;
            let allowed: Section = self.additional.union(&self.optional).cloned().collect();
            expect("additional", additional.is_subset(&allowed))?;

            let given = section(&answer.answers)?;
            let Some(choice) = &self.choice else { return expect("answer", given == self.answer) };
            expect("answer", given.is_superset(&self.answer))?;
            let chosen: Vec<&Rr> = given.difference(&self.answer).collect();
            expect("owner of the addresses", chosen.iter().all(|rr| rr.owner == choice.owner))?;
            expect("TTL of the addresses", chosen.iter().all(|rr| rr.ttl == choice.ttl))?;
            let data: BTreeSet<Data> = chosen.iter().map(|rr| rr.data.clone()).collect();
            let fits = |(addresses, count): &(BTreeSet<Data>, usize)| data.len() == *count && data.is_subset(addresses);
            expect("addresses of one region", choice.regions.iter().any(fits))
        };
        compare().err()
    }
}

/// The records of one owner.
type Node = BTreeMap<u16, Vec<Record>>;

struct ZoneData<'a> {
    settings: &'a Zone,
    nodes: BTreeMap<Name, Node>,
    steered: BTreeMap<Name, &'a Stream>,
    soa: Record,
    /// Apexes of other served zones below this one. Were they said not to exist, resolvers would take nothing below
    /// them to exist (RFC 8020 §2), though it is served.
    children: Vec<Name>,
}

/// Answers questions about some zones, given which servers are down.
pub struct Reference<'a> {
    zones: Vec<ZoneData<'a>>,
    is_down: &'a dyn Fn(SocketAddr) -> bool,
}

fn rdata(rtype: RecordType, wire: &[u8]) -> RData {
    RData::read(&mut BinDecoder::new(wire), rtype, Restrict::new(wire.len() as u16)).expect("zones hold sound RDATA")
}

impl<'a> Reference<'a> {
    /// `zones` with their serials. `is_down` is asked for the addresses that the servers' checks probe.
    pub fn new(zones: impl IntoIterator<Item = (&'a Zone, u32)>, is_down: &'a dyn Fn(SocketAddr) -> bool) -> Self {
        let mut zones: Vec<_> = zones.into_iter().map(|(zone, serial)| ZoneData::new(zone, serial)).collect();
        let apexes: Vec<Name> = zones.iter().map(|zone| zone.settings.name.clone()).collect();
        for zone in &mut zones {
            let apex = &zone.settings.name;
            zone.children = apexes.iter().filter(|other| *other != apex && apex.zone_of(other)).cloned().collect();
        }
        Reference { zones, is_down }
    }

    /// The right answer to a question of opcode QUERY.
    pub fn answer(&self, qname: &Name, qtype: RecordType, qclass: DNSClass) -> Expected {
        let transfer = matches!(qtype, RecordType::AXFR | RecordType::IXFR);
        let mut expected = Expected::of(ResponseCode::NoError, true);
        if transfer || !matches!(qclass, DNSClass::IN | DNSClass::ANY) {
            return Expected::of(ResponseCode::Refused, false);
        }
        let Some(zone) = self.zone_of(qname, qtype) else { return Expected::of(ResponseCode::Refused, false) };
        let mut names = vec![qname.clone()];
        while let Some(target) = self.step(zone, &names[names.len() - 1], qtype, names.len() == 1, &mut expected) {
            // What lies outside the zone is for the resolver to ask, and a loop has no end to find.
            let is_ours = self.zone_of(&target, qtype).is_some_and(|next| std::ptr::eq(next, zone));
            if !is_ours || names.contains(&target) || names.len() == MAX_CHAIN {
                break;
            }
            names.push(target);
        }
        // Other classes may hold other data (RFC 1035 §6.2).
        expected.authoritative &= qclass == DNSClass::IN;
        expected
    }

    /// The zone whose apex encloses the name most closely; for DS at an apex the one above it (RFC 4035 §3.1.4.1).
    fn zone_of(&self, name: &Name, qtype: RecordType) -> Option<&ZoneData<'a>> {
        let enclosing = |strictly: bool| {
            self.zones
                .iter()
                .filter(|zone| zone.settings.name.zone_of(name) && !(strictly && zone.settings.name == *name))
                .max_by_key(|zone| zone.settings.name.num_labels())
        };
        match qtype {
            RecordType::DS => enclosing(true).or_else(|| enclosing(false)),
            _ => enclosing(false),
        }
    }

    /// RFC 1034 §4.3.2, step 3. Gives the name to go on with.
    fn step(
        &self,
        zone: &ZoneData<'a>,
        name: &Name,
        qtype: RecordType,
        first: bool,
        expected: &mut Expected,
    ) -> Option<Name> {
        let apex = &zone.settings.name;
        // From the apex down: the first zone cut or DNAME ends the authority of what is below.
        for labels in apex.num_labels_all()..=name.num_labels_all() {
            let ancestor = name.trim_to(labels);
            let Some(node) = zone.nodes.get(&ancestor) else { continue };
            let is_cut = ancestor != *apex && node.contains_key(&RecordType::NS.into());
            if is_cut && !(ancestor == *name && qtype == RecordType::DS) {
                if first {
                    expected.authoritative = false;
                }
                zone.refer(&ancestor, &node[&RecordType::NS.into()], expected);
                return None;
            }
            if let Some(dname) = node.get(&RecordType::DNAME.into()).filter(|_| ancestor != *name) {
                return substitute(name, &ancestor, &dname[0], qtype, expected);
            }
        }
        if zone.exists(name) {
            return self.at_node(zone, name, name, qtype, expected);
        }
        // RFC 4592 §3.3.1: the closest encloser and the wildcard below it.
        let mut encloser = name.base_name();
        while !zone.exists(&encloser) {
            encloser = encloser.base_name();
        }
        let wildcard = encloser.prepend_label("*").expect("shorter than the name or as long");
        if zone.exists(&wildcard) {
            return self.at_node(zone, &wildcard, name, qtype, expected);
        }
        expected.rcode = ResponseCode::NXDomain;
        expected.authority.insert(zone.negative_soa());
        None
    }

    /// The records of the node `at`, given under the name `owner`.
    fn at_node(
        &self,
        zone: &ZoneData<'a>,
        at: &Name,
        owner: &Name,
        qtype: RecordType,
        expected: &mut Expected,
    ) -> Option<Name> {
        let no_records = Node::new();
        let node = zone.nodes.get(at).unwrap_or(&no_records);
        let given = |record: &Record| Rr { owner: owner.clone(), ..Rr::from(record) };
        let stream = zone.steered.get(at);

        if let Some(stream) = stream
            && let Some(fallback) = &stream.fallback
            && self.all_down(zone.settings, stream)
        {
            let cname = Record::from_rdata(owner.clone(), stream.ttl, RData::CNAME(CNAME(fallback.clone())));
            expected.answer.insert(Rr::from(&cname));
            return (!matches!(qtype, RecordType::CNAME | RecordType::ANY)).then(|| fallback.clone());
        }
        if let Some(cname) = node.get(&RecordType::CNAME.into()) {
            expected.answer.extend(cname.iter().map(given));
            // ANY matches a CNAME, and HINFO may not be made up beside one (RFC 8482 §4.2).
            let RData::CNAME(CNAME(target)) = &cname[0].data else { unreachable!("a CNAME holds a name") };
            return (!matches!(qtype, RecordType::CNAME | RecordType::ANY)).then(|| target.clone());
        }
        if qtype == RecordType::ANY && (!node.is_empty() || stream.is_some()) {
            let hinfo = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
            expected.answer.insert(Rr::from(&Record::from_rdata(owner.clone(), SOA_TTL, hinfo)));
            return None;
        }
        if let Some(records) = node.get(&qtype.into()) {
            expected.answer.extend(records.iter().map(given));
            return None;
        }
        let family = match qtype {
            RecordType::A => Some(Family::V4),
            RecordType::AAAA => Some(Family::V6),
            _ => None,
        };
        if let Some((stream, family)) = stream.zip(family) {
            let regions = self.candidates(zone.settings, stream, family);
            if !regions.is_empty() {
                expected.choice = Some(Choice { owner: owner.clone(), ttl: stream.ttl, regions });
                expected.scope_zero = false;
                return None;
            }
        }
        expected.authority.insert(zone.negative_soa());
        None
    }

    fn all_down(&self, zone: &Zone, stream: &Stream) -> bool {
        used_regions(stream).iter().all(|&region| {
            let region = &zone.regions[usize::from(region)];
            Family::BOTH.iter().all(|&family| !self.is_region_up(region, family))
        })
    }

    fn is_server_up(&self, region: &Region, server: usize, family: Family) -> bool {
        let Some(check) = &region.check else { return true };
        let server = &region.servers[server];
        let Some(address) = server.address(family) else { return false };
        let probed = server.probe.unwrap_or_else(|| SocketAddr::new(address, check.port));
        assert!(matches!(check.kind, CheckKind::Tcp), "only such checks are generated");
        !(self.is_down)(probed)
    }

    fn is_region_up(&self, region: &Region, family: Family) -> bool {
        let declared: Vec<usize> = declared(region, family);
        let up = declared.iter().filter(|&&server| self.is_server_up(region, server, family)).count();
        let needed = region.min_up.map_or(declared.len().div_ceil(2), |min_up| min_up as usize);
        !declared.is_empty() && up >= needed.max(1)
    }

    /// The regions that may be given, with the addresses of each: those that are up, or all when none is.
    fn candidates(&self, zone: &Zone, stream: &Stream, family: Family) -> Vec<(BTreeSet<Data>, usize)> {
        let regions: Vec<&Region> = used_regions(stream)
            .into_iter()
            .map(|region| &zone.regions[usize::from(region)])
            .filter(|region| !declared(region, family).is_empty())
            .collect();
        let any_up = regions.iter().any(|region| self.is_region_up(region, family));
        regions
            .into_iter()
            .filter(|region| !any_up || self.is_region_up(region, family))
            .map(|region| {
                let mut servers = declared(region, family);
                // Even where all regions are down, servers that are up go before those that are not.
                let is_up = |&server: &usize| self.is_server_up(region, server, family);
                if servers.iter().any(is_up) {
                    servers.retain(is_up);
                }
                let addresses: BTreeSet<Data> =
                    servers.into_iter().map(|server| address_data(region, server, family)).collect();
                let count = addresses.len().min(usize::from(stream.steering.answers));
                (addresses, count)
            })
            .collect()
    }
}

fn used_regions(stream: &Stream) -> BTreeSet<u8> {
    assert!(stream.rules.is_empty(), "streams with rules are not generated");
    stream.steering.regions.iter().copied().collect()
}

fn declared(region: &Region, family: Family) -> Vec<usize> {
    (0..region.servers.len()).filter(|&server| region.servers[server].address(family).is_some()).collect()
}

fn address_data(region: &Region, server: usize, family: Family) -> Data {
    let server = &region.servers[server];
    let data = match family {
        Family::V4 => RData::A(A(server.a.expect("declared"))),
        Family::V6 => RData::AAAA(AAAA(server.aaaa.expect("declared"))),
    };
    Rr::from(&Record::from_rdata(Name::root(), 0, data)).data
}

/// RFC 6672 §3.2: the DNAME, the CNAME made from it, and the name that this leads to.
fn substitute(
    name: &Name,
    ancestor: &Name,
    dname: &Record,
    qtype: RecordType,
    expected: &mut Expected,
) -> Option<Name> {
    expected.answer.insert(Rr::from(dname));
    let data = Rr::from(dname).data;
    let target = match rdata(RecordType::CNAME, &data) {
        RData::CNAME(CNAME(target)) => target,
        other => unreachable!("{other} was read as a name"),
    };
    let above = name.num_labels_all() - ancestor.num_labels_all();
    let labels = name.iter().take(above).chain(target.iter()).collect::<Vec<_>>();
    let Ok(substituted) = Name::from_labels(labels) else {
        // RFC 6672 §2.2: too long a name.
        expected.rcode = ResponseCode::YXDomain;
        return None;
    };
    let cname = Record::from_rdata(name.clone(), dname.ttl, RData::CNAME(CNAME(substituted.clone())));
    expected.answer.insert(Rr::from(&cname));
    (!matches!(qtype, RecordType::CNAME | RecordType::ANY)).then_some(substituted)
}

/// Every record of the zone's static data, its SOA and NS among them.
pub fn records_of(zone: &Zone, serial: u32) -> Vec<Record> {
    ZoneData::new(zone, serial).nodes.into_values().flat_map(|node| node.into_values().flatten()).collect()
}

impl<'a> ZoneData<'a> {
    fn new(settings: &'a Zone, serial: u32) -> Self {
        let mut nodes: BTreeMap<Name, Node> = BTreeMap::new();
        let mut add = |owner: &Name, ttl, data: RData, rtype: RecordType| {
            let records = nodes.entry(owner.clone()).or_default().entry(rtype.into()).or_default();
            records.push(Record::from_rdata(owner.clone(), ttl, data));
        };
        let timers = &settings.soa;
        let soa = SOA::new(
            settings.ns[0].clone(),
            timers.contact.clone(),
            serial,
            timers.refresh as i32,
            timers.retry as i32,
            timers.expire as i32,
            timers.negative,
        );
        let soa = Record::from_rdata(settings.name.clone(), SOA_TTL, RData::SOA(soa));
        add(&settings.name, SOA_TTL, soa.data.clone(), RecordType::SOA);
        for ns in &settings.ns {
            add(&settings.name, NS_TTL, RData::NS(NS(ns.clone())), RecordType::NS);
        }
        for rrset in &settings.records {
            for wire in &rrset.rdata {
                add(&rrset.owner, rrset.ttl, rdata(rrset.rtype, wire), rrset.rtype);
            }
        }
        let steered = settings.streams.iter().map(|stream| (stream.owner.clone(), stream)).collect();
        ZoneData { settings, nodes, steered, soa, children: Vec::new() }
    }

    /// A name exists when it or a name below it has records (RFC 4592 §2.2.3, RFC 8020 §2).
    fn exists(&self, name: &Name) -> bool {
        self.nodes.keys().chain(self.steered.keys()).chain(&self.children).any(|owner| name.zone_of(owner))
    }

    /// RFC 2308 §3: the SOA of a negative answer lives as long as the answer, the smaller of its TTL and MINIMUM.
    fn negative_soa(&self) -> Rr {
        let ttl = self.soa.ttl.min(self.settings.soa.negative);
        Rr { ttl, ..Rr::from(&self.soa) }
    }

    /// A referral: the NS RRset, and as glue the addresses that this zone holds. Those at or below the cut must be
    /// there (RFC 9471 §3.1), those of other names may.
    fn refer(&self, cut: &Name, ns: &[Record], expected: &mut Expected) {
        expected.authority.extend(ns.iter().map(Rr::from));
        for record in ns {
            let RData::NS(NS(target)) = &record.data else { unreachable!("NS records hold a name") };
            let Some(node) = self.nodes.get(target) else { continue };
            let glue = [RecordType::A, RecordType::AAAA].into_iter().filter_map(|rtype| node.get(&rtype.into()));
            let section = if cut.zone_of(target) { &mut expected.additional } else { &mut expected.optional };
            section.extend(glue.flatten().map(Rr::from));
        }
    }
}

/// hickory-proto's `num_labels` leaves out a leading `*`.
trait AllLabels {
    fn num_labels_all(&self) -> usize;
}

impl AllLabels for Name {
    fn num_labels_all(&self) -> usize {
        self.iter().count()
    }
}
