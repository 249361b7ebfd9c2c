//! Streams that need other streams: a region is no use to a viewer whose login or licence it cannot serve.
//!
//! A region counts for a stream only while the region of the same name is up for each name that the stream needs; where
//! the needed name has no such region, while any of its regions is up. That is a soft reason: it never takes a stream
//! below half of its regions, because a viewer without a licence may still be helped, and one without an address is not.

use std::collections::HashMap;
use std::sync::Arc;

use hickory_proto::rr::Name;

use crate::config::settings::{Family, Zone};
use crate::steering::pick::Mask;

use super::fleet::{Fleet, FleetState};
use super::{Served, SteeredName};

/// What one stream needs.
pub(super) struct Needs {
    zone: u32,
    /// The stream's own regions.
    regions: Mask,
    /// For each needed name: its zone, and by region of the stream's zone the regions there of which one must be up.
    names: Vec<(u32, Box<[Mask]>)>,
}

/// The needs of all streams, and for each stream its position among them.
pub(super) fn compile(zones: &[Served], streams: &mut [SteeredName]) -> Vec<Needs> {
    let owner = |stream: &SteeredName| &zones[stream.zone as usize].zone.streams[stream.stream as usize].owner;
    let by_owner: HashMap<&Name, usize> = streams.iter().enumerate().map(|(at, stream)| (owner(stream), at)).collect();
    let mut all = Vec::new();
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
            let needs = Needs { zone: stream.zone, regions: stream.regions, names };
            streams[position].needs = Some(all.len() as u32);
            all.push(needs);
        }
    }
    all
}

/// What the streams of one zone make of its regions.
pub(super) struct Uses {
    /// Regions that a stream without needs uses.
    free: Mask,
    /// Positions among the needs.
    needing: Vec<u32>,
}

/// By zone that has needs.
pub(super) fn uses(streams: &[SteeredName]) -> HashMap<u32, Uses> {
    let mut uses: HashMap<u32, Uses> = HashMap::new();
    for stream in streams {
        if let Some(needs) = stream.needs {
            let of_zone = uses.entry(stream.zone).or_insert(Uses { free: 0, needing: vec![] });
            of_zone.needing.push(needs);
        }
    }
    for stream in streams.iter().filter(|stream| stream.needs.is_none()) {
        if let Some(of_zone) = uses.get_mut(&stream.zone) {
            of_zone.free |= stream.regions;
        }
    }
    uses
}

impl Uses {
    /// The regions that are of use to some stream, `met` by the needs of all streams.
    pub(super) fn of_use(&self, needs: &[Needs], met: &[[Mask; 2]], family: Family) -> Mask {
        let needing = self.needing.iter().map(|position| *position as usize);
        needing.fold(self.free, |mask, position| mask | needs[position].regions & met[position][family as usize])
    }
}

impl Needs {
    /// The regions whose needs are met, by family.
    pub(super) fn met(&self, fleets: &[Fleet], states: &[Arc<FleetState>]) -> [Mask; 2] {
        let either = |zone: u32| states[zone as usize].up(Family::V4) | states[zone as usize].up(Family::V6);
        let met = self.names.iter().fold(Mask::MAX, |met, (zone, needed)| {
            let up = either(*zone);
            let unmet = needed.iter().enumerate().filter(|(_, needed)| up & **needed == 0);
            unmet.fold(met, |met, (region, _)| met & !(1 << region))
        });
        Family::BOTH.map(|family| {
            let own = fleets[self.zone as usize].declared(family) & self.regions;
            let up = states[self.zone as usize].up(family) & own;
            let enough = (up & met).count_ones() >= own.count_ones().div_ceil(2);
            if enough { met } else { Mask::MAX }
        })
    }
}
