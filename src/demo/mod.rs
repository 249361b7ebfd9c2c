//! `meridian demo`: a whole node with toy stream origins to kill and revive, and viewers to watch.
//!
//! * [`origin`]: a toy stream origin in this process.
//! * [`stage`]: the demo's zone, an origin for each of its servers, and what can be done to them.
//! * [`viewers`]: clients in several cities, and how long their answers take to change.
//! * [`screen`]: both as tables.

pub mod origin;
pub mod screen;
pub mod stage;
pub mod viewers;
