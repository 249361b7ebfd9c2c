//! What is known of each target besides its verdict: counters for metrics and `explain`.
//!
//! Written by the target's one task, read by anybody at any time without a lock; each figure is true by itself, not all
//! of them at one instant.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{Target, Verdict};

/// Upper bounds of the duration buckets, in microseconds; a last bucket holds what is longer.
pub const BUCKETS_US: [u64; 12] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000];

/// Results that [`TargetStats::recent_p95`] and [`TargetStats::recent_failures`] look back on: about half a minute at the
/// default pace.
pub const RECENT: usize = 64;

/// In [`TargetStats`]'s ring: no result yet, a failure; anything between is a duration in microseconds plus one.
const NONE: u32 = 0;
const FAILURE: u32 = u32::MAX;

/// How a probe ended, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Success = 0,
    /// Refused, reset, TLS alert, wrong status or body.
    Hard = 1,
    /// No answer within the time-out.
    Silence = 2,
    /// The kept connection was already closed; probed again at once.
    Stale = 3,
    /// This machine could not send the probe; the verdict is kept.
    Local = 4,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Success, Kind::Hard, Kind::Silence, Kind::Stale, Kind::Local];

    /// The value of the metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Success => "success",
            Kind::Hard => "failure",
            Kind::Silence => "timeout",
            Kind::Stale => "stale_connection",
            Kind::Local => "local_error",
        }
    }
}

/// The figures of one target.
#[derive(Debug)]
pub struct TargetStats {
    pub target: Arc<Target>,
    verdict: AtomicU8,
    settled: AtomicBool,
    results: [AtomicU64; Kind::ALL.len()],
    connects: AtomicU64,
    restarts: AtomicU32,
    /// Microseconds plus one; 0 before the first success.
    last_rtt: AtomicU64,
    last_cause: ArcSwapOption<Box<str>>,
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
    /// The last results, the newest at `recent_next` − 1.
    recent: [AtomicU32; RECENT],
    recent_next: AtomicU64,
    born: Instant,
    /// Milliseconds after `born`.
    last_result: AtomicU64,
}

impl TargetStats {
    pub(super) fn new(target: Arc<Target>, prior: Verdict) -> TargetStats {
        TargetStats {
            target,
            verdict: AtomicU8::new(prior as u8),
            settled: AtomicBool::new(false),
            results: Default::default(),
            connects: AtomicU64::new(0),
            restarts: AtomicU32::new(0),
            last_rtt: AtomicU64::new(0),
            last_cause: ArcSwapOption::empty(),
            buckets: Default::default(),
            sum_us: AtomicU64::new(0),
            recent: std::array::from_fn(|_| AtomicU32::new(NONE)),
            recent_next: AtomicU64::new(0),
            born: now(),
            last_result: AtomicU64::new(0),
        }
    }

    pub fn verdict(&self) -> Verdict {
        match self.verdict.load(Ordering::Acquire) {
            v if v == Verdict::Up as u8 => Verdict::Up,
            v if v == Verdict::Down as u8 => Verdict::Down,
            _ => Verdict::Unknown,
        }
    }

    /// Whether the first round no longer waits for it: there is a verdict that rests on its own probes, or there can be
    /// none.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Probes that ended so.
    pub fn results(&self, kind: Kind) -> u64 {
        self.results[kind as usize].load(Ordering::Relaxed)
    }

    /// Connections begun, whether or not they came to stand.
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// Times the target's task had to be started again after a fault of ours.
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Duration of the last successful probe, connection included where a new one was made.
    pub fn last_rtt(&self) -> Option<Duration> {
        self.last_rtt.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_micros)
    }

    /// Why the last unsuccessful probe failed, a short text for people. Stays after later successes.
    pub fn last_cause(&self) -> Option<String> {
        self.last_cause.load().as_ref().map(|cause| cause.to_string())
    }

    /// Successful probes by duration: those of at most [`BUCKETS_US`]`[i]` and more than the bound before, then the
    /// rest.
    pub fn buckets(&self) -> [u64; BUCKETS_US.len() + 1] {
        std::array::from_fn(|i| self.buckets[i].load(Ordering::Relaxed))
    }

    /// Sum of the durations of successful probes.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed))
    }

    /// The duration that 95 of 100 of the successes among the last [`RECENT`] results did not exceed; `None` without any.
    pub fn recent_p95(&self) -> Option<Duration> {
        let mut times: Vec<u32> = self.recent().filter(|result| *result != FAILURE).collect();
        let rank = (times.len() * 95).div_ceil(100).checked_sub(1)?;
        let (_, us, _) = times.select_nth_unstable(rank);
        Some(Duration::from_micros(u64::from(*us - 1)))
    }

    /// The share of failures, time-outs among them, of the last [`RECENT`] results, 0 to 1; `None` without any.
    pub fn recent_failures(&self) -> Option<f64> {
        let (mut failures, mut all) = (0u32, 0u32);
        for result in self.recent() {
            failures += u32::from(result == FAILURE);
            all += 1;
        }
        (all > 0).then(|| f64::from(failures) / f64::from(all))
    }

    /// How many of the last `count` results, [`RECENT`] at most, were failures or time-outs.
    pub fn failed_lately(&self, count: usize) -> usize {
        let next = self.recent_next.load(Ordering::Relaxed) as usize;
        let newest = (1..=count.min(RECENT)).map(|back| next.wrapping_sub(back) % RECENT);
        newest.filter(|place| self.recent[*place].load(Ordering::Relaxed) == FAILURE).count()
    }

    fn recent(&self) -> impl Iterator<Item = u32> {
        self.recent.iter().map(|result| result.load(Ordering::Relaxed)).filter(|result| *result != NONE)
    }

    fn note_recent(&self, result: u32) {
        let next = self.recent_next.fetch_add(1, Ordering::Relaxed);
        self.recent[(next % RECENT as u64) as usize].store(result, Ordering::Relaxed);
    }

    /// Time since a probe last told anything about the target, or since it was first to be probed.
    pub fn since_result(&self, now: Instant) -> Duration {
        let last = self.born + Duration::from_millis(self.last_result.load(Ordering::Relaxed));
        now.saturating_duration_since(last)
    }

    pub(super) fn set_verdict(&self, verdict: Verdict) {
        self.verdict.store(verdict as u8, Ordering::Release);
    }

    /// True the first time only.
    pub(super) fn settle(&self) -> bool {
        !self.settled.swap(true, Ordering::AcqRel)
    }

    pub(super) fn count(&self, kind: Kind) {
        self.results[kind as usize].fetch_add(1, Ordering::Relaxed);
        if matches!(kind, Kind::Success | Kind::Hard | Kind::Silence) {
            let age = now().saturating_duration_since(self.born).as_millis();
            self.last_result.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    pub(super) fn count_success(&self, rtt: Duration) {
        let us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX - 1);
        self.last_rtt.store(us + 1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
        let bucket = BUCKETS_US.partition_point(|&bound| bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.note_recent(u32::try_from(us + 1).unwrap_or(FAILURE - 1).min(FAILURE - 1));
        self.count(Kind::Success);
    }

    pub(super) fn count_failure(&self, kind: Kind, cause: &str) {
        if self.last_cause.load().as_ref().is_none_or(|last| ***last != *cause) {
            self.last_cause.store(Some(Arc::new(cause.into())));
        }
        if matches!(kind, Kind::Hard | Kind::Silence) {
            self.note_recent(FAILURE);
        }
        self.count(kind);
    }

    pub(super) fn count_connect(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }
}

/// The runtime's clock, which tests can stop.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A handle on the figures of all targets, for metrics and `explain`. Cheap to clone; follows later changes of targets.
#[derive(Clone, Debug, Default)]
pub struct Stats(Arc<ArcSwap<Vec<Arc<TargetStats>>>>);

impl Stats {
    /// All targets probed now, in the order of the last [`super::Prober::retarget`].
    pub fn targets(&self) -> Arc<Vec<Arc<TargetStats>>> {
        self.0.load_full()
    }

    /// Linear in the number of targets.
    pub fn find(&self, target: &Target) -> Option<Arc<TargetStats>> {
        self.0.load().iter().find(|stats| *stats.target == *target).cloned()
    }

    pub(super) fn publish(&self, targets: Vec<Arc<TargetStats>>) {
        self.0.store(Arc::new(targets));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Check, CheckKind};

    fn stats() -> TargetStats {
        let second = Duration::from_secs(1);
        let check = Check {
            kind: CheckKind::Tcp,
            every: second,
            timeout: second / 2,
            adaptive: false,
            fall: 1,
            rise: 1,
            port: 1,
            heartbeat: None,
            load: Default::default(),
        };
        let target = Target { address: "127.0.0.1:1".parse().unwrap(), check: Arc::new(check), beats_of: None };
        TargetStats::new(Arc::new(target), Verdict::Unknown)
    }

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let stats = stats();
        for us in [0, 500, 501, 2_500_000, 2_500_001, 9_000_000] {
            stats.count_success(Duration::from_micros(us));
        }
        assert_eq!(stats.buckets(), [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(stats.results(Kind::Success), 6);
        assert_eq!(stats.last_rtt(), Some(Duration::from_secs(9)));
        assert_eq!(stats.total(), Duration::from_micros(500 + 501 + 2_500_000 + 2_500_001 + 9_000_000));
    }

    #[test]
    fn a_first_rtt_of_zero_is_not_taken_for_none() {
        let stats = stats();
        assert_eq!(stats.last_rtt(), None);
        stats.count_success(Duration::ZERO);
        assert_eq!(stats.last_rtt(), Some(Duration::ZERO));
    }

    #[test]
    fn recent_figures_look_back_on_a_bounded_number_of_results() {
        let stats = stats();
        assert_eq!((stats.recent_p95(), stats.recent_failures()), (None, None));
        stats.count_failure(Kind::Silence, "no answer in 250ms");
        assert_eq!((stats.recent_p95(), stats.recent_failures()), (None, Some(1.0)));
        (1..=60).for_each(|ms| stats.count_success(Duration::from_millis(ms)));
        assert_eq!(stats.recent_p95(), Some(Duration::from_millis(57)));
        assert_eq!(stats.recent_failures(), Some(1.0 / 61.0));
        // What tells nothing about the target is no result.
        stats.count_failure(Kind::Local, "no route");
        assert_eq!(stats.recent_failures(), Some(1.0 / 61.0));
        (0..RECENT).for_each(|_| stats.count_success(Duration::from_secs(100_000)));
        assert_eq!(stats.recent_failures(), Some(0.0));
        assert!(stats.recent_p95() > Some(Duration::from_secs(4_000)), "clamped, and no failure");
        (0..RECENT / 4).for_each(|_| stats.count_failure(Kind::Hard, "refused"));
        assert_eq!(stats.recent_failures(), Some(0.25));
    }

    #[test]
    fn the_last_cause_is_the_last_one() {
        let stats = stats();
        assert_eq!(stats.last_cause(), None);
        stats.count_failure(Kind::Hard, "refused");
        stats.count_failure(Kind::Hard, "refused");
        stats.count_failure(Kind::Silence, "no answer in 250ms");
        assert_eq!(stats.last_cause().as_deref(), Some("no answer in 250ms"));
        assert_eq!((stats.results(Kind::Hard), stats.results(Kind::Silence)), (2, 1));
    }
}
