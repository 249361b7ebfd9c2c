//! Costs as they were measured, for who plans.

use std::sync::PoisonError;

use jiff::Timestamp;

use crate::steering::cells::Facts;
use crate::steering::cost::{Costs, Site};
use crate::steering::learn::key::{Key, Square};
use crate::steering::learn::{Changed, Region};

use super::learned::Shared;

/// Seconds after which costs are looked at anew though nothing was told: what was measured ages.
const AGE_S: i64 = 600;
/// Seconds between two looks: prices follow measurements slowly enough.
const PAUSE_S: i64 = 10;

pub struct Measured {
    learned: Shared,
    generation: u64,
    looked: Option<Timestamp>,
    aged: Option<Timestamp>,
}

impl Measured {
    pub fn new(learned: Shared) -> Measured {
        Measured { learned, generation: 0, looked: None, aged: None }
    }

    /// Whether costs may be others than at the last time.
    pub fn look(&mut self, at: Timestamp) -> bool {
        let since = |then: Option<Timestamp>| then.map_or(i64::MAX, |then| at.as_second() - then.as_second());
        if (0..PAUSE_S).contains(&since(self.looked)) {
            return false;
        }
        self.looked = Some(at);
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let (changed, generation) = learned.changed_since(self.generation);
        self.generation = generation;
        let told = match changed {
            Changed::All => true,
            Changed::Levels(levels) => !levels.is_empty(),
        };
        let ages = !learned.is_empty() && !(0..AGE_S).contains(&since(self.aged));
        if told || ages {
            self.aged = Some(at);
        }
        told || ages
    }
}

impl Costs for Measured {
    fn fill(&self, cells: &[Facts], to: &[Site<'_>], out: &mut Vec<f32>) {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.looked.unwrap_or_else(Timestamp::now);
        for facts in cells {
            let key = key(facts);
            out.extend(to.iter().map(|site| learned.cost(&key, &region(site), now).ms as f32));
        }
    }
}

/// A cell, as measurements know it.
pub fn key(facts: &Facts) -> Key {
    let (row, column) = facts.square.unwrap_or_default();
    Key { location: facts.location, square: Square(row, column), country: facts.country, asn: None }
}

fn region<'a>(site: &Site<'a>) -> Region<'a> {
    Region { zone: Some(site.zone), name: site.name, location: site.location }
}
