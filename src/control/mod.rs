//! The loop that changes the world: the only writer of what is published.
//!
//! ```text
//! verdicts ───────┐                 ┌─► Snapshot::with_verdicts ─────────────┐
//! files changed ──┼─► Control::run ─┤                                        ├─► publish (one swap)
//! SIGHUP, views ──┘                 └─► load, on a thread of its own ─ done ─┘
//! ```
//!
//! Verdicts are published as they come, in microseconds: nothing in the loop blocks. Reading and compiling files goes on
//! elsewhere meanwhile; what was learned during it is applied to its result before that is published, so no verdict is
//! lost. A load that fails changes nothing.

pub mod load;
pub mod retired;
pub mod serials;
pub mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::load::{Load, Loaded, Refused};
use self::retired::Retired;
use self::watch::Watcher;
use crate::config::Diagnostic;
use crate::health::{self, Prober, Verdict};
use crate::orders::{Draft, Lift, Order, Refusal};
use crate::server::counters::Ledger;
use crate::snapshot::{Published, Snapshot};
use crate::world::{Belief, View, World};

/// How often old snapshots are looked at.
const SWEEP: Duration = Duration::from_millis(200);
/// Verdicts taken into one snapshot at most; those beyond go into the next.
const BURST: usize = 1024;
/// Questions and requests that wait for the loop; who asks more waits.
pub const QUEUE: usize = 64;

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
    pub world: World,
    pub load: Load,
    pub watcher: Watcher,
    pub prober: Prober,
    pub verdicts: mpsc::Receiver<health::Event>,
    pub events: mpsc::Receiver<Event>,
    pub ledger: Arc<Ledger>,
    pub tally: Arc<Tally>,
}

/// Runs until `stop`.
pub async fn run(parts: Parts, stop: CancellationToken) {
    Control { parts, retired: Retired::default(), job: None, again: false, waiting: vec![], next: vec![] }
        .run(stop)
        .await;
}

struct Control {
    parts: Parts,
    retired: Retired<Snapshot>,
    /// The load that is going on.
    job: Option<JoinHandle<Result<Loaded, Refused>>>,
    /// Something changed after the load began, so it must be followed by another.
    again: bool,
    /// Who waits for the outcome of the load going on, and of the one after it.
    waiting: Vec<oneshot::Sender<ReloadOutcome>>,
    next: Vec<oneshot::Sender<ReloadOutcome>>,
}

impl Control {
    async fn run(mut self, stop: CancellationToken) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut burst = Vec::with_capacity(BURST);
        loop {
            tokio::select! {
                // Verdicts first: viewers wait for them.
                biased;
                () = stop.cancelled() => return,
                1.. = self.parts.verdicts.recv_many(&mut burst, BURST) => self.flip(&mut burst),
                loaded = job(&mut self.job) => self.finish(loaded),
                Some(event) = self.parts.events.recv() => self.handle(event),
                _ = sweep.tick(), if !self.retired.is_empty() => self.sweep(),
            }
        }
    }

    /// Publishes a burst of verdicts as one snapshot.
    fn flip(&mut self, burst: &mut Vec<health::Event>) {
        let snapshot = self.parts.published.load_full();
        let mut changes = Vec::with_capacity(burst.len());
        let mut told = Vec::with_capacity(burst.len());
        for event in burst.drain(..) {
            let belief = Belief::new(event.verdict, Arc::clone(&event.cause), SystemTime::now());
            let Some((id, server)) = self.parts.world.believe(&event.target, belief) else { continue };
            changes.push((id, event.verdict));
            told.push((server, snapshot.verdict(id), event));
        }
        // Later verdicts of a target stand: with_verdicts takes them in order.
        if changes.iter().any(|(id, verdict)| snapshot.verdict(*id) != *verdict) {
            self.publish(snapshot.with_verdicts(&changes));
        }
        // Only now: answers come before words about them.
        told.iter().for_each(|(server, before, event)| tell(server, *before, event));
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
                    snapshot: self.parts.published.load_full(),
                    beliefs: self.parts.world.beliefs(),
                    orders: Arc::default(),
                };
                // Who asked may have gone.
                let _ = reply.send(view);
            }
            Event::Order(..) | Event::Lift { .. } => todo!(),
        }
    }

    /// Begins a load, or notes that one more is needed when the one going on may have read older files.
    fn reload(&mut self) {
        if self.job.is_some() {
            self.again = true;
            return;
        }
        self.waiting.append(&mut self.next);
        let load = Arc::clone(&self.parts.load);
        let (previous, beliefs) = (self.parts.published.load_full(), self.parts.world.beliefs());
        self.job = Some(tokio::task::spawn_blocking(move || load(&previous, &beliefs)));
    }

    fn finish(&mut self, done: Result<Result<Loaded, Refused>, JoinError>) {
        self.job = None;
        let outcome = match done {
            Ok(Ok(loaded)) => Ok(self.accept(loaded)),
            Ok(Err(refused)) => Err(self.refuse(refused)),
            Err(died) => {
                self.parts.tally.reloads_refused.fetch_add(1, Relaxed);
                error!(error = %died, "a fault of ours ended the reload; what was loaded before serves on");
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
        let prober = &mut self.parts.prober;
        // What was learned while it was compiled, and what kin of new targets let us believe.
        let news = self.parts.world.news_for(&snapshot, |target| prober.believed(target));
        let snapshot = if news.is_empty() { snapshot } else { snapshot.with_verdicts(&news) };
        let snapshot = snapshot.following(&self.parts.published.load());
        self.parts.world.replace(&snapshot);
        prober.retarget(snapshot.targets());
        self.parts.watcher.watch(seen.inputs, seen.fingerprint);
        let generation = self.publish(snapshot);
        self.parts.tally.reloads_done.fetch_add(1, Relaxed);
        warnings.iter().for_each(log);
        info!(generation, zones = self.parts.published.load().zones().len(), "reloaded");
        generation
    }

    fn refuse(&mut self, refused: Refused) -> Vec<Diagnostic> {
        self.parts.tally.reloads_refused.fetch_add(1, Relaxed);
        refused.diagnostics.iter().for_each(log);
        error!("reload refused; what was loaded before serves on");
        self.parts.watcher.watch(refused.seen.inputs, refused.seen.fingerprint);
        refused.diagnostics
    }

    fn publish(&mut self, snapshot: Snapshot) -> u64 {
        let generation = snapshot.generation();
        self.parts.ledger.adopt(snapshot.counters());
        self.retired.keep(self.parts.published.swap(Arc::new(snapshot)));
        generation
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

fn tell(server: &str, before: Verdict, event: &health::Event) {
    let (probed, cause) = (event.target.address, &event.cause);
    match (before, event.verdict) {
        (_, Verdict::Down) => warn!(server, %probed, %cause, "down"),
        (_, Verdict::Damped) => warn!(server, %probed, %cause, "answers, but counts as down: it changed too often"),
        (Verdict::Down | Verdict::Damped, _) => info!(server, %probed, %cause, "up"),
        // As it was taken to be.
        (Verdict::Unknown | Verdict::Up, _) => debug!(server, %probed, %cause, "up"),
    }
}

#[cfg(test)]
mod tests;
