//! Prefix → cell and scope, for the answer path.
//!
//! IPv4 is two tables: 65,536 entries for the first 16 bits, and blocks of 256 entries for the next 8 where a /16 is not
//! all one cell. An entry is the cell and the scope, so no arithmetic is left. Equal blocks are stored once.
//!
//! IPv6 is the runs of /48 blocks that lie in one cell, in order, under an index of the first bits; the scope follows from
//! the borders of the run.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;

use super::embedded::{Located as Family, block4, block6, family_of, masked};
use super::places::{LAST24, LAST48, Places};
use super::ranges::Ranges;

/// Places steered alike by every plan. Cell 0 holds place 0 (and perhaps others).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellId(pub u16);

/// Where a client is, as the answer path needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub cell: CellId,
    /// The coarsest block around the address that lies in one cell (RFC 7871 scope prefix-length); never 0.
    pub scope: u8,
    /// `scope`, but no coarser than /20 (IPv4), /40 (IPv6), 96 + 20 or 16 + 20 (IPv4 inside IPv6): the block within which
    /// one answer is given where answers are spread.
    pub spread_scope: u8,
}

/// Coarsest blocks of one answer where answers are spread.
const SPREAD4: u8 = 20;
const SPREAD6: u8 = 40;

/// Prefix → cell and scope, in one or two dependent loads for IPv4.
pub struct Atlas {
    /// By the first 16 bits of an IPv4 address.
    top: Box<[Entry]>,
    blocks: Vec<[Entry; 256]>,
    v6: Cells6,
}

/// Cell and scope (scope in the bits above the cell's 16), or in `top` the number of a block behind the highest bit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Entry(u32);

impl Entry {
    const BLOCK: u32 = 1 << 31;

    fn leaf(cell: u32, scope: u8) -> Entry {
        Entry(cell | u32::from(scope) << 16)
    }

    fn block(number: usize) -> Entry {
        Entry(Entry::BLOCK | number as u32)
    }
}

/// Runs of /48 blocks by cell.
struct Cells6 {
    /// First /48 of each run, as its upper 48 bits; the first is 0.
    starts: Vec<u64>,
    cells: Vec<u16>,
    /// `index[i]` is the run that holds the first /48 of slot `i`; one more at the end.
    index: Vec<u32>,
    /// Bits of a /48 number behind those of the slot.
    shift: u32,
}

impl Atlas {
    /// `cell_of_place[p]` for every place.
    pub fn build(places: &Places, cell_of_place: &[CellId]) -> Atlas {
        let cell = |place: u32| u32::from(cell_of_place[place as usize].0);
        let (top, blocks) = two_levels(&places.v4.map(cell));
        Atlas { top, blocks, v6: Cells6::build(&places.v6.map(cell)) }
    }

    /// Bits of `address` behind the first `source` do not count (32 or 128 for a whole address). IPv4 inside IPv6
    /// (::ffff:0:0/96, 64:ff9b::/96, 2002::/16) is found by its IPv4 address; where `source` ends before it, that is
    /// 0.0.0.0, which no database knows.
    pub fn locate(&self, address: IpAddr, source: u8) -> Located {
        match family_of(masked(address, source)) {
            Family::V4(address, before) => {
                let mut entry = self.top[(address >> 16) as usize];
                if entry.0 & Entry::BLOCK != 0 {
                    entry = self.blocks[(entry.0 & !Entry::BLOCK) as usize][(address >> 8 & 0xff) as usize];
                }
                let scope = (entry.0 >> 16) as u8;
                Located {
                    cell: CellId(entry.0 as u16),
                    scope: before + scope,
                    spread_scope: before + scope.max(SPREAD4),
                }
            }
            Family::V6(address) => {
                let (cell, scope) = self.v6.locate(address);
                Located { cell: CellId(cell), scope, spread_scope: scope.max(SPREAD6) }
            }
        }
    }
}

/// `cells`: cell by /24.
fn two_levels(cells: &Ranges<u32>) -> (Box<[Entry]>, Vec<[Entry; 256]>) {
    let mut top = vec![Entry(0); 1 << 16].into_boxed_slice();
    let mut blocks = Vec::new();
    // By hash, so that no block is held twice while the table is built.
    let mut known: HashMap<u64, usize> = HashMap::new();
    let hasher = foldhash::fast::FixedState::default();
    let mut block = [Entry(0); 256];
    for (first, last, cell) in cells.iter(LAST24) {
        let (low, high) = (first << 8, last << 8 | 0xff);
        let mut next = first;
        while next <= last {
            let slot = (next >> 8) as usize;
            if next & 0xff == 0 && last - next >= 0xff {
                top[slot] = Entry::leaf(cell, block4(next << 8, low, high));
                next += 0x100;
                continue;
            }
            block[(next & 0xff) as usize] = Entry::leaf(cell, block4(next << 8, low, high));
            if next & 0xff == 0xff {
                // Blocks are few: at most one for each of the 65,536 slots.
                let number = match known.entry(hasher.hash_one(block)) {
                    std::collections::hash_map::Entry::Occupied(same) if blocks[*same.get()] == block => *same.get(),
                    entry => {
                        blocks.push(block);
                        entry.insert_entry(blocks.len() - 1);
                        blocks.len() - 1
                    }
                };
                top[slot] = Entry::block(number);
            }
            next += 1;
        }
    }
    blocks.shrink_to_fit();
    (top, blocks)
}

impl Cells6 {
    /// `cells`: cell by /48.
    fn build(cells: &Ranges<u64>) -> Cells6 {
        // About four slots a run, from 256 to 2^20 slots (4 MB): runs lie thick in a few places.
        let bits = (cells.len().next_power_of_two().ilog2() + 2).clamp(8, 20);
        let shift = 48 - bits;
        let starts = cells.starts().to_vec();
        let mut index = Vec::with_capacity((1 << bits) + 1);
        let mut run = 0;
        for slot in 0..1u64 << bits {
            while starts.get(run + 1).is_some_and(|&start| start <= slot << shift) {
                run += 1;
            }
            index.push(run as u32);
        }
        index.push(starts.len() as u32 - 1);
        // Every value is the number of a cell, so none is cut.
        Cells6 { starts, cells: cells.values().iter().map(|&cell| cell as u16).collect(), index, shift }
    }

    fn locate(&self, address: u128) -> (u16, u8) {
        let block = (address >> 80) as u64;
        let slot = (block >> self.shift) as usize;
        // The run of this slot's first block up to that of the next slot's first one.
        let (low, high) = (self.index[slot] as usize, self.index[slot + 1] as usize);
        let run = low + self.starts[low + 1..=high].partition_point(|&start| start <= block);
        let first = u128::from(self.starts[run]) << 80;
        let end = self.starts.get(run + 1).map_or(LAST48, |next| next - 1);
        let last = u128::from(end) << 80 | ((1 << 80) - 1);
        (self.cells[run], block6(address, first, last))
    }
}
