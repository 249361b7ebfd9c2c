//! What is usual at an hour of the week, kept over restarts.
//!
//! A profile has a mean for each of the 168 hours of a week, UTC, beginning on Monday: of each group in total, and of each
//! [`CountrySquare`] of the world for all groups together. A finished hour counts a fifth (`α = 0.2` a week); the first one
//! counts whole. Between the middles of two hours the usual rate goes straight from one to the other.
//!
//! Rates are queries/s: what scales them to sessions has a life of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::country_square::CountrySquare;
use super::layout::MAX_SQUARES;

pub const HOURS: usize = 168;
/// Groups with a profile of their own; 1.4 KB each. Of others nothing is forecast.
pub const MAX_GROUPS: usize = 4096;
/// How many squares are kept, those included that this load does not have.
const MAX_KEPT: usize = 2 * MAX_SQUARES;

const LEARN: f64 = 0.2;
const HOUR_S: i64 = 3600;
/// An hour of which less was seen says nothing, seconds.
const TELLING_S: f64 = 600.0;

/// Hours since Monday, 1969-12-29, 00:00 UTC.
fn hour_of(at: Timestamp) -> i64 {
    (at.as_second() + 3 * 24 * HOUR_S).div_euclid(HOUR_S)
}

fn slot_of(hour: i64) -> usize {
    hour.rem_euclid(HOURS as i64) as usize
}

/// Some instant at a time of the week, UTC, written as `Sat 20:00`; `None` for what is written otherwise.
pub fn time_of_week(text: &str) -> Option<Timestamp> {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let (day, time) = text.trim().split_once(' ')?;
    let day = DAYS.iter().position(|name| day.eq_ignore_ascii_case(name))? as i64;
    let (hour, minute) = time.trim_start().split_once(':')?;
    let number = |text: &str, below: i64| {
        let is_plain = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|number| is_plain && *number < below)
    };
    let minutes = (day * 24 + number(hour, 24)?) * 60 + number(minute, 60)?;
    Timestamp::from_second(minutes * 60 - 3 * 24 * HOUR_S).ok()
}

/// A mean for each hour of a week. 16 bits each in the file: the upper half of an f32, exact to 0.4 %.
#[derive(Clone, PartialEq)]
pub struct Week(Box<[Option<f32>]>);

impl Default for Week {
    fn default() -> Week {
        Week(vec![None; HOURS].into())
    }
}

impl fmt::Debug for Week {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().flatten()).finish()
    }
}

impl Week {
    /// Learns the mean of an hour, of which this many seconds were seen.
    fn learn(&mut self, slot: usize, mean: f64, seconds: f64) {
        let share = LEARN * (seconds / HOUR_S as f64).min(1.0);
        let before = self.0[slot];
        let after = before.map_or(mean, |before| f64::from(before) + share * (mean - f64::from(before)));
        self.0[slot] = Some((after as f32).clamp(0.0, 1e30));
    }

    /// What is usual at an instant; `None`: never seen.
    pub fn usual(&self, at: Timestamp) -> Option<f64> {
        let (hour, second) = (hour_of(at), (at.as_second() + 3 * 24 * HOUR_S).rem_euclid(HOUR_S));
        let half = HOUR_S / 2;
        let (first, part) = if second < half { (hour - 1, second + half) } else { (hour, second - half) };
        let value = |hour| self.0[slot_of(hour)].map(f64::from);
        let part = part as f64 / HOUR_S as f64;
        match (value(first), value(first + 1)) {
            (Some(a), Some(b)) => Some(a + part * (b - a)),
            (one, other) => one.or(other),
        }
    }
}

/// For an hour that was never seen.
const NONE: u16 = u16::MAX;

impl Serialize for Week {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let half = |value: &Option<f32>| value.map_or(NONE, |value| (value.to_bits() >> 16) as u16);
        let bytes: Vec<u8> = self.0.iter().flat_map(|value| half(value).to_le_bytes()).collect();
        serializer.serialize_str(&BASE64.encode(&bytes))
    }
}

impl<'de> Deserialize<'de> for Week {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Week, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes()).map_err(D::Error::custom)?;
        if bytes.len() != 2 * HOURS {
            return Err(D::Error::custom(format!("a week of {} bytes, not {}", bytes.len(), 2 * HOURS)));
        }
        let values = bytes.as_chunks::<2>().0.iter().map(|half| match u16::from_le_bytes(*half) {
            NONE => Ok(None),
            bits => match f32::from_bits(u32::from(bits) << 16) {
                value if value.is_finite() && value >= 0.0 => Ok(Some(value)),
                value => Err(D::Error::custom(format!("{value} is no rate"))),
            },
        });
        Ok(Week(values.collect::<Result<_, _>>()?))
    }
}

/// What `demand.json` holds.
///
/// Another version may write less or more: what is missing is not known, and what is not understood is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// When it was written.
    pub at: Option<Timestamp>,
    /// Sessions of regions, and what a query stands for there.
    pub pilot: crate::pilot::saved::Saved,
    /// Rates of then by group and by square of all groups together, queries/s.
    pub rates: BTreeMap<String, f64>,
    #[serde(with = "squares")]
    pub shape: BTreeMap<CountrySquare, f64>,
    pub profile: Profile,
}

impl Saved {
    /// Names of groups that something is known of.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rates.keys().chain(self.profile.groups.keys()).map(String::as_str)
    }

    /// Gives groups other names, old and new.
    pub fn rename(&mut self, names: &[(Arc<str>, Arc<str>)]) {
        for (old, new) in names {
            if let Some(rate) = self.rates.remove(&**old) {
                self.rates.entry(new.to_string()).or_insert(rate);
            }
        }
        self.profile.rename(names);
    }
}

/// The usual week of groups and squares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    groups: BTreeMap<String, Week>,
    #[serde(with = "squares")]
    squares: BTreeMap<CountrySquare, Week>,
    #[serde(skip)]
    open: Open,
}

/// Sums of rate × seconds, and seconds, of the hour that is going on.
#[derive(Clone, Debug, Default, PartialEq)]
struct Open {
    hour: i64,
    groups: BTreeMap<String, (f64, f64)>,
    squares: BTreeMap<CountrySquare, (f64, f64)>,
}

impl Profile {
    /// Adds a window of `passed` that ended at `at`: rates by group, without those of which nothing is to be learnt, and by
    /// square.
    pub fn observe<'a>(
        &mut self,
        at: Timestamp,
        passed: Duration,
        groups: impl IntoIterator<Item = (&'a str, f64)>,
        squares: impl IntoIterator<Item = (CountrySquare, f64)>,
    ) {
        let hour = hour_of(at);
        if hour != self.open.hour {
            self.close();
            self.open.hour = hour;
        }
        // A machine that slept has not seen an hour.
        let seconds = passed.as_secs_f64().min(60.0);
        let add = |sum: &mut (f64, f64), rate: f64| *sum = (sum.0 + rate * seconds, sum.1 + seconds);
        for (name, rate) in groups.into_iter().filter(|(_, rate)| rate.is_finite()) {
            if let Some(sum) = self.open.groups.get_mut(name) {
                add(sum, rate);
            } else if self.open.groups.len() < MAX_GROUPS
                && (self.groups.len() < MAX_GROUPS || self.groups.contains_key(name))
            {
                add(self.open.groups.entry(name.to_owned()).or_default(), rate);
            }
        }
        for (square, rate) in squares.into_iter().filter(|(_, rate)| rate.is_finite()) {
            if self.open.squares.len() < MAX_KEPT || self.open.squares.contains_key(&square) {
                add(self.open.squares.entry(square).or_default(), rate);
            }
        }
    }

    fn close(&mut self) {
        let slot = slot_of(self.open.hour);
        for (name, (sum, seconds)) in std::mem::take(&mut self.open.groups) {
            if seconds >= TELLING_S && (self.groups.len() < MAX_GROUPS || self.groups.contains_key(&name)) {
                self.groups.entry(name).or_default().learn(slot, sum / seconds, seconds);
            }
        }
        for (square, (sum, seconds)) in std::mem::take(&mut self.open.squares) {
            if seconds >= TELLING_S && (self.squares.len() < MAX_KEPT || self.squares.contains_key(&square)) {
                self.squares.entry(square).or_default().learn(slot, sum / seconds, seconds);
            }
        }
    }

    /// Usual queries/s of a group; `None`: never seen at that hour.
    pub fn group(&self, name: &str, at: Timestamp) -> Option<f64> {
        self.groups.get(name)?.usual(at)
    }

    /// Usual queries/s of a square, all groups together.
    pub fn square(&self, square: CountrySquare, at: Timestamp) -> Option<f64> {
        self.squares.get(&square)?.usual(at)
    }

    /// What was usual of each square; empty where nothing was ever seen.
    pub fn shape(&self, at: Timestamp) -> impl Iterator<Item = (CountrySquare, f64)> {
        self.squares.iter().filter_map(move |(square, week)| Some((*square, week.usual(at)?)))
    }

    /// Gives groups other names, old and new.
    pub fn rename(&mut self, names: &[(Arc<str>, Arc<str>)]) {
        for (old, new) in names {
            if let Some(week) = self.groups.remove(&**old) {
                self.groups.entry(new.to_string()).or_insert(week);
            }
            if let Some(hour) = self.open.groups.remove(&**old) {
                self.open.groups.entry(new.to_string()).or_insert(hour);
            }
        }
    }

    /// Forgets groups beyond the bound that no load has any more.
    pub fn retain(&mut self, has: impl Fn(&str) -> bool) {
        if self.groups.len() >= MAX_GROUPS {
            self.groups.retain(|name, _| has(name));
        }
    }

    /// A file may hold more than this version keeps.
    pub(super) fn bound(&mut self) {
        while self.groups.len() > MAX_GROUPS {
            self.groups.pop_last();
        }
        while self.squares.len() > MAX_KEPT {
            self.squares.pop_last();
        }
    }
}

/// Squares as the keys of a JSON object.
mod squares {
    use super::*;

    pub fn serialize<V: Serialize, S: Serializer>(
        map: &BTreeMap<CountrySquare, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(square, value)| (square.to_string(), value)))
    }

    pub fn deserialize<'de, V: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<CountrySquare, V>, D::Error> {
        let map = BTreeMap::<String, V>::deserialize(deserializer)?;
        // What is no square to this version costs that square and nothing else.
        Ok(map.into_iter().filter_map(|(text, value)| Some((text.parse().ok()?, value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn square() -> CountrySquare {
        "FR:24:1".parse().unwrap()
    }

    /// One rate for whole hours.
    fn see(profile: &mut Profile, from: &str, hours: i64, rate: f64) {
        let from = at(from).as_second();
        for window in 0..hours * 360 {
            let now = Timestamp::from_second(from + window * 10).unwrap();
            profile.observe(now, Duration::from_secs(10), [("live", rate)], [(square(), rate / 2.0)]);
        }
    }

    #[test]
    fn weeks_begin_on_monday() {
        assert_eq!(slot_of(hour_of(at("2026-11-23T00:00:00Z"))), 0);
        assert_eq!(slot_of(hour_of(at("2026-11-22T23:59:59Z"))), 167);
        assert_eq!(slot_of(hour_of(at("1960-01-04T01:00:00Z"))), 1, "before 1970 too");
    }

    #[test]
    fn a_time_of_the_week_is_day_and_clock() {
        let slot = |text: &str| time_of_week(text).map(|at| slot_of(hour_of(at)));
        assert_eq!((slot("Mon 00:00"), slot("sun 23:59"), slot(" Sat 20:00")), (Some(0), Some(167), Some(140)));
        assert_eq!(
            time_of_week("Wed 7:30").map(|at| at.strftime("%a %H:%M").to_string()).as_deref(),
            Some("Wed 07:30")
        );
        for text in
            ["", "Sat", "Sat 24:00", "Sat 20:60", "Saturday 20:00", "Sat 20", "Sat +1:00", "20:00 Sat", "Sat 020:00"]
        {
            assert_eq!(time_of_week(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_first_week_counts_whole_and_later_ones_a_fifth() {
        let mut profile = Profile::default();
        see(&mut profile, "2026-11-23T18:00:00Z", 1, 10.0);
        see(&mut profile, "2026-11-23T19:00:00Z", 1, 20.0);
        assert_eq!(profile.group("live", at("2026-11-23T18:30:00Z")), Some(10.0));
        see(&mut profile, "2026-11-30T18:00:00Z", 1, 110.0);
        see(&mut profile, "2026-11-30T20:00:00Z", 1, 0.0);
        let usual = profile.group("live", at("2026-12-07T18:30:00Z")).unwrap();
        assert!((usual - 30.0).abs() < 0.01, "{usual}");
        assert_eq!(profile.square(square(), at("2026-12-07T19:30:00Z")), Some(10.0));
        let between = profile.group("live", at("2026-12-07T19:00:00Z")).unwrap();
        assert!((between - 25.0).abs() < 0.01, "half way between two middles: {between}");
        assert_eq!(profile.group("live", at("2026-12-08T09:00:00Z")), None);
    }

    #[test]
    fn a_few_minutes_teach_nothing() {
        let mut profile = Profile::default();
        let windows = (0..50).map(|i| Timestamp::from_second(1_800_000_000 + i * 10).unwrap());
        windows.for_each(|now| profile.observe(now, Duration::from_secs(10), [("live", 5.0)], []));
        see(&mut profile, "2027-06-01T00:00:00Z", 1, 1.0);
        assert_eq!(profile.group("live", Timestamp::from_second(1_800_000_000).unwrap()), None);
    }

    #[test]
    fn groups_and_squares_have_a_bound() {
        let mut profile = Profile::default();
        let names: Vec<String> = (0..MAX_GROUPS + 10).map(|i| format!("{i:05}")).collect();
        for hour in 0..2 {
            for window in 0..60 {
                let now = Timestamp::from_second(1_800_000_000 + hour * 3600 + window * 60).unwrap();
                profile.observe(now, Duration::from_secs(60), names.iter().map(|name| (&**name, 1.0)), []);
            }
        }
        assert_eq!((profile.groups.len(), profile.open.groups.len()), (MAX_GROUPS, MAX_GROUPS));
    }

    #[test]
    fn what_is_written_is_read_back_to_the_part_in_two_hundred() {
        let mut profile = Profile::default();
        see(&mut profile, "2026-11-23T18:00:00Z", 1, 1234.5);
        see(&mut profile, "2026-11-23T20:00:00Z", 1, 0.0);
        profile.close();
        let saved = Saved { profile, shape: [(square(), 2.0)].into(), ..Saved::default() };
        let text = serde_json::to_string(&saved).unwrap();
        let back: Saved = serde_json::from_str(&text).unwrap();
        let usual = back.profile.group("live", at("2026-11-30T18:30:00Z")).unwrap();
        assert!((usual / 1234.5 - 1.0).abs() < 0.005, "{usual}");
        assert_eq!(back.shape, saved.shape);
    }

    #[test]
    fn a_week_that_is_none_is_refused() {
        let week = |bytes: &[u8]| serde_json::from_value::<Week>(BASE64.encode(bytes).into());
        assert!(week(&[0; 2 * HOURS]).is_ok());
        assert!(week(&[0; 2 * HOURS - 2]).is_err());
        let mut nan = [0; 2 * HOURS];
        nan[..2].copy_from_slice(&0x7FC0u16.to_le_bytes());
        assert!(week(&nan).is_err(), "not a number");
        nan[..2].copy_from_slice(&0xBF80u16.to_le_bytes());
        assert!(week(&nan).is_err(), "negative");
        assert!(serde_json::from_str::<Week>("\"no base64\"").is_err());
    }

    #[test]
    fn what_is_missing_or_not_understood_costs_nothing_else() {
        let text = r#"{"rates":{"live":5.0},"shape":{"France":1.0,"FR:24:1":2.0},"later":1,"pilot":{}}"#;
        let saved: Saved = serde_json::from_str(text).unwrap();
        assert_eq!((saved.rates["live"], saved.shape), (5.0, [(square(), 2.0)].into()));
    }

    proptest! {
        #[test]
        fn whatever_was_seen_the_usual_is_a_rate(
            seen in prop::collection::vec((-10_000_000_000i64..10_000_000_000, 0u64..100_000, 0.0f64..1e30), 0..50),
            asked in -10_000_000_000i64..10_000_000_000,
        ) {
            let mut profile = Profile::default();
            for (second, passed, rate) in seen {
                let now = Timestamp::from_second(second).unwrap();
                (0..12).for_each(|_| profile.observe(now, Duration::from_secs(passed), [("live", rate)], [(square(), rate)]));
            }
            profile.close();
            if let Some(usual) = profile.group("live", Timestamp::from_second(asked).unwrap()) {
                prop_assert!(usual.is_finite() && usual >= 0.0);
            }
        }
    }
}
