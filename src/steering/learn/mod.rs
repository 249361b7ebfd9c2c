//! Costs learned from measured round-trip times (STEERING §4). Pure: time is passed in. Knows no DNS.
//!
//! ```text
//! prior  8 + 0.020·km + pen(country → region) + pen(ASN → region)                 penalties: median residuals
//! levels prior → (country, ASN) → (ASN, metro) → cell      ln μ_l = (n·m + k·ln μ_(l−1)) / (n + k),  k = 10
//! cost   μ + 400·max(0, loss − 0.005)                      m = log of the level's median, n ≤ 500, half-life 6 h
//! ```
//!
//! An imported table stands before the samples of the same level: it is what the samples are shrunk to.
//!
//! What one source can do is bounded. A client prefix (/24, /48) counts 6 times a minute and holds 2 samples, or a tenth
//! of a well-known cell; as a level of fewer than 5 samples is ignored, one prefix is always a minority of what counts,
//! and the median stays among what the others measured. A reporter that was not the first to speak of a place holds two
//! fifths at most. Whoever speaks, samples take a cost no further than a factor of four from what it would be without.
//!
//! * [`key`]: places and levels by what survives a reload. [`sketch`], [`slot`]: what is kept of a level's samples.
//! * [`feed`]: the door. [`cost`]: what comes out.
//! * [`table`]: imported values. [`saved`]: over a restart.

pub mod cost;
pub mod feed;
pub mod key;
pub mod saved;
pub mod sketch;
pub mod slot;
pub mod table;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::geo::Point;

pub use cost::Cost;
use feed::Doors;
pub use feed::{Refused, Sample};
pub use key::{Block, Key, Level, Reporter};
pub use saved::Saved;
use slot::Slot;
pub use table::Table;

/// Pairs of level and region that are kept; those fed longest ago go first. 350 bytes each at worst, so 70 MB.
pub const MAX_SLOTS: usize = 200_000;
/// Names of regions that are told apart.
pub const MAX_REGIONS: usize = 4096;
/// A level that was not fed for so long is dropped (STEERING §4: 7 days), s.
const DROP_S: i64 = 7 * 86_400;
/// Widths of bins: logarithms of ms, and ms.
const LOG_BIN: f64 = 0.03;
const RESIDUAL_BIN_MS: f64 = 2.0;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
type Set<T> = HashSet<T, foldhash::fast::RandomState>;

/// A region as samples and plans name it.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    /// In lower case, without the final dot. `None`: whatever zone has a region of this name.
    pub zone: Option<&'a str>,
    pub name: &'a str,
    pub location: Option<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct RegionId(u32);

/// A region's own samples, and those given for all regions of its name.
#[derive(Clone, Copy, Debug, Default)]
struct Ids {
    own: Option<RegionId>,
    any: Option<RegionId>,
}

/// `None` as zone: samples given without one.
type Name = (Option<Arc<str>>, Arc<str>);

/// All that was learned.
#[derive(Debug)]
pub struct Learned {
    regions: HashMap<Name, RegionId>,
    next_region: u32,
    slots: Map<(Level, RegionId), Slot>,
    doors: Doors,
    table: Table,
    /// Raised with every change.
    version: u64,
}

impl Default for Learned {
    fn default() -> Learned {
        Learned::new()
    }
}

impl Learned {
    pub fn new() -> Learned {
        Learned {
            regions: HashMap::new(),
            next_region: 0,
            slots: Map::default(),
            doors: Doors::default(),
            table: Table::default(),
            version: 0,
        }
    }

    /// Takes an imported table in place of the one before. Costs nothing of the samples.
    pub fn import(&mut self, table: Table) {
        if table != self.table {
            self.table = table;
            self.version += 1;
        }
    }

    /// Drops what was not fed for seven days. To be called now and then: once a minute is often enough.
    pub fn expire(&mut self, now: Timestamp) {
        let now = now.as_second();
        let before = self.slots.len();
        self.slots.retain(|_, slot| now.saturating_sub(slot.at) < DROP_S);
        if self.slots.len() < before {
            let used: Set<RegionId> = self.slots.keys().map(|(_, region)| *region).collect();
            self.regions.retain(|_, id| used.contains(id));
            self.version += 1;
        }
        self.doors.expire(now);
    }

    /// Another one after every change. What only ages is no change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Pairs of level and region that are kept.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.table.is_empty()
    }

    /// Whether somebody measured of late; tables do not count.
    pub fn has_samples(&self) -> bool {
        !self.slots.is_empty()
    }

    fn ids(&self, region: &Region<'_>) -> Ids {
        if self.regions.is_empty() {
            return Ids::default();
        }
        let name: Arc<str> = region.name.into();
        let find = |zone: Option<Arc<str>>| self.regions.get(&(zone, Arc::clone(&name))).copied();
        Ids { own: region.zone.and_then(|zone| find(Some(zone.into()))), any: find(None) }
    }

    fn intern(&mut self, region: &Region<'_>) -> Option<RegionId> {
        let name = (region.zone.map(Arc::from), Arc::from(region.name));
        if let Some(&known) = self.regions.get(&name) {
            return Some(known);
        }
        if self.regions.len() >= MAX_REGIONS {
            return None;
        }
        // 2^32 names within the life of a process would take years of floods by somebody with a token.
        let id = RegionId(self.next_region);
        self.next_region = self.next_region.checked_add(1)?;
        self.regions.insert(name, id);
        Some(id)
    }

    /// Makes room when there are too many: a sixteenth at once, so that the search is seldom.
    fn make_room(&mut self) {
        if self.slots.len() <= MAX_SLOTS {
            return;
        }
        let mut times: Vec<i64> = self.slots.values().map(|slot| slot.at).collect();
        let excess = self.slots.len() - MAX_SLOTS + MAX_SLOTS / 16;
        let (_, &mut limit, _) = times.select_nth_unstable(excess);
        let mut over = self.slots.len() - MAX_SLOTS;
        self.slots.retain(|_, slot| {
            // Of those fed in one second as many go as have to.
            let goes = slot.at < limit || (slot.at == limit && over > 0);
            over = over.saturating_sub(usize::from(goes));
            !goes
        });
        self.version += 1;
    }
}

#[cfg(test)]
mod tests;
