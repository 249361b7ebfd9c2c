//! The state of a running node at one instant: what `status` and `top` show, and `/v1/status` gives as JSON.
//!
//! The JSON is stable: fields are added, never renamed or removed. Times are Unix seconds with fractions, durations are
//! seconds or ms as their names say, shares go from 0 to 1.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub at: f64,
    /// When the node was started.
    pub started: f64,
    pub snapshot: SnapshotStatus,
    /// Queries per second over the last ten seconds.
    pub qps: f64,
    pub zones: Vec<ZoneStatus>,
    pub orders: Vec<OrderStatus>,
    /// Whether orders, verdicts and journal are kept over a restart.
    #[serde(default = "yes")]
    pub kept: bool,
    /// Why they are not.
    #[serde(default)]
    pub not_kept_because: Option<String>,
}

/// What is so where an older server does not say.
pub fn yes() -> bool {
    true
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    pub generation: u64,
    /// Since it was published.
    pub age_s: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZoneStatus {
    pub name: String,
    pub serial: u32,
    pub qps: f64,
    pub regions: Vec<RegionStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionStatus {
    pub name: String,
    pub near: Option<String>,
    /// `None` without an address of the family.
    pub up_v4: Option<bool>,
    pub up_v6: Option<bool>,
    /// `steady`, `ramping`, `frozen` (a ramp that waits), `draining`, `drained`, `forced up`, `forced down`.
    pub mode: String,
    /// Of what its health and place would give it, how much it is allowed to take.
    pub share_allowed: f64,
    /// Of the zone's steered answers of the last ten seconds. `None` without any.
    pub share_of_answers: Option<f64>,
    /// Answers per second over the last ten seconds.
    pub answers_per_s: f64,
    /// What its servers report, or it as a whole. `None`: nothing was reported.
    #[serde(default)]
    pub load: Option<RegionLoad>,
    /// `None`: no stream of it is steered by load.
    #[serde(default)]
    pub steering: Option<RegionSteering>,
    pub servers: Vec<ServerStatus>,
}

/// How the pilot steers a region by load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegionSteering {
    /// `unreported` (not steered by load: none is reported), `steered`, `blind` (by what is predicted), `returning`.
    pub stage: String,
    /// In use of the capacity that counts now, and a minute ahead as planned. `None`: not known.
    pub utilization: Option<f64>,
    pub planned: Option<f64>,
    /// What it costs beyond its distance.
    pub price_ms: f64,
    /// Session starts that the plan sends there.
    pub starts_per_s: f64,
}

/// The load of a region, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegionLoad {
    /// Reported, or predicted from old reports.
    pub sessions: Option<f64>,
    /// 1.0 is full.
    pub utilization: Option<f64>,
    /// In sessions, as far as the reports are trusted.
    pub capacity: Option<f64>,
    /// Of the oldest report that counts.
    pub age_s: f64,
    /// `fresh`, `predicted` (from 3 s), `doubtful` (10 s), `poor` (30 s), `lost` (180 s).
    pub trust: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Public addresses.
    pub addresses: Vec<String>,
    pub weight: u16,
    /// One for each way it is probed; empty for a server without a check.
    pub targets: Vec<TargetStatus>,
    pub forced: Option<String>,
    /// The load its agent reported last.
    pub load: Option<LoadStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetStatus {
    pub probed: String,
    /// `up`, `down`, `damped` (answers, but went up and down too often; counts as down while that leaves enough) or
    /// `unknown`.
    pub verdict: String,
    /// From before the last start and not confirmed since.
    pub stale: bool,
    /// Kept down because it went up and down too often; seconds until it may come back at the earliest.
    pub damped_s: Option<f64>,
    pub cause: Option<String>,
    pub since: Option<f64>,
    pub rtt_ms: Option<f64>,
    /// Since a probe last told anything.
    pub last_result_s: f64,
    /// Since the last heartbeat. `None`: none came yet, or none is expected.
    pub last_beat_s: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadStatus {
    pub age_s: f64,
    pub sessions: Option<u64>,
    pub bits_per_s: Option<u64>,
    /// 0 to 1.
    pub cpu: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderStatus {
    pub id: u64,
    /// `drain`, `force up`, `force down`.
    pub action: String,
    /// The region's name or the server's address.
    pub subject: String,
    pub zone: Option<String>,
    /// `to come`, `draining`, `in force`.
    pub state: String,
    pub from: f64,
    pub until: Option<f64>,
    pub over_s: Option<f64>,
    pub reason: String,
    pub author: String,
    /// Of a drain: how much of the region's share is left, 0 to 1.
    pub left: Option<f64>,
}
