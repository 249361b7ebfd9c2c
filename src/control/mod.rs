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

pub mod aside;
mod hands;
pub mod helm;
pub mod learned;
pub mod load;
pub mod measured;
mod memory;
mod notes;
mod orders;
mod regions;
mod reload;
pub mod retired;
pub mod senses;
pub mod serials;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::aside::Job as Aside;
use self::helm::Helm;
use self::load::{Load, Loaded, Refused};
use self::memory::Memory;
use self::notes::{Deed, Job, Scribe};
use self::orders::Desk;
use self::regions::{At, Condition, Flip, Regions, Step, Surroundings};
use self::reload::job;
use self::retired::{Bin, Retired};
use self::watch::Watcher;
use crate::config::Diagnostic;
use crate::config::settings::Family;
use crate::health::beats::Beats;
use crate::health::judge::{Group, Judge, Rules, Ruling, Vote};
use crate::health::stats::RECENT;
use crate::health::{self, Prober, Target, Verdict};
use crate::journal::{Kind, Note};
use crate::orders::{Draft, Lift, Order, Refusal};
use crate::pilot::Change;
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
    /// What the pilot made of the load, for groups of `basis` and of what differs from it in verdicts and standings alone.
    Steer {
        basis: Arc<Snapshot>,
        changes: Vec<Change>,
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
    /// Learns the servers of each reload.
    pub loads: crate::load::Desk,
    pub verdicts: mpsc::Receiver<health::Event>,
    pub events: mpsc::Receiver<Event>,
    pub ledger: Arc<Ledger>,
    pub tally: Arc<Tally>,
    pub keeper: Arc<Keeper>,
    /// What was known when this node last ended.
    pub restored: Restored,
    /// `None`: nothing is steered by load.
    pub helm: Option<Helm>,
    pub learned: Option<learned::Shared>,
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
    loads: crate::load::Desk,
    verdicts: mpsc::Receiver<health::Event>,
    events: mpsc::Receiver<Event>,
    ledger: Arc<Ledger>,
    tally: Arc<Tally>,
    scribe: Scribe,
    judge: Judge,
    desk: Desk,
    regions: Regions,
    memory: Memory,
    helm: Option<Helm>,
    learned: Option<learned::Shared>,
    retired: Retired<Snapshot>,
    bin: Bin<Vec<Arc<Snapshot>>>,
    /// When regions on the move are moved on, and when the wall clock is looked at. Kept until then, whatever else
    /// happens: who asks often must not hold up a drain.
    step: Option<Instant>,
    glance: Option<Instant>,
    /// The load that is going on.
    job: Option<Aside<Result<Loaded, Refused>>>,
    /// Something changed after the load began, so it must be followed by another.
    again: bool,
    /// Who waits for the outcome of the load going on, and of the one after it.
    waiting: Vec<oneshot::Sender<ReloadOutcome>>,
    next: Vec<oneshot::Sender<ReloadOutcome>>,
}

impl Control {
    fn new(parts: Parts) -> Control {
        let Parts { published, load, watcher, prober, beats, loads, .. } = parts;
        let Parts { verdicts, events, ledger, tally, keeper, restored, helm, learned, .. } = parts;
        let snapshot = published.load_full();
        let now = now();
        let Restored { orders, verdicts: saved, ramps, journal, .. } = restored;
        let mut control = Control {
            world: World::new(&snapshot),
            judge: Judge::new(Rules { own: VANTAGE.into(), ..Rules::default() }),
            desk: Desk::new(orders, Arc::clone(&keeper)),
            regions: Regions::default(),
            memory: Memory::new(keeper),
            helm,
            learned,
            retired: Retired::default(),
            bin: Bin::start(),
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
            loads,
            verdicts,
            events,
            ledger,
            tally,
            scribe: Scribe::start(journal),
        };
        control.judge.retain(judged(&snapshot), now);
        control.regions.replace(&snapshot);
        // Orders are looked at before ramps: a zone that one names may have a ramp of its own.
        let words = control.desk.book().words(Timestamp::now());
        let mut alone = control.regions.sharing(&snapshot, words.zones());
        alone.extend(control.regions.went_alone(&snapshot, &ramps));
        let apart = (!alone.is_empty()).then(|| snapshot.with_apart(&alone));
        let snapshot = apart.map_or(snapshot, Arc::new);
        control.regions.set_apart(&snapshot);
        control.regions.resume(&snapshot, &ramps, now);
        let restored = control.world.restore(&snapshot, &saved);
        for (id, verdict, damped) in &restored {
            control.judge.restore(&snapshot.targets()[id.0 as usize], *verdict, *damped, now);
        }
        let changes: Vec<_> = restored.into_iter().map(|(id, verdict, _)| (id, verdict)).collect();
        let is_other = !changes.is_empty() || !alone.is_empty();
        let after = is_other.then(|| snapshot.with_verdicts(&changes));
        let everywhere: BTreeSet<At> = control.regions.all().collect();
        // Whatever was down stays down, and is no news.
        control.settle(after, everywhere.clone(), now);
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
        self.events.close();
        if let Some(helm) = self.helm.take() {
            helm.ended().await;
        }
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

    /// Publishes what the judge ruled and what else became of regions. `deeds`: what time did to orders, to be told with its effect.
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
        let (after, flips, steps) = self.settle(after, touched, now);
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
        let fleets: BTreeSet<u32> =
            changes.iter().flat_map(|(id, _)| before.users(*id)).map(|(fleet, _)| fleet).collect();
        let fleets = fleets.into_iter().chain(after.fleets_with_other_needs(before));
        fleets
            .flat_map(|fleet| {
                let other = |family| before.usable(fleet, family) ^ after.usable(fleet, family);
                let other = other(Family::V4) | other(Family::V6);
                self.regions.of_fleet(fleet).filter(move |(_, region)| other >> region & 1 == 1)
            })
            .collect()
    }

    /// Brings the standings of regions in line with verdicts, orders and time, and publishes if anything is another.
    /// `after`: the snapshot to publish, where it is not the one that is published.
    fn settle(
        &mut self,
        mut after: Option<Snapshot>,
        mut touched: BTreeSet<At>,
        now: Instant,
    ) -> (Arc<Snapshot>, Vec<Flip>, Vec<Step>) {
        let Control { judge, desk, regions, prober, published, .. } = self;
        let words = desk.book().words(Timestamp::now());
        let current = published.load_full();
        let alone = regions.sharing(after.as_ref().unwrap_or(&current), words.zones());
        if !alone.is_empty() {
            // What is said of one zone must not hold in those that are like it.
            let apart = after.as_ref().unwrap_or(&current).with_apart(&alone);
            touched.extend(regions.set_apart(&apart));
            after = Some(apart);
        }
        let known = after.as_ref().unwrap_or(&current);
        let uncertain = |at: At| targets(known, at).any(|target| judge.uncertain(target, now));
        let condition = |at: At| condition(prober, targets(known, at));
        let around = Surroundings { words: &words, uncertain: &uncertain, condition: &condition };
        let (mut standings, mut steps) = regions.standings(known, touched.iter().copied(), &around, now);
        let with = (!standings.is_empty()).then(|| known.with_standings(standings.iter().cloned()));
        let with = with.as_ref().unwrap_or(known);
        let (flips, other) = regions.follow(with, &touched, &condition, now);
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
                    learned: self.learned.clone(),
                    steering: self.helm.as_ref().map(|helm| helm.view().load_full()).unwrap_or_default(),
                };
                // Who asked may have gone.
                let _ = reply.send(view);
            }
            Event::Order(draft, reply) => self.desk.give(draft, reply),
            Event::Lift { what, author, reply } => self.desk.lift(what, author, reply),
            Event::Steer { basis, changes } => self.steer(&basis, changes),
        }
        self.serve_desk();
    }

    fn note(&mut self, kind: Kind, cause: &str) {
        self.note_of(Note::new(kind, cause));
    }

    fn note_of(&mut self, note: Note) {
        let now = self.published.load_full();
        self.scribe.note(Job { plain: vec![note], ..Job::new(Arc::clone(&now), now) });
    }

    /// Publishes what the load asks for, unless the groups are others by now.
    fn steer(&mut self, basis: &Snapshot, changes: Vec<Change>) {
        let current = self.published.load_full();
        if basis.is_kin(&current) {
            self.replace(current.with_rankings(changes));
        }
    }

    fn publish(&mut self, snapshot: Snapshot) {
        self.replace(snapshot);
        if let Some(helm) = &self.helm {
            helm.wake();
        }
    }

    fn replace(&mut self, snapshot: Snapshot) {
        // One step, of however many it was made.
        let snapshot = snapshot.following(&self.published.load());
        self.ledger.adopt(snapshot.counters());
        self.retired.keep(self.published.swap(Arc::new(snapshot)));
    }

    /// Frees old snapshots where it keeps nobody waiting.
    fn sweep(&mut self) {
        let unread = self.retired.take_unread();
        if !unread.is_empty() {
            self.bin.take(unread);
        }
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

/// The targets of a snapshot, each with the regions that it is part of.
fn judged(snapshot: &Snapshot) -> Vec<(Target, Group)> {
    let mut members: BTreeMap<At, Vec<TargetId>> = BTreeMap::new();
    for id in (0..snapshot.targets().len() as u32).map(TargetId) {
        snapshot.users(id).for_each(|at| members.entry(at).or_default().push(id));
    }
    // Regions with the same servers stand and fall together.
    let groups: BTreeSet<Vec<TargetId>> = members.into_values().collect();
    let targets = snapshot.targets();
    let of = |(number, members): (usize, Vec<TargetId>)| {
        members.into_iter().map(move |id| (targets[id.0 as usize].clone(), Group(number as u32)))
    };
    groups.into_iter().enumerate().flat_map(of).collect()
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
fn targets(snapshot: &Snapshot, (fleet, region): At) -> impl Iterator<Item = &Target> {
    let (fleet, _) = snapshot.fleet_at(fleet);
    let members = Family::BOTH.into_iter().flat_map(move |family| fleet.members(region, family));
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
