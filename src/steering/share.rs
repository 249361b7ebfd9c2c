//! How much of its clients a region takes while it comes back or leaves.

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
