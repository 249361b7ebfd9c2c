//! Zones compiled to be looked at.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hickory_proto::rr::Name;

use crate::config::nearest;
use crate::config::settings::Zone;
use crate::geo::Database;
use crate::load::known::Known;
use crate::pilot::market::{Market, MarketRegion};
use crate::snapshot::{Served, Snapshot};
use crate::steering::cells::Facts;
use crate::steering::cost::{Costs, Site};

/// More different plans are not looked at at once: each has a ranking for each of some ten thousand cells.
const MAX_PLANS: usize = 256;
/// More pairs of cell and group of streams in one scene are not looked at: they take some 100 bytes each.
const MAX_ROWS: usize = 2_000_000;

/// A stream, by the names of its zone and of itself.
pub type StreamKey = (Name, Name);

/// Position in [`World::regions`].
pub type RegionKey = u16;

/// Scenes that are compared with each other.
pub struct World {
    /// Names of the regions of all scenes, sorted. One that several regions have is followed by a zone of theirs.
    pub regions: Vec<String>,
    pub scenes: Vec<Scene>,
}

/// One set of zones.
pub struct Scene {
    pub snapshot: Snapshot,
    pub markets: Vec<Market>,
    /// By market and column.
    pub keys: Vec<Vec<RegionKey>>,
    /// By market: ms from each cell to each of its columns, cell after cell, without bias and price.
    costs: Vec<Vec<f32>>,
    /// The group of each stream.
    pub streams: HashMap<StreamKey, u32>,
    /// By group: its market.
    pub market_of: Vec<Option<u32>>,
}

/// Why zones cannot be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TooMuch {
    Plans,
    Rows(usize),
    Market(String),
    Regions,
    /// No stream has regions.
    Nothing,
}

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TooMuch::Plans => write!(f, "more than {MAX_PLANS} streams ask for different things: name one zone"),
            TooMuch::Rows(rows) => write!(f, "{rows} cells of streams, more than {MAX_ROWS}: name one zone"),
            TooMuch::Market(why) => write!(f, "{why}: name one zone"),
            TooMuch::Regions => write!(f, "more regions than {}: name one zone", RegionKey::MAX),
            TooMuch::Nothing => f.write_str("no zone has a stream: there is nothing to simulate"),
        }
    }
}

impl std::error::Error for TooMuch {}

impl World {
    /// Takes about as long as to load the zones, and for each scene 0.1 s for each 40,000 cells of groups.
    pub fn of(worlds: Vec<Vec<Arc<Zone>>>, database: &Arc<Database>, costs: &dyn Costs) -> Result<World, TooMuch> {
        let serve = |zone| Served { zone, serial: 1 };
        let worlds = worlds.into_iter().map(|zones| zones.into_iter().map(serve).collect()).collect();
        let snapshots = Snapshot::survey(worlds, database, MAX_PLANS).ok_or(TooMuch::Plans)?;
        if snapshots.iter().all(|snapshot| snapshot.streams().is_empty()) {
            return Err(TooMuch::Nothing);
        }
        let known: Vec<Known> = snapshots.iter().map(Known::of).collect();
        let names = Names::of(&snapshots, &known);
        let mut labels = BTreeSet::new();
        let mut scenes = Vec::with_capacity(snapshots.len());
        for (snapshot, known) in snapshots.into_iter().zip(&known) {
            let rows = snapshot.groups().len() * snapshot.geography().facts.len();
            if rows > MAX_ROWS {
                return Err(TooMuch::Rows(rows));
            }
            let (markets, too_large) = Market::all(&snapshot, known, costs);
            if let Some(why) = too_large.first() {
                return Err(TooMuch::Market(why.to_string()));
            }
            let label = |market: &Market| -> Vec<String> {
                market.regions.iter().map(|region| names.label(known.region_at(region.id), &snapshot)).collect()
            };
            let own: Vec<Vec<String>> = markets.iter().map(label).collect();
            labels.extend(own.iter().flatten().cloned());
            scenes.push((snapshot, markets, own));
        }
        let regions: Vec<String> = labels.into_iter().collect();
        if regions.len() > usize::from(RegionKey::MAX) {
            return Err(TooMuch::Regions);
        }
        let key = |label: &String| regions.binary_search(label).expect("all labels are among the regions") as RegionKey;
        let scene = |(snapshot, markets, labels): (Snapshot, Vec<Market>, Vec<Vec<String>>)| {
            let keys = labels.iter().map(|labels| labels.iter().map(key).collect()).collect();
            Scene::new(snapshot, markets, keys, costs)
        };
        let scenes = scenes.into_iter().map(scene).collect();
        Ok(World { scenes, regions })
    }

    /// The region of a name. Errors: there is none, or more than one; in words.
    pub fn region(&self, name: &str) -> Result<RegionKey, String> {
        let is_it =
            |label: &String| label == name || label.strip_prefix(name).is_some_and(|rest| rest.starts_with(" ("));
        let found: Vec<usize> = (0..self.regions.len()).filter(|&key| is_it(&self.regions[key])).collect();
        match found[..] {
            [one] => Ok(one as RegionKey),
            [] => {
                let near = nearest(name, self.regions.iter().map(String::as_str));
                let mend = match near {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("there are {}", list(self.regions.iter().map(String::as_str))),
                };
                Err(format!("no stream has a region {name:?}; {mend}"))
            }
            _ => {
                let labels = found.iter().map(|&key| self.regions[key].as_str());
                Err(format!("{name:?} may be {}; give --zone, or the whole of it", list(labels)))
            }
        }
    }

    pub fn name(&self, region: RegionKey) -> &str {
        &self.regions[usize::from(region)]
    }
}

impl Scene {
    fn new(snapshot: Snapshot, markets: Vec<Market>, keys: Vec<Vec<RegionKey>>, costs: &dyn Costs) -> Scene {
        let mut market_of = vec![None; snapshot.groups().len()];
        for (number, market) in (0..).zip(&markets) {
            market.groups.iter().for_each(|member| market_of[member.group as usize] = Some(number));
        }
        let key = |stream: &crate::snapshot::SteeredName| {
            let zone = &snapshot.zones()[stream.zone as usize].zone;
            ((zone.name.clone(), zone.streams[stream.stream as usize].owner.clone()), stream.group)
        };
        let streams = snapshot.streams().iter().map(key).collect();
        let of = |market: &Market| {
            let sites: Vec<Site<'_>> = market.regions.iter().map(MarketRegion::site).collect();
            let mut out = Vec::new();
            costs.fill(&snapshot.geography().facts, &sites, &mut out);
            out
        };
        Scene { costs: markets.iter().map(of).collect(), markets, keys, streams, market_of, snapshot }
    }

    /// ms from a cell to a region that a group may be sent to, without bias and price.
    pub fn cost(&self, group: usize, cell: usize, region: RegionKey) -> Option<f32> {
        let market = (*self.market_of.get(group)?)? as usize;
        let column = self.keys[market].iter().position(|key| *key == region)?;
        self.costs[market].get(cell * self.keys[market].len() + column).copied()
    }

    /// By cell; the same for all scenes of a world.
    pub fn facts(&self) -> &[Facts] {
        &self.snapshot.geography().facts
    }

    /// By cell: its part of all addresses; all 0 if no database places any.
    pub fn weights(&self) -> Vec<f64> {
        let all: f64 = self.facts().iter().map(|facts| f64::from(facts.blocks)).sum();
        self.facts().iter().map(|facts| f64::from(facts.blocks) / all.max(1.0)).collect()
    }

    /// How a stream is written in its file.
    pub fn label(&self, stream: &StreamKey) -> Option<&str> {
        let zone = self.snapshot.zones().iter().find(|served| served.zone.name == stream.0)?;
        Some(&zone.zone.streams.iter().find(|known| known.owner == stream.1)?.label)
    }
}

/// Which names say which region is meant.
struct Names {
    shared: BTreeSet<Arc<str>>,
}

impl Names {
    fn of(snapshots: &[Snapshot], known: &[Known]) -> Names {
        let mut shared = BTreeSet::new();
        for (_, known) in snapshots.iter().zip(known) {
            let mut seen = BTreeSet::new();
            let twice = known.regions().filter(|(_, region)| !seen.insert(Arc::clone(&region.name)));
            shared.extend(twice.map(|(_, region)| Arc::clone(&region.name)));
        }
        Names { shared }
    }

    fn label(&self, region: &crate::load::known::Region, snapshot: &Snapshot) -> String {
        if !self.shared.contains(&region.name) {
            return region.name.to_string();
        }
        format!("{} ({})", region.name, snapshot.zones()[region.sample.0 as usize].zone.label())
    }
}

/// Words, the first few of many.
pub(super) fn list<'a>(words: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let more = words.len().saturating_sub(SHOWN);
    let mut text = words.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}
