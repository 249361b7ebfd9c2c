//! Who asks how much and from where, estimated of our own answers (STEERING §7).
//!
//! ```text
//! workers ─ server::tap ─► Estimator: Estimate ─► λ by group and cell ─► the pilot
//!                             └─► Profile (hour of the week, kept in demand.json) ─► forecasts
//! [[event]] ─► calendar ─► λ and TTL ahead of an event
//! ```
//!
//! DNS gives the shape, load reports give the scale ([`crate::pilot::scales`]). Random names, refusals and negative answers
//! are never told of; one source moves no plan.
//!
//! * [`asked`]: a steered answer in 64 bits.
//! * [`layout`]: groups and cells of one load, and the names by which they are known in the next; [`country_square`] is that of
//!   a cell.
//! * [`sketch`]: the keys that ask most. [`estimate`]: queries/s of counts.
//! * [`profile`]: what is usual at an hour of the week. [`calendar`]: what the operator expects.
//! * [`estimator`]: all of it for a running node.

pub mod asked;
pub mod calendar;
pub mod country_square;
pub mod estimate;
pub mod estimator;
pub mod layout;
pub mod profile;
pub mod sketch;

pub use estimator::Estimator;
