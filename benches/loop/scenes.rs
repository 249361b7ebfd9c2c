//! What happens in a world, and what becomes of it.

use std::time::{Duration, Instant};

use meridian::pilot::course::Condition;
use meridian::steering::pick::Mask;
use meridian::steering::solve::{Problem, Solver, Supply, Table};

use super::random::Random;
use super::regions::{RegionWorld, normal};
use super::ways::{Nearest, Prices, Seen, Spill, Way};
use super::world::{Answers, Viewers};

/// Part of all demand that an event concerns, and what it is multiplied with at its height.
const EVENT_PART: f64 = 0.12;
const EVENT_TIMES: f64 = 3.0;
/// An event grows for so long, and stays for so long, s.
const EVENT_GROWS: f64 = 600.0;
const EVENT_STAYS: f64 = 2400.0;
/// Amplitude of a day's demand, and the hour of local solar time when it is highest.
const DAY_SWING: f64 = 0.7;
const DAY_PEAK: f64 = 20.5;
/// A region that comes back takes a tenth at first, and all after so long, s.
const RAMP_S: f64 = 300.0;
/// Probes have to succeed for so long before it is up again, s.
const PROBED_S: f64 = 5.0;
/// Reports differ from the truth by this (standard deviation).
const REPORT_NOISE: f64 = 0.003;
/// Series have a point every so often, s.
pub const EVERY: f64 = 10.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Demand {
    Steady,
    /// A day, from 0:00 UTC.
    Day,
    /// An event around the busiest region that starts at the end of the warm-up.
    Event,
}

/// How viewers are steered.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub enum What {
    Prices,
    /// By prices, where regions report session starts besides their sessions
    Told,
    Nearest,
    /// To the nearest that is not full
    Spill,
}

/// A scenario. Times are s; those of events count from the end of the warm-up.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    pub name: &'static str,
    pub demand: Demand,
    /// All demand at its highest, of all capacity.
    pub load: f64,
    /// Mean length of a session, s. Regions do not tell it.
    pub session_s: f64,
    pub seconds: f64,
    /// How long all settles before anything counts.
    pub warm: f64,
    pub step: f64,
    /// Demand of every row in each step differs by this, and round-trip times by so many ms (standard deviations).
    pub noise: (f64, f64),
    /// The region with most sessions is lost, and comes back.
    pub lost: Option<(f64, f64)>,
    /// Nobody reports.
    pub silent: Option<(f64, f64)>,
}

impl Scene {
    pub const QUIET: Scene = Scene {
        name: "",
        demand: Demand::Steady,
        load: 0.7,
        session_s: 1200.0,
        seconds: 1200.0,
        warm: 900.0,
        step: 1.0,
        noise: (0.0, 0.0),
        lost: None,
        silent: None,
    };
}

/// At one time of a run.
#[derive(Clone, Debug, Default)]
pub struct Point {
    /// s since the end of the warm-up.
    pub at: f64,
    pub utilisation: Vec<f64>,
    /// Part of the traffic that was re-pointed within the last minute.
    pub moved: f64,
    /// Mean ms more than to the nearest.
    pub extra_ms: f64,
}

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub worst: f64,
    /// Mean ms more than if all had gone to the nearest.
    pub extra_ms: f64,
    /// Parts of the traffic that were sent elsewhere: a step on average and at most, within a minute at most. What a lost
    /// region leaves to nobody's choice is not counted.
    pub moved_step: f64,
    pub moved_most: f64,
    pub moved_minute: f64,
    /// Viewer-minutes above capacity, a viewer of the mean audience.
    pub overload: f64,
    /// Seconds from a loss until all but a twentieth of those who lost their region watch again. One in fifty keeps the address
    /// for a quarter of an hour.
    pub back_s: f64,
    /// The worst certificate.
    pub gap: f64,
    pub series: Vec<Point>,
}

/// Starts/s in a world of 40,000 rows: twelve million viewers at any time.
pub const STARTS: f64 = 10_000.0;

/// What is on: by row.
struct Program {
    demand: Demand,
    /// By row: whether the event is about it.
    concerned: Vec<bool>,
    /// By row: solar time at 0:00 UTC, hours.
    local: Vec<f64>,
}

impl Program {
    fn new(world: &RegionWorld, demand: Demand) -> Program {
        let busiest = busiest(&world.demand, world);
        let mut near: Vec<usize> = (0..world.demand.len()).collect();
        near.sort_by(|a, b| {
            let km = |row: &usize| world.places[*row].distance_km(world.regions[busiest]);
            km(a).total_cmp(&km(b))
        });
        let all: f64 = world.demand.iter().sum();
        let (mut sum, mut concerned) = (0.0, vec![false; near.len()]);
        for row in near {
            if sum < EVENT_PART * all {
                sum += world.demand[row];
                concerned[row] = true;
            }
        }
        Program { demand, concerned, local: world.places.iter().map(|place| place.lon() / 15.0).collect() }
    }

    fn factors(&self, at: f64, factors: &mut [f64]) {
        match self.demand {
            Demand::Steady => factors.fill(1.0),
            Demand::Day => {
                for (factor, local) in factors.iter_mut().zip(&self.local) {
                    let hour = at / 3600.0 + local - DAY_PEAK;
                    *factor = 1.0 + DAY_SWING * (hour / 24.0 * std::f64::consts::TAU).cos();
                }
            }
            Demand::Event => {
                let rise = (at / EVENT_GROWS).clamp(0.0, 1.0);
                let fall = ((at - EVENT_GROWS - EVENT_STAYS) / EVENT_GROWS).clamp(0.0, 1.0);
                let times = 1.0 + (EVENT_TIMES - 1.0) * (rise - fall);
                for (factor, concerned) in factors.iter_mut().zip(&self.concerned) {
                    *factor = if *concerned { times } else { 1.0 };
                }
            }
        }
    }

    /// The highest sum of base × factor, starts/s.
    fn highest(&self, base: &[f64]) -> f64 {
        let mut factors = vec![1.0; base.len()];
        let hours: Vec<f64> = match self.demand {
            Demand::Steady => vec![0.0],
            Demand::Day => (0..48).map(|half| f64::from(half) * 1800.0).collect(),
            Demand::Event => vec![EVENT_GROWS + 1.0],
        };
        let sum = |at: f64| {
            self.factors(at, &mut factors);
            base.iter().zip(&factors).map(|(base, factor)| base * factor).sum()
        };
        hours.into_iter().map(sum).fold(0.0, f64::max)
    }
}

/// The region that most are nearest to.
fn busiest(demand: &[f64], world: &RegionWorld) -> usize {
    let count = world.regions.len();
    let mut sums = vec![0.0; count];
    for (row, demand) in demand.iter().enumerate() {
        let best = (0..count as u8).min_by(|a, b| world.cost(row, *a).total_cmp(&world.cost(row, *b)));
        sums[usize::from(best.unwrap_or(0))] += demand;
    }
    (0..count).max_by(|a, b| sums[*a].total_cmp(&sums[*b])).unwrap_or(0)
}

/// The plan that all settles to.
fn settled(world: &RegionWorld, demand: &[f64], capacities: &[f64], session_s: f64) -> Table {
    let of = |capacity: &f64| Supply { dwell: session_s, ..Supply::of(Some(*capacity)) };
    let supply: Vec<Supply> = capacities.iter().map(of).collect();
    let problem =
        Problem { rows: &world.rows, demand, extra: None, supply: &supply, published: None, horizon: f64::INFINITY };
    Solver::new().solve(&problem).table
}

/// Runs a scene in a world, steered in one way.
pub fn run(world: &mut RegionWorld, scene: &Scene, what: What) -> Outcome {
    let rows = world.demand.len();
    let start = Instant::now();
    let at = |now: f64| start + Duration::from_secs_f64(now);
    let starts = STARTS * rows as f64 / 40_000.0;
    let program = Program::new(world, scene.demand);
    let mut factors = vec![1.0; rows];
    program.factors(-scene.warm, &mut factors);
    let nearest = Nearest::new(world);
    let mut viewers = Viewers::new(world, starts, scene.session_s, nearest.table(), 7);
    let audience = program.highest(&viewers.base) * scene.session_s;
    let all: f64 = world.capacity.iter().sum();
    let capacities: Vec<f64> = world.capacity.iter().map(|k| k / all * audience / scene.load).collect();
    viewers.factor.clone_from(&factors);
    let demand = viewers.demand();
    let mut way: Box<dyn Way> = match what {
        What::Nearest => Box::new(nearest),
        What::Spill => Box::new(Spill::new(world, &capacities)),
        What::Prices | What::Told => {
            let mut way = Prices::new(world, &capacities, &demand, start);
            way.told_starts = what == What::Told;
            Box::new(way)
        }
    };
    match what {
        What::Nearest => viewers.settle(way.table()),
        _ => viewers.settle(&settled(world, &demand, &capacities, scene.session_s)),
    }
    let mut random = Random::new(11);
    let mut watch = Watch::new(capacities.len());
    let mut outcome = Outcome::default();
    let (mut ms, mut counted, mut steps, mut moved_sum, mut audience_sum) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let minute = (60.0 / scene.step).round() as usize;
    let mut moves: Vec<f64> = vec![];
    let mut next_point = 0.0;
    let mut point_ms = (0.0, 0.0);
    loop {
        let now = viewers.now - scene.warm;
        if now >= scene.seconds {
            break;
        }
        program.factors(now, &mut factors);
        viewers.factor.clone_from(&factors);
        if scene.noise.0 > 0.0 {
            viewers
                .factor
                .iter_mut()
                .for_each(|factor| *factor *= (1.0 + scene.noise.0 * normal(&mut random)).max(0.0));
        }
        // What dies is known to be dead a step later.
        watch.turn(now, scene, &mut viewers, &mut *way);
        let before = viewers.loads.clone();
        let answers = Answers { table: way.table(), brief: way.brief(), closed: watch.condition.closed };
        let tally = viewers.step(scene.step, world, &answers);
        let old = way.table().clone();
        let heard = at(viewers.now);
        let is_silent = scene.silent.is_some_and(|(from, to)| (from..to).contains(&now));
        for (region, &had) in before.iter().enumerate() {
            if is_silent || !watch.speaks(region) {
                continue;
            }
            let told = if scene.step > 1.0 { viewers.loads[region] } else { had };
            let begun = viewers.loads[region] - had * (-scene.step / scene.session_s).exp();
            let noise = 1.0 + REPORT_NOISE * normal(&mut random);
            way.hear(region, told * noise, (begun / scene.step).max(0.0), heard);
        }
        let newly = watch.verdicts();
        if scene.noise.1 > 0.0 {
            way.reprice(world.noisy_rows(scene.noise.1));
        }
        if newly != 0 {
            way.react(watch.condition.closed);
        }
        way.step(&Seen { now: heard, condition: watch.condition.clone(), queries: &viewers.queries });

        let demand = viewers.demand();
        let total: f64 = demand.iter().sum();
        let forced: f64 = (0..64u8)
            .filter(|region| newly >> region & 1 == 1)
            .map(|region| old.rows().iter().zip(&demand).map(|(mix, demand)| mix.part(region) * demand).sum::<f64>())
            .sum();
        let moved = (old.moved(way.table(), &demand) - forced).max(0.0) / total;
        let utilisation: Vec<f64> = viewers.loads.iter().zip(&capacities).map(|(load, k)| load / k).collect();
        moves.push(moved);
        let of_minute: f64 = moves.iter().rev().take(minute).sum();
        if now >= 0.0 {
            steps += 1.0;
            moved_sum += moved;
            outcome.moved_most = outcome.moved_most.max(moved);
            if moves.len() > minute && now >= 60.0 {
                outcome.moved_minute = outcome.moved_minute.max(of_minute);
            }
            outcome.worst = utilisation.iter().copied().fold(outcome.worst, f64::max);
            ms += tally.ms - tally.nearest_ms;
            counted += tally.starts;
            let over: f64 = viewers.loads.iter().zip(&capacities).map(|(load, k)| (load - k).max(0.0)).sum();
            outcome.overload += over * scene.step / 60.0;
            audience_sum += viewers.loads.iter().sum::<f64>();
            if let Some((_, died, lost)) = watch.lost
                && outcome.back_s == 0.0
                && viewers.waiting() < 0.05 * lost
            {
                outcome.back_s = now + scene.step - died;
            }
            outcome.gap = outcome.gap.max(way.gap());
        }
        point_ms = (point_ms.0 + tally.ms - tally.nearest_ms, point_ms.1 + tally.starts);
        if now >= next_point {
            next_point = now + EVERY.max(scene.step);
            let extra_ms = point_ms.0 / f64::max(point_ms.1, 1.0);
            point_ms = (0.0, 0.0);
            outcome.series.push(Point { at: now, utilisation, moved: of_minute, extra_ms });
        }
    }
    outcome.extra_ms = ms / f64::max(counted, 1.0);
    outcome.moved_step = moved_sum / f64::max(steps, 1.0);
    outcome.overload /= f64::max(audience_sum / f64::max(steps, 1.0), 1.0);
    outcome
}

/// What lives, and what is known to.
struct Watch {
    condition: Condition,
    /// The region that is lost or was, when that was, and how many viewers it had.
    lost: Option<(u8, f64, f64)>,
    dead: bool,
}

impl Watch {
    fn new(regions: usize) -> Watch {
        Watch { condition: Condition { closed: 0, down: 0, parts: vec![1.0; regions] }, lost: None, dead: false }
    }

    /// Regions die and come back when it is time.
    fn turn(&mut self, now: f64, scene: &Scene, viewers: &mut Viewers, way: &mut dyn Way) {
        let Some((dies, back)) = scene.lost else { return };
        if now >= dies && self.lost.is_none() {
            // The server prepares ten tables a second, the most loaded regions first.
            (0..9).for_each(|_| way.prepare());
            let busiest = (0..viewers.loads.len()).max_by(|a, b| viewers.loads[*a].total_cmp(&viewers.loads[*b]));
            let busiest = busiest.unwrap_or(0);
            self.lost = Some((busiest as u8, now, viewers.loads[busiest]));
            self.dead = true;
            viewers.kill(busiest as u8);
        }
        if let Some((region, ..)) = self.lost
            && now >= back - PROBED_S
        {
            if std::mem::take(&mut self.dead) {
                viewers.revive(region);
            }
            if now < back {
                return;
            }
            (self.condition.closed, self.condition.down) = (0, 0);
            self.condition.parts[usize::from(region)] = ((now - back) / RAMP_S).clamp(0.1, 1.0);
        }
    }

    /// Takes note of who has died; gives those of whom that is news.
    fn verdicts(&mut self) -> Mask {
        let Some((region, ..)) = self.lost.filter(|_| self.dead) else { return 0 };
        let news = 1 << region & !self.condition.closed;
        self.condition.closed |= news;
        self.condition.down |= news;
        self.condition.parts[usize::from(region)] = 0.0;
        news
    }

    fn speaks(&self, region: usize) -> bool {
        !(self.dead && self.lost.is_some_and(|(lost, ..)| usize::from(lost) == region))
    }
}
