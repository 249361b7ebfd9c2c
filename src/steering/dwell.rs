//! D, the mean length of a session in seconds (STEERING §2): what is assumed while nothing is known, and between which bounds
//! anybody is believed.

/// While nothing is known, s.
pub const USUAL_S: f64 = 1200.0;
/// No mean is shorter, s.
pub const LEAST_S: f64 = 60.0;
/// No mean is longer, s.
pub const MOST_S: f64 = 7200.0;

/// Within the bounds; what is not a number is the usual.
pub fn bounded(dwell_s: f64) -> f64 {
    if dwell_s.is_nan() { USUAL_S } else { dwell_s.clamp(LEAST_S, MOST_S) }
}

/// The same of 1/D, the part of the sessions that end in a second.
pub fn bounded_rate(ending: f64) -> f64 {
    if ending.is_nan() { 1.0 / USUAL_S } else { ending.clamp(1.0 / MOST_S, 1.0 / LEAST_S) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_believed_beyond_the_bounds() {
        assert_eq!([0.0, -1.0, 600.0, f64::INFINITY, f64::NAN].map(bounded), [60.0, 60.0, 600.0, 7200.0, 1200.0]);
        let ending = [f64::INFINITY, 1.0 / 600.0, 0.0, -1.0, f64::NAN].map(|ending| 1.0 / bounded_rate(ending));
        assert_eq!(ending, [60.0, 600.0, 7200.0, 7200.0, 1200.0]);
    }
}
