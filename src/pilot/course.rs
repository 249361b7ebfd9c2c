//! The plan of one market from step to step, apart from where its inputs come from and where its tables go: what is asked,
//! what regions report and which of them are open in; the table to answer by out.

use std::time::{Duration, Instant};

use crate::load::known::RegionId;
use crate::load::{Expected, State, Trust};
use crate::steering::pick::Mask;
use crate::steering::solve::loss::{Spare, Spares};
use crate::steering::solve::movement::{self, Limits, PART_A_SECOND};
use crate::steering::solve::{Certificate, Problem, Solution, Solver, Supply, Table};

use super::audience::Audience;
use super::comeback::{Back, Comeback};
use super::flow::{Flow, Push};
use super::market::{Market, MarketRegion};
use super::publish::NEARLY_FULL;
use super::saved::Saved;
use super::scales::Scales;
use super::view::Stage;

mod carry;
mod view;

/// How far ahead loads are planned, s.
pub const HORIZON_S: f64 = 60.0;
/// Answers of before are followed for about so long, s: most for half a TTL of 20 s, some for minutes (STEERING §1).
const LAG_S: f64 = 25.0;
/// Without any report for so long, prices have nothing left to stand on.
const GIVE_UP: Duration = Duration::from_secs(900);
/// What is known of the load this soon after the start is acted upon at once: caches still hold the answers of before.
const YOUNG: Duration = Duration::from_secs(30);
/// A step after a longer pause may move no more than one after this.
const LONGEST_STRIDE: Duration = Duration::from_secs(5);

/// Which regions may be sent to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// Nobody may be sent there: bit r for column r.
    pub closed: Mask,
    /// Of these, those that are down. The others are drained: their viewers leave one by one.
    pub down: Mask,
    /// By column: what part of the capacity ramps and drains leave, 0 to 1.
    pub parts: Vec<f64>,
}

/// What is asked, as our own answers tell. Queries/s that begin a session.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub rows: &'a [f64],
    /// By column: of streams that prices have no say in.
    pub fixed: &'a [f64],
    /// Nothing of it is a mere expectation.
    pub is_measured: bool,
}

/// What is to be done after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// What stands is good enough.
    Keep,
    /// [`Course::table`] is another.
    Publish,
    /// Loads are not known any more: the rankings that hold without any.
    GoHome,
}

pub struct Course {
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
    solution: Option<Solution>,
    stage: Stage,
    condition: Condition,
    states: Vec<State>,
    supply: Vec<Supply>,
    /// Starts/s by row: queries, and queries scaled.
    asked: Vec<f64>,
    demand: Vec<f64>,
    scales: Scales,
    /// By column: starts/s that still follow answers of before, more (or less) than the table sends there.
    backlog: Vec<f64>,
    audience: Audience,
    comeback: Comeback,
    heard: Option<Instant>,
    born: Option<Instant>,
    stepped: Option<Instant>,
    moved: f64,
    /// What was closed when the table was made, if it is that of the nearest.
    home: Option<Mask>,
    /// Rankings are to be made anew even if no share is another.
    again: bool,
    /// A region went: what stands is to be looked at anew.
    event: bool,
}

impl Course {
    pub fn new(market: Market, condition: Condition, saved: &Saved) -> Course {
        let count = market.regions.len();
        let learned = |region: &MarketRegion| saved.regions.get(&region.label());
        let flow = |region: &MarketRegion| {
            learned(region).and_then(|learned| learned.dwell_s).map_or_else(Flow::default, Flow::restored)
        };
        let flows: Vec<Flow> = market.regions.iter().map(flow).collect();
        let known: Vec<Option<f64>> = market.regions.iter().map(|region| learned(region)?.scale).collect();
        let published = market.nearest(!condition.closed);
        let scales = Scales::restored(&published, &known);
        let home = Some(condition.closed);
        Course {
            solver: Solver::new(),
            spares: Spares::default(),
            prepared: vec![None; count],
            published,
            brief: vec![false; count],
            solution: None,
            stage: Stage::Unreported,
            condition,
            states: vec![],
            supply: vec![],
            asked: vec![],
            demand: vec![],
            scales,
            backlog: vec![0.0; count],
            audience: Audience::default(),
            comeback: Comeback::default(),
            heard: None,
            born: None,
            stepped: None,
            moved: 0.0,
            home,
            again: false,
            event: true,
            flows,
            market,
        }
    }

    pub fn market(&self) -> &Market {
        &self.market
    }

    /// Queries/s by row, as of the last step; while viewers come back who lost a region, as it was before.
    pub fn asked(&self) -> &[f64] {
        &self.asked
    }

    /// Whether it is known how many session starts a query stands for.
    pub fn is_known(&self) -> bool {
        self.scales.are_known()
    }

    /// Session starts/s by row.
    pub fn demand(&self) -> &[f64] {
        &self.demand
    }

    /// Whether what is asked is what viewers want: hardly anybody comes back who lost a region.
    pub fn is_calm(&self) -> bool {
        self.comeback.is_calm()
    }

    /// By column, what is believed of regions.
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// By column, as the last step saw it.
    pub fn supply(&self) -> &[Supply] {
        &self.supply
    }

    /// The table to answer by.
    pub fn table(&self) -> &Table {
        &self.published
    }

    /// ms by column, as last solved; empty where nothing is.
    pub fn prices(&self) -> &[f64] {
        self.solution.as_ref().map_or(&[], |solution| &solution.prices)
    }

    /// How far what was last solved is from the best.
    pub fn certificate(&self) -> Option<Certificate> {
        self.solution.as_ref().map(|solution| solution.certificate)
    }

    /// Columns that nobody may be sent to.
    pub fn closed(&self) -> Mask {
        self.condition.closed
    }

    /// By column: whether answers should not live long.
    pub fn brief(&self) -> &[bool] {
        &self.brief
    }

    /// Lets the market take in other costs, of as many rows and regions as before. That is no event: what follows of it moves
    /// as slowly as anything else.
    pub fn reprice(&mut self, price: impl FnOnce(&mut Market) -> bool) {
        if price(&mut self.market) {
            self.home = None;
            // What is explored may be another part of the answers, though nobody need move.
            self.again = true;
        }
    }

    /// Takes the table that was prepared, if just one region went away since the last step. True if it is to be published.
    pub fn react(&mut self, closed: Mask, down: Mask) -> bool {
        let gone = closed & !self.condition.closed;
        if self.stage == Stage::Unreported || gone.count_ones() != 1 {
            return false;
        }
        let Some(spare) = self.prepared[gone.trailing_zeros() as usize].take() else { return false };
        self.mourn(gone & down, self.stepped);
        self.condition.closed |= gone;
        self.condition.down |= gone & down;
        self.event = true;
        self.publish(spare.table);
        let full = |utilisation: &Option<f64>| utilisation.is_some_and(|u| u > NEARLY_FULL);
        self.brief = spare.utilisation.iter().map(full).collect();
        true
    }

    /// Answers are made of this table from now on.
    fn publish(&mut self, table: Table) {
        let rates = |table: &Table| table.rates(&self.demand, self.backlog.len());
        let (before, after) = (rates(&self.published), rates(&table));
        for (column, (before, after)) in before.into_iter().zip(after).enumerate() {
            // Who is sent to a region that is down does not arrive.
            let lives = self.condition.down >> column & 1 == 0;
            self.backlog[column] = if lives { self.backlog[column] + before - after } else { 0.0 };
        }
        self.published = table;
        self.home = None;
        // Those tables belong to a world that is gone.
        self.prepared.iter_mut().for_each(|spare| *spare = None);
    }

    /// Notes whose viewers will come back.
    fn mourn(&mut self, gone: Mask, now: Option<Instant>) {
        // Before it is known what a query stands for, nobody is sent anywhere, and everything that is asked helps to learn it.
        let Some(at) = now.filter(|_| self.scales.are_known()) else { return };
        for column in (0..self.market.regions.len()).filter(|column| gone >> column & 1 == 1) {
            let Some(&supply) = self.supply.get(column) else { continue };
            let viewers = self.audience.of(column, self.flows[column].sessions());
            self.comeback.lose(column, at, supply, viewers, self.demand.iter().sum());
            self.audience.leave(column);
        }
    }

    /// Looks at everything anew. `states`: what is believed of the regions, by [`RegionId`].
    pub fn step(&mut self, condition: Condition, states: &[State], asked: Asked<'_>, now: Instant) -> Decision {
        let stride = self.stepped.map_or(Duration::from_secs(1), |last| now.saturating_duration_since(last));
        // Viewers of a region that was drained have left it one by one.
        self.mourn(condition.down & !self.condition.closed, Some(now));
        // One that comes back is no fault: viewers are led there as slowly as elsewhere.
        self.event |= condition.closed & !self.condition.closed != 0;
        let again = std::mem::take(&mut self.again);
        self.condition = condition;
        let was_calm = self.comeback.is_calm();
        self.comeback.pass(now);
        self.stepped = Some(now);

        // For a while after a loss demand stays what it was: what players ask when they reconnect is no new demand.
        if self.comeback.is_calm() || self.asked.len() != self.market.rows.len() {
            self.asked.clear();
            self.asked.extend_from_slice(asked.rows);
            self.asked.resize(self.market.rows.len(), 0.0);
            if !was_calm {
                self.scales.settle(&self.asked, self.demand.iter().sum());
            }
        }
        let back = self.comeback.look(&self.published, self.flows.len(), stride.as_secs_f64(), now);
        self.look(states, asked, back.as_ref(), stride.as_secs_f64(), now);
        let dwell: Vec<f64> = self.flows.iter().map(Flow::dwell_s).collect();
        self.audience.pass(&self.published, &self.demand, &dwell, now);
        self.turn_stage(now);
        self.supply = self.supplies(asked.fixed, back.as_ref());
        let extra = back.map(|back| back.rates);
        let is_young = now.saturating_duration_since(*self.born.get_or_insert(now)) < YOUNG;
        self.event &= is_young || self.stage != Stage::Unreported;
        let budget = stride.min(LONGEST_STRIDE).as_secs_f64() * PART_A_SECOND * self.demand.iter().sum::<f64>();
        match self.stage {
            Stage::Unreported => self.stay_home(),
            Stage::Returning => self.return_home(budget),
            Stage::Steered | Stage::Blind => {
                let event = std::mem::take(&mut self.event);
                self.steer(extra.as_deref(), budget, event, again)
            }
        }
    }

    /// What is believed of each region now, and what follows for the scale of demand.
    fn look(&mut self, states: &[State], asked: Asked<'_>, back: Option<&Back>, elapsed_s: f64, now: Instant) {
        let run_out = -(-elapsed_s / LAG_S).exp_m1();
        let (queries, scales) = (self.published.rates(&self.asked, self.flows.len()), self.region_scales());
        self.states.clear();
        for (column, region) in self.market.regions.iter().enumerate() {
            let state = states.get(region.id.0 as usize).copied().unwrap_or(State::UNKNOWN);
            let change = -self.backlog[column] * run_out;
            self.backlog[column] += change;
            let returning = back.map_or(0.0, |back| back.arrivals[column]);
            let sent = (queries[column] + self.backlog[column] / scales[column]).max(0.0);
            self.flows[column].feed(&state, Push { change, returning }, sent, self.comeback.is_calm(), now);
            self.states.push(state);
        }
        Flow::share_length(&mut self.flows, elapsed_s);
        let revisions: Vec<f64> = self.flows.iter_mut().map(Flow::take_revision).collect();
        self.scales.revise(&self.published, &revisions);
        self.scale_demand();
        if self.comeback.is_calm() && asked.is_measured {
            let starts: Vec<Option<f64>> = self.flows.iter().map(Flow::starts).collect();
            self.scales.learn(&self.published, &starts, &self.flowing(asked.fixed), elapsed_s);
            self.scale_demand();
        }
    }

    fn scale_demand(&mut self) {
        self.scales.apply(&self.asked, &mut self.demand);
    }

    /// By column: starts/s that should arrive now.
    fn flowing(&self, fixed: &[f64]) -> Vec<f64> {
        let rates = self.published.rates(&self.demand, self.market.regions.len());
        let scales = self.region_scales();
        let fixed = |column: usize| fixed.get(column).copied().unwrap_or(0.0) * scales[column];
        let all = rates.iter().zip(&self.backlog).enumerate();
        all.map(|(column, (rate, backlog))| (rate + backlog).max(0.0) + fixed(column)).collect()
    }

    /// By column: session starts for a query of those who are sent there; of all where nobody is.
    fn region_scales(&self) -> Vec<f64> {
        self.scales.by_column(&self.published, &self.asked, self.flows.len())
    }

    /// What is sent to its regions, by the plan and the demand of the last step.
    pub fn expected(&self) -> impl Iterator<Item = (RegionId, Expected)> + '_ {
        let flowing = self.flowing(&[]);
        self.market.regions.iter().enumerate().map(move |(column, region)| {
            let open = self.condition.closed >> column & 1 == 0;
            let starts_per_s = if open { flowing.get(column).copied().unwrap_or(0.0) } else { 0.0 };
            (region.id, Expected { starts_per_s, session: Duration::from_secs_f64(self.flows[column].dwell_s()) })
        })
    }

    fn turn_stage(&mut self, now: Instant) {
        let trusts = || self.states.iter().map(|state| state.majority);
        // Without a scale nobody knows what a query stands for.
        let reported = self.scales.are_known() && trusts().any(|trust| trust < Trust::Lost);
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

    fn supplies(&self, fixed: &[f64], back: Option<&Back>) -> Vec<Supply> {
        let rates = self.published.rates(&self.demand, self.market.regions.len());
        let scales = self.region_scales();
        let doubt = self.common_doubt();
        let of = |(column, region): (usize, &MarketRegion)| {
            let (state, flow) = (&self.states[column], &self.flows[column]);
            // What tells nothing is as full as what is sent there makes it in the end.
            let load = flow.sessions().or(state.load());
            let load = load.unwrap_or(rates.get(column).copied().unwrap_or(0.0) * flow.dwell_s());
            // What still comes by answers of before comes whatever is answered now.
            let coming = self.backlog[column] * LAG_S * -(-HORIZON_S / LAG_S).exp_m1();
            Supply {
                // Reports may tell a capacity where none is written, and lower one that is.
                capacity: state.capacity.or(region.capacity).map(|capacity| capacity / doubt),
                part: self.condition.parts.get(column).copied().unwrap_or(1.0),
                load: (load + coming + back.map_or(0.0, |back| back.headed[column])).max(0.0),
                dwell: flow.dwell_s(),
                fixed: fixed.get(column).copied().unwrap_or(0.0) * scales[column],
                closed: self.condition.closed >> column & 1 == 1,
            }
        };
        self.market.regions.iter().enumerate().map(of).collect()
    }

    /// What part of the capacities the age of reports takes from all alike. A region that is silent for a minute is to have
    /// less than the others; when all are, it is we who do not hear, and no viewer is better off elsewhere. For minutes, that
    /// is: then nobody knows what has become of demand, and all are to have room.
    fn common_doubt(&self) -> f64 {
        let open = (0..self.states.len()).filter(|column| self.condition.closed >> column & 1 == 0);
        match open.map(|column| self.states[column].majority).min() {
            Some(trust @ (Trust::Doubtful | Trust::Poor)) => trust.factor(),
            _ => 1.0,
        }
    }

    /// `again`: the table is to be published even if it stays.
    fn steer(&mut self, extra: Option<&[f64]>, budget: f64, event: bool, again: bool) -> Decision {
        let problem = Problem {
            rows: &self.market.rows,
            demand: &self.demand,
            extra,
            supply: &self.supply,
            published: Some(&self.published),
            horizon: HORIZON_S,
        };
        let solution = self.solver.solve(&problem);
        let free = event || !self.comeback.is_calm();
        let limits = Limits {
            budget: if free { f64::INFINITY } else { budget },
            closed: self.condition.closed,
            prices: &solution.prices,
        };
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
        if !is_worth_it && !again && brief == self.brief {
            return Decision::Keep;
        }
        self.moved = if total > 0.0 { moved.traffic / total } else { 0.0 };
        self.brief = brief;
        self.publish(moved.table);
        Decision::Publish
    }

    /// Nothing is known yet, or not any more: the nearest of those that are open.
    fn stay_home(&mut self) -> Decision {
        let closed = self.condition.closed;
        if self.home != Some(closed) {
            self.publish(self.market.nearest(!closed));
            self.home = Some(closed);
        }
        Decision::GoHome
    }

    /// Nothing is known any more: to the plans' own rankings, as slowly as any other move.
    fn return_home(&mut self, budget: f64) -> Decision {
        let home = self.market.nearest(!self.condition.closed);
        let limits = Limits { budget: budget.max(f64::MIN_POSITIVE), closed: self.condition.closed, prices: &[] };
        let moved = movement::step(&self.published, &home, &self.market.rows, &self.demand, &limits);
        self.solution = None;
        self.brief.fill(false);
        self.publish(moved.table);
        if !moved.complete && self.demand.iter().any(|starts| *starts > 0.0) {
            return Decision::Publish;
        }
        self.stage = Stage::Unreported;
        Decision::GoHome
    }

    /// Whether regions came or went since the last step, so that the next should not wait.
    pub fn is_disturbed(&self, closed: Mask) -> bool {
        self.event || self.again || closed != self.condition.closed
    }

    pub fn has_to_prepare(&self) -> bool {
        self.next_loss().is_some()
    }

    /// The most loaded region for whose loss nothing is prepared.
    fn next_loss(&self) -> Option<usize> {
        if self.solution.is_none() || self.supply.len() != self.market.regions.len() {
            return None;
        }
        let open = (0..self.supply.len()).filter(|column| self.condition.closed >> column & 1 == 0);
        let missing = open.filter(|column| self.prepared[*column].is_none());
        missing.max_by(|a, b| self.supply[*a].load.total_cmp(&self.supply[*b].load))
    }

    /// Prepares one table for a loss that has none yet, the most loaded region first.
    pub fn prepare(&mut self) -> bool {
        let Some(lost) = self.next_loss() else { return false };
        let mut viewers = vec![0.0; self.market.rows.len()];
        let seated = self.audience.of(lost, self.flows[lost].sessions());
        seated.for_each(|(row, sessions)| viewers[row] = sessions);
        let problem = Problem {
            rows: &self.market.rows,
            demand: &self.demand,
            extra: None,
            supply: &self.supply,
            published: Some(&self.published),
            horizon: HORIZON_S,
        };
        self.prepared[lost] = Some(self.spares.without(lost, &problem, Some(&viewers), &self.solver));
        true
    }
}
