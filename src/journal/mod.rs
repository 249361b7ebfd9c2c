//! What happened, when, why, and what it changed: in memory for the API, as JSON lines for whoever reads later.
//!
//! * `memory`: the newest entries, bounded in number and bytes.
//! * [`log`]: the file of JSON lines, rotated; read back at a start.
//!
//! Noting puts an entry in memory, tells those who follow, and hands it to whoever writes it; none of these waits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

pub mod log;
mod memory;

use self::memory::Memory;

/// Entries in memory.
pub const KEPT: usize = 10_000;
/// Bytes of a cause or an author; the rest is cut off.
pub const LONGEST_TEXT: usize = 500;
/// Regions of an effect; of more, those whose share changed most.
pub const MOST_SHARES: usize = 128;
/// Entries that a follower may be behind before it loses the oldest.
const BEHIND: usize = 1024;

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
    /// An agent said that its server takes nobody, or does again.
    AgentNotReady,
    AgentReady,
    /// Streams are steered by load now, or otherwise than before.
    Steering,
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
    inner: Arc<Inner>,
}

/// Takes an entry to be written; must not wait.
pub type Sink = Box<dyn Fn(&Arc<Entry>) + Send + Sync>;

struct Inner {
    memory: Mutex<Memory>,
    followers: broadcast::Sender<Arc<Entry>>,
    sink: Option<Sink>,
}

impl Journal {
    /// Kept in memory only.
    pub fn in_memory() -> Journal {
        Journal::after(vec![], 0, None)
    }

    /// Goes on after `entries`, which were noted before the last end, oldest first; `last` is the highest id ever used.
    /// New entries go to `sink`, in their order.
    pub fn after(entries: Vec<Entry>, last: u64, sink: Option<Sink>) -> Journal {
        let memory = Mutex::new(Memory::after(entries, last));
        Journal { inner: Arc::new(Inner { memory, followers: broadcast::Sender::new(BEHIND), sink }) }
    }

    /// Notes it as having happened at `at`. Gives its id.
    pub fn note(&self, at: Timestamp, note: Note) -> u64 {
        let note = note.bounded();
        let mut memory = self.memory();
        let entry = memory.add(at, note);
        // Still under the lock, so that nobody sees two entries in the wrong order. Without followers it goes nowhere.
        let _ = self.inner.followers.send(Arc::clone(&entry));
        if let Some(sink) = &self.inner.sink {
            sink(&entry);
        }
        entry.id
    }

    /// The entries with an id above `after`, oldest first, the newest `limit` of them.
    pub fn since(&self, after: u64, limit: usize) -> Vec<Arc<Entry>> {
        self.memory().since(after, limit)
    }

    /// The highest id there is; 0 before the first.
    pub fn last(&self) -> u64 {
        self.memory().last()
    }

    /// Every entry from now on; a reader that falls behind loses the oldest and is told so by the channel.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Entry>> {
        self.inner.followers.subscribe()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Memory is whole at any instant; a panic of another reader has not touched it.
        self.inner.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Note {
    /// Of a kind, with its cause, and nothing else yet.
    pub fn new(kind: Kind, cause: impl Into<String>) -> Note {
        Note { kind, zone: None, region: None, server: None, cause: cause.into(), author: None, effect: None }
    }

    fn bounded(mut self) -> Note {
        cut(&mut self.cause);
        self.author.as_mut().map(cut);
        if let Some(effect) = self.effect.as_mut().filter(|effect| effect.shares.len() > MOST_SHARES) {
            let mut shares: Vec<_> = std::mem::take(&mut effect.shares).into_iter().collect();
            let change = |(before, after): (f64, f64)| (after - before).abs();
            shares.sort_by(|(_, a), (_, b)| change(*b).total_cmp(&change(*a)));
            effect.shares = shares.into_iter().take(MOST_SHARES).collect();
        }
        self
    }
}

fn cut(text: &mut String) {
    if text.len() > LONGEST_TEXT {
        text.truncate(text.floor_char_boundary(LONGEST_TEXT - '…'.len_utf8()));
        text.push('…');
    }
}

#[cfg(test)]
mod tests;
