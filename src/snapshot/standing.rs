//! What holds of a region besides the verdicts on its servers: the operator's word, and how much it may take.

use std::sync::Arc;

/// How much of what a region would get it may take: of the address blocks that would go there, this part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u16);

impl Share {
    pub const NONE: Share = Share(0);
    pub const FULL: Share = Share(u16::MAX);

    /// Of a part from 0 to 1; what lies outside is clamped, and NaN is nothing.
    pub fn of(part: f64) -> Share {
        Share((part.clamp(0.0, 1.0) * f64::from(u16::MAX)).round() as u16)
    }

    /// From 0 to 1.
    pub fn part(self) -> f64 {
        f64::from(self.0) / f64::from(u16::MAX)
    }

    pub fn bits(self) -> u16 {
        self.0
    }
}

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

impl Default for Standing {
    fn default() -> Standing {
        Standing { share: Share::FULL, mode: Mode::Steady, forced: None, servers: Arc::new([]), uncertain: false }
    }
}
