//! Where the CNAMEs and DNAMEs of a zone lead: every chain of them has to end.

use std::collections::HashSet;

use hickory_proto::rr::{Name, RecordType};

use super::diagnostic::Diagnostic;
use super::records::PlacedRrset;
use super::rules::{Index, ancestors, targets};

/// Names of a chain that are shown of one without an end.
const SHOWN: usize = 4;

impl Index<'_> {
    /// Reports aliases that lead back to themselves, or to names that grow without end.
    ///
    /// A DNAME is followed from the label `*` below it: that stands for all labels, and is what a wildcard covers
    /// where the DNAME leads to one.
    pub(super) fn endless_aliases(&self, report: impl Fn(Diagnostic)) {
        let of_type = |rtype| self.names.records.iter().filter(move |placed| placed.rrset.rtype == rtype);
        let mut chains = Chains::default();
        for placed in of_type(RecordType::DNAME) {
            if let Some(fault) = self.itself(placed) {
                chains.told.insert(placed.rrset.owner.clone());
                report(fault);
            }
        }
        for placed in of_type(RecordType::DNAME) {
            if let Ok(below) = placed.rrset.owner.prepend_label("*") {
                self.follow(below, &mut chains, &report);
            }
        }
        for placed in of_type(RecordType::CNAME) {
            self.follow(placed.rrset.owner.clone(), &mut chains, &report);
        }
    }

    fn itself(&self, dname: &PlacedRrset) -> Option<Diagnostic> {
        let owner = &dname.rrset.owner;
        let target = targets(dname).next().filter(|target| owner.zone_of(target))?;
        let shown = self.shown(owner);
        let what = if target == *owner {
            format!("the DNAME of {shown} points at itself")
        } else {
            format!("the DNAME of {shown} points below itself, at {}", self.shown(&target))
        };
        Some(
            Diagnostic::error(dname.at.clone(), what)
                .rule("what it redirects, it redirects again, without end (RFC 6672 §2.2)")
                .help("point it at a name outside of what it redirects"),
        )
    }

    fn follow(&self, start: Name, chains: &mut Chains, report: impl Fn(Diagnostic)) {
        let mut path: Vec<(Name, &PlacedRrset)> = Vec::new();
        let mut on_path: HashSet<Name> = HashSet::new();
        let mut name = start;
        while !chains.done.contains(&name) {
            if !on_path.insert(name.clone()) {
                let first = path.iter().position(|(passed, _)| *passed == name).unwrap_or_default();
                report(self.circle(&path[first..]));
                chains.tell(&path[first..]);
                break;
            }
            let Some(alias) = self.alias(&name).filter(|alias| !chains.told.contains(&alias.rrset.owner)) else {
                break;
            };
            let next = redirected(&name, alias);
            path.push((name, alias));
            let Some(next) = next else {
                report(self.too_long(&path));
                chains.tell(&path);
                break;
            };
            name = next;
        }
        chains.done.extend(path.into_iter().map(|(name, _)| name));
    }

    /// The CNAME or DNAME that answers for a name.
    fn alias(&self, name: &Name) -> Option<&PlacedRrset> {
        let apex = self.names.apex;
        if !apex.zone_of(name) {
            return None;
        }
        for above in [apex.clone()].into_iter().chain(ancestors(name, apex)).filter(|above| above != name) {
            if self.cuts.contains_key(&above) {
                return None;
            }
            if let Some(dname) = self.dnames.get(&above) {
                return Some(dname);
            }
        }
        let cname = |owner: &Name| self.find(owner, RecordType::CNAME);
        cname(name).or_else(|| cname(&self.wildcard_of(name)?))
    }

    fn circle(&self, round: &[(Name, &PlacedRrset)]) -> Diagnostic {
        let has = |rtype| round.iter().any(|(_, alias)| alias.rrset.rtype == rtype);
        let (what, rule) = match (has(RecordType::CNAME), has(RecordType::DNAME)) {
            (_, false) => ("CNAMEs", "a chain of CNAMEs ends at a name that has data (RFC 1034 §3.6.2)"),
            (false, true) => ("DNAMEs", "a chain of DNAMEs ends at a name that has data (RFC 6672 §2.2)"),
            (true, true) => {
                ("CNAMEs and DNAMEs", "a chain of CNAMEs and DNAMEs ends at a name that has data (RFC 6672 §2.2)")
            }
        };
        let names: Vec<String> = round.iter().chain(&round[..1]).map(|(name, _)| self.shown(name)).collect();
        let at = round[0].1.at.clone();
        Diagnostic::error(at, format!("{what} lead in a circle: {}", names.join(" → ")))
            .rule(rule)
            .help("point one of them at a name with addresses")
    }

    fn too_long(&self, path: &[(Name, &PlacedRrset)]) -> Diagnostic {
        let names: Vec<String> = path.iter().take(SHOWN).map(|(name, _)| self.shown(name)).collect();
        let what = format!("{} leads to names longer than 255 bytes: {} → …", names[0], names.join(" → "));
        Diagnostic::error(path[0].1.at.clone(), what)
            .rule("a name that a DNAME makes too long cannot be answered (RFC 6672 §2.2)")
            .help("point the DNAMEs on the way at names that lead no further")
    }
}

/// What is known of the chains followed so far.
#[derive(Default)]
struct Chains {
    done: HashSet<Name>,
    /// Owners of DNAMEs of which a fault is told: whatever comes to them gets no second one.
    told: HashSet<Name>,
}

impl Chains {
    /// A CNAME on the way makes a chain one of single names, and its DNAMEs may do well with others.
    fn tell(&mut self, path: &[(Name, &PlacedRrset)]) {
        if path.iter().all(|(_, alias)| alias.rrset.rtype == RecordType::DNAME) {
            self.told.extend(path.iter().map(|(_, alias)| alias.rrset.owner.clone()));
        }
    }
}

/// Where an alias sends a name; `None` when that would be longer than a name may be.
fn redirected(name: &Name, alias: &PlacedRrset) -> Option<Name> {
    let target = targets(alias).next()?;
    if alias.rrset.rtype == RecordType::CNAME {
        return Some(target);
    }
    let kept = name.iter().count() - alias.rrset.owner.iter().count();
    Name::from_labels(name.iter().take(kept).chain(target.iter())).ok()
}
