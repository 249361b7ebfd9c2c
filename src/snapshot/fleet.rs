//! The regions of one zone, and what of them is up.
//!
//! A [`Fleet`] is what the zone file says; a [`FleetState`] is what the verdicts make of it, with the addresses to give
//! already in wire form. A verdict rebuilds the state of the fleets that use its target and shares the rest.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::settings::{Family, MAX_ANSWERS, Zone};
use crate::health::Verdict;
use crate::steering::pick::Mask;

use super::TargetId;

/// The record types of steered addresses, as on the wire.
const TYPE: [u16; 2] = [1, 28];

pub struct Fleet {
    regions: Vec<[Members; 2]>,
    /// The distinct numbers of addresses that answers of this zone hold.
    answers: Vec<u8>,
    /// Position in `answers`.
    slot_of: [u8; MAX_ANSWERS + 1],
    declared: [Mask; 2],
}

/// A region's servers that have an address of one family.
#[derive(Default)]
struct Members {
    servers: Vec<Member>,
    /// Fewer up than this: the region is down for the family.
    min_up: usize,
}

/// One address of a region.
pub struct Member {
    pub address: IpAddr,
    pub weight: u16,
    /// `None`: not probed, always up.
    pub target: Option<TargetId>,
    /// Position among the region's servers.
    pub server: usize,
}

impl Member {
    pub fn verdict(&self, verdicts: &[Verdict]) -> Option<Verdict> {
        self.target.map(|target| verdicts[target.0 as usize])
    }

    fn is_up(&self, verdicts: &[Verdict]) -> bool {
        self.verdict(verdicts).is_none_or(Verdict::is_up)
    }
}

impl Fleet {
    /// `target` gives the probe of a server's address (region, server, family).
    pub(super) fn new(zone: &Zone, mut target: impl FnMut(usize, usize, Family) -> Option<TargetId>) -> Fleet {
        let mut answers: Vec<u8> = (zone.streams.iter())
            .flat_map(|stream| std::iter::once(&stream.steering).chain(stream.rules.iter().map(|rule| &rule.steering)))
            .map(|steering| steering.answers)
            .collect();
        answers.sort_unstable();
        answers.dedup();
        let mut slot_of = [0; MAX_ANSWERS + 1];
        for (slot, &count) in answers.iter().enumerate() {
            slot_of[usize::from(count)] = slot as u8;
        }
        let mut declared = [0; 2];
        let mut regions = Vec::with_capacity(zone.regions.len());
        for (r, region) in zone.regions.iter().enumerate() {
            let members = Family::BOTH.map(|family| {
                let servers: Vec<Member> = (region.servers.iter().enumerate())
                    .filter_map(|(s, server)| {
                        let address = server.address(family)?;
                        Some(Member { address, weight: server.weight.get(), target: target(r, s, family), server: s })
                    })
                    .collect();
                let half = servers.len().div_ceil(2);
                let min_up = region.min_up.map_or(half, |least| (least as usize).min(servers.len())).max(1);
                Members { servers, min_up }
            });
            for family in Family::BOTH {
                declared[family as usize] |= Mask::from(!members[family as usize].servers.is_empty()) << r;
            }
            regions.push(members);
        }
        Fleet { regions, answers, slot_of, declared }
    }

    /// The regions that have an address of the family.
    pub fn declared(&self, family: Family) -> Mask {
        self.declared[family as usize]
    }

    pub fn members(&self, region: u8, family: Family) -> &[Member] {
        &self.regions[usize::from(region)][family as usize].servers
    }

    /// Fewer up servers than this and the region is down for the family.
    pub fn min_up(&self, region: u8, family: Family) -> usize {
        self.regions[usize::from(region)][family as usize].min_up
    }

    fn rings_at(&self, region: usize, family: Family) -> usize {
        (region * 2 + family as usize) * self.answers.len()
    }
}

/// What verdicts make of a fleet.
#[derive(Clone)]
pub struct FleetState {
    up: [Mask; 2],
    /// By region, family and number of answers.
    rings: Box<[Arc<Ring>]>,
}

impl FleetState {
    pub(super) fn new(fleet: &Fleet, verdicts: &[Verdict]) -> FleetState {
        let rings = fleet.regions.len() * 2 * fleet.answers.len();
        let mut state = FleetState { up: [0; 2], rings: vec![Arc::default(); rings].into() };
        for region in 0..fleet.regions.len() {
            state.refresh(fleet, region, verdicts);
        }
        state
    }

    /// Judges one region anew.
    pub(super) fn refresh(&mut self, fleet: &Fleet, region: usize, verdicts: &[Verdict]) {
        for family in Family::BOTH {
            let Members { servers, min_up } = &fleet.regions[region][family as usize];
            let up: Vec<&Member> = servers.iter().filter(|member| member.is_up(verdicts)).collect();
            let bit = 1 << region;
            self.up[family as usize] &= !bit;
            if !servers.is_empty() && up.len() >= *min_up {
                self.up[family as usize] |= bit;
            }
            // A region where nothing is up is given only when all are down, and then as if it were up.
            let given = if up.is_empty() { servers.iter().collect() } else { up };
            let first = fleet.rings_at(region, family);
            for (slot, &answers) in fleet.answers.iter().enumerate() {
                self.rings[first + slot] = Arc::new(Ring::new(family, &given, answers));
            }
        }
    }

    /// The regions of which enough servers are up.
    pub fn up(&self, family: Family) -> Mask {
        self.up[family as usize]
    }

    /// The addresses to give for a region, `answers` at a time.
    pub fn ring(&self, fleet: &Fleet, region: u8, family: Family, answers: u8) -> &Ring {
        let slot = fleet.slot_of[usize::from(answers)];
        &self.rings[fleet.rings_at(usize::from(region), family) + usize::from(slot)]
    }
}

/// The servers of a region that may be given, in a fixed order; an answer is a window of neighbours.
#[derive(Default)]
pub struct Ring {
    /// Records with the owner pointing at the question and TTL 0; the first ones stand again behind the last, so that
    /// every window is one slice.
    records: Box<[u8]>,
    record_len: usize,
    servers: usize,
    window: usize,
    /// Sums of the weights up to each server; empty where all weigh the same.
    sums: Box<[u32]>,
}

impl Ring {
    fn new(family: Family, given: &[&Member], answers: u8) -> Ring {
        let window = usize::from(answers).min(given.len());
        let mut records = Vec::new();
        for member in given.iter().cycle().take((given.len() + window).saturating_sub(1)) {
            records.extend_from_slice(&[0xC0, 0x0C]);
            records.extend_from_slice(&TYPE[family as usize].to_be_bytes());
            records.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
            match member.address {
                IpAddr::V4(address) => records.extend_from_slice(&[&[0, 4][..], &address.octets()].concat()),
                IpAddr::V6(address) => records.extend_from_slice(&[&[0, 16][..], &address.octets()].concat()),
            }
        }
        let uneven = given.iter().any(|member| member.weight != given[0].weight);
        let mut sum = 0;
        let sums = given.iter().filter(|_| uneven).map(|member| {
            sum += u32::from(member.weight);
            sum
        });
        let sums = sums.collect();
        let record_len = if family == Family::V4 { 16 } else { 28 };
        Ring { records: records.into(), record_len, servers: given.len(), window, sums }
    }

    /// Position of the first server of the window for `key`: in proportion to the weights.
    pub fn position(&self, key: u64) -> usize {
        // The upper half times the range, shifted back: a fair share without a division.
        let scaled = |range: u32| (((key >> 32) * u64::from(range)) >> 32) as u32;
        match self.sums.last() {
            None => scaled(self.servers as u32) as usize,
            Some(&total) => {
                let point = scaled(total);
                self.sums.partition_point(|&sum| sum <= point)
            }
        }
    }

    /// The records of the window that begins at a position.
    pub fn window(&self, position: usize) -> &[u8] {
        &self.records[position * self.record_len..(position + self.window) * self.record_len]
    }

    /// Records in a window.
    pub fn answers(&self) -> usize {
        self.window
    }

    /// Bytes of one record.
    pub fn record_len(&self) -> usize {
        self.record_len
    }

    /// Whether clients of one region get different addresses.
    pub fn is_spread(&self) -> bool {
        self.servers > self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(weights: &[u16]) -> Vec<Member> {
        let member = |(n, &weight): (usize, &u16)| Member {
            address: IpAddr::from([192, 0, 2, n as u8]),
            weight,
            target: None,
            server: n,
        };
        weights.iter().enumerate().map(member).collect()
    }

    fn last_octets(window: &[u8]) -> Vec<u8> {
        window.chunks(16).map(|record| record[15]).collect()
    }

    #[test]
    fn windows_wrap_around_the_ring() {
        let members = members(&[1, 1, 1]);
        let ring = Ring::new(Family::V4, &members.iter().collect::<Vec<_>>(), 2);
        let windows: Vec<_> = (0..3).map(|position| last_octets(ring.window(position))).collect();
        assert_eq!(windows, [[0, 1], [1, 2], [2, 0]]);
        assert!(ring.is_spread());
    }

    #[test]
    fn fewer_servers_than_answers_give_them_all() {
        let members = members(&[1]);
        let ring = Ring::new(Family::V4, &members.iter().collect::<Vec<_>>(), 4);
        assert_eq!((ring.answers(), ring.is_spread()), (1, false));
        assert_eq!(ring.position(u64::MAX), 0);
    }

    #[test]
    fn the_first_address_follows_the_weights() {
        let members = members(&[1, 2, 5]);
        let ring = Ring::new(Family::V4, &members.iter().collect::<Vec<_>>(), 1);
        let mut count = [0; 3];
        for key in 0..80_000 {
            count[ring.position(crate::steering::key::mix(key))] += 1;
        }
        for (server, expected) in [10_000i32, 20_000, 50_000].into_iter().enumerate() {
            assert!((count[server] - expected).abs() < 600, "{count:?}");
        }
    }
}
