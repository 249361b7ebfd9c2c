//! Demand as a node recorded it.
//!
//! ```text
//! queries/s of a group ─► evenly over its streams ─┐
//! queries/s of squares ─► over the cells there ────┴─► × session starts for a query × their length ─► sessions by stream and cell
//! ```
//!
//! What a query stands for is learned by region, so it hangs on where viewers are sent. They are settled by distance first
//! and then once more with the load that comes of it, which is close to how they were when it was learned.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::settings::Zone;
use crate::demand::country_square::CountrySquare;
use crate::demand::layout::{self, Cells};
use crate::demand::profile::Saved;
use crate::geo::Database;
use crate::health::Verdict;
use crate::load::known::{Known, RegionId};
use crate::pilot::market::MarketRegion;
use crate::pilot::saved::Learned;
use crate::snapshot::{Served, Snapshot};
use crate::steering::dwell;

use super::demand::{Demand, Viewers};
use super::scene::{Scene, StreamKey, World, list};
use super::settle::{Settled, Terms};

/// No node sees more queries/s; what a file says beyond it counts as nothing.
const MOST: f64 = 1e12;
/// Times that viewers are settled to find out who was where.
const ROUNDS: usize = 2;

/// A region, by the label of a zone that has it, and its name.
type RegionName = (Arc<str>, Arc<str>);

/// What a node recorded, in names that do not hang on its numbering.
#[derive(Clone, Debug)]
pub struct Recorded {
    when: When,
    /// Queries/s.
    queries: BTreeMap<StreamKey, f64>,
    /// Queries/s of all streams together.
    squares: Vec<(CountrySquare, f64)>,
    /// Under each zone that has the region.
    regions: HashMap<RegionName, Learned>,
    /// Of the regions that are known: a region of which nothing is known is like the others.
    scale: Option<f64>,
    dwell_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    At(Option<Timestamp>),
    /// At this time of the usual week.
    Usual(Timestamp),
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::At(Some(at)) => write!(f, "as recorded {}", at.strftime("%Y-%m-%d %H:%M UTC")),
            When::At(None) => f.write_str("as recorded"),
            When::Usual(at) => write!(f, "as is usual on {}", at.strftime("%a at %H:%M UTC")),
        }
    }
}

/// Why a record says nothing of these zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unrecorded {
    /// Nobody asked at all.
    Nothing,
    /// Other streams than these were asked for: their names.
    Others(Vec<String>),
    /// That time of the week was never seen.
    NeverSeen(String),
}

impl fmt::Display for Unrecorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unrecorded::Nothing => f.write_str("no query was recorded yet"),
            Unrecorded::Others(names) => {
                let names = list(names.iter().map(String::as_str));
                write!(f, "no query for a stream of these files was recorded, only for {names}")
            }
            Unrecorded::NeverSeen(when) => {
                write!(f, "what is usual on {when} is not known yet: the node has not run for that whole hour")
            }
        }
    }
}

impl std::error::Error for Unrecorded {}

impl Recorded {
    /// `zones`: all of the node's, in the order of its files, as by them it makes its groups. `usual`: not the rates of when
    /// it was written but what is usual at this time of the week.
    pub fn of(saved: &Saved, zones: &[Arc<Zone>], usual: Option<Timestamp>) -> Result<Recorded, Unrecorded> {
        let served = zones.iter().map(|zone| Served { zone: Arc::clone(zone), serial: 1 }).collect();
        // Names of groups and regions hang on no place.
        let snapshot = Snapshot::compile(served, &Arc::new(Database::empty()), |_| Verdict::Up, None);
        let rate = |name: &str| match usual {
            Some(at) => saved.profile.group(name, at),
            None => saved.rates.get(name).copied(),
        };
        let mut queries = BTreeMap::new();
        for group in snapshot.groups() {
            // Streams that were apart when it was written may be one group now.
            let rates = group.streams.iter().filter_map(|stream| rate(&layout::name(&snapshot, *stream)));
            let rate: f64 = rates.map(sound).sum();
            for stream in &group.streams {
                let stream = snapshot.stream(*stream);
                let zone = &snapshot.zones()[stream.zone as usize].zone;
                let key = (zone.name.clone(), zone.streams[stream.stream as usize].owner.clone());
                queries.insert(key, rate / group.streams.len() as f64);
            }
        }
        if queries.values().sum::<f64>() <= 0.0 {
            return Err(match usual {
                Some(at) => Unrecorded::NeverSeen(at.strftime("%a at %H:%M UTC").to_string()),
                None if saved.rates.values().all(|rate| sound(*rate) <= 0.0) => Unrecorded::Nothing,
                None => Unrecorded::Others(saved.rates.keys().cloned().collect()),
            });
        }
        let squares = match usual {
            Some(at) => saved.profile.shape(at).collect(),
            None => saved.shape.iter().map(|(square, rate)| (*square, sound(*rate))).collect(),
        };
        let regions = learned(saved, &snapshot);
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
            (count > 0).then(|| sum / f64::from(count))
        };
        Ok(Recorded {
            when: usual.map_or(When::At(saved.at), When::Usual),
            queries,
            squares,
            scale: mean(&mut regions.values().filter_map(|learned| learned.scale)),
            dwell_s: mean(&mut regions.values().filter_map(|learned| learned.dwell_s)).unwrap_or(dwell::USUAL_S),
            regions,
        })
    }

    /// Whether it is known how many sessions a query stands for. Where not, only proportions mean anything.
    pub fn has_scale(&self) -> bool {
        self.scale.is_some()
    }

    /// Of when it is, in words.
    pub fn when(&self) -> String {
        self.when.to_string()
    }

    /// What it does not know of a scene, in words; empty: it knows all.
    pub fn silent(&self, scene: &Scene, demand: &Demand) -> String {
        let unasked = demand.keys().filter(|key| self.queries.get(*key).is_none_or(|rate| *rate <= 0.0));
        // Of another scene, where it is not in this one.
        let whole = |key: &StreamKey| key.1.to_ascii().trim_end_matches('.').to_owned();
        let unasked: Vec<String> =
            unasked.map(|key| scene.label(key).map_or_else(|| whole(key), str::to_owned)).collect();
        let untold = |region: &&MarketRegion| self.learned(region).is_none_or(|learned| learned.scale.is_none());
        let regions = scene.markets.iter().flat_map(|market| &market.regions);
        let untold: BTreeSet<&str> = regions.filter(untold).map(|region| &*region.name).collect();
        let mut words = String::new();
        if !unasked.is_empty() {
            words += &format!("; nobody asked for {}", list(unasked.iter().map(String::as_str)));
        }
        if self.has_scale() && !untold.is_empty() {
            words += &format!("; no scale of {}: the mean of the others", list(untold.into_iter()));
        }
        words
    }

    fn learned(&self, region: &MarketRegion) -> Option<Learned> {
        self.regions.get(&(Arc::clone(&region.zone), Arc::clone(&region.name))).copied()
    }

    /// Sessions of a query/s of those who are sent to a region.
    fn sessions(&self, region: Option<&MarketRegion>) -> f64 {
        let learned = region.and_then(|region| self.learned(region));
        let scale = learned.and_then(|learned| learned.scale).or(self.scale).unwrap_or(1.0);
        scale * learned.and_then(|learned| learned.dwell_s).unwrap_or(self.dwell_s)
    }

    /// The viewers of all streams of a scene. Where no scale is known, their number says nothing.
    pub fn demand(&self, world: &World, scene: &Scene) -> Demand {
        let mut by_region = vec![self.sessions(None); world.regions.len()];
        for (market, keys) in scene.markets.iter().zip(&scene.keys) {
            for (region, key) in market.regions.iter().zip(keys) {
                by_region[usize::from(*key)] = self.sessions(Some(region));
            }
        }
        let asked = self.shape(scene);
        let nobody = Viewers { sessions: 0.0, shape: Arc::clone(&asked) };
        let mut demand: Demand = scene.streams.keys().map(|key| (key.clone(), nobody.clone())).collect();
        let open = vec![false; world.regions.len()];
        for _ in 0..ROUNDS {
            let settled = Settled::of(world, scene, &Terms { demand: &demand, closed: &open, before: None });
            demand = self.weighed(scene, &settled, &asked, &by_region);
        }
        demand
    }

    /// By cell: its part of all queries.
    fn shape(&self, scene: &Scene) -> Arc<[f64]> {
        let mut shape = Cells::of(scene.facts()).spread(self.squares.iter().copied());
        let sum: f64 = shape.iter().sum();
        if sum <= 0.0 {
            return scene.weights().into();
        }
        shape.iter_mut().for_each(|part| *part /= sum);
        shape.into()
    }

    /// Sessions from queries, by where the viewers of each cell are. `by_region`: sessions of a query/s.
    fn weighed(&self, scene: &Scene, settled: &Settled, asked: &[f64], by_region: &[f64]) -> Demand {
        let elsewhere = self.sessions(None);
        // Of one query/s of a group: sessions in all, and their parts by cell.
        let of_group = |group: usize| {
            let sessions = |(cell, asked): (usize, &f64)| {
                let parts = settled.flows[group].cell(cell);
                let all: f64 = parts.iter().map(|(_, part)| f64::from(*part)).sum();
                let of_parts = parts.iter().map(|(region, part)| f64::from(*part) * by_region[usize::from(*region)]);
                asked * if all > 0.0 { of_parts.sum::<f64>() / all } else { elsewhere }
            };
            let mut shape: Vec<f64> = asked.iter().enumerate().map(sessions).collect();
            let sum: f64 = shape.iter().sum();
            if sum > 0.0 {
                shape.iter_mut().for_each(|part| *part /= sum);
            }
            Viewers { sessions: sum, shape: shape.into() }
        };
        let groups: Vec<Viewers> = (0..settled.flows.len()).map(of_group).collect();
        let viewers =
            |key: &StreamKey, group: u32| groups[group as usize].times(self.queries.get(key).copied().unwrap_or(0.0));
        scene.streams.iter().map(|(key, group)| (key.clone(), viewers(key, *group))).collect()
    }
}

fn sound(rate: f64) -> f64 {
    if (0.0..MOST).contains(&rate) { rate } else { 0.0 }
}

/// What was learned of regions, under the name of each zone that has them; it is saved under one.
fn learned(saved: &Saved, snapshot: &Snapshot) -> HashMap<RegionName, Learned> {
    let known = Known::of(snapshot);
    let mut names: BTreeMap<RegionId, Vec<RegionName>> = BTreeMap::new();
    for served in snapshot.zones() {
        let label = served.zone.label();
        for id in known.of_zone(&label).unwrap_or_default() {
            names.entry(*id).or_default().push((Arc::clone(&label), Arc::clone(&known.region_at(*id).name)));
        }
    }
    let mut all = HashMap::new();
    for names in names.into_values() {
        let found = names.iter().find_map(|(zone, name)| saved.pilot.regions.get(&*format!("{zone}/{name}")));
        if let Some(found) = found {
            all.extend(names.into_iter().map(|name| (name, found.sound())));
        }
    }
    all
}

#[cfg(test)]
mod tests;
