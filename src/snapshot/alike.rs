//! Which zones are alike: those with the same regions, used in the same manner, share one fleet.
//!
//! Ten thousand zones that take their regions from `meridian.toml` are judged once, not ten thousand times. A zone that an
//! operator's order names is set apart, and has a state of its own from then on.

use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};

use hickory_proto::rr::Name;

use crate::config::settings::{Region, Stream, Zone};
use crate::steering::pick::Mask;

use super::needs::Needs;

/// Equal for zones that can share a fleet.
#[derive(PartialEq)]
pub(super) struct Likeness<'a> {
    regions: &'a [Region],
    uses: BTreeSet<Use<'a>>,
    answers: BTreeSet<u8>,
}

/// What a stream makes of the regions: its own, all that its clients can be sent to, and the names that it needs.
type Use<'a> = (Mask, Mask, Vec<&'a Name>);

impl<'a> Likeness<'a> {
    pub(super) fn of(zone: &'a Zone, every: impl Fn(&Stream) -> Mask) -> Likeness<'a> {
        let (mut uses, mut answers) = (BTreeSet::new(), BTreeSet::new());
        for stream in &zone.streams {
            let needed = stream.needs.iter().map(|(name, _)| name).collect();
            uses.insert((stream.steering.mask(), every(stream), needed));
            answers.insert(stream.steering.answers);
            answers.extend(stream.rules.iter().map(|rule| rule.steering.answers));
        }
        Likeness { regions: &zone.regions, uses, answers }
    }
}

impl Eq for Likeness<'_> {}

impl Hash for Likeness<'_> {
    /// Of a region little is enough: equality looks at all of it, and lists that are shared are equal at a glance.
    fn hash<H: Hasher>(&self, state: &mut H) {
        for region in self.regions {
            let first = region.servers.first().map(|server| (server.a, server.aaaa));
            (&region.name, region.servers.len(), first, &region.check, region.min_up, region.ramp).hash(state);
        }
        (&self.uses, &self.answers).hash(state);
    }
}

/// Zones that share a fleet with others and have a state of their own all the same.
#[derive(Clone, Default)]
pub(super) struct Apart {
    /// In the order in which they were set apart; their fleets are numbered behind all compiled ones.
    pub zones: Vec<u32>,
    /// By zone.
    pub fleets: HashMap<u32, u32>,
    /// Their needs, numbered behind all compiled ones, and by fleet and compiled needs the position of the own.
    pub needs: Vec<Needs>,
    pub needs_of: HashMap<(u32, u32), u32>,
}
