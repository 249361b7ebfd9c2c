//! What traffic costs in money: as ms that steering may add to a dear region, and as money an hour.
//!
//! Prices are in the operator's own unit of money for a GB (10^9 bytes), as a region's `cost` has them.

use std::time::Duration;

/// Bits of a GB.
const GB_BITS: f64 = 8e9;

/// How much farther a viewer may be sent to save money.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Money {
    /// For one unit of money a GB; finite and not negative.
    ms_per_unit: f64,
    cap: Duration,
}

/// No finite number of at least zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPrice;

impl Money {
    /// `cap`: the most that money may add to a region's cost.
    pub fn new(ms_per_unit: f64, cap: Duration) -> Result<Money, NoPrice> {
        if ms_per_unit.is_finite() && ms_per_unit >= 0.0 { Ok(Money { ms_per_unit, cap }) } else { Err(NoPrice) }
    }

    pub fn ms_per_unit(&self) -> f64 {
        self.ms_per_unit
    }

    pub fn cap(&self) -> Duration {
        self.cap
    }

    /// What each region's price adds to its cost, ms, by position: nothing to the cheapest of them, nor to one without a
    /// price, and never more than the cap. Prices that are no numbers, or negative, count as none.
    pub fn extra_ms(&self, prices: &[Option<f64>]) -> Vec<f64> {
        let sound = |price: &Option<f64>| price.filter(|price| price.is_finite() && *price >= 0.0);
        let cheapest = prices.iter().filter_map(sound).fold(f64::INFINITY, f64::min);
        let cap = self.cap.as_secs_f64() * 1000.0;
        prices.iter().map(|price| sound(price).map_or(0.0, |p| ((p - cheapest) * self.ms_per_unit).min(cap))).collect()
    }
}

/// Money an hour of so many sessions of `session_bits` bits/s each, at `price` a GB. Zero where one of them is no number, or
/// negative.
pub fn per_hour(sessions: f64, session_bits: f64, price: f64) -> f64 {
    let money = sessions * session_bits * 3600.0 / GB_BITS * price;
    let sound = [sessions, session_bits, price].iter().all(|factor| *factor >= 0.0);
    if sound && money.is_finite() { money } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_dearest_pays_no_more_than_the_cap() {
        let money = Money::new(100.0, Duration::from_millis(15)).unwrap();
        let extra = money.extra_ms(&[Some(0.02), Some(0.05), Some(9.0), None]);
        assert_eq!(extra[0], 0.0);
        assert!((extra[1] - 3.0).abs() < 1e-9);
        assert_eq!(extra[2..], [15.0, 0.0]);
    }

    #[test]
    fn an_hour_of_a_thousand_sessions_of_five_megabits() {
        // 1000 × 5 Mbit/s × 3600 s = 2250 GB.
        assert!((per_hour(1000.0, 5e6, 0.02) - 45.0).abs() < 1e-9);
        assert_eq!(per_hour(f64::MAX, f64::MAX, 1.0), 0.0);
        assert_eq!(per_hour(-1.0, -1.0, 1.0), 0.0);
    }

    proptest! {
        #[test]
        fn whatever_the_prices_the_extra_is_within_the_cap(
            prices in prop::collection::vec(prop::option::of(any::<f64>()), 0..70),
            rate in any::<f64>(), cap in 0..1000u64,
        ) {
            let Ok(money) = Money::new(rate, Duration::from_millis(cap)) else {
                prop_assert!(!rate.is_finite() || rate < 0.0);
                return Ok(());
            };
            let extra = money.extra_ms(&prices);
            prop_assert_eq!(extra.len(), prices.len());
            prop_assert!(extra.iter().all(|ms| (0.0..=cap as f64).contains(ms)), "{:?}", extra);
        }
    }
}
