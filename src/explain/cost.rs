//! What a region costs a client, in the very figures that the order in force was made of.
//!
//! Two orders are possible. Plain `nearest` knows distance and bias. A plan for the load knows what was learned of the way,
//! bias and money, and adds prices. Either way the parts add up to the cost.

use std::sync::PoisonError;

use jiff::Timestamp;

use super::load::Prices;
use crate::answer::trace::{Choosing, Standing};
use crate::config::settings::Zone;
use crate::control::measured::key;
use crate::steering::learn::{Cost, Learned, Region};
use crate::world::View;

/// A region of the ranking, as the order in force has it.
#[derive(Clone, Debug)]
pub struct Way {
    pub region: u8,
    /// A plan for the load put it where it is.
    pub planned: bool,
    /// `None`: by distance, of which nothing is known.
    pub parts: Option<Cost>,
    pub bias_ms: i32,
    pub money_ms: f64,
    pub distance_km: Option<f64>,
    /// What the way takes by what was learned, ms, where the order does not ask for it.
    pub learned_ms: Option<f64>,
}

impl Way {
    /// Without the price.
    pub fn ms(&self) -> Option<f64> {
        Some(self.parts?.ms() + f64::from(self.bias_ms) + self.money_ms)
    }
}

/// Of every region of the ranking, in its order. `may_be_planned`: whether a plan for the load, where one holds, has a say of a
/// region.
pub fn ways(
    view: &View,
    choosing: &Choosing<'_>,
    zone: &Zone,
    prices: Option<&Prices<'_>>,
    may_be_planned: impl Fn(u8) -> bool,
) -> Vec<Way> {
    let money = money_ms(zone, choosing.stream.regions);
    let way = |standing: &Standing| {
        let region = standing.ranked.region;
        let planned = choosing.solved && may_be_planned(region);
        let learned = Asked { view, choosing, zone, prices, region }.learned();
        let by_distance = standing.cost_ms.map(|cost| cost - f64::from(standing.bias));
        let (parts, money_ms, km) = match learned {
            Some((cost, km)) if planned => (Some(cost), money[usize::from(region)], km),
            _ => (by_distance.map(Cost::of_distance), 0.0, standing.distance_km),
        };
        let is_learned = |cost: &Cost| cost.samples >= 1.0 || cost.country_ms != 0.0 || cost.asn_ms != 0.0;
        let told = learned.filter(|(cost, _)| !planned && is_learned(cost));
        Way {
            region,
            planned,
            parts,
            bias_ms: standing.bias,
            money_ms,
            distance_km: km,
            learned_ms: told.map(|(cost, _)| cost.ms()),
        }
    };
    choosing.ranking.iter().map(way).collect()
}

/// By region of the zone: ms for what it costs more money than the cheapest of those that the stream may use.
fn money_ms(zone: &Zone, used: u64) -> Vec<f64> {
    let Some(money) = &zone.money else { return vec![0.0; zone.regions.len()] };
    let prices: Vec<Option<f64>> =
        zone.regions.iter().zip(0..).map(|(region, bit)| region.cost.filter(|_| used >> bit & 1 == 1)).collect();
    money.extra_ms(&prices)
}

struct Asked<'a> {
    view: &'a View,
    choosing: &'a Choosing<'a>,
    zone: &'a Zone,
    prices: Option<&'a Prices<'a>>,
    region: u8,
}

impl Asked<'_> {
    /// What was learned of the way from the client's cell, and its length in km. As the plan sees it: from the middle of the
    /// cell, and by the name under which the region's market has it.
    fn learned(&self) -> Option<(Cost, Option<f64>)> {
        let snapshot = &self.view.snapshot;
        let facts = snapshot.geography().facts.get(usize::from(self.choosing.cell.0))?;
        let region = &self.zone.regions[usize::from(self.region)];
        let market = self.prices.and_then(|prices| prices.region(self.region));
        let label = match market.and_then(|market| market.uses.first()) {
            Some(&(fleet, _)) => snapshot.sample(fleet).label(),
            None => self.zone.label(),
        };
        let asked = Region { zone: Some(&label), name: &region.name, location: region.location };
        let cost = match &self.view.learned {
            Some(learned) => {
                let learned = learned.lock().unwrap_or_else(PoisonError::into_inner);
                learned.cost(&key(facts), &asked, Timestamp::now())
            }
            None => Learned::new().cost(&key(facts), &asked, Timestamp::now()),
        };
        let km = facts.location.zip(region.location).map(|(client, region)| client.distance_km(region));
        Some((cost, km))
    }
}
