//! How many servers each region should have (STEERING §9), from what the pilot knows: for autoscalers and for people.
//!
//! desired = ⌈U·D / (0.70·K)⌉, and a tenth more while the region has a price above 30 ms. U is the rate of session starts
//! that would come if no region had a price, now or forecast for the next 15 minutes, whichever is more; D the mean length
//! of a session; K the sessions of one server. More is said at once; fewer only when that many were enough for 15 minutes
//! and the region had no price in all that time.
//!
//! At a first start D is only taken for granted until load that changes has shown it. A region that fills would seem to become
//! ten times as full as it will where sessions are that much shorter, so meanwhile no more than twice the sessions there
//! are is expected.
//!
//! What is not known is [`Unknown`], never 0: a scaler that is told 0 takes the servers away.
//!
//! Pure: time is passed in.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::view::{MarketView, RegionView, Stage, View, Wait};
use crate::load::Trust;

/// What a region should be used to.
const AIM: f64 = 0.70;
/// Above this price, ms, …
const DEAR_MS: f64 = 30.0;
/// … a region gets so many times as much.
const DEAR_FACTOR: f64 = 1.1;
/// A lower price, ms, is none.
const FREE_MS: f64 = 0.01;
/// Fewer servers have to be enough for so long.
pub const HOLD: Duration = Duration::from_secs(15 * 60);
/// Entries of a [`Held`] are told apart from each other by at least so much time, so there are few of them.
const GRAIN: Duration = Duration::from_secs(10);
/// A market that was not looked at for so long is not known any more.
const OLD: Duration = Duration::from_secs(30);
/// As long as nobody has seen how long sessions last, a market is not believed to become more than so many times as full.
const UNSEEN: f64 = 2.0;
/// No forecast is believed to be more than so many times what is now.
const STEEPEST: f64 = 10.0;
/// More servers are desired of no region.
const MOST: f64 = 1e6;
/// How full a region may be by what is admitted.
pub const ADMIT: f64 = 0.95;

/// Why nothing can be said of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Its market is not steered by load, or not any more.
    Unsteered(Stage),
    /// Its market is not steered by load, for want of something.
    Waits(Wait),
    /// Nobody has looked at it for half a minute.
    Old,
    /// The region does not report, or has not for minutes.
    Unreported,
    NoCapacity,
    /// Nobody asks for any stream of the market, so that its viewers cannot be foreseen.
    NoDemand,
    /// Down or drained since before anything was known of it.
    Closed,
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unknown::Unsteered(stage) => stage.describe(),
            Unknown::Waits(wait) => wait.describe(),
            Unknown::Old => "what is known of it is older than 30 s",
            Unknown::Unreported => "it has reported no load for three minutes, or never",
            Unknown::NoCapacity => "no capacity is written or reported",
            Unknown::NoDemand => "nobody asks for its streams here",
            Unknown::Closed => "it is down or drained, and was when it was first looked at",
        })
    }
}

/// Servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desired {
    pub now: u32,
    /// By the forecast alone: what would be enough in 15 minutes.
    pub in_15m: u32,
    /// If the one other region were lost whose viewers would come here most.
    pub after_loss: u32,
}

/// A region of which something can be said.
#[derive(Clone, Debug, PartialEq)]
pub struct Size {
    pub desired: Desired,
    /// Part of the capacity that counts now: in use, in use in a minute by the plan, and what would be in use if no region
    /// had a price and that lasted. `None`: no capacity counts now.
    pub utilization: Option<f64>,
    pub planned: Option<f64>,
    pub unconstrained: Option<f64>,
    pub price_ms: f64,
    pub sessions: Option<f64>,
    /// Session starts/s: what would come if no region had a price, streams that are steered otherwise included.
    pub unconstrained_rate: f64,
    /// Session starts/s that may be let in.
    pub admission: Option<f64>,
    /// The region whose loss `after_loss` is about.
    pub worst_loss: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    pub name: Arc<str>,
    /// By use: labels of the zones that have it, sorted.
    pub zones: Vec<Arc<[Arc<str>]>>,
    pub stage: Stage,
    /// Of its market: how far the plan may be from the best, and what part of the traffic the last step moved.
    pub gap: Option<f64>,
    pub moved: f64,
    pub size: Result<Size, Unknown>,
}

impl Region {
    /// The first of its zones.
    pub fn zone(&self) -> Option<&Arc<str>> {
        self.zones.iter().filter_map(|zones| zones.first()).min()
    }

    pub fn is_of(&self, zone: &str) -> bool {
        self.zones.iter().any(|zones| zones.binary_search_by(|label| (**label).cmp(zone)).is_ok())
    }
}

/// All regions that are steered by load, at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scale {
    pub regions: Vec<Region>,
}

impl Scale {
    /// The regions with a name for each: its own where no other region has it, and `ZONE/NAME` otherwise, by the first zone
    /// that uses it.
    pub fn named(&self) -> Vec<(String, &Region)> {
        let mut count: HashMap<&str, u32> = HashMap::new();
        self.regions.iter().for_each(|region| *count.entry(&region.name).or_default() += 1);
        let name = |region: &Region| match region.zone().filter(|_| count[&*region.name] > 1) {
            Some(zone) => format!("{zone}/{}", region.name),
            None => region.name.to_string(),
        };
        self.regions.iter().map(|region| (name(region), region)).collect()
    }
}

/// The greatest of the last 15 minutes.
#[derive(Clone, Debug, Default)]
struct Held {
    /// Later ones are smaller: at most one for each [`GRAIN`] of [`HOLD`], and two more.
    recent: VecDeque<(Instant, u32)>,
}

/// What part of the length of sessions is believed, where it was never seen.
fn believed(market: &MarketView) -> f64 {
    let known = market.regions.iter().filter_map(|region| Some((region, region.sessions?)));
    let (there, lasting) = known.fold((0.0, 0.0), |(there, lasting), (region, sessions)| {
        let rate = region.unconstrained_rate + region.scaling.fixed_rate;
        (there + sessions, lasting + rate * region.dwell_s)
    });
    if market.is_length_known || lasting <= UNSEEN * there { 1.0 } else { UNSEEN * there / lasting }
}

impl Held {
    fn get(&self) -> Option<u32> {
        self.recent.front().map(|(_, servers)| *servers)
    }

    /// From now on so many are held for the whole time.
    fn restart(&mut self, servers: u32, now: Instant) {
        self.recent.clear();
        self.recent.push_back((now, servers));
    }

    /// The greatest of the last 15 minutes, this one included.
    fn push(&mut self, servers: u32, now: Instant) -> u32 {
        while self.recent.back().is_some_and(|(_, last)| *last <= servers) {
            self.recent.pop_back();
        }
        match self.recent.back() {
            // A little less a moment later: what was said then holds for that moment longer.
            Some((at, _)) if self.recent.len() > 1 && now.saturating_duration_since(*at) < GRAIN => {}
            _ => self.recent.push_back((now, servers)),
        }
        while self.recent.len() > 1 && now.saturating_duration_since(self.recent[0].0) >= HOLD {
            self.recent.pop_front();
        }
        self.recent[0].1
    }

    /// So many are wanted now, and `there` are; fewer than are held count only where it may shrink.
    fn hold(&mut self, wanted: u32, there: u32, may_shrink: bool, now: Instant) -> u32 {
        let least = self.get().unwrap_or(there);
        let begins = self.recent.is_empty();
        self.push(if may_shrink && !begins { wanted } else { wanted.max(least) }, now)
    }
}

/// One region from look to look.
#[derive(Clone, Debug, Default)]
pub struct Scaler {
    now: Held,
    loss: Held,
    seen: Option<Instant>,
}

impl Scaler {
    fn look(&mut self, market: &MarketView, region: &RegionView, now: Instant) -> Result<Size, Unknown> {
        let known = self.reckon(market, region, now);
        match &known {
            // What was held is held from now on for the whole time: nobody knows what would have been enough meanwhile.
            Err(_) => self.freeze(now),
            Ok(_) => self.seen = Some(now),
        }
        known
    }

    fn freeze(&mut self, now: Instant) {
        for held in [&mut self.now, &mut self.loss] {
            if let Some(servers) = held.get() {
                held.restart(servers, now);
            }
        }
    }

    fn reckon(&mut self, market: &MarketView, region: &RegionView, now: Instant) -> Result<Size, Unknown> {
        let is_old = |at: Option<Instant>| at.is_none_or(|at| now.saturating_duration_since(at) > OLD);
        if !matches!(market.stage, Stage::Steered | Stage::Blind) {
            return Err(market.waits().map_or(Unknown::Unsteered(market.stage), Unknown::Waits));
        }
        if is_old(market.at) {
            return Err(Unknown::Old);
        }
        if matches!(region.majority, Trust::Lost | Trust::Never) {
            return Err(Unknown::Unreported);
        }
        let server = region.scaling.server_capacity.filter(|k| k.is_finite() && *k > 0.0).ok_or(Unknown::NoCapacity)?;
        let asked: f64 =
            market.regions.iter().map(|region| region.unconstrained_rate + region.scaling.fixed_rate).sum();
        let sessions: f64 = market.regions.iter().filter_map(|region| region.sessions).sum();
        if asked <= 0.0 && sessions >= 1.0 {
            return Err(Unknown::NoDemand);
        }
        if is_old(self.seen) {
            // A pause, in which nobody knows what would have been enough.
            self.freeze(now);
        }
        let rate = region.unconstrained_rate + region.scaling.fixed_rate;
        let ahead = region.scaling.ahead.filter(|ahead| *ahead > 0.0).map_or(1.0, |ahead| ahead.min(STEEPEST));
        let dwell_s = region.dwell_s * believed(market);
        let dear = if region.price_ms > DEAR_MS { DEAR_FACTOR } else { 1.0 };
        let servers = |rate: f64, more: f64| {
            let servers = (rate * dwell_s * more / (AIM * server)).ceil();
            // Also of what is not a number.
            if servers > 1.0 { servers.min(MOST) as u32 } else { 1 }
        };
        let desired = if region.closed {
            // Its viewers are elsewhere. They come back when it opens, and then its servers should be there.
            self.freeze(now);
            let held = self.now.get().ok_or(Unknown::Closed)?;
            Desired { now: held, in_15m: held, after_loss: self.loss.get().unwrap_or(held) }
        } else {
            let peak = rate * ahead.max(1.0);
            let lost = region.scaling.worst_loss.as_ref().map_or(0.0, |(_, lost)| lost * ahead.max(1.0));
            let may_shrink = region.price_ms <= FREE_MS;
            // Before anything was ever held it is what there is.
            let there = region.scaling.servers_up;
            let held = self.now.hold(servers(peak, dear), there, may_shrink, now);
            let after_loss = self.loss.hold(servers(peak + lost, dear), there, may_shrink, now);
            Desired { now: held, in_15m: servers(rate * ahead, 1.0), after_loss: after_loss.max(held) }
        };
        let counted = region.counted.filter(|counted| *counted > 0.0);
        Ok(Size {
            desired,
            utilization: region.utilization,
            planned: region.planned,
            unconstrained: counted.map(|counted| rate * dwell_s / counted),
            price_ms: region.price_ms,
            sessions: region.sessions,
            unconstrained_rate: rate,
            admission: region.scaling.admission,
            worst_loss: region.scaling.worst_loss.as_ref().map(|(name, _)| Arc::clone(name)),
        })
    }
}

/// Which region a scaler is of: name and first zone, which outlive a reload.
type Key = (Arc<str>, Option<Arc<str>>);

/// The scalers of all regions.
#[derive(Default)]
pub struct Scalers {
    by_region: HashMap<Key, Scaler>,
}

impl Scalers {
    /// Once a second, or as often as one likes.
    pub fn look(&mut self, view: &View, now: Instant) -> Scale {
        let mut scale = Scale::default();
        let mut there = HashSet::new();
        for market in &view.markets {
            for region in &market.regions {
                let mut of = Region {
                    name: Arc::clone(&region.name),
                    zones: region.scaling.zones.clone(),
                    stage: market.stage,
                    gap: market.certificate.map(|certificate| certificate.gap),
                    moved: market.moved,
                    size: Err(Unknown::Old),
                };
                let key: Key = (Arc::clone(&of.name), of.zone().cloned());
                of.size = self.by_region.entry(key.clone()).or_default().look(market, region, now);
                there.insert(key);
                scale.regions.push(of);
            }
        }
        // A region may be gone for the moment of a reload.
        let lately = |scaler: &Scaler| scaler.seen.is_some_and(|seen| now.saturating_duration_since(seen) < HOLD);
        self.by_region.retain(|key, scaler| there.contains(key) || lately(scaler));
        scale
    }
}

#[cfg(test)]
mod tests;
