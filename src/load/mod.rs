//! Load: what servers and regions say of how full they are, and what is believed of it.
//!
//! ```text
//! probe's answer ─┐
//! own request ────┼─► report ─► Desk ─► Board ─► State of each region: sessions, utilisation, capacity, trust
//! heartbeat ──────┤  (pure)    (lock)   (pure)
//! POST /v1/load ──┘
//! ```
//!
//! * [`report`]: every accepted form becomes one [`Report`], or a [`Fault`] that says what was wrong. Pure.
//! * [`gauge`]: one figure over time: jumps are believed once they are confirmed. Pure; time is passed in.
//! * [`reporter`]: what one reporter said, and what it is worth after a while. Pure; time is passed in.
//! * [`known`]: the machines and regions that may report, whatever zones use them.
//! * [`board`]: the last good report of each, aged; what follows for a region. Pure; time is passed in.
//! * [`desk`]: a board that several threads share. Never on the way of an answer.

pub mod board;
pub mod desk;
pub mod gauge;
pub mod known;
pub mod report;
pub mod reporter;

pub use board::{Board, Event, State};
pub use desk::Desk;
pub use report::{Fault, Figures, Report};
pub use reporter::{Expected, Trust};
