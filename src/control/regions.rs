//! What every region is going through: its ramp, the operator's word on it, and the standing that follows.
//!
//! Regions are known by the names of zone and region, so a reload loses nothing of them. Time is passed in.

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

/// Zone and region by position.
pub type At = (u32, u8);

#[derive(Default)]
pub struct Regions {
    zones: Vec<Zone>,
    /// Those to look at again as time passes.
    moving: BTreeSet<At>,
    gone: HashMap<(Arc<str>, Arc<str>), Course>,
}

struct Zone {
    name: Arc<str>,
    regions: Vec<Course>,
    night: Night,
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
    /// Those of a snapshot; what goes on with regions that stay goes on.
    pub fn replace(&mut self, snapshot: &Snapshot) {
        let mut known = std::mem::take(&mut self.gone);
        let mut nights: HashMap<Arc<str>, Night> = HashMap::new();
        for Zone { name, regions, night } in self.zones.drain(..) {
            known.extend(regions.into_iter().map(|course| ((Arc::clone(&name), Arc::clone(&course.name)), course)));
            nights.insert(name, night);
        }
        for served in snapshot.zones() {
            let name = served.zone.label();
            let course = |region: &Region| {
                let known = known.remove(&(Arc::clone(&name), Arc::clone(&region.name)));
                Course { over: region.ramp, ..known.unwrap_or_else(|| Course::new(&region.name)) }
            };
            let regions = served.zone.regions.iter().map(course).collect();
            let night = nights.get(&name).copied().unwrap_or(Night::Day);
            self.zones.push(Zone { name, regions, night });
        }
        self.gone = known.into_iter().filter(|(_, course)| course.mode != Mode::Steady).take(GONE).collect();
        self.moving = self.all().collect();
    }

    /// Goes on with what was under way before a restart.
    pub fn resume(&mut self, saved: &[SavedRamp], now: Instant) {
        for zone in &mut self.zones {
            for course in &mut zone.regions {
                let same = |ramp: &&SavedRamp| ramp.zone == zone.name && ramp.region == course.name;
                let Some(ramp) = saved.iter().find(same) else { continue };
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
    }

    /// What is under way, to be kept over a restart.
    pub fn ramps(&self) -> Vec<SavedRamp> {
        let courses = self.zones.iter().flat_map(|zone| zone.regions.iter().map(move |course| (zone, course)));
        let saved = courses.filter_map(|(zone, course)| {
            let leaving = course.is_leaving().then(|| course.share.part());
            let (done, over) = match &course.ramp {
                Some(ramp) => (ramp.done(), ramp.over()),
                None => (Duration::ZERO, course.over),
            };
            (leaving.is_some() || course.ramp.is_some()).then(|| SavedRamp {
                zone: Arc::clone(&zone.name),
                region: Arc::clone(&course.name),
                progress_s: done.as_secs_f64(),
                of_s: over.as_secs_f64(),
                left: leaving,
            })
        });
        saved.collect()
    }

    /// Every region, by position.
    pub fn all(&self) -> impl Iterator<Item = At> {
        self.zones.iter().enumerate().flat_map(|(z, zone)| (0..zone.regions.len()).map(move |r| (z as u32, r as u8)))
    }

    /// All regions of a zone, by position.
    pub fn of_zone(&self, zone: u32) -> impl Iterator<Item = At> + use<> {
        (0..self.zones[zone as usize].regions.len()).map(move |region| (zone, region as u8))
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
            let zone = &mut self.zones[at.0 as usize];
            let course = &mut zone.regions[usize::from(at.1)];
            let Some(was) = course.up.replace(is) else {
                if is.contains(&true) && zone.night == Night::Dark {
                    zone.night = Night::Day;
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
                    if zone.night == Night::Dark {
                        zone.night = Night::Dawn(now);
                    }
                    let dawn = matches!(zone.night, Night::Dawn(since) if now < since + DAWN);
                    // The operator's word is meant at once.
                    if !dawn && !is_by_word(after.standing(at.0, at.1)) {
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
        for zone in touched.iter().map(|(zone, _)| *zone).collect::<BTreeSet<_>>() {
            let zone = &mut self.zones[zone as usize];
            if zone.regions.iter().all(|course| course.up.is_some_and(|up| !up.contains(&true))) {
                zone.night = Night::Dark;
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
    ) -> (Vec<(u32, u8, Standing)>, Vec<Step>) {
        let (mut standings, mut steps) = (vec![], vec![]);
        for at in touched {
            let (z, r) = at;
            let zone = &mut self.zones[z as usize];
            let least = zone.takes_over(snapshot, at);
            let course = &mut zone.regions[usize::from(r)];
            let word = around.words.region(&zone.name, &course.name);
            let from = course.mode;
            if let Some(ramp) = &mut course.ramp {
                // What leaves a region that has none but this to go to must find room here as fast as it leaves.
                ramp.raise(least);
            }
            course.advance(&word, || (around.condition)(at), now);
            if course.mode != from && course.is_worth_telling(from, now) {
                steps.push(Step { at, from, to: course.mode });
            }
            let region = &snapshot.zones()[z as usize].zone.regions[usize::from(r)];
            let servers = region.servers.iter().enumerate().filter_map(|(s, server)| {
                let addresses = Family::BOTH.into_iter().filter_map(|family| server.address(family));
                Some((s, around.words.server(&zone.name, addresses)?))
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
            if *snapshot.standing(z, r) != standing {
                standings.push((z, r, standing));
            }
        }
        (standings, steps)
    }
}

impl Zone {
    /// The least that a region on its way back must take: of each stream that it shares with a region that is leaving, and
    /// in which no region that is up takes all it gets, what has left that one.
    fn takes_over(&self, snapshot: &Snapshot, (zone, region): At) -> Share {
        let mask = |is: &dyn Fn(&Course) -> bool| {
            let marked = self.regions.iter().enumerate().filter(|(_, course)| is(course));
            marked.fold(0, |mask, (r, _)| mask | 1u64 << r)
        };
        let leaving = mask(&Course::is_leaving);
        if leaving == 0 || self.regions[usize::from(region)].ramp.is_none() {
            return Share::NONE;
        }
        let up = Family::BOTH.into_iter().fold(0, |mask, family| mask | snapshot.usable(zone, family));
        let whole = up & mask(&|course| course.mode == Mode::Steady);
        let streams = snapshot.zones()[zone as usize].zone.streams.iter();
        let streams =
            streams.map(|stream| stream.steering.regions.iter().fold(0, |mask, region| mask | 1u64 << region));
        let short = streams.filter(|uses| uses >> region & 1 == 1 && uses & whole == 0);
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

/// By family: whether enough servers are up, and what the zone's streams need is.
fn up(snapshot: &Snapshot, (zone, region): At) -> [bool; 2] {
    Family::BOTH.map(|family| snapshot.usable(zone, family) >> region & 1 == 1)
}
