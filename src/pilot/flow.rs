//! How viewers come to a region and leave it, as its reports show it: session starts, the mean length of a session, and how
//! many session starts a query of ours stands for.
//!
//! Queries give the shape of demand and reports its scale (a resolver asks once for many viewers, a player may ask again and
//! again for one).

use std::time::Instant;

use crate::load::State;

/// D while nothing is known of it, s.
const DWELL_S: f64 = 1200.0;
/// D is kept within these, s.
const DWELL_RANGE: (f64, f64) = (60.0, 7200.0);
/// Time constant of D, s: sessions of half an hour do not tell their length faster.
const DWELL_MEMORY_S: f64 = 600.0;
/// Time constant of the rates whose ratio is the scale, s.
const SCALE_MEMORY_S: f64 = 60.0;
/// Bounds of the scale: a player that resolves anew with every TTL asks a hundred times in one session, and one cached answer
/// serves hundreds of viewers.
const SCALE: (f64, f64) = (0.001, 1000.0);
/// Changes of the number of sessions are told apart from chance over at least this, s.
const STRIDE_S: f64 = 10.0;
/// So many strides are seen before anything is said.
const SETTLED: u32 = 6;
/// What is believed of D weighs as much as so many strides: growth is known to about 0.0005 a second, 1/D beforehand to about
/// its own size, 1/1200.
const PRIOR: f64 = 0.36;
/// Fewer starts/s are no ground to learn from.
const LEAST_RATE: f64 = 1e-3;

/// Queries/s are known only smoothed, rising and falling with these time constants ([`crate::demand::estimate`]), s. Starts
/// have to lag as much, or the scale would be too high whenever demand grows.
const LAG_S: (f64, f64) = (30.0, 120.0);

/// A rate that forgets exponentially, from nothing on.
#[derive(Clone, Copy, Debug, Default)]
struct Smooth {
    value: f64,
}

impl Smooth {
    fn feed(&mut self, value: f64, memory_s: f64, elapsed_s: f64) {
        self.value += -(-elapsed_s / memory_s).exp_m1() * (value - self.value);
    }
}

/// Starts/s as slow as queries/s are.
#[derive(Clone, Copy, Debug, Default)]
struct Lagging {
    value: f64,
}

impl Lagging {
    fn feed(&mut self, value: f64, elapsed_s: f64) -> f64 {
        let memory = if value > self.value { LAG_S.0 } else { LAG_S.1 };
        self.value += -(-elapsed_s / memory).exp_m1() * (value - self.value);
        self.value
    }
}

/// Of one region. Every figure is finite and within its bounds, whatever is fed.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Sessions when the rate of their change was last taken.
    before: Option<(f64, Instant)>,
    /// Of the stride that goes on: how often it was fed, the sum of queries/s, and of starts/s with their number.
    stride: (u32, f64, f64, u32),
    /// Starts/s, as reported or as sessions grow.
    lagging: Lagging,
    /// The same, over the time in which the scale is learned.
    starts: Smooth,
    /// Starts/s that the queries would make at a scale of 1.
    asked: Smooth,
    balance: Balance,
    /// Strides in which something was asked.
    strides: u32,
    dwell_s: f64,
    scale: f64,
    /// Whether reports ever told the scale.
    known: bool,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow {
            before: None,
            stride: Default::default(),
            lagging: Lagging::default(),
            starts: Smooth::default(),
            asked: Smooth::default(),
            balance: Balance::default(),
            strides: 0,
            dwell_s: DWELL_S,
            scale: 1.0,
            known: false,
        }
    }
}

impl Flow {
    /// What was kept over a restart.
    pub fn restored(scale: f64, dwell_s: f64) -> Flow {
        let sound = |value: f64, (low, high): (f64, f64)| if value.is_nan() { low } else { value.clamp(low, high) };
        Flow { dwell_s: sound(dwell_s, DWELL_RANGE), scale: sound(scale, SCALE), known: true, ..Flow::default() }
    }

    /// Mean length of a session, s.
    pub fn dwell_s(&self) -> f64 {
        self.dwell_s
    }

    /// Session starts for a query; `None` as long as no report told.
    pub fn scale(&self) -> Option<f64> {
        self.known.then_some(self.scale)
    }

    /// Takes in what is believed of the region now. `asked`: queries/s that were sent there.
    pub fn feed(&mut self, state: &State, asked: f64, now: Instant) {
        // Predictions follow from what is learned here: nothing is to be learned from them.
        let fresh = state.age.is_some_and(|age| age.as_secs_f64() <= STRIDE_S);
        let Some(sessions) = state.sessions.filter(|sessions| fresh && sessions.is_finite()) else {
            (self.before, self.stride) = (None, Default::default());
            return;
        };
        let Some((before, at)) = self.before else {
            self.before = Some((sessions, now));
            return;
        };
        let sound = |rate: f64| if rate.is_finite() { rate.max(0.0) } else { 0.0 };
        let (count, queries, starts, told) = &mut self.stride;
        (*count, *queries) = (*count + 1, *queries + sound(asked));
        if let Some(rate) = state.starts_per_s {
            (*starts, *told) = (*starts + sound(rate), *told + 1);
        }
        let length_s = now.saturating_duration_since(at).as_secs_f64();
        if length_s >= STRIDE_S {
            self.end_stride(before, sessions, length_s);
            (self.before, self.stride) = (Some((sessions, now)), Default::default());
        }
    }

    fn end_stride(&mut self, before: f64, sessions: f64, length_s: f64) {
        let (count, queries, starts, told) = self.stride;
        let growth = (sessions - before) / length_s;
        let mean = (before + sessions) / 2.0;
        let queries = queries / f64::from(count.max(1));
        self.strides = if queries > 0.0 { self.strides.saturating_add(1) } else { self.strides };
        if told > 0 {
            let starts = starts / f64::from(told);
            // What does not stay of those who come has left.
            if starts - growth > LEAST_RATE {
                let dwell = mean / (starts - growth);
                let part = -(-length_s / DWELL_MEMORY_S).exp_m1();
                self.dwell_s += part * (dwell.clamp(DWELL_RANGE.0, DWELL_RANGE.1) - self.dwell_s);
            }
            let starts = self.lagging.feed(starts, length_s);
            self.starts.feed(starts, SCALE_MEMORY_S, length_s);
            self.asked.feed(queries, SCALE_MEMORY_S, length_s);
            if self.is_settled() && self.asked.value > LEAST_RATE && self.starts.value > LEAST_RATE {
                self.learn(self.starts.value / self.asked.value);
            }
            return;
        }
        self.balance.feed(mean, growth, queries, length_s);
        if self.is_settled()
            && let Some((scale, dwell_s)) = self.balance.fit()
        {
            self.dwell_s = dwell_s;
            self.learn(scale);
        }
    }

    /// Until all has gone on for a while, what began later would make the scale.
    fn is_settled(&self) -> bool {
        self.strides >= SETTLED
    }

    fn learn(&mut self, scale: f64) {
        self.scale = scale.clamp(SCALE.0, SCALE.1);
        self.known = true;
    }
}

/// What is in the balance L' = s·q − L/D where only sessions L are told: the scale s and the length D that explain best how L
/// changed with queries q, by least squares that forget. As long as nothing changes many pairs do, and D stays where it
/// was believed to be before.
#[derive(Clone, Copy, Debug, Default)]
struct Balance {
    /// As slow as queries are: sessions and their growth.
    sessions: Smooth,
    growth: Smooth,
    /// Sums over strides of 1, x, x², y and xy, where y = L'/L and x = q/L.
    sums: [f64; 5],
}

impl Balance {
    fn feed(&mut self, sessions: f64, growth: f64, queries: f64, length_s: f64) {
        if self.sums[0] == 0.0 {
            (self.sessions.value, self.growth.value) = (sessions, growth);
        }
        self.sessions.feed(sessions, LAG_S.0, length_s);
        self.growth.feed(growth, LAG_S.0, length_s);
        let whole = self.sessions.value.max(1.0);
        if queries <= 0.0 {
            return;
        }
        let (x, y) = (queries / whole, self.growth.value / whole);
        let kept = (-length_s / DWELL_MEMORY_S).exp();
        for (sum, value) in self.sums.iter_mut().zip([1.0, x, x * x, y, x * y]) {
            *sum = *sum * kept + value;
        }
    }

    /// Scale and length; the length as near to [`DWELL_S`] as it may be.
    fn fit(&self) -> Option<(f64, f64)> {
        let [n, x, xx, y, xy] = self.sums;
        if xx <= 0.0 || xx.is_nan() {
            return None;
        }
        let known = 1.0 / DWELL_S;
        let gone = (PRIOR * known - y + x * xy / xx) / (n + PRIOR - x * x / xx).max(PRIOR);
        let gone = if gone.is_nan() { known } else { gone.clamp(1.0 / DWELL_RANGE.1, 1.0 / DWELL_RANGE.0) };
        let scale = (xy + gone * x) / xx;
        (scale > 0.0 && scale.is_finite()).then_some((scale, 1.0 / gone))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::Trust;

    fn state(sessions: f64, starts_per_s: Option<f64>) -> State {
        State {
            sessions: Some(sessions),
            utilization: None,
            capacity: Some(1e6),
            starts_per_s,
            age: Some(Duration::from_secs(1)),
            trust: Trust::Fresh,
            silent: 0,
        }
    }

    /// Sessions of 600 s that start at 50/s while 5 queries/s are answered.
    fn run(seconds: u64, tell: bool) -> Flow {
        let (mut flow, start, mut sessions) = (Flow::default(), Instant::now(), 1000.0f64);
        for second in 0..seconds {
            flow.feed(&state(sessions, tell.then_some(50.0)), 5.0, start + Duration::from_secs(second));
            sessions += 50.0 - sessions / 600.0;
        }
        flow
    }

    #[test]
    fn where_starts_are_told_their_length_and_scale_are_learned_while_the_region_still_fills() {
        let flow = run(1800, true);
        assert!((flow.dwell_s() - 600.0).abs() < 60.0, "{}", flow.dwell_s());
        assert!((flow.scale().unwrap() - 10.0).abs() < 0.1, "{flow:?}");
    }

    #[test]
    fn where_only_sessions_are_told_the_balance_tells_scale_and_length() {
        let flow = run(1800, false);
        let wrong = |value: f64, right: f64| (value / right - 1.0).abs();
        assert!(wrong(flow.scale().unwrap(), 10.0) < 0.25 && wrong(flow.dwell_s(), 600.0) < 0.25, "{flow:?}");
    }

    #[test]
    fn while_nothing_changes_sessions_are_explained_by_the_length_that_is_believed() {
        let (mut flow, start) = (Flow::default(), Instant::now());
        for second in 0..600 {
            flow.feed(&state(30_000.0, None), 100.0, start + Duration::from_secs(second));
        }
        // 30,000 sessions of 1200 s are 25 starts/s.
        assert!((flow.scale().unwrap() - 0.25).abs() < 0.01 && (flow.dwell_s() - 1200.0).abs() < 10.0, "{flow:?}");
    }

    #[test]
    fn a_surge_is_not_taken_for_another_scale() {
        let (mut flow, start) = (Flow::default(), Instant::now());
        let (mut sessions, mut asked, mut most) = (6_000.0f64, 20.0, 0.0f64);
        for second in 0..3600 {
            let queries = if (1200..2400).contains(&second) { 60.0 } else { 20.0 };
            let memory = if queries > asked { LAG_S.0 } else { LAG_S.1 };
            asked += (queries - asked) / memory;
            flow.feed(&state(sessions, None), asked, start + Duration::from_secs(second));
            sessions += queries - sessions / 300.0;
            if second > 300 {
                most = most.max(flow.scale().unwrap() * 1200.0 / flow.dwell_s());
            }
        }
        // At first a query stands for a quarter of a start of 1200 s, in the end for a whole one of 300 s;
        // on the way never for more than twice as much.
        assert!((flow.scale().unwrap() - 1.0).abs() < 0.25 && most < 8.0, "{most} {flow:?}");
    }

    #[test]
    fn nothing_is_learned_from_predictions_or_from_lies() {
        let (mut flow, start) = (Flow::default(), Instant::now());
        let old = State { age: Some(Duration::from_secs(60)), ..state(500.0, Some(9.0)) };
        let lies = [state(f64::INFINITY, None), state(f64::NAN, Some(f64::NAN)), state(10.0, Some(f64::INFINITY))];
        for (second, state) in [old].iter().chain(&lies).cycle().take(400).enumerate() {
            flow.feed(state, f64::NAN, start + Duration::from_secs(second as u64));
        }
        assert!(flow.scale().is_none() && flow.dwell_s().is_finite(), "{flow:?}");
    }
}
