//! The pilot: steers by load. Once a second, and whenever something happens to a region, it looks at demand, load and costs,
//! solves for prices, and says what rankings are to be published.
//!
//! ```text
//! Snapshot ─► Market (who shares what) ─┐
//! demand (queries of ours) ─────────────┼─► Pilot::step ─► Change: rankings by group ─► control loop ─► Snapshot
//! load::Board (reports) ─► Flow, Scales ┘        └─► View: prices, utilisation, certificate, for people and scalers
//! ```
//!
//! * [`market`]: groups of streams and the regions that they share; costs.
//! * [`flow`]: sessions, session starts and their length, from reports, the length by [`balance`]. [`scales`]: starts for a query.
//! * [`audience`]: who watches where. [`comeback`]: who lost a region and comes back.
//! * [`course`]: the plan of one market from step to step: supplies, losses, limits on movement.
//! * [`run`]: that market within a snapshot. [`heritage`]: what it keeps when files are read anew. [`saved`]: and over a restart.
//! * [`publish`]: shares to rankings.
//! * [`view`]: what others may know of it.
//! * [`size`], [`scale`]: how large regions should be, for whoever adds and removes servers.
//!
//! Everything here is pure: time is passed in, and nothing reads a socket or file.

pub mod audience;
pub mod balance;
pub mod comeback;
pub mod course;
pub mod flow;
pub mod heritage;
pub mod market;
pub mod publish;
pub mod run;
pub mod saved;
pub mod scale;
pub mod scales;
pub mod size;
pub mod view;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::load::known::{Known, RegionId};
use crate::load::{Expected, State};
use crate::snapshot::Snapshot;
use crate::steering::cost::Costs;
use crate::steering::plan::Rankings;

use market::{Market, TooLarge};
use run::Run;
use saved::Saved;
pub use view::View;

/// Demand, by what our own answers tell.
pub trait Demand {
    /// Queries/s that begin a session, by cell of the snapshot's geography; `None`: nothing is known of the group.
    fn by_cell(&self, group: u32) -> Option<&[f64]>;

    /// The most of it that is foreseen within 15 minutes; `None`: nothing else than now.
    fn ahead(&self, group: u32) -> Option<&[f64]> {
        let _ = group;
        None
    }

    /// Whether what is said of now is more than is asked, since an event is expected: nothing is to be learned from that.
    fn is_raised(&self, group: u32) -> bool {
        let _ = group;
        false
    }
}

/// Rankings to publish for groups of the snapshot that [`Pilot::step`] was given.
pub type Change = (u32, Arc<Rankings>);

/// Regions that are gone and still remembered.
const MAX_GONE: usize = 1000;

#[derive(Default)]
pub struct Pilot {
    snapshot: Option<Arc<Snapshot>>,
    known: Arc<Known>,
    runs: Vec<Run>,
    too_large: Vec<TooLarge>,
    saved: Saved,
}

impl Pilot {
    /// With what was learned before a restart.
    pub fn restored(saved: Saved) -> Pilot {
        Pilot { saved, ..Pilot::default() }
    }

    /// What is worth keeping over a restart.
    pub fn saved(&self) -> Saved {
        // Regions that are gone may come back; files that name ever others are not kept for ever.
        let gone_too_many = self.saved.regions.len() > MAX_GONE + self.known.regions.len();
        let mut saved = if gone_too_many { Saved::default() } else { self.saved.clone() };
        self.runs.iter().for_each(|run| run.save(&mut saved));
        saved
    }

    /// Has to be called with every snapshot before a step with it. Where it was compiled anew, markets are too, and keep what
    /// was planned for streams, and learned of regions, of the same name.
    pub fn adopt(&mut self, snapshot: &Arc<Snapshot>, known: &Arc<Known>, costs: &dyn Costs) {
        let kin = self.snapshot.as_ref().is_some_and(|before| before.is_kin(snapshot));
        if !kin || !Arc::ptr_eq(known, &self.known) {
            self.saved = self.saved();
            let (markets, too_large) = Market::all(snapshot, known, costs);
            let mut before = std::mem::take(&mut self.runs);
            let same_cells = self.snapshot.as_ref().is_some_and(|before| before.shares_cells(snapshot));
            let fits = |market: &Market, before: &[Run]| before.iter().position(|run| same_cells && run.fits(market));
            let mut new = vec![];
            for market in markets {
                match fits(&market, &before) {
                    Some(position) => self.runs.push(before.remove(position).with(market)),
                    None => new.push(Run::new(market, snapshot, &self.saved)),
                }
            }
            for run in &mut new {
                let then = self.snapshot.as_ref();
                before.iter().for_each(|other| run.inherit(snapshot, other, then.expect("they were of one")));
            }
            self.runs.extend(new);
            (self.too_large, self.known) = (too_large, Arc::clone(known));
        }
        self.snapshot = Some(Arc::clone(snapshot));
    }

    /// Costs are others than they were.
    pub fn price(&mut self, costs: &dyn Costs) {
        if let Some(snapshot) = &self.snapshot {
            self.runs.iter_mut().for_each(|run| run.price(snapshot, costs));
        }
    }

    /// All answers of these groups are to be brief as of the next step, as far as they are steered here, and those of no others
    /// but where a region is nearly full. Gives the groups that are not steered here.
    pub fn be_brief(&mut self, groups: &BTreeSet<u32>) -> BTreeSet<u32> {
        self.runs.iter_mut().for_each(|run| run.be_brief(groups));
        groups.iter().copied().filter(|group| !self.runs.iter().any(|run| run.steers(*group))).collect()
    }

    /// Whether anything is steered by load.
    pub fn is_idle(&self) -> bool {
        self.runs.is_empty()
    }

    /// What could not be steered by load because too much hangs together.
    pub fn too_large(&self) -> &[TooLarge] {
        &self.too_large
    }

    /// What was prepared for the regions that are gone since the last step. Comes before [`Pilot::step`], which takes longer.
    pub fn react(&mut self) -> Vec<Change> {
        let Some(snapshot) = &self.snapshot else { return vec![] };
        self.runs.iter_mut().flat_map(|run| run.react(snapshot)).collect()
    }

    /// Solves all markets. `states`: what is believed of the regions, in the order of [`Known::regions`].
    pub fn step(&mut self, states: &[State], demand: &dyn Demand, now: Instant) -> Vec<Change> {
        let Some(snapshot) = &self.snapshot else { return vec![] };
        self.runs.iter_mut().flat_map(|run| run.step(snapshot, states, demand, now)).collect()
    }

    /// What is sent to each region that is steered by load, as far as the last step knew.
    pub fn expected(&self) -> HashMap<RegionId, Expected> {
        self.runs.iter().flat_map(Run::expected).collect()
    }

    /// Whether regions came or went since the last step, so that the next should not wait.
    pub fn is_disturbed(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| self.runs.iter().any(|run| run.is_disturbed(snapshot)))
    }

    /// Whether something is left to prepare.
    pub fn is_ready(&self) -> bool {
        self.runs.iter().any(Run::has_to_prepare)
    }

    /// Prepares for the loss of one more region, the most loaded first; false when all is prepared.
    pub fn prepare(&mut self) -> bool {
        self.runs.iter_mut().any(Run::prepare)
    }

    pub fn view(&self) -> View {
        View { markets: self.runs.iter().map(Run::view).collect() }
    }
}

#[cfg(test)]
mod tests;

/// Views made by hand.
#[cfg(test)]
pub(crate) mod testing;
