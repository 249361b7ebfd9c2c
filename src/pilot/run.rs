//! One market from step to step.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::settings::Family;
use crate::load::known::RegionId;
use crate::load::{Expected, State, Trust};
use crate::snapshot::Snapshot;
use crate::steering::cost::Costs;
use crate::steering::pick::Mask;
use crate::steering::solve::loss::{FREEZE, Spare, Spares, returning};
use crate::steering::solve::movement::{self, Limits, PART_A_SECOND};
use crate::steering::solve::{Problem, Solution, Solver, Supply, Table};

use super::flow::Flow;
use super::market::{Market, MarketRegion};
use super::publish::{self, NEARLY_FULL};
use super::size::{self, Sizes};
use super::view::{MarketView, RegionView, Stage};
use super::{Change, Demand};

/// How far ahead loads are planned, s.
const HORIZON_S: f64 = 60.0;
/// Without any report for so long, prices have nothing left to stand on.
const GIVE_UP: Duration = Duration::from_secs(900);
/// What is known of the load this soon after the start is acted upon at once: caches still hold the answers of before.
const YOUNG: Duration = Duration::from_secs(30);
/// A step after a longer pause may move no more than one after this.
const LONGEST_STRIDE: Duration = Duration::from_secs(5);

/// Of a region that nobody knows of.
const NOTHING: State = State {
    sessions: None,
    utilization: None,
    capacity: None,
    starts_per_s: None,
    age: None,
    trust: Trust::Never,
    silent: 0,
};

/// What was learned of regions, by zone and name (`live.example/eu`); kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    pub regions: HashMap<Arc<str>, Learned>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// Session starts for a query; `None`: never told.
    pub scale: Option<f64>,
    /// Mean length of a session, s.
    pub dwell_s: f64,
}

pub struct Run {
    market: Market,
    solver: Solver,
    spares: Spares,
    /// By column: the table for its loss.
    prepared: Vec<Option<Spare>>,
    /// By column.
    flows: Vec<Flow>,
    /// The table that answers are made of.
    published: Table,
    /// Regions whose answers should not live long, by column, as published.
    brief: Vec<bool>,
    /// Groups all of whose answers are brief, ahead of an event.
    brief_groups: BTreeSet<u32>,
    solution: Option<Solution>,
    stage: Stage,
    closed: Mask,
    parts: Vec<f64>,
    states: Vec<State>,
    supply: Vec<Supply>,
    /// Starts/s by row: queries, and queries scaled.
    asked: Vec<f64>,
    demand: Vec<f64>,
    losses: Vec<Loss>,
    sizes: Sizes,
    heard: Option<Instant>,
    born: Option<Instant>,
    stepped: Option<Instant>,
    moved: f64,
    /// The snapshot may hold other rankings than those published last: files were read anew.
    again: bool,
    /// Loss tables were used, or costs are others: what stands is to be looked at anew.
    event: bool,
}

/// A region that went away a moment ago: its viewers come back all at once.
struct Loss {
    at: Instant,
    supply: Supply,
    /// Starts/s by row that went there.
    rates: Vec<(usize, f64)>,
}

impl Run {
    pub fn new(market: Market, snapshot: &Snapshot, saved: &Saved) -> Run {
        let count = market.regions.len();
        let learned = |name: Arc<str>| match saved.regions.get(&name) {
            Some(Learned { scale: Some(scale), dwell_s }) => Flow::restored(*scale, *dwell_s),
            _ => Flow::default(),
        };
        let flows: Vec<Flow> = market.regions.iter().map(|region| learned(region.label())).collect();
        let (closed, _, parts) = condition(&market, snapshot);
        let published = market.nearest(!closed);
        Run {
            solver: Solver::new(),
            spares: Spares::default(),
            prepared: vec![None; count],
            published,
            brief: vec![false; count],
            brief_groups: BTreeSet::new(),
            solution: None,
            stage: Stage::Unreported,
            closed,
            parts,
            states: vec![],
            supply: vec![],
            asked: vec![],
            demand: vec![],
            losses: vec![],
            sizes: Sizes::default(),
            heard: None,
            born: None,
            stepped: None,
            moved: 0.0,
            again: false,
            event: true,
            flows,
            market,
        }
    }

    /// Whether another market has the same rows and regions, so that what holds here would hold there.
    pub fn fits(&self, market: &Market) -> bool {
        let regions = |market: &Market| market.regions.iter().map(MarketRegion::label).collect::<Vec<_>>();
        let mut groups = self.market.groups.iter().zip(&market.groups);
        self.market.rows.len() == market.rows.len()
            && self.market.groups.len() == market.groups.len()
            && groups.all(|(before, now)| (&before.owner, before.first_row) == (&now.owner, now.first_row))
            && regions(&self.market) == regions(market)
    }

    /// Goes on with a market that [`Run::fits`]: files were read anew.
    pub fn with(mut self, market: Market) -> Run {
        self.prepared.iter_mut().for_each(|spare| *spare = None);
        Run { market, sizes: Sizes::default(), ..self }
    }

    pub fn be_brief(&mut self, groups: &BTreeSet<u32>) {
        self.brief_groups.clone_from(groups);
    }

    pub fn save(&self, saved: &mut Saved) {
        for (region, flow) in self.market.regions.iter().zip(&self.flows) {
            let learned = Learned { scale: flow.scale(), dwell_s: flow.dwell_s() };
            saved.regions.insert(region.label(), learned);
        }
    }

    pub fn market(&self) -> &Market {
        &self.market
    }

    pub fn price(&mut self, snapshot: &Snapshot, costs: &dyn Costs) {
        self.market.price(snapshot, costs);
        // What is explored may be another part of the answers, though nobody need move.
        self.again = true;
    }

    /// The table that was prepared, if just one region went away since the last step.
    pub fn react(&mut self, snapshot: &Snapshot) -> Vec<Change> {
        let (closed, down, _) = condition(&self.market, snapshot);
        let gone = closed & !self.closed;
        if self.stage == Stage::Unreported || gone.count_ones() != 1 {
            return vec![];
        }
        let Some(spare) = self.prepared[gone.trailing_zeros() as usize].take() else { return vec![] };
        self.mourn(gone & down, self.stepped);
        self.closed |= gone;
        self.event = true;
        self.published = spare.table;
        let full = |utilisation: &Option<f64>| utilisation.is_some_and(|u| u > NEARLY_FULL);
        self.brief = spare.utilisation.iter().map(full).collect();
        // Those tables belong to a world that is gone.
        self.prepared.iter_mut().for_each(|spare| *spare = None);
        self.changes(snapshot)
    }

    /// Notes whose viewers will come back.
    fn mourn(&mut self, gone: Mask, now: Option<Instant>) {
        let Some(at) = now else { return };
        for column in (0..self.market.regions.len()).filter(|column| gone >> column & 1 == 1) {
            let Some(&supply) = self.supply.get(column) else { continue };
            let part = |row: usize| self.published.row(row).part(column as u8);
            let rates = self.demand.iter().enumerate().map(|(row, starts)| (row, part(row) * starts));
            self.losses.push(Loss { at, supply, rates: rates.filter(|(_, rate)| *rate > 0.0).collect() });
        }
    }

    pub fn step(&mut self, snapshot: &Snapshot, states: &[State], demand: &dyn Demand, now: Instant) -> Vec<Change> {
        let stride = self.stepped.map_or(Duration::from_secs(1), |last| now.saturating_duration_since(last));
        let (closed, down, parts) = condition(&self.market, snapshot);
        // Viewers of a region that was drained have left it one by one.
        self.mourn(down & !self.closed, Some(now));
        self.event |= closed != self.closed;
        (self.closed, self.parts) = (closed, parts);
        self.losses.retain(|loss| now.saturating_duration_since(loss.at).as_secs_f64() < FREEZE);
        self.stepped = Some(now);

        let fixed = self.ask(snapshot, demand);
        self.look(states, now);
        self.scale_demand();
        self.turn_stage(now);
        self.supply = self.supplies(&fixed);
        let rates = size::Rates { asked: &self.asked, started: &self.demand, demand };
        // While viewers come back, what they ask foretells nothing.
        self.sizes.look(&self.market, snapshot, !self.closed, rates, self.losses.is_empty(), now);
        let extra = self.coming_back(now);
        let is_young = now.saturating_duration_since(*self.born.get_or_insert(now)) < YOUNG;
        self.event &= is_young || self.stage != Stage::Unreported;
        let budget = stride.min(LONGEST_STRIDE).as_secs_f64() * PART_A_SECOND * self.demand.iter().sum::<f64>();
        match self.stage {
            // Rankings of the solver may have outlived a reload; nobody would look after them.
            Stage::Unreported => self.home(snapshot),
            Stage::Returning => self.return_home(snapshot, budget),
            Stage::Steered | Stage::Blind => {
                let event = std::mem::take(&mut self.event);
                self.steer(snapshot, extra.as_deref(), budget, event)
            }
        }
    }

    /// Takes in demand; gives the rates of streams that prices have no say in, by column. For a while after a loss it stays
    /// what it was: what players ask when they reconnect is no new demand.
    fn ask(&mut self, snapshot: &Snapshot, demand: &dyn Demand) -> Vec<f64> {
        let mut asked = std::mem::take(&mut self.asked);
        if self.losses.is_empty() || asked.len() != self.market.rows.len() {
            let fixed = self.market.demand(snapshot, |group| demand.by_cell(group), &mut asked);
            self.asked = asked;
            return fixed;
        }
        let mut ignored = Vec::new();
        let fixed = self.market.demand(snapshot, |group| demand.by_cell(group), &mut ignored);
        self.asked = asked;
        fixed
    }

    /// What is believed of each region now.
    fn look(&mut self, states: &[State], now: Instant) {
        let asked = self.published.rates(&self.asked, self.market.regions.len());
        self.states.clear();
        for (column, region) in self.market.regions.iter().enumerate() {
            let state = states.get(region.id.0 as usize).copied().unwrap_or(NOTHING);
            if self.losses.is_empty() {
                self.flows[column].feed(&state, asked.get(column).copied().unwrap_or(0.0), now);
            }
            self.states.push(state);
        }
    }

    /// What is sent to its regions, by the plan and the demand of the last step.
    pub fn expected(&self) -> impl Iterator<Item = (RegionId, Expected)> + '_ {
        let rates = self.published.rates(&self.demand, self.market.regions.len());
        self.market.regions.iter().enumerate().map(move |(column, region)| {
            let open = self.closed >> column & 1 == 0;
            let starts_per_s = if open { rates.get(column).copied().unwrap_or(0.0) } else { 0.0 };
            (region.id, Expected { starts_per_s, session: Duration::from_secs_f64(self.flows[column].dwell_s()) })
        })
    }

    /// λ·Σ x·s: each region's scale counts for what goes there.
    fn scale_demand(&mut self) {
        let known: Vec<f64> = self.flows.iter().filter_map(Flow::scale).collect();
        // A region that tells nothing is like the others.
        let mean = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
        let scales: Vec<f64> = self.flows.iter().map(|flow| flow.scale().unwrap_or(mean)).collect();
        self.demand.clear();
        self.demand.extend(self.asked.iter().enumerate().map(|(row, asked)| {
            let mix = self.published.row(row);
            if mix.is_empty() {
                return asked * mean;
            }
            asked * mix.parts().map(|(column, part)| part * scales[usize::from(column)]).sum::<f64>()
        }));
    }

    fn turn_stage(&mut self, now: Instant) {
        let trusts = || self.states.iter().map(|state| state.trust);
        // Without a scale nobody knows what a query stands for.
        let scaled = self.flows.iter().any(|flow| flow.scale().is_some());
        let reported = scaled && trusts().any(|trust| !matches!(trust, Trust::Never | Trust::Lost));
        if reported {
            self.heard = Some(now);
        }
        let silent = self.heard.map(|heard| now.saturating_duration_since(heard));
        self.stage = match (self.stage, silent) {
            (_, None) => Stage::Unreported,
            (_, Some(silent)) if silent.is_zero() => Stage::Steered,
            // Once home, nothing is left to be done.
            (Stage::Unreported, Some(_)) => Stage::Unreported,
            (_, Some(silent)) if silent < GIVE_UP => Stage::Blind,
            _ => Stage::Returning,
        };
    }

    fn supplies(&self, fixed: &[f64]) -> Vec<Supply> {
        let rates = self.published.rates(&self.demand, self.market.regions.len());
        let of = |(column, region): (usize, &MarketRegion)| {
            let (state, flow) = (&self.states[column], &self.flows[column]);
            let scale = flow.scale().unwrap_or(1.0);
            Supply {
                // Reports may tell a capacity where none is written, and lower one that is.
                capacity: state.capacity.or(region.capacity),
                part: self.parts[column],
                // What tells nothing is as full as what is sent there makes it in the end.
                load: state.load().unwrap_or(rates.get(column).copied().unwrap_or(0.0) * flow.dwell_s()),
                dwell: flow.dwell_s(),
                fixed: fixed.get(column).copied().unwrap_or(0.0) * scale,
                closed: self.closed >> column & 1 == 1,
            }
        };
        self.market.regions.iter().enumerate().map(of).collect()
    }

    /// Starts/s by row of viewers who lost their region.
    fn coming_back(&self, now: Instant) -> Option<Vec<f64>> {
        if self.losses.is_empty() {
            return None;
        }
        let mut extra = vec![0.0; self.market.rows.len()];
        for loss in &self.losses {
            let since = now.saturating_duration_since(loss.at).as_secs_f64();
            for &(row, rate) in &loss.rates {
                extra[row] += returning(rate, &loss.supply, since, HORIZON_S);
            }
        }
        Some(extra)
    }

    fn steer(&mut self, snapshot: &Snapshot, extra: Option<&[f64]>, budget: f64, event: bool) -> Vec<Change> {
        let problem = Problem {
            rows: &self.market.rows,
            demand: &self.demand,
            extra,
            supply: &self.supply,
            published: Some(&self.published),
            horizon: HORIZON_S,
        };
        let solution = self.solver.solve(&problem);
        let free = event || !self.losses.is_empty();
        let limits =
            Limits { budget: if free { f64::INFINITY } else { budget }, closed: self.closed, prices: &solution.prices };
        let moved = movement::step(&self.published, &solution.table, &self.market.rows, &self.demand, &limits);
        let total: f64 = self.demand.iter().sum();
        let forecast = |table: &Table| -> Vec<Option<f64>> {
            let rates = table.rates(&self.demand, self.supply.len());
            rates.iter().zip(&self.supply).map(|(rate, supply)| supply.forecast(*rate, HORIZON_S)).collect()
        };
        let (now, then) = (forecast(&self.published), forecast(&moved.table));
        let is_worth_it = movement::is_worth_publishing(moved.traffic, total, &now, &then, event);
        self.solution = Some(solution);
        self.moved = 0.0;
        let brief: Vec<bool> = then.iter().map(|u| u.is_some_and(|u| u > NEARLY_FULL)).collect();
        let again = std::mem::take(&mut self.again);
        if !is_worth_it && !again && brief == self.brief {
            return vec![];
        }
        self.moved = if total > 0.0 { moved.traffic / total } else { 0.0 };
        (self.published, self.brief) = (moved.table, brief);
        self.prepared.iter_mut().for_each(|spare| *spare = None);
        self.changes(snapshot)
    }

    /// Nothing is known any more: to the plans' own rankings, as slowly as any other move.
    fn return_home(&mut self, snapshot: &Snapshot, budget: f64) -> Vec<Change> {
        let home = self.market.nearest(!self.closed);
        let limits = Limits { budget: budget.max(f64::MIN_POSITIVE), closed: self.closed, prices: &[] };
        let moved = movement::step(&self.published, &home, &self.market.rows, &self.demand, &limits);
        self.solution = None;
        self.brief.fill(false);
        self.published = moved.table;
        if !moved.complete && self.demand.iter().any(|starts| *starts > 0.0) {
            return self.changes(snapshot);
        }
        self.stage = Stage::Unreported;
        self.home(snapshot)
    }

    /// The plans' own rankings, where others are published.
    fn home(&self, snapshot: &Snapshot) -> Vec<Change> {
        let prior = |plan: u32| Arc::clone(&snapshot.geography().plans[plan as usize].prior);
        let steered = self.market.groups.iter().filter(|member| member.first_row.is_some());
        let solved = steered.filter(|member| snapshot.rankings_of(member.group).is_solved());
        solved.map(|member| (member.group, prior(member.plan))).collect()
    }

    fn changes(&self, snapshot: &Snapshot) -> Vec<Change> {
        let prices = self.solution.as_ref().map_or(&[][..], |solution| &solution.prices);
        let of = |member| {
            let (market, table) = (&self.market, &self.published);
            let rankings = publish::rankings(snapshot, market, member, table, prices, &self.brief, self.closed)?;
            let is_brief = self.brief_groups.contains(&member.group);
            Some((member.group, Arc::new(if is_brief { rankings.with_brief(Mask::MAX) } else { rankings })))
        };
        self.market.groups.iter().filter_map(of).collect()
    }

    pub fn is_disturbed(&self, snapshot: &Snapshot) -> bool {
        self.event || condition(&self.market, snapshot).0 != self.closed
    }

    pub fn has_to_prepare(&self) -> bool {
        self.next_loss().is_some()
    }

    /// The most loaded region for whose loss nothing is prepared.
    fn next_loss(&self) -> Option<usize> {
        if self.solution.is_none() || self.supply.len() != self.market.regions.len() {
            return None;
        }
        let open = (0..self.supply.len()).filter(|column| self.closed >> column & 1 == 0);
        let missing = open.filter(|column| self.prepared[*column].is_none());
        missing.max_by(|a, b| self.supply[*a].load.total_cmp(&self.supply[*b].load))
    }

    /// Prepares one table for a loss that has none yet, the most loaded region first.
    pub fn prepare(&mut self) -> bool {
        let Some(lost) = self.next_loss() else { return false };
        let problem = Problem {
            rows: &self.market.rows,
            demand: &self.demand,
            extra: None,
            supply: &self.supply,
            published: Some(&self.published),
            horizon: HORIZON_S,
        };
        self.prepared[lost] = Some(self.spares.without(lost, &problem, &self.solver));
        true
    }

    pub fn view(&self) -> MarketView {
        let count = self.market.regions.len();
        let rates = self.published.rates(&self.demand, count);
        let unconstrained = self.market.nearest(!self.closed).rates(&self.demand, count);
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
                closed: self.closed >> column & 1 == 1,
                utilization: sessions.zip(counted.filter(|counted| *counted > 0.0)).map(|(l, k)| l / k),
                planned: supply.and_then(|supply| supply.forecast(rates[column], HORIZON_S)),
                price_ms: self.solution.as_ref().map_or(0.0, |solution| solution.prices[column]),
                rate: rates[column],
                unconstrained_rate: unconstrained[column],
                dwell_s: flow.dwell_s(),
                scale: flow.scale().unwrap_or(1.0),
                scaling: self.sizes.scaling(&self.market, column, state, supply, HORIZON_S),
            }
        };
        let solution = self.solution.as_ref();
        MarketView {
            stage: self.stage,
            regions: (0..count).map(region).collect(),
            groups: self.market.groups.iter().map(|member| member.group).collect(),
            certificate: solution.map(|solution| solution.certificate),
            converged: solution.is_some_and(|solution| solution.converged),
            cold: solution.is_some_and(|solution| solution.cold),
            iterations: solution.map_or(0, |solution| solution.iterations),
            demand: self.demand.iter().sum(),
            moved: self.moved,
            at: self.stepped,
        }
    }
}

/// By column: whether nobody may be sent there, whether that is because it is down, and what part of the capacity ramps and
/// drains leave.
fn condition(market: &Market, snapshot: &Snapshot) -> (Mask, Mask, Vec<f64>) {
    let (mut closed, mut down) = (0, 0);
    let mut parts = Vec::with_capacity(market.regions.len());
    for (column, region) in market.regions.iter().enumerate() {
        // Zones that are set apart may have it otherwise, and look after what they drain themselves.
        let states =
            region.uses.iter().flat_map(|&(fleet, region)| snapshot.states_of(fleet).map(move |state| (state, region)));
        let mut any_up = false;
        let part = states.map(|(state, region)| {
            let up = Family::BOTH.into_iter().any(|family| state.up(family) >> region & 1 == 1);
            any_up |= up;
            if up { state.open().share(region).part() } else { 0.0 }
        });
        let part = part.fold(0.0, f64::max);
        closed |= Mask::from(part == 0.0) << column;
        down |= Mask::from(!any_up) << column;
        parts.push(part);
    }
    (closed, down, parts)
}
