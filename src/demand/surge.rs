//! The loss of a region as an impulse: its viewers come back at once, and once (STEERING §6).
//!
//! Players that lose their server ask anew within seconds. Counted as a rate they would look like a demand that stays, and
//! the plan would follow it up and down again. So for 90 s the rates of before the loss stand, with what comes back on
//! top: `λ'_c = λ_c + B_c·e^(−t/12) / (D·(1 − e^(−h/D)))`, where `B_c = x_cf·λ_c·D_f` sessions were lost. The divisor is
//! that of the supply of STEERING §5, so a solver takes the mass as sessions that it must place within its horizon.

use std::time::{Duration, Instant};

/// How long the rates of before stand.
pub const FROZEN: Duration = Duration::from_secs(90);
/// The viewers of a lost region that are not back after so many seconds are one in e.
const BACK_S: f64 = 12.0;
/// Losses that are followed at one time; a zone has no more regions.
const MAX_LOSSES: usize = crate::config::settings::MAX_REGIONS;

/// Bounds of a mean session, seconds (STEERING §2).
const SESSION_S: std::ops::RangeInclusive<f64> = 60.0..=7200.0;

/// Sessions of one cell that a lost region had: its share of the cell, starts/s of the cell, mean session there in seconds.
/// What is no number counts as none.
pub fn lost_sessions(share: f64, starts: f64, session_s: f64) -> f64 {
    let product = share.clamp(0.0, 1.0) * starts.max(0.0) * session(session_s);
    if product.is_finite() { product } else { 0.0 }
}

/// Starts/s that stand for `lost` sessions, `after` their loss, for a plan with horizon `horizon_s` and mean session
/// `session_s`, both seconds. Above 0.1 s of horizon.
pub fn coming_back(lost: f64, after: Duration, session_s: f64, horizon_s: f64) -> f64 {
    let session_s = session(session_s);
    let placed = session_s * -(-horizon_s.max(0.1) / session_s).exp_m1();
    let rate = lost.max(0.0) * (-after.as_secs_f64() / BACK_S).exp() / placed;
    if rate.is_finite() { rate } else { 0.0 }
}

fn session(seconds: f64) -> f64 {
    if seconds.is_nan() { *SESSION_S.start() } else { seconds.clamp(*SESSION_S.start(), *SESSION_S.end()) }
}

/// Rates of before one or several losses, and what comes back. By row: whatever the caller's rates are by.
#[derive(Clone, Debug)]
pub struct Surge {
    frozen: Box<[f64]>,
    losses: Vec<Loss>,
}

#[derive(Clone, Debug)]
struct Loss {
    at: Instant,
    sessions: Box<[f64]>,
}

impl Surge {
    /// `starts`: starts/s by row, of just before the loss. `shares`: what of each row the lost region had. `session_s`:
    /// mean session there, seconds.
    pub fn begin(at: Instant, starts: &[f64], shares: impl IntoIterator<Item = f64>, session_s: f64) -> Surge {
        let clean = |rate: &f64| if rate.is_finite() { rate.max(0.0) } else { 0.0 };
        let mut surge = Surge { frozen: starts.iter().map(clean).collect(), losses: vec![] };
        surge.lose(at, shares, session_s);
        surge
    }

    /// Another region is lost while the rates still stand. They stand on from here; what comes back adds up.
    pub fn lose(&mut self, at: Instant, shares: impl IntoIterator<Item = f64>, session_s: f64) {
        if self.losses.len() == MAX_LOSSES {
            self.losses.remove(0);
        }
        let shares = shares.into_iter().chain(std::iter::repeat(0.0));
        let sessions = self.frozen.iter().zip(shares).map(|(&rate, share)| lost_sessions(share, rate, session_s));
        self.losses.push(Loss { at, sessions: sessions.collect() });
    }

    /// The rates of now may be used again.
    pub fn is_over(&self, now: Instant) -> bool {
        self.losses.iter().all(|loss| now.saturating_duration_since(loss.at) >= FROZEN)
    }

    /// λ' of each row at `now`, starts/s, for a plan with this horizon and mean session (see [`coming_back`]).
    pub fn rates(&self, now: Instant, session_s: f64, horizon_s: f64) -> Vec<f64> {
        let mut rates = self.frozen.to_vec();
        for Loss { at, sessions } in &self.losses {
            let one = coming_back(1.0, now.saturating_duration_since(*at), session_s, horizon_s);
            rates.iter_mut().zip(sessions).for_each(|(rate, lost)| *rate += lost * one);
        }
        rates
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_comes_back_within_the_horizon_is_what_was_lost() {
        // A rate that stands for `lost` sessions, held for the horizon, leaves as many there at its end.
        let (lost, session, horizon) = (1000.0, 1200.0, 60.0);
        let rate = coming_back(lost, Duration::ZERO, session, horizon);
        let mut there = 0.0;
        for _ in 0..6_000 {
            there += (rate - there / session) * horizon / 6_000.0;
        }
        assert!((there - lost).abs() < 1.0, "{there}");
    }

    #[test]
    fn the_impulse_dies_away_and_rates_stand_for_ninety_seconds() {
        let at = Instant::now();
        let surge = Surge::begin(at, &[10.0, 4.0], [0.5, 0.0], 1200.0);
        let extra = |s| surge.rates(at + Duration::from_secs(s), 1200.0, 60.0)[0] - 10.0;
        assert!((extra(0) - 6000.0 / (1200.0 * (1.0 - (-0.05f64).exp()))).abs() < 1e-6);
        assert!((extra(12) / extra(0) - (-1.0f64).exp()).abs() < 1e-9);
        assert!(extra(89) < 0.001 * extra(0));
        assert_eq!(surge.rates(at, 1200.0, 60.0)[1], 4.0, "who was elsewhere stays");
        assert!(!surge.is_over(at + Duration::from_millis(89_999)) && surge.is_over(at + FROZEN));
    }

    #[test]
    fn a_second_loss_adds_its_own_viewers_to_the_rates_of_before() {
        let at = Instant::now();
        let mut surge = Surge::begin(at, &[10.0], [0.5], 1200.0);
        let later = at + Duration::from_secs(30);
        surge.lose(later, [0.25], 600.0);
        let rate = surge.rates(later, 1200.0, 60.0)[0];
        let one = coming_back(6000.0, Duration::from_secs(30), 1200.0, 60.0);
        let two = coming_back(1500.0, Duration::ZERO, 1200.0, 60.0);
        assert!((rate - 10.0 - one - two).abs() < 1e-9);
        assert!(!surge.is_over(at + FROZEN) && surge.is_over(later + FROZEN));
    }

    proptest! {
        #[test]
        fn any_numbers_give_rates_that_are_numbers(
            starts in prop::collection::vec(any::<f64>(), 0..6), shares in prop::collection::vec(any::<f64>(), 0..8),
            session in any::<f64>(), horizon in any::<f64>(), seconds in 0u64..1000, losses in 0usize..70,
        ) {
            let at = Instant::now();
            let bounded: Vec<f64> = starts.iter().map(|s| if *s > 1e12 { 1.0 } else { *s }).collect();
            let mut surge = Surge::begin(at, &bounded, shares.clone(), session);
            (0..losses).for_each(|_| surge.lose(at, shares.clone(), session));
            prop_assert!(surge.losses.len() <= MAX_LOSSES);
            for rate in surge.rates(at + Duration::from_secs(seconds), session, horizon) {
                prop_assert!(rate.is_finite() && rate >= 0.0, "{}", rate);
            }
        }
    }
}
