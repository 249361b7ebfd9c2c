//! Large tables for random access, on huge pages.
//!
//! A look into a table of many megabytes misses the processor's caches, and with pages of 4 KiB its page tables too,
//! which doubles the wait. On pages of 2 MiB it does not.

use std::ops::Deref;

use bytemuck::Pod;
use memmap2::{Advice, MmapMut};

/// Tables below this, the size of a huge page on x86-64 and commonly elsewhere, stay where they are.
const HUGE: usize = 2 << 20;

/// Rows that never change.
pub struct Table<T>(Memory<T>);

enum Memory<T> {
    /// A whole number of rows, in a mapping of its own.
    Mapped(MmapMut),
    Plain(Box<[T]>),
}

impl<T: Pod> Table<T> {
    pub fn new(rows: Vec<T>) -> Table<T> {
        let bytes: &[u8] = bytemuck::cast_slice(&rows);
        let memory = if bytes.len() < HUGE { None } else { mapped(bytes) };
        Table(memory.map_or_else(|| Memory::Plain(rows.into()), Memory::Mapped))
    }
}

/// `None`: the system gives no mapping. Where it gives one without huge pages, that serves as well, only slower.
fn mapped(bytes: &[u8]) -> Option<MmapMut> {
    let mut memory = MmapMut::map_anon(bytes.len()).ok()?;
    // Before the first touch, or it has its small pages already.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(Advice::HugePage);
    memory.copy_from_slice(bytes);
    Some(memory)
}

impl<T: Pod> Deref for Table<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Memory::Mapped(bytes) => bytemuck::cast_slice(bytes),
            Memory::Plain(rows) => rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_tables_hold_their_rows() {
        for rows in [0, 1, 1000, HUGE / 4 - 1, HUGE / 4, HUGE / 4 + 1, HUGE] {
            let rows: Vec<u32> = (0..rows as u32).map(|row| row.wrapping_mul(2_654_435_761)).collect();
            assert!(Table::new(rows.clone())[..] == rows[..], "{} rows", rows.len());
        }
    }
}
