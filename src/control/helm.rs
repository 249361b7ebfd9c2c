//! The thread that steers by load: wakes once a second, and when something happens to a region, lets the [`Pilot`] look at
//! it, and hands the loop what is to be published.
//!
//! It is nice and takes a quarter of a core at most: after a step it rests for three times as long as that took. Whoever
//! answers never waits for it, nor does the loop.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::{Event, aside};
use crate::journal::{Journal, Kind, Note};
use crate::load::{self, Expected};
use crate::pilot::view::{MarketView, Stage, View};
use crate::pilot::{Change, Demand, Pilot};
use crate::snapshot::{Published, Snapshot};
use crate::steering::cost::Costs;
use crate::steering::dwell;
use crate::steering::pick::Mask;

/// How often prices are solved for, at least.
const EVERY: Duration = Duration::from_secs(1);
/// After a step it rests for so many times as long.
const REST: u32 = 3;
/// How often it listens to what is asked, and prepares a table for a loss.
const PAUSE: Duration = Duration::from_millis(100);
/// At the end it has so long to write what it learned.
const PATIENCE: Duration = Duration::from_secs(3);
/// A plan that may be further from the best than this is told of.
const GAP: f64 = 0.01;

/// Of a region that is not steered by load: nobody knows what is sent there, so what is there is taken to stay for long.
const ELSEWHERE: Expected = Expected { starts_per_s: 0.0, session: Duration::from_secs(dwell::MOST_S as u64) };

/// What the pilot sees of the world besides snapshots.
pub trait Senses: Send {
    /// Once before each step: takes in what was asked and measured since the last one. True if costs are others now.
    fn refresh(&mut self, snapshot: &Arc<Snapshot>, now: Instant, at: Timestamp) -> bool;
    fn demand(&self) -> &dyn Demand;
    fn costs(&self) -> &dyn Costs;
    /// Groups whose answers should not live long, for what is about to happen.
    fn brief(&self, at: Timestamp) -> BTreeSet<u32>;
    /// Some ten times a second.
    fn listen(&mut self, now: Instant, at: Timestamp);
    /// After each step, with what it came to.
    fn learn(&mut self, pilot: &Pilot, view: &Arc<View>, now: Instant, at: Timestamp);
    /// Once, when nothing more will be asked.
    fn end(&mut self, at: Timestamp);
}

/// What the thread works with.
pub struct Parts {
    pub pilot: Pilot,
    pub senses: Box<dyn Senses>,
    pub published: Published,
    pub load: load::Desk,
    pub journal: Journal,
}

/// Its handle. The thread ends when this is dropped, after the step that it is at.
pub struct Helm {
    wake: SyncSender<()>,
    view: Arc<ArcSwap<View>>,
    thread: thread::JoinHandle<()>,
}

impl Helm {
    /// `None` without a thread; then all is steered by geography.
    pub fn start(parts: Parts, events: mpsc::Sender<Event>) -> Option<Helm> {
        let (wake, woken) = sync_channel(1);
        let view: Arc<ArcSwap<View>> = Arc::default();
        let thread = Thread { parts, events, view: Arc::clone(&view), brief: Default::default(), told: vec![] };
        let work = move || {
            aside::give_way();
            thread.run(&woken);
        };
        match thread::Builder::new().name("helm".to_owned()).spawn(work) {
            Ok(thread) => Some(Helm { wake, view, thread }),
            Err(error) => {
                warn!(%error, "no thread to steer by load");
                None
            }
        }
    }

    /// Something happened to a region, or everything is another. Never waits.
    pub fn wake(&self) {
        // One that waits already says as much.
        let (Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(()))) = self.wake.try_send(());
    }

    /// Ends the thread and waits for what it has to write, a few seconds at most. Nobody may wait for its events any more.
    pub async fn ended(self) {
        let Helm { wake, thread, .. } = self;
        drop(wake);
        // A panic of its was told by itself, and who does not end in time is left behind.
        let _ = timeout(PATIENCE, spawn_blocking(move || thread.join())).await;
    }

    /// What it came to last.
    pub fn view(&self) -> Arc<ArcSwap<View>> {
        Arc::clone(&self.view)
    }
}

/// When the next step is due, and before when it is not to begin.
struct Clock {
    due: Instant,
    rested: Instant,
}

struct Thread {
    parts: Parts,
    events: mpsc::Sender<Event>,
    view: Arc<ArcSwap<View>>,
    /// Groups whose answers are brief ahead of an event, as published, and the snapshot that they were published with; of those
    /// that are not steered by load.
    brief: (BTreeSet<u32>, Option<Arc<Snapshot>>),
    /// By market: the stage, and whether an alarm was raised, as told.
    told: Vec<(Stage, bool)>,
}

impl Thread {
    fn run(mut self, woken: &Receiver<()>) {
        let mut clock = Clock { due: Instant::now(), rested: Instant::now() };
        loop {
            // No world should make it panic. Should one do so all the same, it begins anew with what it learned.
            match catch_unwind(AssertUnwindSafe(|| self.turn(woken, &mut clock))) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    let text = "steering by load failed and begins anew; viewers go where the last plan sent them";
                    error!("{text}");
                    self.parts.journal.note(Timestamp::now(), Note::new(Kind::Alarm, text));
                    self.parts.pilot = Pilot::restored(self.parts.pilot.saved());
                    clock.due = Instant::now() + EVERY;
                }
            }
        }
        self.parts.senses.end(Timestamp::now());
    }

    /// Waits for what is next and does it. False when all is over.
    fn turn(&mut self, woken: &Receiver<()>, clock: &mut Clock) -> bool {
        let wait = clock.due.saturating_duration_since(Instant::now()).min(PAUSE);
        match woken.recv_timeout(wait) {
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) if Instant::now() < clock.due => {
                self.parts.senses.listen(Instant::now(), Timestamp::now());
                self.parts.pilot.prepare();
                return true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) => {
                let snapshot = self.parts.published.load_full();
                self.adopt(&snapshot);
                let changes = self.parts.pilot.react();
                if !self.publish(&snapshot, changes) {
                    return false;
                }
                // Many wakes that mean nothing do not put off what is due.
                if !self.parts.pilot.is_disturbed() && Instant::now() < clock.due {
                    return true;
                }
                // What was prepared holds meanwhile.
                thread::sleep(clock.rested.saturating_duration_since(Instant::now()));
            }
        }
        let started = Instant::now();
        if !self.step(started) {
            return false;
        }
        clock.rested = Instant::now() + started.elapsed() * REST;
        clock.due = (started + EVERY).max(clock.rested);
        true
    }

    /// Lets the pilot know of a snapshot.
    fn adopt(&mut self, snapshot: &Arc<Snapshot>) {
        let Parts { pilot, senses, load, .. } = &mut self.parts;
        let before = pilot.too_large().len();
        pilot.adopt(snapshot, &load.known(), senses.costs());
        if pilot.too_large().len() > before {
            pilot.too_large().iter().for_each(|why| warn!("steered by geography alone, whatever the load: {why}"));
        }
    }

    /// False when nobody is there any more to publish it.
    fn publish(&self, basis: &Arc<Snapshot>, changes: Vec<Change>) -> bool {
        changes.is_empty() || self.events.blocking_send(Event::Steer { basis: Arc::clone(basis), changes }).is_ok()
    }

    fn step(&mut self, now: Instant) -> bool {
        let at = Timestamp::now();
        // One and the same for all of a step: demand, cells and regions of two loads do not fit.
        let snapshot = self.parts.published.load_full();
        let dearer = self.parts.senses.refresh(&snapshot, now, at);
        self.adopt(&snapshot);
        let brief = self.parts.senses.brief(at);
        if self.parts.pilot.is_idle() {
            // What was steered before a reload is not any more.
            if !self.view.load().markets.is_empty() {
                self.view.store(Arc::default());
                self.told.clear();
            }
            let changes = self.be_brief(&snapshot, brief);
            return self.publish(&snapshot, changes) && !self.events.is_closed();
        }
        let Parts { pilot, senses, load, .. } = &mut self.parts;
        if dearer {
            pilot.price(senses.costs());
        }
        let expected = pilot.expected();
        let (known, states, events) =
            load.states(&snapshot, |id, _| expected.get(&id).copied().unwrap_or(ELSEWHERE), now);
        for event in events {
            info!("{event}");
        }
        // A reload came between.
        pilot.adopt(&snapshot, &known, senses.costs());
        let others = pilot.be_brief(&brief);
        let plans = pilot.step(&states, senses.demand(), now);
        let view = Arc::new(pilot.view());
        senses.learn(pilot, &view, now, at);
        let mut changes = self.be_brief(&snapshot, others);
        changes.extend(plans);
        let alive = self.publish(&snapshot, changes);
        self.tell(&view, now.elapsed());
        self.view.store(view);
        alive
    }

    /// Short TTLs ahead of events, for groups that are not steered by load, and what takes them back after.
    fn be_brief(&mut self, snapshot: &Arc<Snapshot>, brief: BTreeSet<u32>) -> Vec<Change> {
        let (before, with) = &self.brief;
        // In a snapshot that was compiled anew nothing is brief.
        let nothing = BTreeSet::new();
        let before = if with.as_ref().is_some_and(|with| with.is_kin(snapshot)) { before } else { &nothing };
        let other = brief.symmetric_difference(before).filter(|group| (**group as usize) < snapshot.groups().len());
        let changes = other.map(|&group| {
            let all = if brief.contains(&group) { Mask::MAX } else { 0 };
            (group, Arc::new(snapshot.rankings_of(group).as_ref().clone().with_brief(all)))
        });
        let changes = changes.collect();
        self.brief = (brief, Some(Arc::clone(snapshot)));
        changes
    }

    /// Says what people should know, once.
    fn tell(&mut self, view: &View, taken: Duration) {
        self.told.resize(view.markets.len(), (Stage::Unreported, false));
        for (market, told) in view.markets.iter().zip(&mut self.told) {
            if let Some(certificate) = market.certificate {
                let (gap, moved) = (certificate.gap, market.moved);
                let (steps, converged, cold) = (market.iterations, market.converged, market.cold);
                debug!(gap, moved, steps, converged, cold, ?taken, demand = market.demand, "solved");
            }
            let names = || market.regions.iter().map(|region| &*region.name).collect::<Vec<_>>().join(", ");
            if market.stage != told.0 {
                told.0 = market.stage;
                let text = format!("{}: {}", names(), market.describe());
                info!("{text}");
                self.parts.journal.note(Timestamp::now(), Note::new(Kind::Steering, text));
            }
            let alarm = alarm(market);
            if alarm.is_some() != told.1 {
                told.1 = alarm.is_some();
                if let Some(alarm) = alarm {
                    warn!("{alarm}");
                    self.parts.journal.note(Timestamp::now(), Note::new(Kind::Alarm, alarm));
                }
            }
        }
    }
}

/// What is wrong with a market, if anything.
fn alarm(market: &MarketView) -> Option<String> {
    // Before the first solve nobody knows how much comes.
    let certificate = market.certificate?;
    let full: Vec<&str> =
        market.regions.iter().filter(|r| r.planned.is_some_and(|u| u > 1.0)).map(|r| &*r.name).collect();
    if !full.is_empty() {
        return Some(format!("more viewers than there is room for: {} above capacity", full.join(", ")));
    }
    let gap = certificate.gap;
    (gap > GAP).then(|| format!("the plan may be {:.1} % from the best", gap * 100.0))
}
