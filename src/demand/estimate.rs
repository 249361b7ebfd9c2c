//! Queries/s of every group and cell, from counts of 10 s.
//!
//! ```text
//! counts of a window ─► heavy keys: what their caches hid, and no more than their part ─► EWMA ─► rate by group and cell
//! ```
//!
//! *What caches hide.* A resolver that caches for T seconds and asks q times a second stands for
//! `λ = q / (1 − min(q·T, 0.9))` viewers a second. That is applied to keys of which the [`Sketch`] knows how often they
//! ask; of the others λ ≈ q. One cache asks at most 1/T times a second: a key that asks more is several caches, or none,
//! and its queries count at most ten times whatever it asks.
//!
//! *What one key can do.* No key makes more than a twentieth of what its group asks in a window, or three times its equal
//! part where fewer than sixty keys ask. So one source in a hurry moves no plan, and one of three resolvers is believed.
//!
//! *Memory.* Groups have a row of cells each while there is room for [`MAX_SLOTS`]; those that ask first, first. The others
//! have a total each and one row for the shape of all of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::asked::Asked;
use super::layout::{Cells, Group};
use super::sketch::Sketch;

/// Counts are taken for so long.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Groups × cells that have a rate of their own: 16 MiB.
pub const MAX_SLOTS: usize = 1 << 20;

const RISING_S: f64 = 30.0;
const FALLING_S: f64 = 120.0;
/// Cells of another load are not quite the same, and the sketch begins anew: rates fall no sooner.
const SETTLING: Duration = Duration::from_secs(120);
/// `q·T` from which the correction grows no further (STEERING §7).
const MOST_HIDDEN: f64 = 0.9;
/// What one key may make of its group.
const PART: f64 = 0.05;
/// Where few keys ask: so many times its equal part.
const FEW: f64 = 3.0;

/// Of a row's group: none yet.
const NO_ROW: u16 = u16::MAX;

/// Counts and rates of the cells of one group.
#[derive(Clone, Default)]
struct Row {
    /// Of the window.
    counts: Vec<f64>,
    /// Queries/s.
    rates: Vec<f64>,
}

impl Row {
    fn new(cells: usize) -> Row {
        Row { counts: vec![0.0; cells], rates: vec![0.0; cells] }
    }
}

#[derive(Clone)]
struct Member {
    row: u16,
    count: f64,
    rate: f64,
    /// Asked, seeded or carried over.
    has_data: bool,
}

/// What is known of the demand of one load's groups and cells.
pub struct Estimate {
    groups: Vec<Group>,
    cells: Arc<Cells>,
    members: Vec<Member>,
    rows: Vec<Row>,
    /// Of the groups without a row, together. Made when the first of them asks.
    shared: Option<Row>,
    /// Groups × cells that may have a rate.
    slots: usize,
    sketch: Sketch,
    window: Instant,
    falls_from: Option<Instant>,
}

/// Rates by cell: a shape and a factor, so that groups may share a shape.
#[derive(Clone, Copy, Debug)]
pub struct Rates<'a> {
    shape: &'a [f64],
    factor: f64,
}

impl<'a> Rates<'a> {
    pub(super) fn new(shape: &'a [f64], factor: f64) -> Rates<'a> {
        Rates { shape, factor }
    }

    /// Of one cell; 0 beyond the last.
    #[cfg(test)]
    fn at(self, cell: usize) -> f64 {
        self.shape.get(cell).map_or(0.0, |shape| shape * self.factor)
    }

    /// By cell. Empty where nothing is known.
    pub fn iter(self) -> impl Iterator<Item = f64> + 'a {
        self.shape.iter().map(move |shape| shape * self.factor)
    }

    pub fn total(self) -> f64 {
        self.shape.iter().sum::<f64>() * self.factor
    }
}

impl Estimate {
    pub fn new(groups: Vec<Group>, cells: Arc<Cells>, now: Instant) -> Estimate {
        Estimate::within(MAX_SLOTS, groups, cells, now)
    }

    fn within(slots: usize, groups: Vec<Group>, cells: Arc<Cells>, now: Instant) -> Estimate {
        let members = vec![Member { row: NO_ROW, count: 0.0, rate: 0.0, has_data: false }; groups.len()];
        Estimate {
            members,
            slots,
            groups,
            cells,
            rows: Vec::new(),
            shared: None,
            sketch: Sketch::default(),
            window: now,
            falls_from: None,
        }
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub fn cells(&self) -> &Arc<Cells> {
        &self.cells
    }

    /// Counts an answer that stands for `weight` (≥ 1 where others were lost). What this load does not have is not counted.
    pub fn count(&mut self, asked: Asked, weight: f64) {
        let (group, cell) = (asked.group() as usize, usize::from(asked.cell().0));
        if group >= self.members.len() || cell >= self.cells.count() {
            return;
        }
        self.row_of(group).counts[cell] += weight;
        self.members[group].count += weight;
        self.sketch.count(asked, weight);
    }

    /// The row that a group counts into.
    fn row_of(&mut self, group: usize) -> &mut Row {
        let (member, cells) = (&mut self.members[group], self.cells.count());
        // One is for the groups that share.
        let max_rows = (self.slots / cells.max(1)).saturating_sub(1).min(usize::from(NO_ROW));
        member.has_data = true;
        if member.row == NO_ROW && self.rows.len() < max_rows && self.shared.is_none() {
            member.row = self.rows.len() as u16;
            self.rows.push(Row::new(cells));
        }
        match self.rows.get_mut(usize::from(member.row)) {
            Some(row) => row,
            None => self.shared.get_or_insert_with(|| Row::new(cells)),
        }
    }

    /// Ends the window if its time is over. Returns how long it was.
    pub fn close(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.window);
        if passed < WINDOW {
            return None;
        }
        self.window = now;
        self.sketch.age(passed);
        self.correct();
        self.sketch.fade(passed);
        let falls = self.falls_from.is_none_or(|from| now >= from);
        let smooth = |rate: &mut f64, count: &mut f64| {
            let seen = std::mem::take(count) / passed.as_secs_f64();
            if seen < *rate && !falls {
                return;
            }
            let time = if seen > *rate { RISING_S } else { FALLING_S };
            *rate += (1.0 - (-passed.as_secs_f64() / time).exp()) * (seen - *rate);
        };
        for Row { counts, rates } in self.rows.iter_mut().chain(&mut self.shared) {
            rates.iter_mut().zip(counts).for_each(|(rate, count)| smooth(rate, count));
        }
        self.members.iter_mut().for_each(|member| smooth(&mut member.rate, &mut member.count));
        Some(passed)
    }

    /// Adds to the counts what caches hid, and takes from them what one key has too much of.
    fn correct(&mut self) {
        let mut heavy: Vec<(Asked, f64, f64)> = Vec::new();
        for slot in self.sketch.slots().iter().filter(|slot| slot.recent > 0.0) {
            let Some(group) = self.groups.get(slot.key.group() as usize) else { continue };
            let hidden = slot.rate().map_or(0.0, |rate| (rate * group.ttl_s.max(0.0)).min(MOST_HIDDEN));
            heavy.push((slot.key, slot.recent, slot.recent / (1.0 - hidden)));
        }
        heavy.sort_unstable_by(|a, b| (a.0.group(), b.2).partial_cmp(&(b.0.group(), a.2)).expect("counts are numbers"));
        for keys in heavy.chunk_by(|a, b| a.0.group() == b.0.group()) {
            let group = keys[0].0.group() as usize;
            let asked: f64 = keys.iter().map(|(_, asked, _)| asked).sum();
            // A key that was replaced in the sketch counts as it asked.
            let others = (self.members[group].count - asked).max(0.0);
            let most = most_of_one(others, keys.iter().map(|(.., meant)| *meant));
            for &(key, asked, meant) in keys {
                let more = meant.min(most) - asked;
                let cell = usize::from(key.cell().0);
                let count = &mut self.row_of(group).counts[cell];
                *count = (*count + more).max(0.0);
                let count = &mut self.members[group].count;
                *count = (*count + more).max(0.0);
            }
        }
    }

    /// Queries/s by cell.
    pub fn rates(&self, group: u32) -> Rates<'_> {
        let Some(member) = self.members.get(group as usize).filter(|member| member.has_data) else {
            return Rates::new(&[], 0.0);
        };
        if let Some(row) = self.rows.get(usize::from(member.row)) {
            return Rates::new(&row.rates, 1.0);
        }
        let shape = self.shared.as_ref().map_or(&[][..], |row| &row.rates);
        let sum: f64 = shape.iter().sum();
        Rates::new(shape, if sum > 0.0 { member.rate / sum } else { 0.0 })
    }

    /// Whether a group has a row of its own.
    #[cfg(test)]
    fn has_row(&self, group: u32) -> bool {
        self.members.get(group as usize).is_some_and(|member| usize::from(member.row) < self.rows.len())
    }

    pub fn has_data(&self, group: u32) -> bool {
        self.members.get(group as usize).is_some_and(|member| member.has_data)
    }

    /// Queries/s of a group.
    pub fn total(&self, group: u32) -> f64 {
        self.members.get(group as usize).map_or(0.0, |member| member.rate)
    }

    /// Queries/s of all groups, by cell.
    pub fn everywhere(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.cells.count()];
        for row in self.rows.iter().chain(&self.shared) {
            sums.iter_mut().zip(&row.rates).for_each(|(sum, rate)| *sum += rate);
        }
        sums
    }

    /// Gives a group that has not asked so far the rates that it begins with, queries/s by cell.
    pub fn seed(&mut self, group: u32, rates: &[f64]) {
        let group = group as usize;
        if self.members.get(group).is_none_or(|member| member.has_data) {
            return;
        }
        let clean = |rate: &f64| if rate.is_finite() { rate.max(0.0) } else { 0.0 };
        let mut total = 0.0;
        for (known, rate) in self.row_of(group).rates.iter_mut().zip(rates.iter().map(clean)) {
            *known += rate;
            total += rate;
        }
        self.members[group].rate = total;
    }

    /// Gives groups other names, old and new, by which the next load will know them.
    pub fn rename(&mut self, names: &[(Arc<str>, Arc<str>)]) {
        for group in &mut self.groups {
            if let Some((_, new)) = names.iter().find(|(old, _)| *old == group.name) {
                group.name = Arc::clone(new);
            }
        }
    }

    /// Goes on in another load: groups are known by their names, cells by their squares. The window that is open goes on, so
    /// that loads close upon another do not make it deaf.
    pub fn adopt(&mut self, groups: Vec<Group>, cells: Arc<Cells>, now: Instant) {
        let same_cells = Arc::ptr_eq(&cells, &self.cells) || cells == self.cells;
        let mut next = Estimate::within(self.slots, groups, cells, now);
        let mut before: Vec<u32> = (0..self.groups.len() as u32).filter(|group| self.has_data(*group)).collect();
        // The busiest have the first rows.
        before.sort_by(|a, b| self.total(*b).total_cmp(&self.total(*a)));
        let numbers: HashMap<&str, u32> =
            next.groups.iter().zip(0..).map(|(group, number)| (&*group.name, number)).collect();
        let mut renamed = vec![None; self.groups.len()];
        for group in &before {
            renamed[*group as usize] = numbers.get(&*self.groups[*group as usize].name).copied();
        }
        for group in before {
            let Some(number) = renamed[group as usize] else { continue };
            let cells = Arc::clone(&next.cells);
            let carried = |values: &mut dyn Iterator<Item = f64>| -> Vec<f64> {
                match same_cells {
                    true => values.collect(),
                    false => cells.spread(self.cells.squares.iter().copied().zip(self.cells.by_square(values))),
                }
            };
            next.seed(number, &carried(&mut self.rates(group).iter()));
            let member = &self.members[group as usize];
            let Some(row) = self.rows.get(usize::from(member.row)) else { continue };
            let counts = carried(&mut row.counts.iter().copied());
            next.row_of(number as usize).counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            next.members[number as usize].count += member.count;
        }
        next.window = self.window;
        if same_cells {
            next.sketch = std::mem::take(&mut self.sketch);
            next.sketch.rename(|key| key.in_group(*renamed.get(key.group() as usize)?.as_ref()?));
            next.falls_from = self.falls_from;
        } else {
            next.falls_from = Some(now + SETTLING);
        }
        *self = next;
    }
}

/// What a key may count for, so that it makes no more than its part. `others`: what keys that are not listed count for;
/// `keys`: in falling order.
fn most_of_one(others: f64, keys: impl Iterator<Item = f64> + Clone) -> f64 {
    let part = PART.max(FEW / keys.clone().count().max(1) as f64);
    if part >= 1.0 {
        return f64::INFINITY;
    }
    // With the first `above` cut to `most`: most = part · (rest + above · most).
    let mut rest = others + keys.clone().sum::<f64>();
    for (above, key) in keys.enumerate() {
        let left = 1.0 - above as f64 * part;
        let most = part * rest / left;
        if left <= part || key <= most {
            return most.max(if left <= part { key } else { 0.0 });
        }
        rest = (rest - key).max(0.0);
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::demand::country_square::CountrySquare;
    use crate::geo::CellId;

    fn groups(names: &[&str], ttl_s: f64) -> Vec<Group> {
        names.iter().map(|name| Group { name: (*name).into(), ttl_s }).collect()
    }

    /// A square a cell, all of one weight.
    fn cells(count: usize) -> Arc<Cells> {
        let squares: Box<[CountrySquare]> =
            (0..count).map(|i| format!("FR:{}:{}", i / 100, i % 100).parse().unwrap()).collect();
        let weight: Box<[f64]> = vec![1.0 / count as f64; count].into();
        Arc::new(Cells { square: (0..count as u16).collect(), squares, square_weight: weight.clone(), weight })
    }

    fn asked(group: u32, cell: u16, key: u64) -> Asked {
        Asked::new(group, CellId(cell), key << 33).unwrap()
    }

    /// Runs windows; `asks` is called once a second.
    fn run(estimate: &mut Estimate, from: Instant, seconds: u64, mut asks: impl FnMut(&mut Estimate, u64)) -> Instant {
        for second in 0..seconds {
            asks(estimate, second);
            estimate.close(from + Duration::from_secs(second + 1));
        }
        from + Duration::from_secs(seconds)
    }

    #[test]
    fn rates_rise_within_half_a_minute_and_fall_in_two() {
        let now = Instant::now();
        let mut estimate = Estimate::new(groups(&["a"], 0.0), cells(2), now);
        // A thousand keys that no cache is seen behind.
        let mut ask = |estimate: &mut Estimate, second: u64| {
            (0..100).for_each(|i| estimate.count(asked(0, 1, second * 100 + i), 1.0));
        };
        let now = run(&mut estimate, now, 30, &mut ask);
        let risen = 100.0 * (1.0 - (-1.0f64).exp());
        assert!((estimate.rates(0).at(1) - risen).abs() < 0.1, "{:?}", estimate.rates(0).at(1));
        assert_eq!(estimate.rates(0).at(0), 0.0);
        run(&mut estimate, now, 120, |_, _| ());
        assert!((estimate.total(0) - risen * (-1.0f64).exp()).abs() < 0.1, "{}", estimate.total(0));
    }

    #[test]
    fn a_caching_resolvers_viewers_are_seen_behind_its_cache() {
        // A hundred resolvers, each with 0.2 viewers/s behind a cache of 20 s: each asks 0.04 times a second.
        let now = Instant::now();
        let mut estimate = Estimate::new(groups(&["a"], 20.0), cells(1), now);
        run(&mut estimate, now, 1500, |estimate, second| {
            (0..100).filter(|key| (second + key) % 25 == 0).for_each(|key| estimate.count(asked(0, 0, key), 1.0));
        });
        assert!((estimate.total(0) - 20.0).abs() < 2.0, "{}", estimate.total(0));
        assert!((estimate.rates(0).total() - estimate.total(0)).abs() < 1e-6);
    }

    #[test]
    fn a_key_in_haste_makes_a_twentieth_of_its_group_and_no_more() {
        let now = Instant::now();
        let mut estimate = Estimate::new(groups(&["a"], 20.0), cells(2), now);
        run(&mut estimate, now, 600, |estimate, second| {
            (0..200).filter(|key| (second + key) % 10 == 0).for_each(|key| estimate.count(asked(0, 0, key), 1.0));
            (0..1000).for_each(|_| estimate.count(asked(0, 1, 1 << 20), 1.0));
        });
        let (others, flood) = (estimate.rates(0).at(0), estimate.rates(0).at(1));
        assert!(flood <= 0.0501 * (others + flood) && flood > 0.0, "{flood} of {}", others + flood);
    }

    #[test]
    fn one_of_few_is_believed() {
        let now = Instant::now();
        let mut estimate = Estimate::new(groups(&["a"], 0.0), cells(2), now);
        run(&mut estimate, now, 300, |estimate, _| {
            (0..50).for_each(|_| estimate.count(asked(0, 0, 1), 1.0));
            estimate.count(asked(0, 1, 2), 1.0);
        });
        assert!(estimate.rates(0).at(0) > 49.0, "{}", estimate.rates(0).at(0));
    }

    #[test]
    fn groups_beyond_the_bound_share_one_shape() {
        let now = Instant::now();
        // Room for one row and the shared one.
        let mut estimate = Estimate::within(4, groups(&["a", "b", "c"], 0.0), cells(2), now);
        run(&mut estimate, now, 600, |estimate, second| {
            estimate.count(asked(0, 0, second), 1.0);
            (0..3).for_each(|i| estimate.count(asked(1, 0, second * 3 + i), 1.0));
            estimate.count(asked(2, 1, second), 1.0);
        });
        assert_eq!([0, 1, 2].map(|group| estimate.has_row(group)), [true, false, false]);
        assert_eq!(estimate.rates(0).at(1), 0.0);
        for (group, total) in [(1, 3.0), (2, 1.0)] {
            let rates = estimate.rates(group);
            assert!((rates.total() - total).abs() < 0.05, "{}", rates.total());
            assert!((rates.at(0) / rates.at(1) - 3.0).abs() < 0.05);
        }
        let everywhere: f64 = estimate.everywhere().iter().sum();
        assert!((everywhere - 5.0).abs() < 0.1, "{everywhere}");
    }

    #[test]
    fn a_reload_keeps_rates_by_name_and_square() {
        let now = Instant::now();
        let mut estimate = Estimate::new(groups(&["gone", "stays"], 0.0), cells(3), now);
        let now = run(&mut estimate, now, 600, |estimate, second| {
            estimate.count(asked(0, 0, second), 1.0);
            estimate.count(asked(1, 2, second), 1.0);
        });
        let before = estimate.total(1);
        let squares: Box<[CountrySquare]> = ["US:1:1", "FR:0:2"].map(|s| s.parse().unwrap()).into();
        let weight: Box<[f64]> = [0.5, 0.25, 0.25].into();
        let other = Cells { weight, square: [0, 1, 1].into(), squares, square_weight: [0.5, 0.5].into() };
        estimate.adopt(groups(&["new", "stays"], 0.0), Arc::new(other), now);
        assert!(!estimate.has_data(0));
        let rates: Vec<f64> = estimate.rates(1).iter().collect();
        assert!((rates[1] - before / 2.0).abs() < 1e-9 && (rates[2] - before / 2.0).abs() < 1e-9, "{rates:?}");
        run(&mut estimate, now, 110, |_, _| ());
        assert_eq!(estimate.total(1), before, "rates do not fall before the counts have settled");
        let same = Arc::new((**estimate.cells()).clone());
        estimate.adopt(groups(&["stays"], 0.0), same, now);
        assert_eq!((estimate.total(0), estimate.rates(0).total()), (before, before));
    }

    #[test]
    fn reloads_every_second_lose_nothing_of_what_is_asked() {
        let now = Instant::now();
        let mut estimate = Estimate::new(groups(&["live"], 0.0), cells(3), now);
        run(&mut estimate, now, 600, |estimate, second| {
            estimate.adopt(groups(&["live"], 0.0), cells(3), now + Duration::from_secs(second));
            (0..10).for_each(|n| estimate.count(asked(0, (n % 3) as u16, second * 10 + n), 1.0));
        });
        assert!((estimate.total(0) - 10.0).abs() < 0.5, "{}", estimate.total(0));
    }

    #[test]
    fn a_group_goes_on_under_another_name() {
        let now = Instant::now();
        let mut estimate = Estimate::new(groups(&["live", "home"], 0.0), cells(3), now);
        let now = run(&mut estimate, now, 600, |estimate, second| estimate.count(asked(0, 0, second), 1.0));
        let before = estimate.total(0);
        estimate.rename(&[("live".into(), "a".into())]);
        estimate.adopt(groups(&["home", "a"], 0.0), cells(3), now);
        assert_eq!((estimate.total(0), estimate.total(1)), (0.0, before));
    }

    proptest! {
        #[test]
        fn any_counts_give_rates_that_are_numbers_and_no_key_more_than_its_part(
            asks in prop::collection::vec((0u32..4, 0u16..5, 0u64..300, 1.0f64..16.0), 0..2_000),
            ttl in prop_oneof![Just(0.0), Just(20.0), any::<f64>()], late in 0u64..100_000,
        ) {
            let now = Instant::now();
            let mut estimate = Estimate::within(8, groups(&["a", "b", "c"], ttl), cells(4), now);
            asks.iter().for_each(|&(group, cell, key, weight)| estimate.count(asked(group, cell, key), weight));
            estimate.close(now + Duration::from_secs(10 + late));
            for group in 0..4 {
                let rates = estimate.rates(group);
                prop_assert!(rates.iter().chain([rates.total()]).all(|rate| rate.is_finite() && rate >= 0.0));
            }
        }

        #[test]
        fn the_cut_holds_for_any_keys(others in 0.0f64..1e6, mut keys in prop::collection::vec(0.001f64..1e6, 1..200)) {
            keys.sort_by(|a, b| b.total_cmp(a));
            let most = most_of_one(others, keys.iter().copied());
            let part = PART.max(FEW / keys.len() as f64);
            let all = others + keys.iter().map(|key| key.min(most)).sum::<f64>();
            prop_assert!(part >= 1.0 || keys[0].min(most) <= part * all * (1.0 + 1e-6), "{} of {}", most, all);
            // And nobody is cut without need.
            prop_assert!(keys.iter().filter(|key| **key > most).count() as f64 * part <= 1.0 + 1e-9);
        }
    }
}
