//! How many sessions each stream has.

use std::collections::BTreeMap;

use crate::config::nearest;
use crate::steering::solve::curve;

use super::scene::{Scene, StreamKey, list};

/// Of a stream whose regions have no capacity, where no total is given.
const PLAIN: f64 = 10_000.0;

/// Sessions by stream. Within a stream they are spread by the addresses that the databases place in each cell.
pub type Demand = BTreeMap<StreamKey, f64>;

/// What the figures stand on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Basis {
    /// So many sessions in all, evenly over the streams.
    Total(f64),
    /// Of each set of regions that share streams, so much of the capacity that is written; so many sessions a stream where
    /// none is.
    Assumed { part: f64, plain: f64 },
}

impl Basis {
    /// Nothing is known: as full as regions become before it costs anything.
    pub const UNKNOWN: Basis = Basis::Assumed { part: curve::FREE, plain: PLAIN };

    pub fn of(total: Option<f64>) -> Basis {
        total.map_or(Basis::UNKNOWN, Basis::Total)
    }

    /// Sessions of the streams that `counts` is true of.
    pub fn demand(&self, scene: &Scene, counts: impl Fn(&StreamKey) -> bool) -> Demand {
        let streams: Vec<(&StreamKey, u32)> =
            scene.streams.iter().filter(|(key, _)| counts(key)).map(|(key, group)| (key, *group)).collect();
        let market = |group: u32| scene.market_of[group as usize];
        let mut fellows: BTreeMap<Option<u32>, f64> = BTreeMap::new();
        streams.iter().for_each(|(_, group)| *fellows.entry(market(*group)).or_default() += 1.0);
        let sessions = |group: u32| match *self {
            Basis::Total(total) => total / streams.len() as f64,
            Basis::Assumed { part, plain } => {
                let regions = market(group).map_or(&[][..], |market| &scene.markets[market as usize].regions);
                let capacity: f64 = regions.iter().filter_map(|region| region.capacity).sum();
                if capacity > 0.0 { part * capacity / fellows[&market(group)] } else { plain }
            }
        };
        streams.iter().map(|&(key, group)| (key.clone(), sessions(group))).collect()
    }

    /// The sentence that says what the figures stand on.
    pub fn words(&self, scene: &Scene, demand: &Demand) -> String {
        let sessions = demand.values().sum::<f64>().round();
        let streams = if demand.len() == 1 { String::new() } else { format!(" over {} streams", demand.len()) };
        let spread = "spread by the databases' addresses";
        let Basis::Assumed { part, plain } = self else {
            return format!("{sessions} sessions given{streams}, {spread}");
        };
        let market = |stream: &StreamKey| scene.market_of[*scene.streams.get(stream)? as usize];
        let markets = demand.keys().filter_map(market).map(|market| &scene.markets[market as usize]);
        let known: Vec<bool> =
            markets.map(|market| market.regions.iter().any(|region| region.capacity.is_some())).collect();
        let capacities = known.contains(&true).then(|| format!("{:.0} % of the capacities written", part * 100.0));
        let rest = known.contains(&false).then(|| format!("{plain} for each stream without any capacity"));
        let why = [capacities, rest].into_iter().flatten().collect::<Vec<_>>().join(", ");
        format!("{sessions} sessions assumed{streams} ({why}), {spread}")
    }
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
