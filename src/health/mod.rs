//! Health: probes and the verdicts that follow from them.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::settings::Check;

/// What is probed. Equal targets, of whatever zone and region, are probed once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub address: SocketAddr,
    pub check: Arc<Check>,
}

/// What is believed of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// No result yet; counts as up.
    Unknown,
    Up,
    Down,
}

impl Verdict {
    pub fn is_up(self) -> bool {
        self != Verdict::Down
    }
}
