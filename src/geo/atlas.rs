//! Prefix → cell and scope, for the answer path.
//!
//! IPv4 is two tables: 65,536 entries for the first 16 bits, and blocks of 256 entries for the next 8 where a /16 is not
//! all one cell. Equal blocks are stored once. An entry is the number of a class, which is a cell and a scope, so no
//! arithmetic is left; there are few classes, and an entry of two bytes keeps the blocks small.
//!
//! IPv6 is the runs of /48 blocks that lie in one cell, in order, under an index of the first bits; the scope follows from
//! the borders of the run.
//!
//! Either way a search is two loads, of which the second waits for the first. [`Search`] takes them apart, so that those
//! of many addresses can wait for memory together.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;

use super::embedded::{Located as Family, block4, block6, family_of, masked};
use super::places::{LAST24, LAST48, Places};
use super::ranges::Ranges;
use super::table::Table;

/// Places steered alike by every plan. Cell 0 holds place 0 (and perhaps others).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellId(pub u16);

/// Where a client is, as the answer path needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub cell: CellId,
    /// The coarsest block around the address that lies in one cell (RFC 7871 scope prefix-length); never 0. With tens of
    /// thousands of cells it may be somewhat finer than the coarsest.
    pub scope: u8,
    /// `scope`, but no coarser than /20 (IPv4), /40 (IPv6), 96 + 20 or 16 + 20 (IPv4 inside IPv6): the block within which
    /// one answer is given where answers are spread.
    pub spread_scope: u8,
}

/// Coarsest blocks of one answer where answers are spread.
const SPREAD4: u8 = 20;
const SPREAD6: u8 = 40;

/// Prefix → cell and scope, in two dependent loads.
pub struct Atlas {
    /// By the first 16 bits of an IPv4 address: a class, or a block.
    top: Box<[Entry]>,
    /// Classes.
    blocks: Table<[u16; 256]>,
    classes: Box<[Class]>,
    v6: Cells6,
}

/// A class, or the number of a block behind the highest bit.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry(u32);

impl Entry {
    const BLOCK: u32 = 1 << 31;

    fn block(number: usize) -> Entry {
        Entry(Entry::BLOCK | number as u32)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Class {
    cell: u16,
    scope: u8,
}

/// Runs of /48 blocks by cell.
struct Cells6 {
    /// First /48 of each run, as its upper 48 bits; the first is 0.
    starts: Table<u64>,
    cells: Table<u16>,
    /// `index[i]` is the run that holds the first /48 of slot `i`; one more at the end.
    index: Table<u32>,
    /// Bits of a /48 number behind those of the slot.
    shift: u32,
}

/// An address on its way through the tables: [`Atlas::search`], then [`Atlas::first`], then [`Atlas::second`], then
/// [`Atlas::found`].
#[derive(Clone, Copy)]
pub struct Search(Progress);

#[derive(Clone, Copy)]
enum Progress {
    /// `before`: bits of the whole address before the IPv4 address.
    V4 { address: u32, before: u8, entry: Entry },
    /// The run is one from `low` to `high`; both the same in the end.
    V6 { address: [u64; 2], low: u32, high: u32 },
}

impl Atlas {
    /// `cell_of_place[p]` for every place.
    pub fn build(places: &Places, cell_of_place: &[CellId]) -> Atlas {
        let cell = |place: u32| u32::from(cell_of_place[place as usize].0);
        let (top, blocks, classes) = two_levels(&places.v4.map(cell));
        Atlas { top, blocks: Table::new(blocks), classes, v6: Cells6::build(&places.v6.map(cell)) }
    }

    /// Bits of `address` behind the first `source` do not count (32 or 128 for a whole address). IPv4 inside IPv6
    /// (::ffff:0:0/96, 64:ff9b::/96, 2002::/16) is found by its IPv4 address; where `source` ends before it, that is
    /// 0.0.0.0, which no database knows.
    pub fn locate(&self, address: IpAddr, source: u8) -> Located {
        let mut search = Atlas::search(address, source);
        self.first(&mut search);
        self.second(&mut search);
        self.found(&search)
    }

    /// As [`Atlas::locate`]; looks into no table yet.
    #[inline]
    pub fn search(address: IpAddr, source: u8) -> Search {
        Search(match family_of(masked(address, source)) {
            Family::V4(address, before) => Progress::V4 { address, before, entry: Entry(0) },
            Family::V6(address) => Progress::V6 { address: halves(address), low: 0, high: 0 },
        })
    }

    /// The first load.
    #[inline]
    pub fn first(&self, search: &mut Search) {
        match &mut search.0 {
            Progress::V4 { address, entry, .. } => *entry = self.top[(*address >> 16) as usize],
            Progress::V6 { address, low, high } => (*low, *high) = self.v6.slot(address[0] >> 16),
        }
    }

    /// The second, which needs the first.
    #[inline]
    pub fn second(&self, search: &mut Search) {
        match &mut search.0 {
            Progress::V4 { address, entry, .. } => {
                if entry.0 & Entry::BLOCK != 0 {
                    let block = &self.blocks[(entry.0 & !Entry::BLOCK) as usize];
                    *entry = Entry(block[(*address >> 8 & 0xff) as usize].into());
                }
            }
            Progress::V6 { address, low, high } => {
                *low = self.v6.run(address[0] >> 16, *low, *high);
                *high = *low;
            }
        }
    }

    /// What the steps before led to. Without them, nonsense.
    #[inline]
    pub fn found(&self, search: &Search) -> Located {
        match search.0 {
            Progress::V4 { before, entry, .. } => {
                let Class { cell, scope } = self.classes[entry.0 as usize];
                Located { cell: CellId(cell), scope: before + scope, spread_scope: before + scope.max(SPREAD4) }
            }
            Progress::V6 { address, low, .. } => {
                let (cell, scope) = self.v6.found(address, low as usize);
                Located { cell: CellId(cell), scope, spread_scope: scope.max(SPREAD6) }
            }
        }
    }
}

fn halves(address: u128) -> [u64; 2] {
    [(address >> 64) as u64, address as u64]
}

/// Scopes that entries may have, tried in turn: with very many cells there are more pairs of cell and scope than two
/// bytes can tell apart, and a finer scope than the coarsest is as right, if not as easy to cache.
const SCOPES: [fn(u8) -> u8; 3] = [|scope| scope, |scope| scope.next_multiple_of(4), |_| 24];

/// Top, blocks and classes of IPv4.
type TwoLevels = (Box<[Entry]>, Vec<[u16; 256]>, Box<[Class]>);

/// `cells`: cell by /24.
fn two_levels(cells: &Ranges<u32>) -> TwoLevels {
    let built = SCOPES.into_iter().find_map(|scopes| two_levels_of(cells, scopes));
    built.expect("cells fit 16 bits, so with one scope there are no more classes than that")
}

/// `None`: with these scopes there are too many classes.
fn two_levels_of(cells: &Ranges<u32>, scopes: fn(u8) -> u8) -> Option<TwoLevels> {
    let mut classes = Classes::default();
    let mut top = vec![Entry(0); 1 << 16].into_boxed_slice();
    let mut blocks = Vec::new();
    // By hash, so that no block is held twice while the table is built.
    let mut known: HashMap<u64, usize> = HashMap::new();
    let hasher = foldhash::fast::FixedState::default();
    let mut block = [0; 256];
    for (first, last, cell) in cells.iter(LAST24) {
        let (low, high) = (first << 8, last << 8 | 0xff);
        let mut class = |block: u32| {
            let scope = scopes(block4(block << 8, low, high));
            // Every value is the number of a cell, so none is cut.
            classes.id(Class { cell: cell as u16, scope })
        };
        let mut next = first;
        while next <= last {
            let slot = (next >> 8) as usize;
            if next & 0xff == 0 && last - next >= 0xff {
                top[slot] = Entry(class(next)?.into());
                next += 0x100;
                continue;
            }
            block[(next & 0xff) as usize] = class(next)?;
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
    Some((top, blocks, classes.list.into()))
}

#[derive(Default)]
struct Classes {
    list: Vec<Class>,
    ids: HashMap<Class, u16, foldhash::fast::FixedState>,
    /// Neighbours are mostly of one class.
    last: Option<(Class, u16)>,
}

impl Classes {
    /// `None`: there are more than 65,536.
    fn id(&mut self, class: Class) -> Option<u16> {
        if let Some((_, id)) = self.last.filter(|(last, _)| *last == class) {
            return Some(id);
        }
        let id = match self.ids.get(&class) {
            Some(&id) => id,
            None => {
                let id = u16::try_from(self.list.len()).ok()?;
                self.list.push(class);
                self.ids.insert(class, id);
                id
            }
        };
        self.last = Some((class, id));
        Some(id)
    }
}

impl Cells6 {
    /// `cells`: cell by /48.
    fn build(cells: &Ranges<u64>) -> Cells6 {
        // About four slots a run, from 256 to 2^19 slots (2 MB): runs lie thick in a few places.
        let bits = (cells.len().next_power_of_two().ilog2() + 2).clamp(8, 19);
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
        let cells = cells.values().iter().map(|&cell| cell as u16).collect();
        Cells6 { starts: Table::new(starts), cells: Table::new(cells), index: Table::new(index), shift }
    }

    /// The runs of the slot of a /48: that of its first block up to that of the next slot's first one.
    #[inline]
    fn slot(&self, block: u64) -> (u32, u32) {
        let slot = (block >> self.shift) as usize;
        (self.index[slot], self.index[slot + 1])
    }

    /// The run of a /48 among those of its slot.
    #[inline]
    fn run(&self, block: u64, low: u32, high: u32) -> u32 {
        let behind = &self.starts[low as usize + 1..=high as usize];
        low + behind.partition_point(|&start| start <= block) as u32
    }

    /// Cell and scope of an address in a run.
    #[inline]
    fn found(&self, [upper, lower]: [u64; 2], run: usize) -> (u16, u8) {
        let first = u128::from(self.starts[run]) << 80;
        let end = self.starts.get(run + 1).map_or(LAST48, |next| next - 1);
        let last = u128::from(end) << 80 | ((1 << 80) - 1);
        (self.cells[run], block6(u128::from(upper) << 64 | u128::from(lower), first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_very_many_cells_scopes_become_finer_and_cells_stay_right() {
        // Of four blocks the first two are of one cell, the others of two: /23 and /24 of 40,000 cells.
        let first = |block: u32| if block % 4 == 1 { block - 1 } else { block };
        let cell = |block: u32| (first(block).wrapping_mul(2_654_435_761) >> 8) % 40_000;
        let cells = Ranges::joined((0..1 << 20).map(|block| (block, cell(block))));
        assert!(two_levels_of(&cells, SCOPES[0]).is_none(), "more classes than fit");
        let (top, blocks, classes) = two_levels(&cells);
        for block in (0..1 << 20).step_by(97) {
            let Entry(entry) = top[(block >> 8) as usize];
            assert_ne!(entry & Entry::BLOCK, 0);
            let class = blocks[(entry & !Entry::BLOCK) as usize][(block & 0xff) as usize];
            let Class { cell, scope } = classes[usize::from(class)];
            assert_eq!((u32::from(cell), scope), (cells.get(block), 24));
        }
    }
}
