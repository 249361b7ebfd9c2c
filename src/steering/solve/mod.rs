//! Prices of full regions, and the plan that follows: which part of whom goes where.
//!
//! ```text
//! Rows (costs, sorted once) ─┐
//! demand, supply ────────────┼─► Solver ─► Solution: prices, Table, Certificate ─► movement ─► the table to publish
//! published Table ───────────┘     └─► loss: the table for when a region is gone
//! ```
//!
//! Minimised is latency plus what full regions cost: Σ λ·x·(cost − stay·x⁰) + Σ ∫P(u) over the rates, where x⁰ is the
//! published table and P the price of a utilisation. It is the assignment problem of transport, and as such has one price
//! a region: given the prices, each row goes where cost + price is least. What is searched is the few prices, not the
//! many shares; and any prices give a bound, so that each solve tells how far from the best it can be at most.
//!
//! * [`curve`]: P, the price of utilisation.
//! * [`supply`]: a region as the solver has to know it.
//! * [`rows`]: costs. [`table`]: plans.
//! * `contest`: which rows depend on prices at all; `newton`: a step of Newton's method.
//! * [`solver`]: the search for prices.
//! * [`movement`]: how much of a new table is published at once.
//! * [`loss`]: tables for the loss of a region, and the viewers who come back then.
//!
//! Nothing here reads a clock or does I/O; times are seconds, costs and prices ms, rates session starts a second.

mod contest;
pub mod curve;
pub mod loss;
pub mod movement;
mod newton;
pub mod rows;
pub mod solver;
pub mod supply;
pub mod table;

pub use rows::{REGIONS, Rows, ShapeError};
pub use solver::{Certificate, Problem, STAY_MS, Solution, Solver};
pub use supply::Supply;
pub use table::{Mix, Table};

#[cfg(test)]
mod tests;
