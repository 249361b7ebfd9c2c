//! Which changes of a region are told: its planned utilisation has crossed a threshold, or another number of servers is
//! desired.
//!
//! A load is above once it reaches the upper threshold, and below once it falls to the lower one; in between it is what it
//! was. What is told is how things are, not how they came to be: what has changed back before it was told is not news, and
//! the first that is known of a region is. Of one region no more is told than once in a while.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::form::RegionForm;
use crate::config::scale::Webhook;
use crate::pilot::scale::Scale;

/// Why something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// The first that is known of it.
    First,
    /// The planned utilisation rose to the upper threshold, or fell to the lower one.
    Above,
    Below,
    /// Another number of servers is desired.
    Desired,
}

/// What is told of a region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    pub because: Vec<Because>,
    #[serde(flatten)]
    pub region: RegionForm,
}

/// As a region was when it was last told of.
#[derive(Clone, Copy, Debug)]
struct Known {
    is_above: bool,
    desired: u32,
    at: Instant,
}

pub struct Watch {
    above: f64,
    below: f64,
    every: Duration,
    /// By name. No more than there are regions; `is_above` as it is now.
    regions: HashMap<String, (bool, Option<Known>)>,
}

impl Watch {
    pub fn new(webhook: &Webhook) -> Watch {
        Watch { above: webhook.above, below: webhook.below, every: webhook.every, regions: HashMap::new() }
    }

    /// What is to be told now, by region.
    pub fn look(&mut self, scale: &Scale, now: Instant) -> BTreeMap<String, Told> {
        let named = scale.named();
        let mut news = BTreeMap::new();
        let mut before = std::mem::take(&mut self.regions);
        for (name, region) in named {
            let (mut is_above, mut told) = before.remove(&name).unwrap_or_default();
            // Of what is not known nothing is told; it is as it was.
            if let Ok(size) = &region.size {
                is_above = match size.planned {
                    Some(planned) if planned >= self.above => true,
                    Some(planned) if planned <= self.below => false,
                    _ => is_above,
                };
                let desired = size.desired.now;
                let because = self.because(told, is_above, desired, now);
                if !because.is_empty() {
                    told = Some(Known { is_above, desired, at: now });
                    news.insert(name.clone(), Told { because, region: RegionForm::of(size) });
                }
            }
            self.regions.insert(name, (is_above, told));
        }
        news
    }

    fn because(&self, told: Option<Known>, is_above: bool, desired: u32, now: Instant) -> Vec<Because> {
        let Some(known) = told else {
            return [Some(Because::First), is_above.then_some(Because::Above)].into_iter().flatten().collect();
        };
        if now.saturating_duration_since(known.at) < self.every {
            return vec![];
        }
        let crossed = (is_above != known.is_above).then_some(if is_above { Because::Above } else { Because::Below });
        let other = (desired != known.desired).then_some(Because::Desired);
        crossed.into_iter().chain(other).collect()
    }
}

#[cfg(test)]
pub mod tests;
