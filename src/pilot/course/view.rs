//! What others may know of a course.

use std::sync::Arc;

use crate::load::{State, Trust};

use super::super::flow::Flow;
use super::super::view::{MarketView, RegionView, Scaling};
use super::{Course, HORIZON_S};

impl Course {
    pub fn view(&self) -> MarketView {
        let count = self.market.regions.len();
        let rates = self.published.rates(&self.demand, count);
        let unconstrained = self.market.nearest(!self.condition.closed).rates(&self.demand, count);
        let scales = self.region_scales();
        let region = |column: usize| {
            let (region, flow) = (&self.market.regions[column], &self.flows[column]);
            let state = self.states.get(column);
            let supply = self.supply.get(column);
            let counted = supply.and_then(|supply| Some(supply.capacity? * supply.part));
            let sessions = state.and_then(State::load);
            RegionView {
                id: region.id,
                name: Arc::clone(&region.name),
                uses: region.uses.clone(),
                sessions,
                capacity: region.capacity,
                counted,
                trust: state.map_or(Trust::Never, |state| state.trust),
                majority: state.map_or(Trust::Never, |state| state.majority),
                closed: self.condition.closed >> column & 1 == 1,
                utilization: sessions.zip(counted.filter(|counted| *counted > 0.0)).map(|(l, k)| l / k),
                planned: supply.and_then(|supply| supply.forecast(rates[column], HORIZON_S)),
                price_ms: self.solution.as_ref().map_or(0.0, |solution| solution.prices[column]),
                rate: rates[column],
                unconstrained_rate: unconstrained[column],
                dwell_s: flow.dwell_s(),
                scale: scales[column],
                scaling: Scaling::default(),
            }
        };
        let solution = self.solution.as_ref();
        MarketView {
            stage: self.stage,
            regions: (0..count).map(region).collect(),
            groups: self.market.groups.iter().map(|member| member.group).collect(),
            certificate: self.certificate(),
            converged: solution.is_some_and(|solution| solution.converged),
            cold: solution.is_some_and(|solution| solution.cold),
            iterations: solution.map_or(0, |solution| solution.iterations),
            is_length_known: self.flows.iter().any(Flow::is_taught),
            demand: self.demand.iter().sum(),
            moved: self.moved,
            at: self.stepped,
        }
    }
}
