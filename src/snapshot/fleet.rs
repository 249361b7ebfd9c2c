//! The regions of a zone, and what of them is up.
//!
//! A [`Fleet`] is what the zone file says, of one zone or of many that say the same; a [`FleetState`] is what verdicts, the operator's word and ramps make of it,
//! with the addresses to give already in wire form. A verdict rebuilds the state of the fleets that use its target and
//! shares the rest.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::settings::{Family, MAX_ANSWERS, Zone};
use crate::health::Verdict;
use crate::steering::pick::{Mask, Open};

use super::TargetId;
use super::ring::Ring;
use super::standing::{Forced, Mode, Share, Standing};

pub struct Fleet {
    regions: Vec<[Members; 2]>,
    /// The distinct numbers of addresses that answers of this zone hold.
    answers: Vec<u8>,
    /// Position in `answers`.
    slot_of: [u8; MAX_ANSWERS + 1],
    declared: [Mask; 2],
    /// The distinct sets of regions that are the streams' own.
    sets: Vec<Mask>,
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
        let mut sets: Vec<Mask> = zone.streams.iter().map(|stream| stream.steering.mask()).collect();
        sets.sort_unstable();
        sets.dedup();
        Fleet { regions, answers, slot_of, declared, sets }
    }

    /// The distinct sets of regions that are some stream's own.
    pub fn sets(&self) -> &[Mask] {
        &self.sets
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

/// What verdicts and standings make of a fleet.
#[derive(Clone)]
pub struct FleetState {
    /// By region.
    standings: Box<[Standing]>,
    /// Regions of which enough servers are up, when softly down ones count as down, and when they count as up.
    strictly: [Mask; 2],
    leniently: [Mask; 2],
    /// Soft reasons would take too many regions, so they do not count.
    panic: [bool; 2],
    /// Regions that the operator forced down.
    banned: Mask,
    open: Open,
    /// The same, but whoever takes a part counts as taking all.
    open_whole: Open,
    /// Answers of these get the short TTL.
    brief: Mask,
    /// By region, family and number of answers.
    rings: Box<[Arc<Ring>]>,
}

impl FleetState {
    pub(super) fn new(fleet: &Fleet, verdicts: &[Verdict]) -> FleetState {
        let regions = fleet.regions.len();
        let mut state = FleetState {
            standings: vec![Standing::default(); regions].into(),
            strictly: [0; 2],
            leniently: [0; 2],
            panic: [false; 2],
            banned: 0,
            open: Open::all(regions),
            open_whole: Open::all(regions),
            brief: 0,
            rings: vec![Arc::default(); regions * 2 * fleet.answers.len()].into(),
        };
        state.refresh(fleet, 0..regions, verdicts);
        state
    }

    /// What holds of a region besides the verdicts.
    pub fn standing(&self, region: u8) -> &Standing {
        &self.standings[usize::from(region)]
    }

    /// Whether servers come or go by it, so that [`FleetState::refresh`] of the region has to follow.
    #[must_use]
    pub(super) fn set_standing(&mut self, region: usize, standing: Standing) -> bool {
        let bit = 1 << region;
        let set = |mask: &mut Mask, on: bool| if on { *mask |= bit } else { *mask &= !bit };
        set(&mut self.banned, standing.forced == Some(Forced::Down));
        let moving = matches!(standing.mode, Mode::Ramping | Mode::Frozen | Mode::Draining);
        set(&mut self.brief, moving || standing.uncertain);
        self.open.set(region, standing.share);
        self.open_whole.set(region, if standing.share > Share::NONE { Share::FULL } else { Share::NONE });
        let before = std::mem::replace(&mut self.standings[region], standing);
        let now = &self.standings[region];
        (before.forced, &before.servers) != (now.forced, &now.servers)
    }

    /// Judges regions anew.
    pub(super) fn refresh(&mut self, fleet: &Fleet, regions: impl IntoIterator<Item = usize>, verdicts: &[Verdict]) {
        let mut regions: Vec<usize> = regions.into_iter().collect();
        for &region in &regions {
            self.judge(fleet, region, verdicts);
        }
        for family in Family::BOTH {
            let panic = self.panics(fleet, family);
            if std::mem::replace(&mut self.panic[family as usize], panic) != panic {
                // Softly down servers come or go in every region.
                regions = (0..fleet.regions.len()).collect();
            }
        }
        for region in regions {
            self.fill(fleet, region, verdicts);
        }
    }

    fn judge(&mut self, fleet: &Fleet, region: usize, verdicts: &[Verdict]) {
        let forced = self.standings[region].forced;
        for family in Family::BOTH {
            let Members { servers, min_up } = &fleet.regions[region][family as usize];
            let is_up = |soft_counts: bool| match forced {
                _ if servers.is_empty() => false,
                Some(Forced::Up) => true,
                Some(Forced::Down) => false,
                None => {
                    let up = servers.iter().filter(|member| self.gives(region, member, verdicts, soft_counts));
                    up.count() >= *min_up
                }
            };
            let (strictly, leniently) = (is_up(true), is_up(false));
            let family = family as usize;
            self.strictly[family] = self.strictly[family] & !(1 << region) | Mask::from(strictly) << region;
            self.leniently[family] = self.leniently[family] & !(1 << region) | Mask::from(leniently) << region;
        }
    }

    /// Whether a server counts as up. `soft_counts`: also when it is down for a soft reason it is down.
    fn gives(&self, region: usize, member: &Member, verdicts: &[Verdict], soft_counts: bool) -> bool {
        match self.forced(region, member.server) {
            Some(forced) => forced == Forced::Up,
            None => match member.verdict(verdicts) {
                None | Some(Verdict::Unknown | Verdict::Up) => true,
                Some(Verdict::Damped) => !soft_counts,
                Some(Verdict::Down) => false,
            },
        }
    }

    /// Whether a server is given to clients of its region.
    pub fn is_up(&self, region: usize, family: Family, member: &Member, verdicts: &[Verdict]) -> bool {
        self.gives(region, member, verdicts, !self.panic[family as usize])
    }

    /// The operator's word on a server.
    pub fn forced(&self, region: usize, server: usize) -> Option<Forced> {
        let servers = self.standings[region].servers.iter();
        servers.filter(|(position, _)| *position == server).map(|(_, forced)| *forced).next_back()
    }

    /// Soft reasons may not leave fewer than half of the regions.
    fn panics(&self, fleet: &Fleet, family: Family) -> bool {
        let (strictly, leniently) = (self.strictly[family as usize], self.leniently[family as usize]);
        let floor = fleet.declared(family).count_ones().div_ceil(2);
        strictly != leniently && strictly.count_ones() < floor
    }

    fn fill(&mut self, fleet: &Fleet, region: usize, verdicts: &[Verdict]) {
        for family in Family::BOTH {
            let servers = &fleet.regions[region][family as usize].servers;
            let soft_counts = !self.panic[family as usize];
            let mut given: Vec<&Member> =
                servers.iter().filter(|member| self.gives(region, member, verdicts, soft_counts)).collect();
            // A region where nothing is up is given only when all are down (or the operator says so), and then as if
            // it were up; those forced down stay out as long as others are left.
            if given.is_empty() {
                let down = |member: &&Member| self.forced(region, member.server) == Some(Forced::Down);
                given = servers.iter().filter(|member| !down(member)).collect();
            }
            if given.is_empty() {
                given = servers.iter().collect();
            }
            let first = fleet.rings_at(region, family);
            for (slot, &answers) in fleet.answers.iter().enumerate() {
                self.rings[first + slot] = Arc::new(Ring::new(family, &given, answers));
            }
        }
    }

    /// The regions of which enough servers are up.
    pub fn up(&self, family: Family) -> Mask {
        if self.panic[family as usize] { self.leniently[family as usize] } else { self.strictly[family as usize] }
    }

    /// Whether soft reasons do not count now, because too few regions would be left.
    pub fn panic(&self, family: Family) -> bool {
        self.panic[family as usize]
    }

    /// Regions that the operator forced down: not given even when all are down, while another is left.
    pub fn banned(&self) -> Mask {
        self.banned
    }

    /// How much of what they would get the regions take.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// ... where what a ramp or drain leaves of a region is looked after by somebody else.
    pub fn open_whole(&self) -> &Open {
        &self.open_whole
    }

    /// Regions that are on the move or in doubt: whoever is sent there should ask again soon.
    pub fn brief(&self) -> Mask {
        self.brief
    }

    /// The addresses to give for a region, `answers` at a time.
    pub fn ring(&self, fleet: &Fleet, region: u8, family: Family, answers: u8) -> &Ring {
        let slot = fleet.slot_of[usize::from(answers)];
        &self.rings[fleet.rings_at(usize::from(region), family) + usize::from(slot)]
    }
}
