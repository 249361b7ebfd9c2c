//! From probe results to verdicts: when a target is up, when it is down, and when to ask again.
//!
//! ```text
//!            success                       `rise` successes in a row
//!          ┌────────┐      ┌──────────────────────────────────────────────┐
//!          ▼        │      ▼                                              │
//!        Steady ────┴─ Suspect ───────────── `fall` failures ───────────► Down
//!          │  failure     ▲
//!          └──────────────┘
//! ```
//!
//! *Steady*: one probe every `every`. *Suspect*: a failure was seen and is being confirmed by further probes on new
//! connections; any success clears it. After a hard failure (the target said no) the remaining `fall` − 1 probes follow
//! [`HARD_GAP`] apart. After silence (a time-out) `fall` + 1 further probes go out within [`SILENCE_GAP`] × (`fall` − 1),
//! and all must fail, while the silent one is still waited for: a lost packet is no failure of the server. (With `fall`
//! of them a network that loses 1 % of packets at 80 ms made a healthy server down about once a year.) So a silent target
//! is down after at most `every` + 2 × `timeout` + [`SILENCE_GAP`] × `fall`. *Down*: one probe every `every`.
//!
//! Somebody else's news can raise the suspicion too, such as heartbeats that have stopped: [`Tracker::doubt`]. It asks
//! for probes of its own number and time-out, which decide together; the rules above hold beside it.
//!
//! A new target is steady without a result: one success makes it up, `fall` failures make it down. One that is believed
//! down, as another check of its address has found, starts there: it owes `rise` successes like any other, or whoever
//! edits a check while a server recovers would skip them. Its first failure settles that it is down.
//!
//! Pure: knows no socket and no clock, so every rule is tested in virtual time.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Verdict;
use crate::config::settings::Check;

/// Between the probes that confirm a hard failure. Long enough that they are not one event to a server that is just
/// restarting its accept loop, short enough that a killed server is down within 10 ms at `fall = 3`. The runtime's timer
/// rings up to a millisecond late, so the gap is 2 to 3 ms.
pub const HARD_GAP: Duration = Duration::from_millis(2);

/// Between the probes that confirm silence, about: they should not all share one burst of loss.
pub const SILENCE_GAP: Duration = Duration::from_millis(20);

/// Between attempts to confirm a failure while this machine cannot send probes at all.
pub const LOCAL_GAP: Duration = Duration::from_millis(100);

/// What the tracker needs of a [`Check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub every: Duration,
    pub fall: u32,
    pub rise: u32,
}

impl From<&Check> for Rules {
    fn from(check: &Check) -> Rules {
        Rules { every: check.every, fall: check.fall.max(1), rise: check.rise.max(1) }
    }
}

/// How a probe went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sample {
    Success {
        rtt: Duration,
    },
    /// The target said no: refused, reset, TLS alert, wrong status or body. The cause is a short text for people.
    Hard(Arc<str>),
    /// No answer within the time-out. Only the probe that raised the suspicion may report again afterwards; see
    /// [`Report::keep_waiting`].
    Silence(Arc<str>),
    /// The kept connection had been closed before the request could be answered. Says nothing about the target.
    Stale,
    /// This machine could not send the probe (no file descriptor, no port, no route). Says nothing about the target.
    Local,
}

/// A probe on its way, as the tracker knows it. Reports of a former round (before the verdict changed or the suspicion
/// was cleared) are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeId {
    round: u64,
    number: u64,
}

/// Send a probe at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub at: Instant,
    /// On a new connection, even if one is kept.
    pub fresh: bool,
    /// How long it may take, where that is not for the check to say.
    pub timeout: Option<Duration>,
}

/// A verdict that differs from the one before, or the first that rests on results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub verdict: Verdict,
    pub cause: Arc<str>,
}

/// What follows from a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Report {
    pub change: Option<Change>,
    /// The silent probe may still answer: go on waiting for it.
    pub keep_waiting: bool,
    /// The round is over: probes that are still on their way can be dropped.
    pub drop_others: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Steady,
    /// `hard`: the target has said no meanwhile, so that no lost packet is to blame.
    Suspect {
        failures: u32,
        hard: bool,
        doubt: Option<Doubt>,
    },
    Down {
        successes: u32,
    },
}

/// A suspicion that somebody else raised, and how its own probes fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubt {
    /// So many probes failing are enough; at least 1.
    confirmations: u32,
    timeout: Duration,
    /// Probes with greater numbers belong to it.
    after: u64,
    in_flight: u32,
    failures: u32,
}

/// The state of one target.
#[derive(Clone, Debug)]
pub struct Tracker {
    rules: Rules,
    verdict: Verdict,
    /// Whether the verdict rests on results.
    settled: bool,
    state: State,
    round: u64,
    number: u64,
    /// Probes on their way that have not timed out.
    in_flight: u32,
    /// The probe whose silence raised the suspicion.
    waiting: Option<u64>,
    /// Probes of a doubt that was cleared: their time-outs tell nothing.
    void: Range<u64>,
    next: Option<Instant>,
    /// When the last probe of the regular cadence went out.
    regular: Instant,
    /// When the suspicion was raised or last tested: the gap to the next confirming probe counts from here.
    gap_from: Instant,
    /// When an idle close last brought a probe forward.
    brought_forward: Option<Instant>,
    first_round: bool,
    jitter: Jitter,
}

impl Tracker {
    /// The first probe is due at `first`. `prior` is what is believed until results come; `seed` spreads targets.
    pub fn new(rules: Rules, prior: Verdict, first: Instant, seed: u64) -> Tracker {
        let rules = Rules { fall: rules.fall.max(1), rise: rules.rise.max(1), ..rules };
        Tracker {
            rules,
            verdict: prior,
            settled: false,
            state: if prior == Verdict::Down { State::Down { successes: 0 } } else { State::Steady },
            round: 0,
            number: 0,
            in_flight: 0,
            waiting: None,
            void: 0..0,
            next: Some(first),
            regular: first,
            gap_from: first,
            brought_forward: None,
            first_round: true,
            jitter: Jitter(seed),
        }
    }

    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether the verdict rests on results rather than on the prior.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// When the next probe is due. `None` while nothing can be sent before a probe on its way reports.
    pub fn next(&self) -> Option<Plan> {
        let (fresh, doubt) = match self.state {
            State::Suspect { doubt, .. } => (true, doubt),
            State::Steady | State::Down { .. } => (false, None),
        };
        self.next.map(|at| Plan { at, fresh, timeout: doubt.map(|doubt| doubt.timeout) })
    }

    /// The planned probe is being sent now.
    pub fn sent(&mut self, now: Instant) -> ProbeId {
        self.number += 1;
        self.in_flight += 1;
        self.next = None;
        match &mut self.state {
            State::Steady | State::Down { .. } => self.regular = now,
            State::Suspect { doubt, .. } => {
                if let Some(doubt) = doubt {
                    doubt.in_flight += 1;
                }
                self.gap_from = now;
                self.plan_confirmation(now);
            }
        }
        ProbeId { round: self.round, number: self.number }
    }

    /// A probe went so.
    pub fn report(&mut self, id: ProbeId, sample: Sample, now: Instant) -> Report {
        if id.round != self.round {
            return Report::default();
        }
        let was_waiting = self.waiting == Some(id.number);
        if was_waiting && matches!(sample, Sample::Silence(_)) {
            // On its way when a doubt came: its time-out tells nothing that was not suspected already.
            return Report { keep_waiting: true, ..Report::default() };
        }
        if self.void.contains(&id.number) && matches!(sample, Sample::Silence(_)) {
            return Report::default();
        }
        if was_waiting {
            self.waiting = None;
        } else {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        if let Some(doubt) = self.doubt_of(id) {
            doubt.in_flight = doubt.in_flight.saturating_sub(1);
        }
        match sample {
            Sample::Success { rtt } => self.success(rtt, now),
            Sample::Hard(cause) => self.hard(id, cause, now),
            Sample::Silence(cause) => self.silence(id, cause, now),
            Sample::Stale => {
                match self.state {
                    State::Steady | State::Down { .. } => self.next = Some(now),
                    State::Suspect { .. } => self.plan_confirmation(now),
                }
                Report::default()
            }
            Sample::Local => {
                match self.state {
                    State::Steady | State::Down { .. } => self.plan_regular(now),
                    State::Suspect { .. } => {
                        self.plan_confirmation(now);
                        self.next = self.next.map(|at| at.max(now + LOCAL_GAP));
                    }
                }
                Report::default()
            }
        }
    }

    /// The kept connection was closed while idle. An orderly close is no failure, only a reason to ask now: a killed
    /// process closes its sockets too. At most one probe per `every` is brought forward, so that a server that closes
    /// after each answer without saying so is not probed in a loop.
    pub fn idle_closed(&mut self, now: Instant) {
        let spent = self.brought_forward.is_some_and(|last| now < last + self.rules.every);
        if self.state == State::Steady && self.in_flight == 0 && !spent {
            self.brought_forward = Some(now);
            self.next = Some(self.next.map_or(now, |at| at.min(now)));
        }
    }

    /// Somebody else has reason to think that the target is silent. As after a silent probe, `confirmations` probes (at
    /// least one) follow on new connections, [`SILENCE_GAP`] apart or, once one fails hard, [`HARD_GAP`], each with this
    /// time-out. Any success clears the doubt, also that of a probe that was on its way before; when all of them fail, or
    /// `fall` probes do, the target is down. Nothing happens while it is down or in doubt already.
    pub fn doubt(&mut self, now: Instant, confirmations: u32, timeout: Duration) {
        let doubt =
            Some(Doubt { confirmations: confirmations.max(1), timeout, after: self.number, in_flight: 0, failures: 0 });
        match &mut self.state {
            State::Down { .. } | State::Suspect { doubt: Some(_), .. } => return,
            State::Suspect { doubt: none, .. } => *none = doubt,
            State::Steady => {
                // At most one is on its way, the last one sent.
                if self.in_flight > 0 {
                    self.in_flight = 0;
                    self.waiting = Some(self.number);
                }
                self.state = State::Suspect { failures: 0, hard: false, doubt };
            }
        }
        self.next = Some(now);
    }

    /// What raised the doubt has been taken back, such as by a heartbeat that came late. Time-outs of the doubt's own
    /// probes tell nothing any more; hard failures do. An ordinary suspicion stays, so that a target that is silent is
    /// found out however often it is doubted and cleared: the next answer ends it, `fall` failures make it down.
    pub fn clear_doubt(&mut self, now: Instant) {
        let State::Suspect { failures, hard, doubt } = &mut self.state else { return };
        let Some(doubt) = doubt.take() else { return };
        if !*hard {
            *failures = failures.saturating_sub(doubt.failures);
            self.in_flight = self.in_flight.saturating_sub(doubt.in_flight);
            self.void = doubt.after + 1..self.number + 1;
        }
        self.plan_confirmation(now);
    }

    /// Whether a doubt is being settled.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self.state, State::Suspect { doubt: Some(_), .. })
    }

    fn doubt_of(&mut self, id: ProbeId) -> Option<&mut Doubt> {
        match &mut self.state {
            State::Suspect { doubt: Some(doubt), .. } if id.number > doubt.after => Some(doubt),
            _ => None,
        }
    }

    fn success(&mut self, rtt: Duration, now: Instant) -> Report {
        if let State::Down { successes } = self.state {
            let successes = successes + 1;
            self.state = State::Down { successes };
            if successes < self.rules.rise {
                self.plan_regular(now);
                return Report::default();
            }
        }
        let successes = match self.state {
            State::Down { successes } => successes,
            State::Steady | State::Suspect { .. } => 1,
        };
        let was_suspect = matches!(self.state, State::Suspect { .. });
        self.enter(State::Steady);
        self.plan_regular(now);
        // Put into words only when it is news: nearly every probe comes here.
        let cause = || match successes {
            0 | 1 => format!("answered in {}", Millis(rtt)).into(),
            _ => format!("{successes} answers in a row").into(),
        };
        Report { change: self.settle(Verdict::Up, cause), keep_waiting: false, drop_others: was_suspect }
    }

    fn hard(&mut self, id: ProbeId, cause: Arc<str>, now: Instant) -> Report {
        match &mut self.state {
            State::Down { .. } => return self.still_down(cause, now),
            State::Steady => {
                self.gap_from = now;
                self.state = State::Suspect { failures: 0, hard: true, doubt: None };
            }
            State::Suspect { hard, .. } => *hard = true,
        }
        self.failed(id, cause, now)
    }

    fn silence(&mut self, id: ProbeId, cause: Arc<str>, now: Instant) -> Report {
        match self.state {
            State::Down { .. } => self.still_down(cause, now),
            State::Steady => {
                // Not yet a failure: this probe may still answer. Further ones will tell.
                self.waiting = Some(id.number);
                self.state = State::Suspect { failures: 0, hard: false, doubt: None };
                self.next = Some(now);
                Report { keep_waiting: true, ..Report::default() }
            }
            State::Suspect { .. } => self.failed(id, cause, now),
        }
    }

    fn still_down(&mut self, cause: Arc<str>, now: Instant) -> Report {
        self.state = State::Down { successes: 0 };
        self.plan_regular(now);
        // News only to a target that was believed down without a result of its own.
        Report { change: self.settle(Verdict::Down, || cause), ..Report::default() }
    }

    /// One more failure of a target that is suspected.
    fn failed(&mut self, id: ProbeId, cause: Arc<str>, now: Instant) -> Report {
        if let Some(doubt) = self.doubt_of(id) {
            doubt.failures += 1;
        }
        let State::Suspect { failures, hard, doubt } = &mut self.state else { return Report::default() };
        *failures += 1;
        let enough = enough(self.rules.fall, *hard);
        if *failures < enough && doubt.is_none_or(|doubt| doubt.failures < doubt.confirmations) {
            self.plan_confirmation(now);
            return Report::default();
        }
        self.enter(State::Down { successes: 0 });
        self.plan_regular(now);
        Report { change: self.settle(Verdict::Down, || cause), keep_waiting: false, drop_others: true }
    }

    /// Begins a new round: whatever is still on its way no longer counts.
    fn enter(&mut self, state: State) {
        self.state = state;
        self.round += 1;
        self.in_flight = 0;
        self.waiting = None;
    }

    fn settle(&mut self, verdict: Verdict, cause: impl FnOnce() -> Arc<str>) -> Option<Change> {
        let news = !self.settled || self.verdict != verdict;
        self.settled = true;
        self.verdict = verdict;
        news.then(|| Change { verdict, cause: cause() })
    }

    fn plan_regular(&mut self, now: Instant) {
        // Targets that start together part ways after their first result.
        let least = if std::mem::replace(&mut self.first_round, false) { 0.1 } else { 0.9 };
        let interval = self.rules.every.mul_f64(least + (1.0 - least) * self.jitter.unit());
        self.next = Some((self.regular + interval).max(now));
    }

    /// Keeps as many probes on their way as failures are missing to down.
    fn plan_confirmation(&mut self, now: Instant) {
        let State::Suspect { failures, hard, doubt } = self.state else { return };
        let (enough, failures, in_flight) = match doubt {
            Some(doubt) => (doubt.confirmations, doubt.failures, doubt.in_flight),
            None => (enough(self.rules.fall, hard), failures, self.in_flight),
        };
        let gap = match doubt {
            _ if hard => HARD_GAP,
            Some(_) => SILENCE_GAP,
            // One more probe than `fall`, in the time that `fall` of them would take.
            None => SILENCE_GAP * (self.rules.fall - 1) / self.rules.fall,
        };
        let missing = enough.saturating_sub(failures).saturating_sub(in_flight);
        self.next = (missing > 0).then(|| (self.gap_from + gap).max(now));
    }
}

/// Failures that turn a suspicion into down. Silence needs one more: packets get lost, while a target that says no has
/// been heard.
fn enough(fall: u32, hard: bool) -> u32 {
    if hard { fall } else { fall.saturating_add(1) }
}

/// Spreads the probes of many targets: intervals of 90 to 100 % of `every`. Never more, so that the bound on the time
/// to notice silence holds. SplitMix64; good enough for spreading, and the same seed gives the same intervals.
#[derive(Clone, Debug)]
struct Jitter(u64);

impl Jitter {
    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A duration for people: `0.4ms`, `12ms`.
pub(super) struct Millis(pub Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.0.as_secs_f64() * 1000.0;
        if ms < 10.0 { write!(f, "{ms:.1}ms") } else { write!(f, "{ms:.0}ms") }
    }
}

#[cfg(test)]
mod tests;
