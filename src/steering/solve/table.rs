//! The plan: to which regions each row goes, and with which weights.

/// Candidates of a row at most.
pub const CANDIDATES: usize = 4;

/// What the weights of a row sum to.
pub const WHOLE: u16 = u16::MAX;

/// Regions of one row with weights that sum to [`WHOLE`]; those with weight 0 are none. Empty for a row that may go
/// nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    regions: [u8; CANDIDATES],
    weights: [u16; CANDIDATES],
}

impl Mix {
    pub const EMPTY: Mix = Mix { regions: [0; CANDIDATES], weights: [0; CANDIDATES] };

    pub fn only(region: u8) -> Mix {
        Mix { regions: [region, 0, 0, 0], weights: [WHOLE, 0, 0, 0] }
    }

    /// Of shares that need not sum to 1: the greatest four of them. What is not positive and finite is left out.
    pub fn of(shares: impl IntoIterator<Item = (u8, f64)>) -> Mix {
        let mut best = [(0u8, 0.0f64); CANDIDATES];
        for (region, share) in shares {
            if share.is_finite() && share > best[CANDIDATES - 1].1 {
                let mut at = CANDIDATES - 1;
                while at > 0 && best[at - 1].1 < share {
                    best[at] = best[at - 1];
                    at -= 1;
                }
                best[at] = (region, share);
            }
        }
        let sum: f64 = best.iter().map(|&(_, share)| share).sum();
        if sum <= 0.0 || !sum.is_finite() {
            return Mix::EMPTY;
        }
        let mut mix = Mix::EMPTY;
        let (mut left, mut at) = (WHOLE, 0);
        for &(region, share) in &best[1..] {
            let weight = (share / sum * f64::from(WHOLE)).round() as u16;
            if weight > 0 {
                at += 1;
                (mix.regions[at], mix.weights[at]) = (region, weight);
                left -= weight;
            }
        }
        // The greatest takes what rounding leaves; it is at least a quarter.
        (mix.regions[0], mix.weights[0]) = (best[0].0, left);
        mix
    }

    /// Regions and weights, the greatest first.
    pub fn iter(&self) -> impl Iterator<Item = (u8, u16)> + '_ {
        self.regions.iter().copied().zip(self.weights).filter(|&(_, weight)| weight > 0)
    }

    /// Regions and parts, 0 to 1.
    pub fn parts(&self) -> impl Iterator<Item = (u8, f64)> + '_ {
        self.iter().map(|(region, weight)| (region, f64::from(weight) / f64::from(WHOLE)))
    }

    pub fn part(&self, region: u8) -> f64 {
        self.parts().find(|&(r, _)| r == region).map_or(0.0, |(_, part)| part)
    }

    pub fn is_empty(&self) -> bool {
        self.weights[0] == 0
    }

    /// What part goes elsewhere than with `other`: ½Σ|x − x′|, 0 to 1. All of it when exactly one of the two is empty.
    pub fn moved(&self, other: &Mix) -> f64 {
        if self == other {
            return 0.0;
        }
        if self.is_empty() != other.is_empty() {
            return 1.0;
        }
        self.parts().map(|(region, part)| (part - other.part(region)).max(0.0)).sum()
    }
}

/// A [`Mix`] for each row; 12 bytes a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Mix>,
}

impl Table {
    pub fn new(rows: Vec<Mix>) -> Table {
        Table { rows }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Panics for a row that is not there.
    pub fn row(&self, row: usize) -> &Mix {
        &self.rows[row]
    }

    pub fn rows(&self) -> &[Mix] {
        &self.rows
    }

    pub(super) fn rows_mut(&mut self) -> &mut [Mix] {
        &mut self.rows
    }

    /// Starts/s by region. Rows without demand given have none; regions beyond `regions` are left out.
    pub fn rates(&self, demand: &[f64], regions: usize) -> Vec<f64> {
        let mut rates = vec![0.0; regions];
        for (mix, &demand) in self.rows.iter().zip(demand) {
            let demand = super::supply::door(demand);
            for (region, part) in mix.parts() {
                if let Some(rate) = rates.get_mut(usize::from(region)) {
                    *rate += demand * part;
                }
            }
        }
        rates
    }

    /// Share of all starts by region, 0 to 1; all 0 without demand.
    pub fn shares(&self, demand: &[f64], regions: usize) -> Vec<f64> {
        let mut rates = self.rates(demand, regions);
        let sum: f64 = rates.iter().sum();
        rates.iter_mut().for_each(|rate| *rate = if sum > 0.0 { *rate / sum } else { 0.0 });
        rates
    }

    /// Traffic that goes elsewhere than with `other`, starts/s: Σ λ·½Σ|x − x′|.
    pub fn moved(&self, other: &Table, demand: &[f64]) -> f64 {
        let rows = self.rows.iter().zip(&other.rows).zip(demand);
        rows.map(|((a, b), &demand)| super::supply::door(demand) * a.moved(b)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_four_greatest_shares_are_kept() {
        let mix = Mix::of([(0, 0.1), (1, 0.3), (2, f64::NAN), (3, 0.2), (4, -1.0), (5, 0.25), (6, 0.15)]);
        assert_eq!(mix.iter().map(|(region, _)| region).collect::<Vec<_>>(), [1, 5, 3, 6]);
        assert!(Mix::of([]).is_empty() && Mix::of([(1, 0.0)]).is_empty());
        assert_eq!(Mix::of([(7, 1e-300)]), Mix::only(7));
    }

    #[test]
    fn moved_traffic_is_half_of_the_differences() {
        let a = Table::new(vec![Mix::only(0), Mix::of([(0, 1.0), (1, 1.0)]), Mix::EMPTY]);
        let b = Table::new(vec![Mix::only(1), Mix::only(0), Mix::EMPTY]);
        assert!((a.moved(&b, &[3.0, 4.0, 9.0]) - 5.0).abs() < 1e-3);
        assert_eq!(a.moved(&b, &[3.0, 4.0, 9.0]), b.moved(&a, &[3.0, 4.0, 9.0]));
        assert!((b.shares(&[3.0, 1.0, 2.0], 2)[1] - 0.75).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn weights_sum_to_the_whole(shares in prop::collection::vec(any::<f64>(), 0..12)) {
            let mix = Mix::of((0..).zip(shares.iter().copied()));
            let sum: u32 = mix.iter().map(|(_, weight)| u32::from(weight)).sum();
            prop_assert!(sum == u32::from(WHOLE) || mix.is_empty());
            prop_assert!(mix.moved(&mix) == 0.0);
        }
    }
}
