//! What holds of a region besides the verdicts on its servers: the operator's word, and how much it may take.

use std::sync::Arc;

pub use crate::steering::share::Share;

/// Up or down by the operator's word, whatever the probes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forced {
    Up,
    Down,
}

/// What a region is going through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    #[default]
    Steady,
    /// Takes its share back bit by bit.
    Ramping,
    /// A ramp that waits until the region is well again.
    Frozen,
    /// Gives its share up bit by bit.
    Draining,
    /// Has given it up; takes clients only when no other region is left.
    Drained,
}

/// All of it for one region of one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub share: Share,
    pub mode: Mode,
    pub forced: Option<Forced>,
    /// Servers by position in the region, where something is forced.
    pub servers: Arc<[(usize, Forced)]>,
    /// What is believed of it may soon be something else: its answers get the short TTL.
    pub uncertain: bool,
}

impl Standing {
    /// `steady`, `ramping`, `frozen` (a ramp that waits), `draining`, `drained`, `forced up`, `forced down`.
    pub fn describe(&self) -> &'static str {
        match (self.forced, self.mode) {
            (Some(Forced::Up), _) => "forced up",
            (Some(Forced::Down), _) => "forced down",
            (None, Mode::Steady) => "steady",
            (None, Mode::Ramping) => "ramping",
            (None, Mode::Frozen) => "frozen",
            (None, Mode::Draining) => "draining",
            (None, Mode::Drained) => "drained",
        }
    }
}

impl Default for Standing {
    fn default() -> Standing {
        Standing { share: Share::FULL, mode: Mode::Steady, forced: None, servers: Arc::new([]), uncertain: false }
    }
}
