//! From votes to rulings: what holds of a target when several vantages look at it.
//!
//! ```text
//! vantage "local" ─ up ──┐
//! vantage "fra"   ─ down ┼─► majority of the trusted ─► damping ─► Ruling
//! vantage "iad"   ─ up ──┘
//! ```
//!
//! * A vantage is somebody who probes, and its vote is the verdict it came to. With one vantage its vote decides. A tie
//!   leaves what held before.
//! * From [`ENOUGH`] vantages on, one that sees more than half of the groups (regions) down is not trusted: it is likelier
//!   that its own network is ill. When none is left to be trusted, all are, for then it is the world that is ill.
//! * The votes of a vantage that has been silent for too long are dropped; those of this node's own vantage never are,
//!   for whose silence there are alarms. A target without votes keeps its verdict, which is then *stale*, as is one that
//!   was kept over a restart.
//! * A target that falls too often is kept down though the votes say up ([`super::damping`]). Such a ruling is *soft*: it
//!   rests on caution, not on a fault of now, and must not take away more than the answers can spare.
//!
//! Pure: events go in with their time, rulings come out. Memory is bounded by targets × [`MAX_VANTAGES`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::damping::Damping;
use super::{Target, Verdict};

/// From so many vantages on, one can be found untrustworthy.
pub const ENOUGH: usize = 3;

/// Vantages beyond these are not heard.
pub const MAX_VANTAGES: usize = 64;

/// The name of one who probes.
pub type Vantage = Arc<str>;

/// Targets that stand or fall together as a vantage sees it: a region. A group is down to a vantage when more than half of
/// the group's targets that it voted on are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(pub u32);

#[derive(Clone, Debug)]
pub struct Rules {
    /// This node's own vantage.
    pub own: Vantage,
    /// Votes of another vantage count until it has been silent for this long.
    pub silence: Duration,
}

impl Default for Rules {
    /// The vantage `local`; others are forgotten after 10 s.
    fn default() -> Rules {
        Rules { own: "local".into(), silence: Duration::from_secs(10) }
    }
}

/// What a vantage thinks of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    pub vantage: Vantage,
    /// [`Verdict::Unknown`] takes an earlier vote back.
    pub verdict: Verdict,
    /// A short text for people.
    pub cause: Arc<str>,
}

/// What holds of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    pub verdict: Verdict,
    /// A short text for people.
    pub cause: Arc<str>,
    /// Suppressed for falling too often until then at the earliest. Only a target that is down is.
    pub damped_until: Option<Instant>,
    /// Down although the votes say up, because it is damped. Never true of a target that is up.
    pub soft: bool,
    /// No vote stands behind it: it was kept over a restart, or who voted has fallen silent.
    pub stale: bool,
    /// It may soon be something else: it is stale, or the target was down lately.
    pub uncertain: bool,
}

impl Ruling {
    /// Whether something besides the words is another.
    fn differs(&self, other: &Ruling) -> bool {
        let bare = |ruling: &Ruling| (ruling.verdict, ruling.damped_until, ruling.soft, ruling.stale, ruling.uncertain);
        bare(self) != bare(other)
    }
}

/// All votes, and what follows from them.
#[derive(Debug, Default)]
pub struct Judge {
    rules: Rules,
    cases: Vec<Case>,
    places: HashMap<Target, usize>,
    seats: BTreeMap<Vantage, Seat>,
    /// When cases change by themselves.
    wakes: BTreeSet<(Instant, usize)>,
    /// Whom to trust has changed, so every case has to be looked at again.
    unsettled: Option<Instant>,
}

/// One target.
#[derive(Debug)]
struct Case {
    target: Target,
    groups: Vec<Group>,
    /// One for a vantage.
    votes: Vec<Vote>,
    /// By the votes alone, and why.
    voted: Verdict,
    cause: Arc<str>,
    damping: Damping,
    ruling: Ruling,
    wake: Option<Instant>,
}

/// One vantage that has voted.
#[derive(Debug)]
struct Seat {
    heard: Instant,
    /// Its votes by group: how many, and how many of them down.
    tally: HashMap<Group, (u32, u32)>,
    /// Groups that it sees down.
    down: usize,
    trusted: bool,
}

impl Judge {
    pub fn new(rules: Rules) -> Judge {
        Judge { rules, ..Judge::default() }
    }

    /// Judges these targets from now on and no others; a target may be named several times, with a group each. Those that
    /// stay keep their votes, verdicts and penalties.
    pub fn retain(&mut self, targets: impl IntoIterator<Item = (Target, Group)>, now: Instant) {
        let places = std::mem::take(&mut self.places);
        let mut before: Vec<Option<Case>> = std::mem::take(&mut self.cases).into_iter().map(Some).collect();
        for (target, group) in targets {
            let place = *self.places.entry(target).or_insert_with_key(|target| {
                let kept = places.get(target).and_then(|place| before[*place].take());
                let mut case = kept.unwrap_or_else(|| Case::new(target.clone()));
                case.groups.clear();
                self.cases.push(case);
                self.cases.len() - 1
            });
            self.cases[place].groups.push(group);
        }
        for case in &mut self.cases {
            case.groups.sort_unstable();
            case.groups.dedup();
        }
        let wakes = self.cases.iter().enumerate().filter_map(|(place, case)| Some((case.wake?, place)));
        self.wakes = wakes.collect();
        for seat in self.seats.values_mut() {
            (seat.tally, seat.down) = (HashMap::new(), 0);
        }
        for case in &self.cases {
            for vote in &case.votes {
                if let Some(seat) = self.seats.get_mut(&vote.vantage) {
                    seat.count(&case.groups, vote.verdict, true);
                }
            }
        }
        self.trust(now);
    }

    /// A verdict that was known before the last start: it holds, stale, until a vote confirms or refutes it. `damped`: how
    /// long it is to stay suppressed for falling too often, no vote ends that. Without effect on a target that is not judged
    /// or has been voted on.
    pub fn restore(&mut self, target: &Target, verdict: Verdict, damped: Option<Duration>, now: Instant) {
        let Some(&place) = self.places.get(target) else { return };
        let case = &mut self.cases[place];
        if case.votes.is_empty() {
            // What was damped had answered.
            case.voted = if verdict == Verdict::Damped { Verdict::Up } else { verdict };
            case.damping.resume(damped.unwrap_or_default(), now);
            case.cause = "known from before the start".into();
            self.rule(place, now);
        }
    }

    /// A vantage voted, which also shows that it lives. Gives the ruling if it is another than before, in more than its
    /// cause. What follows for other targets is for [`Judge::tick`] to tell; [`Judge::due`] is then not in the future.
    ///
    /// Ignored: votes on targets that are not judged, and those of more than [`MAX_VANTAGES`] vantages.
    pub fn vote(&mut self, target: &Target, vote: Vote, now: Instant) -> Option<Ruling> {
        let place = *self.places.get(target)?;
        let others = self.seats.keys().filter(|vantage| **vantage != self.rules.own).count();
        if !self.seats.contains_key(&vote.vantage) {
            // One seat is always left for this node itself.
            if vote.verdict == Verdict::Unknown || (vote.vantage != self.rules.own && others + 1 >= MAX_VANTAGES) {
                return None;
            }
            self.seats.insert(Arc::clone(&vote.vantage), Seat::new(now));
        }
        let case = &mut self.cases[place];
        let seat = self.seats.get_mut(&vote.vantage)?;
        seat.heard = seat.heard.max(now);
        if let Some(position) = case.votes.iter().position(|old| old.vantage == vote.vantage) {
            let old = case.votes.swap_remove(position);
            seat.count(&case.groups, old.verdict, false);
        }
        if vote.verdict != Verdict::Unknown {
            seat.count(&case.groups, vote.verdict, true);
            case.votes.push(vote);
        }
        self.trust(now);
        self.rule(place, now)
    }

    /// A vantage lives: its votes go on to count.
    pub fn heard(&mut self, vantage: &str, now: Instant) {
        if let Some(seat) = self.seats.get_mut(vantage) {
            seat.heard = seat.heard.max(now);
        }
    }

    /// By when [`Judge::tick`] is to be called again, if nothing else happens before.
    pub fn due(&self) -> Option<Instant> {
        let wake = self.wakes.first().map(|(at, _)| *at);
        let silent = self.others().map(|(_, seat)| seat.heard + self.rules.silence).min();
        [wake, silent, self.unsettled].into_iter().flatten().min()
    }

    /// What has changed by itself, or by the last votes for other targets than those that were voted on.
    pub fn tick(&mut self, now: Instant) -> Vec<(Target, Ruling)> {
        let silent = |(_, seat): &(&Vantage, &Seat)| seat.heard + self.rules.silence <= now;
        let gone: Vec<Vantage> = self.others().filter(silent).map(|(vantage, _)| Arc::clone(vantage)).collect();
        if !gone.is_empty() {
            self.seats.retain(|vantage, _| !gone.contains(vantage));
            for case in &mut self.cases {
                case.votes.retain(|vote| !gone.contains(&vote.vantage));
            }
            self.trust(now);
            self.unsettled = Some(now);
        }
        let places: Vec<usize> = if self.unsettled.take().is_some() {
            (0..self.cases.len()).collect()
        } else {
            self.wakes.iter().take_while(|(at, _)| *at <= now).map(|(_, place)| *place).collect()
        };
        let changed = places.into_iter().filter_map(|place| Some((place, self.rule(place, now)?)));
        let changed: Vec<(usize, Ruling)> = changed.collect();
        changed.into_iter().map(|(place, ruling)| (self.cases[place].target.clone(), ruling)).collect()
    }

    /// What holds of a target; `None` for one that is not judged. As of the last vote or tick.
    pub fn ruling(&self, target: &Target) -> Option<&Ruling> {
        self.places.get(target).map(|place| &self.cases[*place].ruling)
    }

    /// Whether its verdict has no vote behind it.
    pub fn is_stale(&self, target: &Target) -> bool {
        self.ruling(target).is_some_and(|ruling| ruling.stale)
    }

    /// Whether what holds of it may soon be something else.
    pub fn uncertain(&self, target: &Target, now: Instant) -> bool {
        let Some(place) = self.places.get(target) else { return false };
        let case = &self.cases[*place];
        case.ruling.stale || case.damping.lately_until(now).is_some()
    }

    /// Whether a vantage's votes count. False for one that is not known.
    pub fn is_trusted(&self, vantage: &str) -> bool {
        self.seats.get(vantage).is_some_and(|seat| seat.trusted)
    }

    fn others(&self) -> impl Iterator<Item = (&Vantage, &Seat)> {
        self.seats.iter().filter(|(vantage, _)| **vantage != self.rules.own)
    }

    /// Works out anew whom to trust.
    fn trust(&mut self, now: Instant) {
        let enough = self.seats.values().filter(|seat| !seat.tally.is_empty()).count() >= ENOUGH;
        for seat in self.seats.values_mut() {
            let trusted = !enough || seat.down * 2 <= seat.tally.len();
            if trusted != seat.trusted {
                seat.trusted = trusted;
                self.unsettled = Some(now);
            }
        }
    }

    /// Judges a case anew; gives the ruling if it is another.
    fn rule(&mut self, place: usize, now: Instant) -> Option<Ruling> {
        let case = &mut self.cases[place];
        let trusted = |vote: &&Vote| self.seats.get(&vote.vantage).is_some_and(|seat| seat.trusted);
        let none = !case.votes.iter().any(|vote| trusted(&vote));
        let heard: Vec<&Vote> = case.votes.iter().filter(|vote| none || trusted(vote)).collect();
        let ups = heard.iter().filter(|vote| vote.verdict == Verdict::Up).count();
        let voted = match ups.cmp(&(heard.len() - ups)) {
            std::cmp::Ordering::Greater => Verdict::Up,
            std::cmp::Ordering::Equal => case.voted,
            std::cmp::Ordering::Less => Verdict::Down,
        };
        let agreeing: Vec<&&Vote> = heard.iter().filter(|vote| vote.verdict == voted).collect();
        let own = agreeing.iter().find(|vote| vote.vantage == self.rules.own).or(agreeing.first());
        let cause: Arc<str> = match own {
            Some(vote) if case.votes.len() == 1 => Arc::clone(&vote.cause),
            Some(vote) => format!("{} ({} of {} vantages)", vote.cause, agreeing.len(), case.votes.len()).into(),
            None => Arc::clone(&case.cause),
        };
        case.damping.settle(now);
        // A target that is down when it is first heard of has not fallen: a start damps nothing.
        if (case.voted, voted) == (Verdict::Up, Verdict::Down) {
            case.damping.fell(now);
        }
        (case.voted, case.cause) = (voted, Arc::clone(&cause));
        let damped_until = case.damping.suppressed_until(now);
        let soft = damped_until.is_some() && voted == Verdict::Up;
        let lately = case.damping.lately_until(now);
        let stale = heard.is_empty() && voted != Verdict::Unknown;
        let ruling = Ruling {
            verdict: if soft { Verdict::Down } else { voted },
            cause: if soft { format!("kept down for going up and down too often; {cause}").into() } else { cause },
            damped_until,
            soft,
            stale,
            uncertain: stale || lately.is_some(),
        };
        let wake = [damped_until, lately].into_iter().flatten().min();
        if wake != case.wake {
            case.wake.take().map(|at| self.wakes.remove(&(at, place)));
            case.wake = wake;
            self.wakes.extend(wake.map(|at| (at, place)));
        }
        let differs = ruling.differs(&case.ruling);
        case.ruling = ruling;
        differs.then(|| case.ruling.clone())
    }
}

impl Case {
    fn new(target: Target) -> Case {
        let ruling = Ruling {
            verdict: Verdict::Unknown,
            cause: "no result yet".into(),
            damped_until: None,
            soft: false,
            stale: false,
            uncertain: false,
        };
        Case {
            target,
            groups: vec![],
            votes: vec![],
            voted: Verdict::Unknown,
            cause: Arc::clone(&ruling.cause),
            damping: Damping::default(),
            ruling,
            wake: None,
        }
    }
}

impl Seat {
    fn new(now: Instant) -> Seat {
        Seat { heard: now, tally: HashMap::new(), down: 0, trusted: true }
    }

    /// Notes a vote, or takes back one that was noted.
    fn count(&mut self, groups: &[Group], verdict: Verdict, add: bool) {
        for group in groups {
            let (voted, down) = self.tally.entry(*group).or_default();
            let was_down = *down * 2 > *voted;
            let one = u32::from(verdict == Verdict::Down);
            (*voted, *down) = if add { (*voted + 1, *down + one) } else { (*voted - 1, *down - one) };
            let is_down = *down * 2 > *voted;
            self.down = self.down + usize::from(is_down) - usize::from(was_down);
            if *voted == 0 {
                self.tally.remove(group);
            }
        }
    }
}

#[cfg(test)]
mod tests;
