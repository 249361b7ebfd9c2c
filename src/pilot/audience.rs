//! Who watches where: sessions by row and region, as the published tables of the last hours have sent them.
//!
//! When a region is lost it is not those who are being sent there now that come back, but those who were sent there while
//! their sessions last. After a surge that has moved the plan these are not the same.

use std::time::Instant;

use crate::steering::solve::Table;

/// How often it is brought up to date, s: sessions last minutes at least.
const STRIDE_S: f64 = 10.0;

/// Four bytes for each row and region: 50 MB for the largest market there may be.
#[derive(Default)]
pub struct Audience {
    /// Row-major.
    sessions: Vec<f32>,
    regions: usize,
    at: Option<Instant>,
}

impl Audience {
    /// Lets time pass. `demand`: starts/s by row; `dwell`: s, by region. In the beginning it is taken that all has been as
    /// it is now for long.
    pub fn pass(&mut self, table: &Table, demand: &[f64], dwell: &[f64], now: Instant) {
        let regions = dwell.len();
        let fits = self.regions == regions && self.sessions.len() == table.len() * regions;
        let elapsed = match self.at.filter(|_| fits) {
            Some(at) => now.saturating_duration_since(at).as_secs_f64(),
            None => f64::INFINITY,
        };
        if elapsed < STRIDE_S {
            return;
        }
        self.at = Some(now);
        self.regions = regions;
        self.sessions.resize(table.len() * regions, 0.0);
        let stay: Vec<f32> = dwell.iter().map(|dwell| (-elapsed / dwell).exp() as f32).collect();
        let come: Vec<f64> = dwell.iter().map(|dwell| dwell * -(-elapsed / dwell).exp_m1()).collect();
        for ((sessions, mix), starts) in self.sessions.chunks_exact_mut(regions.max(1)).zip(table.rows()).zip(demand) {
            sessions.iter_mut().zip(&stay).for_each(|(sessions, stay)| *sessions *= stay);
            for (region, part) in mix.parts() {
                let region = usize::from(region);
                sessions[region] += (starts * part * come[region]) as f32;
            }
        }
    }

    /// Sessions of a region by row. `total`: how many there are in all, where that is known.
    pub fn of(&self, region: usize, total: Option<f64>) -> impl Iterator<Item = (usize, f64)> + '_ {
        let all =
            || self.sessions.iter().skip(region).step_by(self.regions.max(1)).map(|sessions| f64::from(*sessions));
        let sum: f64 = all().sum();
        let part = total.filter(|_| sum > 0.0).map_or(1.0, |total| total / sum);
        all().enumerate().filter(|(_, sessions)| *sessions > 0.0).map(move |(row, sessions)| (row, sessions * part))
    }

    /// Viewers of a region that is lost are there no longer.
    pub fn leave(&mut self, region: usize) {
        self.sessions.iter_mut().skip(region).step_by(self.regions.max(1)).for_each(|sessions| *sessions = 0.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::steering::solve::Mix;

    #[test]
    fn whoever_was_sent_elsewhere_is_still_there_for_a_session() {
        let (mut audience, start) = (Audience::default(), Instant::now());
        let dwell = [1200.0, 1200.0];
        audience.pass(&Table::new(vec![Mix::only(0); 2]), &[1.0, 3.0], &dwell, start);
        let of = |audience: &Audience, region| audience.of(region, None).map(|(_, sessions)| sessions).sum::<f64>();
        assert!((of(&audience, 0) - 4800.0).abs() < 1.0);
        let moved = Table::new(vec![Mix::only(0), Mix::only(1)]);
        (1..=120).for_each(|step| audience.pass(&moved, &[1.0, 3.0], &dwell, start + Duration::from_secs(step * 10)));
        assert!((of(&audience, 0) - 1200.0 - 3600.0 / std::f64::consts::E).abs() < 5.0);
        assert!((audience.of(1, Some(100.0)).map(|(_, sessions)| sessions).sum::<f64>() - 100.0).abs() < 1e-3);
        audience.leave(0);
        assert_eq!(of(&audience, 0), 0.0);
    }
}
