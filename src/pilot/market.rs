//! Markets: what shares capacity. Groups of streams, and the regions that they are sent to, whatever zones these are of.
//!
//! A market is solved as a whole and apart from the others. Its columns are the regions, its rows the cells of each group
//! that is steered by load; other streams that use the same regions only bring their load.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::settings::{Family, Policy};
use crate::geo::{CellId, Point};
use crate::load::known::{Known, RegionId};
use crate::snapshot::Snapshot;
use crate::steering::cost::{Costs, Site};
use crate::steering::pick::Mask;
use crate::steering::plan::{Plan, Ranked};
use crate::steering::solve::{Mix, REGIONS, Rows, Table};

/// More rows than this in one market are left to geography: a solve must fit into a second many times over.
const MAX_ROWS: usize = 200_000;

/// What more a viewer may have to bear for the sake of finding out about a region (STEERING §4). ms
pub const EXPLORE_MS: f32 = 30.0;

/// No region, in [`MarketGroup::columns`].
const NONE: u8 = u8::MAX;
/// A change of a cost below this is not passed on, ms (STEERING §4).
const STILL_MS: f32 = 2.0;

pub struct Market {
    /// By column.
    pub regions: Vec<MarketRegion>,
    pub groups: Vec<MarketGroup>,
    pub rows: Rows,
    /// The ways alone, ms: by cell, and then by column.
    plain: Vec<f32>,
    /// By cell: columns that cost hardly more than the best one, and are worth finding out about.
    pub unsure: Vec<Mask>,
}

pub struct MarketRegion {
    pub id: RegionId,
    pub name: Arc<str>,
    /// The label of a zone that has it.
    pub zone: Arc<str>,
    /// The (fleet, region) pairs that it is.
    pub uses: Vec<(u32, u8)>,
    /// By use: the zones, by label, sorted.
    pub zones: Vec<Arc<[Arc<str>]>>,
    /// Machines.
    pub servers: u32,
    /// Sessions, with all its servers up.
    pub capacity: Option<f64>,
    /// Bits/s of a session.
    pub session_bits: f64,
    /// Money for a GB.
    pub cost: Option<f64>,
    pub location: Option<Point>,
}

impl MarketRegion {
    /// By which it is known again: `ZONE/REGION`.
    pub fn label(&self) -> Arc<str> {
        format!("{}/{}", self.zone, self.name).into()
    }

    /// What its costs depend on.
    pub fn site(&self) -> Site<'_> {
        Site { zone: &self.zone, name: &self.name, location: self.location }
    }
}

/// Streams that are steered alike, within a market.
pub struct MarketGroup {
    /// Position among the snapshot's groups.
    pub group: u32,
    pub plan: u32,
    /// The owner of its first stream, to know it again.
    pub owner: hickory_proto::rr::Name,
    /// The first of its rows, one for each cell; `None`: not steered by load.
    pub first_row: Option<usize>,
    /// By region of the fleet: its column.
    columns: [u8; REGIONS],
    /// By column: the region of the fleet.
    regions: [u8; REGIONS],
}

impl MarketGroup {
    pub fn column(&self, region: u8) -> Option<u8> {
        Some(self.columns[usize::from(region)]).filter(|column| *column != NONE)
    }

    pub fn region(&self, column: u8) -> Option<u8> {
        Some(self.regions[usize::from(column)]).filter(|region| *region != NONE)
    }
}

/// Why streams with capacities are steered by geography all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLarge {
    Regions(usize),
    Rows(usize),
}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TooLarge::Regions(count) => write!(f, "{count} regions share streams, more than {REGIONS}"),
            TooLarge::Rows(count) => write!(f, "{count} cells of streams share regions, more than {MAX_ROWS}"),
        }
    }
}

impl Market {
    /// All markets of a snapshot, and what could be none because it is too large. Takes time in proportion to groups × cells
    /// × regions: 0.1 s for 40,000 rows of 16 regions.
    pub fn all(snapshot: &Snapshot, known: &Known, costs: &dyn Costs) -> (Vec<Market>, Vec<TooLarge>) {
        let ids = Ids::of(snapshot, known);
        let mut markets = Vec::new();
        let mut too_large = Vec::new();
        for groups in ids.components(snapshot) {
            match Market::new(snapshot, known, &ids, &groups, costs) {
                Ok(market) => markets.push(market),
                Err(why) => too_large.push(why),
            }
        }
        (markets, too_large)
    }

    fn new(
        snapshot: &Snapshot,
        known: &Known,
        ids: &Ids,
        groups: &[u32],
        costs: &dyn Costs,
    ) -> Result<Market, TooLarge> {
        let geography = snapshot.geography();
        let mut columns: BTreeMap<RegionId, u8> = BTreeMap::new();
        for &group in groups {
            let fleet = snapshot.groups()[group as usize].fleet;
            for region in bits(ids.mask(snapshot, group)) {
                columns.insert(ids.of_fleet[fleet as usize][usize::from(region)], 0);
            }
        }
        if columns.len() > REGIONS {
            return Err(TooLarge::Regions(columns.len()));
        }
        columns.values_mut().zip(0..).for_each(|(column, number)| *column = number);
        let cells = geography.facts.len();
        let by_load = |group: &u32| plan(snapshot, *group).spec.by_load;
        let count = groups.iter().filter(|group| by_load(group)).count() * cells;
        if count > MAX_ROWS {
            return Err(TooLarge::Rows(count));
        }
        let mut next_row = 0;
        let members: Vec<MarketGroup> = groups
            .iter()
            .map(|&group| {
                let (fleet, plan) = (snapshot.groups()[group as usize].fleet, snapshot.groups()[group as usize].plan);
                let stream = snapshot.stream(snapshot.groups()[group as usize].streams[0]);
                let owner = snapshot.settings_of(stream).owner.to_lowercase();
                let mut member = MarketGroup {
                    group,
                    plan,
                    owner,
                    first_row: None,
                    columns: [NONE; REGIONS],
                    regions: [NONE; REGIONS],
                };
                for region in bits(ids.mask(snapshot, group)) {
                    let column = columns[&ids.of_fleet[fleet as usize][usize::from(region)]];
                    member.columns[usize::from(region)] = column;
                    member.regions[usize::from(column)] = region;
                }
                if by_load(&group) {
                    member.first_row = Some(next_row);
                    next_row += cells;
                }
                member
            })
            .collect();
        let regions = columns.keys().map(|&id| region(snapshot, known, ids, id)).collect();
        let rows = Rows::new(0, &[], &[]).expect("nothing is even");
        let mut market = Market { regions, groups: members, rows, plain: vec![], unsure: vec![] };
        market.price(snapshot, costs);
        Ok(market)
    }

    /// One that is of no snapshot: regions by column, and the costs of its rows. For simulations.
    pub fn of(regions: Vec<MarketRegion>, rows: Rows) -> Market {
        Market { regions, groups: vec![], rows, plain: vec![], unsure: vec![] }
    }

    /// Works out the costs of all rows; whether any of them, or what is to be explored, is another.
    pub fn price(&mut self, snapshot: &Snapshot, costs: &dyn Costs) -> bool {
        let facts = &snapshot.geography().facts;
        let width = self.regions.len();
        let sites: Vec<Site<'_>> = self.regions.iter().map(MarketRegion::site).collect();
        let mut plain = Vec::with_capacity(facts.len() * width);
        costs.fill(facts, &sites, &mut plain);
        let moved = moved(&mut self.plain, plain);
        if moved {
            self.rows = self.joined(snapshot);
        }
        let mut near = vec![0; facts.len()];
        for row in 0..self.rows.len() {
            near[row % facts.len()] |= self.near(row);
        }
        costs.unsure(facts, &sites, &mut near);
        std::mem::replace(&mut self.unsure, near) != self.unsure || moved
    }

    /// The rows of all groups, with bias and money.
    fn joined(&self, snapshot: &Snapshot) -> Rows {
        let facts = &snapshot.geography().facts;
        let (width, plain) = (self.regions.len(), &self.plain);
        let steered: Vec<&MarketGroup> = self.groups.iter().filter(|group| group.first_row.is_some()).collect();
        let mut all = Vec::with_capacity(steered.len() * plain.len());
        let mut joined = Vec::with_capacity(steered.len() * facts.len());
        for group in steered {
            let plan = &snapshot.geography().plans[group.plan as usize];
            let extra = self.extra_ms(snapshot, group);
            for (cell, (plain, facts)) in plain.chunks_exact(width.max(1)).zip(facts).enumerate() {
                let start = all.len();
                all.resize(start + width, f32::INFINITY);
                let choice = plan.choice(CellId(cell as u16));
                if choice.policy == Policy::Nearest {
                    for option in &choice.options {
                        if let Some(column) = group.column(option.region) {
                            all[start + usize::from(column)] =
                                plain[usize::from(column)] + option.bias as f32 + extra[usize::from(column)];
                        }
                    }
                }
                joined.push(facts.group);
            }
        }
        Rows::new(width, &all, &joined).expect("as many costs as cells and regions, which are few enough")
    }

    /// The columns behind the best of a row that cost little more.
    fn near(&self, row: usize) -> Mask {
        let mut sorted = self.rows.sorted(row);
        let Some((_, least)) = sorted.next() else { return 0 };
        let near = sorted.take_while(|(_, cost)| *cost <= least + EXPLORE_MS);
        near.fold(0, |mask, (column, _)| mask | 1 << column)
    }

    /// By column: ms that the zone of a group adds to regions that are dear.
    fn extra_ms(&self, snapshot: &Snapshot, group: &MarketGroup) -> Vec<f32> {
        let zone = snapshot.sample(snapshot.groups()[group.group as usize].fleet);
        let Some(money) = &zone.money else { return vec![0.0; self.regions.len()] };
        let price =
            |column: usize| group.region(column as u8).and_then(|region| zone.regions[usize::from(region)].cost);
        let prices: Vec<Option<f64>> = (0..self.regions.len()).map(price).collect();
        money.extra_ms(&prices).into_iter().map(|ms| ms as f32).collect()
    }

    /// Starts/s of each row, from those of each cell of each group; and by region the starts/s that other policies send there.
    pub fn demand<'d>(
        &self,
        snapshot: &Snapshot,
        by_cell: impl Fn(u32) -> Option<&'d [f64]>,
        rows: &mut Vec<f64>,
    ) -> Vec<f64> {
        rows.clear();
        rows.resize(self.rows.len(), 0.0);
        let mut fixed = vec![0.0; self.regions.len()];
        for member in &self.groups {
            // Demand of another load is of other cells.
            let cells = snapshot.geography().facts.len();
            let Some(demand) = by_cell(member.group).filter(|demand| demand.len() == cells) else { continue };
            let plan = &snapshot.geography().plans[member.plan as usize];
            if let Some(first) = member.first_row {
                let end = (first + demand.len()).min(rows.len());
                rows[first..end].copy_from_slice(&demand[..end - first]);
            }
            let up = up(snapshot, snapshot.groups()[member.group as usize].fleet);
            for (cell, &starts) in demand.iter().enumerate().filter(|(_, starts)| **starts > 0.0) {
                let cell = CellId(cell as u16);
                if member.first_row.is_none() || plan.choice(cell).policy != Policy::Nearest {
                    for (region, part) in first_tier(plan.prior.ranking(cell), up) {
                        if let Some(column) = member.column(region) {
                            fixed[usize::from(column)] += starts * part;
                        }
                    }
                }
            }
        }
        fixed
    }

    /// Where the rows go while nobody is priced: to the least cost of the regions that are open, of all if none is.
    pub fn nearest(&self, open: Mask) -> Table {
        let first = |row| {
            let least = self.rows.sorted(row).find(|(region, _)| open >> region & 1 == 1);
            least.or_else(|| self.rows.sorted(row).next()).map_or(Mix::EMPTY, |(region, _)| Mix::only(region))
        };
        Table::new((0..self.rows.len()).map(first).collect())
    }

    /// What the loss of one region would send to another while nobody is priced: starts/s by lost column × regions + the
    /// column they go to.
    pub fn inherited(&self, open: Mask, demand: &[f64]) -> Vec<f64> {
        let count = self.regions.len();
        let mut rates = vec![0.0; count * count];
        for (row, starts) in demand.iter().enumerate().take(self.rows.len()).filter(|(_, starts)| **starts > 0.0) {
            let mut sorted = self.rows.sorted(row).filter(|(region, _)| open >> region & 1 == 1);
            if let (Some((first, _)), Some((second, _))) = (sorted.next(), sorted.next()) {
                rates[usize::from(first) * count + usize::from(second)] += starts;
            }
        }
        rates
    }
}

/// The regions of snapshot and load board, matched.
struct Ids {
    /// By fleet of the compilation: its regions.
    of_fleet: Vec<Arc<[RegionId]>>,
    /// By fleet: the labels of its zones, sorted.
    zones: Vec<Arc<[Arc<str>]>>,
}

impl Ids {
    fn of(snapshot: &Snapshot, known: &Known) -> Ids {
        let mut labels: HashMap<u32, Arc<[RegionId]>> = HashMap::new();
        // While files are read anew the board may know others than the snapshot has: it is steered by load once both agree.
        let of = |fleet: u32| {
            let zone = snapshot.sample(fleet);
            let names = zone.regions.iter().map(|region| &region.name);
            let ids = known.of_zone(&zone.label())?;
            ids.iter().map(|id| &known.regions[id.0 as usize].name).eq(names).then(|| Arc::from(ids))
        };
        for fleet in snapshot.groups().iter().map(|group| group.fleet) {
            labels.entry(fleet).or_insert_with(|| of(fleet).unwrap_or_default());
        }
        let count = labels.keys().max().map_or(0, |last| last + 1);
        let zones = |fleet: u32| {
            let mut zones: Vec<Arc<str>> =
                snapshot.zones_of(fleet).map(|zone| snapshot.zones()[zone as usize].zone.label()).collect();
            zones.sort_unstable();
            zones.into()
        };
        Ids {
            of_fleet: (0..count).map(|fleet| labels.get(&fleet).cloned().unwrap_or_default()).collect(),
            zones: (0..count).map(zones).collect(),
        }
    }

    /// The regions of its fleet that a group's clients may be sent to, as far as the board knows them.
    fn mask(&self, snapshot: &Snapshot, group: u32) -> Mask {
        let group = &snapshot.groups()[group as usize];
        let known = self.of_fleet[group.fleet as usize].len() as u32;
        let regions = snapshot.stream(group.streams[0]).regions;
        if known >= Mask::BITS { regions } else { regions & ((1 << known) - 1) }
    }

    /// Groups that share regions, for each set of them in which something is steered by load.
    fn components(&self, snapshot: &Snapshot) -> Vec<Vec<u32>> {
        let mut parent: Vec<u32> = (0..snapshot.groups().len() as u32).collect();
        fn root(parent: &mut [u32], mut at: u32) -> u32 {
            while parent[at as usize] != at {
                parent[at as usize] = parent[parent[at as usize] as usize];
                at = parent[at as usize];
            }
            at
        }
        let mut first: HashMap<RegionId, u32> = HashMap::new();
        for group in 0..parent.len() as u32 {
            let fleet = snapshot.groups()[group as usize].fleet;
            for region in bits(self.mask(snapshot, group)) {
                let id = self.of_fleet[fleet as usize][usize::from(region)];
                let other = *first.entry(id).or_insert(group);
                let (a, b) = (root(&mut parent, group), root(&mut parent, other));
                parent[a.max(b) as usize] = a.min(b);
            }
        }
        let mut sets: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for group in 0..parent.len() as u32 {
            sets.entry(root(&mut parent, group)).or_default().push(group);
        }
        let steered = |set: &Vec<u32>| set.iter().any(|group| plan(snapshot, *group).spec.by_load);
        sets.into_values().filter(steered).collect()
    }
}

fn region(snapshot: &Snapshot, known: &Known, ids: &Ids, id: RegionId) -> MarketRegion {
    let of = known.region_at(id);
    let uses = (0u32..).zip(&ids.of_fleet).flat_map(|(fleet, regions)| {
        let positions = regions.iter().zip(0u8..).filter(|(known, _)| **known == id);
        positions.map(move |(_, region)| (fleet, region))
    });
    // A board that is not of this very snapshot may know a region more than the zone has.
    let is_there = |(fleet, region): &(u32, u8)| usize::from(*region) < snapshot.sample(*fleet).regions.len();
    let uses: Vec<(u32, u8)> = uses.filter(is_there).collect();
    let &(fleet, position) = uses.first().expect("a column is a region that some group is sent to");
    let zone = snapshot.sample(fleet);
    let settings = &zone.regions[usize::from(position)];
    MarketRegion {
        id,
        name: Arc::clone(&of.name),
        zone: zone.label(),
        zones: uses.iter().map(|&(fleet, _)| Arc::clone(&ids.zones[fleet as usize])).collect(),
        uses,
        servers: of.members.len() as u32,
        capacity: of.size.capacity,
        session_bits: of.size.session_bits.unwrap_or(zone.session_bits),
        cost: settings.cost,
        location: settings.location,
    }
}

/// Takes what moved by 2 ms or more; whether anything did. Less is noise, and would make all answers anew every few seconds.
fn moved(known: &mut Vec<f32>, now: Vec<f32>) -> bool {
    if known.len() != now.len() {
        *known = now;
        return true;
    }
    let mut any = false;
    for (known, now) in known.iter_mut().zip(now) {
        if (*known - now).abs() >= STILL_MS {
            (*known, any) = (now, true);
        }
    }
    any
}

fn plan(snapshot: &Snapshot, group: u32) -> &Plan {
    &snapshot.geography().plans[snapshot.groups()[group as usize].plan as usize]
}

/// The regions of a fleet that are up for either family.
fn up(snapshot: &Snapshot, fleet: u32) -> Mask {
    let (_, state) = snapshot.fleet_at(fleet);
    Family::BOTH.into_iter().fold(0, |mask, family| mask | state.up(family))
}

/// Who is given to a cell's clients where prices have no say, and in which parts.
fn first_tier(ranking: &[Ranked], up: Mask) -> impl Iterator<Item = (u8, f64)> {
    let up = if ranking.iter().any(|ranked| up >> ranked.region & 1 == 1) { up } else { Mask::MAX };
    let tier = crate::steering::pick::tier(ranking, up);
    let weights: f64 = tier.clone().map(|ranked| f64::from(ranked.weight)).sum();
    tier.map(move |ranked| (ranked.region, f64::from(ranked.weight) / weights))
}

fn bits(mask: Mask) -> impl Iterator<Item = u8> {
    (0..Mask::BITS as u8).filter(move |bit| mask >> bit & 1 == 1)
}
