//! Load, share, distance and money of each region; who is served elsewhere than before.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::config::settings::SESSION_BITS;
use crate::geo::Point;
use crate::steering::cost::ms_over;
use crate::steering::money::per_hour;

use super::demand::Demand;
use super::scene::{RegionKey, Scene, World};
use super::settle::Settled;

/// Where they go whom nobody serves.
pub const NOBODY: RegionKey = RegionKey::MAX;

/// A share of the capacity beyond this is too much. What is above by less is rounding.
const FULL: f64 = 1.0 + 1e-4;

/// One settled world, in figures.
#[derive(Clone, Debug)]
pub struct Side {
    /// By region of the world; `None`: not in this scene.
    pub regions: Vec<Option<Figures>>,
    /// Of all viewers.
    pub path: Path,
    /// Sessions in all, those that nobody serves included.
    pub sessions: f64,
    /// Sessions of viewers of whose regions none is left.
    pub unserved: f64,
    /// Part of the viewers that is served elsewhere than before.
    pub moved_share: f64,
}

/// One region.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Sessions.
    pub load: f64,
    /// Sessions; `None`: no end is known.
    pub capacity: Option<f64>,
    /// Of all sessions.
    pub share: f64,
    pub path: Path,
    /// What is added to its cost because it is full; `None` without a capacity.
    pub price_ms: Option<f64>,
    /// Money; `None` where no cost is written.
    pub cost_per_hour: Option<f64>,
    /// Bits/s of a session.
    pub session_bits: f64,
    pub location: Option<Point>,
    /// Takes nobody: lost or drained.
    pub closed: bool,
}

/// Distance and round-trip time of viewers to the regions that serve them; `None` without viewers, or without locations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Path {
    pub mean_km: Option<f64>,
    pub p95_km: Option<f64>,
    /// As distance or measurements have it, without bias and price.
    pub mean_ms: Option<f64>,
    pub p95_ms: Option<f64>,
}

impl Figures {
    /// Sessions of its capacity.
    pub fn utilization(&self) -> Option<f64> {
        self.capacity.map(|capacity| self.load / capacity)
    }

    /// Sessions above its capacity; 0 where it has room.
    pub fn excess(&self) -> f64 {
        match self.capacity {
            Some(capacity) if self.load > capacity * FULL => self.load - capacity,
            _ => 0.0,
        }
    }
}

impl Side {
    /// `before`: where the viewers were.
    pub fn of(
        world: &World,
        scene: &Scene,
        settled: &Settled,
        demand: &Demand,
        closed: &[bool],
        before: Option<(&Scene, &Settled)>,
    ) -> Side {
        let facts = scene.facts();
        let mut regions = bare(world, scene, settled, closed);
        let mut trips: Vec<Vec<Trip>> = vec![Vec::new(); world.regions.len()];
        let (mut sessions, mut served) = (0.0, 0.0);
        for (group, (count, flow)) in settled.sessions.iter().zip(&settled.flows).enumerate() {
            let shape = settled.shapes[group].iter().enumerate();
            for (cell, weight) in shape.filter(|(_, weight)| count * **weight > 0.0) {
                let viewers = count * weight;
                sessions += viewers;
                for &(key, part) in flow.cell(cell) {
                    let Some(region) = &mut regions[usize::from(key)] else { continue };
                    let load = viewers * f64::from(part);
                    region.load += load;
                    served += load;
                    if let Some((client, region)) = facts[cell].location.zip(region.location) {
                        let km = client.distance_km(region);
                        let ms = scene.cost(group, cell, key).unwrap_or(ms_over(km) as f32);
                        trips[usize::from(key)].push(Trip { km: km as f32, ms, viewers: load as f32 });
                    }
                }
            }
        }
        for region in regions.iter_mut().flatten() {
            region.share = if sessions > 0.0 { region.load / sessions } else { 0.0 };
        }
        let mut side = Side {
            regions,
            path: Path::default(),
            sessions,
            unserved: (sessions - served).max(0.0),
            moved_share: before.map_or(0.0, |before| moved_share(&transfers(before, (scene, settled), demand), demand)),
        };
        // A rest that only rounding leaves.
        if side.unserved < 1e-6 * sessions {
            side.unserved = 0.0;
        }
        side.measure(trips);
        side
    }

    fn measure(&mut self, mut trips: Vec<Vec<Trip>>) {
        for (region, trips) in self.regions.iter_mut().zip(&mut trips) {
            if let Some(region) = region {
                region.path = path(trips);
                let (sessions, bits) = (region.load, region.session_bits);
                region.cost_per_hour = region.cost_per_hour.map(|price| per_hour(sessions, bits, price));
            }
        }
        self.path = path(&mut trips.concat());
    }

    /// Whether some region is above its capacity, or some viewers have none.
    pub fn is_too_much(&self) -> bool {
        self.unserved > 0.0 || self.regions.iter().flatten().any(|region| region.excess() > 0.0)
    }

    /// The region that is fullest, and how full.
    pub fn fullest(&self) -> Option<(RegionKey, f64)> {
        let regions = (0..).zip(&self.regions);
        let used = regions.filter_map(|(key, region)| Some((key, region.as_ref()?.utilization()?)));
        used.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Money an hour of those regions that have a cost; `None`: none has.
    pub fn cost_per_hour(&self) -> Option<f64> {
        self.regions.iter().flatten().filter_map(|region| region.cost_per_hour).reduce(|a, b| a + b)
    }

    /// `{"regions": {…}, "p95_ms", "moved_share"}`. What does not apply is null.
    pub fn json(&self, world: &World) -> Value {
        let mut regions = Map::new();
        for (name, region) in world.regions.iter().zip(&self.regions) {
            let Some(region) = region else { continue };
            let figures = json!({
                "load_sessions": region.load,
                "capacity_sessions": region.capacity,
                "utilization": region.utilization(),
                "share": region.share,
                "mean_km": region.path.mean_km,
                "mean_ms": region.path.mean_ms,
                "price_ms": region.price_ms,
                "cost_per_hour": region.cost_per_hour,
            });
            regions.insert(name.clone(), figures);
        }
        json!({ "regions": regions, "p95_ms": self.path.p95_ms, "moved_share": self.moved_share })
    }
}

/// Regions without viewers; `cost_per_hour` still holds the cost of a GB.
fn bare(world: &World, scene: &Scene, settled: &Settled, closed: &[bool]) -> Vec<Option<Figures>> {
    let mut regions: Vec<Option<Figures>> = vec![None; world.regions.len()];
    for (market, keys) in scene.markets.iter().zip(&scene.keys) {
        for (region, key) in market.regions.iter().zip(keys) {
            let key = usize::from(*key);
            regions[key] = Some(Figures {
                load: 0.0,
                capacity: region.capacity,
                share: 0.0,
                path: Path::default(),
                price_ms: settled.prices[key],
                cost_per_hour: region.cost,
                session_bits: if region.session_bits > 0.0 { region.session_bits } else { SESSION_BITS },
                location: region.location,
                closed: closed.get(key).copied().unwrap_or(false),
            });
        }
    }
    regions
}

/// Of so many viewers of a cell, to the region that serves them.
#[derive(Clone, Copy)]
struct Trip {
    km: f32,
    ms: f32,
    viewers: f32,
}

fn path(trips: &mut [Trip]) -> Path {
    let all: f64 = trips.iter().map(|trip| f64::from(trip.viewers)).sum();
    if all <= 0.0 {
        return Path::default();
    }
    let mut of = |value: fn(&Trip) -> f32| {
        let mean = trips.iter().map(|trip| f64::from(value(trip)) * f64::from(trip.viewers)).sum::<f64>() / all;
        trips.sort_unstable_by(|a, b| value(a).total_cmp(&value(b)));
        let mut below = 0.0;
        let is_95th = |trip: &&Trip| {
            below += f64::from(trip.viewers);
            below >= 0.95 * all
        };
        let p95 = trips.iter().find(is_95th).or(trips.last()).map(|trip| f64::from(value(trip)));
        (Some(mean), p95)
    };
    let ((mean_km, p95_km), (mean_ms, p95_ms)) = (of(|trip| trip.km), of(|trip| trip.ms));
    Path { mean_km, p95_km, mean_ms, p95_ms }
}

/// Of each stream's viewers, who goes from where to where.
pub type Transfers = BTreeMap<super::scene::StreamKey, Moves>;

/// Parts by (from, to).
pub type Moves = BTreeMap<(RegionKey, RegionKey), f64>;

/// Between two settled scenes, for the streams that both have. In a cell whose viewers leave several regions for several
/// others, each that gains takes of each that loses in proportion.
pub fn transfers(before: (&Scene, &Settled), after: (&Scene, &Settled), demand: &Demand) -> Transfers {
    // Streams that are steered alike mostly share their shape too.
    let mut known: BTreeMap<(u32, u32, *const f64), Moves> = BTreeMap::new();
    let mut transfers = Transfers::new();
    for (stream, viewers) in demand {
        let (Some(&old), Some(&new)) = (before.0.streams.get(stream), after.0.streams.get(stream)) else { continue };
        let moves = known
            .entry((old, new, viewers.shape.as_ptr()))
            .or_insert_with(|| moves(&viewers.shape, &before.1.flows[old as usize], &after.1.flows[new as usize]));
        transfers.insert(stream.clone(), moves.clone());
    }
    transfers
}

fn moves(weights: &[f64], old: &super::settle::Flow, new: &super::settle::Flow) -> Moves {
    let mut moves = BTreeMap::new();
    for (cell, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        if old.cell(cell) == new.cell(cell) {
            continue;
        }
        let mut change: BTreeMap<RegionKey, f64> = BTreeMap::new();
        let mut add = |parts: &[(RegionKey, f32)], sign: f64| {
            parts.iter().for_each(|(region, part)| *change.entry(*region).or_default() += sign * f64::from(*part));
            let nobody = 1.0 - parts.iter().map(|(_, part)| f64::from(*part)).sum::<f64>();
            *change.entry(NOBODY).or_default() += sign * nobody;
        };
        add(old.cell(cell), -1.0);
        add(new.cell(cell), 1.0);
        // Weights are kept to 1/65,535.
        let gains: Vec<_> = change.iter().filter(|(_, change)| **change > 1e-4).collect();
        let all: f64 = gains.iter().map(|(_, gain)| **gain).sum();
        for (from, loss) in change.iter().filter(|(_, change)| **change < -1e-4) {
            for (to, gain) in &gains {
                *moves.entry((*from, **to)).or_default() += weight * -loss * **gain / all;
            }
        }
    }
    moves
}

/// Of all viewers of the streams that both have.
fn moved_share(transfers: &Transfers, demand: &Demand) -> f64 {
    let (mut moved, mut all) = (0.0, 0.0);
    for (stream, moves) in transfers {
        let sessions = demand.get(stream).map_or(0.0, |viewers| viewers.sessions);
        moved += sessions * moves.values().sum::<f64>();
        all += sessions;
    }
    if all > 0.0 { moved / all } else { 0.0 }
}
