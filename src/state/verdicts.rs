//! What is kept of verdicts and ramps over a restart.
//!
//! Only what was found out is kept: a server that was not heard of is not in it. What comes back is old news, to be
//! believed until the first probe says better.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::config::settings::Check;
use crate::health::{Target, Verdict, damping};
use crate::world::Belief;

/// What `verdicts.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    pub verdicts: Vec<Saved>,
    pub ramps: Vec<Ramp>,
}

/// What was believed of one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    pub address: SocketAddr,
    /// [`check_digest`] of the check that it was probed by.
    pub check: String,
    pub up: bool,
    pub cause: Arc<str>,
    pub since: Timestamp,
    /// Kept down until then at the earliest, because it went up and down too often.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub damped: Option<Timestamp>,
    /// It answered, and was down for that reason alone.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub soft: bool,
}

/// A region on its way back to its full share, or away from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// Lower case, without the final dot.
    pub zone: Arc<str>,
    pub region: Arc<str>,
    /// How far it has come, in seconds.
    pub progress_s: f64,
    /// How long it takes in all.
    pub of_s: f64,
    /// While it is drained: the part of its share that was left.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub left: Option<f64>,
    /// It is of this zone alone, though others may have the same regions.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub alone: bool,
}

impl Saved {
    /// `None` when nothing is known of it.
    pub fn of(target: &Target, belief: &Belief) -> Option<Saved> {
        let up = match belief.verdict {
            Verdict::Unknown => return None,
            Verdict::Up => true,
            Verdict::Down | Verdict::Damped => false,
        };
        Some(Saved {
            address: target.address,
            check: check_digest(&target.check),
            up,
            cause: Arc::clone(&belief.cause),
            // A clock far outside of what a time can be is no reason to forget the verdict.
            since: Timestamp::try_from(belief.since).unwrap_or(Timestamp::UNIX_EPOCH),
            damped: belief.damped.and_then(|until| Timestamp::try_from(until).ok()),
            soft: belief.verdict == Verdict::Damped,
        })
    }

    /// What it was, or what it has become since because a time is over.
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        match (self.up, self.soft) {
            (false, true) if self.damped_for(now).is_some() => Verdict::Damped,
            (true, _) | (_, true) => Verdict::Up,
            (false, false) => Verdict::Down,
        }
    }

    /// How long it is still to be kept down; bounded, for the clock may have been set back since.
    pub fn damped_for(&self, now: Timestamp) -> Option<Duration> {
        let left = Duration::try_from(self.damped?.duration_since(now)).ok()?;
        Some(left.min(damping::LONGEST)).filter(|left| !left.is_zero())
    }

    /// To be believed until it is confirmed.
    pub fn belief(&self, now: Timestamp) -> Belief {
        Belief {
            stale: true,
            damped: self.damped_for(now).and_then(|left| now.checked_add(left).ok()).map(Into::into),
            ..Belief::new(self.verdict(now), Arc::clone(&self.cause), self.since.into())
        }
    }
}

/// Tells one check of an address from another: the first half of the SHA-256 of all its settings, in hex. Another version
/// of the program may see the same check otherwise; then the verdict is found out anew.
pub fn check_digest(check: &Check) -> String {
    HEXLOWER.encode(&digest(&SHA256, format!("{check:?}").as_bytes()).as_ref()[..16])
}
