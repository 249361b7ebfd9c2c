//! Plans of whole worlds, held to what is promised of them: docs/solver.md has the figures, and
//! `cargo nextest run --test steering_plans --no-capture` prints them.

use meridian::steering::solve::movement::{self, Limits};
use meridian::steering::solve::{Problem, Solution, Solver, Table};

#[path = "../benches/worlds/random.rs"]
#[allow(dead_code, reason = "the benches use the rest")]
mod random;
#[path = "../benches/worlds/regions.rs"]
#[allow(dead_code, reason = "the benches use the rest")]
mod regions;

use regions::RegionWorld;

const ROWS: usize = 40_000;
const ROWS_OF_MANY: usize = 10_000;
/// Utilisation from which nearest-then-spill sends to the next region.
const SPILLS_AT: f64 = 0.80;

/// Where all settles at a load.
fn settled(world: &RegionWorld, load: f64) -> Solution {
    let supply = world.supply(load, None);
    Solver::new().solve(&Problem {
        rows: &world.rows,
        demand: &world.demand,
        extra: None,
        supply: &supply,
        published: None,
        horizon: f64::INFINITY,
    })
}

fn worst(solution: &Solution) -> f64 {
    solution.utilisation.iter().flatten().copied().fold(0.0, f64::max)
}

/// Worlds differ in how well their capacities fit, and how far the price of 300 ms that a utilisation of 0.97 has goes
/// depends on where the regions are: most of a few worlds keep to the goal, and none is far from it. The plans are
/// the best there are for that curve, as their gaps tell.
fn static_loads(regions: usize) {
    let mut worlds: Vec<RegionWorld> =
        (1..=5).map(|seed| RegionWorld::new(seed * 100 + regions as u64, ROWS_OF_MANY, regions)).collect();
    for (load, goal) in [(0.30, 0.86), (0.50, 0.88), (0.70, 0.90), (0.85, 0.93), (0.95, 0.97)] {
        let (mut all_extra, mut all_spill, mut all_alike) = (0.0, 0.0, 0.0);
        let mut fullest = vec![];
        for world in &mut worlds {
            let solution = settled(world, load);
            let (u, gap, nearest) = (worst(&solution), solution.certificate.gap, world.nearest_ms());
            assert!(solution.converged);
            assert!(gap <= if regions <= 32 { 0.002 } else { 0.005 }, "R = {regions}, load {load}: {gap}");
            fullest.push(u);
            if load == 0.70 {
                all_extra += world.mean_ms(&solution.table) - nearest;
                all_spill += world.spill_ms(load, SPILLS_AT) - nearest;
                // For the figures: one that fills no region more than ours does.
                all_alike += world.spill_ms(load, u) - nearest;
            }
        }
        // Of 64 regions one always lies badly: there the curve itself lets 0.97 be passed by half a per cent.
        let goal = if regions == 64 && load == 0.95 { 0.975 } else { goal };
        fullest.sort_by(f64::total_cmp);
        println!("R = {regions}, load {load:.2}: worst u of five worlds {fullest:.3?}");
        assert!(fullest[2] <= goal && fullest[4] <= goal + 0.02, "R = {regions}, load {load}: {fullest:?}");
        if load == 0.70 {
            println!(
                "R = {regions}, load 0.70: {:.2} ms more than nearest; spilling at 0.80 {:.2}, at our worst u {:.2}",
                all_extra / 5.0,
                all_spill / 5.0,
                all_alike / 5.0
            );
            assert!(all_extra <= 0.45 * all_spill, "R = {regions}: {all_extra} ms, spilling {all_spill}");
        }
    }
}

#[test]
fn eight_regions_stay_below_what_they_hold_at_any_load() {
    static_loads(8);
}

#[test]
fn sixteen_regions_stay_below_what_they_hold_at_any_load() {
    static_loads(16);
}

#[test]
fn thirty_two_regions_stay_below_what_they_hold_at_any_load() {
    static_loads(32);
}

#[test]
fn sixty_four_regions_stay_below_what_they_hold_at_any_load() {
    static_loads(64);
}

#[test]
fn noise_of_demand_and_round_trip_times_moves_little() {
    for (regions, load) in [(16, 0.7), (16, 0.9), (64, 0.8)] {
        let mut world = RegionWorld::new(5, ROWS, regions);
        let start = settled(&world, load);
        let supply = world.supply(load, Some(&start.rates));
        let budget = movement::PART_A_SECOND * 1000.0;
        let (mut published, mut solver) = (start.table, Solver::new());
        let mut moved: Vec<f64> = vec![];
        for _ in 0..8 {
            let (demand, rows) = (world.noisy_demand(0.05, 0.0), world.noisy_rows(1.0));
            let solution = solver.solve(&Problem {
                rows: &rows,
                demand: &demand,
                extra: None,
                supply: &supply,
                published: Some(&published),
                horizon: 60.0,
            });
            let limits = Limits { budget, closed: 0, prices: &solution.prices };
            let step = movement::step(&published, &solution.table, &rows, &demand, &limits);
            moved.push(step.traffic / demand.iter().sum::<f64>());
            published = step.table;
        }
        // The first steps still settle from the plan of no noise, whose contested rows are split.
        println!("R = {regions}, load {load}: moved a step {moved:.5?}");
        assert!(moved[3..].iter().all(|&moved| moved <= 0.005), "R = {regions}, load {load}: {moved:?}");
    }
}

#[test]
fn a_surge_moves_at_most_its_budget_a_second_and_gets_there() {
    let world = RegionWorld::new(11, 8_000, 16);
    let start = settled(&world, 0.6);
    let surge: Vec<f64> =
        world.demand.iter().zip(&world.places).map(|(d, at)| if at.lon() > 60.0 { d * 1.5 } else { *d }).collect();
    let supply = world.supply(0.6, None);
    let mut published: Table = start.table;
    let mut solver = Solver::new();
    let budget = movement::PART_A_SECOND * surge.iter().sum::<f64>();
    let mut seconds = 0;
    loop {
        let solution = solver.solve(&Problem {
            rows: &world.rows,
            demand: &surge,
            extra: None,
            supply: &supply,
            published: Some(&published),
            horizon: f64::INFINITY,
        });
        let limits = Limits { budget, closed: 0, prices: &solution.prices };
        let step = movement::step(&published, &solution.table, &world.rows, &surge, &limits);
        assert!(published.moved(&step.table, &surge) <= budget * 1.01);
        published = step.table;
        seconds += 1;
        if step.complete {
            break;
        }
        assert!(seconds < 60);
    }
    let worst = supply.iter().zip(published.rates(&surge, 16)).map(|(s, r)| s.forecast(r, f64::INFINITY).unwrap());
    let worst = worst.fold(0.0, f64::max);
    assert!(worst < 0.97, "{worst} after {seconds} s");
    assert!(seconds > 1, "the budget was never felt");
}

#[test]
fn prices_that_have_far_to_go_are_found_at_once() {
    let world = RegionWorld::new(16, ROWS_OF_MANY, 16);
    let mut solver = Solver::new();
    let mut solve = |load: f64| {
        let supply = world.supply(load, None);
        solver.solve(&Problem {
            rows: &world.rows,
            demand: &world.demand,
            extra: None,
            supply: &supply,
            published: None,
            horizon: f64::INFINITY,
        })
    };
    solve(0.9);
    // Nobody has reported for minutes, and all capacities count seven tenths: prices go from 150 ms to beyond 4000.
    let after = solve(0.9 / 0.7);
    assert!(after.converged && after.certificate.gap < 0.002, "{:?}", after.certificate);
    let back = solve(0.9);
    assert!(back.converged && back.certificate.gap < 0.002, "{:?}", back.certificate);
}
