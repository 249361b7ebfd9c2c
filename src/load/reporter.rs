//! What one reporter is believed to have said, and what it is worth after a while.
//!
//! STEERING §8: a report is of now for 3 s; then the sessions follow what is sent there; after 10, 30 and 180 s the
//! capacity counts 0.9, 0.8 and 0.7. One that reports less often than every few seconds is not late before its next report
//! should have come: then half a period later counts as 10 s, and one and a half as 30. Nothing that grows old looks emptier
//! than it was, but for viewers who leave by the known length of sessions, and of those no more are believed gone than in 180 s.

use std::time::{Duration, Instant};

use super::gauge::{BITS_PER_S, CAPACITY, Gauge, Heard, SESSIONS, STARTS_PER_S, UTILIZATION};
use super::report::{MAX_SESSIONS, Report};
use crate::steering::dwell;

/// A report that is younger tells of now.
pub const FRESH: Duration = Duration::from_secs(3);
const DOUBTFUL: Duration = Duration::from_secs(10);
const POOR: Duration = Duration::from_secs(30);
const LOST: Duration = Duration::from_secs(180);
/// The longest that may lie between two reports of one that is heard.
const LONGEST_PERIOD: Duration = Duration::from_secs(60);

/// How far reports are relied on, by their age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Up to 3 s: as reported.
    Fresh,
    /// Sessions are predicted from what is sent there.
    Predicted,
    /// From 10 s, or half a period after the next was due: 0.9 of the capacity.
    Doubtful,
    /// From 30 s, or a period later: 0.8.
    Poor,
    /// From 180 s: 0.7 of the configured capacity.
    Lost,
    /// Nothing was ever reported: 0.7 of the configured capacity, and the load is not known.
    Never,
}

impl Trust {
    /// `period`: how often it reports; zero where that is not known.
    pub fn at(age: Duration, period: Duration) -> Trust {
        let period = period.min(LONGEST_PERIOD);
        match age {
            age if age > LOST => Trust::Lost,
            age if age > POOR.max(period * 5 / 2) => Trust::Poor,
            age if age > DOUBTFUL.max(period * 3 / 2) => Trust::Doubtful,
            age if age > FRESH => Trust::Predicted,
            _ => Trust::Fresh,
        }
    }

    /// Of the capacity, what counts.
    pub fn factor(self) -> f64 {
        match self {
            Trust::Fresh | Trust::Predicted => 1.0,
            Trust::Doubtful => 0.9,
            Trust::Poor => 0.8,
            Trust::Lost | Trust::Never => 0.7,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Trust::Fresh => "fresh",
            Trust::Predicted => "predicted",
            Trust::Doubtful => "doubtful",
            Trust::Poor => "poor",
            Trust::Lost => "lost",
            Trust::Never => "never reported",
        }
    }
}

/// What is known to be sent to a region.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// Sessions that begin there, per second.
    pub starts_per_s: f64,
    /// Mean length of a session; kept within its bounds ([`dwell`]).
    pub session: Duration,
}

impl Expected {
    /// A share of it.
    pub fn part(self, part: f64) -> Expected {
        Expected { starts_per_s: self.starts_per_s * part, ..self }
    }

    /// Sessions that `sessions` have become after `age`.
    fn predict(self, sessions: f64, age: Duration) -> f64 {
        if age <= FRESH {
            return sessions;
        }
        let length = dwell::bounded(self.session.as_secs_f64());
        // Whatever the caller reckoned, what comes of it is a number.
        let starts = if self.starts_per_s > 0.0 { self.starts_per_s.min(MAX_SESSIONS) } else { 0.0 };
        let lasting = starts * length;
        let age = if lasting < sessions { age.min(LOST) } else { age };
        lasting + (sessions - lasting) * (-age.as_secs_f64() / length).exp()
    }
}

/// The figures of a machine, or of a region as a whole.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    sessions: Gauge,
    utilization: Gauge,
    bits_per_s: Gauge,
    starts_per_s: Gauge,
    capacity: Gauge,
    rhythm: Option<Rhythm>,
}

/// When it reports.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    last: Instant,
    /// Between the last three reports; the same where there were only two.
    gaps: [Option<Duration>; 2],
}

impl Rhythm {
    /// One long gap is a silence and no period.
    fn period(self) -> Duration {
        self.gaps[0].min(self.gaps[1]).unwrap_or_default()
    }
}

/// What a reporter is worth at an instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reading {
    /// Predicted.
    pub sessions: Option<f64>,
    /// As reported; higher where the sessions are predicted to have grown.
    pub utilization: Option<f64>,
    pub age: Duration,
    pub trust: Trust,
}

impl Reporter {
    pub fn new() -> Reporter {
        Reporter {
            sessions: Gauge::new(SESSIONS),
            utilization: Gauge::new(UTILIZATION),
            bits_per_s: Gauge::new(BITS_PER_S),
            starts_per_s: Gauge::new(STARTS_PER_S),
            capacity: Gauge::new(CAPACITY),
            rhythm: None,
        }
    }

    /// `sending`: viewers are being sent there. Doubted when any of the figures is.
    pub fn hear(&mut self, report: &Report, sending: bool, now: Instant) -> Heard {
        self.rhythm = Some(match self.rhythm {
            Some(Rhythm { last, gaps }) => {
                let gap = now.saturating_duration_since(last);
                Rhythm { last: now, gaps: [gaps[1].or(Some(gap)), Some(gap)] }
            }
            None => Rhythm { last: now, gaps: [None; 2] },
        });
        let figures = [
            (&mut self.sessions, report.sessions()),
            (&mut self.utilization, report.utilization()),
            (&mut self.bits_per_s, report.bits_per_s()),
            (&mut self.starts_per_s, report.starts_per_s()),
            (&mut self.capacity, report.capacity()),
        ];
        let heard = figures.into_iter().filter_map(|(gauge, value)| Some(gauge.hear(value?, sending, now)));
        heard.max().unwrap_or(Heard::Believed)
    }

    /// Its own word on how many sessions it can take.
    pub fn capacity(&self) -> Option<f64> {
        self.capacity.value().map(|(value, _)| value)
    }

    pub fn starts_per_s(&self, now: Instant) -> Option<f64> {
        let (value, at) = self.starts_per_s.value()?;
        (self.trust(now.saturating_duration_since(at)) <= Trust::Predicted).then_some(value)
    }

    fn trust(&self, age: Duration) -> Trust {
        Trust::at(age, self.rhythm.map_or(Duration::ZERO, Rhythm::period))
    }

    /// When the load that counts was reported.
    pub fn at(&self) -> Option<Instant> {
        let gauges = [&self.sessions, &self.bits_per_s, &self.utilization];
        gauges.into_iter().filter_map(|gauge| Some(gauge.value()?.1)).max()
    }

    /// `capacity`: nominal sessions of a full one, for those that say only how full they are. `session_bits` likewise
    /// for those that say only what they send; without `expected` sessions stay. `None`: no load was reported.
    pub fn reading(
        &self,
        capacity: Option<f64>,
        session_bits: Option<f64>,
        expected: Option<Expected>,
        now: Instant,
    ) -> Option<Reading> {
        let newest = self.at()?;
        // Figures that are not of one time are not of one report.
        let of_now = |gauge: &Gauge| gauge.value().filter(|(_, at)| *at + FRESH >= newest);
        let utilization = of_now(&self.utilization);
        let counted = of_now(&self.sessions)
            .or_else(|| of_now(&self.bits_per_s).zip(session_bits).map(|((bits, at), one)| (bits / one, at)))
            .or_else(|| utilization.zip(capacity).map(|((share, at), full)| (share * full, at)));
        let (_, at) = counted.or(utilization).or(of_now(&self.bits_per_s))?;
        let age = now.saturating_duration_since(at);
        let sessions = counted.map(|(value, _)| expected.map_or(value, |expected| expected.predict(value, age)));
        let growth = counted.zip(sessions).map_or(1.0, |((before, _), now)| (now / before.max(1.0)).max(1.0));
        let utilization = utilization.map(|(share, _)| share * growth);
        Some(Reading { sessions, utilization, age, trust: self.trust(age) })
    }
}
