//! One level's samples to one region: their histogram, the loss among them, and who reported them.
//!
//! Everything in it decays with one half-life, so that the weight of the histogram is n, the number of samples that
//! still count.

use super::key::Reporter;
use super::sketch::Sketch;

/// Half of what a sample counts is gone after it, s (STEERING §4: 6 h).
const HALF_LIFE_S: f64 = 6.0 * 3600.0;
/// Of samples that count at one level (STEERING §4).
pub const MAX_N: f32 = 500.0;
/// Fewer are ignored (STEERING §4).
pub const MIN_N: f32 = 5.0;
/// What one reporter may hold of a place where others report too. The one heard longest may hold more, while only two
/// speak: of two who disagree nobody can tell who lies, and who comes later cannot turn the median alone.
pub const REPORTER_SHARE: f32 = 0.4;
/// Reporters told apart; all others are one.
const REPORTERS: usize = 4;
/// A sample that would count less than this is refused rather than taken.
const LEAST: f32 = 0.25;
/// Of one report: beyond it a region is broken for that client rather than lossy. It bounds what a few liars can do.
pub const MAX_LOSS: f64 = 0.10;

/// What a level knows now.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    pub n: f64,
    /// In bins.
    pub median: f64,
    /// Mean, with the number of reports that had one.
    pub loss: Option<(f64, f64)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slot {
    pub(super) sketch: Sketch,
    /// Unix seconds of the last sample; to that time weights are decayed.
    pub(super) at: i64,
    pub(super) loss_n: f32,
    pub(super) loss_sum: f32,
    /// Weight by reporter, the one heard longest first; number 0 are all others.
    pub(super) reporters: Vec<(u32, f32)>,
}

/// What is left after `seconds`.
pub(super) fn left_after(seconds: i64) -> f32 {
    (-(seconds.max(0) as f64) / HALF_LIFE_S).exp2() as f32
}

impl Slot {
    /// `at` counts in bins. False: its reporter holds too much of it already.
    pub fn take(&mut self, at: f64, loss: Option<f64>, reporter: Reporter, now: i64) -> bool {
        self.decay(now);
        let (place, weight) = self.allowance(reporter);
        if weight < LEAST {
            return false;
        }
        match self.reporters.get_mut(place) {
            Some(known) => known.1 += weight,
            None => self.reporters.push((if place + 1 < REPORTERS { reporter.0 } else { 0 }, weight)),
        }
        self.sketch.add(at, weight);
        if let Some(loss) = loss {
            self.loss_n += weight;
            self.loss_sum += weight * loss.clamp(0.0, MAX_LOSS) as f32;
        }
        let total = self.sketch.total();
        if total > MAX_N {
            self.scale(MAX_N / total);
        }
        true
    }

    /// The reporter's place in the list, and what a sample of it may weigh.
    fn allowance(&self, reporter: Reporter) -> (usize, f32) {
        let known = self.reporters.iter().position(|(id, _)| *id == reporter.0);
        let others = || self.reporters.iter().position(|(id, _)| *id == 0).unwrap_or(self.reporters.len());
        let place = match known {
            Some(place) => place,
            // The last place is of all others.
            None if self.reporters.len() + 1 < REPORTERS => self.reporters.len(),
            None => others(),
        };
        let held = self.reporters.get(place).map_or(0.0, |(_, weight)| *weight);
        let total: f32 = self.reporters.iter().map(|(_, weight)| weight).sum();
        let speaking = self.reporters.iter().filter(|(_, weight)| *weight >= 1.0).count();
        if place == 0 && speaking < 3 {
            return (place, 1.0);
        }
        // The most that keeps `held + x <= share * (total + x)`.
        (place, ((REPORTER_SHARE * total - held) / (1.0 - REPORTER_SHARE)).min(1.0))
    }

    fn decay(&mut self, now: i64) {
        // A clock that steps back ages nothing.
        if now > self.at {
            self.scale(left_after(now - self.at));
            self.at = now;
        }
    }

    fn scale(&mut self, factor: f32) {
        self.sketch.scale(factor);
        self.loss_n *= factor;
        self.loss_sum *= factor;
        self.reporters.iter_mut().for_each(|(_, weight)| *weight *= factor);
        self.reporters.retain(|(_, weight)| *weight > 0.01);
    }

    /// Samples that count at `now`.
    pub fn n(&self, now: i64) -> f32 {
        self.sketch.total() * left_after(now - self.at)
    }

    /// `None`: too few to count.
    pub fn evidence(&self, now: i64) -> Option<Evidence> {
        let left = left_after(now - self.at);
        let n = self.sketch.total() * left;
        if n < MIN_N {
            return None;
        }
        let loss_n = self.loss_n * left;
        let loss = (loss_n >= MIN_N).then(|| (f64::from(self.loss_sum / self.loss_n), f64::from(loss_n)));
        Some(Evidence { n: f64::from(n), median: self.sketch.median()?, loss })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(slot: &mut Slot, reporter: &str, at: f64, times: usize) -> usize {
        (0..times).filter(|_| slot.take(at, None, Reporter::of(reporter), 0)).count()
    }

    #[test]
    fn half_of_it_is_gone_after_six_hours_and_few_do_not_count() {
        let mut slot = Slot::default();
        fed(&mut slot, "a", 10.0, 12);
        assert!((slot.n(6 * 3600) - 6.0).abs() < 1e-3);
        assert!(slot.evidence(6 * 3600).is_some() && slot.evidence(12 * 3600).is_none());
        assert_eq!(slot.n(-100), 12.0, "a clock that steps back ages nothing");
    }

    #[test]
    fn no_more_than_five_hundred_count() {
        let mut slot = Slot::default();
        fed(&mut slot, "a", 10.0, 2000);
        assert!((slot.n(0) - MAX_N).abs() < 0.5);
        fed(&mut slot, "a", 20.0, 600);
        assert!(slot.sketch.median().unwrap() > 20.0, "the newest count most");
    }

    #[test]
    fn who_comes_later_holds_two_fifths_at_most_and_cannot_turn_the_median() {
        let mut slot = Slot::default();
        fed(&mut slot, "honest", 10.0, 100);
        let taken = fed(&mut slot, "liar", 90.0, 10_000);
        assert!(taken < 70, "{taken}");
        assert!(slot.sketch.median().unwrap() < 11.0);
        assert_eq!(fed(&mut slot, "honest", 10.0, 100), 100, "who was heard first goes on");
    }

    #[test]
    fn of_three_who_speak_none_holds_more_than_two_fifths() {
        let mut slot = Slot::default();
        fed(&mut slot, "liar", 90.0, 500);
        for _ in 0..3000 {
            for (name, at) in [("liar", 90.0), ("b", 10.0), ("c", 10.0)] {
                slot.take(at, None, Reporter::of(name), 0);
            }
        }
        assert!(slot.reporters[0].1 / slot.sketch.total() < 0.41, "{:?}", slot.reporters);
        assert!(slot.sketch.median().unwrap() < 11.0);
    }

    #[test]
    fn reporters_beyond_the_list_are_one() {
        let mut slot = Slot::default();
        for i in 0..1000 {
            fed(&mut slot, &format!("r{i}"), 10.0, 1);
        }
        assert_eq!(slot.reporters.len(), REPORTERS);
        // One whose samples have aged away makes room for no second list of others.
        slot.reporters.remove(1);
        fed(&mut slot, "another", 10.0, 1);
        assert_eq!(slot.reporters.iter().filter(|(id, _)| *id == 0).count(), 1, "{:?}", slot.reporters);
    }

    #[test]
    fn a_loss_counts_a_tenth_at_most() {
        let mut slot = Slot::default();
        for _ in 0..20 {
            slot.take(10.0, Some(1.0), Reporter::of("a"), 0);
        }
        let (mean, n) = slot.evidence(0).unwrap().loss.unwrap();
        assert!((mean - MAX_LOSS).abs() < 1e-6 && n > 19.0);
    }
}
