//! Meridian: a GeoDNS authoritative server for live streaming.
//!
//! ```text
//! zones/*.toml, meridian.toml ─┐
//! geoip/*.mmdb ── atlas ───────┤
//! probes, heartbeats ── judge ─┼─► World (one owner) ─► compile ─► Snapshot ─► respond(snapshot, query, client)
//! orders, file changes, time ──┘     control loop       pure      immutable     pure: no I/O, no lock, no clock
//!                                         └─► journal, state directory
//! ```
//!
//! One module, one idea, in the order of that flow:
//!
//! * [`config`]: files as written become checked settings; every fault is a [`config::Diagnostic`].
//! * [`zone`]: static records, from presentation format to RDATA bytes, and the rules they obey.
//! * [`geo`]: location databases become [`geo::Places`] and the [`geo::Atlas`] (prefix → cell, scope).
//! * [`health`]: probes and verdicts.
//! * [`load`]: how full servers and regions say they are, and what of it is believed.
//! * [`steering`]: what a region costs a place, and the order of regions that follows. Knows no DNS.
//! * [`snapshot`]: all of the above compiled for answering; immutable, published with one swap.
//! * [`answer`]: [`answer::respond`], wire query in, wire answer out; used by every transport and tool.
//! * [`world`], [`control`]: all that is known, and the one loop that changes it.
//! * [`demand`]: who asks how much and from where, estimated of our own answers.
//! * [`orders`]: the operator's drains and forces. [`journal`]: what happened. [`state`]: what outlives the process.
//! * [`server`]: sockets. [`admin`]: HTTP API and metrics. [`explain`]: why an answer is what it is.
//! * [`simulate`]: what would be, after a loss, with more viewers or other files.
//! * [`scale`]: how large regions should be, told to autoscalers.
//! * [`node`]: all of it started in the right order. [`cli`]: one file a command.
//! * [`agent`]: heartbeats from beside a stream server.
//! * `memory`: what a load needed and rest does not goes back to the system.
//! * [`demo`]: toy stream origins for the `demo` command.
#![deny(unsafe_code)]

pub mod admin;
pub mod agent;
pub mod answer;
pub mod cli;
pub mod config;
pub mod control;
pub mod demand;
pub mod demo;
pub mod explain;
pub mod geo;
pub mod health;
pub mod journal;
pub mod load;
// mallopt and madvise have no safe wrappers; see the module.
#[allow(unsafe_code)]
mod memory;
pub mod node;
pub mod orders;
pub mod pilot;
pub mod scale;
pub mod server;
pub mod simulate;
pub mod snapshot;
pub mod state;
pub mod status;
pub mod steering;
pub mod texts;
// The scheduler's turns have no safe wrapper; see the module.
#[allow(unsafe_code)]
mod turns;
pub mod world;
pub mod zone;
