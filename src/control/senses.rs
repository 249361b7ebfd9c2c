//! What the pilot of a running node sees: demand by what the workers tell of their answers, and costs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tracing::warn;

use crate::config::settings::Event;
use crate::demand::layout::{self, Layout};
use crate::demand::profile::Saved;
use crate::demand::{Estimator, calendar};
use crate::pilot::{Demand, Pilot, View};
use crate::server::tap::Reader;
use crate::snapshot::Snapshot;
use crate::state::keeper::Keeper;
use crate::steering::cost::Costs;
use crate::steering::dwell;

use super::helm::Senses;
use super::learned::Shared;
use super::measured::Measured;

/// What was learned is written so often.
const WRITE: Duration = Duration::from_secs(300);
/// How often it is looked ahead, and how far, minutes.
const FORESEE: Duration = Duration::from_secs(30);
const AHEAD_MIN: [i64; 3] = [5, 10, 15];

/// Where the sockets leave what their workers tell, once they serve.
#[derive(Clone, Default)]
pub struct Taps(Arc<Mutex<Vec<Reader>>>);

impl Taps {
    pub fn give(&self, readers: Vec<Reader>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(readers);
    }

    fn take(&self) -> Vec<Reader> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub struct Live {
    taps: Taps,
    keeper: Arc<Keeper>,
    saved: Saved,
    estimator: Option<Estimator>,
    snapshot: Option<Arc<Snapshot>>,
    rates: Rates,
    measured: Measured,
    view: Arc<View>,
    written: Option<Instant>,
    /// When it was last looked ahead.
    foreseen: Option<Instant>,
}

/// Queries/s by group and cell.
#[derive(Default)]
struct Rates {
    now: Vec<Vec<f64>>,
    /// The most that is foreseen for the next quarter of an hour.
    ahead: Vec<Vec<f64>>,
    /// By group: whether `now` is more than is asked, since an event is expected.
    raised: Vec<bool>,
}

impl Demand for Rates {
    fn by_cell(&self, group: u32) -> Option<&[f64]> {
        self.now.get(group as usize).map(Vec::as_slice).filter(|rates| !rates.is_empty())
    }

    fn ahead(&self, group: u32) -> Option<&[f64]> {
        self.ahead.get(group as usize).map(Vec::as_slice).filter(|rates| !rates.is_empty())
    }

    fn is_raised(&self, group: u32) -> bool {
        self.raised.get(group as usize).copied().unwrap_or_default()
    }
}

impl Rates {
    /// Whether what is foreseen is of the same groups and cells as what is now.
    fn is_alike(&self) -> bool {
        let Rates { now, ahead, .. } = self;
        let fits = |now: &Vec<f64>, ahead: &Vec<f64>| now.is_empty() || ahead.is_empty() || now.len() == ahead.len();
        now.len() == ahead.len() && now.iter().zip(ahead).all(|(now, ahead)| fits(now, ahead))
    }
}

impl Live {
    /// `saved`: what was learned before the last stop.
    pub fn new(taps: Taps, keeper: Arc<Keeper>, saved: Saved, learned: Shared) -> Live {
        Live {
            taps,
            keeper,
            saved,
            estimator: None,
            snapshot: None,
            rates: Rates::default(),
            measured: Measured::new(learned),
            view: Arc::default(),
            written: None,
            foreseen: None,
        }
    }

    fn count(&mut self, now: Instant, at: Timestamp) {
        let Some(estimator) = &mut self.estimator else { return };
        // On a core that is asked much, a query waits for a piece of this and not for the whole.
        if estimator.drain(now, at, std::thread::yield_now).changed {
            self.rates.now.clear();
        }
    }

    fn adopt(&mut self, snapshot: &Arc<Snapshot>, now: Instant, at: Timestamp) {
        let before = self.snapshot.replace(Arc::clone(snapshot));
        let kin = before.as_ref().is_some_and(|before| before.is_kin(snapshot));
        if snapshot.geography().facts.is_empty() {
            return;
        }
        match &mut self.estimator {
            Some(_) if kin => {}
            Some(estimator) => {
                if let Some(before) = before {
                    estimator.rename(&layout::renamed(snapshot, &before));
                }
                estimator.adopt(Layout::of(snapshot), now);
                self.rates.now.clear();
            }
            None => {
                let readers = self.taps.take();
                if !readers.is_empty() {
                    let mut saved = self.saved.clone();
                    saved.rename(&layout::renamed_since(snapshot, self.saved.names()));
                    self.estimator = Some(Estimator::new(readers, Layout::of(snapshot), saved, now, at));
                }
            }
        }
    }

    /// Rates as they are estimated, raised to what events expect.
    fn work_out(&mut self, snapshot: &Snapshot, at: Timestamp) {
        let Some(estimator) = &mut self.estimator else { return };
        let groups = 0..snapshot.groups().len() as u32;
        let rates = |group| estimator.lambda(group).map_or(vec![], |rates| rates.iter().collect());
        self.rates.now = groups.clone().map(rates).collect();
        self.rates.raised.clear();
        for group in groups {
            let rates = &mut self.rates.now[group as usize];
            let asked: f64 = rates.iter().sum();
            let unusual = expect(snapshot, estimator, &self.view, group, rates, at);
            self.rates.raised.push(rates.iter().sum::<f64>() > asked);
            estimator.set_unusual(group, unusual);
        }
    }

    /// The most that is to be expected within a quarter of an hour, by the hours of the week and by events.
    fn foresee(&mut self, snapshot: &Snapshot, at: Timestamp) {
        let Some(estimator) = &self.estimator else { return };
        let foreseen = |group: u32| {
            let ahead = AHEAD_MIN.iter().filter_map(|minutes| at.checked_add(SignedDuration::from_mins(*minutes)).ok());
            let rates = ahead.map(|then| {
                let mut rates = estimator.forecast(group, at, then);
                expect(snapshot, estimator, &self.view, group, &mut rates, then);
                rates
            });
            let sum = |rates: &Vec<f64>| rates.iter().sum::<f64>();
            rates.max_by(|a, b| sum(a).total_cmp(&sum(b))).unwrap_or_default()
        };
        self.rates.ahead = (0..snapshot.groups().len() as u32).map(foreseen).collect();
    }

    fn write(&mut self, at: Timestamp) {
        let Some(estimator) = &self.estimator else { return };
        let saved = Saved { pilot: self.saved.pilot.clone(), ..estimator.save(at) };
        if let Err(error) = self.keeper.save_demand(&saved) {
            warn!(%error, "what was learned of demand is not written");
        }
    }
}

/// Raises the rates of a group to what the events of its streams expect at an instant; whether any does.
fn expect(
    snapshot: &Snapshot,
    estimator: &Estimator,
    view: &View,
    group: u32,
    rates: &mut Vec<f64>,
    at: Timestamp,
) -> bool {
    let streams = snapshot.groups()[group as usize].streams.iter().map(|&position| {
        let stream = snapshot.stream(position);
        (&snapshot.zones()[stream.zone as usize].zone.events[..], stream.stream as usize)
    });
    let streams: Vec<(&[Event], usize)> = streams.collect();
    if streams.iter().all(|(events, _)| events.is_empty()) {
        return false;
    }
    let (scale, session_s) = view.scale_of(group).unwrap_or((1.0, dwell::USUAL_S));
    let measured = rates.iter().sum::<f64>() * scale;
    let usual = estimator.usual(group, at).map(|usual| usual * scale);
    let raised = calendar::raised_together(&streams, at, measured, usual, session_s);
    raise(rates, measured, raised, scale, &snapshot.geography().facts);
    streams.iter().any(|(events, stream)| calendar::is_unusual(events, *stream, at))
}

/// Raises rates so that their sum becomes that of `raised` starts/s: in their own shape, or where there is none in that of
/// addresses.
fn raise(rates: &mut Vec<f64>, measured: f64, raised: f64, scale: f64, facts: &[crate::steering::cells::Facts]) {
    if raised <= measured {
        return;
    }
    rates.resize(facts.len(), 0.0);
    if measured > 0.0 {
        rates.iter_mut().for_each(|rate| *rate *= raised / measured);
        return;
    }
    let blocks: f64 = facts.iter().map(|facts| f64::from(facts.blocks)).sum();
    for (rate, facts) in rates.iter_mut().zip(facts) {
        *rate = raised / scale * f64::from(facts.blocks) / blocks.max(1.0);
    }
}

impl Senses for Live {
    fn listen(&mut self, now: Instant, at: Timestamp) {
        self.count(now, at);
    }

    fn refresh(&mut self, snapshot: &Arc<Snapshot>, now: Instant, at: Timestamp) -> bool {
        self.adopt(snapshot, now, at);
        self.count(now, at);
        let has_events = snapshot.zones().iter().any(|served| !served.zone.events.is_empty());
        if self.rates.now.is_empty() || has_events {
            self.work_out(snapshot, at);
        }
        if self.foreseen.is_none_or(|last| now.saturating_duration_since(last) >= FORESEE || !self.rates.is_alike()) {
            self.foreseen = Some(now);
            self.foresee(snapshot, at);
        }
        self.measured.look(at)
    }

    fn demand(&self) -> &dyn Demand {
        &self.rates
    }

    fn costs(&self) -> &dyn Costs {
        &self.measured
    }

    fn brief(&self, at: Timestamp) -> BTreeSet<u32> {
        let Some(snapshot) = &self.snapshot else { return BTreeSet::new() };
        let is_brief = |position: &u32| {
            let stream = snapshot.stream(*position);
            let events = &snapshot.zones()[stream.zone as usize].zone.events;
            calendar::brief_at(events, stream.stream as usize, stream.ttl, at)
        };
        let groups = snapshot.groups().iter().zip(0u32..);
        groups.filter(|(group, _)| group.streams.iter().any(is_brief)).map(|(_, number)| number).collect()
    }

    fn learn(&mut self, pilot: &Pilot, view: &Arc<View>, now: Instant, at: Timestamp) {
        self.view = Arc::clone(view);
        let known = |saved: &Saved| saved.pilot.regions.values().filter(|learned| learned.scale.is_some()).count();
        let before = known(&self.saved);
        self.saved.pilot = pilot.saved();
        let written = *self.written.get_or_insert(now);
        // What took a minute to learn does not wait five to be kept.
        if now.saturating_duration_since(written) >= WRITE || known(&self.saved) > before {
            self.written = Some(now);
            self.write(at);
        }
    }

    fn end(&mut self, at: Timestamp) {
        self.write(at);
    }
}
