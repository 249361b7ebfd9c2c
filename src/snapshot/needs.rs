//! Streams that need other streams: a region is no use to a viewer whose login or licence it cannot serve.
//!
//! A region counts for a stream only while the region of the same name is up for each name that the stream needs; where
//! the needed name has no such region, while any of its regions is up. That is a soft reason: it never takes a stream
//! below half of its regions, because a viewer without a licence may still be helped, and one without an address is not.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hickory_proto::rr::Name;

use crate::config::settings::{Family, Zone};
use crate::steering::pick::Mask;

use super::fleet::{Fleet, FleetState};
use super::{Served, SteeredName};

/// What streams of one fleet need.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Needs {
    pub fleet: u32,
    /// The stream's own regions.
    regions: Mask,
    /// For each needed name: its zone, and by region of the stream's zone the regions there of which one must be up.
    names: Vec<(u32, Box<[Mask]>)>,
}

/// The distinct needs of all streams, and for each stream its position among them.
pub(super) fn compile(zones: &[Served], fleet_of: &[u32], streams: &mut [SteeredName]) -> Vec<Needs> {
    let owner = |stream: &SteeredName| &zones[stream.zone as usize].zone.streams[stream.stream as usize].owner;
    if zones.iter().flat_map(|served| &served.zone.streams).all(|stream| stream.needs.is_empty()) {
        return vec![];
    }
    let by_owner: HashMap<&Name, usize> = streams.iter().enumerate().map(|(at, stream)| (owner(stream), at)).collect();
    let mut all = Vec::new();
    let mut known: HashMap<Needs, u32> = HashMap::new();
    for position in 0..streams.len() {
        let stream = &streams[position];
        let zone: &Zone = &zones[stream.zone as usize].zone;
        let needed = &zone.streams[stream.stream as usize].needs;
        let names: Vec<(u32, Box<[Mask]>)> = needed
            .iter()
            .filter_map(|(name, _)| {
                // One that nobody steers here was warned of, and counts as up.
                let other = &streams[*by_owner.get(name)?];
                let there = &zones[other.zone as usize].zone.regions;
                let alike = |name: &Arc<str>| {
                    let found = there.iter().position(|region| region.name == *name);
                    found.map(|region| 1 << region).filter(|bit| other.regions & bit != 0).unwrap_or(other.regions)
                };
                Some((other.zone, zone.regions.iter().map(|region| alike(&region.name)).collect()))
            })
            .collect();
        if !names.is_empty() {
            let needs = Needs { fleet: fleet_of[stream.zone as usize], regions: stream.regions, names };
            let id = *known.entry(needs).or_insert_with_key(|needs| {
                all.push(needs.clone());
                all.len() as u32 - 1
            });
            streams[position].needs = Some(id);
        }
    }
    all
}

/// By fleet: the needs that hang on it, by position.
pub(super) fn dependents(needs: &[Needs], fleet_of: &[u32]) -> HashMap<u32, BTreeSet<u32>> {
    let mut dependents: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    for (position, needs) in needs.iter().enumerate() {
        let needed = needs.names.iter().map(|(zone, _)| fleet_of[*zone as usize]);
        for fleet in needed.chain([needs.fleet]) {
            dependents.entry(fleet).or_default().insert(position as u32);
        }
    }
    dependents
}

/// What the streams of one fleet make of its regions.
pub(super) struct Uses {
    /// Regions that a stream without needs uses.
    free: Mask,
    /// Positions among the needs.
    pub needing: BTreeSet<u32>,
}

/// By fleet that has needs.
pub(super) fn uses(streams: &[SteeredName]) -> HashMap<u32, Uses> {
    let mut uses: HashMap<u32, Uses> = HashMap::new();
    for stream in streams {
        if let Some(needs) = stream.needs {
            let of_fleet = uses.entry(stream.fleet).or_insert(Uses { free: 0, needing: BTreeSet::new() });
            of_fleet.needing.insert(needs);
        }
    }
    for stream in streams.iter().filter(|stream| stream.needs.is_none()) {
        if let Some(of_fleet) = uses.get_mut(&stream.fleet) {
            of_fleet.free |= stream.regions;
        }
    }
    uses
}

impl Uses {
    /// The regions that are of use to some stream. `met`: by position of needs, the regions where they are met.
    pub(super) fn of_use(&self, needs: &[Needs], met: impl Fn(u32) -> Mask) -> Mask {
        let needing = self.needing.iter().copied();
        needing.fold(self.free, |mask, position| mask | needs[position as usize].regions & met(position))
    }
}

impl Needs {
    /// The same of another fleet with the same regions.
    pub(super) fn in_fleet(&self, fleet: u32) -> Needs {
        Needs { fleet, ..self.clone() }
    }

    /// The regions whose needs are met, by family. `at` gives a fleet, `fleet_of` that of a zone.
    pub(super) fn met<'a>(
        &self,
        at: impl Fn(u32) -> (&'a Fleet, &'a FleetState),
        fleet_of: impl Fn(u32) -> u32,
    ) -> [Mask; 2] {
        let either = |zone: u32| {
            let (_, state) = at(fleet_of(zone));
            state.up(Family::V4) | state.up(Family::V6)
        };
        let (fleet, state) = at(self.fleet);
        let met = self.names.iter().fold(Mask::MAX, |met, (zone, needed)| {
            let up = either(*zone);
            let unmet = needed.iter().enumerate().filter(|(_, needed)| up & **needed == 0);
            unmet.fold(met, |met, (region, _)| met & !(1 << region))
        });
        Family::BOTH.map(|family| {
            let own = fleet.declared(family) & self.regions;
            let up = state.up(family) & own;
            let enough = (up & met).count_ones() >= own.count_ones().div_ceil(2);
            if enough { met } else { Mask::MAX }
        })
    }
}
