//! How long the solver of prices takes.
//!
//! `cargo bench --bench solve` measures warm and cold solves of 40,000 rows: warm as they come every second, with 5 % of
//! noise on the demand of every row and as much on that of every 20 degrees of longitude; cold from nothing. Before criterion's figures it prints percentiles over a
//! thousand warm solves, steps and gaps. `-- --world SEED ROWS REGIONS LOAD FILE` writes a world and our plan for `benches/lp/run`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use meridian::steering::solve::curve::KNEES;
use meridian::steering::solve::loss::Spares;
use meridian::steering::solve::{Problem, Rows, Solution, Solver, Supply, Table};

#[path = "worlds/random.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod random;
#[path = "worlds/regions.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod regions;

use regions::RegionWorld;

const ROWS: usize = 40_000;
const LOAD: f64 = 0.8;
const HORIZON: f64 = 60.0;

/// A world with demand that flickers.
struct Seconds {
    world: RegionWorld,
    supply: Vec<Supply>,
    demands: Vec<Vec<f64>>,
    published: Table,
    solver: Solver,
    next: usize,
}

fn problem<'a>(rows: &'a Rows, demand: &'a [f64], supply: &'a [Supply], published: Option<&'a Table>) -> Problem<'a> {
    Problem { rows, demand, extra: None, supply, published, horizon: HORIZON }
}

impl Seconds {
    fn new(regions: usize) -> Seconds {
        let mut world = RegionWorld::new(regions as u64, ROWS, regions);
        let demands = (0..32).map(|_| world.noisy_demand(0.05, 0.05)).collect();
        let mut solver = Solver::new();
        // What settles, and loads as they are then.
        let supply = world.supply(LOAD, None);
        let settled =
            solver.solve(&Problem { horizon: f64::INFINITY, ..problem(&world.rows, &world.demand, &supply, None) });
        let supply = world.supply(LOAD, Some(&settled.rates));
        Seconds { world, supply, demands, published: settled.table, solver, next: 0 }
    }

    fn warm(&mut self) -> Solution {
        self.next += 1;
        let demand = &self.demands[self.next % self.demands.len()];
        let solution = self.solver.solve(&problem(&self.world.rows, demand, &self.supply, Some(&self.published)));
        self.published.clone_from(&solution.table);
        solution
    }

    fn cold(&mut self) -> Solution {
        let mut solver = Solver::new();
        solver.solve(&problem(&self.world.rows, &self.world.demand, &self.supply, None))
    }
}

fn percentiles(regions: usize) {
    let mut seconds = Seconds::new(regions);
    let mut times = vec![];
    let (mut steps, mut worst, mut unsolved) = (0, 0.0f64, 0);
    for _ in 0..1000 {
        let start = Instant::now();
        let solution = seconds.warm();
        times.push(start.elapsed());
        steps += solution.iterations;
        worst = worst.max(solution.certificate.gap);
        unsolved += u32::from(!solution.converged);
    }
    times.sort();
    println!(
        "R = {regions}: warm p50 {:.2?}, p99 {:.2?}, worst {:.2?}; {:.1} steps, gap ≤ {:.3} %, {unsolved} not converged",
        times[500],
        times[990],
        times[999],
        f64::from(steps) / 1000.0,
        worst * 100.0
    );
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let start = Instant::now();
            black_box(seconds.cold());
            start.elapsed()
        })
        .collect();
    times.sort();
    let cold = seconds.cold();
    println!(
        "R = {regions}: cold p50 {:.2?}, worst {:.2?}; {} steps, gap {:.3} %, converged {}",
        times[10],
        times[19],
        cold.iterations,
        cold.certificate.gap * 100.0,
        cold.converged
    );
    let mut spares = Spares::default();
    let start = Instant::now();
    let demand = &seconds.world.demand;
    let problem = problem(&seconds.world.rows, demand, &seconds.supply, Some(&seconds.published));
    for lost in 0..regions {
        black_box(spares.without(lost, &problem, None, &seconds.solver));
    }
    println!("R = {regions}: a table for the loss of a region takes {:.2?}", start.elapsed() / regions as u32);
}

/// A settled world and our plan for it: a line of JSON, then f64 of demand (by row) and f32 of costs (row-major).
fn write_world(arguments: &[String]) -> std::io::Result<()> {
    let [seed, rows, count, load, path] = arguments else { panic!("--world SEED ROWS REGIONS LOAD FILE") };
    let number = |text: &String| text.parse::<usize>().expect("a whole number");
    let (rows, count, load) = (number(rows), number(count), load.parse::<f64>().expect("a number"));
    let world = RegionWorld::new(number(seed) as u64, rows, count);
    let supply = world.supply(load, None);
    let settled = Problem { horizon: f64::INFINITY, ..problem(&world.rows, &world.demand, &supply, None) };
    let mut times: Vec<(Duration, Solution)> = (0..9)
        .map(|_| {
            let mut solver = Solver::new();
            let start = Instant::now();
            let solution = solver.solve(&settled);
            (start.elapsed(), solution)
        })
        .collect();
    times.sort_by_key(|time| time.0);
    let (time, solution) = &times[4];
    // Costs as they are kept, so that both solve the same numbers.
    let kept = |row: usize| (0..count as u8).map(move |region| (row, region));
    let costs: Vec<f32> = (0..rows).flat_map(kept).map(|(row, region)| world.rows.cost(row, region)).collect();
    let latency: f64 = (0..rows)
        .flat_map(|row| solution.table.row(row).parts().map(move |(region, part)| (row, region, part)))
        .map(|(row, region, part)| world.demand[row] * part * f64::from(costs[row * count + usize::from(region)]))
        .sum();
    let capacity: Vec<f64> = supply.iter().map(|supply| supply.capacity.unwrap_or(0.0) / supply.dwell).collect();
    let mut out = format!(
        r#"{{"rows": {rows}, "regions": {count}, "load": {load}, "capacity": {capacity:?}, "knees": {:?}, "rates": {:?}, "latency": {latency}, "dual": {}, "seconds": {}}}"#,
        KNEES.map(|(u, price)| [u, price]),
        solution.rates,
        solution.certificate.dual,
        time.as_secs_f64()
    )
    .into_bytes();
    out.push(b'\n');
    out.extend(world.demand.iter().flat_map(|demand| demand.to_le_bytes()));
    out.extend(costs.iter().flat_map(|cost| cost.to_le_bytes()));
    std::fs::write(path, out)
}

fn solves(criterion: &mut Criterion) {
    for regions in [8, 16, 32, 64] {
        let mut seconds = Seconds::new(regions);
        let mut group = criterion.benchmark_group(format!("solve/{regions}"));
        group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
        group.bench_function("warm", |bencher| bencher.iter(|| black_box(seconds.warm())));
        group.bench_function("cold", |bencher| bencher.iter(|| black_box(seconds.cold())));
        group.finish();
    }
}

criterion_group!(benches, solves);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--world") {
        let end = arguments.len().min(at + 6);
        return write_world(&arguments[at + 1..end]).expect("the file can be written");
    }
    if !arguments.iter().any(|argument| argument == "--test") {
        [8, 16, 32, 64].into_iter().for_each(percentiles);
    }
    if !arguments.iter().any(|argument| argument == "--percentiles") {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
