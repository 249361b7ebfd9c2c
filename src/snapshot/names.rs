//! Every name that is served, by its wire form: what stands there, already encoded.
//!
//! One table holds the names of all zones. A name that is not in it is answered from its closest encloser (RFC 4592
//! §3.3.1), found by taking labels off the front until one is.

use std::collections::{BTreeMap, HashMap, HashSet};

use foldhash::fast::FixedState;
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use crate::config::settings::{NS_TTL, Zone};
use crate::zone::Rrset;

use super::Served;

/// TTL of the synthesised SOA, seconds.
const SOA_TTL: u32 = 300;

/// Position of a name in [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(u32);

pub struct Names {
    table: HashMap<Box<[u8]>, NodeId, FixedState>,
    nodes: Vec<Node>,
    apexes: Vec<Apex>,
    /// Labels of the deepest name: whatever is deeper is not in the table.
    pub deepest: usize,
}

/// A name that exists.
pub struct Node {
    /// Position in the snapshot's zones.
    pub zone: u32,
    pub kind: Kind,
}

pub enum Kind {
    /// Authoritative data, perhaps none (an empty non-terminal).
    Data(Data),
    /// A delegation: NS records below the apex (RFC 1034 §4.2.1).
    Cut(Cut),
    /// Glue or other data below the delegation at that node.
    Below(NodeId),
}

#[derive(Default)]
pub struct Data {
    /// Position in the snapshot's streams.
    pub stream: Option<u32>,
    sets: Vec<(u16, Records)>,
    /// The wildcard right below this name.
    pub wildcard: Option<NodeId>,
    /// At the apex of a zone whose parent is served too: DS queries are answered from the parent (RFC 4035 §3.1.4.1).
    pub parent: Option<ParentSide>,
}

/// What the parent zone says of a child's DS.
pub enum ParentSide {
    Own {
        zone: u32,
        ds: Option<Records>,
    },
    /// The child lies below a delegation of the parent at that node: another server knows.
    Below {
        zone: u32,
        cut: NodeId,
    },
}

impl Data {
    /// Neither steered nor with records: an empty non-terminal.
    pub fn is_empty(&self) -> bool {
        self.stream.is_none() && self.sets.is_empty()
    }

    pub fn records(&self, rtype: RecordType) -> Option<&Records> {
        let rtype = u16::from(rtype);
        self.sets.iter().find(|(known, _)| *known == rtype).map(|(_, records)| records)
    }
}

pub struct Cut {
    /// Length of the owner name on the wire.
    pub owner_len: usize,
    pub ns: Records,
    pub ds: Option<Records>,
    /// Addresses of name servers below this cut: needed to reach the child, so they must not be left out silently
    /// (RFC 9471 §3.1). Owners are whole names.
    pub glue: Records,
    /// Addresses of name servers below other cuts of the zone: given where they fit (RFC 9471 §3.2).
    pub sibling_glue: Records,
}

/// An RRset in wire form. Owners are pointers to the question name unless stated otherwise.
#[derive(Default)]
pub struct Records {
    pub wire: Box<[u8]>,
    pub count: u16,
}

impl Records {
    fn new(rtype: u16, ttl: u32, rdata: &[impl AsRef<[u8]>]) -> Records {
        Records::with_owner(&[0xC0, 0x0C], rtype, ttl, rdata)
    }

    fn with_owner(owner: &[u8], rtype: u16, ttl: u32, rdata: &[impl AsRef<[u8]>]) -> Records {
        let mut wire = Vec::new();
        for rdata in rdata.iter().map(AsRef::as_ref) {
            wire.extend_from_slice(owner);
            wire.extend_from_slice(&rtype.to_be_bytes());
            wire.extend_from_slice(&[0, 1]);
            wire.extend_from_slice(&ttl.to_be_bytes());
            wire.extend_from_slice(&u16::try_from(rdata.len()).expect("RDATA is at most 65,535 bytes").to_be_bytes());
            wire.extend_from_slice(rdata);
        }
        Records { wire: wire.into(), count: rdata.len() as u16 }
    }

    fn append(&mut self, more: Records) {
        self.wire = [&*self.wire, &*more.wire].concat().into();
        self.count += more.count;
    }

    /// RDATA of the first record of a set whose owners are pointers.
    pub fn first_rdata(&self) -> &[u8] {
        let length = usize::from(u16::from_be_bytes([self.wire[10], self.wire[11]]));
        &self.wire[12..12 + length]
    }
}

/// What answers need of a zone itself.
pub struct Apex {
    /// Length of the apex name on the wire.
    pub name_len: usize,
    /// The SOA for negative answers, its TTL the smaller of its own and the MINIMUM field (RFC 2308 §3).
    pub negative_soa: Records,
}

impl Names {
    /// `stream_base[z]`: position of the zone's first stream among all streams.
    pub(super) fn new(zones: &[Served], stream_base: &[u32]) -> Names {
        let family = Family::of(zones);
        let mut names = Names { table: HashMap::default(), nodes: Vec::new(), apexes: Vec::new(), deepest: 0 };
        let mut parent_sides = Vec::new();
        for (z, served) in zones.iter().enumerate() {
            let soa = soa_rdata(&served.zone, served.serial);
            let negative_ttl = SOA_TTL.min(served.zone.soa.negative);
            names.apexes.push(Apex {
                name_len: wire_of(&served.zone.name).len(),
                negative_soa: Records::new(u16::from(RecordType::SOA), negative_ttl, &[&soa]),
            });
            names.add_zone(z as u32, &served.zone, soa, stream_base[z], &family, &mut parent_sides);
        }
        for (child, side) in parent_sides {
            let node = names.table[&*wire_of(&child)];
            if let Kind::Data(data) = &mut names.nodes[node.0 as usize].kind {
                data.parent = Some(side);
            }
        }
        names.link_wildcards();
        names
    }

    /// The node of a name given in wire form and lower case.
    #[inline]
    pub fn get(&self, folded: &[u8]) -> Option<&Node> {
        self.table.get(folded).map(|&id| self.node(id))
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub fn apex(&self, zone: u32) -> &Apex {
        &self.apexes[zone as usize]
    }

    fn insert(&mut self, name: &Name, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).expect("names fit memory, so they fit 32 bits"));
        self.nodes.push(node);
        self.table.insert(wire_of(name), id);
        self.deepest = self.deepest.max(usize::from(label_count(name)));
        id
    }

    fn add_zone(
        &mut self,
        z: u32,
        zone: &Zone,
        soa: Vec<u8>,
        stream_base: u32,
        family: &Family,
        parent_sides: &mut Vec<(Name, ParentSide)>,
    ) {
        let apex = zone.name.to_lowercase();
        let Family { apexes, children: children_of } = family;
        let own_children = children_of.get(&apex).map_or(&[][..], Vec::as_slice);
        let mut owners: BTreeMap<Name, Owner<'_>> = BTreeMap::new();
        owners.insert(apex.clone(), Owner::default());
        // Another zone that we serve below this one hides what stands here at and below its apex.
        let mut children: HashMap<Name, Option<&Rrset>> = HashMap::new();
        let child_of = |owner: &Name| ancestors(owner, &apex).filter(|name| apexes.contains(name)).last();
        for rrset in &zone.records {
            let owner = rrset.owner.to_lowercase();
            match child_of(&owner) {
                Some(child) => {
                    let ds = children.entry(child.clone()).or_default();
                    if rrset.rtype == RecordType::DS && owner == child {
                        *ds = Some(rrset);
                    }
                    owners.entry(child).or_default();
                }
                None => owners.entry(owner).or_default().rrsets.push(rrset),
            }
        }
        for (s, stream) in zone.streams.iter().enumerate() {
            let owner = stream.owner.to_lowercase();
            if child_of(&owner).is_none() {
                owners.entry(owner).or_default().stream = Some(stream_base + s as u32);
            }
        }
        // Names between this apex and a child's exist even where no delegation says so: NXDOMAIN there would deny the
        // child as well (RFC 8020 §2).
        for child in own_children {
            owners.entry(child.clone()).or_default();
        }
        for name in owners.keys().cloned().collect::<Vec<_>>() {
            for above in ancestors(&name, &apex).skip(1) {
                owners.entry(above).or_default();
            }
        }
        // Names sort from the apex down, so a cut is inserted before what lies below it.
        let mut cut: Option<(Name, NodeId)> = None;
        for (name, owner) in &owners {
            if *name != apex && apexes.contains(name) {
                continue;
            }
            if let Some((above, id)) = &cut
                && above.zone_of(name)
            {
                self.insert(name, Node { zone: z, kind: Kind::Below(*id) });
            } else if *name != apex && owner.rrset(RecordType::NS).is_some() {
                let node = Node { zone: z, kind: Kind::Cut(cut_at(name, owner, &owners, &apex)) };
                cut = Some((name.clone(), self.insert(name, node)));
            } else {
                let mut sets: Vec<(u16, Records)> =
                    owner.rrsets.iter().map(|rrset| (u16::from(rrset.rtype), encode(rrset))).collect();
                if *name == apex {
                    let ns: Vec<_> = zone.ns.iter().map(wire_as_written).collect();
                    sets.push((u16::from(RecordType::SOA), Records::new(6, SOA_TTL, &[&soa])));
                    sets.push((u16::from(RecordType::NS), Records::new(2, NS_TTL, &ns)));
                }
                self.insert(
                    name,
                    Node { zone: z, kind: Kind::Data(Data { stream: owner.stream, sets, ..Data::default() }) },
                );
            }
        }
        // The parent of a served zone answers for its DS, even to say that there is none. Of several zones above, the
        // longest is the parent.
        for child in own_children {
            let is_cut = |name: &Name| owners.get(name).is_some_and(|owner| owner.rrset(RecordType::NS).is_some());
            let side = match ancestors(child, &apex).skip(1).filter(is_cut).last() {
                Some(cut) => ParentSide::Below { zone: z, cut: self.table[&*wire_of(&cut)] },
                None => ParentSide::Own { zone: z, ds: children.get(child).copied().flatten().map(encode) },
            };
            parent_sides.push((child.clone(), side));
        }
    }

    fn link_wildcards(&mut self) {
        let wildcards: Vec<(NodeId, NodeId)> = (self.table.iter())
            .filter(|(name, _)| name.starts_with(b"\x01*"))
            .filter_map(|(name, &wildcard)| Some((*self.table.get(&name[2..])?, wildcard)))
            .collect();
        for (above, wildcard) in wildcards {
            // A zone whose apex is a wildcard owes nothing to the zone above it.
            if self.node(above).zone != self.node(wildcard).zone {
                continue;
            }
            if let Kind::Data(data) = &mut self.nodes[above.0 as usize].kind {
                data.wildcard = Some(wildcard);
            }
        }
    }
}

/// Which of the zones lie below which.
struct Family {
    apexes: HashSet<Name>,
    /// By apex: the zones whose closest zone above is this one.
    children: HashMap<Name, Vec<Name>>,
}

impl Family {
    fn of(zones: &[Served]) -> Family {
        let apexes: HashSet<Name> = zones.iter().map(|served| served.zone.name.to_lowercase()).collect();
        let mut children: HashMap<Name, Vec<Name>> = HashMap::new();
        for apex in &apexes {
            if let Some(parent) = strict_ancestors(apex).find(|above| apexes.contains(above)) {
                children.entry(parent).or_default().push(apex.clone());
            }
        }
        Family { apexes, children }
    }
}

#[derive(Default)]
struct Owner<'a> {
    rrsets: Vec<&'a Rrset>,
    stream: Option<u32>,
}

impl<'a> Owner<'a> {
    fn rrset(&self, rtype: RecordType) -> Option<&'a Rrset> {
        self.rrsets.iter().find(|rrset| rrset.rtype == rtype).copied()
    }
}

fn cut_at(name: &Name, owner: &Owner<'_>, owners: &BTreeMap<Name, Owner<'_>>, apex: &Name) -> Cut {
    let ns = owner.rrset(RecordType::NS).expect("a cut has NS records");
    let (mut glue, mut sibling_glue) = (Records::default(), Records::default());
    for target in ns.rdata.iter().filter_map(|rdata| name_from_wire(rdata)) {
        let target = target.to_lowercase();
        let below_this = name.zone_of(&target);
        let is_cut = |above: &Name| owners.get(above).is_some_and(|owner| owner.rrset(RecordType::NS).is_some());
        let is_glue = below_this || ancestors(&target, apex).any(|above| is_cut(&above) && !above.zone_of(name));
        let Some(addresses) = owners.get(&target).filter(|_| is_glue) else { continue };
        for rrset in [RecordType::A, RecordType::AAAA].into_iter().filter_map(|rtype| addresses.rrset(rtype)) {
            let records =
                Records::with_owner(&wire_as_written(&rrset.owner), u16::from(rrset.rtype), rrset.ttl, &rrset.rdata);
            if below_this { &mut glue } else { &mut sibling_glue }.append(records);
        }
    }
    Cut {
        owner_len: wire_of(name).len(),
        ns: encode(ns),
        ds: owner.rrset(RecordType::DS).map(encode),
        glue,
        sibling_glue,
    }
}

/// A CNAME RRset of one steered name.
pub(super) fn cname(target: &Name, ttl: u32) -> Records {
    Records::new(u16::from(RecordType::CNAME), ttl, &[wire_as_written(target)])
}

fn encode(rrset: &Rrset) -> Records {
    Records::new(u16::from(rrset.rtype), rrset.ttl, &rrset.rdata)
}

fn soa_rdata(zone: &Zone, serial: u32) -> Vec<u8> {
    let mut rdata = wire_as_written(&zone.ns[0]).into_vec();
    rdata.extend_from_slice(&wire_as_written(&zone.soa.contact));
    for number in [serial, zone.soa.refresh, zone.soa.retry, zone.soa.expire, zone.soa.negative] {
        rdata.extend_from_slice(&number.to_be_bytes());
    }
    rdata
}

/// `name` and the names above it, up to but not including `apex`.
fn ancestors<'a>(name: &Name, apex: &'a Name) -> impl Iterator<Item = Name> + use<'a> {
    std::iter::successors(Some(name.clone()), |name| (!name.is_root()).then(|| name.base_name()))
        .take_while(move |name| name != apex && !name.is_root())
}

/// The names above `name`, the root included.
fn strict_ancestors(name: &Name) -> impl Iterator<Item = Name> + use<> {
    let above = |name: &Name| (!name.is_root()).then(|| name.base_name());
    std::iter::successors(above(name), move |name| above(name))
}

fn label_count(name: &Name) -> u8 {
    name.iter().len() as u8
}

fn wire_of(name: &Name) -> Box<[u8]> {
    wire_as_written(&name.to_lowercase())
}

fn wire_as_written(name: &Name) -> Box<[u8]> {
    let mut wire = Vec::with_capacity(name.len() + 1);
    let mut encoder = BinEncoder::new(&mut wire);
    encoder.set_name_encoding(hickory_proto::serialize::binary::NameEncoding::Uncompressed);
    name.emit(&mut encoder).expect("a name is at most 255 bytes");
    wire.into()
}

fn name_from_wire(wire: &[u8]) -> Option<Name> {
    use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
    Name::read(&mut BinDecoder::new(wire)).ok()
}
