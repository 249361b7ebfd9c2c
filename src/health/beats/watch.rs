//! When a beat is late, and when an agent is lost. Pure: time is passed in.
//!
//! ```text
//!             beat                  half an interval late            lost after 10 intervals
//! Alone ───────────────► Beating ─────────────────────────► Doubted ───────────────────────► Alone
//!   ▲                     │   ▲              beat              │
//!   └──────── leaves ─────┘   └────────────────────────────────┘
//! ```
//!
//! *Alone*: no agent speaks; probes alone judge, and nothing is expected. *Beating*: the next beat is expected an
//! interval after the last. *Doubted*: it did not come, probes were asked to confirm. It costs a few probes when a
//! packet is lost; it takes nobody down by itself.
//!
//! A look that comes late because this machine is busy is no lateness of the beat: it is repeated, later by as much as
//! it was late, though within one interval in all.

use std::time::{Duration, Instant};

use super::packet::State;

/// How late a timer may be on a machine that is well.
const SLACK: Duration = Duration::from_millis(4);

/// Silence after which an agent is lost, in intervals, and at least.
const LOST_INTERVALS: u32 = 10;
const LOST_MIN: Duration = Duration::from_secs(1);

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The agent's first beat, or the first after it was lost.
    Found,
    /// A beat is late: confirm the server by probes.
    Doubt,
    /// A beat came all the same: the server is there.
    Cleared,
    /// The agent says that its server cannot take viewers.
    NotReady,
    /// It says that it can again.
    Ready,
    /// No beat for so long that none is expected any more. Whatever it said last no longer holds.
    Lost,
    /// The agent said that it ends. Whatever it said last no longer holds.
    Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Alone,
    Beating,
    Doubted,
}

/// The state of one server's agent.
#[derive(Clone, Debug)]
pub struct Watch {
    every: Duration,
    phase: Phase,
    /// When a beat last came; without meaning while alone.
    last: Instant,
    /// When it is looked next; without meaning while alone.
    look: Instant,
    /// By how much a late look may still be put off.
    grace: Duration,
    not_ready: bool,
}

impl Watch {
    /// Beats are expected `every`; none was seen.
    pub fn new(every: Duration, now: Instant) -> Watch {
        Watch { every, phase: Phase::Alone, last: now, look: now, grace: every, not_ready: false }
    }

    /// Beats are expected that often from the next one on.
    pub fn set_every(&mut self, every: Duration) {
        self.every = every;
    }

    /// When [`Watch::look`] is due.
    pub fn due(&self) -> Option<Instant> {
        (self.phase != Phase::Alone).then_some(self.look)
    }

    /// Whether the agent said last that its server is not ready.
    pub fn is_not_ready(&self) -> bool {
        self.not_ready
    }

    /// A beat that counts came. The steps follow in this order.
    pub fn beat(&mut self, state: State, now: Instant) -> impl Iterator<Item = Step> + use<> {
        let came = match self.phase {
            Phase::Alone if state == State::Leaving => None,
            Phase::Alone => Some(Step::Found),
            Phase::Beating => None,
            Phase::Doubted => Some(Step::Cleared),
        };
        let was_alone = self.phase == Phase::Alone;
        let said = match state {
            State::Leaving if was_alone => None,
            State::Leaving => Some(Step::Left),
            State::NotReady => (!self.not_ready).then_some(Step::NotReady),
            State::Ready => self.not_ready.then_some(Step::Ready),
        };
        self.phase = if state == State::Leaving { Phase::Alone } else { Phase::Beating };
        self.not_ready = state == State::NotReady;
        self.last = now;
        self.look = now + self.every + self.every / 2;
        self.grace = self.every;
        came.into_iter().chain(said)
    }

    /// Looks whether a beat is late. To be called when [due](Watch::due), after all that waits in the socket was read.
    pub fn look(&mut self, now: Instant) -> Option<Step> {
        if self.phase == Phase::Alone || now < self.look {
            return None;
        }
        let late = now - self.look;
        if late > SLACK && !self.grace.is_zero() {
            let more = late.min(self.grace);
            self.grace -= more;
            self.look = now + more;
            return None;
        }
        match self.phase {
            Phase::Beating => {
                self.phase = Phase::Doubted;
                self.look = (self.last + self.lost_after()).max(now + self.every);
                Some(Step::Doubt)
            }
            _ => {
                self.phase = Phase::Alone;
                self.not_ready = false;
                Some(Step::Lost)
            }
        }
    }

    /// Silence after which the agent is lost.
    pub fn lost_after(&self) -> Duration {
        (self.every * LOST_INTERVALS).max(LOST_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(100);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn beat(watch: &mut Watch, state: State, now: Instant) -> Vec<Step> {
        watch.beat(state, now).collect()
    }

    /// A watch that has seen a beat at the instant given.
    fn beating() -> (Watch, Instant) {
        let now = Instant::now();
        let mut watch = Watch::new(EVERY, now);
        assert_eq!(watch.due(), None, "nothing is expected before the first beat");
        assert_eq!(beat(&mut watch, State::Ready, now), [Step::Found]);
        (watch, now)
    }

    #[test]
    fn a_beat_that_is_half_an_interval_late_is_a_doubt_once() {
        let (mut watch, start) = beating();
        assert_eq!(watch.due(), Some(start + ms(150)));
        assert_eq!(watch.look(start + ms(149)), None);
        assert_eq!(watch.look(start + ms(150)), Some(Step::Doubt));
        assert_eq!(watch.look(start + ms(151)), None);
    }

    #[test]
    fn a_beat_clears_the_doubt_and_is_followed_by_the_next() {
        let (mut watch, start) = beating();
        assert_eq!(watch.look(start + ms(150)), Some(Step::Doubt));
        assert_eq!(beat(&mut watch, State::Ready, start + ms(160)), [Step::Cleared]);
        assert_eq!(watch.due(), Some(start + ms(310)));
    }

    #[test]
    fn beats_in_time_say_nothing_new() {
        let (mut watch, start) = beating();
        for n in 1..50 {
            assert_eq!(beat(&mut watch, State::Ready, start + ms(149 * n)), []);
        }
    }

    #[test]
    fn an_agent_is_lost_after_ten_intervals_and_found_again() {
        let (mut watch, start) = beating();
        assert_eq!(watch.look(start + ms(150)), Some(Step::Doubt));
        assert_eq!(watch.due(), Some(start + ms(1000)));
        assert_eq!(watch.look(start + ms(1000)), Some(Step::Lost));
        assert_eq!(watch.due(), None, "probes alone from here on");
        assert_eq!(beat(&mut watch, State::Ready, start + ms(5000)), [Step::Found]);
    }

    #[test]
    fn our_own_lateness_is_no_lateness_of_the_beat() {
        let (mut watch, start) = beating();
        // The look was due after 150 ms and comes 60 ms late: another 60 ms for the beat.
        assert_eq!(watch.look(start + ms(210)), None);
        assert_eq!(watch.due(), Some(start + ms(270)));
        assert_eq!(beat(&mut watch, State::Ready, start + ms(215)), []);
        assert_eq!(watch.due(), Some(start + ms(365)));
    }

    #[test]
    fn a_machine_that_is_always_late_still_comes_to_a_doubt() {
        let (mut watch, start) = beating();
        let mut now = start;
        let mut looks = 0;
        while let Some(due) = watch.due() {
            now = due + ms(30);
            looks += 1;
            if watch.look(now) == Some(Step::Doubt) {
                break;
            }
        }
        assert!((2..10).contains(&looks), "{looks}");
        assert!(now - start <= ms(150) + 3 * EVERY, "{:?}", now - start);
    }

    #[test]
    fn not_ready_is_told_once_and_holds_until_the_agent_says_otherwise() {
        let (mut watch, start) = beating();
        assert_eq!(beat(&mut watch, State::NotReady, start + ms(100)), [Step::NotReady]);
        assert_eq!(beat(&mut watch, State::NotReady, start + ms(200)), []);
        assert!(watch.is_not_ready());
        assert_eq!(beat(&mut watch, State::Ready, start + ms(300)), [Step::Ready]);
        assert!(!watch.is_not_ready());
    }

    #[test]
    fn an_agent_found_not_ready_is_told_as_both() {
        let now = Instant::now();
        let mut watch = Watch::new(EVERY, now);
        assert_eq!(beat(&mut watch, State::NotReady, now), [Step::Found, Step::NotReady]);
    }

    #[test]
    fn what_a_lost_or_gone_agent_said_last_does_not_hold() {
        let (mut watch, start) = beating();
        assert_eq!(beat(&mut watch, State::NotReady, start), [Step::NotReady]);
        assert_eq!(watch.look(start + ms(150)), Some(Step::Doubt));
        assert_eq!(watch.look(start + ms(1000)), Some(Step::Lost));
        assert!(!watch.is_not_ready());
        let (mut watch, start) = beating();
        assert_eq!(beat(&mut watch, State::NotReady, start), [Step::NotReady]);
        assert_eq!(beat(&mut watch, State::Leaving, start), [Step::Left]);
        assert!(!watch.is_not_ready());
    }

    #[test]
    fn an_agent_that_leaves_is_neither_late_nor_lost() {
        let (mut watch, start) = beating();
        assert_eq!(beat(&mut watch, State::Leaving, start + ms(100)), [Step::Left]);
        assert_eq!(watch.due(), None);
        assert_eq!(beat(&mut watch, State::Leaving, start + ms(200)), [], "said twice, told once");
        assert_eq!(watch.due(), None);
    }

    #[test]
    fn long_intervals_are_watched_alike() {
        let now = Instant::now();
        let mut watch = Watch::new(Duration::from_secs(10), now);
        assert_eq!(beat(&mut watch, State::Ready, now), [Step::Found]);
        assert_eq!(watch.due(), Some(now + Duration::from_secs(15)));
        assert_eq!(watch.lost_after(), Duration::from_secs(100));
    }
}
