//! Imported values: what an operator's own table of round-trip times says, as levels.
//!
//! A /24 or /48 of it counts as five samples of the levels that it lies in, and no level counts more than 500. They do
//! not age: they hold until the file says otherwise, and samples of the same level are shrunk to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::feed::{PENALTY_MS, RTT_MS};
use super::key::{Key, Level};
use super::sketch::Sketch;
use super::slot::MAX_N;
use super::{LOG_BIN, Map, RESIDUAL_BIN_MS, Region};
use crate::geo::Point;
use crate::steering::cost::predicted_ms;

/// What a /24 or /48 counts.
pub const N_A_BLOCK: f32 = 5.0;

/// Empty where nothing was imported.
#[derive(Debug, Default, PartialEq)]
pub struct Table {
    regions: BTreeMap<Arc<str>, u32>,
    values: Map<(Level, u32), Value>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Value {
    n: f64,
    /// In bins.
    median: f64,
}

/// A table on its way from rows to levels.
#[derive(Default)]
pub struct Builder {
    regions: BTreeMap<Arc<str>, u32>,
    sketches: Map<(Level, u32), Sketch>,
}

impl Builder {
    /// `blocks`: how many /24 or /48 lie there; less than one counts as one. Values outside of what a round trip can be
    /// are left out.
    pub fn add(&mut self, client: &Key, region: &str, location: Option<Point>, ms: f64, blocks: f64) {
        if !RTT_MS.contains(&ms) {
            return;
        }
        let next = self.regions.len() as u32;
        let id = *self.regions.entry(region.into()).or_insert(next);
        let weight = blocks.clamp(1.0, 1e6) as f32;
        let rtt = ms.ln() / LOG_BIN;
        for level in client.levels().chain(client.whole()) {
            self.sketches.entry((level, id)).or_default().add(rtt, weight);
        }
        if let Some((from, to)) = client.location.zip(location) {
            let residual = (ms - predicted_ms(from, to)).clamp(*PENALTY_MS.start(), *PENALTY_MS.end());
            for level in client.penalties() {
                self.sketches.entry((level, id)).or_default().add(residual / RESIDUAL_BIN_MS, weight);
            }
        }
    }

    pub fn finish(self) -> Table {
        let values = self.sketches.into_iter().filter_map(|(of, sketch)| {
            let n = (sketch.total() * N_A_BLOCK).min(MAX_N);
            Some((of, Value { n: n.into(), median: sketch.median()? }))
        });
        Table { regions: self.regions, values: values.collect() }
    }
}

impl Table {
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Levels and regions that have a value.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// n and median in bins.
    pub(super) fn value(&self, level: Level, region: &Region<'_>) -> Option<(f64, f64)> {
        if self.values.is_empty() {
            return None;
        }
        let id = *self.regions.get(region.name)?;
        self.values.get(&(level, id)).map(|value| (value.n, value.median))
    }
}
