//! How long sessions last, from nothing but how many there are.
//!
//! Sessions L that begin at s starts a query, q queries a second, and last for D: L' = s·q − L/D. While nothing changes many
//! pairs (s, D) explain that, and D stays what it was believed to be; whenever demand rises or falls it shows.

use crate::steering::dwell;

/// Time constant of D, s: sessions of half an hour do not tell their length faster.
pub const DWELL_MEMORY_S: f64 = 600.0;
/// Queries/s are known only smoothed, with this time constant where they rise ([`crate::demand::estimate`]), s. What they are
/// compared with has to lag as much.
const LAG_S: f64 = 30.0;
/// So long is watched before anything is said, s: how much caches hide of what is asked is known only after minutes, and
/// until then queries seem to rise.
const SETTLED_S: f64 = 300.0;
/// How much of the changes of sessions has to follow those of queries (r²). Where they go their own ways, it is chance that
/// is compared with chance.
const TOGETHER: f64 = 0.5;
/// What is believed of D weighs as much as so many strides: growth is known to about 0.0005 a second, 1/D beforehand to about
/// its own size, 1/1200.
const PRIOR: f64 = 0.36;

/// A rate that forgets exponentially.
#[derive(Clone, Copy, Debug, Default)]
struct Smooth {
    value: f64,
}

impl Smooth {
    fn feed(&mut self, value: f64, memory_s: f64, elapsed_s: f64) {
        self.value += -(-elapsed_s / memory_s).exp_m1() * (value - self.value);
    }
}

/// Of one region: 1/D and s by least squares that forget. Every figure is finite, whatever is fed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Balance {
    /// As slow as queries are: sessions and their growth.
    sessions: Smooth,
    growth: Smooth,
    /// How long it was watched, s.
    watched_s: f64,
    /// Sums over strides of 1, x, x², y, xy and y², where y = L'/L and x = q/L.
    sums: [f64; 6],
}

impl Balance {
    /// Over `length_s`: mean sessions, their growth in 1/s, and queries/s that led there.
    pub fn feed(&mut self, sessions: f64, growth: f64, queries: f64, length_s: f64) {
        if !(queries > 0.0 && queries.is_finite() && sessions.is_finite() && growth.is_finite()) {
            return;
        }
        if self.watched_s == 0.0 {
            (self.sessions.value, self.growth.value) = (sessions, growth);
        }
        self.watched_s += length_s;
        self.sessions.feed(sessions, LAG_S, length_s);
        self.growth.feed(growth, LAG_S, length_s);
        let whole = self.sessions.value.max(1.0);
        let (x, y) = (queries / whole, self.growth.value / whole);
        let kept = (-length_s / DWELL_MEMORY_S).exp();
        for (sum, value) in self.sums.iter_mut().zip([1.0, x, x * x, y, x * y, y * y]) {
            *sum = *sum * kept + value;
        }
    }

    /// The length, as near to the usual one as it may be, s; `None` while nothing shows it.
    pub fn dwell_s(&self) -> Option<f64> {
        let [n, x, xx, y, xy, yy] = self.sums;
        let common = n * xy - x * y;
        let together = common * common / ((n * xx - x * x) * (n * yy - y * y));
        if self.watched_s < SETTLED_S || common <= 0.0 || together.is_nan() || together < TOGETHER {
            return None;
        }
        let known = 1.0 / dwell::USUAL_S;
        let gone = (PRIOR * known - y + x * xy / xx) / (n + PRIOR - x * x / xx).max(PRIOR);
        let gone = dwell::bounded_rate(gone);
        let scale = (xy + gone * x) / xx;
        (scale > 0.0 && scale.is_finite()).then_some(1.0 / gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A region for a second after another, told every ten of them; queries/s by second as the estimator smooths them.
    fn watch(seconds: u32, dwell: f64, start: f64, scale: f64, queries: impl Fn(u32) -> f64) -> Balance {
        let (mut balance, mut sessions, mut before) = (Balance::default(), start, start);
        let mut asked = queries(0);
        for second in 1..=seconds {
            let now = queries(second);
            asked += (now - asked) / if now > asked { LAG_S } else { 120.0 };
            sessions += scale * now - sessions / dwell;
            if second % 10 == 0 {
                balance.feed((before + sessions) / 2.0, (sessions - before) / 10.0, asked, 10.0);
                before = sessions;
            }
        }
        balance
    }

    #[test]
    fn a_region_that_fills_tells_how_long_its_sessions_last() {
        let dwell = watch(1800, 600.0, 1000.0, 10.0, |_| 5.0).dwell_s().unwrap();
        assert!((dwell / 600.0 - 1.0).abs() < 0.25, "{dwell}");
    }

    #[test]
    fn while_nothing_changes_what_was_believed_stays() {
        assert_eq!(watch(1200, 300.0, 30_000.0, 1.0, |_| 100.0).dwell_s(), None);
    }

    #[test]
    fn queries_that_change_without_sessions_tell_nothing() {
        let mut balance = Balance::default();
        for stride in 0..180 {
            let drift = 100.0 + f64::from(stride) + f64::from(stride * 37 % 11);
            balance.feed(12_000.0 + f64::from(stride * 53 % 101), f64::from(stride * 31 % 7) - 3.0, drift, 10.0);
            assert_eq!(balance.dwell_s(), None, "{stride}");
        }
    }

    #[test]
    fn a_surge_tells_the_length_too() {
        let dwell = watch(3600, 300.0, 6_000.0, 1.0, |s| if (1200..2400).contains(&s) { 60.0 } else { 20.0 });
        let dwell = dwell.dwell_s().unwrap();
        assert!((dwell / 300.0 - 1.0).abs() < 0.3, "{dwell}");
    }

    #[test]
    fn no_figure_makes_it_leave_its_bounds() {
        let odd = [f64::NAN, f64::INFINITY, -1e9, 0.0, 1e308];
        let mut balance = Balance::default();
        for at in 0..125 {
            balance.feed(odd[at % 5], odd[at / 5 % 5], odd[at / 25], 10.0);
            let dwell = balance.dwell_s();
            assert!(dwell.is_none_or(|dwell| (dwell::LEAST_S..=dwell::MOST_S).contains(&dwell)), "{dwell:?}");
        }
    }
}
