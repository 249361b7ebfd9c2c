//! Who asks how much and from where, estimated of our own answers (STEERING §7).
//!
//! ```text
//! workers ─ server::tap ─► Estimator: Estimate × Scale ─► λ by group and cell ─► the solver
//!                             └─► Profile (hour of the week, kept in demand.json) ─► forecasts
//! [[event]] ─► calendar ─► λ and TTL ahead of an event          loss of a region ─► Surge ─► λ'
//! ```
//!
//! DNS gives the shape, load reports give the scale. Random names, refusals and negative answers are never told of; one
//! source moves no plan.
//!
//! * [`asked`]: a steered answer in 64 bits.
//! * [`layout`]: groups and cells of one load, and the names by which they are known in the next.
//! * [`sketch`]: the keys that ask most. [`estimate`]: queries/s of counts. [`scale`]: sessions of queries.
//! * [`profile`]: what is usual at an hour of the week. [`calendar`]: what the operator expects.
//! * [`surge`]: the viewers of a lost region. [`estimator`]: all of it for a running node.

pub mod asked;
pub mod calendar;
pub mod estimate;
pub mod estimator;
pub mod layout;
pub mod profile;
pub mod scale;
pub mod sketch;
pub mod surge;

pub use estimator::Estimator;
