//! What a region costs a place, and the order of regions that follows. Knows no DNS.
//!
//! ```text
//! Spec (regions, policy, rules) ─┐
//! Places (geo) ──────────────────┴─► cells::build ─► cell of each place, Plan (cell → Ranking) ─► pick (live mask, key)
//! ```
//!
//! * [`cost`]: predicted round-trip time of a place to a region, ms.
//! * [`plan`]: [`plan::Spec`], what a steered name asks for, and the [`plan::Ranking`] it gives one place.
//! * [`learn`]: what measured round-trip times add to it.
//! * [`money`]: what a GB costs, as ms and as money an hour.
//! * [`cells`]: places that every plan ranks alike become one cell.
//! * [`pick`]: one region of a ranking for one client; the only part that runs at query time.
//! * [`ramp`]: a region's way back to its whole share.
//! * [`dwell`]: how long sessions last, while nothing is known and at the most.
//! * [`share`]: how much of its clients a region takes while it comes back or leaves.
//! * [`solve`]: prices of full regions, and the plan of shares that follows from them.
//! * [`key`]: the hash keys of sticky choices.

pub mod cells;
pub mod cost;
pub mod dwell;
pub mod key;
pub mod learn;
pub mod money;
pub mod pick;
pub mod plan;
pub mod ramp;
pub mod share;
pub mod solve;
