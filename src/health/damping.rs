//! Flap damping: a target that goes down again and again is kept down until it has been quiet.
//!
//! Each fall from up to down adds to a penalty, which halves every [`HALF_LIFE`]. At [`SUPPRESS`] the target is
//! suppressed, and stays so until the penalty has sunk to [`REUSE`], but no longer than [`LONGEST`]. So a third fall
//! within about 20 s suppresses, and a target that then stays up is back after some 95 s. The idea and the words are those
//! of route flap damping (RFC 2439); the figures are for servers.
//!
//! Pure: time is passed in.

use std::time::{Duration, Instant};

/// Added for each fall.
pub const PENALTY: f64 = 1000.0;
pub const HALF_LIFE: Duration = Duration::from_secs(60);
/// From this penalty on a target is suppressed.
pub const SUPPRESS: f64 = 2500.0;
/// It is no longer once the penalty has sunk to this.
pub const REUSE: f64 = 1000.0;
/// A suppression ends after this, whatever happened meanwhile.
pub const LONGEST: Duration = Duration::from_secs(600);
/// From this penalty on a target counts as having been down lately: for a minute after a single fall.
pub const LATELY: f64 = 500.0;

/// The penalty of one target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Damping {
    /// The penalty, and when it was that.
    penalty: Option<(f64, Instant)>,
    suppressed: Option<Suppressed>,
}

#[derive(Clone, Copy, Debug)]
struct Suppressed {
    since: Instant,
    until: Instant,
}

impl Damping {
    /// The penalty at `now`.
    pub fn penalty(&self, now: Instant) -> f64 {
        self.penalty.map_or(0.0, |(penalty, at)| {
            let halvings = now.saturating_duration_since(at).as_secs_f64() / HALF_LIFE.as_secs_f64();
            penalty * (-halvings).exp2()
        })
    }

    /// The target went from up to down.
    pub fn fell(&mut self, now: Instant) {
        self.settle(now);
        let penalty = self.penalty(now) + PENALTY;
        self.penalty = Some((penalty, now));
        if self.suppressed.is_some() || penalty >= SUPPRESS {
            let since = self.suppressed.map_or(now, |suppressed| suppressed.since);
            let until = sunk_to(REUSE, penalty, now).min(since + LONGEST);
            self.suppressed = Some(Suppressed { since, until });
        }
    }

    /// Goes on with a suppression that had `left` to go when the node last ended, as if the target had not fallen since;
    /// no longer than [`LONGEST`].
    pub fn resume(&mut self, left: Duration, now: Instant) {
        let left = left.min(LONGEST);
        if left.is_zero() {
            return;
        }
        let halvings = left.as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.penalty = Some((REUSE * halvings.exp2(), now));
        self.suppressed = Some(Suppressed { since: now, until: now + left });
    }

    /// Ends a suppression whose time is over. One that was cut short by [`LONGEST`] leaves the penalty at [`REUSE`], so
    /// that the next fall does not suppress at once.
    pub fn settle(&mut self, now: Instant) {
        if self.suppressed.is_some_and(|suppressed| suppressed.until <= now) {
            self.suppressed = None;
            self.penalty = Some((self.penalty(now).min(REUSE), now));
        }
    }

    /// When the suppression ends if the target does not fall again. `None`: it is not suppressed.
    pub fn suppressed_until(&self, now: Instant) -> Option<Instant> {
        self.suppressed.map(|suppressed| suppressed.until).filter(|until| now < *until)
    }

    /// Until when the target counts as having been down lately. `None`: it does not.
    pub fn lately_until(&self, now: Instant) -> Option<Instant> {
        let (penalty, at) = self.penalty?;
        Some(sunk_to(LATELY, penalty, at)).filter(|until| now < *until)
    }
}

/// When a penalty that is `penalty` at `at` has sunk to `level`.
fn sunk_to(level: f64, penalty: f64, at: Instant) -> Instant {
    // A penalty grows by at most a thousand a fall and falls take time: a few dozen half-lives at the very most. The
    // bound keeps even a caller whose clock stands still within what an `Instant` can hold.
    at + HALF_LIFE.mul_f64((penalty / level).log2().clamp(0.0, 64.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_penalty_halves_every_minute() {
        let start = Instant::now();
        let mut damping = Damping::default();
        assert_eq!(damping.penalty(start), 0.0);
        damping.fell(start);
        for (after, penalty) in [(0, 1000.0), (60, 500.0), (120, 250.0)] {
            assert!((damping.penalty(start + s(after)) - penalty).abs() < 1e-6, "after {after} s");
        }
    }

    #[test]
    fn the_third_fall_in_a_row_suppresses_for_about_a_minute_and_a_half() {
        let start = Instant::now();
        let mut damping = Damping::default();
        damping.fell(start);
        damping.fell(start + s(5));
        assert_eq!(damping.suppressed_until(start + s(5)), None);
        damping.fell(start + s(10));
        let until = damping.suppressed_until(start + s(10)).unwrap() - (start + s(10));
        assert!((s(85)..s(95)).contains(&until), "{until:?}");
    }

    #[test]
    fn falls_that_are_a_minute_apart_never_suppress() {
        let start = Instant::now();
        let mut damping = Damping::default();
        for minute in 0..1_000 {
            damping.fell(start + s(60) * minute);
            assert_eq!(damping.suppressed_until(start + s(60) * minute), None);
        }
    }

    #[test]
    fn a_fall_while_suppressed_makes_it_longer_but_never_longer_than_ten_minutes() {
        let start = Instant::now();
        let mut damping = Damping::default();
        let mut since = None;
        let mut longest = Duration::ZERO;
        for second in (0..3_600).step_by(5) {
            let now = start + s(second);
            damping.settle(now);
            let before = damping.suppressed_until(now);
            since = before.and(since);
            damping.fell(now);
            let until = damping.suppressed_until(now);
            assert!(until >= before);
            if let Some(until) = until {
                let began = *since.get_or_insert(now);
                longest = longest.max(until - began);
            }
        }
        assert_eq!(longest, LONGEST);
    }

    #[test]
    fn after_the_longest_suppression_the_next_fall_does_not_suppress_at_once() {
        let start = Instant::now();
        let mut damping = Damping::default();
        // Suppressed by the third of falls 5 s apart, at 10 s, and let go at 610 s.
        for second in (0..610).step_by(5) {
            damping.fell(start + s(second));
        }
        assert!(damping.suppressed_until(start + s(609)).is_some());
        let now = start + s(610);
        damping.fell(now);
        assert_eq!(damping.suppressed_until(now), None);
        damping.fell(now + s(1));
        assert!(damping.suppressed_until(now + s(1)).is_some(), "but one that goes on does");
    }

    #[test]
    fn a_suppression_that_is_resumed_ends_when_it_would_have_and_never_later_than_the_longest() {
        let start = Instant::now();
        for (left, until) in [(s(0), None), (s(70), Some(s(70))), (s(1_000_000_000), Some(LONGEST))] {
            let mut damping = Damping::default();
            damping.resume(left, start);
            assert_eq!(damping.suppressed_until(start).map(|at| at - start), until);
        }
        let mut damping = Damping::default();
        damping.resume(s(70), start);
        damping.fell(start + s(1));
        assert!(damping.suppressed_until(start + s(1)) > Some(start + s(70)), "a fall makes it longer");
    }

    #[test]
    fn a_single_fall_was_lately_for_a_minute() {
        let start = Instant::now();
        let mut damping = Damping::default();
        assert_eq!(damping.lately_until(start), None);
        damping.fell(start);
        assert_eq!(damping.lately_until(start), Some(start + s(60)));
        assert_eq!(damping.lately_until(start + s(60)), None);
    }

    proptest! {
        /// Also when the clock stands still between falls.
        #[test]
        fn nothing_is_suppressed_below_the_limit_nor_for_longer_than_ten_minutes(
            gaps in proptest::collection::vec(0u64..120_000, 1..200),
        ) {
            let mut now = Instant::now();
            let mut damping = Damping::default();
            let mut since = None;
            for gap in gaps {
                now += Duration::from_millis(gap);
                damping.settle(now);
                if damping.suppressed_until(now).is_none() {
                    since = None;
                }
                let before = damping.penalty(now);
                damping.fell(now);
                match damping.suppressed_until(now) {
                    Some(until) => {
                        prop_assert!(since.is_some() || before + PENALTY >= SUPPRESS);
                        let since = *since.get_or_insert(now);
                        prop_assert!(until <= since + LONGEST);
                    }
                    None => prop_assert!(damping.penalty(now) < SUPPRESS),
                }
            }
        }
    }
}
