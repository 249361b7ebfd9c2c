//! What would be: load, latency and money of every region before and after a loss, a drain, more viewers, one more region,
//! or other zone files.
//!
//! ```text
//! zones as they are ──┐                         ┌─► Settled (before) ─┐
//! zones as they may be┴─► World: Scene × Market ┴─► Settled (after) ──┴─► report, audit, compare, picture
//! Demand: sessions by stream and cell ────────────┘
//! ```
//!
//! * [`scene`]: zones compiled to be looked at: cells that all have in common, regions by name, markets.
//! * [`demand`]: how many sessions each stream has, and where. [`recorded`]: as a node recorded it.
//! * [`settle`]: who is served where once all has settled, by the pilot's markets and solver.
//! * [`report`]: load, share, distance and money of each region; who moved.
//! * [`audit`]: every single loss. [`headroom`]: what `check` says of that.
//! * [`change`]: one region more. [`words`]: what two zone files have different.
//! * [`picture`]: maps and bars.
//!
//! Everything is computed as settled: each region's load is what comes a second times how long it stays, so neither the length
//! of sessions nor the time that a ramp or drain takes matters. Nothing here reads files, sockets or clocks.

pub mod audit;
pub mod change;
pub mod demand;
pub mod headroom;
pub mod picture;
pub mod recorded;
pub mod report;
pub mod scene;
pub mod settle;
pub mod words;

pub use demand::{Basis, Demand};
pub use recorded::Recorded;
pub use report::Side;
pub use scene::{Scene, World};
pub use settle::Settled;

#[cfg(test)]
mod tests;
