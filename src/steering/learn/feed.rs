//! The door: which samples are taken, and how often one source may speak.

use std::fmt;
use std::ops::RangeInclusive;

use jiff::Timestamp;

use super::key::{Block, Key, Level, Reporter};
use super::slot::{self, MAX_N};
use super::{LOG_BIN, Learned, Map, RESIDUAL_BIN_MS, Region, RegionId};
use crate::config::units::short;
use crate::steering::cost::predicted_ms;

/// A round trip outside of it was not measured well.
pub const RTT_MS: RangeInclusive<f64> = 1.0..=2000.0;
/// Of one prefix to one region.
pub const A_MINUTE: u8 = 6;
/// What one prefix may hold of a region's samples where little is known: below half of the fewest that count, so that
/// one prefix is never the majority.
pub const PREFIX_N: f32 = 2.0;
/// And where much is known, of the samples of its cell.
pub const PREFIX_SHARE: f32 = 0.1;
/// Pairs of prefix and region whose part is remembered; those heard longest ago go first. 32 bytes each.
pub const MAX_PREFIXES: usize = 200_000;
/// A residual counts no more than this, ms (STEERING §4).
pub const PENALTY_MS: RangeInclusive<f64> = -10.0..=80.0;

/// A measured round trip of one client to one region.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub client: Key,
    /// What steering takes the client for. It may be coarser, and lie elsewhere: a /24 is steered as most of it is. `None`:
    /// nothing is steered by load.
    pub cell: Option<Key>,
    pub block: Block,
    pub region: Region<'a>,
    pub rtt_ms: f64,
    /// 0 to 1
    pub loss: Option<f64>,
    pub reporter: Reporter,
}

/// Why a sample does not count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refused {
    Rtt(f64),
    Loss(f64),
    /// No database knows enough of the prefix.
    Nowhere,
    /// The prefix spoke too often within a minute.
    TooOften,
    /// The prefix holds as much as one may.
    PrefixShare,
    /// The reporter does.
    ReporterShare,
    /// Too many names.
    Regions,
}

impl Refused {
    /// Whether the sample is sound, and only more of what was heard enough: a reporter that is told so need do nothing.
    pub fn is_plenty(&self) -> bool {
        matches!(self, Refused::TooOften | Refused::PrefixShare | Refused::ReporterShare)
    }

    /// The rule that it broke.
    pub fn rule(self) -> String {
        match self {
            Refused::Rtt(_) => format!("from {} to {} ms", RTT_MS.start(), RTT_MS.end()),
            Refused::Loss(_) => "a share, from 0 to 1".to_owned(),
            Refused::Nowhere => {
                "a sample counts for a location, or for a country and an ASN, and the loaded databases have neither of \
                                 it; documentation and private prefixes are nowhere"
                    .to_owned()
            }
            Refused::TooOften => format!("one prefix counts {A_MINUTE} times a minute for a region"),
            Refused::PrefixShare => format!(
                "one prefix holds at most {PREFIX_N} samples of a region, or {}% of its cell's",
                PREFIX_SHARE * 100.0
            ),
            Refused::ReporterShare => {
                format!("a reporter among others holds at most {}% of a place", slot::REPORTER_SHARE * 100.0)
            }
            Refused::Regions => format!("{} names of regions are told apart", super::MAX_REGIONS),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Rtt(rtt) => write!(f, "{} ms is no round trip", short(*rtt)),
            Refused::Loss(loss) => write!(f, "{} is no loss", short(*loss)),
            Refused::Nowhere => f.write_str("where the prefix is, is not known"),
            Refused::TooOften => f.write_str("the prefix speaks too often"),
            Refused::PrefixShare => f.write_str("the prefix was heard enough for now"),
            Refused::ReporterShare => f.write_str("its reporter was heard enough of this place for now"),
            Refused::Regions => f.write_str("too many names of regions"),
        }
    }
}

impl std::error::Error for Refused {}

/// How much each prefix has said.
#[derive(Debug, Default)]
pub(super) struct Doors {
    pub(super) prefixes: Map<(Block, RegionId), Said>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    /// Decayed to `at`.
    pub(super) weight: f32,
    pub(super) at: i64,
    minute: i64,
    count: u8,
}

impl Said {
    pub(super) fn new(weight: f32, at: i64) -> Said {
        Said { weight, at, ..Said::default() }
    }

    fn weight_at(&self, now: i64) -> f32 {
        self.weight * slot::left_after(now - self.at)
    }
}

impl Doors {
    fn check(&self, who: (Block, RegionId), known: f32, now: i64) -> Result<(), Refused> {
        let Some(said) = self.prefixes.get(&who) else { return Ok(()) };
        if said.minute == now.div_euclid(60) && said.count >= A_MINUTE {
            return Err(Refused::TooOften);
        }
        // A little over, as two samples within a second must both fit.
        let most = PREFIX_N.max(PREFIX_SHARE * known.min(MAX_N));
        if said.weight_at(now) + 1.0 > most + 1e-3 { Err(Refused::PrefixShare) } else { Ok(()) }
    }

    fn note(&mut self, who: (Block, RegionId), now: i64) {
        let minute = now.div_euclid(60);
        let said = self.prefixes.entry(who).or_insert(Said { at: now, minute, ..Said::default() });
        let count = if said.minute == minute { said.count } else { 0 };
        let (weight, at) = (said.weight_at(now) + 1.0, now.max(said.at));
        *said = Said { weight, at, minute, count: count.saturating_add(1) };
        if self.prefixes.len() > MAX_PREFIXES {
            let mut times: Vec<i64> = self.prefixes.values().map(|said| said.at).collect();
            let (_, &mut limit, _) = times.select_nth_unstable(MAX_PREFIXES / 16);
            let mut over = MAX_PREFIXES / 16;
            self.prefixes.retain(|_, said| {
                let goes = over > 0 && said.at <= limit;
                over -= usize::from(goes);
                !goes
            });
        }
    }

    /// Forgets those whose part no longer shows.
    pub(super) fn expire(&mut self, now: i64) {
        self.prefixes.retain(|_, said| said.weight_at(now) > 0.05);
    }
}

impl Learned {
    /// Takes a sample, or tells why it does not count. Costs some microseconds.
    pub fn feed(&mut self, sample: &Sample<'_>, now: Timestamp) -> Result<(), Refused> {
        let now = now.as_second();
        if !RTT_MS.contains(&sample.rtt_ms) {
            return Err(Refused::Rtt(sample.rtt_ms));
        }
        if let Some(loss) = sample.loss.filter(|loss| !(0.0..=1.0).contains(loss)) {
            return Err(Refused::Loss(loss));
        }
        let client = &sample.client;
        let Some(finest) = client.levels().last() else { return Err(Refused::Nowhere) };
        let region = self.intern(&sample.region).ok_or(Refused::Regions)?;
        let mut levels: Vec<Level> = client.levels().chain(client.whole()).collect();
        let cell = sample.cell.and_then(|cell| cell.levels().last());
        levels.extend(cell.filter(|cell| !levels.contains(cell)));
        // A prefix may hold no more than its part of any cell that it speaks for.
        let is_bound = |level: &&Level| matches!(level, Level::Cell(..)) || **level == finest;
        let n = |level: &Level| self.slots.get(&(*level, region)).map_or(0.0, |slot| slot.n(now));
        let known = levels.iter().filter(is_bound).map(n).fold(MAX_N, f32::min);
        self.doors.check((sample.block, region), known, now)?;

        let rtt = sample.rtt_ms.ln() / LOG_BIN;
        let residual = client.location.zip(sample.region.location).map(|(from, to)| {
            let residual = sample.rtt_ms - predicted_ms(from, to);
            residual.clamp(*PENALTY_MS.start(), *PENALTY_MS.end()) / RESIDUAL_BIN_MS
        });
        let mut taken = false;
        for level in levels {
            taken |= self.put(level, region, rtt, sample, now);
        }
        if let Some(residual) = residual {
            for level in client.penalties() {
                taken |= self.put(level, region, residual, sample, now);
            }
        }
        if !taken {
            return Err(Refused::ReporterShare);
        }
        self.doors.note((sample.block, region), now);
        self.make_room();
        Ok(())
    }

    fn put(&mut self, level: Level, region: RegionId, at: f64, sample: &Sample<'_>, now: i64) -> bool {
        let slot = self.slots.entry((level, region)).or_default();
        if !slot.take(at, sample.loss, sample.reporter, now) {
            return false;
        }
        self.version += 1;
        true
    }
}
