//! Why an answer is what it is: every step of the choice, taken from the code that answers.
//!
//! [`Explanation`] is the one shape of it: [`ask`] makes it, the admin API gives it as JSON, `meridian explain` prints it as
//! text ([`show`]) or as JSON. The JSON is stable: fields are added, never renamed or removed. Names are absolute,
//! times are Unix seconds, costs are ms, distances km.

pub mod ask;
pub mod load;
pub mod show;

use load::{CostFacts, LoadFacts};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub basis: Basis,
    /// Of the snapshot that answered.
    pub generation: u64,
    /// Unix seconds at which the question was answered.
    pub at: u64,
    pub question: Question,
    /// `None`: no zone of ours holds the name.
    pub zone: Option<ZoneFacts>,
    pub location: Location,
    /// `None`: a static name, or none of ours.
    pub steering: Option<Steering>,
    pub answer: Answer,
}

/// Where the knowledge comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// A running server: verdicts are those of now.
    Server,
    /// The files alone: verdicts are unknown, every server is taken as up.
    Files,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: String,
    /// The client's prefix, asked as an EDNS Client Subnet option.
    pub client: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneFacts {
    pub name: String,
    pub serial: u32,
    pub file: String,
}

/// What the databases say of the client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Location {
    /// The block around the client of which all this is said.
    pub network: String,
    pub latitude: Option<f64>,
    pub longitude: Option<f64>,
    pub country: Option<String>,
    pub subdivision: Option<String>,
    pub continent: Option<String>,
    pub asn: Option<u32>,
    /// Which file said what.
    pub said_by: Vec<SaidBy>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaidBy {
    pub attribute: String,
    /// A database file, the overrides, or what follows from the country.
    pub by: String,
}

/// How a steered name chose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steering {
    /// The stream's key in the zone file.
    pub stream: String,
    pub policy: String,
    /// `None`: the stream's own settings apply.
    pub rule: Option<RuleFacts>,
    /// `None` when the fallback name was given.
    pub cell: Option<u16>,
    /// The clients that get this very answer: the scope of the answer around the client.
    pub block: String,
    /// Every region of the zone, in the order in which this client may be sent to them; those it never is at the end.
    pub regions: Vec<RegionFacts>,
    /// `None`: no region that this client may be sent to has an address of the type, or the fallback name was given.
    pub chosen: Option<String>,
    /// What steers the stream by load is doing, where it is steered so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_load: Option<String>,
    /// The region that the policy alone would have chosen, where load made it another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_load: Option<String>,
    /// Every region was down, so all were taken as up (or the fallback name was given).
    pub all_down: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFacts {
    /// Counts from 1, in the order written.
    pub number: usize,
    pub of: usize,
    pub from: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionFacts {
    pub name: String,
    /// Predicted round trip with the operator's bias. `None` where client or region has no location.
    pub cost_ms: Option<f64>,
    pub distance_km: Option<f64>,
    pub bias_ms: i32,
    pub weight: Option<u16>,
    /// For the type asked.
    pub up: bool,
    /// `steady`, `ramping`, `frozen` (a ramp that waits), `draining`, `drained`, `forced up`, `forced down`.
    #[serde(default)]
    pub mode: String,
    /// The part of the clients it would get that it takes, 0 to 1.
    #[serde(default)]
    pub share_allowed: f64,
    /// Where the stream is steered by load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadFacts>,
    /// Where round-trip times were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostFacts>,
    pub chosen: bool,
    /// Why it was chosen, or why it lost.
    pub why: String,
    /// Those that declare an address of the type.
    pub servers: Vec<ServerFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    pub address: String,
    /// `up`, `down`, `unknown` (no result yet, counts as up) or `unprobed` (no check, always up).
    pub verdict: String,
    /// What the last change of the verdict followed from.
    pub cause: Option<String>,
    /// Since when the verdict stands.
    pub since: Option<u64>,
    /// In this answer.
    pub given: bool,
}

/// The message that was sent, in presentation format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub rcode: String,
    pub flags: Vec<String>,
    /// ECS scope prefix-length (RFC 7871 §6), as returned.
    pub scope: Option<u8>,
    pub answer: Vec<String>,
    pub authority: Vec<String>,
    pub additional: Vec<String>,
}
