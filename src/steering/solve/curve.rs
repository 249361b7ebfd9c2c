//! What a full region costs: the price of its utilisation.
//!
//! The price is in ms that are added to the region's round-trip times. It is nothing up to 70 % of the capacity and then
//! rises ever more steeply, beyond the capacity too, so that an overload that cannot be helped spreads evenly.

/// Utilisation and price in ms where the slope changes. Beyond the last the slope goes on.
pub const KNEES: [(f64, f64); 5] = [(0.70, 0.0), (0.85, 30.0), (0.95, 150.0), (1.00, 400.0), (1.25, 4000.0)];

/// Up to this utilisation a region has no price.
pub const FREE: f64 = KNEES[0].0;

/// Where a utilisation or a price lies: the piece's start, and its slope in ms.
fn piece(beyond: impl Fn(f64, f64) -> bool) -> (f64, f64, f64) {
    let last = KNEES.len() - 2;
    let at = (1..=last).rev().find(|&i| beyond(KNEES[i].0, KNEES[i].1)).unwrap_or(0);
    let ((u, price), (next_u, next_price)) = (KNEES[at], KNEES[at + 1]);
    (u, price, (next_price - price) / (next_u - u))
}

/// P(u), ms.
pub fn price(utilisation: f64) -> f64 {
    let (u, price, slope) = piece(|u, _| utilisation > u);
    (price + (utilisation - u) * slope).max(0.0)
}

/// u(p), the inverse of [`price`], and its derivative by the price. For a price of zero it is the greatest utilisation
/// that is free.
#[inline]
pub fn utilisation(price: f64) -> (f64, f64) {
    let (u, start, slope) = piece(|_, p| price > p);
    (u + (price - start).max(0.0) / slope, 1.0 / slope)
}

/// Φ(u) = ∫₀ᵘ P, ms.
pub fn harm(utilisation: f64) -> f64 {
    let mut sum = 0.0;
    for i in 0..KNEES.len() - 1 {
        let (u, start) = KNEES[i];
        let end = if i + 2 == KNEES.len() { f64::INFINITY } else { KNEES[i + 1].0 };
        if utilisation <= u {
            break;
        }
        let to = utilisation.min(end);
        sum += (to - u) * (start + price(to)) / 2.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_goes_through_its_knees_and_on() {
        for (u, p) in KNEES {
            assert!((price(u) - p).abs() < 1e-9, "{u}");
            assert!((utilisation(p).0 - u).abs() < 1e-12, "{p}");
        }
        assert_eq!(price(-3.0), 0.0);
        assert!((price(1.5) - 7600.0).abs() < 1e-9, "the last slope goes on");
        assert!((utilisation(7600.0).0 - 1.5).abs() < 1e-12);
    }

    #[test]
    fn the_harm_is_the_integral_of_the_price() {
        for end in [0.3, 0.7, 0.8, 0.93, 0.99, 1.2, 2.0] {
            let steps = 100_000;
            let sum: f64 = (0..steps).map(|i| price((f64::from(i) + 0.5) / f64::from(steps) * end)).sum();
            let sum = sum * end / f64::from(steps);
            assert!((harm(end) - sum).abs() <= 1e-6 * sum.max(1.0), "{end}: {} {sum}", harm(end));
        }
    }
}
