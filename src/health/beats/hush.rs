//! An agent that is found and lost again and again is told of a few times, then once a minute. Pure: time is passed in.
//!
//! An agent that beats more slowly than its zone expects is lost and found with every beat; told each time, it would fill
//! the journal and push out what matters. The third loss within a minute of the one before is the last that is told at
//! once. From then on a loss is told a minute after the last one that was, with the number of those that were not; and
//! that the agent was found, once it has stayed for a minute.

use std::time::{Duration, Instant};

/// Losses that are told at once.
const FREE: u32 = 3;
/// Between the others; and without a loss for so long, all is forgotten.
const GAP: Duration = Duration::from_secs(60);

/// What was told of one agent.
#[derive(Clone, Debug, Default)]
pub struct Hush {
    losses: u32,
    last: Option<Instant>,
    told: Option<Instant>,
    untold: u32,
    found_untold: bool,
}

impl Hush {
    /// The agent was found: whether that is to be told.
    #[must_use]
    pub fn found(&mut self) -> bool {
        self.found_untold = self.losses >= FREE;
        !self.found_untold
    }

    /// The agent was lost. `Some`: it is to be told, with so many losses that were not.
    #[must_use]
    pub fn lost(&mut self, now: Instant) -> Option<u32> {
        self.losses = self.losses.saturating_add(1);
        self.last = Some(now);
        // Its being found, too, is overtaken by this.
        self.found_untold = false;
        if self.losses > FREE && self.told.is_some_and(|told| now < told + GAP) {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }

    /// A beat counts; to be called before it is known whether it finds the agent. Whether it is now to be told that the
    /// agent was found, as it has stayed.
    #[must_use]
    pub fn beat(&mut self, now: Instant) -> bool {
        if self.last.is_none_or(|last| now < last + GAP) {
            return false;
        }
        let found = self.found_untold;
        *self = Hush::default();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// An agent that beats every two seconds and is lost one second after each beat. What is told, by second.
    fn told(hush: &mut Hush, start: Instant, beats: u32) -> Vec<(u32, Option<u32>)> {
        let mut told = vec![];
        for beat in 0..beats {
            let now = start + 2 * SECOND * beat;
            assert!(!hush.beat(now), "it does not stay");
            if hush.found() {
                told.push((2 * beat, None));
            }
            if let Some(untold) = hush.lost(now + SECOND) {
                told.push((2 * beat + 1, Some(untold)));
            }
        }
        told
    }

    #[test]
    fn an_agent_that_comes_and_goes_is_told_of_three_times_and_then_once_a_minute() {
        let told = told(&mut Hush::default(), Instant::now(), 100);
        let at_once = [(0, None), (1, Some(0)), (2, None), (3, Some(0)), (4, None), (5, Some(0))];
        assert_eq!(told[..6], at_once);
        assert_eq!(told[6..], [(65, Some(29)), (125, Some(29)), (185, Some(29))]);
    }

    #[test]
    fn an_agent_that_stays_at_last_is_told_as_found_and_begins_anew() {
        let (mut hush, start) = (Hush::default(), Instant::now());
        assert_eq!(told(&mut hush, start, 10).len(), 6);
        let (back, lost) = (start + 20 * SECOND, start + 19 * SECOND);
        assert!(!hush.beat(back) && !hush.found());
        assert!(!hush.beat(lost + 59 * SECOND));
        assert!(hush.beat(lost + 60 * SECOND), "it has stayed for a minute");
        assert!(!hush.beat(lost + 61 * SECOND), "told once");
        assert_eq!(hush.lost(lost + 62 * SECOND), Some(0));
        assert!(!hush.beat(lost + 63 * SECOND) && hush.found());
    }

    #[test]
    fn an_agent_that_was_gone_for_long_is_told_as_found_at_once() {
        let (mut hush, start) = (Hush::default(), Instant::now());
        assert_eq!(told(&mut hush, start, 10).len(), 6);
        assert!(!hush.beat(start + 3600 * SECOND) && hush.found());
    }
}
