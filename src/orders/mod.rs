//! The operator's word: what is drained or forced, by whom, why, and until when.
//!
//! Operator's word beats probes. A [`Draft`] is what somebody asks for; checked against the world it becomes an
//! [`Order`] of the [`Book`], which is kept over a restart.
//!
//! ```text
//! Draft ─► bounds ─► guard (Facts) ─► Book ─► Words: what holds of each region and server now
//! ```
//!
//! * [`book`]: the orders in force and to come; giving, lifting, beginning and ending.
//! * [`words`]: what they say of a region or server at one instant.
//! * [`guard`]: refuses what would leave too little. `cover`: what the end of a force up uncovers.
//! * `bounds`: what any draft has to keep to. `saved`: the form on disk.
//!
//! Pure: knows no socket, no file and no clock.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub mod book;
mod bounds;
mod cover;
pub mod guard;
mod saved;
pub mod words;

#[cfg(test)]
mod tests;

pub use book::{Book, Given, Lifted, Turn};
pub use bounds::{LATEST_BEGINNING, LONGEST, LONGEST_TEXT, MOST_ORDERS, SLOWEST_DRAIN};
pub use guard::Facts;
pub use words::{Word, Words};

/// What an order is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A region by its name.
    Region(Arc<str>),
    /// Every server with this public address.
    Server(IpAddr),
}

/// What is to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Of a region only: its share of the answers goes to nothing, evenly over this time.
    Drain {
        #[serde(rename = "over_ms", with = "saved::ms")]
        over: Duration,
    },
    /// Counts as up whatever the probes say.
    ForceUp,
    /// Counts as down whatever the probes say.
    ForceDown,
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub subject: Subject,
    /// The zone it holds in, lower case and without the final dot; `None`: every zone that has the subject.
    pub zone: Option<Arc<str>>,
    pub action: Action,
    /// `None`: from now on.
    pub from: Option<Timestamp>,
    /// How long from its beginning; `None`: until it is lifted.
    pub lasting: Option<Duration>,
    pub reason: String,
    pub author: String,
    /// Even where it leaves too little.
    pub anyway: bool,
}

/// An order in force or to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Counts up from 1, never used again.
    pub id: u64,
    pub subject: Subject,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub zone: Option<Arc<str>>,
    pub action: Action,
    pub given: Timestamp,
    pub from: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
    pub reason: String,
    pub author: String,
    pub anyway: bool,
}

/// Which orders are to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lift {
    Id(u64),
    /// The drains (or forces) of the subject that have begun; when none has, those to come. `zone`: those that hold in this
    /// zone alone; `None`: in whatever zone.
    Drains {
        subject: Subject,
        zone: Option<Arc<str>>,
    },
    Forces {
        subject: Subject,
        zone: Option<Arc<str>>,
    },
}

/// Why an order is not taken. The text holds the figures and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The draft contradicts itself or goes beyond a bound, whatever the world looks like.
    Invalid(String),
    /// No such region, server, zone or order.
    Unknown(String),
    /// As many orders as are kept are in force or to come.
    Full(String),
    /// It would leave too little; `anyway` overrides.
    TooLittle(String),
    /// It could not be written to the state directory, so it would not survive a restart.
    NotKept(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Region(name) => f.write_str(name),
            Subject::Server(address) => write!(f, "{address}"),
        }
    }
}

impl Action {
    /// As the API and the command line call it.
    pub fn word(self) -> &'static str {
        match self {
            Action::Drain { .. } => "drain",
            Action::ForceUp => "force up",
            Action::ForceDown => "force down",
        }
    }

    /// A new order of the same kind takes the place of an older one.
    fn same_kind(self, other: Action) -> bool {
        matches!(self, Action::Drain { .. }) == matches!(other, Action::Drain { .. })
    }
}

impl Order {
    /// Whether the later of the two takes the place of the other: the same kind about the same subject in the same zone.
    fn has_place_of(&self, other: &Order) -> bool {
        self.subject == other.subject && self.zone == other.zone && self.action.same_kind(other.action)
    }

    /// What it does, to whom and where: `drain of eu-west`, `forcing 192.0.2.11 down in stream.example`.
    pub fn deed(&self) -> String {
        let subject = &self.subject;
        let deed = match self.action {
            Action::Drain { .. } => format!("drain of {subject}"),
            Action::ForceUp => format!("forcing {subject} up"),
            Action::ForceDown => format!("forcing {subject} down"),
        };
        match &self.zone {
            Some(zone) => format!("{deed} in {zone}"),
            None => deed,
        }
    }
}

impl Refusal {
    pub fn text(&self) -> &str {
        match self {
            Refusal::Invalid(text)
            | Refusal::Unknown(text)
            | Refusal::Full(text)
            | Refusal::TooLittle(text)
            | Refusal::NotKept(text) => text,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Error for Refusal {}
