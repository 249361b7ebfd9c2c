//! One steered answer, as the answer path tells of it: 64 bits.
//!
//! ```text
//! 63        48 47        32 31              0
//! │  group    │   cell     │   key           │
//! ```
//!
//! The key is a hash of what the answer is cached under: the block of its ECS scope, or the resolver that asked without
//! ECS. An IPv6 resolver counts by its /64, of which whoever has one address has them all.

use std::num::NonZeroU64;

use crate::geo::CellId;

/// Groups from here on are not told of: the number stands for what is no answer (see [`crate::server::tap`]).
pub const MAX_GROUPS: u32 = 0xFFFF;

/// A steered answer with addresses. Groups and cells are those of one epoch, that of the snapshot that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asked(NonZeroU64);

impl Asked {
    /// `None` for groups from [`MAX_GROUPS`] on. Of `key` the upper half counts.
    #[inline]
    pub fn new(group: u32, cell: CellId, key: u64) -> Option<Asked> {
        // A bit of the hash is spent so that nothing told is ever zero.
        let bits = u64::from(group) << 48 | u64::from(cell.0) << 32 | key >> 32 | 1;
        if group < MAX_GROUPS { NonZeroU64::new(bits).map(Asked) } else { None }
    }

    /// What [`Asked::bits`] gave; `None` for what it can't have given.
    #[inline]
    pub fn from_bits(bits: u64) -> Option<Asked> {
        NonZeroU64::new(bits).map(Asked).filter(|asked| asked.group() < MAX_GROUPS)
    }

    #[inline]
    pub fn bits(self) -> u64 {
        self.0.get()
    }

    pub fn group(self) -> u32 {
        (self.bits() >> 48) as u32
    }

    pub fn cell(self) -> CellId {
        CellId((self.bits() >> 32) as u16)
    }

    /// The same answer in another group, for when groups are numbered anew.
    pub fn in_group(self, group: u32) -> Option<Asked> {
        Asked::new(group, self.cell(), self.bits() << 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_and_cell_come_back_and_keys_are_told_apart() {
        let asked = Asked::new(0xFFFE, CellId(49_999), 7 << 33).unwrap();
        assert_eq!((asked.group(), asked.cell()), (0xFFFE, CellId(49_999)));
        assert_eq!(Asked::from_bits(asked.bits()), Some(asked));
        assert_ne!(Asked::new(0xFFFE, CellId(49_999), 8 << 33), Some(asked));
        assert_eq!(asked.in_group(3), Asked::new(3, CellId(49_999), 7 << 33));
    }

    #[test]
    fn groups_beyond_the_last_are_not_told_of() {
        assert_eq!(Asked::new(0xFFFF, CellId(0), 1), None);
        assert_eq!(Asked::new(u32::MAX, CellId(0), 1), None);
        assert_eq!(Asked::from_bits(u64::MAX), None);
        assert!(Asked::new(0, CellId(0), 0).is_some());
    }
}
