//! The demand of now, for who steers: reads what the workers tell, and holds all that is learnt of it.
//!
//! ```text
//! Readers ─ drain ─► Estimate ─► lambda: queries/s that begin a session, by group and cell
//!                       └─► Profile ─► forecast, and what a new start begins with
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::asked::Asked;
use super::estimate::{Estimate, Rates};
use super::layout::Layout;
use super::profile::{Profile, Saved};
use crate::pilot::saved::Saved as Learned;
use crate::server::tap::Reader;

/// What is left of an overrun ring stands for so many times itself at most; beyond that it says too little.
const MAX_WEIGHT: f64 = 16.0;
/// So many answers are counted at once: for some tens of microseconds.
const BREATH: usize = 128;
/// Rates of before a restart are those of now for so long.
const FRESH: Duration = Duration::from_secs(900);
/// A forecast is within this factor of now.
const CHANGE: std::ops::RangeInclusive<f64> = 0.25..=4.0;

/// What [`Estimator::drain`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Answers counted.
    pub counted: u64,
    /// Answers lost before they were read, or told by another load.
    pub lost: u64,
    /// A window ended: rates have changed.
    pub changed: bool,
}

/// One owner, on a thread that nobody waits for. Nothing in it blocks.
pub struct Estimator {
    readers: Vec<Reader>,
    epoch: u64,
    estimate: Estimate,
    profile: Profile,
    /// Groups of which nothing is learnt for the profile now.
    unusual: Vec<bool>,
    /// For one drain.
    told: Vec<Asked>,
}

impl Estimator {
    pub fn new(readers: Vec<Reader>, layout: Layout, saved: Saved, now: Instant, at: Timestamp) -> Estimator {
        let Layout { epoch, groups, cells } = layout;
        let mut estimator = Estimator {
            readers,
            epoch,
            unusual: vec![false; groups.len()],
            estimate: Estimate::new(groups, cells, now),
            profile: Profile::default(),
            told: Vec::new(),
        };
        estimator.restore(saved, at);
        estimator
    }

    /// Goes on with what was saved, for groups that nothing is known of yet: with the rates of then where it was minutes ago,
    /// with what is usual at this hour otherwise.
    pub fn restore(&mut self, mut saved: Saved, at: Timestamp) {
        saved.profile.bound();
        let age = saved.at.map(|then| at.duration_since(then));
        let is_fresh = age.is_some_and(|age| !age.is_negative() && age.unsigned_abs() < FRESH);
        let rate = |value: f64| if (0.0..1e12).contains(&value) { value } else { 0.0 };
        let shape: Vec<_> = match is_fresh {
            true => saved.shape.iter().map(|(square, value)| (*square, rate(*value))).collect(),
            false => saved.profile.shape(at).collect(),
        };
        let mut shape = self.estimate.cells().spread(shape);
        let sum: f64 = shape.iter().sum();
        if sum > 0.0 {
            shape.iter_mut().for_each(|cell| *cell /= sum);
        } else {
            shape = self.estimate.cells().weight.to_vec();
        }
        for group in 0..self.estimate.groups().len() as u32 {
            let name = &*self.estimate.groups()[group as usize].name;
            let known = if is_fresh { saved.rates.get(name).copied() } else { None };
            if let Some(total) = known.or_else(|| saved.profile.group(name, at)).map(rate).filter(|total| *total > 0.0)
            {
                let rates: Vec<f64> = shape.iter().map(|cell| cell * total).collect();
                self.estimate.seed(group, &rates);
            }
        }
        self.profile = saved.profile;
    }

    /// To be written to the state directory every few minutes and at the end, with what the pilot learned.
    pub fn save(&self, at: Timestamp) -> Saved {
        let groups = self.estimate.groups().iter().zip(0u32..).filter(|(_, group)| self.estimate.has_data(*group));
        let cells = self.estimate.cells();
        let shape = cells.by_square(self.estimate.everywhere());
        Saved {
            pilot: Learned::default(),
            at: Some(at),
            rates: groups.map(|(known, group)| (known.name.to_string(), self.estimate.total(group))).collect(),
            shape: cells.squares.iter().copied().zip(shape).filter(|(_, rate)| *rate > 0.0).collect(),
            profile: self.profile.clone(),
        }
    }

    /// Gives groups other names, old and new, before another load is adopted that calls them so.
    pub fn rename(&mut self, names: &[(Arc<str>, Arc<str>)]) {
        self.estimate.rename(names);
        self.profile.rename(names);
    }

    /// Goes on in another load. To be called when its snapshot is published: answers of others are not counted.
    pub fn adopt(&mut self, layout: Layout, now: Instant) {
        let Layout { epoch, groups, cells } = layout;
        self.epoch = epoch;
        self.unusual = vec![false; groups.len()];
        self.estimate.adopt(groups, cells, now);
        let groups = self.estimate.groups();
        self.profile.retain(|name| groups.iter().any(|group| &*group.name == name));
    }

    /// While it holds, nothing of this group goes into what is usual: during an event.
    pub fn set_unusual(&mut self, group: u32, is_unusual: bool) {
        if let Some(flag) = self.unusual.get_mut(group as usize) {
            *flag = is_unusual;
        }
    }

    /// Counts what was answered since the last time. To be called some ten times a second. `breathe` is called every now and
    /// then: many answers take a while to count, and somebody may be waiting for the core.
    pub fn drain(&mut self, now: Instant, at: Timestamp, breathe: impl Fn()) -> Drained {
        let mut drained = Drained::default();
        for reader in &mut self.readers {
            let lost = reader.drain(self.epoch, &mut self.told);
            let counted = self.told.len() as u64;
            // Those that are left stand for those that are lost.
            let weight = ((counted + lost) as f64 / counted.max(1) as f64).min(MAX_WEIGHT);
            for chunk in self.told.chunks(BREATH) {
                chunk.iter().for_each(|asked| self.estimate.count(*asked, weight));
                breathe();
            }
            self.told.clear();
            drained = Drained { counted: drained.counted + counted, lost: drained.lost + lost, ..drained };
        }
        if let Some(passed) = self.estimate.close(now) {
            drained.changed = true;
            let groups = self.estimate.groups().iter().zip(0u32..);
            let groups = groups
                .filter(|(_, group)| self.estimate.has_data(*group) && !self.unusual[*group as usize])
                .map(|(known, group)| (&*known.name, self.estimate.total(group)));
            let cells = self.estimate.cells();
            let squares = cells.by_square(self.estimate.everywhere());
            self.profile.observe(at, passed, groups, cells.squares.iter().copied().zip(squares));
        }
        drained
    }

    /// Whether anybody asked for a group, now or before a restart.
    pub fn has_data(&self, group: u32) -> bool {
        self.estimate.has_data(group)
    }

    /// Queries/s that begin a session, by cell; `None` of a group that nobody ever asked for: nothing is known of it.
    pub fn lambda(&self, group: u32) -> Option<Rates<'_>> {
        self.estimate.has_data(group).then(|| self.estimate.rates(group))
    }

    /// Queries/s by cell that are to be expected at `then`: those of now, changed as this week's hours usually
    /// change, by square where that is known, and in sum as the group does. Without a profile, those of now; empty where
    /// nothing is known.
    pub fn forecast(&self, group: u32, at: Timestamp, then: Timestamp) -> Vec<f64> {
        let ratio = |now: Option<f64>, then: Option<f64>| {
            let ratio = then? / now.filter(|now| *now > 0.0)?;
            Some(ratio.clamp(*CHANGE.start(), *CHANGE.end()))
        };
        let Some(lambda) = self.lambda(group) else { return Vec::new() };
        let Some(known) = self.estimate.groups().get(group as usize) else { return Vec::new() };
        let usual = |at| self.profile.group(&known.name, at);
        let Some(whole) = ratio(usual(at), usual(then)) else { return lambda.iter().collect() };
        let cells = self.estimate.cells();
        let square =
            |square| ratio(self.profile.square(square, at), self.profile.square(square, then)).unwrap_or(whole);
        let of_square: Vec<f64> = cells.squares.iter().map(|at| square(*at)).collect();
        let mut rates: Vec<f64> =
            lambda.iter().zip(&cells.square).map(|(rate, at)| rate * of_square[usize::from(*at)]).collect();
        let sum: f64 = rates.iter().sum();
        if sum > 0.0 {
            let factor = lambda.total() * whole / sum;
            rates.iter_mut().for_each(|rate| *rate *= factor);
        }
        rates
    }

    /// Usual queries/s of a group at an instant, as its profile has it.
    pub fn usual(&self, group: u32, at: Timestamp) -> Option<f64> {
        let known = self.estimate.groups().get(group as usize)?;
        self.profile.group(&known.name, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::layout::{Cells, Group};
    use crate::geo::CellId;
    use crate::server::tap;

    fn layout(epoch: u64, names: &[&str]) -> Layout {
        let squares = ["FR:24:1", "US:19:-39"].map(|text| text.parse().unwrap());
        let weight: Box<[f64]> = [0.25, 0.75].into();
        let cells = Cells { square: [0, 1].into(), squares: squares.into(), square_weight: weight.clone(), weight };
        let groups = names.iter().map(|name| Group { name: (*name).into(), ttl_s: 0.0 }).collect();
        Layout { epoch, groups, cells: Arc::new(cells) }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second as i64).unwrap()
    }

    /// Whoever asks in each second, for so long.
    fn run(
        estimator: &mut Estimator,
        teller: &mut tap::Teller,
        begin: Instant,
        seconds: std::ops::Range<u64>,
        asks: u64,
    ) {
        for second in seconds {
            teller.begin(1);
            (0..asks).for_each(|i| teller.tell(Asked::new(0, CellId((i % 2) as u16), (second * asks + i) << 33)));
            teller.publish();
            estimator.drain(begin + Duration::from_secs(second + 1), at(second + 1), || ());
        }
    }

    #[test]
    fn what_workers_tell_becomes_queries_by_cell() {
        let (mut teller, reader) = tap::ring();
        let begin = Instant::now();
        let mut estimator = Estimator::new(vec![reader], layout(1, &["live"]), Saved::default(), begin, at(0));
        run(&mut estimator, &mut teller, begin, 0..300, 40);
        let lambda: Vec<f64> = estimator.lambda(0).unwrap().iter().collect();
        assert!((lambda[0] - 20.0).abs() < 0.1 && (lambda[1] - 20.0).abs() < 0.1, "{lambda:?}");
    }

    #[test]
    fn what_was_lost_is_made_up_for_by_what_was_read() {
        let (mut teller, reader) = tap::ring();
        let begin = Instant::now();
        let mut estimator = Estimator::new(vec![reader], layout(1, &["live"]), Saved::default(), begin, at(0));
        for i in 0..3 * tap::ENTRIES as u64 {
            if i % 32 == 0 {
                teller.begin(1);
            }
            teller.tell(Asked::new(0, CellId(0), i << 33));
            if i % 32 == 31 {
                teller.publish();
            }
        }
        let drained = estimator.drain(begin + Duration::from_secs(10), at(10), || ());
        assert!(drained.lost > tap::ENTRIES as u64 && drained.changed);
        let expected = 3.0 * tap::ENTRIES as f64 / 10.0 * (1.0 - (-10.0f64 / 30.0).exp());
        let total = estimator.estimate.total(0);
        assert!((total / expected - 1.0).abs() < 0.01, "{total} for {expected}");
    }

    #[test]
    fn a_restart_goes_on_where_it_was_and_a_late_one_with_what_is_usual() {
        let (mut teller, reader) = tap::ring();
        let begin = Instant::now();
        let mut estimator = Estimator::new(vec![reader], layout(1, &["live"]), Saved::default(), begin, at(0));
        run(&mut estimator, &mut teller, begin, 0..8_000, 20);
        let saved = estimator.save(at(8_000));
        let saved: Saved = serde_json::from_str(&serde_json::to_string(&saved).unwrap()).unwrap();
        let total = |seconds, names: &[&str]| {
            let restarted = Estimator::new(vec![], layout(2, names), saved.clone(), begin, at(seconds));
            restarted.lambda(names.len() as u32 - 1).map_or(vec![], |rates| rates.iter().collect::<Vec<f64>>())
        };
        for rates in [total(8_060, &["new", "live"]), total(7 * 86_400 + 5_000, &["live"])] {
            assert!((rates[0] - 10.0).abs() < 0.6 && (rates[1] - 10.0).abs() < 0.6, "{rates:?}");
        }
        assert_eq!(total(3 * 86_400, &["live"]).iter().sum::<f64>(), 0.0, "an hour never seen");
    }

    #[test]
    fn a_forecast_follows_the_usual_week() {
        let begin = Instant::now();
        let mut saved = Saved::default();
        let live = |rate| [("live", rate)];
        for (hour, rate) in [(0, 10.0), (1, 20.0), (2, 0.0)] {
            for window in 0..360 {
                let now = at(hour * 3600 + window * 10);
                saved.profile.observe(now, Duration::from_secs(10), live(rate), []);
            }
        }
        // 2027-01-15 08:00 UTC is at(0); rates go from the middle of an hour to that of the next.
        let estimator = Estimator::new(vec![], layout(1, &["live", "new"]), saved, begin, at(1800));
        let now = estimator.lambda(0).unwrap().total();
        let forecast: f64 = estimator.forecast(0, at(1800), at(5400)).iter().sum();
        assert!((forecast / now - 2.0).abs() < 0.02, "{forecast} after {now}");
        let unknown: Vec<f64> = estimator.forecast(1, at(1800), at(5400));
        assert!(unknown.is_empty(), "where nobody asks nothing is foreseen: {unknown:?}");
    }
}
