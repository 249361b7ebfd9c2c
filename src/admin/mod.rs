//! HTTP API and metrics.

pub mod listen;
