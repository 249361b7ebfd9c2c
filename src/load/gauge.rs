//! One figure of one reporter over time, and what of it is believed.
//!
//! A report that is more than [`JUMP`] times the last believed figure, or less than a [`JUMP`]th of it, is doubted: what
//! was believed stands, and grows old, until [`CONFIRM`] reports over at least [`CONFIRM_SPAN`] say so. The same holds of
//! a load of zero where viewers are being sent.
//!
//! To which side a figure errs is not the same. Towards "full" the doubted reports may have others between them, so that
//! one that flaps is believed at its fuller figure; towards "idle" they must follow one another. Smaller changes are
//! believed at once towards "full", and over [`EASE`] towards "idle".

use std::time::{Duration, Instant};

/// A change by more than this factor has to be confirmed. In the seconds between reports viewers do not multiply so.
pub const JUMP: f64 = 4.0;
/// Reports that confirm a jump.
pub const CONFIRM: u32 = 3;
/// Between the first and the last of them.
pub const CONFIRM_SPAN: Duration = Duration::from_secs(1);
/// Time constant of changes towards "idle".
pub const EASE: Duration = Duration::from_secs(5);

/// What is peculiar to a figure.
#[derive(Clone, Copy, Debug)]
pub struct Nature {
    /// Added to both sides before they are compared, so that a handful of viewers more is no jump.
    slack: f64,
    /// Below this a load is none.
    idle: f64,
    /// Whether more of it means fuller: of a load it does, of a capacity it does not.
    more_is_fuller: bool,
}

pub const SESSIONS: Nature = Nature { slack: 20.0, idle: 0.5, more_is_fuller: true };
pub const UTILIZATION: Nature = Nature { slack: 0.05, idle: 0.001, more_is_fuller: true };
pub const BITS_PER_S: Nature = Nature { slack: 1e8, idle: 1e4, more_is_fuller: true };
pub const STARTS_PER_S: Nature = Nature { slack: 1.0, idle: 0.0, more_is_fuller: true };
pub const CAPACITY: Nature = Nature { slack: 20.0, idle: 0.0, more_is_fuller: false };

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    Believed,
    /// It has to be confirmed.
    Doubted,
}

#[derive(Clone, Debug)]
pub struct Gauge {
    nature: Nature,
    believed: Option<(f64, Instant)>,
    doubted: Option<Doubted>,
}

#[derive(Clone, Debug)]
struct Doubted {
    /// Of the reports the nearest to what is believed.
    value: f64,
    more: bool,
    count: u32,
    /// Reports since the last of them that were no jump.
    between: u32,
    since: Instant,
}

impl Gauge {
    pub fn new(nature: Nature) -> Gauge {
        Gauge { nature, believed: None, doubted: None }
    }

    /// What is believed, and when it was said.
    pub fn value(&self) -> Option<(f64, Instant)> {
        self.believed
    }

    /// `value` is finite and not negative. `sending`: viewers are being sent there, so it cannot well be idle.
    pub fn hear(&mut self, value: f64, sending: bool, now: Instant) -> Heard {
        match self.jumps(value, sending) {
            Some(more) => self.doubt(value, more, now),
            None => {
                self.follow(value, now);
                Heard::Believed
            }
        }
    }

    /// `Some(true)`: to more.
    fn jumps(&self, value: f64, sending: bool) -> Option<bool> {
        let Nature { slack, idle, more_is_fuller } = self.nature;
        let before = self.believed.map(|(before, _)| before);
        if sending && more_is_fuller && value < idle && before.is_none_or(|before| before >= idle) {
            return Some(false);
        }
        let (value, before) = (value + slack, before? + slack);
        (value > before * JUMP).then_some(true).or((value * JUMP < before).then_some(false))
    }

    fn follow(&mut self, value: f64, now: Instant) {
        let fuller = |more: bool| more == self.nature.more_is_fuller;
        if let Some(doubted) = &mut self.doubted {
            doubted.between += 1;
            if !fuller(doubted.more) || doubted.between >= CONFIRM {
                self.doubted = None;
            }
        }
        let value = match self.believed {
            Some((before, at)) if value != before && !fuller(value > before) => {
                let passed = now.saturating_duration_since(at).as_secs_f64() / EASE.as_secs_f64();
                value + (before - value) * (-passed).exp()
            }
            _ => value,
        };
        self.believed = Some((value, now));
    }

    fn doubt(&mut self, value: f64, more: bool, now: Instant) -> Heard {
        let fresh = Doubted { value, more, count: 0, between: 0, since: now };
        let doubted = self.doubted.take().filter(|doubted| doubted.more == more).unwrap_or(fresh);
        let nearest = if more { doubted.value.min(value) } else { doubted.value.max(value) };
        let doubted = Doubted { value: nearest, count: doubted.count + 1, between: 0, ..doubted };
        if doubted.count >= CONFIRM && now.saturating_duration_since(doubted.since) >= CONFIRM_SPAN {
            self.believed = Some((doubted.value, now));
            return Heard::Believed;
        }
        self.doubted = Some(doubted);
        Heard::Doubted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn told(values: &[f64], every_ms: u64, sending: bool) -> (Gauge, Vec<Heard>) {
        let start = Instant::now();
        let mut gauge = Gauge::new(SESSIONS);
        let heard = values.iter().enumerate();
        let heard = heard.map(|(i, value)| gauge.hear(*value, sending, at(start, i as u64 * every_ms))).collect();
        (gauge, heard)
    }

    fn believed(gauge: &Gauge) -> f64 {
        gauge.value().expect("something is believed").0
    }

    use Heard::{Believed as B, Doubted as D};

    #[test]
    fn a_jump_of_a_hundred_is_believed_after_three_reports_over_a_second() {
        let (gauge, heard) = told(&[1000.0, 100_000.0, 100_000.0], 500, false);
        assert_eq!((heard, believed(&gauge)), (vec![B, D, D], 1000.0));
        let (gauge, heard) = told(&[1000.0, 100_000.0, 90_000.0, 100_000.0], 500, false);
        assert_eq!((heard, believed(&gauge)), (vec![B, D, D, B], 90_000.0), "the least of the three");
        let (gauge, heard) = told(&[1000.0, 1e5, 1e5, 1e5, 1e5], 1, false);
        assert_eq!((heard, believed(&gauge)), (vec![B, D, D, D, D], 1000.0), "a burst confirms nothing");
    }

    #[test]
    fn a_drop_is_believed_only_when_three_reports_in_a_row_say_so() {
        let (gauge, heard) = told(&[1000.0, 10.0, 10.0, 1000.0, 10.0, 10.0], 500, false);
        assert_eq!((heard, believed(&gauge)), (vec![B, D, D, B, D, D], 1000.0));
        let (gauge, heard) = told(&[1000.0, 10.0, 5.0, 1.0], 500, false);
        assert_eq!((heard, believed(&gauge)), (vec![B, D, D, B], 10.0));
    }

    #[test]
    fn a_doubted_report_does_not_make_the_figure_younger() {
        let start = Instant::now();
        let mut gauge = Gauge::new(SESSIONS);
        gauge.hear(1000.0, false, start);
        gauge.hear(1.0, false, at(start, 500));
        assert_eq!(gauge.value(), Some((1000.0, start)));
    }

    #[test]
    fn one_that_flaps_is_believed_at_its_fuller_figure_whichever_came_first() {
        for first in [10.0, 1000.0] {
            let flaps: Vec<f64> = (0..20).map(|i| if i % 2 == 0 { first } else { 1010.0 - first }).collect();
            assert_eq!(believed(&told(&flaps, 500, false).0), 1000.0, "first {first}");
        }
        let small: Vec<f64> = (0..200).map(|i| if i % 2 == 0 { 1000.0 } else { 400.0 }).collect();
        assert!(believed(&told(&small, 500, false).0) > 900.0, "smaller changes are smoothed");
    }

    #[test]
    fn zero_is_doubted_where_viewers_are_sent_and_only_there() {
        assert_eq!(told(&[30.0, 0.0, 0.0, 0.0], 500, true).1, [B, D, D, B]);
        assert_eq!(told(&[0.0, 0.0, 0.0, 0.0], 500, true).1, [D, D, B, B], "also as the first word");
        assert_eq!(told(&[30.0, 0.0], 500, false).1, [B, B]);
        assert_eq!(told(&[0.0, 3.0, 12.0], 500, true).1[1..], [B, B], "what begins small is no jump");
    }

    #[test]
    fn load_rises_at_once_and_falls_over_seconds() {
        assert_eq!(believed(&told(&[1000.0, 2000.0], 500, false).0), 2000.0);
        let after = |reports: usize| believed(&told(&[&[1000.0][..], &vec![500.0; reports]].concat(), 500, false).0);
        assert!((947.0..953.0).contains(&after(1)), "{}", after(1));
        assert!(after(60) < 502.0);
    }

    #[test]
    fn a_capacity_falls_at_once_and_rises_over_seconds() {
        let (start, mut gauge) = (Instant::now(), Gauge::new(CAPACITY));
        gauge.hear(1000.0, false, start);
        gauge.hear(500.0, false, at(start, 500));
        assert_eq!(believed(&gauge), 500.0);
        gauge.hear(1000.0, false, at(start, 1000));
        assert!((540.0..560.0).contains(&believed(&gauge)));
        assert_eq!(gauge.hear(1e6, false, at(start, 1500)), D);
    }
}
