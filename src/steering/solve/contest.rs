//! Rows gathered for one neighbourhood of prices.
//!
//! At given prices most rows have one region that no other comes near: whatever the prices do within a few ms, such a
//! row is *settled*, and all settled rows of a region are one sum. Only *contested* rows have to be looked at again when
//! prices move a little, and of them only the regions that are near the best. So a solve reads the costs of all rows
//! about once, and a step of Newton's method costs a tenth of that.

use super::rows::{BARRED, REGIONS, Rows, unpack};
use super::table::{CANDIDATES, Mix, Table};
use crate::steering::key::mix as hash;

/// Regions costlier than the best by so many τ get nothing: e⁻⁹ is 0.01 %.
const REACH: f32 = 9.0;

/// What is solved for, without the supplies.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub rows: &'a Rows,
    /// Starts/s by row; finite, at least 0.
    pub demand: &'a [f64],
    /// Of as many rows as there are, or `None`.
    pub published: Option<&'a Table>,
    /// ms that a row wins by staying where it was published.
    pub stay: f32,
    /// Regions that take something.
    pub open: u64,
}

/// Rates, the dual value of the rows and its second derivatives, at some prices.
pub(super) struct Response {
    /// Starts/s by region.
    pub rates: [f64; REGIONS],
    /// Σ λ·softmin(cost + price), ms·starts/s.
    pub value: f64,
    /// Σ λ·π_a·π_b/τ of each two regions, row-major R×R, above the diagonal.
    pub coupling: Vec<f64>,
}

/// What a table made at the prices comes to.
pub(super) struct Outcome {
    /// Σ λ·x·cost of the open regions, the stay taken off, ms·starts/s.
    pub cost: f64,
    /// Starts/s by region of rows that an open region may take.
    pub rates: [f64; REGIONS],
    /// Σ λ·min(cost + price), ms·starts/s: the rows' part of the bound.
    pub bound: f64,
    /// Traffic whose regions were more than a row of the table holds, starts/s that had to go elsewhere.
    pub cut: f64,
}

/// Contested rows of at most `K` near regions. Regions that are missing have a cost of [`BARRED`].
struct Lists<const K: usize> {
    rows: Vec<u32>,
    demand: Vec<f64>,
    near: Vec<([f32; K], [u8; K])>,
}

pub(super) struct Contest {
    two: Lists<2>,
    four: Lists<4>,
    eight: Lists<8>,
    sixteen: Lists<16>,
    all: Lists<REGIONS>,
    settled: [f64; REGIONS],
    settled_cost: f64,
    /// Starts/s of rows that only closed regions could take: as if those were open.
    stranded: [f64; REGIONS],
    /// By row; those of contested rows are not valid before [`Contest::decide`].
    mixes: Vec<Mix>,
    centre: [f64; REGIONS],
    radius: f64,
    open: u64,
    floor: f64,
}

impl<const K: usize> Lists<K> {
    const EMPTY: Lists<K> = Lists { rows: vec![], demand: vec![], near: vec![] };

    fn clear(&mut self) {
        self.rows.clear();
        self.demand.clear();
        self.near.clear();
    }

    fn push(&mut self, row: usize, demand: f64, near: &[(f32, u8)]) {
        let (mut costs, mut regions) = ([BARRED; K], [0; K]);
        for (k, &(cost, region)) in near.iter().enumerate() {
            (costs[k], regions[k]) = (cost, region);
        }
        self.rows.push(row as u32);
        self.demand.push(demand);
        self.near.push((costs, regions));
    }

    fn respond(&self, prices: &[f32; REGIONS], tau: f32, regions: usize, curved: bool, out: &mut Response) {
        let per_tau = 1.0 / tau;
        for (&demand, (costs, at)) in self.demand.iter().zip(&self.near) {
            let (parts, best, sum) = soft(costs, at, prices, per_tau);
            out.value += demand * f64::from(best - tau * sum.ln());
            for k in 0..K {
                out.rates[usize::from(at[k])] += demand * f64::from(parts[k]);
            }
            if curved {
                let weight = demand * f64::from(per_tau);
                // Few of many near regions get anything, and pairs are many.
                let (mut some, mut count) = ([0; K], 0);
                for (k, &part) in parts.iter().enumerate() {
                    some[count] = k;
                    count += usize::from(K == 2 || part > 1e-5);
                }
                for (i, &a) in some[..count].iter().enumerate() {
                    let row = weight * f64::from(parts[a]);
                    for &b in &some[i + 1..count] {
                        let (low, high) = (at[a].min(at[b]), at[a].max(at[b]));
                        out.coupling[usize::from(low) * regions + usize::from(high)] += row * f64::from(parts[b]);
                    }
                }
            }
        }
    }

    fn decide(&self, prices: &[f32; REGIONS], tau: f32, mixes: &mut [Mix], out: &mut Outcome) {
        let least = (-REACH).exp();
        for ((&row, &demand), (costs, at)) in self.rows.iter().zip(&self.demand).zip(&self.near) {
            let (parts, best, _) = soft(costs, at, prices, 1.0 / tau);
            let top = parts.iter().copied().fold(0.0, f32::max);
            let near = (0..K).filter(|&k| parts[k] >= top * least);
            let mix = Mix::of(near.clone().map(|k| (at[k], f64::from(parts[k]))));
            if K > CANDIDATES && near.clone().count() > CANDIDATES {
                let whole: f64 = near.clone().map(|k| f64::from(parts[k])).sum();
                let kept: f64 = near.filter(|&k| mix.part(at[k]) > 0.0).map(|k| f64::from(parts[k])).sum();
                out.cut += demand * (whole - kept).max(0.0);
            }
            out.bound += demand * f64::from(best);
            for (region, part) in mix.parts() {
                out.rates[usize::from(region)] += demand * part;
                let cost = (0..K).find(|&k| at[k] == region && costs[k] < BARRED).map_or(0.0, |k| f64::from(costs[k]));
                out.cost += demand * part * cost;
            }
            mixes[row as usize] = mix;
        }
    }

    /// Keeps of each row as many regions as a row of the table holds. Which ones is drawn by their parts, from the row's
    /// number, so that many rows that like the same many regions do not all keep the same few.
    fn narrow(&mut self, prices: &[f32; REGIONS], tau: f32, into: &mut Lists<CANDIDATES>) {
        for ((&row, &demand), (costs, at)) in self.rows.iter().zip(&self.demand).zip(&self.near) {
            let (parts, ..) = soft(costs, at, prices, 1.0 / tau);
            let mut drawn: [(f32, usize); K] = std::array::from_fn(|k| {
                let uniform = (hash(u64::from(row) << 8 | u64::from(at[k])) >> 40) as f32 / (1u32 << 24) as f32;
                (if costs[k] < BARRED { parts[k] / (uniform + 1e-6) } else { -1.0 }, k)
            });
            drawn.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let mut near = [(0.0, 0); CANDIDATES];
            let mut count = 0;
            for &(_, k) in drawn[..CANDIDATES.min(K)].iter().filter(|&&(key, _)| key >= 0.0) {
                near[count] = (costs[k], at[k]);
                count += 1;
            }
            into.push(row as usize, demand, &near[..count]);
        }
        self.clear();
    }
}

impl Contest {
    pub fn new() -> Contest {
        Contest {
            two: Lists::EMPTY,
            four: Lists::EMPTY,
            eight: Lists::EMPTY,
            sixteen: Lists::EMPTY,
            all: Lists::EMPTY,
            settled: [0.0; REGIONS],
            settled_cost: 0.0,
            stranded: [0.0; REGIONS],
            mixes: vec![],
            centre: [0.0; REGIONS],
            radius: 0.0,
            open: 0,
            floor: 0.0,
        }
    }

    /// Gathers the rows around `prices`: valid for prices that differ from them by `radius` ms at most.
    pub fn gather(&mut self, view: View<'_>, prices: &[f64; REGIONS], tau: f32, radius: f64) {
        (self.centre, self.radius, self.open) = (*prices, radius, view.open);
        self.floor = least(prices, view.open);
        let window = REACH * tau + 2.0 * radius as f32;
        let shifted = self.shifted(prices);
        let regions = view.rows.regions();
        // By region: what is added to its cost. Closed ones are out of reach.
        let mut added = [BARRED; REGIONS];
        for region in 0..regions {
            if view.open >> region & 1 == 1 {
                added[region] = shifted[region];
            }
        }
        self.two.clear();
        self.four.clear();
        self.eight.clear();
        self.sixteen.clear();
        self.all.clear();
        self.settled = [0.0; REGIONS];
        self.settled_cost = 0.0;
        self.stranded = [0.0; REGIONS];
        self.mixes.clear();
        self.mixes.resize(view.rows.len(), Mix::EMPTY);

        let mut stay = [0.0f32; REGIONS];
        let mut seen = [(0.0f32, 0.0f32, 0u8); REGIONS];
        let mut near = [(0.0f32, 0u8); REGIONS];
        for row in 0..view.rows.len() {
            let demand = view.demand[row];
            let old = view.published.map_or(Mix::EMPTY, |table| *table.row(row));
            let mut most = 0.0f32;
            for (region, part) in old.parts() {
                // A table of more regions than there are now is not trusted.
                if usize::from(region) < regions {
                    let ms = view.stay * part as f32;
                    stay[usize::from(region)] = ms;
                    most = most.max(ms);
                }
            }
            let (mut best, mut count) = (f32::MAX, 0);
            'near: for words in view.rows.words(row) {
                for &word in words {
                    let (region, cost) = unpack(word);
                    // Prices are not below the floor, and costs only rise from here.
                    if cost - most > best + window {
                        break 'near;
                    }
                    let cost = cost - stay[usize::from(region)];
                    let sum = cost + added[usize::from(region)];
                    best = best.min(sum);
                    seen[count] = (sum, cost, region);
                    count += 1;
                }
            }
            for (region, _) in old.iter() {
                stay[usize::from(region) % REGIONS] = 0.0;
            }
            if best >= BARRED / 2.0 {
                if let Some((region, _)) = view.rows.sorted(row).next() {
                    self.mixes[row] = Mix::only(region);
                    self.stranded[usize::from(region)] += demand;
                }
                continue;
            }
            let mut kept = 0;
            for &(sum, cost, region) in &seen[..count] {
                near[kept] = (cost, region);
                kept += usize::from(sum <= best + window);
            }
            match kept {
                1 => {
                    let (cost, region) = near[0];
                    self.settled[usize::from(region)] += demand;
                    self.settled_cost += demand * f64::from(cost);
                    self.mixes[row] = Mix::only(region);
                }
                2 => self.two.push(row, demand, &near[..2]),
                3..=4 => self.four.push(row, demand, &near[..kept]),
                5..=8 => self.eight.push(row, demand, &near[..kept]),
                9..=16 => self.sixteen.push(row, demand, &near[..kept]),
                _ => self.all.push(row, demand, &near[..kept]),
            }
        }
    }

    /// Whether it was gathered for such prices.
    pub fn covers(&self, prices: &[f64; REGIONS]) -> bool {
        prices.iter().zip(&self.centre).all(|(a, b)| (a - b).abs() <= self.radius)
    }

    /// Rates and value at `prices`, and with `curved` the coupling of regions.
    pub fn respond(&self, prices: &[f64; REGIONS], tau: f32, regions: usize, curved: bool, out: &mut Response) {
        let shifted = self.shifted(prices);
        out.rates = [0.0; REGIONS];
        out.value = 0.0;
        if curved {
            out.coupling.clear();
            out.coupling.resize(regions * regions, 0.0);
        }
        self.two.respond(&shifted, tau, regions, curved, out);
        self.four.respond(&shifted, tau, regions, curved, out);
        self.eight.respond(&shifted, tau, regions, curved, out);
        self.sixteen.respond(&shifted, tau, regions, curved, out);
        self.all.respond(&shifted, tau, regions, curved, out);
        let contested: f64 = out.rates.iter().sum();
        out.value += contested * self.floor + self.settled_cost;
        for ((rate, &settled), &price) in out.rates.iter_mut().zip(&self.settled).zip(prices) {
            out.value += settled * price;
            *rate += settled;
        }
    }

    /// Settles every row at `prices`.
    pub fn decide(&mut self, prices: &[f64; REGIONS], tau: f32) -> Outcome {
        let shifted = self.shifted(prices);
        let mut out = Outcome { cost: 0.0, rates: [0.0; REGIONS], bound: 0.0, cut: 0.0 };
        let mixes = &mut self.mixes[..];
        self.two.decide(&shifted, tau, mixes, &mut out);
        self.four.decide(&shifted, tau, mixes, &mut out);
        self.eight.decide(&shifted, tau, mixes, &mut out);
        self.sixteen.decide(&shifted, tau, mixes, &mut out);
        self.all.decide(&shifted, tau, mixes, &mut out);
        let contested: f64 = out.rates.iter().sum();
        out.bound += contested * self.floor + self.settled_cost;
        out.cost += self.settled_cost;
        for (region, &settled) in self.settled.iter().enumerate() {
            out.bound += settled * prices[region];
            out.rates[region] += settled;
        }
        out
    }

    /// Leaves each row as many regions as a row of the table holds; from then on [`Contest::covers`] every price, as
    /// which regions a row has is no longer a matter of prices.
    pub fn narrow(&mut self, prices: &[f64; REGIONS], tau: f32) {
        let shifted = self.shifted(prices);
        self.eight.narrow(&shifted, tau, &mut self.four);
        self.sixteen.narrow(&shifted, tau, &mut self.four);
        self.all.narrow(&shifted, tau, &mut self.four);
        self.radius = f64::INFINITY;
    }

    /// The table that was decided.
    pub fn table(&self) -> Table {
        Table::new(self.mixes.clone())
    }

    /// Starts/s by region of rows that only closed regions could take.
    pub fn stranded(&self) -> &[f64; REGIONS] {
        &self.stranded
    }

    /// Prices above that of the cheapest open region: small numbers, as only differences of prices choose regions.
    fn shifted(&self, prices: &[f64; REGIONS]) -> [f32; REGIONS] {
        std::array::from_fn(|region| (prices[region] - self.floor) as f32)
    }
}

fn least(prices: &[f64; REGIONS], open: u64) -> f64 {
    let open = (0..REGIONS).filter(|region| open >> region & 1 == 1);
    open.map(|region| prices[region]).reduce(f64::min).unwrap_or(0.0)
}

/// Parts of the regions, and the best sum with what the parts were divided by.
#[inline]
fn soft<const K: usize>(costs: &[f32; K], at: &[u8; K], prices: &[f32; REGIONS], per_tau: f32) -> ([f32; K], f32, f32) {
    let mut sums = [0.0f32; K];
    for k in 0..K {
        sums[k] = costs[k] + prices[usize::from(at[k]) % REGIONS];
    }
    let best = sums.iter().copied().fold(f32::MAX, f32::min);
    for sum in &mut sums {
        *sum = exp((best - *sum) * per_tau);
    }
    let whole: f32 = sums.iter().sum();
    let scale = 1.0 / whole;
    for sum in &mut sums {
        *sum *= scale;
    }
    (sums, best, whole)
}

/// e^x for x ≤ 0, to 4e-6 of it where that matters (x > −9); 1e-18 and less are all 1e-18. Without branches, so that several are worked out at once.
#[inline]
fn exp(x: f32) -> f32 {
    /// 1.5·2²³: added to a small number it leaves its whole part in the last bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-41.0) * std::f32::consts::LOG2_E;
    let rounded = x + ROUND;
    let rest = x - (rounded - ROUND);
    let mut power = 0.001_333_355_8_f32;
    for coefficient in [0.009_618_13, 0.055_504_11, 0.240_226_5, std::f32::consts::LN_2, 1.0] {
        power = power * rest + coefficient;
    }
    power * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_exact_enough() {
        for i in 0..40_000 {
            let x = -(i as f32) / 1000.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < if x > -9.0 { 4e-6 } else { 1e-5 }, "{x}");
        }
        for x in [f32::NEG_INFINITY, -BARRED, f32::NAN] {
            assert!((0.0..1e-17).contains(&exp(x)), "{x}");
        }
    }
}
