//! Why an answer is what it is: every step of the choice, taken from the code that answers.
//!
//! [`Explanation`] is the one shape of it: [`ask`] makes it, the admin API gives it as JSON, `meridian explain` prints it as
//! text ([`show`]) or as JSON. `chooser` tells what decided between regions, [`cost`] what each costs, [`load`] what load and
//! prices had to do with it. The JSON is stable: fields are added, never renamed or removed. Names are absolute,
//! times are Unix seconds, costs are ms, distances km.

pub mod ask;
mod chooser;
pub mod cost;
pub mod load;
pub mod show;
#[cfg(test)]
mod tests;

use load::LoadFacts;
use serde::{Deserialize, Serialize};

use crate::steering::learn::Cost;

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
    /// Which order holds, in words, where there is more than one that could: by load, or by distance alone though capacities
    /// are written or round-trip times were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Where a hash decided between regions: `block` (every query for it gets the same) or `query` (each is drawn anew by
    /// its id and port; shown is the draw of id 0 and port 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawn_by: Option<String>,
    /// What steers the stream by load is doing, where it is steered so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_load: Option<String>,
    /// The region that the policy alone would have chosen, by distance where it is `nearest`; where load, measurements or
    /// money made it another.
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
    /// What its place in the order was made of, the price aside: the sum of the parts in `cost`, `bias_ms` and `money_ms`.
    /// `None` where client or region has no location and no plan for the load holds.
    pub cost_ms: Option<f64>,
    pub distance_km: Option<f64>,
    pub bias_ms: i32,
    /// What steering adds because traffic costs more money here than elsewhere; only a plan for the load does.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub money_ms: f64,
    /// What the way takes as far as it was learned, where the order is by distance and does not ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned_ms: Option<f64>,
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
    /// Of what the cost is made; there whenever `cost_ms` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// Where a hash decided between this region and others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draw: Option<DrawFacts>,
    pub chosen: bool,
    /// Why it was chosen, or why it lost.
    pub why: String,
    /// Those that declare an address of the type.
    pub servers: Vec<ServerFacts>,
}

/// A region's part in weighted rendezvous hashing: the least score of those that take the key is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrawFacts {
    /// Of the key and the region, above 0, at most 1.
    pub hash: f64,
    /// Its part of the weights of those that were drawn among.
    pub share: f64,
    /// −ln(hash) / share.
    pub score: f64,
    /// `false`: it ramps or drains, takes a part of its clients, and not this one.
    pub takes: bool,
}

fn is_zero(ms: &f64) -> bool {
    *ms == 0.0
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    pub address: String,
    /// `up`, `down`, `damped` (it flaps, counts as down), `unknown` (no result yet, counts as up), `unprobed` (no check, always up),
    /// `forced up` or `forced down`.
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
