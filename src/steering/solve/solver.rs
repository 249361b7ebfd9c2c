//! The search for prices: projected Newton on the dual.
//!
//! The dual of the assignment problem is concave in the prices; its slope is what each region gets too much. Choices of
//! rows are softened by a temperature τ, so that it is smooth: x ∝ exp(−(cost + price)/τ). A step solves J·d = g, with J
//! the coupling of regions by contested rows and the slopes of the supplies, over the regions whose price may move; it is
//! shortened until the dual has risen. Where that fails (a kink of the curve, rounding) a step by the diagonal alone,
//! and at last a bisection of the worst price, take its place. Every price gives a valid plan, so whenever the search ends there is one.

use super::contest::{Contest, Response, View};
use super::newton;
use super::rows::{REGIONS, Rows};
use super::supply::{Line, MAX_PRICE, Supply, door};
use super::{Table, curve};

/// What a row wins by staying where it is published, ms.
pub const STAY_MS: f32 = 5.0;

/// Softness of choices in a plan, ms.
const TAU: f32 = 0.5;
/// Softness of the coarse solves before a cold one, ms.
const COARSE: [f32; 2] = [4.0, 1.0];
/// Done when what all regions get too much or too little is below this part of all demand …
const WRONG_IN_ALL: f64 = 0.001;
/// … and for each region below this part of its capacity.
const WRONG_IN_ONE: f64 = 0.005;
/// How much less exact coarse solves are.
const COARSE_ERROR: f64 = 10.0;
/// Steps, at most, of one temperature. Warm solves take two to six.
const STEPS: u32 = 60;
/// Times that all rows are gathered, at most, at one temperature …
const GATHERS: usize = 16;
/// … or rows gathered, if that is more: it is time that is bounded.
const GATHERED: usize = 300_000;
/// A step changes no price by more, ms, unless prices are that high.
const STEP_MS: f64 = 200.0;
/// What is left of a step that was too long, by where its slopes say that the dual is highest.
const SHORTER: (f64, f64) = (0.05, 0.6);
/// Shortenings at most.
const TRIALS: u32 = 8;
/// Bisections of one price, at most.
const BISECTIONS: u32 = 12;
/// Rows that wanted more regions than a table holds are solved again if they carry more than this part of all demand.
const CUT: f64 = 0.0005;

/// What to solve.
#[derive(Clone, Copy)]
pub struct Problem<'a> {
    pub rows: &'a Rows,
    /// λ, starts/s by row. What is missing, negative or not a number is 0; above [`super::supply::MOST`] it is that.
    pub demand: &'a [f64],
    /// Starts/s by row on top of it, as viewers who come back after a loss ([`super::loss::returning`]).
    pub extra: Option<&'a [f64]>,
    /// By region; those missing are closed, those beyond the regions of `rows` are ignored.
    pub supply: &'a [Supply],
    /// x⁰. Ignored if it is not of as many rows.
    pub published: Option<&'a Table>,
    /// h, s: for when the load is predicted. Infinite: for when it has settled.
    pub horizon: f64,
}

/// How far the plan can be from the best, ms·starts/s.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Certificate {
    /// What the table comes to: its latency, and what full regions cost.
    pub primal: f64,
    /// No plan comes to less.
    pub dual: f64,
    /// (primal − dual) / dual.
    pub gap: f64,
}

#[derive(Clone, Debug)]
pub struct Solution {
    /// ms by region; 0 for closed and for unlimited regions.
    pub prices: Vec<f64>,
    pub table: Table,
    pub certificate: Certificate,
    /// By region, at the horizon; `None` without a capacity.
    pub utilisation: Vec<Option<f64>>,
    /// Starts/s by region that the table sends there, without the fixed ones.
    pub rates: Vec<f64>,
    /// Steps of the search, coarse ones included.
    pub iterations: u32,
    /// Whether the rates are as near to the supplies as is asked; if not, the plan is the best one found, and the
    /// certificate tells how good.
    pub converged: bool,
    /// Whether it was solved from coarse to fine.
    pub cold: bool,
}

/// Solves the same problem again and again as it changes; holds the last prices, and its memory.
pub struct Solver {
    prices: [f64; REGIONS],
    /// Of the last solve: number of regions and which were open. `None` before the first.
    topology: Option<(usize, u64)>,
    search: Search,
}

/// The regions of a problem, checked.
pub(super) struct Regions {
    pub count: usize,
    /// Those that take something; all if none would.
    pub open: u64,
    /// Of those that have a price.
    pub lines: [Option<Line>; REGIONS],
}

/// Memory of a search.
pub(super) struct Search {
    pub contest: Contest,
    now: Response,
    next: Response,
    matrix: Vec<f64>,
    demand: Vec<f64>,
    group_demand: Vec<f64>,
}

/// What a search came to.
#[derive(Clone, Copy)]
struct Found {
    steps: u32,
    converged: bool,
}

impl Default for Solver {
    fn default() -> Solver {
        Solver::new()
    }
}

impl Solver {
    pub fn new() -> Solver {
        Solver { prices: [0.0; REGIONS], topology: None, search: Search::new() }
    }

    /// Makes the next solve a cold one.
    pub fn forget(&mut self) {
        self.topology = None;
    }

    /// Solves from the last prices; cold if there are none, or if regions were opened or closed since. Takes a bounded
    /// number of steps, whatever the numbers are.
    pub fn solve(&mut self, problem: &Problem<'_>) -> Solution {
        let regions = Regions::of(problem);
        let cold = self.topology != Some((regions.count, regions.open));
        let known = self.topology.is_some_and(|(count, _)| count == regions.count);
        self.topology = Some((regions.count, regions.open));
        self.search.load(problem);
        if !known {
            self.prices = [0.0; REGIONS];
        }
        let before = self.prices;
        let solution = self.search.whole(&regions, problem, cold, &mut self.prices);
        if cold || solution.converged {
            return solution;
        }
        // Prices are far from what they were, and from coarse to fine the way there is shorter.
        let mut prices = before;
        let anew = self.search.whole(&regions, problem, true, &mut prices);
        if anew.certificate.gap > solution.certificate.gap {
            return solution;
        }
        self.prices = prices;
        anew
    }

    /// Prices of the last solve, ms by region.
    pub(super) fn prices(&self) -> &[f64; REGIONS] {
        &self.prices
    }
}

impl Regions {
    pub fn of(problem: &Problem<'_>) -> Regions {
        Regions::without(problem, None)
    }

    /// As if one region were closed.
    pub fn without(problem: &Problem<'_>, lost: Option<usize>) -> Regions {
        let count = problem.rows.regions();
        let supply = |region: usize| problem.supply.get(region);
        let bits = |is: &dyn Fn(usize) -> bool| (0..count).filter(|&r| is(r)).fold(0u64, |bits, r| bits | 1 << r);
        let open = bits(&|r| Some(r) != lost && supply(r).is_some_and(Supply::is_open));
        // As if all were open, which leaves those without any capacity unlimited.
        let open = if open == 0 { bits(&|_| true) } else { open };
        let mut lines = [None; REGIONS];
        for (region, line) in lines.iter_mut().enumerate().take(count) {
            if open >> region & 1 == 1 {
                *line = supply(region).and_then(|supply| supply.line(problem.horizon));
            }
        }
        Regions { count, open, lines }
    }

    /// Where nothing is known of prices: those of even utilisation, where it is high.
    fn even(&self, demand: f64) -> f64 {
        let priced = || self.lines.iter().flatten();
        if priced().count() < self.open.count_ones() as usize {
            return 0.0;
        }
        let slope: f64 = priced().map(|line| line.slope).sum();
        let taken: f64 = priced().map(|line| line.taken).sum();
        let even = (demand + taken) / slope;
        if even > curve::FREE { curve::price(even).min(MAX_PRICE) } else { 0.0 }
    }

    /// What a region gets too much, where its price can help it.
    fn wrong(&self, region: usize, price: f64, slack: f64) -> f64 {
        match &self.lines[region] {
            Some(line) if price <= line.lowest => slack.max(0.0),
            Some(_) if price >= MAX_PRICE => slack.min(0.0),
            Some(_) => slack,
            None => 0.0,
        }
    }

    fn clamp(&self, region: usize, price: f64) -> f64 {
        self.lines[region].as_ref().map_or(0.0, |line| price.clamp(line.lowest, MAX_PRICE))
    }
}

impl Search {
    pub fn new() -> Search {
        let response = || Response { rates: [0.0; REGIONS], value: 0.0, coupling: vec![] };
        Search {
            contest: Contest::new(),
            now: response(),
            next: response(),
            matrix: vec![],
            demand: vec![],
            group_demand: vec![],
        }
    }

    /// Takes the demand, checked.
    pub fn load(&mut self, problem: &Problem<'_>) {
        let of = |values: &[f64], row: usize| values.get(row).map_or(0.0, |&value| door(value));
        let extra = problem.extra.unwrap_or_default();
        self.demand.clear();
        self.demand.extend((0..problem.rows.len()).map(|row| of(problem.demand, row) + of(extra, row)));
    }

    /// Demand is what `load` took and, for the row, what comes on top.
    pub fn add(&mut self, row: usize, demand: f64) {
        self.demand[row] += door(demand);
    }

    /// Prices to begin from.
    pub fn begin(&self, regions: &Regions, cold: bool, prices: &mut [f64; REGIONS]) {
        let even = if cold { regions.even(self.demand.iter().sum()) } else { 0.0 };
        for (region, price) in prices.iter_mut().enumerate() {
            *price = regions.clamp(region, price.max(even));
        }
    }

    /// Prices, first on groups of rows if it is cold, and the plan.
    fn whole(&mut self, regions: &Regions, problem: &Problem<'_>, cold: bool, prices: &mut [f64; REGIONS]) -> Solution {
        self.begin(regions, cold, prices);
        let steps = if cold { self.coarse(problem.rows, regions, &COARSE, prices) } else { 0 };
        let view = View {
            rows: problem.rows,
            demand: &[],
            published: problem.published.filter(|table| table.len() == problem.rows.len()),
            stay: STAY_MS,
            open: regions.open,
        };
        let mut solution = self.fine(view, regions, problem, prices);
        solution.iterations += steps;
        solution.cold = cold;
        solution
    }

    /// Prices on groups of rows, ever less soft. Gives the steps it took.
    pub fn coarse(&mut self, rows: &Rows, regions: &Regions, taus: &[f32], prices: &mut [f64; REGIONS]) -> u32 {
        let mut demand = std::mem::take(&mut self.group_demand);
        demand.clear();
        let rows = match rows.groups() {
            Some((groups, of)) => {
                demand.resize(groups.len(), 0.0);
                of.iter().zip(&self.demand).for_each(|(&group, &row)| demand[group as usize] += row);
                groups
            }
            None => {
                demand.extend_from_slice(&self.demand);
                rows
            }
        };
        let view = View { rows, demand: &demand, published: None, stay: 0.0, open: regions.open };
        let mut steps = 0;
        for &tau in taus {
            steps += self.search(Some(view), regions, tau, COARSE_ERROR, prices).steps;
        }
        self.group_demand = demand;
        steps
    }

    /// Prices on all rows, and the plan.
    fn fine(
        &mut self,
        view: View<'_>,
        regions: &Regions,
        problem: &Problem<'_>,
        prices: &mut [f64; REGIONS],
    ) -> Solution {
        let demand = std::mem::take(&mut self.demand);
        let view = View { demand: &demand, ..view };
        let mut found = self.search(Some(view), regions, TAU, 1.0, prices);
        let mut plan = self.contest.decide(prices, TAU);
        let given = |prices: &[f64; REGIONS]| -> f64 {
            regions.lines.iter().zip(prices).filter_map(|(line, &price)| Some(line.as_ref()?.conjugate(price))).sum()
        };
        // Any prices give a bound; these are the best there are for rows that may have any number of regions.
        let dual = plan.bound - given(prices);
        let mut final_prices = *prices;
        if plan.cut > CUT * plan.rates.iter().sum::<f64>() {
            self.contest.narrow(prices, TAU);
            let again = self.search(None, regions, TAU, 1.0, &mut final_prices);
            found = Found { steps: found.steps + again.steps, converged: again.converged };
            plan = self.contest.decide(&final_prices, TAU);
        }
        let harm: f64 =
            regions.lines.iter().zip(plan.rates).filter_map(|(line, rate)| Some(line.as_ref()?.harm(rate))).sum();
        self.demand = demand;

        let primal = plan.cost + harm;
        let scale = dual.abs().max(1e-9 * primal.abs());
        let gap = if scale > 0.0 { (primal - dual) / scale } else { 0.0 };
        let stranded = self.contest.stranded();
        let rates: Vec<f64> = (0..regions.count).map(|r| plan.rates[r] + stranded[r]).collect();
        let forecast = |(region, &rate): (usize, &f64)| problem.supply.get(region)?.forecast(rate, problem.horizon);
        Solution {
            prices: final_prices[..regions.count].to_vec(),
            table: self.contest.table(),
            certificate: Certificate { primal, dual, gap },
            utilisation: rates.iter().enumerate().map(forecast).collect(),
            rates,
            iterations: found.steps,
            converged: found.converged,
            cold: false,
        }
    }

    /// A table of all rows at given prices, and the starts/s by region.
    pub fn assign(&mut self, view: View<'_>, prices: &[f64; REGIONS]) -> (Table, [f64; REGIONS]) {
        let demand = std::mem::take(&mut self.demand);
        self.contest.gather(View { demand: &demand, ..view }, prices, TAU, 0.0);
        self.demand = demand;
        let mut rates = self.contest.decide(prices, TAU).rates;
        rates.iter_mut().zip(self.contest.stranded()).for_each(|(rate, stranded)| *rate += stranded);
        (self.contest.table(), rates)
    }

    /// Moves `prices` to where rates and supplies meet, at one temperature. Without a view the rows are as they were
    /// gathered and narrowed. Ends with rows gathered for the prices found.
    fn search(
        &mut self,
        view: Option<View<'_>>,
        regions: &Regions,
        tau: f32,
        tolerance: f64,
        prices: &mut [f64; REGIONS],
    ) -> Found {
        let count = regions.count;
        let mut gathers = 0;
        let most = view.map_or(0, |view| GATHERS.max(GATHERED / view.rows.len().max(1)));
        let mut radius = 2.0 * f64::from(tau);
        let gather = |contest: &mut Contest, at: &[f64; REGIONS], radius: f64| {
            if let Some(view) = view {
                contest.gather(view, at, tau, radius);
            }
        };
        gather(&mut self.contest, prices, radius);
        self.contest.respond(prices, tau, count, true, &mut self.now);
        let mut diagonal = false;
        let mut steps = 0;
        let converged = loop {
            let slack = regions.slack(prices, &self.now);
            let wrong: [f64; REGIONS] = std::array::from_fn(|r| regions.wrong(r, prices[r], slack[r]));
            if regions.is_done(&wrong, self.now.rates.iter().sum(), tolerance) {
                break true;
            }
            if steps == STEPS || view.is_some() && gathers >= most {
                break false;
            }
            steps += 1;
            let step = if diagonal { None } else { self.newton(regions, prices, &wrong) };
            let newton = step.is_some();
            let step = step.unwrap_or_else(|| self.by_diagonal(regions, prices, &wrong));
            let longest = step.iter().fold(0.0f64, |most, step| most.max(step.abs()));
            let limit = STEP_MS.max(prices.iter().fold(0.0, |most: f64, price| most.max(*price)) / 2.0);
            let mut part = if longest > limit { limit / longest } else { 1.0 };
            let before = regions.value(prices, &self.now);
            let error: f64 = wrong.iter().map(|wrong| wrong.abs()).sum();
            let mut accepted = false;
            for _ in 0..TRIALS {
                let trial: [f64; REGIONS] = std::array::from_fn(|r| {
                    if step[r] == 0.0 { prices[r] } else { regions.clamp(r, prices[r] + part * step[r]) }
                });
                if !self.contest.covers(&trial) {
                    if gathers >= most {
                        break;
                    }
                    gathers += 1;
                    let way = trial.iter().zip(prices.iter()).fold(0.0f64, |most, (a, b)| most.max((a - b).abs()));
                    radius = (way / 2.0).clamp(2.0 * f64::from(tau), 8.0 * f64::from(tau));
                    gather(&mut self.contest, &trial, radius);
                }
                self.contest.respond(&trial, tau, count, true, &mut self.next);
                let after = regions.value(&trial, &self.next);
                let slope: f64 = (0..count).map(|r| wrong[r] * (trial[r] - prices[r])).sum();
                let slack = regions.slack(&trial, &self.next);
                // Along the way the dual is concave: if it still rises at the end it has risen all along.
                let still: f64 = (0..count).map(|r| slack[r] * (trial[r] - prices[r])).sum();
                let left: f64 = (0..count).map(|r| regions.wrong(r, trial[r], slack[r]).abs()).sum();
                let alike = (after - before).abs() <= 1e-7 * before.abs() && left < 0.9 * error;
                if still >= 0.0 || after >= before + 1e-4 * slope || alike {
                    *prices = trial;
                    std::mem::swap(&mut self.now, &mut self.next);
                    accepted = true;
                    break;
                }
                let highest = slope / (slope - still);
                part *= if highest > SHORTER.0 { highest.min(SHORTER.1) } else { SHORTER.0 };
            }
            if accepted {
                diagonal = false;
            } else if newton {
                diagonal = true;
            } else if !self.bisect(regions, tau, prices, &wrong) {
                break false;
            }
            if !accepted {
                // A trial may have gathered elsewhere.
                if !self.contest.covers(prices) {
                    gathers += 1;
                    gather(&mut self.contest, prices, radius);
                }
                self.contest.respond(prices, tau, count, true, &mut self.now);
            }
        };
        if !self.contest.covers(prices) {
            gather(&mut self.contest, prices, radius);
        }
        Found { steps, converged }
    }

    /// J⁻¹·g over the regions whose price may move.
    fn newton(&mut self, regions: &Regions, prices: &[f64; REGIONS], wrong: &[f64; REGIONS]) -> Option<[f64; REGIONS]> {
        let count = regions.count;
        let mut free = [0; REGIONS];
        let mut n = 0;
        for (region, line) in regions.lines.iter().enumerate() {
            let Some(line) = line else { continue };
            let held = (prices[region] <= line.lowest || prices[region] >= MAX_PRICE) && wrong[region] == 0.0;
            if !held {
                free[n] = region;
                n += 1;
            }
        }
        let free = &free[..n];
        let coupling = |a: usize, b: usize| self.now.coupling[a.min(b) * count + a.max(b)];
        self.matrix.clear();
        self.matrix.resize(n * n, 0.0);
        let mut g = [0.0; REGIONS];
        for (i, &a) in free.iter().enumerate() {
            let line = regions.lines[a].as_ref()?;
            let all: f64 = (0..count).filter(|&b| b != a).map(|b| coupling(a, b)).sum();
            for (j, &b) in free[..i].iter().enumerate() {
                self.matrix[i * n + j] = -coupling(a, b);
            }
            let diagonal = all + line.supply(prices[a]).1;
            // The ridge keeps a pivot where regions are coupled a billion times more than they are supplied.
            self.matrix[i * n + i] = diagonal * (1.0 + 1e-9) + f64::MIN_POSITIVE;
            g[i] = wrong[a];
        }
        let x = newton::solve(&mut self.matrix, &g, n)?;
        let mut step = [0.0; REGIONS];
        free.iter().enumerate().for_each(|(i, &region)| step[region] = x[i]);
        Some(step)
    }

    /// A cautious step of each price alone: uphill wherever Newton's is not to be trusted.
    fn by_diagonal(&self, regions: &Regions, prices: &[f64; REGIONS], wrong: &[f64; REGIONS]) -> [f64; REGIONS] {
        let count = regions.count;
        std::array::from_fn(|a| {
            let Some(line) = &regions.lines[a] else { return 0.0 };
            let all: f64 = (0..count).filter(|&b| b != a).map(|b| self.now.coupling[a.min(b) * count + a.max(b)]).sum();
            let step = wrong[a] / (2.0 * all + line.supply(prices[a]).1);
            if step.is_finite() { step } else { 0.0 }
        })
    }

    /// Brings the worst region's rate and supply together by its own price, within what is gathered. `false` if that
    /// changed nothing.
    fn bisect(&mut self, regions: &Regions, tau: f32, prices: &mut [f64; REGIONS], wrong: &[f64; REGIONS]) -> bool {
        let Some(worst) = (0..regions.count).max_by(|&a, &b| wrong[a].abs().total_cmp(&wrong[b].abs())) else {
            return false;
        };
        let start = prices[worst];
        let reach = if wrong[worst] > 0.0 { f64::from(tau) } else { -f64::from(tau) };
        let (mut near, mut far) = (start, regions.clamp(worst, start + reach));
        for _ in 0..BISECTIONS {
            let middle = (near + far) / 2.0;
            let mut trial = *prices;
            trial[worst] = middle;
            self.contest.respond(&trial, tau, regions.count, false, &mut self.next);
            let slack = self.next.rates[worst] - regions.lines[worst].map_or(0.0, |line| line.supply(middle).0);
            if (slack > 0.0) == (wrong[worst] > 0.0) {
                near = middle;
            } else {
                far = middle;
            }
        }
        prices[worst] = near;
        (near - start).abs() > 1e-6
    }
}

impl Regions {
    /// g = rate − S(p): what each region gets too much.
    fn slack(&self, prices: &[f64; REGIONS], response: &Response) -> [f64; REGIONS] {
        std::array::from_fn(|r| self.lines[r].as_ref().map_or(0.0, |line| response.rates[r] - line.supply(prices[r]).0))
    }

    /// The dual.
    fn value(&self, prices: &[f64; REGIONS], response: &Response) -> f64 {
        let given: f64 = self.lines.iter().zip(prices).filter_map(|(line, &p)| Some(line.as_ref()?.conjugate(p))).sum();
        response.value - given
    }

    fn is_done(&self, wrong: &[f64; REGIONS], demand: f64, tolerance: f64) -> bool {
        let sum: f64 = wrong.iter().map(|wrong| wrong.abs()).sum();
        let each =
            self.lines.iter().zip(wrong).all(|(line, wrong)| {
                line.as_ref().is_none_or(|line| wrong.abs() <= WRONG_IN_ONE * tolerance * line.scale)
            });
        sum <= WRONG_IN_ALL * tolerance * demand && each || sum == 0.0
    }
}
