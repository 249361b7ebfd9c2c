//! The operator's word: what is drained or forced, by whom, why, and until when.
//!
//! Operator's word beats probes. A [`Draft`] is what somebody asks for; checked against the world it becomes an
//! [`Order`] of the [`Book`], which is kept over a restart.
//!
//! Pure: knows no socket, no file and no clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// What an order is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A region by its name.
    Region(Arc<str>),
    /// Every server with this public address.
    Server(IpAddr),
}

/// What is to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Of a region only: its share of the answers goes to nothing, evenly over this time.
    Drain { over: Duration },
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Counts up from 1, never used again.
    pub id: u64,
    pub subject: Subject,
    pub zone: Option<Arc<str>>,
    pub action: Action,
    pub given: Timestamp,
    pub from: Timestamp,
    pub until: Option<Timestamp>,
    pub reason: String,
    pub author: String,
    pub anyway: bool,
}

/// Which orders are to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lift {
    Id(u64),
    /// All drains (or all forces) of the subject.
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
    /// No such region, server, zone or order; or the draft contradicts itself.
    Unknown(String),
    /// It would leave too little; `anyway` overrides.
    TooLittle(String),
    /// It could not be written to the state directory, so it would not survive a restart.
    NotKept(String),
}
