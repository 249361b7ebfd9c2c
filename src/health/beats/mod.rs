//! Heartbeats: servers that say themselves, many times a second, that they are alive, and how busy they are.
//!
//! ```text
//! agent ─ beat ─► Receiver ─► Gate (is it of now?) ─► Watch (did one fail to come?) ─► Ear: doubt this target
//!       ◄ challenge ─┘                                       └─► Event: agent found, lost, left ─► journal
//! ```
//!
//! A beat that fails to come is no proof: it only makes the node ask, at once, by probes of their own time-out. Only
//! those take a server down. A beat that says "not ready" takes it down as a failed probe would.
//!
//! * [`packet`]: the datagrams, authenticated.
//! * [`keys`]: the file of shared secrets.
//! * [`gate`]: which beats count: none that was captured and played again, by no wall clock. Pure.
//! * [`watch`]: when a beat is late, and when an agent is lost. Pure.
//! * [`hush`]: how often it is told that an agent was found or lost. Pure.
//! * [`figures`]: what is known of each server's agent, for metrics and status.
//! * [`receiver`]: the socket, and the task that reads it.

pub mod figures;
pub mod gate;
pub mod hush;
pub mod keys;
pub mod packet;
pub mod receiver;
pub mod watch;

pub use figures::{Beats, Outcome};
pub use receiver::{Ear, Ears, Event, Receiver, Slow, What, Word};
