//! From queries to sessions: what regions report to have started, over what the estimate says was sent there.
//!
//! DNS gives the shape and load reports give the scale (STEERING §7): `s_r = reported starts_r / Σ λ_c x_cr`, smoothed
//! over 60 s, within [0.1, 1000], applied to a cell as `Σ x_cr s_r`.

use std::time::Duration;

const SMOOTH_S: f64 = 60.0;
/// A factor outside of it is a report that lies or an estimate of nothing.
const FACTORS: std::ops::RangeInclusive<f64> = 0.1..=1000.0;
/// Queries expected in [`SMOOTH_S`] below which a region's factor learns nothing.
const TELLING: f64 = 1.0;

/// Factors from estimated queries/s to session starts/s, by region as the caller numbers them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scale {
    by_region: Vec<Option<f64>>,
    /// Of all that report together; for regions that don't.
    overall: Option<f64>,
}

impl Scale {
    /// To begin with, where no report has come so far.
    pub fn remembered(overall: Option<f64>) -> Scale {
        Scale { by_region: vec![], overall: overall.and_then(bounded) }
    }

    /// Learns from `reported` starts/s, `None` for regions without a report that can be believed, and what the estimate
    /// sent to each, queries/s. What is no rate is no report.
    pub fn learn(&mut self, passed: Duration, estimated: &[f64], reported: &[Option<f64>]) {
        self.by_region.resize(estimated.len(), None);
        let learnt = 1.0 - (-passed.as_secs_f64() / SMOOTH_S).exp();
        let (mut all_reported, mut all_estimated) = (0.0, 0.0);
        for (r, &estimated) in estimated.iter().enumerate() {
            let Some(starts) = reported.get(r).copied().flatten().filter(|starts| is_rate(*starts)) else { continue };
            if estimated * SMOOTH_S >= TELLING {
                smooth(&mut self.by_region[r], starts / estimated, learnt);
                (all_reported, all_estimated) = (all_reported + starts, all_estimated + estimated);
            }
        }
        if all_estimated > 0.0 {
            smooth(&mut self.overall, all_reported / all_estimated, learnt);
        }
    }

    /// Of one region; 1 before anything was ever reported.
    pub fn region(&self, region: usize) -> f64 {
        self.by_region.get(region).copied().flatten().unwrap_or_else(|| self.overall())
    }

    pub fn overall(&self) -> f64 {
        self.overall.unwrap_or(1.0)
    }

    /// `None`: nothing was ever reported, and rates are queries/s.
    pub fn known(&self) -> Option<f64> {
        self.overall
    }
}

/// Not negative, and small enough that sums of them are still numbers.
fn is_rate(value: f64) -> bool {
    (0.0..1e12).contains(&value)
}

fn bounded(factor: f64) -> Option<f64> {
    (!factor.is_nan()).then(|| factor.clamp(*FACTORS.start(), *FACTORS.end()))
}

fn smooth(factor: &mut Option<f64>, seen: f64, learnt: f64) {
    let Some(seen) = bounded(seen) else { return };
    *factor = Some(factor.map_or(seen, |before| before + learnt * (seen - before)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_reports_a_query_is_a_session() {
        let mut scale = Scale::default();
        scale.learn(SECOND, &[5.0, 0.0], &[None, None]);
        assert_eq!((scale.region(0), scale.region(7), scale.known()), (1.0, 1.0, None));
    }

    #[test]
    fn a_region_that_reports_has_its_own_factor_and_others_that_of_all() {
        let mut scale = Scale::default();
        scale.learn(SECOND, &[1.0, 3.0, 9.0], &[Some(10.0), Some(6.0), None]);
        assert_eq!((scale.region(0), scale.region(1), scale.region(2)), (10.0, 2.0, 4.0));
    }

    #[test]
    fn a_jump_is_followed_over_a_minute() {
        let mut scale = Scale::default();
        scale.learn(SECOND, &[1.0], &[Some(1.0)]);
        (0..60).for_each(|_| scale.learn(SECOND, &[1.0], &[Some(11.0)]));
        assert!((scale.region(0) - (11.0 - 10.0 / std::f64::consts::E)).abs() < 0.01, "{}", scale.region(0));
    }

    #[test]
    fn an_estimate_of_nothing_teaches_nothing() {
        let mut scale = Scale::default();
        scale.learn(SECOND, &[0.001], &[Some(500.0)]);
        assert_eq!(scale.known(), None);
    }

    proptest! {
        #[test]
        fn whatever_is_reported_factors_stay_in_their_bounds(
            steps in prop::collection::vec((0u64..10_000, prop::collection::vec((0.0f64..1e9, prop::option::of(any::<f64>())), 0..5)), 1..20),
            overall in prop::option::of(any::<f64>()),
        ) {
            let mut scale = Scale::remembered(overall);
            for (ms, regions) in steps {
                let (estimated, reported): (Vec<f64>, Vec<Option<f64>>) = regions.into_iter().unzip();
                scale.learn(Duration::from_millis(ms), &estimated, &reported);
                prop_assert!((0..6).all(|r| FACTORS.contains(&scale.region(r))), "{:?}", scale);
            }
        }
    }
}
