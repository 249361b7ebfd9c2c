//! What happened, when, why, and what it changed: in memory for the API, as JSON lines for whoever reads later.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The node began to answer, or ended.
    Started,
    Stopped,
    /// What is believed of a server changed.
    ServerUp,
    ServerDown,
    /// Enough servers of a region are up again, or too few.
    RegionUp,
    RegionDown,
    /// A region takes its share back bit by bit; it has all of it; it stopped because it got worse.
    RampStarted,
    RampDone,
    RampFrozen,
    /// An order was given, began (one with a later beginning), ended by itself, was lifted, was refused.
    OrderGiven,
    OrderBegan,
    OrderExpired,
    OrderLifted,
    OrderRefused,
    /// A drain has reached nothing.
    Drained,
    Reloaded,
    ReloadRefused,
    /// The heartbeats of an agent came, stopped, or were refused.
    AgentFound,
    AgentLost,
    AgentRefused,
    /// Something that a person should look at.
    Alarm,
}

/// What a change did to the answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Share of the cells, over all steered names of the zones concerned, whose clients are now sent elsewhere; 0 to 1.
    pub moved: f64,
    /// By region (`REGION of ZONE`): share of the cells before and after.
    pub shares: BTreeMap<String, (f64, f64)>,
}

/// What is to be noted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Note {
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub zone: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub region: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<IpAddr>,
    /// A short text for people: `status 503`, `drain over 120s: kernel update`.
    pub cause: String,
    /// Who gave the order.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effect: Option<Effect>,
}

/// A note in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts up from 1, over restarts too.
    pub id: u64,
    pub at: Timestamp,
    #[serde(flatten)]
    pub note: Note,
}

/// Where notes go. Cheap to clone; noting never waits for a disk or a reader.
#[derive(Clone)]
pub struct Journal {
    // Filled in by its owner.
    _inner: Arc<()>,
}

impl Journal {
    /// Kept in memory only.
    pub fn in_memory() -> Journal {
        todo!()
    }

    /// Notes it as having happened at `at`. Gives its id.
    pub fn note(&self, _at: Timestamp, _note: Note) -> u64 {
        todo!()
    }

    /// The entries with an id above `after`, oldest first, the newest `limit` of them.
    pub fn since(&self, _after: u64, _limit: usize) -> Vec<Arc<Entry>> {
        todo!()
    }

    /// Every entry from now on; a reader that falls behind loses the oldest and is told so by the channel.
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Arc<Entry>> {
        todo!()
    }
}
