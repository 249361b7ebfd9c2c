//! Every single loss: which region is too small then, and by how much.

use serde_json::{Value, json};

use super::demand::Demand;
use super::report::Side;
use super::scene::{RegionKey, Scene, World};
use super::settle::{Settled, Terms};

/// What one loss comes to.
pub struct Loss {
    pub lost: RegionKey,
    pub side: Side,
    pub gap: f64,
}

/// A region that has less than it would need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TooSmall {
    pub region: RegionKey,
    /// Sessions above its capacity.
    pub short: f64,
    /// Sessions that it would have to have room for.
    pub needed: f64,
    /// The same in bits/s.
    pub needed_bits: f64,
}

/// Loses each region that serves anybody, one at a time; `closed` are gone already. The worst first: by viewers that nobody
/// serves or that are above a capacity, then by how full the fullest region is.
pub fn all(world: &World, scene: &Scene, before: &Settled, demand: &Demand, closed: &[bool]) -> Vec<Loss> {
    let candidates = scene.keys.iter().flatten().copied().filter(|key| !closed[usize::from(*key)]);
    let lose = |lost: RegionKey| {
        let mut closed = closed.to_vec();
        closed[usize::from(lost)] = true;
        let settled = Settled::of(world, scene, &Terms { demand, closed: &closed, before: Some((scene, before)) });
        let side = Side::of(world, scene, &settled, demand, &closed, Some((scene, before)));
        Loss { lost, side, gap: settled.gap }
    };
    let mut losses: Vec<Loss> = candidates.map(lose).collect();
    losses.sort_by(|a, b| b.badness().partial_cmp(&a.badness()).unwrap_or(std::cmp::Ordering::Equal));
    losses
}

impl Loss {
    fn badness(&self) -> (f64, f64, f64) {
        let excess: f64 = self.side.regions.iter().flatten().map(|region| region.excess()).sum();
        (self.side.unserved + excess, self.side.fullest().map_or(0.0, |(_, used)| used), self.side.moved_share)
    }

    /// The worst first.
    pub fn too_small(&self) -> Vec<TooSmall> {
        let regions = (0..).zip(&self.side.regions);
        let mut small: Vec<TooSmall> = regions
            .filter_map(|(key, region)| {
                let region = region.as_ref().filter(|region| region.excess() > 0.0)?;
                let (short, needed) = (region.excess(), region.load);
                Some(TooSmall { region: key, short, needed, needed_bits: needed * region.session_bits })
            })
            .collect();
        small.sort_by(|a, b| b.short.total_cmp(&a.short));
        small
    }

    /// As one of `losses` of `simulate --all-n-1 --json`.
    pub fn json(&self, world: &World) -> Value {
        let too_small: Vec<Value> = self
            .too_small()
            .into_iter()
            .map(|small| {
                json!({
                    "region": world.name(small.region),
                    "short_sessions": small.short,
                    "needed_sessions": small.needed,
                    "needed_bits_per_s": small.needed_bits,
                })
            })
            .collect();
        json!({
            "lost": world.name(self.lost),
            "after": self.side.json(world),
            "too_small": too_small,
            "unserved_sessions": self.side.unserved,
            "gap": self.gap,
        })
    }
}
