//! What the size of a region is reckoned from, and the solver does not need: its servers, and what would come here if another
//! region went away.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Demand;
use super::market::{Market, MarketRegion};
use super::scale::ADMIT;
use super::view::Scaling;
use crate::config::settings::Family;
use crate::load::State;
use crate::snapshot::Snapshot;
use crate::steering::pick::Mask;
use crate::steering::solve::Supply;

/// How often what losses would bring is reckoned anew: a look at all rows, where nothing waits for it.
const LOOK_AT_LOSSES: Duration = Duration::from_secs(10);

/// What is known of demand.
pub struct Rates<'a> {
    /// Queries/s by row.
    pub asked: &'a [f64],
    /// Queries/s by column that the plan does not steer.
    pub fixed: &'a [f64],
    /// Starts/s by row.
    pub started: &'a [f64],
    pub demand: &'a dyn Demand,
}

/// Of one market.
#[derive(Default)]
pub struct Sizes {
    /// When [`Market::inherited`] was last asked, with which regions open, and what it said.
    inherited: Option<(Instant, Mask, Vec<f64>)>,
    /// By column: see [`Scaling::ahead`].
    ahead: Vec<Option<f64>>,
    /// By column: servers that are up.
    servers_up: Vec<u32>,
}

impl Sizes {
    /// Once a step. `calm`: what is asked is what viewers want.
    pub fn look(
        &mut self,
        market: &Market,
        snapshot: &Snapshot,
        open: Mask,
        rates: Rates<'_>,
        calm: bool,
        now: Instant,
    ) {
        let up = |region: &MarketRegion| region.uses.first().map_or(0, |&(fleet, at)| servers_up(snapshot, fleet, at));
        self.servers_up.clear();
        self.servers_up.extend(market.regions.iter().map(up));
        let fresh = |at: Instant| now.saturating_duration_since(at) < LOOK_AT_LOSSES;
        if !self.inherited.as_ref().is_some_and(|(at, of, _)| *of == open && fresh(*at)) {
            self.inherited = Some((now, open, market.inherited(open, rates.started)));
            if calm {
                self.ahead = foresee(market, snapshot, open, &rates);
            }
        }
    }

    /// Of one column. `horizon`: how far ahead loads are planned, s.
    pub fn scaling(
        &self,
        market: &Market,
        column: usize,
        state: Option<&State>,
        supply: Option<&Supply>,
        horizon: f64,
    ) -> Scaling {
        let (region, count) = (&market.regions[column], market.regions.len());
        let servers_up = self.servers_up.get(column).copied().unwrap_or(0);
        // What is reported is of the servers that are up.
        let reported = || Some(state.filter(|_| servers_up > 0)?.nominal? / f64::from(servers_up));
        let written = region.capacity.map(|capacity| capacity / f64::from(region.servers.max(1)));
        let worst_loss = self.inherited.as_ref().and_then(|(_, open, rates)| {
            let others = (0..count).filter(|lost| *lost != column && open >> lost & 1 == 1);
            let (lost, rate) =
                others.map(|lost| (lost, rates[lost * count + column])).max_by(|a, b| a.1.total_cmp(&b.1))?;
            Some((Arc::clone(&market.regions[lost].name), rate))
        });
        Scaling {
            zones: region.zones.clone(),
            servers: region.servers,
            servers_up,
            server_capacity: written.or_else(reported),
            fixed_rate: supply.map_or(0.0, |supply| supply.fixed),
            worst_loss,
            ahead: self.ahead.get(column).copied().flatten(),
            admission: supply.and_then(|supply| supply.admits(ADMIT, horizon)),
        }
    }
}

/// By column, how many times as much is foreseen as is asked now, both sent to the nearest region that is open.
fn foresee(market: &Market, snapshot: &Snapshot, open: Mask, rates: &Rates<'_>) -> Vec<Option<f64>> {
    let demand = rates.demand;
    if market.groups.iter().all(|member| demand.ahead(member.group).is_none()) {
        return vec![];
    }
    let count = market.regions.len();
    let nearest = market.nearest(open);
    let mut rows = vec![];
    let then = market.demand(snapshot, |group| demand.ahead(group).or_else(|| demand.by_cell(group)), &mut rows);
    let (now, ahead) = (nearest.rates(rates.asked, count), nearest.rates(&rows, count));
    let ratio = |column: usize| {
        let (now, ahead) = (now.get(column)? + rates.fixed[column], ahead.get(column)? + then[column]);
        Some(ahead / now).filter(|ratio| now > 0.0 && ratio.is_finite())
    };
    (0..count).map(ratio).collect()
}

/// Servers of a region that are up, by either family.
fn servers_up(snapshot: &Snapshot, fleet: u32, region: u8) -> u32 {
    let (fleet, state) = snapshot.fleet_at(fleet);
    let up = Family::BOTH.into_iter().flat_map(|family| {
        let members = fleet.members(region, family).iter();
        let up = members.filter(move |member| state.is_up(usize::from(region), family, member, snapshot.verdicts()));
        up.map(|member| member.server)
    });
    up.collect::<HashSet<_>>().len() as u32
}
