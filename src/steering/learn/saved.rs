//! What was learned, as the state directory has it.
//!
//! A line of text for each level and region, so that a full table stays within what a state file may hold. Whatever a
//! file says, what is read from it keeps every bound.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::feed::{MAX_PREFIXES, Said};
use super::key::{Block, Level};
use super::sketch::Sketch;
use super::slot::{MAX_N, Slot};
use super::{Learned, MAX_REGIONS, MAX_SLOTS, RegionId};

/// Levels that are written, those fed last; the file stays below 50 MB.
pub const SAVED_SLOTS: usize = 150_000;
/// Bins of each.
const SAVED_BINS: usize = 12;

/// What `rtt.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    regions: Vec<Named>,
    /// `LEVEL|region|unix seconds|loss n|loss sum|reporter:weight …|bin:weight …`
    levels: Vec<String>,
    /// `block|region|weight|unix seconds`: what each prefix holds.
    prefixes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    zone: Option<Arc<str>>,
    name: Arc<str>,
}

impl Learned {
    pub fn saved(&self) -> Saved {
        let mut slots: Vec<_> = self.slots.iter().collect();
        slots.sort_unstable_by_key(|((level, region), slot)| (std::cmp::Reverse(slot.at), *level, *region));
        slots.truncate(SAVED_SLOTS);
        let mut regions: Vec<Named> = self
            .regions
            .iter()
            .map(|((zone, name), id)| Named { id: id.0, zone: zone.clone(), name: Arc::clone(name) })
            .collect();
        regions.sort_unstable_by_key(|named| named.id);
        let prefixes = self.doors.prefixes.iter();
        Saved {
            regions,
            levels: slots.into_iter().map(|((level, region), slot)| line(*level, *region, slot)).collect(),
            prefixes: prefixes
                .map(|((block, region), said)| format!("{:x}|{}|{:.2}|{}", block.0, region.0, said.weight, said.at))
                .collect(),
        }
    }

    /// What was saved, as far as it makes sense; what is from after `now` is taken to be of now.
    pub fn restored(saved: &Saved, now: Timestamp) -> Learned {
        let now_s = now.as_second();
        let mut learned = Learned::new();
        for named in saved.regions.iter().take(MAX_REGIONS) {
            learned.regions.insert((named.zone.clone(), Arc::clone(&named.name)), RegionId(named.id));
            learned.next_region = learned.next_region.max(named.id.saturating_add(1));
        }
        let known: HashSet<u32> = learned.regions.values().map(|id| id.0).collect();
        for (of, slot) in saved.levels.iter().take(MAX_SLOTS).filter_map(|text| read(text, now_s)) {
            if known.contains(&of.1.0) {
                learned.slots.insert(of, slot);
            }
        }
        for (of, said) in saved.prefixes.iter().take(MAX_PREFIXES).filter_map(|text| read_prefix(text, now_s)) {
            if known.contains(&of.1.0) {
                learned.doors.prefixes.insert(of, said);
            }
        }
        learned.expire(now);
        learned
    }
}

fn line(level: Level, region: RegionId, slot: &Slot) -> String {
    let by: Vec<String> = slot.reporters.iter().map(|(id, weight)| format!("{id:x}:{weight:.2}")).collect();
    let (bins, by) = (slot.sketch.written(SAVED_BINS), by.join(" "));
    format!("{level}|{}|{}|{:.2}|{:.4}|{by}|{bins}", region.0, slot.at, slot.loss_n, slot.loss_sum)
}

fn read(text: &str, now: i64) -> Option<((Level, RegionId), Slot)> {
    let [level, region, at, loss_n, loss_sum, by, bins] = text.splitn(8, '|').collect::<Vec<_>>()[..] else {
        return None;
    };
    let weight = |text: &str| text.parse::<f32>().ok().filter(|weight| (0.0..=MAX_N).contains(weight));
    let reporters = by.split_ascii_whitespace().take(4).map(|word| {
        let (id, held) = word.split_once(':')?;
        Some((u32::from_str_radix(id, 16).ok()?, weight(held)?))
    });
    let mut sketch = Sketch::read(bins)?;
    let total = sketch.total();
    if total > MAX_N {
        sketch.scale(MAX_N / total);
    }
    let (loss_n, loss_sum) = (weight(loss_n)?, weight(loss_sum)?);
    let slot = Slot {
        sketch,
        at: time(at, now)?,
        loss_n,
        loss_sum: loss_sum.min(loss_n * super::slot::MAX_LOSS as f32),
        reporters: reporters.collect::<Option<Vec<_>>>()?,
    };
    Some(((level.parse().ok()?, RegionId(region.parse().ok()?)), slot))
}

/// Within what can be reckoned with.
fn time(text: &str, now: i64) -> Option<i64> {
    text.parse::<i64>().ok().map(|at| at.clamp(0, now.max(0)))
}

fn read_prefix(text: &str, now: i64) -> Option<((Block, RegionId), Said)> {
    let [block, region, weight, at] = text.splitn(5, '|').collect::<Vec<_>>()[..] else { return None };
    let weight: f32 = weight.parse().ok().filter(|weight| (0.0..=MAX_N).contains(weight))?;
    let said = Said::new(weight, time(at, now)?);
    Some(((Block(u64::from_str_radix(block, 16).ok()?), RegionId(region.parse().ok()?)), said))
}
