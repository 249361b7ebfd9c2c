//! Who is served where once all has settled.

use std::sync::Arc;

use crate::config::settings::Policy;
use crate::geo::CellId;
use crate::pilot::market::{Market, MarketGroup};
use crate::steering::dwell;
use crate::steering::pick::{self, Mask};
use crate::steering::solve::{Mix, Problem, Solver, Supply, Table};

use super::demand::{Demand, Viewers};
use super::scene::{RegionKey, Scene, World};

/// Viewers of a world at rest.
pub struct Settled {
    /// By group of the snapshot: sessions.
    pub sessions: Vec<f64>,
    /// By group of the snapshot, by cell: its part of the sessions.
    pub shapes: Vec<Arc<[f64]>>,
    /// By group of the snapshot.
    pub flows: Vec<Flow>,
    /// By region of the world, ms; `None` where it has no capacity, or is not in the scene.
    pub prices: Vec<Option<f64>>,
    /// How far the assignment may be from the best, as a part of it; the worst of the markets.
    pub gap: f64,
}

/// The parts of each cell's viewers that go to each region; none where there is no region left for them.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// By cell, and one more at the end.
    starts: Vec<u32>,
    parts: Vec<(RegionKey, f32)>,
}

impl Flow {
    fn push(&mut self, parts: impl Iterator<Item = (RegionKey, f64)>) {
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        self.parts.extend(parts.map(|(region, part)| (region, part as f32)));
        self.starts.push(self.parts.len() as u32);
    }

    /// Empty for a cell that is not there.
    pub fn cell(&self, cell: usize) -> &[(RegionKey, f32)] {
        match self.starts.get(cell..cell + 2) {
            Some(&[start, end]) => &self.parts[start as usize..end as usize],
            _ => &[],
        }
    }
}

/// What a settled world hangs on besides its scene.
pub struct Terms<'a> {
    pub demand: &'a Demand,
    /// By region of the world: takes nobody.
    pub closed: &'a [bool],
    /// What was published before: viewers stay there where it costs little.
    pub before: Option<(&'a Scene, &'a Settled)>,
}

impl Settled {
    pub fn of(world: &World, scene: &Scene, terms: &Terms<'_>) -> Settled {
        let mut groups: Vec<Option<Viewers>> = vec![None; scene.snapshot.groups().len()];
        for (stream, viewers) in terms.demand {
            if let Some(group) = scene.streams.get(stream) {
                let group = &mut groups[*group as usize];
                *group = Some(group.as_ref().map_or_else(|| viewers.clone(), |so_far| so_far.with(viewers)));
            }
        }
        let nobody = Viewers { sessions: 0.0, shape: scene.weights().into() };
        let (sessions, shapes): (Vec<f64>, Vec<Arc<[f64]>>) = groups
            .into_iter()
            .map(|viewers| viewers.unwrap_or_else(|| nobody.clone()))
            .map(|viewers| (viewers.sessions, viewers.shape))
            .unzip();
        let mut settled = Settled {
            sessions: vec![],
            shapes: vec![],
            flows: vec![Flow::default(); sessions.len()],
            prices: vec![None; world.regions.len()],
            gap: 0.0,
        };
        for (market, keys) in scene.markets.iter().zip(&scene.keys) {
            let part = Part { scene, market, keys, shapes: &shapes, sessions: &sessions };
            part.settle(terms, &mut settled);
        }
        (settled.sessions, settled.shapes) = (sessions, shapes);
        settled
    }
}

/// One market of a scene.
struct Part<'a> {
    scene: &'a Scene,
    market: &'a Market,
    keys: &'a [RegionKey],
    shapes: &'a [Arc<[f64]>],
    sessions: &'a [f64],
}

/// How a cell of a group is served.
enum Way {
    /// By least cost and price: the row.
    Priced(usize),
    /// As policies say, by region of the fleet.
    Fixed(Vec<(u8, f64)>),
}

impl Part<'_> {
    fn settle(&self, terms: &Terms<'_>, settled: &mut Settled) {
        let closed = |column: usize| terms.closed.get(usize::from(self.keys[column])).copied().unwrap_or(false);
        let count = self.market.regions.len();
        let mut demand = vec![0.0; self.market.rows.len()];
        let mut fixed = vec![0.0; count];
        for member in &self.market.groups {
            // All that settles is in proportion to the length of sessions, so any would do.
            let rate = self.sessions[member.group as usize] / dwell::USUAL_S;
            for (cell, weight) in self.shapes[member.group as usize].iter().enumerate() {
                match self.way(member, cell, &closed) {
                    Way::Priced(row) => demand[row] = rate * weight,
                    Way::Fixed(parts) => {
                        for (region, part) in parts {
                            if let Some(column) = member.column(region) {
                                fixed[usize::from(column)] += rate * weight * part;
                            }
                        }
                    }
                }
            }
        }
        let supply: Vec<Supply> = (0..count)
            .map(|column| Supply {
                dwell: dwell::USUAL_S,
                fixed: fixed[column],
                closed: closed(column),
                ..Supply::of(self.market.regions[column].capacity)
            })
            .collect();
        let published = terms.before.map(|(scene, before)| self.published(scene, before));
        let problem = Problem {
            rows: &self.market.rows,
            demand: &demand,
            extra: None,
            supply: &supply,
            published: published.as_ref(),
            horizon: f64::INFINITY,
        };
        let solution = Solver::new().solve(&problem);
        settled.gap = settled.gap.max(solution.certificate.gap);
        for (column, price) in solution.prices.iter().enumerate() {
            let has_price = self.market.regions[column].capacity.is_some();
            settled.prices[usize::from(self.keys[column])] = has_price.then_some(*price);
        }
        for member in &self.market.groups {
            let flow = &mut settled.flows[member.group as usize];
            for cell in 0..self.scene.facts().len() {
                match self.way(member, cell, &closed) {
                    Way::Priced(row) => {
                        let mix = solution.table.row(row);
                        flow.push(mix.parts().map(|(column, part)| (self.keys[usize::from(column)], part)));
                    }
                    Way::Fixed(parts) => {
                        let key = |(region, part)| Some((self.keys[usize::from(member.column(region)?)], part));
                        flow.push(parts.into_iter().filter_map(key));
                    }
                }
            }
        }
    }

    /// As answers go: the regions of the rule or stream by least cost; when none of them is open, or by another policy, the
    /// first that is open of all that the cell may be sent to.
    fn way(&self, member: &MarketGroup, cell: usize, closed: &impl Fn(usize) -> bool) -> Way {
        let plan = &self.scene.snapshot.geography().plans[member.plan as usize];
        let id = CellId(cell as u16);
        let is_open = |region: u8| member.column(region).is_some_and(|column| !closed(usize::from(column)));
        let choice = plan.choice(id);
        if let Some(first) = member.first_row
            && choice.policy == Policy::Nearest
            && choice.options.iter().any(|option| is_open(option.region))
        {
            return Way::Priced(first + cell);
        }
        let ranking = plan.prior.ranking(id);
        let open = ranking.iter().filter(|ranked| is_open(ranked.region));
        let open: Mask = open.fold(0, |mask, ranked| mask | 1 << ranked.region);
        let tier = pick::tier(ranking, open);
        let weights: f64 = tier.clone().map(|ranked| f64::from(ranked.weight)).sum();
        Way::Fixed(tier.map(|ranked| (ranked.region, f64::from(ranked.weight) / weights)).collect())
    }

    /// What was published, in the columns of this market.
    fn published(&self, scene: &Scene, before: &Settled) -> Table {
        let mut rows = vec![Mix::EMPTY; self.market.rows.len()];
        for member in &self.market.groups {
            let Some(first) = member.first_row else { continue };
            let Some(group) = self.group_before(member.group, scene) else { continue };
            let flow = &before.flows[group as usize];
            for cell in 0..self.scene.facts().len() {
                let column = |region| self.keys.iter().position(|key| *key == region).map(|column| column as u8);
                let parts = flow.cell(cell).iter();
                let parts = parts.filter_map(|&(region, part)| Some((column(region)?, f64::from(part))));
                rows[first + cell] = Mix::of(parts);
            }
        }
        Table::new(rows)
    }

    /// The group that one of its streams was of.
    fn group_before(&self, group: u32, before: &Scene) -> Option<u32> {
        if std::ptr::eq(before, self.scene) {
            return Some(group);
        }
        let streams = self.scene.streams.iter().filter(|(_, of)| **of == group);
        streams.filter_map(|(key, _)| before.streams.get(key).copied()).min()
    }
}
