//! The tasks that probe, one a target, and the events they give to the control loop.
//!
//! A task owns all that belongs to its target: the [`Tracker`], the kept connection, the probes on their way. Dropping
//! it drops every socket. It panics for no answer of a target; should it all the same, that is logged as an error and
//! the task is started again with the verdict that stood.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::alarm::{Alarm, Alarms};
use super::doubts::{Doubter, Doubts, News};
use super::http::{Gone, Kept};
use super::load::{Asker, Listener};
use super::oversight::oversee;
use super::patience::{alarm, patiently};
use super::probe::{Outcome, Probe, Request};
use super::rtt::Rtts;
use super::stats::{Kind, Stats, TargetStats, now};
use super::tls::Connectors;
use super::tracker::{Change, Plan, ProbeId, Rules, Sample, Tracker};
use super::{Reports, Target, Verdict};
use crate::config::settings::LoadSource;

/// Connections being made at one time, of all targets together. More wait their turn; the time-out of a probe does not
/// run while it waits. Bounds file descriptors, handshakes and bursts of SYN when thousands of targets fail at once.
const MAX_CONNECTING: usize = 1024;

/// Programs of `exec` checks that run at one time, of all targets together. More wait their turn, as connections do.
const MAX_PROCESSES: usize = 64;

/// Between the first probes of targets that are added together: 10,000 targets start within half a second.
const START_GAP: Duration = Duration::from_micros(50);

/// The last of many new targets starts after this long at most, well within the first round.
const MAX_START: Duration = Duration::from_secs(1);

/// Between alarms about the same trouble of this machine.
const ALARM_GAP: Duration = Duration::from_secs(60);

/// A verdict that changed, or the first one that rests on results.
#[derive(Clone, Debug)]
pub struct Event {
    pub target: Arc<Target>,
    /// Up or Down.
    pub verdict: Verdict,
    /// A short text for people: `refused`, `status 503`, `no answer in 250ms`, `answered in 0.4ms`.
    pub cause: Arc<str>,
    /// When the result that decided it was known.
    pub at: Instant,
}

/// Probes a set of targets. Dropping it stops all probes and closes all their connections.
pub struct Prober {
    tasks: HashMap<Arc<Target>, Running>,
    by_address: HashMap<SocketAddr, Vec<Arc<TargetStats>>>,
    connectors: Connectors,
    stats: Stats,
    doubter: Doubter,
    alarms: Alarms,
    shared: Arc<Shared>,
    reports: Option<Arc<dyn Reports>>,
    /// From the first [`Prober::retarget`] on.
    oversight: Option<AbortOnDropHandle<()>>,
}

struct Running {
    stats: Arc<TargetStats>,
    doubts: Arc<Doubts>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// What all tasks share.
struct Shared {
    events: mpsc::Sender<Event>,
    connecting: Arc<Semaphore>,
    processes: Arc<Semaphore>,
    /// Targets that have no verdict of their own yet.
    unsettled: watch::Sender<usize>,
    last_alarm: Mutex<Option<Instant>>,
    local_errors: AtomicU64,
}

impl Prober {
    /// Verdicts that change go to `events`. While it is full a task keeps its newest event and probes on.
    pub fn new(events: mpsc::Sender<Event>) -> Prober {
        let shared = Shared {
            events,
            connecting: Arc::new(Semaphore::new(MAX_CONNECTING)),
            processes: Arc::new(Semaphore::new(MAX_PROCESSES)),
            unsettled: watch::Sender::new(0),
            last_alarm: Mutex::new(None),
            local_errors: AtomicU64::new(0),
        };
        Prober {
            tasks: HashMap::new(),
            by_address: HashMap::new(),
            connectors: Connectors::default(),
            stats: Stats::default(),
            doubter: Doubter::default(),
            alarms: Alarms::default(),
            shared: Arc::new(shared),
            reports: None,
            oversight: None,
        }
    }

    /// Tells `reports` what targets say of their load, from the next [`Prober::retarget`] on.
    pub fn reporting_to(self, reports: Arc<dyn Reports>) -> Prober {
        Prober { reports: Some(reports), ..self }
    }

    /// Probes these targets from now on, and no others. Targets that stay keep their state and connections; new ones
    /// start at [`Prober::believed`]; those that went are stopped, though events they gave before may still be in the
    /// channel. Must be called within a tokio runtime; the tasks run there.
    pub fn retarget(&mut self, targets: &[Target]) {
        let mut tasks = HashMap::with_capacity(targets.len());
        let mut order = Vec::with_capacity(targets.len());
        let new: Vec<(Arc<Target>, Verdict)> = targets
            .iter()
            .filter(|target| !self.tasks.contains_key(*target))
            .map(|target| (Arc::new(target.clone()), self.believed(target)))
            .collect();
        for target in targets {
            if let Some((target, running)) = self.tasks.remove_entry(target) {
                order.push(running.stats.clone());
                tasks.insert(target, running);
            }
        }
        for (index, (target, prior)) in new.into_iter().enumerate() {
            if tasks.contains_key(&target) {
                continue;
            }
            let delay = START_GAP.saturating_mul(index as u32).min(MAX_START);
            let running = self.start(target.clone(), prior, delay);
            order.push(running.stats.clone());
            tasks.insert(target, running);
        }
        for gone in std::mem::replace(&mut self.tasks, tasks).into_values() {
            self.shared.settled(&gone.stats);
        }
        self.connectors.tidy();
        self.by_address.clear();
        for stats in &order {
            self.by_address.entry(stats.target.address).or_default().push(stats.clone());
        }
        self.stats.publish(order);
        let lines = self
            .tasks
            .iter()
            .map(|(target, running)| (Arc::clone(target), (Arc::clone(&running.doubts), Arc::clone(&running.stats))));
        self.doubter.publish(lines.collect());
        self.oversight.get_or_insert_with(|| {
            AbortOnDropHandle::new(tokio::spawn(oversee(self.stats.clone(), self.alarms.clone())))
        });
    }

    /// Resolves once every target of now has a verdict that rests on results, or after `deadline`; gives the number of
    /// targets still without one. Their events are in the channel by then as far as it had room.
    pub fn first_round(&self, deadline: Duration) -> impl Future<Output = usize> + Send + use<> {
        let mut unsettled = self.shared.unsettled.subscribe();
        async move {
            let settled = timeout(deadline, unsettled.wait_for(|count| *count == 0)).await.is_ok();
            if settled { 0 } else { *unsettled.borrow() }
        }
    }

    /// The verdict of a target, in constant time. One that is not probed yet is believed down if its address is, by
    /// every other check of that address: an edit of a check must not send viewers to a dead server until the new check
    /// has failed, nor to one that recovers before it has given `rise` answers.
    pub fn believed(&self, target: &Target) -> Verdict {
        if let Some(running) = self.tasks.get(target) {
            return running.stats.verdict();
        }
        let kin = self.by_address.get(&target.address);
        if kin.is_some_and(|kin| kin.iter().all(|stats| stats.verdict() == Verdict::Down)) {
            Verdict::Down
        } else {
            Verdict::Unknown
        }
    }

    /// The figures of one target, in constant time.
    pub fn stats_of(&self, target: &Target) -> Option<&Arc<TargetStats>> {
        self.tasks.get(target).map(|running| &running.stats)
    }

    /// The figures of all targets.
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// Alarms from now on; see [`Alarm`]. One that was raised has been logged.
    pub fn alarms(&self) -> broadcast::Receiver<Alarm> {
        self.alarms.listen()
    }

    /// For whoever hears of trouble before the probes do. Follows later changes of targets.
    pub fn doubter(&self) -> Doubter {
        self.doubter.clone()
    }

    fn start(&mut self, target: Arc<Target>, prior: Verdict, delay: Duration) -> Running {
        let stats = Arc::new(TargetStats::new(target.clone(), prior));
        let doubts = Arc::new(Doubts::default());
        self.shared.unsettled.send_modify(|count| *count += 1);
        let probe = match Probe::new(&target, &mut self.connectors, self.reports.as_ref()) {
            Ok(probe) => Arc::new(probe),
            Err(fault) => {
                tracing::error!(address = %target.address, "not probed, counts as up: {fault}");
                stats.count_failure(Kind::Local, &fault);
                stats.set_verdict(Verdict::Unknown);
                self.shared.settled(&stats);
                return Running { stats, doubts, _tasks: vec![] };
            }
        };
        let seed = RandomState::new().hash_one(&*target);
        let asker = self.asker(&target, seed);
        let alarms = self.alarms.clone();
        let watcher =
            Watcher { target, probe, stats: stats.clone(), doubts: doubts.clone(), shared: self.shared.clone() };
        let task = async move {
            sleep(delay).await;
            let pause = watcher.target.check.every;
            let stats = watcher.stats.clone();
            supervise(&stats, &alarms, pause, || watcher.watch(seed)).await;
        };
        let mut tasks = vec![AbortOnDropHandle::new(tokio::spawn(task))];
        tasks.extend(asker.map(|asker| AbortOnDropHandle::new(tokio::spawn(asker))));
        Running { stats, doubts, _tasks: tasks }
    }
}

impl Prober {
    /// The task that asks a target for its load beside its probes, if it is to be asked.
    fn asker(&mut self, target: &Target, seed: u64) -> Option<impl Future<Output = ()> + Send + use<>> {
        let LoadSource::Apart(asked) = &target.check.load else { return None };
        let listener = Listener::new(target, Arc::clone(self.reports.as_ref()?));
        match Request::new(target, asked, &mut self.connectors, listener.clone()) {
            Ok(request) => {
                let asker = Asker::new(request, listener, asked.clone());
                let phase = (seed >> 40) as f64 / (1u64 << 24) as f64;
                Some(asker.run(phase, Arc::clone(&self.shared.connecting)))
            }
            Err(fault) => {
                tracing::error!(address = %target.address, "not asked for its load: {fault}");
                None
            }
        }
    }
}

impl Shared {
    /// Counts a target as settled, once.
    fn settled(&self, stats: &TargetStats) {
        if stats.settle() {
            self.unsettled.send_modify(|count| *count -= 1);
        }
    }

    fn local_trouble(&self, target: &Target, cause: &str) {
        let count = self.local_errors.fetch_add(1, Ordering::Relaxed) + 1;
        let mut last = self.last_alarm.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if last.is_none_or(|last| last.elapsed() >= ALARM_GAP) {
            *last = Some(Instant::now());
            drop(last);
            tracing::warn!(
                address = %target.address,
                count,
                "this machine cannot probe: {cause}; verdicts are kept, changes of health may go unseen"
            );
        }
    }
}

/// Runs `run` until it returns, again after each panic.
async fn supervise<F: Future<Output = ()>>(
    stats: &TargetStats,
    alarms: &Alarms,
    pause: Duration,
    mut run: impl FnMut() -> F,
) {
    while let Err(panic) = AssertUnwindSafe(run()).catch_unwind().await {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| text.to_string())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        stats.count_restart();
        alarms.raise(Alarm::Restarted { target: Arc::clone(&stats.target), message });
        sleep(pause).await;
    }
}

type Flight = Pin<Box<dyn Future<Output = Landed> + Send>>;

/// What a probe on its way tells the task.
enum Landed {
    Done {
        id: ProbeId,
        outcome: Outcome,
        /// Whether it went over a kept connection.
        again: bool,
        kept: Option<Kept>,
    },
    /// The time-out passed; the probe itself goes on as long as the flight is held.
    Silent { id: ProbeId, patience: Duration, rest: Flight },
}

/// How long probes take over new connections and over kept ones, which need fewer round trips.
#[derive(Default)]
struct Paces {
    fresh: Rtts,
    again: Rtts,
}

impl Paces {
    fn of(&mut self, again: bool) -> &mut Rtts {
        if again { &mut self.again } else { &mut self.fresh }
    }
}

struct Watcher {
    target: Arc<Target>,
    probe: Arc<Probe>,
    stats: Arc<TargetStats>,
    doubts: Arc<Doubts>,
    shared: Arc<Shared>,
}

impl Watcher {
    /// Probes until nobody listens to events any more.
    async fn watch(&self, seed: u64) {
        let mut tracker = Tracker::new(Rules::from(&*self.target.check), self.stats.verdict(), now(), seed);
        let mut flights: FuturesUnordered<Flight> = FuturesUnordered::new();
        let mut kept: Option<Kept> = None;
        let mut unsent: Option<Event> = None;
        let mut rtts = Paces::default();
        loop {
            let plan = tracker.next();
            tokio::select! {
                // What has come in counts before what is due: a busy machine must not take its own lateness for
                // silence.
                biased;
                Some(landed) = flights.next(), if !flights.is_empty() => {
                    let (id, sample, rest) = match landed {
                        Landed::Done { id, outcome, again, kept: connection } => {
                            if let Outcome::Success { rtt } = outcome {
                                rtts.of(again).note(rtt);
                            }
                            if connection.is_some() {
                                kept = connection;
                            }
                            (id, self.sample(outcome), None)
                        }
                        Landed::Silent { id, patience, rest } => (id, self.silence(patience), Some(rest)),
                    };
                    let report = tracker.report(id, sample, now());
                    if report.drop_others {
                        flights.clear();
                    }
                    if report.keep_waiting {
                        flights.extend(rest);
                    }
                    self.tell(report.change, &mut unsent);
                }
                gone = idle(&mut kept) => {
                    kept = None;
                    if gone == Gone::Closed {
                        tracker.idle_closed(now());
                    }
                }
                news = self.doubts.next() => match news {
                    News::Doubt(doubt) => tracker.doubt(now(), doubt.confirmations, doubt.timeout),
                    News::Cleared => tracker.clear_doubt(now()),
                },
                permit = self.shared.events.reserve(), if unsent.is_some() => match (permit, unsent.take()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    _ => return,
                },
                () = due(plan) => {
                    let fresh = plan.is_some_and(|plan| plan.fresh);
                    let connection = kept.take().filter(|kept| !fresh && kept.is_usable());
                    let id = tracker.sent(now());
                    let check = &self.target.check;
                    let patience = match plan.and_then(|plan| plan.timeout) {
                        Some(timeout) => timeout,
                        // Only the regular probes adapt. A verdict hangs on those that confirm.
                        None if check.adaptive && !fresh => {
                            rtts.of(connection.is_some()).timeout(check.timeout)
                        }
                        None => check.timeout,
                    };
                    flights.push(self.fly(id, connection, patience));
                }
            }
        }
    }

    fn fly(&self, id: ProbeId, kept: Option<Kept>, patience: Duration) -> Flight {
        let (probe, stats, shared) = (self.probe.clone(), self.stats.clone(), self.shared.clone());
        let again = kept.is_some();
        Box::pin(async move {
            let process = probe.is_process();
            let turns = if process { &shared.processes } else { &shared.connecting };
            let connecting = match kept {
                Some(_) => None,
                // The semaphore is never closed; without a permit the probe goes out all the same.
                None => turns.clone().acquire_owned().await.ok(),
            };
            let mut exchange = Box::pin(async move {
                match kept {
                    Some(kept) => probe.again(kept).await,
                    None => {
                        if !process {
                            stats.count_connect();
                        }
                        probe.fresh(connecting).await
                    }
                }
            });
            match patiently(&mut exchange, patience).await {
                Some((outcome, kept)) => Landed::Done { id, outcome, again, kept },
                // Dropped with this future, the program is killed.
                None if process => Landed::Silent { id, patience, rest: pending().boxed() },
                None => {
                    let rest = exchange.map(move |(outcome, kept)| Landed::Done { id, outcome, again, kept });
                    Landed::Silent { id, patience, rest: rest.boxed() }
                }
            }
        })
    }

    fn sample(&self, outcome: Outcome) -> Sample {
        match outcome {
            // A server may know better than its answer shows.
            Outcome::Success { .. } if self.doubts.is_not_ready() => {
                let cause: Arc<str> = "its agent says it is not ready".into();
                self.stats.count_failure(Kind::Hard, &cause);
                Sample::Hard(cause)
            }
            Outcome::Success { rtt } => {
                self.stats.count_success(rtt);
                Sample::Success { rtt }
            }
            Outcome::Hard(cause) => {
                self.stats.count_failure(Kind::Hard, &cause);
                Sample::Hard(cause)
            }
            Outcome::Stale => {
                self.stats.count(Kind::Stale);
                Sample::Stale
            }
            Outcome::Local(cause) => {
                self.stats.count_failure(Kind::Local, &cause);
                self.shared.local_trouble(&self.target, &cause);
                Sample::Local
            }
        }
    }

    fn silence(&self, patience: Duration) -> Sample {
        let cause: Arc<str> = format!("no answer in {patience:?}").into();
        self.stats.count_failure(Kind::Silence, &cause);
        Sample::Silence(cause)
    }

    fn tell(&self, change: Option<Change>, unsent: &mut Option<Event>) {
        let Some(Change { verdict, cause }) = change else { return };
        self.stats.set_verdict(verdict);
        *unsent = Some(Event { target: self.target.clone(), verdict, cause, at: now() });
        if let Ok(permit) = self.shared.events.try_reserve()
            && let Some(event) = unsent.take()
        {
            permit.send(event);
        }
        self.shared.settled(&self.stats);
    }
}

async fn due(plan: Option<Plan>) {
    match plan {
        Some(plan) => alarm(plan.at.into()).await,
        None => pending().await,
    }
}

async fn idle(kept: &mut Option<Kept>) -> Gone {
    match kept {
        Some(kept) => kept.idle().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
