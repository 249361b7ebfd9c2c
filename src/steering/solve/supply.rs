//! What a region can take: its sessions, its capacity and how long sessions last become session starts a second.

use super::curve;
use crate::steering::dwell;

/// Sessions and starts a second beyond this are taken for this: sums of them stay exact enough, and none is infinite.
pub const MOST: f64 = 1e12;

/// No price is higher, ms: that of about four times the capacity.
pub const MAX_PRICE: f64 = 50_000.0;

/// A region, as the solver has to know it.
///
/// What is not a number, or negative, counts as 0 (a dwell that is not a number as the usual one), and what is beyond
/// [`MOST`] as that: so a report that lies can never make an idle region.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Supply {
    /// K, sessions; `None` is unlimited, which never has a price.
    pub capacity: Option<f64>,
    /// What part of the capacity counts, 0 to 1: ramp, drain and the age of reports.
    pub part: f64,
    /// L, sessions now.
    pub load: f64,
    /// D, mean length of a session, s; kept within its bounds ([`dwell`]).
    pub dwell: f64,
    /// Starts/s that come whatever the prices are: streams that are steered otherwise.
    pub fixed: f64,
    /// Takes nothing: down, or drained.
    pub closed: bool,
}

impl Supply {
    /// An empty region with so much capacity.
    pub fn of(capacity: Option<f64>) -> Supply {
        Supply { capacity, part: 1.0, load: 0.0, dwell: dwell::USUAL_S, fixed: 0.0, closed: false }
    }

    /// D within its bounds, s.
    pub fn dwell(&self) -> f64 {
        dwell::bounded(self.dwell)
    }

    /// Sessions that count as capacity.
    fn counted(&self) -> Option<f64> {
        self.capacity.map(|capacity| door(capacity) * door(self.part).min(1.0))
    }

    /// Whether anything may be sent here.
    pub fn is_open(&self) -> bool {
        !self.closed && self.counted().is_none_or(|capacity| capacity > 1e-9)
    }

    /// Utilisation after `horizon` seconds, or when all is settled if it is infinite, with so many starts/s steered here.
    /// `None` without a capacity that counts.
    pub fn forecast(&self, rate: f64, horizon: f64) -> Option<f64> {
        self.line(horizon).map(|line| line.utilisation(rate))
    }

    /// Session starts/s, of all streams together, that leave it no fuller than `utilisation` after `horizon` seconds:
    /// (u·K·part − L·e^(−h/D)) / (D·(1 − e^(−h/D))), and 0 where even nobody is too many or it is closed. `None` without a
    /// capacity.
    pub fn admits(&self, utilisation: f64, horizon: f64) -> Option<f64> {
        let capacity = self.counted()?;
        if !self.is_open() {
            return Some(0.0);
        }
        let (gone, left) = self.fade(horizon);
        Some(door((door(utilisation) * capacity - left) / (self.dwell() * gone)))
    }

    /// Part of the sessions that are gone after `horizon` seconds, and what is left of the load.
    fn fade(&self, horizon: f64) -> (f64, f64) {
        // Also of what is not a number.
        let horizon = if horizon > 0.0 { horizon.max(1e-3) } else { 1e-3 };
        let gone = -(-horizon / self.dwell()).exp_m1();
        (gone, door(self.load) * (1.0 - gone))
    }

    pub(super) fn line(&self, horizon: f64) -> Option<Line> {
        let capacity = self.counted().filter(|&capacity| capacity > 1e-9)?;
        let (gone, left) = self.fade(horizon);
        let full = self.dwell() * gone;
        let (slope, taken) = (capacity / full, left / full + door(self.fixed));
        let lowest = curve::price(taken / slope).min(MAX_PRICE);
        Some(Line { slope, taken, scale: capacity / self.dwell(), lowest })
    }
}

/// At the door: see [`Supply`].
pub(super) fn door(value: f64) -> f64 {
    // Also of what is not a number.
    if value > 0.0 { value.min(MOST) } else { 0.0 }
}

/// The supply of one priced region, S(p) = slope·u(p) − taken, starts/s.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub slope: f64,
    /// What the present sessions and other streams take of it.
    pub taken: f64,
    /// K/D, starts/s: what an error of the rate is measured against.
    pub scale: f64,
    /// Below this price even nobody is too many, ms.
    pub lowest: f64,
}

impl Line {
    /// S(p) and its derivative.
    #[inline]
    pub fn supply(&self, price: f64) -> (f64, f64) {
        let (u, per_ms) = curve::utilisation(price);
        (self.slope * u - self.taken, self.slope * per_ms)
    }

    /// What the dual gives away for this region: ∫S, from a price of zero, ms·starts/s.
    pub fn conjugate(&self, price: f64) -> f64 {
        let (u, _) = curve::utilisation(price);
        self.slope * (price * u - curve::harm(u)) - self.taken * price
    }

    pub fn utilisation(&self, rate: f64) -> f64 {
        (rate + self.taken) / self.slope
    }

    /// What the primal pays for this region, ms·starts/s.
    pub fn harm(&self, rate: f64) -> f64 {
        self.slope * curve::harm(self.utilisation(rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_horizon_the_supply_is_what_settles() {
        let supply = Supply { load: 5000.0, ..Supply::of(Some(1000.0)) };
        let line = supply.line(f64::INFINITY).unwrap();
        assert!((line.supply(30.0).0 - 0.85 * 1000.0 / 1200.0).abs() < 1e-9);
        assert!((supply.forecast(0.5, f64::INFINITY).unwrap() - 0.6).abs() < 1e-12);
    }

    #[test]
    fn what_is_admitted_fills_it_just_so_far() {
        let supply = Supply { load: 600.0, part: 0.8, ..Supply::of(Some(1000.0)) };
        let rate = supply.admits(0.95, 60.0).unwrap();
        assert!((supply.forecast(rate, 60.0).unwrap() - 0.95).abs() < 1e-9, "{rate}");
        assert_eq!(Supply { load: 5000.0, ..supply }.admits(0.95, 60.0), Some(0.0), "nobody where it is too full");
        assert_eq!(Supply { closed: true, ..supply }.admits(0.95, 60.0), Some(0.0));
        assert_eq!(Supply::of(None).admits(0.95, 60.0), None, "without a capacity nobody can tell");
        let lie = Supply { load: f64::NAN, ..supply };
        assert!(lie.admits(0.95, 0.0).unwrap().is_finite() && lie.admits(f64::NAN, f64::NAN) == Some(0.0));
    }

    #[test]
    fn sessions_that_stay_take_of_the_supply() {
        let supply = Supply { load: 700.0, fixed: 0.1, ..Supply::of(Some(1000.0)) };
        let line = supply.line(60.0).unwrap();
        // What leaves may come: 700 sessions are steady with 700/1200 starts/s.
        assert!((line.supply(0.0).0 + 0.1 - 700.0 / 1200.0).abs() < 1e-9);
        assert!((supply.forecast(700.0 / 1200.0 - 0.1, 60.0).unwrap() - 0.7).abs() < 1e-9);
    }

    #[test]
    fn the_dual_never_gives_away_less_than_the_primal_pays() {
        // Young: S·p ≤ harm(rate) + conjugate(p), equal where the rate is S(p).
        let line = Supply { load: 900.0, ..Supply::of(Some(1000.0)) }.line(60.0).unwrap();
        for price in [0.0, 1.0, 30.0, 77.0, 390.0, 5000.0] {
            let best = line.supply(price).0;
            assert!((line.harm(best) + line.conjugate(price) - best * price).abs() < 1e-6, "{price}");
            for rate in [0.0, 0.3, 1.0, 4.0] {
                assert!(line.harm(rate) + line.conjugate(price) >= rate * price - 1e-9, "{price} {rate}");
            }
        }
    }

    #[test]
    fn what_is_no_number_counts_as_nothing() {
        for bad in [f64::NAN, -1.0, f64::NEG_INFINITY] {
            assert!(!Supply::of(Some(bad)).is_open());
            assert!(!Supply { part: bad, ..Supply::of(Some(10.0)) }.is_open());
            let supply = Supply { load: bad, dwell: bad, fixed: bad, ..Supply::of(Some(10.0)) };
            assert!(supply.line(bad).unwrap().supply(10.0).0.is_finite());
        }
        let lies = Supply { load: 1e308, fixed: f64::INFINITY, dwell: 1e308, ..Supply::of(Some(1e308)) };
        assert!(lies.forecast(1e308, 60.0).is_some_and(f64::is_finite));
        assert_eq!(Supply { load: 1e308, ..Supply::of(Some(1.0)) }.line(60.0).unwrap().lowest, MAX_PRICE);
    }
}
