//! The loop that changes the world.

pub mod retired;
pub mod serials;
pub mod watch;
