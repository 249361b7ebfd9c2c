//! How many sessions each stream has, and where.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::nearest;
use crate::steering::solve::curve;

use super::recorded::Recorded;
use super::scene::{Scene, StreamKey, World, list};

/// Of a stream whose regions have no capacity, where no total is given.
const PLAIN: f64 = 10_000.0;

/// The viewers of one stream.
#[derive(Clone, Debug)]
pub struct Viewers {
    pub sessions: f64,
    /// By cell: its part of them. The sum is 1, or 0 where nobody is anywhere.
    pub shape: Arc<[f64]>,
}

impl Viewers {
    pub fn times(&self, factor: f64) -> Viewers {
        Viewers { sessions: self.sessions * factor, shape: Arc::clone(&self.shape) }
    }

    /// Both together.
    pub fn with(&self, other: &Viewers) -> Viewers {
        let sessions = self.sessions + other.sessions;
        if Arc::ptr_eq(&self.shape, &other.shape) || other.sessions <= 0.0 {
            return Viewers { sessions, shape: Arc::clone(&self.shape) };
        }
        let part = other.sessions / sessions;
        let cells = self.shape.iter().zip(&*other.shape);
        Viewers { sessions, shape: cells.map(|(one, other)| one + part * (other - one)).collect() }
    }
}

/// By stream.
pub type Demand = BTreeMap<StreamKey, Viewers>;

/// Sessions in all.
pub fn sum(demand: &Demand) -> f64 {
    demand.values().map(|viewers| viewers.sessions).sum()
}

/// Other sums in the same proportions; even ones where there is nothing.
pub fn scaled(demand: Demand, total: f64) -> Demand {
    let (all, count) = (sum(&demand), demand.len() as f64);
    let scaled = |viewers: Viewers| match all > 0.0 {
        true => viewers.times(total / all),
        false => Viewers { sessions: total / count, ..viewers },
    };
    demand.into_iter().map(|(key, viewers)| (key, scaled(viewers))).collect()
}

/// What the figures stand on.
#[derive(Clone, Debug)]
pub enum Basis {
    /// So many sessions in all, evenly over the streams, and within a stream by the addresses that the databases place in
    /// each cell.
    Total(f64),
    /// Of each set of regions that share streams, so much of the capacity that is written; so many sessions a stream where
    /// none is. Within a stream as above.
    Assumed { part: f64, plain: f64 },
    /// What a node recorded; so many sessions in all, where that is given.
    Recorded { recorded: Box<Recorded>, total: Option<f64> },
}

impl Basis {
    /// Nothing is known: as full as regions become before it costs anything.
    pub const UNKNOWN: Basis = Basis::Assumed { part: curve::FREE, plain: PLAIN };

    pub fn of(total: Option<f64>, recorded: Option<Recorded>) -> Basis {
        match (recorded, total) {
            (Some(recorded), total) => Basis::Recorded { recorded: Box::new(recorded), total },
            (None, Some(total)) => Basis::Total(total),
            (None, None) => Basis::UNKNOWN,
        }
    }

    /// The viewers of the streams that `counts` is true of, in a scene of the world.
    pub fn demand(&self, world: &World, scene: &Scene, counts: &dyn Fn(&StreamKey) -> bool) -> Demand {
        let even = |sessions: &dyn Fn(u32) -> f64| -> Demand {
            let shape: Arc<[f64]> = scene.weights().into();
            let streams = scene.streams.iter().filter(|(key, _)| counts(key));
            let viewers = |group: u32| Viewers { sessions: sessions(group), shape: Arc::clone(&shape) };
            streams.map(|(key, group)| (key.clone(), viewers(*group))).collect()
        };
        match self {
            Basis::Total(total) => scaled(even(&|_| 1.0), *total),
            Basis::Assumed { part, plain } => {
                let market = |group: u32| scene.market_of[group as usize];
                let mut fellows: BTreeMap<Option<u32>, f64> = BTreeMap::new();
                let streams = scene.streams.iter().filter(|(key, _)| counts(key));
                streams.for_each(|(_, group)| *fellows.entry(market(*group)).or_default() += 1.0);
                even(&|group| {
                    let regions = market(group).map_or(&[][..], |market| &scene.markets[market as usize].regions);
                    let capacity: f64 = regions.iter().filter_map(|region| region.capacity).sum();
                    if capacity > 0.0 { part * capacity / fellows[&market(group)] } else { *plain }
                })
            }
            Basis::Recorded { recorded, total } => {
                let mut demand = recorded.demand(world, scene);
                demand.retain(|key, _| counts(key));
                let assumed = || sum(&Basis::UNKNOWN.demand(world, scene, counts));
                match total.or_else(|| (!recorded.has_scale()).then(assumed)) {
                    Some(total) => scaled(demand, total),
                    None => demand,
                }
            }
        }
    }

    /// The sentence that says what the figures stand on.
    pub fn words(&self, scene: &Scene, demand: &Demand) -> String {
        let sessions = sum(demand).round();
        let streams = if demand.len() == 1 { String::new() } else { format!(" over {} streams", demand.len()) };
        let spread = "spread by the databases' addresses";
        match self {
            Basis::Total(_) => format!("{sessions} sessions given{streams}, {spread}"),
            Basis::Assumed { .. } => {
                format!("{sessions} sessions assumed{streams} ({}), {spread}", assumption(scene, demand))
            }
            Basis::Recorded { recorded, total } => {
                let (when, silent) = (recorded.when(), recorded.silent(scene, demand));
                match total {
                    Some(_) => format!("{sessions} sessions given{streams}, spread {when}{silent}"),
                    None if recorded.has_scale() => format!("{sessions} sessions{streams}, {when}{silent}"),
                    None => {
                        let why = assumption(scene, demand);
                        let no_scale = "no region has told yet how many sessions a query stands for";
                        format!("{sessions} sessions assumed{streams} ({why}; {no_scale}), spread {when}{silent}")
                    }
                }
            }
        }
    }
}

/// How [`Basis::UNKNOWN`] comes to its sums.
fn assumption(scene: &Scene, demand: &Demand) -> String {
    let market = |stream: &StreamKey| scene.market_of[*scene.streams.get(stream)? as usize];
    let markets = demand.keys().filter_map(market).map(|market| &scene.markets[market as usize]);
    let known: Vec<bool> =
        markets.map(|market| market.regions.iter().any(|region| region.capacity.is_some())).collect();
    let capacities = known.contains(&true).then(|| format!("{:.0} % of the capacities written", curve::FREE * 100.0));
    let rest = known.contains(&false).then(|| format!("{PLAIN} for each stream without any capacity"));
    [capacities, rest].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Whether `name` means this stream: as written in its file, or its whole name.
fn is_meant(scene: &Scene, stream: &StreamKey, name: &str) -> bool {
    let whole = stream.1.to_ascii();
    scene.label(stream) == Some(name) || whole.trim_end_matches('.').eq_ignore_ascii_case(name.trim_end_matches('.'))
}

/// The streams that `name` means. Errors: none; in words.
pub fn streams_of(scene: &Scene, name: &str) -> Result<Vec<StreamKey>, String> {
    let found: Vec<StreamKey> = scene.streams.keys().filter(|key| is_meant(scene, key, name)).cloned().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let mut labels: Vec<&str> = scene.streams.keys().filter_map(|key| scene.label(key)).collect();
    labels.sort_unstable();
    labels.dedup();
    let mend = match nearest(name, labels.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("there are {}", list(labels.into_iter())),
    };
    Err(format!("no stream {name:?}; {mend}"))
}
