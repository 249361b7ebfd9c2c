//! Health: probes and the verdicts that follow from them.
//!
//! ```text
//! Target ─► Prober ─► one task a target ─► Probe (tcp, http, hls …) ─► Outcome
//!                          │                                             │
//!                          └──── when to probe next ◄── Tracker ◄────────┘
//!                                                          └─► Event (a verdict changed) ─► control loop
//! ```
//!
//! * [`tracker`]: how results turn into verdicts, and when the next probe goes out. Pure; time is passed in.
//! * [`probe`]: one probe over the network: connect, TLS, HTTP, each bounded in bytes.
//! * [`hls`]: whether the live edge of a playlist moves on.
//! * `exec`: a program of the operator's as a probe, bounded in time and output.
//! * `group`: programs of which nothing stays.
//! * [`prober`]: the tasks that send probes, measure time-outs, and tell the control loop what changed.
//! * [`judge`]: how the verdicts of several vantages make one ruling, and [`damping`] of those that flap. Pure.
//! * [`doubts`]: how others, such as heartbeats that stop, make the prober look at once.
//! * [`beats`]: heartbeats of agents beside the servers.
//! * `oversight`: the alarm for probes that have stopped; [`alarm`]: how alarms reach whoever listens.
//! * [`rtt`]: how long probes take, for time-outs that adapt. Pure.
//! * `patience`: time-outs that forgive this machine's own lateness, and that no server can hold up.
//! * `load`: load reports in the answers, and the task that asks for them beside the probes.
//! * `meter`: a bound on the bytes of one answer.
//! * [`stats`]: counters that metrics and `explain` read without a lock.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use self::beats::packet::Load;
use crate::config::settings::Check;
use crate::load::{Fault, Report};

pub mod alarm;
pub mod beats;
pub mod damping;
pub mod doubts;
mod exec;
pub(crate) mod group;
pub mod hls;
mod http;
pub mod judge;
mod load;
mod meter;
mod oversight;
mod patience;
pub mod probe;
pub mod prober;
pub mod rtt;
#[cfg(test)]
mod simulation;
pub mod stats;
pub(crate) mod tls;
pub mod tracker;

pub use alarm::Alarm;
pub use prober::{Event, Prober};

/// What is probed. Equal targets, of whatever zone and region, are probed once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub address: SocketAddr,
    pub check: Arc<Check>,
    /// The server's public address, where the check expects heartbeats of it.
    pub beats_of: Option<IpAddr>,
}

/// Who is told what targets say of their load. Must not block.
pub trait Reports: Send + Sync + 'static {
    /// A probe's answer, or the answer to a request of its own, had a report in it, or one that cannot be taken.
    fn hear(&self, target: &Target, outcome: Result<Report, Fault>);
    /// A heartbeat of the server with this public address; once a second for a server.
    fn beat(&self, server: IpAddr, load: &Load);
}

/// What is believed of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// No result yet; counts as up.
    Unknown,
    Up,
    Down,
    /// Answers again, but went up and down too often: a soft reason, which counts only while enough regions are left.
    Damped,
}

impl Verdict {
    pub fn is_up(self) -> bool {
        !matches!(self, Verdict::Down | Verdict::Damped)
    }
}
