//! Predicted round-trip time from distance: the prior, before anything was measured.

use crate::geo::Point;

/// What the access network and the server take, whatever the distance, ms.
pub(super) const BASE_MS: f64 = 8.0;
/// Fibre, detours included: twice the way at two thirds of the speed of light, twice as long as the crow flies.
pub(super) const MS_PER_KM: f64 = 0.020;

/// ms of round trip between two points, without the operator's bias.
pub fn predicted_ms(client: Point, region: Point) -> f64 {
    BASE_MS + MS_PER_KM * client.distance_km(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_kilometres_cost_twenty_milliseconds_more() {
        let here = Point::new(0.0, 0.0).unwrap();
        let there = Point::new(0.0, 1000.0 / 111.195).unwrap();
        assert!((predicted_ms(here, here) - 8.0).abs() < 1e-9);
        assert!((predicted_ms(here, there) - 28.0).abs() < 0.01);
    }
}
