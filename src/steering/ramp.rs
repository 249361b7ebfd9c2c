//! A region's way back to its whole share.
//!
//! A region that was down has cold caches, and may fall again at once under all of its viewers. So it takes a tenth of
//! them at first and all of them after a while; while it is not well the clock of its ramp stands still.

use std::time::{Duration, Instant};

use super::share::Share;

/// What a ramp begins with.
pub const LEAST: f64 = 0.10;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// From nothing to everything.
    over: Duration,
    /// The part of `over` that is behind it.
    done: Duration,
    /// Up to when `done` was counted.
    at: Instant,
    frozen: bool,
    /// How long it has been frozen in all.
    waited: Duration,
}

impl Ramp {
    /// Begins at the tenth, or at `share` if that is more; done at once when `over` is zero.
    pub fn begin(over: Duration, share: Share, now: Instant) -> Ramp {
        Ramp { over, done: over.mul_f64(share.part()), at: now, frozen: false, waited: Duration::ZERO }
    }

    /// One that was under way before a restart.
    pub fn resume(over: Duration, done: Duration, now: Instant) -> Ramp {
        Ramp { over, done, at: now, frozen: false, waited: Duration::ZERO }
    }

    /// Counts the time up to `now`, if the region was well meanwhile, or if it has waited as long as the whole ramp takes:
    /// what has not become better by then is how the region is.
    pub fn advance(&mut self, well: bool, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.at += passed;
        self.frozen = !well && self.waited < self.over;
        if self.frozen {
            self.waited += passed;
        } else {
            self.done = (self.done + passed).min(self.over);
        }
    }

    /// Puts it forward to a share that the region has shown it can carry.
    pub fn raise(&mut self, share: Share) {
        self.done = self.done.max(self.over.mul_f64(share.part()));
    }

    pub fn share(&self) -> Share {
        if self.is_done() { Share::FULL } else { Share::of(self.done.div_duration_f64(self.over).max(LEAST)) }
    }

    pub fn is_done(&self) -> bool {
        self.done >= self.over
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    pub fn done(&self) -> Duration {
        self.done
    }

    /// How long it takes in all.
    pub fn over(&self) -> Duration {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_MINUTES: Duration = Duration::from_secs(300);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_region_comes_back_from_a_tenth_to_all_of_its_share() {
        let start = Instant::now();
        let mut ramp = Ramp::begin(FIVE_MINUTES, Share::NONE, start);
        let mut shares = vec![];
        for seconds in [0, 15, 30, 60, 150, 299, 300, 900] {
            ramp.advance(true, at(start, seconds));
            shares.push((ramp.share().part() * 1000.0).round());
        }
        assert_eq!(shares, [100.0, 100.0, 100.0, 200.0, 500.0, 997.0, 1000.0, 1000.0]);
        assert!(ramp.is_done());
    }

    #[test]
    fn the_clock_stands_still_while_the_region_is_not_well() {
        let start = Instant::now();
        let mut ramp = Ramp::begin(FIVE_MINUTES, Share::NONE, start);
        ramp.advance(true, at(start, 90));
        ramp.advance(false, at(start, 500));
        assert!(ramp.is_frozen());
        assert_eq!((ramp.share().part() * 100.0).round(), 30.0);
        ramp.advance(true, at(start, 560));
        assert_eq!((ramp.share().part() * 100.0).round(), 50.0);
        assert!(!ramp.is_frozen());
    }

    #[test]
    fn a_region_that_stays_unwell_is_not_waited_for_longer_than_the_ramp_takes() {
        let start = Instant::now();
        let mut ramp = Ramp::begin(FIVE_MINUTES, Share::NONE, start);
        for seconds in 1..=601 {
            ramp.advance(false, at(start, seconds));
        }
        assert!(ramp.is_done(), "{ramp:?}");
    }

    #[test]
    fn a_drain_taken_back_goes_on_from_what_was_left() {
        let start = Instant::now();
        let mut ramp = Ramp::begin(FIVE_MINUTES, Share::of(0.6), start);
        assert_eq!((ramp.share().part() * 100.0).round(), 60.0);
        ramp.advance(true, at(start, 60));
        assert_eq!((ramp.share().part() * 100.0).round(), 80.0);
    }

    #[test]
    fn a_ramp_of_no_time_is_done_at_once() {
        let ramp = Ramp::begin(Duration::ZERO, Share::NONE, Instant::now());
        assert!(ramp.is_done() && ramp.share() == Share::FULL);
    }

    #[test]
    fn time_that_runs_backwards_changes_nothing() {
        let start = Instant::now() + FIVE_MINUTES;
        let mut ramp = Ramp::begin(FIVE_MINUTES, Share::NONE, start);
        ramp.advance(true, start - Duration::from_secs(100));
        ramp.advance(true, at(start, 30));
        assert_eq!(ramp.done(), Duration::from_secs(30));
    }
}
