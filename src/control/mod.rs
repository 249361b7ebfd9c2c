//! The loop that changes the world: the only writer of what is published.
//!
//! ```text
//! verdicts ─► Judge ──┐                 ┌─► with_verdicts, with_standings ────────┐
//! time (ramps, drains)┤                 │                                         │
//! orders ─► kept ─────┼─► Control::run ─┤                                         ├─► publish (one swap) ─► journal
//! files changed ──────┤                 │                                         │
//! SIGHUP, views ──────┘                 └─► load, on a thread of its own ─► done ─┘
//! ```
//!
//! Verdicts are published as they come, in microseconds: nothing in the loop blocks. Reading and compiling files goes on
//! elsewhere meanwhile; what was learned during it is applied to its result before that is published, so no verdict is
//! lost. A load that fails changes nothing. An order is on the disk before it holds.

pub mod load;
mod memory;
mod notes;
mod orders;
mod regions;
pub mod retired;
pub mod serials;
pub mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::load::{Load, Loaded, Refused};
use self::memory::Memory;
use self::notes::{Deed, Job, Scribe};
use self::orders::{Desk, Kept, News};
use self::regions::{At, Condition, Flip, Regions, Step, Surroundings};
use self::retired::Retired;
use self::watch::Watcher;
use crate::config::Diagnostic;
use crate::config::settings::Family;
use crate::health::beats::Beats;
use crate::health::judge::{Group, Judge, Rules, Ruling, Vote};
use crate::health::stats::RECENT;
use crate::health::{self, Prober, Target, Verdict};
use crate::journal::{Kind, Note};
use crate::orders::book::Turn;
use crate::orders::guard::{Facts, ZoneFacts};
use crate::orders::{Draft, Lift, Order, Refusal};
use crate::server::counters::Ledger;
use crate::snapshot::{Published, Snapshot, TargetId};
use crate::state::keeper::{Keeper, Restored};
use crate::world::{View, World};

/// How often old snapshots are looked at.
const SWEEP: Duration = Duration::from_millis(200);
/// How often regions on the move are moved on: a drain of 120 s goes in steps of 0.2 %.
const STEP: Duration = Duration::from_millis(250);
/// The wall clock, by which orders begin and end, may be set at any time: looked at no less often than this while there
/// are orders.
const GLANCE: Duration = Duration::from_secs(1);
/// Verdicts taken into one snapshot at most; those beyond go into the next.
const BURST: usize = 1024;
/// Questions and requests that wait for the loop; who asks more waits.
pub const QUEUE: usize = 64;
/// This node among those who vote on verdicts.
const VANTAGE: &str = "local";

/// What the loop is asked to do.
pub enum Event {
    /// A file that the world was loaded from is another now.
    FilesChanged,
    /// Load everything again; the outcome is told.
    Reload(oneshot::Sender<ReloadOutcome>),
    View(oneshot::Sender<View>),
    /// An operator's order; what was taken is told, or why it was not.
    Order(Draft, oneshot::Sender<Result<Order, Refusal>>),
    /// Ends orders; those that were ended are told.
    Lift {
        what: Lift,
        author: String,
        reply: oneshot::Sender<Result<Vec<Order>, Refusal>>,
    },
}

/// `Ok`: the generation that was published. `Err`: why nothing changed.
pub type ReloadOutcome = Result<u64, Vec<Diagnostic>>;

/// Counts for the metrics.
#[derive(Debug, Default)]
pub struct Tally {
    pub reloads_done: AtomicU64,
    pub reloads_refused: AtomicU64,
}

/// What the loop works with.
pub struct Parts {
    pub published: Published,
    pub load: Load,
    pub watcher: Watcher,
    pub prober: Prober,
    pub beats: Beats,
    pub verdicts: mpsc::Receiver<health::Event>,
    pub events: mpsc::Receiver<Event>,
    pub ledger: Arc<Ledger>,
    pub tally: Arc<Tally>,
    pub keeper: Keeper,
    /// What was known when this node last ended.
    pub restored: Restored,
}

/// Runs until `stop`. What is restored holds in the published snapshot once this returns.
pub fn start(parts: Parts, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(notes::alarms(parts.prober.alarms(), parts.restored.journal.clone()));
    let control = Control::new(parts);
    tokio::spawn(control.run(stop))
}

struct Control {
    published: Published,
    world: World,
    load: Load,
    watcher: Watcher,
    prober: Prober,
    beats: Beats,
    verdicts: mpsc::Receiver<health::Event>,
    events: mpsc::Receiver<Event>,
    ledger: Arc<Ledger>,
    tally: Arc<Tally>,
    scribe: Scribe,
    judge: Judge,
    desk: Desk,
    regions: Regions,
    memory: Memory,
    retired: Retired<Snapshot>,
    /// When regions on the move are moved on, and when the wall clock is looked at. Kept until then, whatever else
    /// happens: who asks often must not hold up a drain.
    step: Option<Instant>,
    glance: Option<Instant>,
    /// The load that is going on.
    job: Option<JoinHandle<Result<Loaded, Refused>>>,
    /// Something changed after the load began, so it must be followed by another.
    again: bool,
    /// Who waits for the outcome of the load going on, and of the one after it.
    waiting: Vec<oneshot::Sender<ReloadOutcome>>,
    next: Vec<oneshot::Sender<ReloadOutcome>>,
}

impl Control {
    fn new(parts: Parts) -> Control {
        let Parts { published, load, watcher, prober, beats, verdicts, events, ledger, tally, keeper, restored } =
            parts;
        let snapshot = published.load_full();
        let now = now();
        let keeper = Arc::new(keeper);
        let Restored { orders, verdicts: saved, ramps, journal } = restored;
        let mut control = Control {
            world: World::new(&snapshot),
            judge: Judge::new(Rules { own: VANTAGE.into(), ..Rules::default() }),
            desk: Desk::new(orders, Arc::clone(&keeper)),
            regions: Regions::default(),
            memory: Memory::new(keeper),
            retired: Retired::default(),
            step: None,
            glance: None,
            job: None,
            again: false,
            waiting: vec![],
            next: vec![],
            published,
            load,
            watcher,
            prober,
            beats,
            verdicts,
            events,
            ledger,
            tally,
            scribe: Scribe::start(journal),
        };
        control.judge.retain(judged(&snapshot), now);
        control.regions.replace(&snapshot);
        control.regions.resume(&ramps, now);
        let restored = control.world.restore(&snapshot, &saved);
        for (id, verdict, damped) in &restored {
            control.judge.restore(&snapshot.targets()[id.0 as usize], *verdict, *damped, now);
        }
        let changes: Vec<_> = restored.into_iter().map(|(id, verdict, _)| (id, verdict)).collect();
        let after = if changes.is_empty() { None } else { Some(snapshot.with_verdicts(&changes)) };
        let everywhere = control.regions.all().collect();
        // Whatever was down stays down, and is no news.
        control.settle(after, &everywhere, now);
        // Orders whose time came or went meanwhile are judged by what was known.
        let deeds = control.turn_orders(Timestamp::now());
        if !deeds.is_empty() {
            control.rule(vec![], everywhere, deeds, now);
        }
        control
    }

    async fn run(mut self, stop: CancellationToken) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut burst = Vec::with_capacity(BURST);
        loop {
            let wake = self.wake();
            tokio::select! {
                // Time first, which has little to do, then verdicts: viewers wait for them.
                biased;
                () = stop.cancelled() => break,
                () = alarm(wake) => self.tick(),
                1.. = self.verdicts.recv_many(&mut burst, BURST) => self.flip(&mut burst),
                kept = self.desk.kept() => self.kept(kept),
                loaded = job(&mut self.job) => self.finish(loaded),
                Some(event) = self.events.recv() => self.handle(event),
                _ = sweep.tick(), if !self.retired.is_empty() => self.sweep(),
            }
        }
        self.note(Kind::Stopped, "told to stop");
        self.memory.write_now(&self.world.beliefs(), &self.regions).await;
        self.scribe.ended().await;
    }

    /// When something changes by itself.
    fn wake(&mut self) -> Option<Instant> {
        let now = now();
        self.step = self.regions.is_moving().then(|| self.step.unwrap_or(now + STEP));
        let due = self.desk.due().map(|at| {
            let ahead = at.duration_since(Timestamp::now());
            now + Duration::try_from(ahead).unwrap_or(Duration::ZERO).min(GLANCE)
        });
        self.glance = due.map(|due| self.glance.map_or(due, |glance| glance.min(due)));
        [self.step, self.glance, self.judge.due(), self.memory.due()].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        let now = now();
        (self.step, self.glance) = (None, None);
        let rulings = self.judge.tick(now);
        let deeds = self.turn_orders(Timestamp::now());
        let touched = if deeds.is_empty() { self.regions.moving().collect() } else { self.regions.all().collect() };
        self.rule(rulings, touched, deeds, now);
        self.memory.write(&self.world.beliefs(), &self.regions, now);
    }

    /// Publishes a burst of verdicts as one snapshot.
    fn flip(&mut self, burst: &mut Vec<health::Event>) {
        let now = now();
        let mut rulings = Vec::with_capacity(burst.len());
        for event in burst.drain(..) {
            let health::Event { target, verdict, cause, .. } = event;
            let vote = Vote { vantage: VANTAGE.into(), verdict, cause };
            if let Some(ruling) = self.judge.vote(&target, vote, now) {
                rulings.push((Target::clone(&target), ruling));
            }
        }
        self.rule(rulings, BTreeSet::new(), vec![], now);
    }

    /// Publishes what the judge ruled and what else became of regions.
    /// `deeds`: what time did to orders, to be told with its effect.
    fn rule(&mut self, rulings: Vec<(Target, Ruling)>, mut touched: BTreeSet<At>, deeds: Vec<Deed>, now: Instant) {
        let before = self.published.load_full();
        let mut changes = Vec::with_capacity(rulings.len());
        let mut told = Vec::with_capacity(rulings.len());
        for (target, ruling) in rulings {
            let belief = self.world.belief(&target, &ruling, now);
            let (verdict, cause) = (belief.verdict, Arc::clone(&belief.cause));
            let Some((id, server)) = self.world.believe(&target, belief) else { continue };
            changes.push((id, verdict));
            told.push((id, server, target, verdict, cause));
        }
        if touched.is_empty() && changes.is_empty() && deeds.is_empty() {
            return;
        }
        // Later verdicts of a target stand: with_verdicts takes them in order.
        let other = changes.iter().any(|(id, verdict)| before.verdict(*id) != *verdict);
        let mut after = other.then(|| before.with_verdicts(&changes));
        touched.extend(changes.iter().flat_map(|(id, _)| before.users(*id)));
        if let Some(after) = &after {
            touched.extend(self.turned(&before, after, &changes));
        }
        // Losses need nothing more: viewers do not wait for what else follows.
        if changes.iter().all(|(_, verdict)| !verdict.is_up())
            && let Some(after) = after.take()
        {
            self.publish(after);
        }
        let (after, flips, steps) = self.settle(after, &touched, now);
        // Only now: answers come before words about them.
        let mut verdicts = Vec::with_capacity(told.len());
        for (id, server, target, verdict, cause) in told {
            tell(&server, before.verdict(id), &target.address, verdict, &cause);
            verdicts.push((id, verdict, cause));
        }
        if !verdicts.is_empty() || !steps.is_empty() {
            self.memory.changed(now);
        }
        self.scribe.note(Job { verdicts, deeds, flips, steps, ..Job::new(before, after) });
    }

    /// The regions that verdicts turned without being theirs: where soft reasons count or not now, and where streams need
    /// what they are about.
    fn turned(&self, before: &Snapshot, after: &Snapshot, changes: &[(TargetId, Verdict)]) -> BTreeSet<At> {
        let zones: BTreeSet<u32> =
            changes.iter().flat_map(|(id, _)| before.users(*id)).map(|(zone, _)| *zone).collect();
        let zones = zones.into_iter().chain(before.zones_with_needs());
        zones
            .flat_map(|zone| {
                let other = |family| before.usable(zone, family) ^ after.usable(zone, family);
                let other = other(Family::V4) | other(Family::V6);
                self.regions.of_zone(zone).filter(move |(_, region)| other >> region & 1 == 1)
            })
            .collect()
    }

    /// Brings the standings of regions in line with verdicts, orders and time, and publishes if anything is another.
    /// `after`: the snapshot to publish, where it is not the one that is published.
    fn settle(
        &mut self,
        after: Option<Snapshot>,
        touched: &BTreeSet<At>,
        now: Instant,
    ) -> (Arc<Snapshot>, Vec<Flip>, Vec<Step>) {
        let Control { judge, desk, regions, prober, published, .. } = self;
        let words = desk.book().words(Timestamp::now());
        let current = published.load_full();
        let known = after.as_ref().unwrap_or(&current);
        let uncertain = |at: At| targets(known, at).any(|target| judge.uncertain(target, now));
        let condition = |at: At| condition(prober, targets(known, at));
        let around = Surroundings { words: &words, uncertain: &uncertain, condition: &condition };
        let (mut standings, mut steps) = regions.standings(known, touched.iter().copied(), &around, now);
        let with = (!standings.is_empty()).then(|| known.with_standings(standings.iter().cloned()));
        let with = with.as_ref().unwrap_or(known);
        let (flips, other) = regions.follow(with, touched, &condition, now);
        if other {
            let (more, further) = regions.standings(with, flips.iter().map(|flip| flip.at), &around, now);
            standings.extend(more);
            steps.extend(further);
        }
        let next = match (after, standings.is_empty()) {
            (None, true) => return (current, flips, steps),
            (Some(after), true) => after,
            (Some(after), false) => after.with_standings(standings),
            (None, false) => current.with_standings(standings),
        };
        self.publish(next);
        (self.published.load_full(), flips, steps)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::FilesChanged => self.reload(),
            Event::Reload(reply) => {
                self.next.push(reply);
                self.reload();
            }
            Event::View(reply) => {
                let view = View {
                    snapshot: self.published.load_full(),
                    beliefs: self.world.beliefs(),
                    orders: self.desk.list(),
                    not_kept: self.desk.not_kept(),
                    order_status: Arc::new(self.desk.book().status(Timestamp::now())),
                };
                // Who asked may have gone.
                let _ = reply.send(view);
            }
            Event::Order(draft, reply) => self.desk.give(draft, reply),
            Event::Lift { what, author, reply } => self.desk.lift(what, author, reply),
        }
        self.serve_desk();
    }

    /// Begins to write what the first in line wants of the orders.
    fn serve_desk(&mut self) {
        while self.desk.is_waiting() {
            let now = Timestamp::now();
            if let Some((author, refusal)) = self.desk.begin(&facts(&self.published.load()), now) {
                self.note_of(Note { author: Some(author), ..Note::new(Kind::OrderRefused, refusal.text()) });
            }
        }
    }

    /// An order was written, so it holds.
    fn kept(&mut self, kept: Kept) {
        let (news, answer) = self.desk.take(kept);
        let (now, before) = (now(), self.published.load_full());
        let everywhere = self.regions.all().collect();
        let (after, flips, steps) = self.settle(None, &everywhere, now);
        answer.send();
        let mut deeds = vec![];
        let mut plain = vec![];
        match news {
            News::Given(given) => {
                let author = given.order.author.clone();
                let why = format!("order {} took its place", given.order.id);
                let old = given.replaced.into_iter();
                let lifted = |order| (order, Kind::OrderLifted, Some(why.clone()));
                let all = old.map(lifted).chain([(given.order, Kind::OrderGiven, None)]);
                deeds.extend(all.map(|(order, kind, why)| Deed { kind, order, author: author.clone(), why }));
            }
            News::Lifted { lifted, author, unkept } => {
                let deed = |kind, order, why| Deed { kind, order, author: author.clone(), why };
                deeds.extend(lifted.orders.into_iter().map(|order| deed(Kind::OrderLifted, order, None)));
                let dropped = lifted.dropped.into_iter();
                deeds.extend(dropped.map(|(order, why)| deed(Kind::OrderRefused, order, Some(why))));
                plain.extend(unkept.map(|error| {
                    let what = "orders were lifted, but the state directory cannot be written: after a restart they hold again";
                    Note::new(Kind::Alarm, format!("{what}: {error}"))
                }));
            }
            News::Refused | News::Nothing => {}
        }
        self.scribe.note(Job { deeds, plain, flips, steps, ..Job::new(before, after) });
        self.memory.changed(now);
        self.serve_desk();
    }

    /// Begins and ends orders whose time has come.
    fn turn_orders(&mut self, at: Timestamp) -> Vec<Deed> {
        let snapshot = self.published.load_full();
        let turns = self.desk.turn(|| facts(&snapshot), at);
        let deeds = turns.into_iter().filter_map(|(order, turn)| {
            let (kind, why) = match turn {
                Turn::Began => (Kind::OrderBegan, None),
                Turn::Ended => (Kind::OrderExpired, None),
                Turn::Replaced(by) => (Kind::OrderLifted, Some(format!("order {by} took its place"))),
                // Told as a step of the region.
                Turn::Emptied => return None,
                Turn::Refused(why) | Turn::Dropped(why) => (Kind::OrderRefused, Some(why)),
            };
            Some(Deed { kind, author: order.author.clone(), order, why })
        });
        deeds.collect()
    }

    fn note(&mut self, kind: Kind, cause: &str) {
        self.note_of(Note::new(kind, cause));
    }

    fn note_of(&mut self, note: Note) {
        let now = self.published.load_full();
        self.scribe.note(Job { plain: vec![note], ..Job::new(Arc::clone(&now), now) });
    }

    /// Begins a load, or notes that one more is needed when the one going on may have read older files.
    fn reload(&mut self) {
        if self.job.is_some() {
            self.again = true;
            return;
        }
        self.waiting.append(&mut self.next);
        let load = Arc::clone(&self.load);
        let (previous, beliefs) = (self.published.load_full(), self.world.beliefs());
        self.job = Some(tokio::task::spawn_blocking(move || load(&previous, &beliefs)));
    }

    fn finish(&mut self, done: Result<Result<Loaded, Refused>, JoinError>) {
        self.job = None;
        let outcome = match done {
            Ok(Ok(loaded)) => Ok(self.accept(loaded)),
            Ok(Err(refused)) => Err(self.refuse(refused)),
            Err(died) => {
                self.tally.reloads_refused.fetch_add(1, Relaxed);
                error!(error = %died, "a fault of ours ended the reload; what was loaded before serves on");
                self.note(Kind::ReloadRefused, "a fault of ours ended it");
                Err(vec![])
            }
        };
        for reply in self.waiting.drain(..) {
            let _ = reply.send(outcome.clone());
        }
        if std::mem::take(&mut self.again) {
            self.reload();
        }
    }

    fn accept(&mut self, loaded: Loaded) -> u64 {
        let Loaded { snapshot, warnings, seen } = loaded;
        let prober = &mut self.prober;
        // What was learned while it was compiled, and what kin of new targets let us believe.
        let news = self.world.news_for(&snapshot, |target| prober.believed(target));
        let snapshot = if news.is_empty() { snapshot } else { snapshot.with_verdicts(&news) };
        let before = self.published.load_full();
        self.world.replace(&snapshot);
        prober.retarget(snapshot.targets());
        self.beats.retarget(snapshot.targets());
        self.judge.retain(judged(&snapshot), now());
        self.regions.replace(&snapshot);
        self.watcher.watch(seen.inputs, seen.fingerprint);
        // Ramps and orders hold in it before it is published.
        let everywhere = self.regions.all().collect();
        let (after, flips, steps) = self.settle(Some(snapshot), &everywhere, now());
        let generation = after.generation();
        let plain = vec![Note::new(Kind::Reloaded, format!("generation {generation}, {} zones", after.zones().len()))];
        self.scribe.note(Job { plain, flips, steps, ..Job::new(before, Arc::clone(&after)) });
        self.tally.reloads_done.fetch_add(1, Relaxed);
        warnings.iter().for_each(log);
        info!(generation, zones = after.zones().len(), "reloaded");
        self.memory.changed(now());
        generation
    }

    fn refuse(&mut self, refused: Refused) -> Vec<Diagnostic> {
        self.tally.reloads_refused.fetch_add(1, Relaxed);
        refused.diagnostics.iter().for_each(log);
        error!("reload refused; what was loaded before serves on");
        let first = refused.diagnostics.iter().find(|diagnostic| diagnostic.is_error());
        self.note(Kind::ReloadRefused, &first.map_or("the files have errors".to_owned(), |fault| fault.to_string()));
        self.watcher.watch(refused.seen.inputs, refused.seen.fingerprint);
        refused.diagnostics
    }

    fn publish(&mut self, snapshot: Snapshot) {
        // One step, of however many it was made.
        let snapshot = snapshot.following(&self.published.load());
        self.ledger.adopt(snapshot.counters());
        self.retired.keep(self.published.swap(Arc::new(snapshot)));
    }

    /// Frees old snapshots where it keeps nobody waiting.
    fn sweep(&mut self) {
        let unread = self.retired.take_unread();
        if !unread.is_empty() {
            tokio::task::spawn_blocking(move || drop(unread));
        }
    }
}

/// The outcome of the load going on; never, when none is.
async fn job(job: &mut Option<JoinHandle<Result<Loaded, Refused>>>) -> Result<Result<Loaded, Refused>, JoinError> {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}

/// One line, its level that of the diagnostic.
pub fn log(diagnostic: &Diagnostic) {
    let Diagnostic { at, what, rule, help, .. } = diagnostic;
    let (rule, help) = (rule.as_deref(), help.as_deref());
    if diagnostic.is_error() {
        error!(%at, rule, help, "{what}");
    } else {
        warn!(%at, rule, help, "{what}");
    }
}

fn tell(server: &str, before: Verdict, probed: &std::net::SocketAddr, verdict: Verdict, cause: &str) {
    match (before, verdict) {
        (_, Verdict::Damped) => {
            warn!(server, %probed, cause, "answers, but went up and down too often: counts as down while enough others are up")
        }
        (before, Verdict::Down) if before != Verdict::Down => warn!(server, %probed, cause, "down"),
        (Verdict::Down | Verdict::Damped, Verdict::Unknown | Verdict::Up) => info!(server, %probed, cause, "up"),
        // As it was taken to be.
        _ => debug!(server, %probed, cause, "{verdict:?}"),
    }
}

/// What the guard of orders has to know: what the probes alone say.
fn facts(snapshot: &Snapshot) -> Facts {
    let zones = snapshot.zones().iter().enumerate().map(|(z, served)| {
        let (fleet, _) = snapshot.fleet(z as u32);
        let of_use = Family::BOTH.map(|family| snapshot.of_use(z as u32, family));
        ZoneFacts::of(&served.zone, |region, server, family| {
            if of_use[family as usize] >> region & 1 == 0 {
                return false;
            }
            let member = fleet.members(region as u8, family).iter().find(|member| member.server == server);
            member.and_then(|member| member.verdict(snapshot.verdicts())).is_none_or(Verdict::is_up)
        })
    });
    Facts { zones: zones.collect() }
}

/// The targets of a snapshot, each with the regions that it is part of.
fn judged(snapshot: &Snapshot) -> Vec<(Target, Group)> {
    let mut numbers = std::collections::HashMap::new();
    let ids = (0..snapshot.targets().len() as u32).map(TargetId);
    let pairs = ids.flat_map(|id| snapshot.users(id).iter().map(move |at| (id, *at)));
    pairs
        .map(|(id, at)| {
            let next = numbers.len() as u32;
            (snapshot.targets()[id.0 as usize].clone(), Group(*numbers.entry(at).or_insert(next)))
        })
        .collect()
}

/// How the servers do that are up.
fn condition<'a>(prober: &Prober, targets: impl Iterator<Item = &'a Target>) -> Condition {
    let (mut failed, mut probes, mut paces) = (0, 0, vec![]);
    for target in targets {
        let Some(stats) = prober.stats_of(target).filter(|stats| stats.verdict().is_up()) else { continue };
        let rise = target.check.rise as usize;
        failed += stats.failed_lately(rise);
        probes += rise.min(RECENT);
        paces.extend(stats.recent_p95());
    }
    paces.sort_unstable();
    Condition { failing: failed as f64 / f64::from(probes.max(1) as u32), pace: paces.get(paces.len() / 2).copied() }
}

/// The targets of a region.
fn targets(snapshot: &Snapshot, (zone, region): At) -> impl Iterator<Item = &Target> {
    let (fleet, _) = snapshot.fleet(zone);
    let members =
        crate::config::settings::Family::BOTH.into_iter().flat_map(move |family| fleet.members(region, family));
    members.filter_map(|member| member.target).map(|id| &snapshot.targets()[id.0 as usize])
}

async fn alarm(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
