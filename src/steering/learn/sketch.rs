//! The median of what was measured of late, in little memory.
//!
//! A histogram of fixed bins whose weights decay, as DDSketch (Masson, Rim, Lee 2019) has it for its bins on a
//! logarithmic scale: the median is known to within a bin whatever came and in whatever order, it is the same on every
//! run, and all weights decay alike, so one factor makes an old histogram a lighter one. A reservoir of samples needs
//! chance, and as many samples as this has bins to be half as exact; P² and its kin cannot forget.
//!
//! It counts in bins: what a bin is (so many per cent, so many ms) is for who adds to know.

/// Bins kept; beyond it the lightest joins its nearest neighbour. Round-trip times of one place to one region lie within
/// some twenty bins of 3 %.
pub const MAX_BINS: usize = 32;
/// A lighter bin is forgotten.
const DUST: f32 = 1e-3;

/// Sorted by index, no two equal; every weight is finite and above zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sketch {
    bins: Vec<Bin>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Bin {
    index: i16,
    weight: f32,
}

impl Sketch {
    /// `at` counts in bins; what is no number, or no weight, changes nothing.
    pub fn add(&mut self, at: f64, weight: f32) {
        if !at.is_finite() || !weight.is_finite() || weight <= 0.0 {
            return;
        }
        self.add_bin(at.floor().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16, weight);
    }

    fn add_bin(&mut self, index: i16, weight: f32) {
        match self.bins.binary_search_by_key(&index, |bin| bin.index) {
            Ok(found) => self.bins[found].weight += weight,
            Err(place) => {
                if self.bins.len() == self.bins.capacity() {
                    // Doubling would leave half of most histograms empty.
                    self.bins.reserve_exact(4);
                }
                self.bins.insert(place, Bin { index, weight });
                if self.bins.len() > MAX_BINS {
                    self.join_lightest();
                }
            }
        }
    }

    fn join_lightest(&mut self) {
        let lightest = (0..self.bins.len()).min_by(|a, b| self.bins[*a].weight.total_cmp(&self.bins[*b].weight));
        let Some(lightest) = lightest else { return };
        let gone = self.bins.remove(lightest);
        let away = |place: usize| self.bins.get(place).map_or(i32::MAX, |bin| gone.index.abs_diff(bin.index).into());
        let below = lightest.checked_sub(1);
        let into = match below {
            Some(below) if away(below) <= away(lightest) => below,
            _ => lightest,
        };
        if let Some(bin) = self.bins.get_mut(into) {
            bin.weight += gone.weight;
        }
    }

    /// Makes all weights `factor` of what they are.
    pub fn scale(&mut self, factor: f32) {
        self.bins.iter_mut().for_each(|bin| bin.weight *= factor);
        self.bins.retain(|bin| bin.weight > DUST);
    }

    pub fn total(&self) -> f32 {
        self.bins.iter().map(|bin| bin.weight).sum()
    }

    /// In bins, between them where the half lies between; `None` of nothing.
    pub fn median(&self) -> Option<f64> {
        let half = f64::from(self.total()) / 2.0;
        let mut below = 0.0;
        for bin in &self.bins {
            let weight = f64::from(bin.weight);
            if below + weight >= half {
                return Some(f64::from(bin.index) + ((half - below) / weight).clamp(0.0, 1.0));
            }
            below += weight;
        }
        self.bins.last().map(|bin| f64::from(bin.index) + 1.0)
    }

    /// `12:3.50 13:1.00`, at most the heaviest `most` bins; the others join them.
    pub fn written(&self, most: usize) -> String {
        let mut short = self.clone();
        while short.bins.len() > most {
            short.join_lightest();
        }
        short.bins.iter().map(|bin| format!("{}:{:.2}", bin.index, bin.weight)).collect::<Vec<_>>().join(" ")
    }

    /// Reads what [`Sketch::written`] wrote. `None`: it is not that.
    pub fn read(text: &str) -> Option<Sketch> {
        let mut sketch = Sketch::default();
        for word in text.split_ascii_whitespace() {
            let (index, weight) = word.split_once(':')?;
            let (index, weight): (i16, f32) = (index.parse().ok()?, weight.parse().ok()?);
            if !weight.is_finite() || !(0.0..=1e6).contains(&weight) {
                return None;
            }
            if weight > DUST {
                sketch.add_bin(index, weight);
            }
        }
        Some(sketch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_median_is_known_to_a_bin_where_the_bins_suffice(mut at in prop::collection::vec(0.0..30.0f64, 1..400)) {
            let mut sketch = Sketch::default();
            at.iter().for_each(|&at| sketch.add(at, 1.0));
            at.sort_by(f64::total_cmp);
            let (low, high) = (at[(at.len() - 1) / 2], at[at.len() / 2]);
            let median = sketch.median().unwrap();
            prop_assert!(median >= low - 1.0 && median <= high + 1.0, "{median} outside {low} to {high}");
        }

        #[test]
        fn whatever_comes_it_stays_small_and_a_number(
            words in prop::collection::vec((any::<f64>(), any::<f32>()), 0..300),
            factor in 0.0..1.0f32,
        ) {
            let mut sketch = Sketch::default();
            words.iter().for_each(|&(at, weight)| sketch.add(at, weight.min(1e6)));
            sketch.scale(factor);
            prop_assert!(sketch.bins.len() <= MAX_BINS && sketch.total().is_finite());
            prop_assert!(sketch.median().is_none_or(f64::is_finite));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9:. eNa]{0,60}") {
            if let Some(sketch) = Sketch::read(&text) {
                prop_assert!(sketch.total().is_finite() && sketch.bins.len() <= MAX_BINS);
            }
        }
    }

    #[test]
    fn joining_keeps_all_weight_and_the_middle() {
        let mut sketch = Sketch::default();
        // A heavy middle, and more light ends than there is room for.
        (0..100).for_each(|_| sketch.add(50.5, 1.0));
        (0..100).for_each(|at| sketch.add(f64::from(at), 0.1));
        assert_eq!(sketch.bins.len(), MAX_BINS);
        assert!((sketch.total() - 110.0).abs() < 1e-3);
        assert!((sketch.median().unwrap() - 50.5).abs() < 0.5);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut sketch = Sketch::default();
        [3.2, 3.9, -7.0, 12.0].iter().for_each(|&at| sketch.add(at, 1.0));
        assert_eq!(sketch.written(MAX_BINS), "-7:1.00 3:2.00 12:1.00");
        assert_eq!(Sketch::read(&sketch.written(MAX_BINS)), Some(sketch.clone()));
        assert_eq!(sketch.written(2), "3:3.00 12:1.00");
        for bad in ["3", "3:", "x:1", "3:NaN", "3:-1", "99999:1", "3:inf"] {
            assert_eq!(Sketch::read(bad), None, "{bad}");
        }
    }
}
