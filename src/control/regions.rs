//! What every region is going through: its ramp, the operator's word on it, and the standing that follows.
//!
//! Regions are known by the names of zone and region, so a reload loses nothing of them. Time is passed in.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::settings::{Family, Region};
use crate::orders::Words;
use crate::snapshot::Snapshot;
use crate::snapshot::standing::{Forced, Mode, Share, Standing};
use crate::state::verdicts::Ramp as SavedRamp;
use crate::steering::ramp::Ramp;

/// Zone and region by position.
pub type At = (u32, u8);

#[derive(Default)]
pub struct Regions {
    zones: Vec<Zone>,
    /// Those to look at again as time passes.
    moving: BTreeSet<At>,
}

struct Zone {
    name: Arc<str>,
    regions: Vec<Course>,
}

struct Course {
    name: Arc<str>,
    over: Duration,
    ramp: Option<Ramp>,
    /// What held of it last, which a snapshot just compiled does not know.
    mode: Mode,
    share: Share,
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

/// What is known of regions besides verdicts.
pub struct Surroundings<'a> {
    pub words: &'a Words<'a>,
    /// Whether what is believed of its servers may soon be something else.
    pub uncertain: &'a dyn Fn(At) -> bool,
    /// Whether it does as well as before it fell.
    pub well: &'a dyn Fn(At) -> bool,
}

impl Regions {
    /// Those of a snapshot; ramps of regions that stay go on.
    pub fn replace(&mut self, snapshot: &Snapshot) {
        let mut known: HashMap<(Arc<str>, Arc<str>), Course> = HashMap::new();
        for Zone { name, regions } in self.zones.drain(..) {
            known.extend(regions.into_iter().map(|course| ((Arc::clone(&name), Arc::clone(&course.name)), course)));
        }
        for served in snapshot.zones() {
            let name = served.zone.label();
            let course = |region: &Region| {
                let known = known.remove(&(Arc::clone(&name), Arc::clone(&region.name)));
                let (ramp, mode, share) =
                    known.map_or((None, Mode::Steady, Share::FULL), |c| (c.ramp, c.mode, c.share));
                Course { name: Arc::clone(&region.name), over: region.ramp, ramp, mode, share }
            };
            let regions = served.zone.regions.iter().map(course).collect();
            self.zones.push(Zone { name, regions });
        }
        self.moving = self.all().collect();
    }

    /// Goes on with ramps that were under way before a restart.
    pub fn resume(&mut self, saved: &[SavedRamp], now: Instant) {
        for zone in &mut self.zones {
            for course in &mut zone.regions {
                let same = |ramp: &&SavedRamp| ramp.zone == zone.name && ramp.region == course.name;
                if let Some(ramp) = saved.iter().find(same) {
                    let part = (ramp.progress_s / ramp.of_s).clamp(0.0, 1.0);
                    let done = if part.is_finite() { course.over.mul_f64(part) } else { Duration::ZERO };
                    course.ramp = Some(Ramp::resume(course.over, done, now)).filter(|ramp| !ramp.is_done());
                }
            }
        }
    }

    /// The ramps under way, to be kept over a restart.
    pub fn ramps(&self) -> Vec<SavedRamp> {
        let courses = self.zones.iter().flat_map(|zone| zone.regions.iter().map(move |course| (zone, course)));
        let saved = courses.filter_map(|(zone, course)| {
            let ramp = course.ramp?;
            Some(SavedRamp {
                zone: Arc::clone(&zone.name),
                region: Arc::clone(&course.name),
                progress_s: ramp.done().as_secs_f64(),
                of_s: ramp.over().as_secs_f64(),
            })
        });
        saved.collect()
    }

    /// Every region, by position.
    pub fn all(&self) -> impl Iterator<Item = At> {
        self.zones.iter().enumerate().flat_map(|(z, zone)| (0..zone.regions.len()).map(move |r| (z as u32, r as u8)))
    }

    /// Those that change as time passes.
    pub fn moving(&self) -> impl Iterator<Item = At> {
        self.moving.iter().copied()
    }

    pub fn is_moving(&self) -> bool {
        !self.moving.is_empty()
    }

    /// Begins the ramps of regions that came back, and drops those of regions that went down. A region came back when it
    /// was up for no type of address and is up for one. The flips, and whether a ramp began: then the standings have to be
    /// asked for again.
    pub fn follow(
        &mut self,
        before: &Snapshot,
        after: &Snapshot,
        touched: &BTreeSet<At>,
        now: Instant,
    ) -> (Vec<Flip>, bool) {
        let (mut flips, mut began) = (vec![], false);
        for &at in touched {
            let (was, is) = (up(before, at), up(after, at));
            for family in Family::BOTH {
                if was[family as usize] != is[family as usize] {
                    flips.push(Flip { at, family, up: is[family as usize] });
                }
            }
            let course = self.course(at);
            match (was.contains(&true), is.contains(&true)) {
                // The operator's word is meant at once.
                (false, true) if after.standing(at.0, at.1).forced != Some(Forced::Up) => {
                    course.begin(Share::NONE, now);
                    began |= course.ramp.is_some();
                }
                (true, false) => course.ramp = None,
                _ => {}
            }
        }
        (flips, began)
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
            let served = &snapshot.zones()[z as usize];
            let zone = Arc::clone(&self.zones[z as usize].name);
            let course = self.course(at);
            let word = around.words.region(&zone, &course.name);
            if word.left.is_none() && matches!(course.mode, Mode::Draining | Mode::Drained) {
                // Taken back, or over: the region goes on from what was left of its share.
                course.begin(course.share, now);
            }
            if let Some(ramp) = &mut course.ramp {
                ramp.advance((around.well)(at), now);
                if ramp.is_done() {
                    course.ramp = None;
                }
            }
            let ramp = course.ramp.as_ref();
            let mode = match (word.left, ramp) {
                (Some(left), _) if left > 0.0 => Mode::Draining,
                (Some(_), _) => Mode::Drained,
                (None, Some(ramp)) if ramp.is_frozen() => Mode::Frozen,
                (None, Some(_)) => Mode::Ramping,
                (None, None) => Mode::Steady,
            };
            let drained = word.left.map_or(Share::FULL, Share::of);
            let servers = served.zone.regions[usize::from(r)].servers.iter().enumerate().filter_map(|(s, server)| {
                let addresses = Family::BOTH.into_iter().filter_map(|family| server.address(family));
                Some((s, around.words.server(&zone, addresses)?))
            });
            let standing = Standing {
                share: ramp.map_or(Share::FULL, Ramp::share).min(drained),
                mode,
                forced: word.forced,
                servers: servers.collect(),
                uncertain: (around.uncertain)(at),
            };
            let from = std::mem::replace(&mut course.mode, mode);
            if from != mode {
                steps.push(Step { at, from, to: mode });
            }
            course.share = standing.share;
            let moves = standing.uncertain || matches!(mode, Mode::Draining | Mode::Ramping | Mode::Frozen);
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

    fn course(&mut self, (zone, region): At) -> &mut Course {
        &mut self.zones[zone as usize].regions[usize::from(region)]
    }
}

impl Course {
    fn begin(&mut self, share: Share, now: Instant) {
        self.ramp = Some(Ramp::begin(self.over, share, now)).filter(|ramp| !ramp.is_done());
    }
}

/// By family.
fn up(snapshot: &Snapshot, (zone, region): At) -> [bool; 2] {
    let (_, state) = snapshot.fleet(zone);
    Family::BOTH.map(|family| state.up(family) >> region & 1 == 1)
}
