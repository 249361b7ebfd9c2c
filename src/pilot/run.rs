//! A market within a snapshot: what its plan needs of the snapshot, and the rankings that become of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::config::settings::Family;
use crate::load::known::RegionId;
use crate::load::{Expected, State};
use crate::snapshot::Snapshot;
use crate::steering::cost::Costs;
use crate::steering::pick::Mask;
use crate::steering::plan::Rankings;

use super::course::{Asked, Condition, Course, Decision, HORIZON_S};
use super::heritage::Heritage;
use super::market::Market;
use super::publish;
use super::saved::Saved;
use super::size::{self, Sizes};
use super::view::MarketView;
use super::{Change, Demand};

pub struct Run {
    course: Course,
    /// Queries/s by row.
    asked: Vec<f64>,
    /// Groups all of whose answers are brief, ahead of an event.
    brief_groups: BTreeSet<u32>,
    /// What is published may have it otherwise.
    rebrief: bool,
    sizes: Sizes,
}

impl Run {
    pub fn new(market: Market, snapshot: &Snapshot, saved: &Saved) -> Run {
        let condition = condition(&market, snapshot);
        let course = Course::new(market, condition, saved);
        Run { course, asked: vec![], brief_groups: BTreeSet::new(), rebrief: false, sizes: Sizes::default() }
    }

    /// Whether another market has the same rows and regions, so that what holds here would hold there.
    pub fn fits(&self, market: &Market) -> bool {
        self.course.fits(market)
    }

    /// Goes on with a market that [`Run::fits`]: files were read anew.
    pub fn with(self, market: Market) -> Run {
        Run { course: self.course.with(market), rebrief: true, sizes: Sizes::default(), ..self }
    }

    /// Takes over what another run had for the same streams and regions. `before`: the snapshot that it was of.
    pub fn inherit(&mut self, snapshot: &Snapshot, run: &Run, before: &Snapshot) {
        let heritage = Heritage::of(self.course.market(), snapshot, run.course.market(), before);
        self.course.inherit(&run.course, &heritage);
    }

    /// Whether its plans are made here.
    pub fn steers(&self, group: u32) -> bool {
        self.course.market().groups.iter().any(|member| member.group == group && member.first_row.is_some())
    }

    /// All answers of these groups are to be brief, as of the next step.
    pub fn be_brief(&mut self, groups: &BTreeSet<u32>) {
        let own: BTreeSet<u32> = groups.iter().copied().filter(|group| self.steers(*group)).collect();
        self.rebrief |= own != self.brief_groups;
        self.brief_groups = own;
    }

    pub fn save(&self, saved: &mut Saved) {
        self.course.save(saved);
    }

    pub fn price(&mut self, snapshot: &Snapshot, costs: &dyn Costs) {
        self.course.reprice(|market| market.price(snapshot, costs));
    }

    /// The table that was prepared, if just one region went away since the last step.
    pub fn react(&mut self, snapshot: &Snapshot) -> Vec<Change> {
        let condition = condition(self.course.market(), snapshot);
        if self.course.react(condition.closed, condition.down) { self.changes(snapshot) } else { vec![] }
    }

    pub fn step(&mut self, snapshot: &Snapshot, states: &[State], demand: &dyn Demand, now: Instant) -> Vec<Change> {
        let market = self.course.market();
        let fixed = market.demand(snapshot, |group| demand.by_cell(group), &mut self.asked);
        let condition = condition(market, snapshot);
        let open = !condition.closed;
        let is_measured = !market.groups.iter().any(|member| demand.is_raised(member.group));
        let asked = Asked { rows: &self.asked, fixed: &fixed, is_measured };
        let decision = self.course.step(condition, states, asked, now);
        if self.course.is_known() {
            let (asked, started) = (self.course.asked(), self.course.demand());
            let rates = size::Rates { asked, fixed: &fixed, started, demand };
            // While viewers come back, what they ask foretells nothing.
            self.sizes.look(self.course.market(), snapshot, open, rates, self.course.is_calm(), now);
        }
        let rebrief = std::mem::take(&mut self.rebrief);
        match decision {
            Decision::Keep if !rebrief => vec![],
            Decision::Keep | Decision::Publish => self.changes(snapshot),
            // Rankings of the solver may have outlived a reload; nobody else would look after them.
            Decision::GoHome => self.home(snapshot, rebrief),
        }
    }

    /// The plans' own rankings, where others are published, or everywhere.
    fn home(&self, snapshot: &Snapshot, everywhere: bool) -> Vec<Change> {
        let prior = |plan: u32| &snapshot.geography().plans[plan as usize].prior;
        let steered = self.course.market().groups.iter().filter(|member| member.first_row.is_some());
        let other = steered.filter(|member| everywhere || snapshot.rankings_of(member.group).is_solved());
        other.map(|member| (member.group, self.as_brief(member.group, prior(member.plan)))).collect()
    }

    fn changes(&self, snapshot: &Snapshot) -> Vec<Change> {
        let of = |member| {
            let rankings = Arc::new(publish::rankings(snapshot, &self.course, member)?);
            Some((member.group, self.as_brief(member.group, &rankings)))
        };
        self.course.market().groups.iter().filter_map(of).collect()
    }

    fn as_brief(&self, group: u32, rankings: &Arc<Rankings>) -> Arc<Rankings> {
        match self.brief_groups.contains(&group) {
            true => Arc::new(rankings.as_ref().clone().with_brief(Mask::MAX)),
            false => Arc::clone(rankings),
        }
    }

    /// What is sent to its regions, by the plan and the demand of the last step.
    pub fn expected(&self) -> impl Iterator<Item = (RegionId, Expected)> + '_ {
        self.course.expected()
    }

    pub fn is_disturbed(&self, snapshot: &Snapshot) -> bool {
        self.course.is_disturbed(condition(self.course.market(), snapshot).closed)
    }

    pub fn has_to_prepare(&self) -> bool {
        self.course.has_to_prepare()
    }

    /// Prepares one table for a loss that has none yet, the most loaded region first.
    pub fn prepare(&mut self) -> bool {
        self.course.prepare()
    }

    pub fn view(&self) -> MarketView {
        let mut view = self.course.view();
        for (column, region) in view.regions.iter_mut().enumerate() {
            let (state, supply) = (self.course.states().get(column), self.course.supply().get(column));
            region.scaling = self.sizes.scaling(self.course.market(), column, state, supply, HORIZON_S);
        }
        view
    }
}

/// By column: whether nobody may be sent there, whether that is because it is down, and what part of the capacity ramps and
/// drains leave.
fn condition(market: &Market, snapshot: &Snapshot) -> Condition {
    let mut condition = Condition::default();
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
        condition.closed |= Mask::from(part == 0.0) << column;
        condition.down |= Mask::from(!any_up) << column;
        condition.parts.push(part);
    }
    condition
}
