//! What a region costs a place, by all that was learned, with the parts that `explain` shows.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::feed::PENALTY_MS;
use super::key::{Key, Level};
use super::slot::Evidence;
use super::{Ids, LOG_BIN, Learned, RESIDUAL_BIN_MS, Region};
use crate::geo::Point;
use crate::steering::cost::{BASE_MS, MS_PER_KM, predicted_ms};

/// Samples that what is known of the coarser level is worth (STEERING §4).
const K: f64 = 10.0;
/// Samples take μ no further from where it stood than this, up or down, as a factor.
pub const FACTOR: f64 = 4.0;
/// ms for a loss of one, beyond what every path has (STEERING §4).
const LOSS_MS: f64 = 400.0;
const LOSS_FREE: f64 = 0.005;
/// Taken where one of the two is nowhere: the same for all regions, so their order is as written until one was measured.
const UNKNOWN_KM: f64 = 5000.0;
/// Standard deviation of the prior, as a share of it.
const PRIOR_SD: f64 = 0.30;
/// What the levels above the cell leave unknown of it, however much was measured elsewhere.
const COUNTRY_ASN_SD: f64 = 0.20;
const METRO_SD: f64 = 0.16;
/// Above it a region is worth finding out about (STEERING §4).
const UNSURE_SD: f64 = 0.15;

/// Of what the cost of a way is made, ms. The operator's bias and money are not in it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// 8 + 0.020 a km.
    pub distance_ms: f64,
    /// What viewers of the country and of the network need beyond that, as measured.
    pub country_ms: f64,
    pub asn_ms: f64,
    /// What measurements nearer to the client and imported tables add to those three, or take away.
    pub measured_ms: f64,
    pub loss_ms: f64,
    /// That count at the finest level that is known; a number.
    pub samples: f64,
    /// Posterior standard deviation as a share of the round-trip time: 0.15 is 15 %.
    pub sd: f64,
}

impl Cost {
    /// Where nothing but the distance is asked for.
    pub fn of_distance(distance_ms: f64) -> Cost {
        let (country_ms, asn_ms, measured_ms, loss_ms, samples) = (0.0, 0.0, 0.0, 0.0, 0.0);
        Cost { distance_ms, country_ms, asn_ms, measured_ms, loss_ms, samples, sd: PRIOR_SD }
    }

    /// The sum of the parts.
    pub fn ms(&self) -> f64 {
        self.distance_ms + self.country_ms + self.asn_ms + self.measured_ms + self.loss_ms
    }

    /// Whether it is known to no better than 15 %.
    pub fn is_unsure(&self) -> bool {
        self.sd > UNSURE_SD
    }
}

/// What distance alone makes it.
pub(super) fn distance_ms(from: Option<Point>, to: Option<Point>) -> f64 {
    match from.zip(to) {
        Some((from, to)) => predicted_ms(from, to),
        None => BASE_MS + MS_PER_KM * UNKNOWN_KM,
    }
}

/// What `n` samples count beside what was known before.
fn shrunk(n: f64) -> f64 {
    n / (n + K)
}

/// A region, looked up.
pub struct Toward<'a> {
    learned: &'a Learned,
    region: Region<'a>,
    ids: Ids,
}

impl Toward<'_> {
    /// As [`Learned::cost`].
    pub fn cost(&self, key: &Key, now: Timestamp) -> Cost {
        let distance = distance_ms(key.location, self.region.location);
        self.learned.cost_with(key, distance, self.ids, &self.region, now.as_second())
    }
}

impl Learned {
    /// Finite and above zero, whatever was fed.
    pub fn cost(&self, key: &Key, region: &Region<'_>, now: Timestamp) -> Cost {
        self.toward(*region).cost(key, now)
    }

    /// For the costs of many places to one region.
    pub fn toward<'a>(&'a self, region: Region<'a>) -> Toward<'a> {
        Toward { learned: self, ids: self.ids(&region), region }
    }

    fn cost_with(&self, key: &Key, distance_ms: f64, ids: Ids, region: &Region<'_>, now: i64) -> Cost {
        let placed = key.location.is_some() && region.location.is_some();
        let country = key.country.filter(|_| placed).map(Level::Country);
        let country_ms = country.map_or(0.0, |level| self.penalty(level, 0.0, ids, region, now));
        let asn = key.asn.filter(|_| placed).map(Level::Asn);
        let asn_ms = asn.map_or(0.0, |level| self.penalty(level, country_ms, ids, region, now));
        let prior = (distance_ms + country_ms + asn_ms).max(1.0);

        let (mut mu, mut anchor, mut variance) = (prior.ln(), prior.ln(), PRIOR_SD * PRIOR_SD);
        let (mut loss_ms, mut samples) = (0.0, 0.0);
        for level in key.levels() {
            let floor: f64 = match level {
                Level::CountryAsn(..) => COUNTRY_ASN_SD,
                Level::AsnMetro(..) => METRO_SD,
                _ => 0.0,
            };
            let mut shrink = |n: f64, median: f64, mu: &mut f64| {
                *mu = (n * median * LOG_BIN + K * *mu) / (n + K);
                // Never above what it was, and never surer than the level can be.
                variance = (variance * K / (n + K)).max((floor * floor).min(variance));
                samples = n;
            };
            if let Some((n, median)) = self.table.value(level, region) {
                shrink(n, median, &mut mu);
                anchor = mu;
            }
            if let Some(Evidence { n, median, loss }) = self.evidence(level, ids, now) {
                shrink(n, median, &mut mu);
                if let Some((mean, n)) = loss {
                    loss_ms = LOSS_MS * (mean * shrunk(n) - LOSS_FREE).max(0.0);
                }
            }
        }
        let mu = mu.clamp(anchor - FACTOR.ln(), anchor + FACTOR.ln()).exp();
        Cost {
            distance_ms,
            country_ms,
            asn_ms,
            measured_ms: mu - (distance_ms + country_ms + asn_ms),
            loss_ms,
            samples,
            sd: variance.sqrt(),
        }
    }

    /// Median residual beyond what is `explained` already, shrunk as everything else is.
    fn penalty(&self, level: Level, explained: f64, ids: Ids, region: &Region<'_>, now: i64) -> f64 {
        let live = self.evidence(level, ids, now).map(|found| (found.n, found.median));
        let (mut n, mut sum) = (0.0, 0.0);
        for (weight, median) in self.table.value(level, region).into_iter().chain(live) {
            (n, sum) = (n + weight, sum + weight * median * RESIDUAL_BIN_MS);
        }
        if n == 0.0 {
            return 0.0;
        }
        (sum / n - explained).clamp(*PENALTY_MS.start(), *PENALTY_MS.end()) * shrunk(n)
    }

    /// The region's own samples where there are enough, else those given for all regions of its name.
    fn evidence(&self, level: Level, ids: Ids, now: i64) -> Option<Evidence> {
        let of = |id| self.slots.get(&(level, id))?.evidence(now);
        ids.own.and_then(of).or_else(|| ids.any.and_then(of))
    }
}
