//! How long probes take, for a time-out that follows the network: `timeout = "auto"`.
//!
//! The time-out is three times the 99th percentile of the last probes, within bounds, and the upper bound until there are
//! [`ENOUGH`] of them. A probe that was answered after its time-out (the first silent one is still waited for) counts with
//! the time it really took, so a network that became slower raises the time-out at once: the percentile of fewer than 100
//! probes is their longest. It sinks only as slow probes leave the window, [`WINDOW`] probes later.
//!
//! Pure, and bounded: the last [`WINDOW`] times are all that is kept.

use std::time::Duration;

/// Probes looked back on: about half a minute at the default pace. So few that the percentile is the longest of them,
/// and one lost packet in a hundred, sent again after 200 ms, keeps the time-out wide; a time-out must not be shorter
/// than what this network does every half minute.
pub const WINDOW: usize = 64;
/// Fewer probes say too little.
pub const ENOUGH: usize = 16;
/// No time-out is shorter: schedulers and garbage collectors of healthy servers take their time too.
pub const SHORTEST: Duration = Duration::from_millis(100);

/// The last times of one target.
#[derive(Clone, Debug)]
pub struct Rtts {
    /// Microseconds; a ring.
    times: [u32; WINDOW],
    count: usize,
    next: usize,
}

impl Default for Rtts {
    fn default() -> Rtts {
        Rtts { times: [0; WINDOW], count: 0, next: 0 }
    }
}

impl Rtts {
    /// A probe was answered after this long, however late that was.
    pub fn note(&mut self, rtt: Duration) {
        self.times[self.next] = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        self.next = (self.next + 1) % WINDOW;
        self.count = (self.count + 1).min(WINDOW);
    }

    /// The time that this share (0 to 1) of the last probes did not exceed; `None` before the first.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let mut times = self.times;
        let times = times.get_mut(..self.count).filter(|times| !times.is_empty())?;
        let rank = (share.clamp(0.0, 1.0) * times.len() as f64).ceil() as usize;
        let (_, time, _) = times.select_nth_unstable(rank.clamp(1, times.len()) - 1);
        Some(Duration::from_micros((*time).into()))
    }

    /// The time-out that fits these times, from [`SHORTEST`] to `longest`, or `longest` where that is shorter.
    pub fn timeout(&self, longest: Duration) -> Duration {
        match self.quantile(0.99) {
            Some(p99) if self.count >= ENOUGH => (p99 * 3).max(SHORTEST).min(longest),
            _ => longest,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONGEST: Duration = Duration::from_millis(250);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn after(times: impl IntoIterator<Item = u64>) -> Rtts {
        let mut rtts = Rtts::default();
        times.into_iter().for_each(|time| rtts.note(ms(time)));
        rtts
    }

    #[test]
    fn before_there_are_enough_probes_the_upper_bound_holds() {
        assert_eq!(Rtts::default().timeout(LONGEST), LONGEST);
        assert_eq!(after([1; ENOUGH - 1]).timeout(LONGEST), LONGEST);
        assert_eq!(after([1; ENOUGH]).timeout(LONGEST), SHORTEST);
    }

    #[test]
    fn the_time_out_is_three_times_what_probes_take_within_its_bounds() {
        for (rtt, timeout) in [(0, 100), (33, 100), (50, 150), (80, 240), (90, 250), (5_000, 250)] {
            assert_eq!(after([rtt; ENOUGH]).timeout(LONGEST), ms(timeout), "{rtt} ms");
        }
        assert_eq!(after([1; ENOUGH]).timeout(ms(25)), ms(25), "the upper bound may be below the lower one");
    }

    #[test]
    fn a_jump_of_the_rtt_is_followed_upwards_at_once() {
        let mut rtts = after([10; 10_000]);
        assert_eq!(rtts.timeout(LONGEST), ms(100));
        rtts.note(ms(70));
        assert_eq!(rtts.timeout(LONGEST), ms(210));
        rtts.note(ms(180));
        assert_eq!(rtts.timeout(LONGEST), LONGEST);
    }

    #[test]
    fn a_jump_down_is_followed_once_the_window_has_passed() {
        let mut rtts = after([80; 1_000]);
        for _ in 0..WINDOW - 1 {
            rtts.note(ms(5));
            assert_eq!(rtts.timeout(LONGEST), ms(240));
        }
        rtts.note(ms(5));
        assert_eq!(rtts.timeout(LONGEST), SHORTEST);
    }

    #[test]
    fn times_beyond_all_measure_overflow_nothing() {
        let mut rtts = Rtts::default();
        (0..ENOUGH).for_each(|_| rtts.note(Duration::MAX));
        assert_eq!(rtts.timeout(LONGEST), LONGEST);
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_last_times(
            times in proptest::collection::vec(0u64..4_000, 1..300),
            share in 0.0..=1.0f64,
        ) {
            let rtts = after(times.iter().copied());
            let mut last = times[times.len().saturating_sub(WINDOW)..].to_vec();
            last.sort_unstable();
            let rank = ((share * last.len() as f64).ceil() as usize).max(1);
            prop_assert_eq!(rtts.quantile(share), Some(ms(last[rank - 1])));
        }
    }
}
