//! How much of a new table is published at once.
//!
//! A new table is rarely worth its whole move: viewers who are sent elsewhere find cold caches, and what a fault in our
//! numbers can do is bounded by what may move a second. Rows move whole, those first that win most by what they move.

use super::rows::{REGIONS, Rows};
use super::supply::door;
use super::table::{Mix, Table};

/// Part of all traffic that may move in a second without an event.
pub const PART_A_SECOND: f64 = 0.02;
/// A table is worth publishing if so much of the traffic moves …
const WORTH_MOVING: f64 = 0.001;
/// … or if a region's utilisation changes by so much.
const WORTH_RELIEVING: f64 = 0.01;

/// What limits a move.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Starts/s that may move; infinite after an event.
    pub budget: f64,
    /// Regions that take nothing, bit r for region r: rows leave them at once, and that is not counted.
    pub closed: u64,
    /// ms by region, of the solved table; those missing are 0.
    pub prices: &'a [f64],
}

#[derive(Clone, Debug)]
pub struct Moved {
    pub table: Table,
    /// Starts/s that go elsewhere than as published.
    pub traffic: f64,
    /// Of them, those that had to: they were sent to closed regions, or nowhere.
    pub forced: f64,
    /// Whether the table is the solved one, and nothing is left to move.
    pub complete: bool,
}

/// From the published table as far towards the solved one as the budget allows. At most one row is moved in part.
pub fn step(published: &Table, solved: &Table, rows: &Rows, demand: &[f64], limits: &Limits<'_>) -> Moved {
    if published.len() != solved.len() || rows.len() != solved.len() {
        // Of other rows: there is nothing to move from.
        return Moved { table: solved.clone(), traffic: 0.0, forced: 0.0, complete: true };
    }
    let demand = |row: usize| demand.get(row).map_or(0.0, |&demand| door(demand));
    let budget = if limits.budget > 0.0 { limits.budget } else { 0.0 };
    let mut table = published.clone();
    let (mut traffic, mut forced) = (0.0, 0.0);
    // Gain a start/s moved, and the row.
    let mut wishes: Vec<(f64, u32)> = vec![];
    for (row, (old, new)) in published.rows().iter().zip(solved.rows()).enumerate() {
        if old == new {
            continue;
        }
        let must = old.is_empty() || new.is_empty() || old.iter().any(|(r, _)| limits.closed >> (r % 64) & 1 == 1);
        let moved = old.moved(new);
        if must || demand(row) == 0.0 || moved == 0.0 {
            table.rows_mut()[row] = *new;
            traffic += demand(row) * moved;
            forced += if must { demand(row) * moved } else { 0.0 };
        } else {
            wishes.push((gain(rows, row, old, new, limits.prices) / moved, row as u32));
        }
    }
    wishes.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let (mut left, mut complete) = (budget, true);
    for (_, row) in wishes {
        let row = row as usize;
        let (old, new) = (*published.row(row), *solved.row(row));
        let wish = demand(row) * old.moved(&new);
        if wish <= left {
            table.rows_mut()[row] = new;
            left -= wish;
            traffic += wish;
        } else {
            complete = false;
            let mix = blend(&old, &new, left / wish);
            let moved = demand(row) * old.moved(&mix);
            // Cut to four regions it may move more than it should.
            if moved <= left * (1.0 + 1e-3) {
                table.rows_mut()[row] = mix;
                traffic += moved;
            }
            break;
        }
    }
    Moved { table, traffic, forced, complete }
}

/// Whether a table is worth publishing: `moved` and `demand` in starts/s, utilisations of the regions now published and
/// then. An event always is.
pub fn is_worth_publishing(moved: f64, demand: f64, now: &[Option<f64>], then: &[Option<f64>], event: bool) -> bool {
    let relieved = now.iter().zip(then).any(|(a, b)| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() >= WORTH_RELIEVING,
        _ => a.is_some() != b.is_some(),
    });
    event || now.len() != then.len() || relieved || moved > 0.0 && moved >= WORTH_MOVING * demand
}

/// ms that the row's viewers win, prices counted.
fn gain(rows: &Rows, row: usize, old: &Mix, new: &Mix, prices: &[f64]) -> f64 {
    let (mut added, mut wanted) = ([0.0; REGIONS], 0u64);
    for (region, part) in old.parts() {
        added[usize::from(region) % REGIONS] += part;
        wanted |= 1 << (region % 64);
    }
    for (region, part) in new.parts() {
        added[usize::from(region) % REGIONS] -= part;
        wanted |= 1 << (region % 64);
    }
    let mut gain = 0.0;
    for (region, cost) in rows.sorted(row) {
        if wanted >> region & 1 == 1 {
            let price = prices.get(usize::from(region)).copied().unwrap_or(0.0);
            gain += added[usize::from(region)] * (f64::from(cost) + price);
            wanted &= !(1 << region);
            if wanted == 0 {
                return gain;
            }
        }
    }
    // It was sent where it may not be sent any more.
    f64::INFINITY
}

fn blend(old: &Mix, new: &Mix, part: f64) -> Mix {
    let kept = old.parts().map(|(region, x)| (region, x * (1.0 - part) + new.part(region) * part));
    let fresh = new.parts().filter(|&(region, _)| old.part(region) == 0.0).map(|(region, x)| (region, x * part));
    Mix::of(kept.chain(fresh))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(costs: &[[f32; 3]]) -> Rows {
        Rows::new(3, costs.as_flattened(), &vec![0; costs.len()]).unwrap()
    }

    fn limits(budget: f64) -> Limits<'static> {
        Limits { budget, closed: 0, prices: &[0.0, 0.0, 0.0] }
    }

    #[test]
    fn rows_that_win_most_move_first_and_at_most_one_in_part() {
        let rows = rows(&[[10.0, 5.0, 0.0], [10.0, 1.0, 0.0], [10.0, 3.0, 0.0]]);
        let old = Table::new(vec![Mix::only(0); 3]);
        let new = Table::new(vec![Mix::only(1); 3]);
        let moved = step(&old, &new, &rows, &[2.0, 2.0, 2.0], &limits(3.0));
        assert_eq!((moved.table.row(0), moved.table.row(1)), (&Mix::only(0), &Mix::only(1)));
        assert!((moved.table.row(2).part(1) - 0.5).abs() < 1e-3);
        assert!((moved.traffic - 3.0).abs() < 1e-3 && !moved.complete && moved.forced == 0.0);
        let moved = step(&old, &new, &rows, &[2.0, 2.0, 2.0], &limits(f64::INFINITY));
        assert!(moved.complete && moved.table == new);
    }

    #[test]
    fn a_closed_region_is_left_at_once() {
        let rows = rows(&[[10.0, 5.0, 0.0], [10.0, 1.0, 0.0]]);
        let old = Table::new(vec![Mix::only(2), Mix::only(0)]);
        let new = Table::new(vec![Mix::only(1), Mix::only(1)]);
        let moved = step(&old, &new, &rows, &[5.0, 5.0], &Limits { closed: 0b100, ..limits(0.0) });
        assert_eq!(moved.table, Table::new(vec![Mix::only(1), Mix::only(0)]));
        assert_eq!((moved.traffic, moved.forced, moved.complete), (5.0, 5.0, false));
    }

    #[test]
    fn publishing_needs_traffic_relief_or_an_event() {
        let u = |u| [Some(u), None];
        assert!(!is_worth_publishing(0.9, 1000.0, &u(0.5), &u(0.505), false));
        assert!(is_worth_publishing(1.0, 1000.0, &u(0.5), &u(0.5), false));
        assert!(is_worth_publishing(0.0, 1000.0, &u(0.5), &u(0.515), false));
        assert!(is_worth_publishing(0.0, 1000.0, &u(0.5), &u(0.5), true));
        assert!(!is_worth_publishing(0.0, 0.0, &u(0.5), &u(0.5), false));
    }

    fn any_mix() -> impl Strategy<Value = Mix> {
        prop::collection::vec(0.0f64..1.0, 3).prop_map(|shares| Mix::of((0..).zip(shares)))
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_a_longer_way_is_never_shorter(
            pairs in prop::collection::vec((any_mix(), any_mix(), 0.0f64..10.0), 1..20),
            budget in 0.0f64..50.0,
        ) {
            let rows = rows(&vec![[3.0, 4.0, 5.0]; pairs.len()]);
            let old = Table::new(pairs.iter().map(|pair| pair.0).collect());
            let new = Table::new(pairs.iter().map(|pair| pair.1).collect());
            let demand: Vec<f64> = pairs.iter().map(|pair| pair.2).collect();
            let moved = step(&old, &new, &rows, &demand, &limits(budget));
            let tolerance = 1e-3 * (1.0 + demand.iter().sum::<f64>());
            prop_assert!(moved.traffic - moved.forced <= budget + tolerance);
            prop_assert!((old.moved(&moved.table, &demand) - moved.traffic).abs() <= tolerance);
            prop_assert!(new.moved(&moved.table, &demand) <= new.moved(&old, &demand) + tolerance);
            prop_assert_eq!(moved.complete, moved.table == new);
        }
    }
}
