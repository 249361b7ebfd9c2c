//! What is steered: rows of costs, one for each group of streams and cell, each with its regions sorted by cost.

use std::collections::HashMap;

/// Regions at most; their numbers fit six bits.
pub const REGIONS: usize = 64;

/// Costs are kept within these bounds, ms.
const COST: (f32, f32) = (-10_000.0, 100_000.0);

/// What a region costs where it may not be sent to. Finite, so that no sum of costs is NaN.
pub(super) const BARRED: f32 = f32::from_bits(0x7E80_0000);

/// Regions of a row that stand together with the first ones of other rows: a cache line.
const FRONT: usize = 16;

const REGION: u32 = REGIONS as u32 - 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShapeError {
    TooManyRegions {
        regions: usize,
    },
    /// Costs that are not one for each region of each row.
    Uneven {
        costs: usize,
        rows: usize,
        regions: usize,
    },
}

impl std::fmt::Display for ShapeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ShapeError::TooManyRegions { regions } => write!(f, "{regions} regions; at most {REGIONS} can be steered"),
            ShapeError::Uneven { costs, rows, regions } => {
                write!(f, "{costs} costs are not those of {rows} rows of {regions} regions")
            }
        }
    }
}

impl std::error::Error for ShapeError {}

/// The costs of all rows, ms, sorted once; share it by `Arc`.
///
/// A cost and its region are one word: the last six of a cost's 23 bits of mantissa hold the region. So costs are cut
/// by at most 1/100,000, which all results take into account, and 16 regions fit a cache line. A solve seldom looks further
/// than that, so what comes after stands elsewhere: 40,000 rows of 64 regions are read as 2.5 MB, not 10.
#[derive(Clone, Debug)]
pub struct Rows {
    words: Words,
    groups: Option<Box<Groups>>,
}

/// By row: its regions by cost, those barred last.
#[derive(Clone, Debug)]
struct Words {
    regions: usize,
    count: usize,
    /// Up to [`FRONT`] of each row, and the rest of each.
    front: Vec<u32>,
    back: Vec<u32>,
}

impl Words {
    fn new(regions: usize, count: usize) -> Words {
        let front = regions.min(FRONT);
        Words { regions, count, front: vec![0; count * front], back: vec![0; count * (regions - front)] }
    }

    #[inline]
    fn row(&self, row: usize) -> [&[u32]; 2] {
        let front = self.regions.min(FRONT);
        let back = self.regions - front;
        [&self.front[row * front..][..front], &self.back[row * back..][..back]]
    }

    /// Panics unless there is a cost for each region.
    fn set(&mut self, row: usize, costs: impl Iterator<Item = f32>) {
        let mut words = [0; REGIONS];
        let words = &mut words[..self.regions];
        sort(words, costs);
        let front = self.regions.min(FRONT);
        let back = self.regions - front;
        self.front[row * front..][..front].copy_from_slice(&words[..front]);
        self.back[row * back..][..back].copy_from_slice(&words[front..]);
    }

    /// The regions a row may be sent to and their costs, ms, the least first.
    fn sorted(&self, row: usize) -> impl Iterator<Item = (u8, f32)> + '_ {
        self.row(row).into_iter().flatten().map(|&word| unpack(word)).take_while(|&(_, cost)| cost < BARRED)
    }
}

/// Rows joined, for solves that need not be exact.
#[derive(Clone, Debug)]
struct Groups {
    /// By row.
    of: Vec<u32>,
    /// Group and region: sum of costs and their number.
    sums: Vec<(f64, u32)>,
    rows: Rows,
}

impl Rows {
    /// Costs in ms, row after row, one for each region; infinite (or NaN) where a region may not be sent to. `groups`
    /// has a number for each row; rows of one number are solved as one where a coarse answer will do.
    pub fn new(regions: usize, costs: &[f32], groups: &[u32]) -> Result<Rows, ShapeError> {
        if regions > REGIONS {
            return Err(ShapeError::TooManyRegions { regions });
        }
        let count = groups.len();
        if costs.len() != count * regions {
            return Err(ShapeError::Uneven { costs: costs.len(), rows: count, regions });
        }
        let mut rows = Rows { words: Words::new(regions, count), groups: None };
        if regions > 0 {
            for (row, costs) in costs.chunks_exact(regions).enumerate() {
                rows.words.set(row, costs.iter().copied());
            }
            rows.groups = Groups::new(&rows.words, groups).map(Box::new);
        }
        Ok(rows)
    }

    pub fn regions(&self) -> usize {
        self.words.regions
    }

    pub fn len(&self) -> usize {
        self.words.count
    }

    pub fn is_empty(&self) -> bool {
        self.words.count == 0
    }

    /// Costs of one row anew; the others stay sorted as they are. Panics for a row that is not there, or costs that are
    /// not one a region.
    pub fn set(&mut self, row: usize, costs: &[f32]) {
        assert_eq!(costs.len(), self.regions());
        if self.regions() == 0 {
            return;
        }
        if let Some(groups) = &mut self.groups {
            groups.replace(row, self.words.sorted(row), costs);
        }
        self.words.set(row, costs.iter().copied());
    }

    /// Cost as it was kept, ms; infinite where the row may not be sent.
    pub fn cost(&self, row: usize, region: u8) -> f32 {
        self.sorted(row).find(|&(r, _)| r == region).map_or(f32::INFINITY, |(_, cost)| cost)
    }

    /// The regions a row may be sent to and their costs, ms, the least first.
    pub fn sorted(&self, row: usize) -> impl Iterator<Item = (u8, f32)> + '_ {
        self.words.sorted(row)
    }

    /// The words of a row in two pieces, the least costs first; to be [`unpack`]ed.
    #[inline]
    pub(super) fn words(&self, row: usize) -> [&[u32]; 2] {
        self.words.row(row)
    }

    pub(super) fn groups(&self) -> Option<(&Rows, &[u32])> {
        self.groups.as_deref().map(|groups| (&groups.rows, &groups.of[..]))
    }
}

impl Groups {
    /// `None` if there would be no fewer groups than half of the rows.
    fn new(rows: &Words, groups: &[u32]) -> Option<Groups> {
        let mut ids: HashMap<u32, u32, foldhash::fast::RandomState> = HashMap::default();
        let of: Vec<u32> = groups
            .iter()
            .map(|group| {
                let next = ids.len() as u32;
                *ids.entry(*group).or_insert(next)
            })
            .collect();
        let (count, regions) = (ids.len(), rows.regions);
        if count * 2 > rows.count {
            return None;
        }
        let mut sums = vec![(0.0, 0); count * regions];
        for (row, &group) in of.iter().enumerate() {
            for (region, cost) in rows.sorted(row) {
                let sum = &mut sums[group as usize * regions + usize::from(region)];
                *sum = (sum.0 + f64::from(cost), sum.1 + 1);
            }
        }
        let mut words = Words::new(regions, count);
        for (group, sums) in sums.chunks_exact(regions).enumerate() {
            words.set(group, sums.iter().map(mean));
        }
        Some(Groups { of, sums, rows: Rows { words, groups: None } })
    }

    /// `old`: regions that the row may have been sent to, with their costs.
    fn replace(&mut self, row: usize, old: impl Iterator<Item = (u8, f32)>, costs: &[f32]) {
        let regions = self.rows.regions();
        let group = self.of[row] as usize;
        let sums = &mut self.sums[group * regions..][..regions];
        for (region, cost) in old {
            let sum = &mut sums[usize::from(region)];
            *sum = (sum.0 - f64::from(cost), sum.1 - 1);
        }
        for (region, &cost) in costs.iter().enumerate() {
            let cost = unpack(pack(region, cost)).1;
            if cost < BARRED {
                sums[region] = (sums[region].0 + f64::from(cost), sums[region].1 + 1);
            }
        }
        self.rows.words.set(group, sums.iter().map(mean));
    }
}

fn mean(&(sum, count): &(f64, u32)) -> f32 {
    if count == 0 { f32::INFINITY } else { (sum / f64::from(count)) as f32 }
}

fn pack(region: usize, cost: f32) -> u32 {
    let kept = if cost == f32::INFINITY || cost.is_nan() { BARRED } else { cost.clamp(COST.0, COST.1) };
    kept.to_bits() & !REGION | region as u32
}

#[inline]
pub(super) fn unpack(word: u32) -> (u8, f32) {
    ((word & REGION) as u8, f32::from_bits(word & !REGION))
}

fn sort(words: &mut [u32], costs: impl Iterator<Item = f32>) {
    for (region, (word, cost)) in words.iter_mut().zip(costs).enumerate() {
        *word = pack(region, cost);
    }
    // Equal costs by region, whatever their sign: the order is the same on every node.
    words.sort_unstable_by(|&a, &b| {
        let (a, b) = (unpack(a), unpack(b));
        a.1.total_cmp(&b.1).then(a.0.cmp(&b.0))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_lists_its_regions_by_cost() {
        let costs = [30.0, f32::INFINITY, -4.0, 30.0, f32::NAN, 1e30];
        let rows = Rows::new(6, &costs, &[0]).unwrap();
        let sorted: Vec<(u8, f32)> = rows.sorted(0).collect();
        assert_eq!(sorted.iter().map(|&(region, _)| region).collect::<Vec<_>>(), [2, 0, 3, 5]);
        assert_eq!(rows.cost(0, 0), 30.0);
        assert!((rows.cost(0, 5) - 100_000.0).abs() <= 1.0);
        assert!(rows.cost(0, 1).is_infinite() && rows.cost(0, 4).is_infinite());
    }

    #[test]
    fn costs_are_kept_to_a_hundred_thousandth() {
        let costs: Vec<f32> = (0..64).map(|i| 0.37 * 1.2f32.powi(i)).collect();
        let rows = Rows::new(64, &costs, &[0]).unwrap();
        for (region, cost) in costs.iter().enumerate() {
            assert!((rows.cost(0, region as u8) - cost).abs() <= cost * 1e-5);
        }
    }

    #[test]
    fn groups_have_the_mean_costs_of_their_rows_also_after_a_change() {
        let mut rows = Rows::new(2, &[10.0, 20.0, 30.0, f32::INFINITY, 1.0, 2.0, 3.0, 4.0], &[7, 7, 9, 9]).unwrap();
        let of = |rows: &Rows| {
            let (groups, of) = rows.groups().unwrap();
            assert_eq!(of, [0, 0, 1, 1]);
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(row, region)| groups.cost(row, region))
        };
        assert_eq!(of(&rows), [20.0, 20.0, 2.0, 3.0]);
        rows.set(1, &[f32::INFINITY, 40.0]);
        assert_eq!(of(&rows), [10.0, 30.0, 2.0, 3.0]);
        assert_eq!(rows.sorted(1).collect::<Vec<_>>(), [(1, 40.0)]);
    }

    #[test]
    fn costs_of_another_shape_are_refused() {
        assert!(matches!(Rows::new(65, &[], &[]), Err(ShapeError::TooManyRegions { .. })));
        let error = Rows::new(3, &[1.0; 5], &[0, 0]).unwrap_err();
        assert_eq!(error.to_string(), "5 costs are not those of 2 rows of 3 regions");
        assert!(Rows::new(0, &[], &[1, 2]).is_ok());
    }
}
