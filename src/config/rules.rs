//! What the names and RRsets of a zone must be to each other.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use hickory_proto::rr::{Name, RecordType};

use super::diagnostic::{At, Diagnostic};
use super::names::shown;
use super::records::PlacedRrset;
use super::settings::Stream;
use super::tree::{File, Placed};

/// A zone's names, before anything about them is known to be in order.
pub struct Names<'z> {
    pub apex: &'z Name,
    pub ns: &'z [Placed<Name>],
    pub records: &'z [PlacedRrset],
    pub streams: &'z [Stream],
}

/// Names indexed for the checks.
pub(super) struct Index<'z> {
    pub(super) names: &'z Names<'z>,
    owners: HashMap<&'z Name, Vec<&'z PlacedRrset>>,
    streams: HashMap<&'z Name, &'z Stream>,
    /// Owners of NS RRsets below the apex.
    pub(super) cuts: HashMap<&'z Name, &'z PlacedRrset>,
    pub(super) dnames: HashMap<&'z Name, &'z PlacedRrset>,
    /// Name servers that the zone's NS records name, whose addresses may stand below a cut.
    servers: HashSet<Name>,
    /// Every name that exists, those included that only have names below (RFC 4592 §2.2). Few zones need it.
    existing: OnceCell<HashSet<Name>>,
}

/// Reports every breach to `file`.
pub fn check(names: &Names<'_>, file: &File) {
    let mut index = Index {
        names,
        owners: HashMap::new(),
        streams: names.streams.iter().map(|stream| (&stream.owner, stream)).collect(),
        cuts: HashMap::new(),
        dnames: HashMap::new(),
        servers: names.ns.iter().map(|ns| ns.value.clone()).collect(),
        existing: OnceCell::new(),
    };
    for placed in names.records {
        let owner = &placed.rrset.owner;
        index.owners.entry(owner).or_default().push(placed);
        match placed.rrset.rtype {
            RecordType::NS => {
                index.servers.extend(targets(placed));
                index.cuts.insert(owner, placed);
            }
            RecordType::DNAME => {
                index.dnames.insert(owner, placed);
            }
            _ => {}
        }
    }
    let report = |fault| file.report(fault);
    for placed in names.records {
        index.wildcard(&placed.rrset.owner, &placed.at, report);
        index.beside(placed, report);
        index.below(&placed.rrset.owner, &placed.at, Some(placed.rrset.rtype), report);
        index.targets_of(placed, report);
    }
    for stream in names.streams {
        index.wildcard(&stream.owner, &stream.at, report);
        index.steered(stream, report);
        index.below(&stream.owner, &stream.at, None, report);
    }
    for ns in names.ns {
        index.name_server(&ns.value, &ns.at, None, report);
    }
    index.endless_aliases(report);
}

impl Index<'_> {
    pub(super) fn shown(&self, name: &Name) -> String {
        shown(name, self.names.apex)
    }

    pub(super) fn find(&self, owner: &Name, rtype: RecordType) -> Option<&PlacedRrset> {
        self.owners.get(owner)?.iter().copied().find(|placed| placed.rrset.rtype == rtype)
    }

    /// The wildcard that stands in for a name that does not exist, if that wildcard does (RFC 4592 §3.3.1).
    pub(super) fn wildcard_of(&self, name: &Name) -> Option<Name> {
        let apex = self.names.apex;
        let existing = self.existing.get_or_init(|| {
            let streams = self.names.streams.iter().map(|stream| &stream.owner);
            let owners = self.owners.keys().copied().chain(streams);
            owners.flat_map(|owner| ancestors(owner, apex).into_iter().chain([owner.clone()])).collect()
        });
        let exists = |name: &Name| name == apex || existing.contains(name);
        if exists(name) {
            return None;
        }
        let above = ancestors(name, apex);
        let encloser = above.iter().rev().find(|above| exists(above)).unwrap_or(apex);
        encloser.prepend_label("*").ok().filter(exists)
    }

    /// Asterisks, and names that say the zone twice.
    fn wildcard(&self, owner: &Name, at: &At, report: impl Fn(Diagnostic)) {
        let shown = self.shown(owner);
        let apex = self.names.apex.iter().count();
        let own = owner.iter().count() - apex.min(owner.iter().count());
        let labels: Vec<&[u8]> = owner.iter().take(own).collect();
        let stray = |(i, label): (usize, &&[u8])| label.contains(&b'*') && (i > 0 || label.len() > 1);
        if labels.iter().enumerate().any(stray) {
            report(
                Diagnostic::error(at.clone(), format!("{shown} has an asterisk that makes no wildcard"))
                    .rule("a wildcard is a leftmost label of nothing but * (RFC 4592 §2.1.1)")
                    .help("write it like \"*.game\""),
            );
        }
        if apex > 0
            && own >= apex
            && labels[own - apex..].iter().zip(self.names.apex).all(|(a, b)| a.eq_ignore_ascii_case(b))
        {
            let without = labels[..own - apex].iter().map(|l| String::from_utf8_lossy(l)).collect::<Vec<_>>().join(".");
            let meant = if without.is_empty() { "@".to_owned() } else { without };
            report(
                Diagnostic::warning(at.clone(), format!("{owner} says the zone's name twice"))
                    .rule("a name without a final dot is relative to the zone (RFC 1035 §5.1)")
                    .help(format!("write \"{meant}\"")),
            );
        }
    }

    /// Types that cannot be together at one owner.
    fn beside(&self, placed: &PlacedRrset, report: impl Fn(Diagnostic)) {
        let (owner, rtype) = (&placed.rrset.owner, placed.rrset.rtype);
        let shown = self.shown(owner);
        let others = || self.owners.get(owner).into_iter().flatten().filter(|other| other.rrset.rtype != rtype);
        let fault = |what: String| Diagnostic::error(placed.at.clone(), what);
        let at_apex = owner == self.names.apex;
        match rtype {
            RecordType::CNAME if at_apex => report(
                fault(format!("{shown} has a CNAME, and the SOA and NS of the zone"))
                    .rule("a name with a CNAME can have no other data (RFC 1034 §3.6.2)")
                    .help("give A and AAAA records, or steer the apex: [stream.\"@\"]"),
            ),
            RecordType::CNAME => {
                if let Some(other) = others().next() {
                    report(
                        fault(format!("{shown} has a CNAME and {} record", article(other.rrset.rtype)))
                            .rule("a name with a CNAME can have no other data (RFC 1034 §3.6.2)")
                            .help(format!("remove one of them; the other is at line {}", other.at.line)),
                    );
                }
            }
            RecordType::DNAME if owner.is_wildcard() => report(
                fault(format!("{shown} is a wildcard with a DNAME"))
                    .rule("what a wildcard DNAME means is undefined (RFC 4592 §4.4)")
                    .help("give each name a DNAME of its own"),
            ),
            RecordType::DNAME if !at_apex && self.cuts.contains_key(owner) => report(
                fault(format!("{shown} has a DNAME and is delegated"))
                    .rule("a DNAME stands with NS only at the apex (RFC 6672 §2.3)")
                    .help("remove one of them"),
            ),
            RecordType::NS if owner.is_wildcard() => report(
                fault(format!("{shown} is a wildcard with NS records"))
                    .rule("what a wildcard delegation means is undefined (RFC 4592 §4.2)")
                    .help("delegate each name by itself"),
            ),
            RecordType::DS if at_apex => report(
                fault(format!("{shown} has DS records"))
                    .rule("the DS of a zone stands in its parent (RFC 4035 §2.4)")
                    .help("give them to the parent zone"),
            ),
            RecordType::DS if !self.cuts.contains_key(owner) => report(
                fault(format!("{shown} has DS records and is no delegation"))
                    .rule("DS stands beside the NS of a delegation (RFC 4035 §2.4)")
                    .help(format!("add its NS records to {shown}")),
            ),
            _ => {}
        }
    }

    /// Names at and below delegations and DNAMEs. `rtype` is `None` for a steered name.
    fn below(&self, owner: &Name, at: &At, rtype: Option<RecordType>, report: impl Fn(Diagnostic)) {
        let address = matches!(rtype, Some(RecordType::A | RecordType::AAAA));
        let what = rtype.map_or_else(|| "a steered name".to_owned(), article);
        let glue = address && self.servers.contains(owner);
        if let Some(cut) = self.cuts.get(owner)
            && !glue
            && !matches!(rtype, Some(RecordType::NS | RecordType::DS | RecordType::CNAME | RecordType::DNAME))
        {
            report(
                Diagnostic::error(at.clone(), format!("{} is delegated and has {what} here", self.shown(owner)))
                    .rule("at a zone cut only NS and DS belong to the parent (RFC 2181 §6.1)")
                    .help(format!("move it to the child zone; the NS records are at line {}", cut.at.line)),
            );
        }
        let apex = self.names.apex;
        for above in ancestors(owner, apex).into_iter().chain((owner != apex).then(|| apex.clone())) {
            if let Some(cut) = self.cuts.get(&above)
                && !glue
            {
                report(
                    Diagnostic::error(
                        at.clone(),
                        format!("{} is below the delegation of {}", self.shown(owner), self.shown(&above)),
                    )
                    .rule("below a zone cut only the addresses of name servers may stand (RFC 1034 §4.2.1)")
                    .help(format!("move it to the child zone; the NS records are at line {}", cut.at.line)),
                );
                return;
            }
            if let Some(dname) = self.dnames.get(&above) {
                report(
                    Diagnostic::error(
                        at.clone(),
                        format!("{} is below the DNAME of {}", self.shown(owner), self.shown(&above)),
                    )
                    .rule("below a DNAME there is no data (RFC 6672 §2.4)")
                    .help(format!("remove one of them; the DNAME is at line {}", dname.at.line)),
                );
                return;
            }
        }
    }

    /// Static types that a steered name cannot have.
    fn steered(&self, stream: &Stream, report: impl Fn(Diagnostic)) {
        let shown = self.shown(&stream.owner);
        for placed in self.owners.get(&stream.owner).into_iter().flatten() {
            let rtype = placed.rrset.rtype;
            if matches!(rtype, RecordType::A | RecordType::AAAA | RecordType::CNAME) {
                report(
                    Diagnostic::error(
                        placed.at.clone(),
                        format!("{shown} is steered and has {} record", article(rtype)),
                    )
                    .rule("the addresses of a steered name come from its regions")
                    .help(format!("remove one of them; the stream is at line {}", stream.at.line)),
                );
            } else if stream.fallback.is_some() {
                report(
                    Diagnostic::error(
                        placed.at.clone(),
                        format!("{shown} has a `fallback` and {} record", article(rtype)),
                    )
                    .rule("the fallback is a CNAME, which can have no other data beside it (RFC 1034 §3.6.2)")
                    .help(format!("remove one of them; the stream is at line {}", stream.at.line)),
                );
            }
        }
    }

    /// What the names inside RDATA point at.
    fn targets_of(&self, placed: &PlacedRrset, report: impl Fn(Diagnostic)) {
        let rtype = placed.rrset.rtype;
        for target in targets(placed) {
            match rtype {
                RecordType::NS => self.name_server(&target, &placed.at, Some(&placed.rrset.owner), &report),
                RecordType::MX | RecordType::SRV if self.find(&target, RecordType::CNAME).is_some() => report(
                    Diagnostic::warning(
                        placed.at.clone(),
                        format!(
                            "{} {rtype} names {}, which has a CNAME",
                            self.shown(&placed.rrset.owner),
                            self.shown(&target)
                        ),
                    )
                    .rule("the target of an MX or SRV record is no alias (RFC 2181 §10.3)")
                    .help("name the host itself"),
                ),
                _ => {}
            }
        }
    }

    /// A name server inside the zone needs an address there. `cut`: the delegation that names it, `None` for the apex.
    fn name_server(&self, server: &Name, at: &At, cut: Option<&Name>, report: impl Fn(Diagnostic)) {
        if !self.names.apex.zone_of(server) {
            return;
        }
        let shown = self.shown(server);
        if self.find(server, RecordType::CNAME).is_some() {
            report(
                Diagnostic::error(at.clone(), format!("name server {shown} has a CNAME"))
                    .rule("the target of an NS record is no alias (RFC 2181 §10.3)")
                    .help("name the host itself"),
            );
            return;
        }
        let steered = "the addresses of a name server are given as glue too, which cannot follow steering";
        if let Some(stream) = self.streams.get(server) {
            report(Diagnostic::error(at.clone(), format!("name server {shown} is steered")).rule(steered).help(
                format!("name a server whose address is in [records]; the stream is at line {}", stream.at.line),
            ));
            return;
        }
        if self.find(server, RecordType::A).is_some() || self.find(server, RecordType::AAAA).is_some() {
            return;
        }
        let key = super::tree::quoted_key(&shown);
        let help = format!("add to [records]: {key} = {{ A = \"192.0.2.53\" }}, with its real address");
        if let Some(stream) = self.wildcard_of(server).and_then(|wildcard| self.streams.get(&wildcard)) {
            let what = format!("name server {shown} is steered, by the stream {}", stream.label);
            report(Diagnostic::error(at.clone(), what).rule(steered).help(help));
            return;
        }
        match cut.filter(|cut| cut.zone_of(server)) {
            Some(cut) => report(
                Diagnostic::error(at.clone(), format!("name server {shown} of {} has no glue", self.shown(cut)))
                    .rule("a name server inside the child zone is found by its address here (RFC 1034 §4.2.1)")
                    .help(help),
            ),
            None => report(
                Diagnostic::error(at.clone(), format!("name server {shown} has no address"))
                    .rule("a name server inside the zone needs an address in it (RFC 1034 §4.2.1)")
                    .help(help),
            ),
        }
    }
}

/// The names between `name` and `apex`, both left out, from the top down: the highest cut hides all below.
pub(super) fn ancestors(name: &Name, apex: &Name) -> Vec<Name> {
    let depth = name.iter().count();
    let top = apex.iter().count();
    (top + 1..depth).map(|n| name.trim_to(n)).collect()
}

/// `an A`, `a CNAME`: most mnemonics are spelt, the others are said as a word.
fn article(rtype: RecordType) -> String {
    let name = crate::zone::rdata::mnemonic(rtype);
    let said = ["LOC", "HIP", "LP", "NAPTR", "RP", "NINFO", "NULL", "SINK", "NSAP"].contains(&name.as_str());
    let spelt_with_vowel = name.starts_with(['A', 'E', 'F', 'H', 'I', 'L', 'M', 'N', 'O', 'R', 'S', 'X']);
    format!("{} {name}", if spelt_with_vowel && !said { "an" } else { "a" })
}

/// The names that the RDATA of NS, CNAME, DNAME, MX and SRV point at.
pub(super) fn targets(placed: &PlacedRrset) -> impl Iterator<Item = Name> {
    let skip = match placed.rrset.rtype {
        RecordType::NS | RecordType::CNAME | RecordType::DNAME => Some(0),
        RecordType::MX => Some(2),
        RecordType::SRV => Some(6),
        _ => None,
    };
    let rdata = placed.rrset.rdata.iter().filter_map(move |rdata| rdata.get(skip?..));
    rdata.filter_map(wire_name)
}

/// An uncompressed name that fills `wire`.
fn wire_name(mut wire: &[u8]) -> Option<Name> {
    let mut labels = Vec::new();
    loop {
        let (&length, rest) = wire.split_first()?;
        if length == 0 {
            return rest.is_empty().then(|| Name::from_labels(labels).ok())?;
        }
        let (label, rest) = rest.split_at_checked(length.into())?;
        labels.push(label);
        wire = rest;
    }
}
