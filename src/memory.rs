//! Gives memory back to the system that a load needed and rest does not.
//!
//! Two system interfaces that have no safe wrapper; each function says what makes its call sound.

use crate::geo;

/// From this size on an allocation is a mapping of its own, which goes back to the system when it is freed. Smaller ones
/// are made by verdicts too, which should not cost a system call.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 1 << 20;

/// Keeps glibc from holding on to the large tables of databases and atlases once they are freed. Call it before threads
/// are started.
///
/// Left alone, glibc takes the first large table that is freed for a sign that many will come, and from then on takes
/// tables of up to 32 MiB from its heaps, which keep what is freed: with a full City database, 122 MiB resident became 198
/// with two swaps of the atlas, and stays at 92 with this.
pub fn return_large_tables() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; glibc checks both numbers. A refusal only costs memory.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING);
    }
}

/// A table that is compiled into the program.
#[derive(Clone, Copy)]
pub enum Compiled {
    World,
    Cities,
}

/// Drops the pages of a table: what was read once does not count as memory in use any more. Whoever reads it later gets the
/// same bytes from the file again.
pub fn forget(table: Compiled) {
    forget_pages(match table {
        Compiled::World => geo::WORLD,
        Compiled::Cities => geo::cities::TABLE.as_bytes(),
    });
}

/// For tables that are compiled into the program only: others would lose what stands in them.
fn forget_pages(table: &'static [u8]) {
    #[cfg(target_os = "linux")]
    {
        // A page is at least this large everywhere, and the borders of any larger one are among those of this one; where
        // pages are larger the kernel refuses a start within one, and nothing is dropped.
        const PAGE: usize = 4096;
        let before = table.as_ptr().align_offset(PAGE);
        let whole = table.len().saturating_sub(before) / PAGE * PAGE;
        if whole == 0 {
            return;
        }
        let start = table[before..].as_ptr().cast_mut().cast();
        // SAFETY: the range lies within `table`, which lives as long as the program. Immutable static bytes without
        // pointers stand in a private mapping of the program's file that nothing has written to, and dropping such pages
        // changes nothing that can be read.
        unsafe {
            libc::madvise(start, whole, libc::MADV_DONTNEED);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = table;
}

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: &[u8] = include_bytes!("../geoip/cities.tsv");

    #[test]
    fn a_table_reads_the_same_after_its_pages_were_forgotten() {
        let before = TABLE.to_vec();
        forget_pages(TABLE);
        assert!(TABLE == before);
    }

    #[test]
    fn less_than_a_page_is_left_alone() {
        forget_pages(&TABLE[..0]);
        forget_pages(&TABLE[100..200]);
        assert_eq!(TABLE[0], include_bytes!("../geoip/cities.tsv")[0]);
    }
}
