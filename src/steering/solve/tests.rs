//! The solver on small worlds: beside exact linear programs, and fed with whatever numbers there are.

use microlp::{ComparisonOp, LinearExpr, OptimizationDirection, Variable};
use proptest::prelude::*;

use super::*;

fn problem<'a>(rows: &'a Rows, demand: &'a [f64], supply: &'a [Supply]) -> Problem<'a> {
    Problem { rows, demand, extra: None, supply, published: None, horizon: f64::INFINITY }
}

/// Rows each in a group of its own.
fn rows(regions: usize, costs: &[f32]) -> Rows {
    Rows::new(regions, costs, &(0..(costs.len() / regions) as u32).collect::<Vec<_>>()).unwrap()
}

fn utilisations(solution: &Solution) -> Vec<f64> {
    solution.utilisation.iter().map(|u| u.unwrap()).collect()
}

/// The exact optimum of the settled problem, ms·starts/s, with the harm cut into straight pieces: chords, which lie
/// above it, or the price at the start of each piece, which is below.
fn optimum(rows: &Rows, demand: &[f64], supply: &[Supply], above: bool) -> f64 {
    const PIECE: f64 = 0.005;
    let mut lp = microlp::Problem::new(OptimizationDirection::Minimize);
    let mut into: Vec<Vec<(Variable, f64)>> = vec![vec![]; rows.regions()];
    for (row, &demand) in demand.iter().enumerate() {
        let mut whole = LinearExpr::empty();
        for (region, cost) in rows.sorted(row) {
            let x = lp.add_var(demand * f64::from(cost), (0.0, f64::INFINITY));
            whole.add(x, 1.0);
            into[usize::from(region)].push((x, demand));
        }
        lp.add_constraint(whole, ComparisonOp::Eq, 1.0);
    }
    for (rates, supply) in into.iter().zip(supply) {
        let scale = supply.capacity.unwrap() / supply.dwell;
        let mut rate = LinearExpr::empty();
        rates.iter().for_each(|&(x, demand)| rate.add(x, demand));
        let free = lp.add_var(0.0, (0.0, curve::FREE * scale));
        rate.add(free, -1.0);
        for piece in 0..400 {
            let u = curve::FREE + f64::from(piece) * PIECE;
            let price = if above { (curve::harm(u + PIECE) - curve::harm(u)) / PIECE } else { curve::price(u) };
            let part = lp.add_var(price, (0.0, if piece == 399 { f64::INFINITY } else { PIECE * scale }));
            rate.add(part, -1.0);
        }
        lp.add_constraint(rate, ComparisonOp::Le, 0.0);
    }
    lp.solve().unwrap().into_solution().unwrap().objective()
}

fn small_world() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f64>, Vec<f64>, f64)> {
    (2usize..5, 3usize..20).prop_flat_map(|(regions, count)| {
        (
            Just(regions),
            prop::collection::vec(8.0f32..180.0, regions * count),
            prop::collection::vec(0.1f64..3.0, count),
            prop::collection::vec(0.3f64..3.0, regions),
            0.2f64..1.1,
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_plan_is_near_the_exact_optimum_and_the_bound_is_one(
        (regions, costs, demand, capacity, load) in small_world()
    ) {
        let rows = rows(regions, &costs);
        let scale = demand.iter().sum::<f64>() * 1200.0 / capacity.iter().sum::<f64>() / load;
        let supply: Vec<Supply> = capacity.iter().map(|capacity| Supply::of(Some(capacity * scale))).collect();
        let solution = Solver::new().solve(&problem(&rows, &demand, &supply));
        let Certificate { primal, dual, gap } = solution.certificate;
        let (over, under) = (optimum(&rows, &demand, &supply, true), optimum(&rows, &demand, &supply, false));
        prop_assert!(under <= over * (1.0 + 1e-9) && dual <= over * (1.0 + 1e-6), "bound {dual}, optimum {under} to {over}");
        prop_assert!(under <= primal * (1.0 + 1e-6), "plan {primal}, optimum {under}");
        prop_assert!(primal <= over * 1.01, "plan {primal}, optimum {over}");
        prop_assert!((0.0..0.01).contains(&(gap + 1e-7)), "{gap}");
        prop_assert!(solution.converged, "{:?}", solution);
    }
}

/// What reports and files may hold, and more.
fn wild() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0f64..1000.0,
        1 => prop::sample::select(vec![0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308, 1e-308, 1e12, 1e-9]),
    ]
}

fn wild_supply() -> impl Strategy<Value = Supply> {
    (prop::option::weighted(0.8, wild()), wild(), wild(), wild(), wild(), prop::bool::weighted(0.2), any::<bool>())
        .prop_map(|(capacity, part, load, dwell, fixed, closed, whole)| Supply {
            capacity,
            part: if whole { 1.0 } else { part },
            load,
            dwell,
            fixed,
            closed,
        })
}

fn is_valid(problem: &Problem<'_>, solution: &Solution) -> Result<(), TestCaseError> {
    let Problem { rows, supply, .. } = problem;
    let open = |region: u8| supply.get(usize::from(region)).is_some_and(Supply::is_open);
    let none_open = !(0..rows.regions() as u8).any(open);
    prop_assert_eq!(solution.table.len(), rows.len());
    for (row, mix) in solution.table.rows().iter().enumerate() {
        let allowed: Vec<u8> = rows.sorted(row).map(|(region, _)| region).collect();
        prop_assert_eq!(mix.is_empty(), allowed.is_empty());
        for (region, _) in mix.iter() {
            prop_assert!(allowed.contains(&region), "row {} goes to {}, which it may not", row, region);
            let stranded = none_open || !allowed.iter().any(|&region| open(region));
            prop_assert!(open(region) || stranded, "row {} goes to {}, which is closed", row, region);
        }
    }
    prop_assert_eq!(solution.prices.len(), rows.regions());
    prop_assert!(
        solution.prices.iter().all(|price| (0.0..=supply::MAX_PRICE).contains(price)),
        "{:?}",
        solution.prices
    );
    prop_assert!(solution.rates.iter().all(|rate| rate.is_finite() && *rate >= 0.0));
    prop_assert!(solution.utilisation.iter().flatten().all(|u| u.is_finite()));
    let Certificate { primal, dual, gap } = solution.certificate;
    prop_assert!(primal.is_finite() && dual.is_finite() && gap.is_finite(), "{:?}", solution.certificate);
    // Single precision is all that softened choices have.
    prop_assert!(dual <= primal + 1e-5 * (primal.abs() + dual.abs()), "{:?}", solution.certificate);
    prop_assert!(solution.iterations <= 5 * 60);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_the_numbers_are_there_is_a_valid_plan(
        regions in 0usize..9,
        count in 0usize..24,
        costs in prop::collection::vec(wild(), 8 * 24),
        demand in prop::collection::vec(wild(), 0..26),
        supply in prop::collection::vec(wild_supply(), 0..10),
        horizon in wild(),
        many in 1u32..24,
    ) {
        let costs: Vec<f32> = costs[..regions * count].iter().map(|&cost| cost as f32).collect();
        let groups: Vec<u32> = (0..count as u32).map(|row| row % many).collect();
        let rows = Rows::new(regions, &costs, &groups).unwrap();
        let mut solver = Solver::new();
        let first = Problem { rows: &rows, demand: &demand, extra: None, supply: &supply, published: None, horizon };
        let solution = solver.solve(&first);
        is_valid(&first, &solution)?;
        let second = Problem { published: Some(&solution.table), extra: Some(&demand), ..first };
        let again = solver.solve(&second);
        is_valid(&second, &again)?;
        for lost in 0..regions {
            let spare = loss::Spares::default().without(lost, &second, None, &solver);
            let closed: Vec<Supply> = supply.iter().enumerate()
                .map(|(region, supply)| Supply { closed: supply.closed || region == lost, ..*supply }).collect();
            is_valid(&Problem { supply: &closed, ..second }, &Solution { table: spare.table, ..again.clone() })?;
        }
    }
}

#[test]
fn without_load_everybody_goes_to_the_nearest() {
    let rows = rows(3, &[10.0, 20.0, 30.0, 30.0, 20.0, 10.0]);
    for capacity in [None, Some(1e6)] {
        let solution = Solver::new().solve(&problem(&rows, &[1.0, 1.0], &[Supply::of(capacity); 3]));
        assert_eq!(solution.table.rows(), [Mix::only(0), Mix::only(2)]);
        assert!(solution.converged && solution.prices == [0.0; 3]);
        assert!(solution.certificate.gap.abs() < 1e-9);
    }
}

#[test]
fn too_much_for_all_regions_spreads_evenly() {
    let costs: Vec<f32> = (0..600).map(|i| (10 + i * 37 % 150) as f32).collect();
    let rows = rows(4, &costs);
    let supply: Vec<Supply> = [1.0, 2.0, 3.0, 4.0].map(|k| Supply::of(Some(k * 10_000.0))).to_vec();
    for load in [1.2, 2.0, 4.0] {
        let demand = vec![load * 100_000.0 / 1200.0 / 150.0; 150];
        let solution = Solver::new().solve(&problem(&rows, &demand, &supply));
        assert!(solution.converged, "{load}: {:?}", solution.prices);
        for u in utilisations(&solution) {
            // 14,400 ms a whole capacity: no latency here is worth more than 2 %.
            assert!((u - load).abs() < 0.02, "{load}: {u}");
        }
    }
}

#[test]
fn a_price_above_all_bounds_leaves_the_nearest_plan() {
    let rows = rows(2, &[10.0, 20.0, 30.0, 20.0]);
    let solution = Solver::new().solve(&problem(&rows, &[1e6, 1e6], &[Supply::of(Some(1.0)); 2]));
    assert_eq!(solution.prices, [supply::MAX_PRICE; 2]);
    assert_eq!(solution.table.rows(), [Mix::only(0), Mix::only(1)]);
}

#[test]
fn equal_costs_fill_all_regions_evenly_though_a_row_holds_four() {
    let rows = rows(16, &vec![0.0; 16 * 2000]);
    let demand = vec![1.0; 2000];
    let supply = [Supply::of(Some(2000.0 * 1200.0 / 16.0 / 0.8)); 16];
    let solution = Solver::new().solve(&problem(&rows, &demand, &supply));
    assert!(solution.converged);
    for u in utilisations(&solution) {
        assert!((u - 0.8).abs() < 0.01, "{:?}", solution.utilisation);
    }
}

#[test]
fn one_heavy_row_is_split_to_what_there_is_room_for() {
    let rows = rows(3, &[10.0, 30.0, 60.0]);
    let supply = [Supply::of(Some(1200.0)), Supply::of(Some(1200.0)), Supply::of(Some(1200.0))];
    let solution = Solver::new().solve(&problem(&rows, &[2.4], &supply));
    let u = utilisations(&solution);
    assert!(u[0] > u[1] && u[1] > u[2] && u[0] < 0.9, "{u:?}");
    assert!(solution.converged && (solution.rates.iter().sum::<f64>() - 2.4).abs() < 1e-3);
}

#[test]
fn rows_that_only_closed_regions_could_take_are_sent_as_if_those_were_open() {
    let rows = rows(2, &[10.0, f32::INFINITY, 10.0, 20.0, f32::INFINITY, f32::INFINITY]);
    let supply = [Supply { closed: true, ..Supply::of(None) }, Supply::of(Some(1e4))];
    let solution = Solver::new().solve(&problem(&rows, &[1.0, 1.0, 1.0], &supply));
    assert_eq!(solution.table.rows(), [Mix::only(0), Mix::only(1), Mix::EMPTY]);
    assert_eq!(solution.rates, [1.0, 1.0]);
    let all_closed = [supply[0], Supply { closed: true, ..supply[1] }];
    let solution = Solver::new().solve(&problem(&rows, &[1.0, 1.0, 1.0], &all_closed));
    assert_eq!(solution.table.rows(), [Mix::only(0), Mix::only(0), Mix::EMPTY]);
}

#[test]
fn what_is_published_stays_for_a_few_milliseconds() {
    let rows = rows(2, &[20.0, 17.0]);
    let supply = [Supply::of(None); 2];
    let published = Table::new(vec![Mix::only(0)]);
    let sticky = Problem { published: Some(&published), ..problem(&rows, &[1.0], &supply) };
    assert!(Solver::new().solve(&sticky).table.row(0).part(0) > 0.95);
    assert!(Solver::new().solve(&problem(&rows, &[1.0], &supply)).table.row(0).part(1) > 0.95);
}

#[test]
fn sessions_that_stay_leave_less_room() {
    // Region 0 is nearest for all and at 90 % already, region 1 is empty: nobody new should come to 0 until some left.
    let costs: Vec<f32> = (0..100).flat_map(|i| [20.0, 40.0 + i as f32 / 2.0]).collect();
    let rows = rows(2, &costs);
    let mut supply = [Supply::of(Some(12_000.0)); 2];
    supply[0].load = 10_800.0;
    let solution = Solver::new().solve(&Problem { horizon: 60.0, ..problem(&rows, &[0.1; 100], &supply) });
    assert!(solution.converged);
    assert!(solution.rates[0] < 7.0, "with the room of an empty region 8.4 starts/s would come: {:?}", solution.rates);
    assert!(solution.prices[0] > 10.0, "{:?}", solution.prices);
}

#[test]
fn a_cold_solve_is_one_after_regions_opened_or_closed() {
    let costs: Vec<f32> = (0..300).map(|i| (10 + i * 53 % 120) as f32).collect();
    let rows = Rows::new(3, &costs, &(0..100).map(|row| row / 5).collect::<Vec<_>>()).unwrap();
    let demand = [1.0; 100];
    let mut supply = [Supply::of(Some(60_000.0)); 3];
    let mut solver = Solver::new();
    assert!(solver.solve(&problem(&rows, &demand, &supply)).cold);
    let warm = solver.solve(&problem(&rows, &demand, &supply));
    assert!(!warm.cold && warm.iterations == 0 && warm.converged, "{} steps", warm.iterations);
    supply[1].closed = true;
    let lost = solver.solve(&problem(&rows, &demand, &supply));
    assert!(lost.cold && lost.rates[1] == 0.0 && lost.converged);
    solver.forget();
    assert!(solver.solve(&problem(&rows, &demand, &supply)).cold);
}
