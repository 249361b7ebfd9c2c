//! What was asked and answered of late: the counters, looked at once a second.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::server::counters::{Ledger, Totals};
use crate::snapshot::Published;

const TICK: Duration = Duration::from_secs(1);
/// Rates are over the time between the first and the last of these: ten seconds.
const SAMPLES: usize = 11;

/// Rates of now, for who asks.
#[derive(Debug, Default)]
pub struct Rates(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    samples: VecDeque<Sample>,
    published: Option<(u64, SystemTime)>,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    queries: u64,
    by_zone: BTreeMap<Arc<str>, u64>,
    by_region: BTreeMap<(Arc<str>, Arc<str>), u64>,
}

/// Events per second. What is not in a map had none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recent {
    pub qps: f64,
    pub by_zone: BTreeMap<Arc<str>, f64>,
    /// Steered answers, by zone and region.
    pub by_region: BTreeMap<(Arc<str>, Arc<str>), f64>,
}

impl Sample {
    fn of(totals: &Totals, at: Instant) -> Sample {
        let mut by_zone = BTreeMap::new();
        let mut queries = 0;
        for (of, count) in &totals.queries {
            queries += count;
            if let Some(zone) = &of.zone {
                *by_zone.entry(Arc::clone(zone)).or_default() += count;
            }
        }
        Sample { at, queries, by_zone, by_region: totals.answers.clone() }
    }
}

impl Rates {
    /// Looks at the counters and the snapshot until `stop`.
    pub async fn sample(self: Arc<Rates>, ledger: Arc<Ledger>, published: Published, stop: CancellationToken) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            self.take(&ledger.active(), Instant::now());
            self.age(published.load().generation(), SystemTime::now());
        }
    }

    fn take(&self, totals: &Totals, now: Instant) {
        let sample = Sample::of(totals, now);
        self.inner(|inner| {
            if inner.samples.len() == SAMPLES {
                inner.samples.pop_front();
            }
            inner.samples.push_back(sample);
        });
    }

    /// How long the snapshot of this generation is there, as far as this has seen; off by up to a second.
    pub fn age(&self, generation: u64, now: SystemTime) -> Duration {
        let since = self.inner(|inner| match inner.published {
            Some((known, since)) if known == generation => since,
            _ => {
                inner.published = Some((generation, now));
                now
            }
        });
        now.duration_since(since).unwrap_or_default()
    }

    /// All zero during the first second.
    pub fn recent(&self) -> Recent {
        self.inner(|inner| {
            let (Some(first), Some(last)) = (inner.samples.front(), inner.samples.back()) else {
                return Recent::default();
            };
            let seconds = last.at.duration_since(first.at).as_secs_f64();
            if seconds <= 0.0 {
                return Recent::default();
            }
            let rate = |now: u64, then: Option<&u64>| now.saturating_sub(then.copied().unwrap_or(0)) as f64 / seconds;
            let zones = last.by_zone.iter().map(|(zone, n)| (Arc::clone(zone), rate(*n, first.by_zone.get(zone))));
            let regions = last.by_region.iter().map(|(of, n)| (of.clone(), rate(*n, first.by_region.get(of))));
            Recent {
                qps: rate(last.queries, Some(&first.queries)),
                by_zone: zones.filter(|(_, rate)| *rate > 0.0).collect(),
                by_region: regions.filter(|(_, rate)| *rate > 0.0).collect(),
            }
        })
    }

    fn inner<T>(&self, of: impl FnOnce(&mut Inner) -> T) -> T {
        of(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::counters::Queries;

    fn totals(asked: u64, london: u64) -> Totals {
        let mut totals = Totals::default();
        let of = |transport, zone: Option<&str>| Queries { transport, zone: zone.map(Arc::from), rcode: "NOERROR" };
        totals.queries.insert(of("udp", Some("stream.example")), asked);
        totals.queries.insert(of("tcp", Some("stream.example")), asked);
        totals.queries.insert(of("udp", None), 5);
        totals.answers.insert(("stream.example".into(), "london".into()), london);
        totals
    }

    #[test]
    fn rates_are_over_the_last_ten_seconds_and_nothing_older() {
        let (rates, began) = (Rates::default(), Instant::now());
        assert_eq!(rates.recent(), Recent::default());
        for second in 0..=20 {
            // A burst in the first ten seconds, then 3 a second and transport.
            let asked = if second < 10 { second * 1000 } else { 10_000 + 3 * second };
            rates.take(&totals(asked, second), began + Duration::from_secs(second));
        }
        let recent = rates.recent();
        assert_eq!((recent.qps, recent.by_zone["stream.example"]), (6.0, 6.0));
        assert_eq!(recent.by_region[&("stream.example".into(), "london".into())], 1.0);
    }

    #[test]
    fn what_stands_still_has_no_rate() {
        let (rates, began) = (Rates::default(), Instant::now());
        rates.take(&totals(7, 7), began);
        assert_eq!(rates.recent(), Recent::default(), "one look tells no rate");
        rates.take(&totals(7, 7), began + Duration::from_secs(1));
        assert_eq!(rates.recent(), Recent::default());
    }

    #[test]
    fn a_snapshot_ages_until_the_next_is_seen() {
        let (rates, now) = (Rates::default(), SystemTime::now());
        let later = |s| now + Duration::from_secs(s);
        assert_eq!(rates.age(1, now).as_secs(), 0);
        assert_eq!(rates.age(1, later(7)).as_secs(), 7);
        assert_eq!(rates.age(2, later(9)).as_secs(), 0);
        assert_eq!(rates.age(2, now).as_secs(), 0, "a clock that steps back makes no negative age");
    }
}
