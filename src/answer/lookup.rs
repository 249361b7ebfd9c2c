//! What stands at a name: RFC 1034 §4.3.2 and RFC 4592, on the compiled names.

use hickory_proto::rr::RecordType;

use crate::snapshot::names::{Cut, Data, Kind, Names, NodeId, ParentSide, Records};

use super::query::Folded;

/// What a name is in the zones that are served. Positions are of the snapshot's zones.
#[derive(Clone, Copy)]
pub enum Lookup<'a> {
    /// In no zone of ours.
    Outside,
    /// The name exists, or a wildcard stands in for it (RFC 4592 §3.3.1).
    Exists {
        zone: u32,
        data: &'a Data,
    },
    /// DS at a zone cut, which only the parent knows (RFC 4035 §3.1.4.1).
    ParentSide {
        zone: u32,
        ds: Option<&'a Records>,
    },
    /// At or below a delegation.
    Referral {
        zone: u32,
        cut: &'a Cut,
    },
    /// Below a DNAME, whose owner is what is left of the name without its first `below` bytes (RFC 6672 §2.3).
    Redirected {
        zone: u32,
        dname: &'a Records,
        below: usize,
    },
    NxDomain {
        zone: u32,
    },
}

#[inline]
pub fn lookup<'a>(names: &'a Names, name: &Folded, qtype: u16) -> Lookup<'a> {
    // Nothing in the table is deeper than its deepest name.
    let first = name.labels().saturating_sub(names.deepest);
    let closest = (first..=name.labels()).find_map(|labels| Some((labels, names.get(name.without(labels))?)));
    let Some((labels, node)) = closest else { return Lookup::Outside };
    let (zone, exact) = (node.zone, labels == 0);
    let is_ds = qtype == u16::from(RecordType::DS);
    match &node.kind {
        Kind::Cut(Cut { ds, .. }) if exact && is_ds => Lookup::ParentSide { zone, ds: ds.as_ref() },
        Kind::Cut(cut) => Lookup::Referral { zone, cut },
        Kind::Below(cut) => below(names, zone, *cut),
        Kind::Data(Data { parent: Some(side), .. }) if exact && is_ds => match side {
            ParentSide::Own { zone, ds } => Lookup::ParentSide { zone: *zone, ds: ds.as_ref() },
            ParentSide::Below { zone, cut } => below(names, *zone, *cut),
        },
        Kind::Data(data) if exact => Lookup::Exists { zone, data },
        Kind::Data(data) => {
            if let Some(dname) = data.records(RecordType::DNAME) {
                let below = name.len() - name.without(labels).len();
                return Lookup::Redirected { zone, dname, below };
            }
            match data.wildcard.map(|wildcard| &names.node(wildcard).kind) {
                Some(Kind::Data(data)) => Lookup::Exists { zone, data },
                // NS at a wildcard has no defined meaning (RFC 4592 §4.2); zone files with it are refused.
                Some(Kind::Cut(_) | Kind::Below(_)) | None => Lookup::NxDomain { zone },
            }
        }
    }
}

fn below(names: &Names, zone: u32, cut: NodeId) -> Lookup<'_> {
    match &names.node(cut).kind {
        Kind::Cut(cut) => Lookup::Referral { zone, cut },
        Kind::Data(_) | Kind::Below(_) => unreachable!("names below a cut name the cut itself"),
    }
}
