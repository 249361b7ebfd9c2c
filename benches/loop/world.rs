//! Viewers, their resolvers and the regions they watch from, in virtual time.
//!
//! Every row of a [`RegionWorld`] has resolvers that tell where their viewers are, and shares one with its neighbours that
//! does not. Each resolver caches its answer for the TTL; some longer than they may, and some viewers keep an address for a
//! quarter of an hour (STEERING §1). Viewers come one by one, as Poisson's law has it, and stay for an exponential time.
//! A region that is lost loses its viewers; they ask again within seconds, until an answer leads them to one that lives.

use std::collections::HashMap;

use meridian::steering::pick::{self, Field, Mask, Open};
use meridian::steering::plan::Ranked;
use meridian::steering::solve::Table;

use super::random::Random;
use super::regions::{RegionWorld, normal, uniform};

/// Answers live for so long, s; and those that name a region that is nearly full.
pub const TTL: f64 = 20.0;
const BRIEF_TTL: f64 = 10.0;
/// Parts of a row's viewers behind resolvers of its own, of access networks.
const OWN: [f64; 3] = [0.30, 0.18, 0.10];
/// Part behind public resolvers that tell the block of each client (ECS) and cache by it: a row has so many blocks that
/// hardly two viewers of one come within a TTL.
const PUBLIC: f64 = 0.27;
/// Part behind a resolver that tells nothing, shared by what lies within a square of two degrees.
const SHARED: f64 = 0.13;
/// Part of the viewers who stay on an address for [`STAYING_S`].
const STAYING: f64 = 0.02;
const STAYING_S: f64 = 900.0;
/// Part of the resolvers that keep answers too long, and for how long, s.
const VIOLATORS: f64 = 0.09;
const EXTENDED_S: [f64; 3] = [60.0, 120.0, 300.0];
/// Who lost a region tries again within about this, s.
const RETURN_S: f64 = 12.0;

/// What answers are made of.
pub struct Answers<'a> {
    pub table: &'a Table,
    /// By region: its answers do not live long.
    pub brief: &'a [bool],
    /// Regions that are given to nobody.
    pub closed: Mask,
}

/// Viewers behind one cache.
struct Cache {
    row: u32,
    /// Starts/s while nothing is on.
    weight: f64,
    /// The same at each query, or another each time: of many blocks, or where nobody tells who asks.
    key: Option<u64>,
    /// Position in [`Viewers::shared`].
    shared: Option<u32>,
    /// Answers are kept for at least so long, s; `None`: no longer than for the viewers of a moment.
    least_s: Option<f64>,
    region: u8,
    expires: f64,
}

/// What happened within a step.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub starts: f64,
    /// Σ ms of the starts, and what they were had all gone to the nearest.
    pub ms: f64,
    pub nearest_ms: f64,
}

pub struct Viewers {
    pub now: f64,
    /// Mean length of a session, s.
    pub session_s: f64,
    /// Starts/s by row, by the resolver that they ask, while nothing is on.
    pub base: Vec<f64>,
    /// What is on: by row.
    pub factor: Vec<f64>,
    caches: Vec<Cache>,
    /// By shared resolver: mean ms to each region, and to the nearest of each viewer.
    shared: Vec<(Vec<f64>, f64)>,
    nearest: Vec<f64>,
    /// Row-major.
    sessions: Vec<f32>,
    /// Sessions by region.
    pub loads: Vec<f64>,
    /// Who lost a region, by cache; empty when there is nobody.
    lost: Vec<f32>,
    /// Queries of the step: row and who asked.
    pub queries: Vec<(u32, u64)>,
    dead: Mask,
    open: Open,
    random: Random,
}

impl Viewers {
    /// `starts`: starts/s in all. `settled`: where they are when it begins.
    pub fn new(world: &RegionWorld, starts: f64, session_s: f64, settled: &Table, seed: u64) -> Viewers {
        let mut random = Random::new(seed);
        let (rows, width) = (world.demand.len(), world.regions.len());
        let scale = starts / world.demand.iter().sum::<f64>();
        let cost = |row: usize, region: usize| world.cost(row, region as u8);
        let nearest: Vec<f64> =
            (0..rows).map(|row| (0..width).map(|r| cost(row, r)).fold(f64::INFINITY, f64::min)).collect();
        let mut caches = Vec::with_capacity(rows * 6);
        let mut squares: HashMap<u32, Vec<usize>> = HashMap::new();
        for (row, group) in world.groups.iter().enumerate() {
            squares.entry(*group).or_default().push(row);
            let of_row = |part: f64, least_s: Option<f64>, random: &mut Random| {
                let weight = part * scale * world.demand[row];
                let key = least_s.map(|_| random.next());
                Cache { row: row as u32, weight, key, shared: None, least_s, region: 0, expires: -1.0 }
            };
            for part in OWN {
                let least = least(&mut random);
                caches.push(of_row(part, least, &mut random));
            }
            caches.push(of_row(PUBLIC, None, &mut random));
            caches.push(of_row(STAYING, Some(STAYING_S), &mut random));
        }
        let mut squares: Vec<Vec<usize>> = squares.into_values().collect();
        squares.sort();
        let mut shared = vec![];
        for members in squares {
            let demand: f64 = members.iter().map(|&row| world.demand[row]).sum();
            let mean = |of: &dyn Fn(usize) -> f64| {
                members.iter().map(|&row| world.demand[row] * of(row)).sum::<f64>() / demand.max(f64::MIN_POSITIVE)
            };
            let costs = (0..width).map(|region| mean(&|row| cost(row, region))).collect();
            // It stands where most ask.
            let at = *members.iter().max_by(|a, b| world.demand[**a].total_cmp(&world.demand[**b])).expect("one");
            caches.push(Cache {
                row: at as u32,
                weight: SHARED * scale * demand,
                key: None,
                shared: Some(shared.len() as u32),
                least_s: least(&mut random),
                region: 0,
                expires: -1.0,
            });
            shared.push((costs, mean(&|row| nearest[row])));
        }
        let mut base = vec![0.0; rows];
        caches.iter().for_each(|cache| base[cache.row as usize] += cache.weight);
        let mut viewers = Viewers {
            now: 0.0,
            session_s,
            factor: vec![1.0; rows],
            shared,
            nearest,
            sessions: vec![0.0; rows * width],
            loads: vec![0.0; width],
            lost: vec![],
            queries: vec![],
            dead: 0,
            open: Open::all(width),
            base,
            caches,
            random,
        };
        // Answers of different ages, and sessions where the table sends them.
        let answers = Answers { table: settled, brief: &vec![false; width], closed: 0 };
        for at in 0..viewers.caches.len() {
            let ttl = viewers.caches[at].least_s.map_or(0.0, |least| TTL.max(least));
            viewers.ask(at, world, &answers);
            viewers.caches[at].expires = ttl * uniform(&mut viewers.random);
        }
        viewers.settle(settled);
        viewers
    }

    /// Sessions are as if all had been as it is now for long.
    pub fn settle(&mut self, table: &Table) {
        let width = self.loads.len();
        self.sessions.fill(0.0);
        self.loads.fill(0.0);
        for (row, mix) in table.rows().iter().enumerate() {
            for (region, part) in mix.parts() {
                let sessions = self.base[row] * self.factor[row] * self.session_s * part;
                self.sessions[row * width + usize::from(region)] += sessions as f32;
                self.loads[usize::from(region)] += sessions;
            }
        }
    }

    /// Starts/s by row as they are now.
    pub fn demand(&self) -> Vec<f64> {
        self.base.iter().zip(&self.factor).map(|(base, factor)| base * factor).collect()
    }

    /// A region dies, and with it what it serves.
    pub fn kill(&mut self, region: u8) {
        let width = self.loads.len();
        self.dead |= 1 << region;
        self.lost.resize(self.caches.len(), 0.0);
        for (cache, lost) in self.caches.iter().zip(&mut self.lost) {
            let (row, base) = (cache.row as usize, self.base[cache.row as usize]);
            if base > 0.0 {
                *lost += self.sessions[row * width + usize::from(region)] * (cache.weight / base) as f32;
            }
        }
        self.sessions.iter_mut().skip(usize::from(region)).step_by(width).for_each(|sessions| *sessions = 0.0);
        self.loads[usize::from(region)] = 0.0;
    }

    pub fn revive(&mut self, region: u8) {
        self.dead &= !(1 << region);
    }

    /// Who wants to watch and cannot.
    pub fn waiting(&self) -> f64 {
        self.lost.iter().map(|lost| f64::from(*lost)).sum()
    }

    /// Lets so many seconds pass.
    pub fn step(&mut self, seconds: f64, world: &RegionWorld, answers: &Answers<'_>) -> Tally {
        let width = self.loads.len();
        let stay = (-seconds / self.session_s).exp();
        self.sessions.iter_mut().for_each(|sessions| *sessions *= stay as f32);
        self.loads.iter_mut().for_each(|load| *load *= stay);
        self.queries.clear();
        let back = -(-seconds / RETURN_S).exp_m1();
        let mut tally = Tally::default();
        let mut left = 0.0;
        for at in 0..self.caches.len() {
            let cache = &self.caches[at];
            let row = cache.row as usize;
            let mut come = self.poisson(cache.weight * self.factor[row] * seconds);
            tally.starts += come;
            let cache = &self.caches[at];
            let starts = come;
            if !self.lost.is_empty() {
                let tries = f64::from(self.lost[at]) * back;
                self.lost[at] -= tries as f32;
                come += tries;
            }
            if come == 0.0 {
                continue;
            }
            // Of a few who try again it takes a while until one asks.
            if cache.expires <= self.now && (come >= 1.0 || uniform(&mut self.random) < come) {
                self.ask(at, world, answers);
            }
            let cache = &self.caches[at];
            let region = usize::from(cache.region);
            if cache.least_s.is_none() {
                // Each of the others asked for a block of its own.
                for _ in 1..come as u32 {
                    self.queries.push((cache.row, self.random.next()));
                }
            }
            let cache = &self.caches[at];
            if self.dead >> region & 1 == 1 {
                self.lost.resize(self.caches.len(), 0.0);
                self.lost[at] += come as f32;
                left += come;
                continue;
            }
            self.sessions[row * width + region] += come as f32;
            self.loads[region] += come;
            let (ms, nearest) = match cache.shared {
                Some(shared) => {
                    let (costs, nearest) = &self.shared[shared as usize];
                    (costs[region], *nearest)
                }
                None => (world.cost(row, region as u8), self.nearest[row]),
            };
            tally.ms += starts * ms;
            tally.nearest_ms += starts * nearest;
        }
        if left < 0.5 && self.dead == 0 {
            self.lost.clear();
        }
        self.now += seconds;
        tally
    }

    /// A query of a cache, answered.
    fn ask(&mut self, at: usize, world: &RegionWorld, answers: &Answers<'_>) {
        let cache = &mut self.caches[at];
        let row = cache.row as usize;
        // The address and port of a resolver that does not tell whom it asks for.
        let key = cache.key.unwrap_or_else(|| self.random.next());
        let who = if cache.shared.is_some() { (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) } else { key };
        let mut ranking = [Ranked { region: 0, answers: 2, weight: 1, tier_end: 0 }; 4];
        let mut count = 0;
        for (region, weight) in answers.table.row(row).iter() {
            ranking[count] = Ranked { region, weight, ..ranking[count] };
            count += 1;
        }
        let ranking = &mut ranking[..count];
        ranking.iter_mut().for_each(|ranked| ranked.tier_end = count as u8);
        let up = !answers.closed;
        let field = Field { up, declared: Mask::MAX, banned: 0, open: &self.open };
        let picked = if ranking.iter().any(|ranked| up >> ranked.region & 1 == 1) {
            pick::pick(ranking, pick::candidates(ranking, &field), &self.open, key).map(|pick| pick.ranked.region)
        } else {
            // Behind them the others follow by cost.
            world.rows.sorted(row).map(|(region, _)| region).find(|region| up >> region & 1 == 1)
        };
        cache.region = picked.unwrap_or(0);
        let ttl = if answers.brief[usize::from(cache.region)] { BRIEF_TTL } else { TTL };
        cache.expires = cache.least_s.map_or(self.now, |least| self.now + ttl.max(least));
        self.queries.push((cache.row, who));
    }

    fn poisson(&mut self, mean: f64) -> f64 {
        if mean > 30.0 {
            return (mean + mean.sqrt() * normal(&mut self.random)).round().max(0.0);
        }
        let mut left = uniform(&mut self.random);
        let mut chance = (-mean).exp();
        let mut count = 0.0;
        while left > chance && count < 200.0 {
            left -= chance;
            count += 1.0;
            chance *= mean / count;
        }
        count
    }
}

/// How long a resolver keeps an answer at least, s.
fn least(random: &mut Random) -> Option<f64> {
    Some(if uniform(random) < VIOLATORS { EXTENDED_S[random.below(EXTENDED_S.len())] } else { 0.0 })
}
