//! The state directory: what a node must not forget when it ends, however it ends.
//!
//! ```text
//! DIR/lock               held while a node uses the directory
//! DIR/orders.json        the operator's orders       written durably before an order is taken
//! DIR/verdicts.json      what is believed of servers, and ramps      written behind, at most every 100 ms
//! DIR/serials.json       SOA serials                 written by each load that gave one
//! DIR/demand.json        rates and their usual week  written by who estimates them, every few minutes
//! DIR/rtt.json           learned round-trip times   written every five minutes, and at the end
//! DIR/events.jsonl       the journal                 appended behind, rotated to events.1.jsonl …
//! DIR/NAME.corrupt-TIME  a file that could not be read, set aside
//! ```
//!
//! * [`directory`]: made, and locked against a second node.
//! * [`file`](mod@file): one small file, written whole, with a checksum; a damaged one is set aside.
//! * [`verdicts`]: what is kept of the verdicts and ramps.
//! * [`keeper`]: all of it for a running node, with the thread that writes behind it.
//!
//! Nothing of it can keep a node from answering: a file that cannot be read costs its content, a directory that cannot
//! be used costs the memory of the next start.

pub mod directory;
pub mod file;
pub mod keeper;
pub mod verdicts;

#[cfg(test)]
mod tests;

pub use keeper::{Keeper, Restored};
