//! What every region is going through: its ramp, the operator's word on it, and the standing that follows.
//!
//! Zones that share a fleet share this too: a region that ten thousand zones have in common is looked at once. Regions are
//! known by the names of zone and region, so a reload loses nothing of them. Time is passed in.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::settings::{Family, Region};
use crate::orders::Words;
use crate::orders::words::Word;
use crate::snapshot::Snapshot;
use crate::snapshot::standing::{Forced, Mode, Share, Standing};
use crate::state::verdicts::Ramp as SavedRamp;
use crate::steering::ramp::Ramp;

/// After all regions of a zone were down, those that come back within so long of the first were given as if they were up
/// meanwhile: their caches are warm, and no ramp must send their clients elsewhere.
const DAWN: Duration = Duration::from_secs(30);
/// A freeze is told no more often.
const TOLD: Duration = Duration::from_secs(60);
/// Regions that are gone and remembered all the same, for they were not steady: a file may be away for a moment only.
const GONE: usize = 256;
/// Of the last probes of a region's servers, the part that may fail while it comes back. Packets get lost.
const FAILING: f64 = 0.05;

/// Of the zones of a fleet so many are written down with a ramp: enough that it outlives the removal of some of them.
const WITNESSES: usize = 8;

/// Fleet and region by position.
pub type At = (u32, u8);

#[derive(Default)]
pub struct Regions {
    /// By fleet.
    crews: Vec<Crew>,
    /// By label: the zone's position.
    zones: HashMap<Arc<str>, u32>,
    /// By label: what goes on in zones that are to be set apart, where that is not what goes on in those like them.
    own: HashMap<Arc<str>, Crew>,
    /// Those to look at again as time passes.
    moving: BTreeSet<At>,
    gone: Gone,
}

/// By labels of zone and region.
type Gone = HashMap<(Arc<str>, Arc<str>), Course>;

/// What the zones of a fleet go through together.
#[derive(Clone)]
struct Crew {
    /// Their labels, in the order of the files.
    zones: Vec<Arc<str>>,
    regions: Vec<Course>,
    night: Night,
    /// Of one zone that was set apart from those like it.
    alone: bool,
}

/// Whether a region was up lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Night {
    /// One is.
    Day,
    /// All are down.
    Dark,
    /// The first came back then.
    Dawn(Instant),
}

#[derive(Clone)]
struct Course {
    name: Arc<str>,
    over: Duration,
    ramp: Option<Ramp>,
    /// Median time of its servers' answers when the ramp began.
    pace: Option<Duration>,
    told_frozen: Option<Instant>,
    /// What held of it last, which a snapshot just compiled does not know.
    mode: Mode,
    share: Share,
    /// By family; `None` before it was first looked at.
    up: Option<[bool; 2]>,
}

/// A region whose health changed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flip {
    pub at: At,
    pub family: Family,
    pub up: bool,
}

/// What became of a region besides that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub at: At,
    pub from: Mode,
    pub to: Mode,
}

/// How a region's servers that are up do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Condition {
    /// The part of their last probes that failed.
    pub failing: f64,
    /// Median over them of the time in which 95 of 100 answers come.
    pub pace: Option<Duration>,
}

/// What is known of regions besides verdicts.
pub struct Surroundings<'a> {
    pub words: &'a Words<'a>,
    /// Whether what is believed of its servers may soon be something else.
    pub uncertain: &'a dyn Fn(At) -> bool,
    pub condition: &'a dyn Fn(At) -> Condition,
}

impl Regions {
    /// Those of a snapshot; what goes on with regions that stay goes on. Gives the zones that have something of their own
    /// going on though the snapshot has them share a fleet: to be set apart in it, see [`Regions::set_apart`].
    pub fn replace(&mut self, snapshot: &Snapshot) -> Vec<u32> {
        let before = std::mem::take(&mut self.crews);
        // Who was set apart may be like the others again; that is found out anew.
        let crew_of: HashMap<&Arc<str>, usize> =
            before.iter().enumerate().flat_map(|(c, crew)| crew.zones.iter().map(move |zone| (zone, c))).collect();
        self.zones = (0..).zip(snapshot.zones()).map(|(z, served)| (served.zone.label(), z)).collect();
        let mut names: Vec<Arc<str>> = vec!["".into(); snapshot.zones().len()];
        self.zones.iter().for_each(|(name, z)| names[*z as usize] = Arc::clone(name));
        self.own.clear();
        let mut alone = vec![];
        for fleet in 0..snapshot.fleets() {
            let zones: Vec<Arc<str>> = snapshot.zones_of(fleet).map(|z| Arc::clone(&names[z as usize])).collect();
            let known = |zone: &Arc<str>| crew_of.get(zone).map(|crew| (*crew, &before[*crew]));
            let mut groups = Group::of(&zones, &snapshot.sample(fleet).regions, known, &self.gone);
            // What most of them go through is what they share.
            let most = (0..groups.len()).rev().max_by_key(|group| groups[*group].zones.len());
            let Some(most) = most.map(|most| groups.swap_remove(most)) else { continue };
            self.crews.push(Crew { zones, ..most.crew });
            for Group { crew, zones } in groups {
                for zone in zones {
                    alone.push(self.zones[&zone]);
                    self.own.insert(Arc::clone(&zone), Crew { zones: vec![zone], ..crew.clone() });
                }
            }
        }
        alone.sort_unstable();
        let mut gone = std::mem::take(&mut self.gone);
        gone.retain(|(zone, region), _| {
            let now = self.zones.get(zone).map(|z| &snapshot.zones()[*z as usize].zone.regions);
            !now.into_iter().flatten().any(|there| there.name == *region)
        });
        for crew in before.iter().filter(|crew| crew.is_moving()) {
            for zone in &crew.zones {
                let now = self.zones.get(zone).map(|z| &snapshot.zones()[*z as usize].zone.regions);
                let is_there = |course: &&Course| now.into_iter().flatten().any(|region| region.name == course.name);
                let lost = crew.regions.iter().filter(|course| course.mode != Mode::Steady && !is_there(course));
                gone.extend(lost.map(|course| ((Arc::clone(zone), Arc::clone(&course.name)), course.clone())));
            }
        }
        self.gone = gone.into_iter().take(GONE).collect();
        self.moving = self.all().collect();
        alone
    }

    /// Of these zones, those that share their fleet with others.
    pub fn sharing<'n>(&self, snapshot: &Snapshot, zones: impl Iterator<Item = &'n str>) -> Vec<u32> {
        let known = zones.filter_map(|zone| self.zones.get(zone)).copied();
        let alone: BTreeSet<u32> = known.filter(|zone| snapshot.shares(*zone)).collect();
        alone.into_iter().collect()
    }

    /// Takes what a snapshot has set apart. What went on in the zones together goes on in each of them. Gives their
    /// regions.
    pub fn set_apart(&mut self, snapshot: &Snapshot) -> Vec<At> {
        let fleets = self.crews.len() as u32..snapshot.fleets();
        for fleet in fleets.clone() {
            for z in snapshot.zones_of(fleet) {
                let name = snapshot.zones()[z as usize].zone.label();
                let shared = self.crews.iter_mut().find(|crew| crew.zones.contains(&name));
                let shared = shared.map(|shared| {
                    shared.zones.retain(|zone| *zone != name);
                    Crew { zones: vec![Arc::clone(&name)], ..shared.clone() }
                });
                let own = self.own.remove(&name).or(shared);
                self.crews.extend(own.map(|own| Crew { alone: true, ..own }));
            }
        }
        // A fleet that no zone shares any more goes nowhere.
        self.moving.retain(|(fleet, _)| !self.crews[*fleet as usize].zones.is_empty());
        let new: Vec<At> = fleets.flat_map(|fleet| self.of_fleet(fleet)).collect();
        self.moving.extend(&new);
        new
    }

    /// The zones that had a way of their own before a restart, though they share a fleet.
    pub fn went_alone(&self, snapshot: &Snapshot, saved: &[SavedRamp]) -> Vec<u32> {
        self.sharing(snapshot, saved.iter().filter(|ramp| ramp.alone).map(|ramp| &*ramp.zone))
    }

    /// Goes on with what was under way before a restart.
    pub fn resume(&mut self, snapshot: &Snapshot, saved: &[SavedRamp], now: Instant) {
        for ramp in saved {
            let Some(zone) = self.zones.get(&ramp.zone) else { continue };
            let crew = &mut self.crews[snapshot.fleet_of(*zone) as usize];
            let Some(course) = crew.regions.iter_mut().find(|course| course.name == ramp.region) else { continue };
            if let Some(left) = ramp.left {
                course.share = Share::of(left);
                course.mode = if course.share == Share::NONE { Mode::Drained } else { Mode::Draining };
                continue;
            }
            let part = (ramp.progress_s / ramp.of_s).clamp(0.0, 1.0);
            let done = if part.is_finite() { course.over.mul_f64(part) } else { Duration::ZERO };
            course.ramp = Some(Ramp::resume(course.over, done, now)).filter(|ramp| !ramp.is_done());
        }
    }

    /// What is under way, to be kept over a restart.
    pub fn ramps(&self) -> Vec<SavedRamp> {
        let shared = self.crews.iter().any(|crew| !crew.alone && crew.regions.iter().any(Course::is_under_way));
        let saved = self.crews.iter().flat_map(|crew| {
            // Of a zone set apart also that nothing is under way in it, where something may be in those like it: a ramp
            // that is over.
            let tells = move |course: &&Course| course.is_under_way() || crew.alone && shared;
            crew.regions.iter().filter(tells).flat_map(move |course| {
                let (done, over) = match &course.ramp {
                    Some(ramp) => (ramp.done(), ramp.over()),
                    None if course.is_leaving() => (Duration::ZERO, course.over),
                    None => (course.over, course.over),
                };
                crew.zones.iter().take(WITNESSES).map(move |zone| SavedRamp {
                    zone: Arc::clone(zone),
                    region: Arc::clone(&course.name),
                    progress_s: done.as_secs_f64(),
                    of_s: over.as_secs_f64(),
                    left: course.is_leaving().then(|| course.share.part()),
                    alone: crew.alone,
                })
            })
        });
        saved.collect()
    }

    /// Every region, by position.
    pub fn all(&self) -> impl Iterator<Item = At> {
        (0..self.crews.len() as u32).flat_map(|fleet| self.of_fleet(fleet))
    }

    /// All regions of a fleet, by position.
    pub fn of_fleet(&self, fleet: u32) -> impl Iterator<Item = At> + use<> {
        let crew = &self.crews[fleet as usize];
        let regions = if crew.zones.is_empty() { 0 } else { crew.regions.len() };
        (0..regions).map(move |region| (fleet, region as u8))
    }

    /// Those that change as time passes.
    pub fn moving(&self) -> impl Iterator<Item = At> {
        self.moving.iter().copied()
    }

    pub fn is_moving(&self) -> bool {
        !self.moving.is_empty()
    }

    /// Begins the ramps of regions that came back, and drops those of regions that went down. A region came back when it
    /// was of use for no type of address and is for one. The flips, and whether ramps are others now: then the standings
    /// have to be asked for again.
    pub fn follow(
        &mut self,
        after: &Snapshot,
        touched: &BTreeSet<At>,
        condition: &dyn Fn(At) -> Condition,
        now: Instant,
    ) -> (Vec<Flip>, bool) {
        let (mut flips, mut other) = (vec![], false);
        for &at in touched {
            let is = up(after, at);
            let crew = &mut self.crews[at.0 as usize];
            if crew.zones.is_empty() {
                continue;
            }
            let course = &mut crew.regions[usize::from(at.1)];
            let Some(was) = course.up.replace(is) else {
                if is.contains(&true) && crew.night == Night::Dark {
                    crew.night = Night::Day;
                }
                continue;
            };
            for family in Family::BOTH {
                if was[family as usize] != is[family as usize] {
                    flips.push(Flip { at, family, up: is[family as usize] });
                }
            }
            match (was.contains(&true), is.contains(&true)) {
                (false, true) => {
                    if crew.night == Night::Dark {
                        crew.night = Night::Dawn(now);
                    }
                    let dawn = matches!(crew.night, Night::Dawn(since) if now < since + DAWN);
                    // The operator's word is meant at once.
                    if !dawn && !is_by_word(after.fleet_at(at.0).1.standing(at.1)) {
                        course.begin(Share::NONE, now);
                        course.pace = condition(at).pace;
                        other |= course.ramp.is_some();
                    }
                }
                (true, false) if course.ramp.take().is_some() => {
                    // It does not come back, so nothing is to be told of its way.
                    (course.mode, course.share) = (Mode::Steady, Share::FULL);
                    other = true;
                }
                _ => {}
            }
        }
        for fleet in touched.iter().map(|(fleet, _)| *fleet).collect::<BTreeSet<_>>() {
            let crew = &mut self.crews[fleet as usize];
            if crew.regions.iter().all(|course| course.up.is_some_and(|up| !up.contains(&true))) {
                crew.night = Night::Dark;
            }
        }
        (flips, other)
    }

    /// What now holds of these regions, where it is not what the snapshot says.
    pub fn standings(
        &mut self,
        snapshot: &Snapshot,
        touched: impl IntoIterator<Item = At>,
        around: &Surroundings<'_>,
        now: Instant,
    ) -> (Vec<(At, Standing)>, Vec<Step>) {
        let (mut standings, mut steps) = (vec![], vec![]);
        for at in touched {
            let (fleet, r) = at;
            let crew = &mut self.crews[fleet as usize];
            let least = crew.takes_over(snapshot, at);
            // An order that names a zone has set it apart, so all are told alike. Without a zone nothing is told.
            let Some(zone) = crew.zones.first().cloned() else { continue };
            let course = &mut crew.regions[usize::from(r)];
            let word = around.words.region(&zone, &course.name);
            let from = course.mode;
            if let Some(ramp) = &mut course.ramp {
                // What leaves a region that has none but this to go to must find room here as fast as it leaves.
                ramp.raise(least);
            }
            course.advance(&word, || (around.condition)(at), now);
            if course.mode != from && course.is_worth_telling(from, now) {
                steps.push(Step { at, from, to: course.mode });
            }
            let region = &snapshot.sample(fleet).regions[usize::from(r)];
            let servers = region.servers.iter().enumerate().filter_map(|(s, server)| {
                let addresses = Family::BOTH.into_iter().filter_map(|family| server.address(family));
                Some((s, around.words.server(&zone, addresses)?))
            });
            let standing = Standing {
                share: course.share,
                mode: course.mode,
                forced: word.forced,
                servers: servers.collect(),
                uncertain: (around.uncertain)(at),
            };
            let moves = standing.uncertain || matches!(course.mode, Mode::Draining | Mode::Ramping | Mode::Frozen);
            if moves {
                self.moving.insert(at)
            } else {
                self.moving.remove(&at)
            };
            if *snapshot.fleet_at(fleet).1.standing(r) != standing {
                standings.push((at, standing));
            }
        }
        (standings, steps)
    }
}

/// Zones of a fleet that go through the same, before they are given a crew.
struct Group {
    crew: Crew,
    zones: Vec<Arc<str>>,
}

impl Group {
    /// Sorts the zones of a fleet. `known`: the crew that a zone was in, by number.
    fn of<'c>(
        zones: &[Arc<str>],
        regions: &[Region],
        known: impl Fn(&Arc<str>) -> Option<(usize, &'c Crew)>,
        gone: &Gone,
    ) -> Vec<Group> {
        let mut groups: Vec<Group> = vec![];
        // By crew before: the group. Zones of one crew go through the same, but for regions that come back.
        let mut group_of: HashMap<Option<usize>, usize> = HashMap::new();
        // New zones last: what is known of those like them is more than nothing.
        let (old, new): (Vec<_>, Vec<_>) = zones.iter().partition(|zone| known(zone).is_some());
        for zone in old.into_iter().chain(new) {
            let before = known(zone);
            let number = before.map(|(number, _)| number);
            let is_back = |region: &Region| gone.contains_key(&(Arc::clone(zone), Arc::clone(&region.name)));
            let returns = !gone.is_empty() && regions.iter().any(is_back);
            let group = group_of.get(&number).copied().filter(|_| !returns).unwrap_or_else(|| {
                let crew = Crew::following(before.map(|(_, crew)| crew), zone, regions, gone);
                let alike = groups.iter().position(|group| group.crew.goes_with(&crew));
                alike.unwrap_or_else(|| {
                    groups.push(Group { crew, zones: vec![] });
                    groups.len() - 1
                })
            });
            if !returns {
                group_of.insert(number, group);
            }
            groups[group].zones.push(Arc::clone(zone));
        }
        groups
    }
}

impl Crew {
    /// Of one zone; what went on in its crew before, or in regions that were gone, goes on.
    fn following(before: Option<&Crew>, zone: &Arc<str>, regions: &[Region], gone: &Gone) -> Crew {
        let course = |region: &Region| {
            let known = before.and_then(|crew| crew.regions.iter().find(|course| course.name == region.name));
            let was = || gone.get(&(Arc::clone(zone), Arc::clone(&region.name)));
            let known = known.or_else(was).cloned();
            Course { over: region.ramp, ..known.unwrap_or_else(|| Course::new(&region.name)) }
        };
        let regions = regions.iter().map(course).collect();
        Crew { zones: vec![], regions, night: before.map_or(Night::Day, |crew| crew.night), alone: false }
    }

    /// Whether what goes on in one can be taken for what goes on in the other, of the same regions.
    fn goes_with(&self, other: &Crew) -> bool {
        let alike = |(a, b): (&Course, &Course)| {
            let seen = |up: Option<[bool; 2]>| up.unwrap_or([true; 2]).contains(&true);
            let steady = a.ramp.is_none() && b.ramp.is_none() && (a.mode, a.share) == (b.mode, b.share);
            steady && (a.up == b.up || seen(a.up) && seen(b.up))
        };
        self.night == other.night && self.regions.iter().zip(&other.regions).all(alike)
    }

    /// Whether one of its regions is not steady.
    fn is_moving(&self) -> bool {
        self.regions.iter().any(|course| course.mode != Mode::Steady)
    }

    /// The least that a region on its way back must take: of each stream that it shares with a region that is leaving, and
    /// in which no region that is up takes all it gets, what has left that one.
    fn takes_over(&self, snapshot: &Snapshot, (fleet, region): At) -> Share {
        let mask = |is: &dyn Fn(&Course) -> bool| {
            let marked = self.regions.iter().enumerate().filter(|(_, course)| is(course));
            marked.fold(0, |mask, (r, _)| mask | 1u64 << r)
        };
        let leaving = mask(&Course::is_leaving);
        if leaving == 0 || self.regions[usize::from(region)].ramp.is_none() {
            return Share::NONE;
        }
        let up = Family::BOTH.into_iter().fold(0, |mask, family| mask | snapshot.usable(fleet, family));
        let whole = up & mask(&|course| course.mode == Mode::Steady);
        let (declared, _) = snapshot.fleet_at(fleet);
        let short = declared.sets().iter().filter(|uses| **uses >> region & 1 == 1 && **uses & whole == 0);
        let leaving = short.fold(0, |mask, uses| mask | uses & leaving);
        let left = self.regions.iter().enumerate().filter(|(r, _)| leaving >> r & 1 == 1);
        left.map(|(_, course)| course.share).max().map_or(Share::NONE, |left| Share::of(1.0 - left.part()))
    }
}

impl Course {
    fn new(name: &Arc<str>) -> Course {
        Course {
            name: Arc::clone(name),
            over: Duration::ZERO,
            ramp: None,
            pace: None,
            told_frozen: None,
            mode: Mode::Steady,
            share: Share::FULL,
            up: None,
        }
    }

    fn begin(&mut self, share: Share, now: Instant) {
        self.ramp = Some(Ramp::begin(self.over, share, now)).filter(|ramp| !ramp.is_done());
    }

    fn is_leaving(&self) -> bool {
        matches!(self.mode, Mode::Draining | Mode::Drained)
    }

    fn is_under_way(&self) -> bool {
        self.is_leaving() || self.ramp.is_some()
    }

    /// Brings mode and share up to now.
    fn advance(&mut self, word: &Word, condition: impl Fn() -> Condition, now: Instant) {
        if let Some(left) = word.left {
            // Never more than it had, whatever clocks and other orders say: who was sent away is not called back.
            self.ramp = None;
            self.share = Share::of(left).min(self.share);
            self.mode = if self.share == Share::NONE { Mode::Drained } else { Mode::Draining };
            return;
        }
        if self.is_leaving() {
            // Taken back, or over: the region goes on from what was left of its share.
            self.begin(self.share, now);
            self.pace = condition().pace;
        }
        if word.forced == Some(Forced::Up) {
            self.ramp = None;
        }
        if let Some(ramp) = &mut self.ramp {
            ramp.advance(condition().is_well(self.pace), now);
        }
        self.ramp = self.ramp.take().filter(|ramp| !ramp.is_done());
        self.mode = match &self.ramp {
            Some(ramp) if ramp.is_frozen() => Mode::Frozen,
            Some(_) => Mode::Ramping,
            None => Mode::Steady,
        };
        self.share = self.ramp.as_ref().map_or(Share::FULL, Ramp::share);
    }

    /// Whether a change of mode is news: a ramp may stop and go on many times.
    fn is_worth_telling(&mut self, from: Mode, now: Instant) -> bool {
        if !matches!((from, self.mode), (Mode::Ramping, Mode::Frozen) | (Mode::Frozen, Mode::Ramping)) {
            return true;
        }
        let news = self.told_frozen.is_none_or(|told| now >= told + TOLD);
        if news {
            self.told_frozen = Some(now);
        }
        news
    }
}

impl Condition {
    /// Whether a region that comes back does well: few probes fail, and answers take at most half as long again as when
    /// its way back began, and 20 ms.
    fn is_well(&self, began: Option<Duration>) -> bool {
        let slow =
            began.zip(self.pace).is_some_and(|(began, pace)| pace > began.mul_f64(1.5) + Duration::from_millis(20));
        self.failing <= FAILING && !slow
    }
}

/// Whether the operator has a hand in that a region is up.
fn is_by_word(standing: &Standing) -> bool {
    standing.forced == Some(Forced::Up) || standing.servers.iter().any(|(_, forced)| *forced == Forced::Up)
}

/// By family: whether enough servers are up, and what the streams need is.
fn up(snapshot: &Snapshot, (fleet, region): At) -> [bool; 2] {
    Family::BOTH.map(|family| snapshot.usable(fleet, family) >> region & 1 == 1)
}
