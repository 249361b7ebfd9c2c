//! Tables for the loss of a region, ready before it happens, and the viewers who come back then.

use super::contest::View;
use super::rows::REGIONS;
use super::solver::{Problem, Regions, STAY_MS, Search, Solver};
use super::supply::{Supply, door};
use super::table::Table;

/// Viewers come back within about this, s: players try again within 12 s (STEERING §6), and resolvers still have the answer of
/// before for some of a TTL.
pub const RETURN_S: f64 = 16.0;
/// For so long after a loss the demand is what it was before, s: what players ask when they reconnect is no new demand.
pub const FREEZE: f64 = 90.0;

/// Softness of the solves, ms.
const TAUS: [f32; 1] = [1.0];

/// What is known before a region is lost.
#[derive(Clone, Debug)]
pub struct Spare {
    pub lost: usize,
    pub table: Table,
    /// At the horizon, with the viewers of the lost region come back; `None` without a capacity.
    pub utilisation: Vec<Option<f64>>,
}

/// Prepares tables for losses. Holds its memory, and no prices.
#[derive(Default)]
pub struct Spares {
    search: Option<Box<Search>>,
}

impl Spares {
    /// The table for the loss of a region, from the prices of `solver`'s last solve: solved on groups of rows, and then
    /// given to all rows. Its viewers are counted as coming back at once: `viewers`, sessions by row, or those whom the
    /// published table sends there where nothing better is known.
    pub fn without(&mut self, lost: usize, problem: &Problem<'_>, viewers: Option<&[f64]>, solver: &Solver) -> Spare {
        let search = self.search.get_or_insert_with(|| Box::new(Search::new()));
        let regions = Regions::without(problem, Some(lost));
        let published = problem.published.filter(|table| table.len() == problem.rows.len());
        search.load(problem);
        if let (Some(table), Some(supply), Ok(region)) = (published, problem.supply.get(lost), u8::try_from(lost)) {
            for (row, mix) in table.rows().iter().enumerate() {
                let rate = match viewers {
                    Some(viewers) => viewers.get(row).map_or(0.0, |sessions| sessions / supply.dwell()),
                    None => mix.part(region) * door(problem.demand.get(row).copied().unwrap_or(0.0)),
                };
                if rate > 0.0 {
                    search.add(row, returning(rate, supply, 0.0, problem.horizon));
                }
            }
        }
        let mut prices: [f64; REGIONS] = *solver.prices();
        search.begin(&regions, true, &mut prices);
        search.coarse(problem.rows, &regions, &TAUS, &mut prices);
        let view = View { rows: problem.rows, demand: &[], published, stay: STAY_MS, open: regions.open };
        let (table, rates) = search.assign(view, &prices);
        let forecast = |(region, rate): (usize, f64)| {
            if region == lost { None } else { problem.supply.get(region)?.forecast(rate, problem.horizon) }
        };
        let utilisation = rates.into_iter().take(regions.count).enumerate().map(forecast).collect();
        Spare { lost, table, utilisation }
    }
}

/// Starts/s that viewers who come back make on top of a row's `rate` (the starts/s that went to the lost region), `since`
/// seconds after the loss: λ·D sessions come back with a time constant of [`RETURN_S`], spread over what is planned for.
pub fn returning(rate: f64, lost: &Supply, since: f64, horizon: f64) -> f64 {
    if !(0.0..FREEZE).contains(&since) {
        return 0.0;
    }
    let dwell = lost.dwell();
    let horizon = if horizon > 0.0 { horizon.max(1.0) } else { 1.0 };
    let sessions = door(rate) * dwell;
    sessions * (-since / RETURN_S).exp() / (dwell * -(-horizon / dwell).exp_m1())
}

/// Of the same viewers, those who arrive now, 1/s.
pub fn arriving(rate: f64, lost: &Supply, since: f64) -> f64 {
    if !(0.0..FREEZE).contains(&since) {
        return 0.0;
    }
    door(rate) * lost.dwell() * (-since / RETURN_S).exp() / RETURN_S
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::solve::{Mix, Rows};

    #[test]
    fn who_comes_back_is_counted_once_and_fades() {
        let supply = Supply::of(Some(1000.0));
        // 2 starts/s of 1200 s are 2400 sessions; over 60 s they weigh as 2400 / (1200·(1 − e^(−1/20))) starts/s.
        let at_once = returning(2.0, &supply, 0.0, 60.0);
        assert!((at_once - 2.0 / 0.048_770_575).abs() < 1e-4, "{at_once}");
        assert!((returning(2.0, &supply, RETURN_S, 60.0) / at_once - (-1.0f64).exp()).abs() < 1e-9);
        assert_eq!(returning(2.0, &supply, 90.0, 60.0), 0.0);
        assert_eq!(returning(f64::NAN, &supply, f64::NAN, f64::NAN), 0.0);
        assert!(returning(1e308, &supply, 0.0, -1.0).is_finite());
    }

    #[test]
    fn the_lost_region_gets_nobody_and_its_viewers_spread() {
        // Region 0 is lost; all its rows are nearest to region 1, which has not room for them.
        let costs: Vec<f32> = (0..200).flat_map(|row| [10.0, 20.0 + row as f32 / 10.0, 45.0]).collect();
        let rows = Rows::new(3, &costs, &(0..200).map(|row| row / 10).collect::<Vec<_>>()).unwrap();
        let demand = vec![0.01; 200];
        let mut supply = [Supply::of(Some(4000.0)), Supply::of(Some(1500.0)), Supply::of(Some(4000.0))];
        supply[0].load = 2400.0;
        let published = Table::new(vec![Mix::only(0); 200]);
        let problem = Problem {
            rows: &rows,
            demand: &demand,
            extra: None,
            supply: &supply,
            published: Some(&published),
            horizon: 60.0,
        };
        let mut solver = Solver::new();
        solver.solve(&problem);
        let spare = Spares::default().without(0, &problem, None, &solver);
        let shares = spare.table.shares(&demand, 3);
        assert_eq!(shares[0], 0.0);
        assert!(shares[1] > 0.3 && shares[2] > 0.3, "{shares:?}");
        assert_eq!(spare.utilisation[0], None);
        assert!(spare.utilisation[1].unwrap() < 0.95, "{:?}", spare.utilisation);
    }
}
