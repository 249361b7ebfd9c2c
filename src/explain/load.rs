//! What load and prices had to do with a choice.

use serde::{Deserialize, Serialize};

use crate::answer::trace::{Choosing, Standing};
use crate::pilot::View;
use crate::pilot::view::{MarketView, RegionView};
use crate::snapshot::Snapshot;

/// Of a region of a stream that is steered by load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadFacts {
    /// Added to the cost of the region because it is full; 0 where there is room.
    pub price_ms: f64,
    /// The part of this cell's viewers that the plan sends there, 0 to 1.
    pub share: f64,
    /// Sessions now, as reported or predicted.
    pub sessions: Option<f64>,
    /// Sessions that count as its capacity now.
    pub capacity: Option<f64>,
    /// `fresh`, `predicted`, `doubtful`, `poor`, `lost` or `never reported`: how old the reports of its load are.
    pub reports: String,
}

/// The market that a stream is of, and its regions there.
pub struct Prices<'a> {
    pub market: &'a MarketView,
    fleet: u32,
}

impl<'a> Prices<'a> {
    /// `None`: the stream is not steered by load.
    pub fn of(view: &'a View, snapshot: &Snapshot, choosing: &Choosing<'_>) -> Option<Prices<'a>> {
        let group = choosing.stream.group;
        let market = view.markets.iter().find(|market| market.groups.contains(&group))?;
        Some(Prices { market, fleet: snapshot.groups()[group as usize].fleet })
    }

    pub fn region(&self, region: u8) -> Option<&'a RegionView> {
        self.market.regions.iter().find(|known| known.uses.contains(&(self.fleet, region)))
    }

    pub fn facts(&self, standing: &Standing, ranking: &[Standing]) -> Option<LoadFacts> {
        let region = self.region(standing.ranked.region)?;
        Some(LoadFacts {
            price_ms: region.price_ms,
            share: share(standing, ranking),
            sessions: region.sessions,
            capacity: region.counted.or(region.capacity),
            reports: region.trust.word().to_owned(),
        })
    }
}

/// The part of the first tier's weight that a region has.
pub fn share(standing: &Standing, ranking: &[Standing]) -> f64 {
    let Some(end) = ranking.first().map(|first| first.ranked.tier_end) else { return 0.0 };
    if standing.ranked.tier_end != end {
        return 0.0;
    }
    let tier = ranking.iter().take(usize::from(end));
    let whole: f64 = tier.map(|standing| f64::from(standing.ranked.weight)).sum();
    f64::from(standing.ranked.weight) / whole
}
