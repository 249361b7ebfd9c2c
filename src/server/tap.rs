//! Which steered answers were given, told to the control side without a lock.
//!
//! ```text
//! worker ── Teller::tell ──► Ring (2^16 entries, one writer) ──► Reader::drain, some ten times a second
//! ```
//!
//! A teller stores one word an answer and publishes its head once a batch; it never waits, and never looks whether
//! anybody reads. A reader that comes too late has lost the oldest entries, knows how many, and never takes a newer entry
//! for an older one.
//!
//! Groups and cells mean something in one *epoch* only, that of the load which numbered them. The epoch is told in the
//! stream of entries itself, as a mark: before the first entry of another epoch, and every so often, so that a reader that
//! has lost entries soon knows again where it is. What it can't place counts as lost.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use crate::demand::asked::{Asked, MAX_GROUPS};

/// Entries of a ring; a power of two. At 100,000 answers a second of one worker, 0.6 s.
pub const ENTRIES: usize = 1 << 16;
const MASK: u64 = ENTRIES as u64 - 1;
/// Entries from one mark to the next, at most as many as a batch more.
const MARK_EVERY: u64 = 1 << 10;
/// Entries written and not published, at most.
const UNPUBLISHED: u64 = 1 << 10;
/// The oldest entries, which the writer may be about to write over.
const MARGIN: u64 = 2 * UNPUBLISHED;
/// Entries read before the reader looks whether they were still there.
const CHUNK: usize = 1 << 9;
/// Marks are entries of the group that is never told.
const MARK: u64 = (MAX_GROUPS as u64) << 48;
const _: () = assert!(ENTRIES.is_power_of_two() && MARGIN < ENTRIES as u64 / 2);

/// On a cache line of its own: readers that poll it disturb no other thread.
#[repr(align(64))]
struct Head(AtomicU64);

struct Ring {
    /// Entries published since the start.
    head: Head,
    entries: Box<[AtomicU64; ENTRIES]>,
}

/// A ring's two ends. 512 KiB.
pub fn ring() -> (Teller, Reader) {
    let entries: Box<[AtomicU64]> = (0..ENTRIES).map(|_| AtomicU64::new(0)).collect();
    let entries = entries.try_into().expect("as many as were made");
    let ring = Arc::new(Ring { head: Head(AtomicU64::new(0)), entries });
    let teller = Teller { ring: ring.clone(), head: 0, published: 0, marked: 0, epoch: None };
    (teller, Reader { ring, tail: 0, epoch: None })
}

/// The writing end, of one thread.
pub struct Teller {
    ring: Arc<Ring>,
    head: u64,
    published: u64,
    /// Head behind the last mark.
    marked: u64,
    epoch: Option<u64>,
}

impl Teller {
    /// To be called before the answers of a batch, with the epoch of the snapshot that gives them: below 2^48.
    pub fn begin(&mut self, epoch: u64) {
        if self.epoch != Some(epoch) || self.head - self.marked >= MARK_EVERY {
            self.store(MARK | epoch & !MARK);
            self.head += 1;
            (self.epoch, self.marked) = (Some(epoch), self.head);
        }
    }

    /// Tells of an answer; `None`, of one that does not count, costs the same.
    #[inline]
    pub fn tell(&mut self, asked: Option<Asked>) {
        // The store comes first and the head moves only for what counts, so there is no branch to be guessed wrong.
        self.store(asked.map_or(0, Asked::bits));
        self.head += u64::from(asked.is_some());
        if self.head - self.published >= UNPUBLISHED {
            self.publish();
        }
    }

    /// To be called after a batch.
    pub fn publish(&mut self) {
        if self.published != self.head {
            self.ring.head.0.store(self.head, Release);
            self.published = self.head;
            // Who reads an entry stored from here on, and then the head behind a fence of its own, sees this head or a
            // later one. No instruction on x86.
            fence(Release);
        }
    }

    #[inline]
    fn store(&self, entry: u64) {
        self.ring.entries[(self.head & MASK) as usize].store(entry, Relaxed);
    }
}

/// The reading end.
pub struct Reader {
    ring: Arc<Ring>,
    tail: u64,
    /// Of the entry at the tail; `None`: not known.
    epoch: Option<u64>,
}

impl Reader {
    /// Appends what was told of `epoch` since the last time, at most [`ENTRIES`]. Returns how many entries were lost:
    /// written over before they were read, of another epoch, or of one that can't be known.
    pub fn drain(&mut self, epoch: u64, told: &mut Vec<Asked>) -> u64 {
        let epoch = epoch & !MARK;
        let head = self.ring.head.0.load(Acquire);
        let mut lost = self.skip_to(head.saturating_sub(ENTRIES as u64 - MARGIN));
        let mut chunk = [0; CHUNK];
        while self.tail < head {
            let count = (head - self.tail).min(CHUNK as u64);
            for (entry, position) in chunk.iter_mut().zip(self.tail..self.tail + count) {
                *entry = self.ring.entries[(position & MASK) as usize].load(Relaxed);
            }
            fence(Acquire);
            let oldest = self.ring.head.0.load(Relaxed).saturating_sub(ENTRIES as u64 - MARGIN);
            let end = self.tail + count;
            let skipped = self.skip_to(oldest.min(end));
            lost += skipped;
            for &entry in &chunk[skipped as usize..count as usize] {
                match Asked::from_bits(entry) {
                    Some(asked) if self.epoch == Some(epoch) => told.push(asked),
                    Some(_) => lost += 1,
                    None => self.epoch = Some(entry & !MARK),
                }
            }
            self.tail = end;
        }
        lost
    }

    fn skip_to(&mut self, oldest: u64) -> u64 {
        let skipped = oldest.saturating_sub(self.tail);
        if skipped > 0 {
            self.tail = oldest;
            self.epoch = None;
        }
        skipped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geo::CellId;

    /// Numbered, to be told apart and to see their order.
    fn asked(number: u64) -> Option<Asked> {
        Asked::new((number >> 46) as u32, CellId((number >> 30) as u16), (number & 0x3FFF_FFFF) << 33)
    }

    fn number(asked: Asked) -> u64 {
        (asked.bits() >> 32) << 30 | (asked.bits() & 0xFFFF_FFFF) >> 1
    }

    fn tell(teller: &mut Teller, epoch: u64, numbers: std::ops::Range<u64>) {
        teller.begin(epoch);
        numbers.for_each(|n| teller.tell(asked(n)));
        teller.publish();
    }

    #[test]
    fn what_is_told_is_read_in_order_and_once() {
        let (mut teller, mut reader) = ring();
        let mut told = Vec::new();
        tell(&mut teller, 7, 0..100);
        teller.begin(7);
        teller.tell(asked(100));
        assert_eq!(reader.drain(7, &mut told), 0);
        assert_eq!(
            told.drain(..).map(number).collect::<Vec<_>>(),
            (0..100).collect::<Vec<_>>(),
            "not what is unpublished"
        );
        teller.tell(None);
        teller.publish();
        assert_eq!(reader.drain(7, &mut told), 0);
        assert_eq!(told.drain(..).map(number).collect::<Vec<_>>(), [100]);
        assert_eq!(reader.drain(7, &mut told), 0);
        assert!(told.is_empty());
    }

    #[test]
    fn entries_of_another_epoch_are_lost_and_never_taken_for_this_ones() {
        let (mut teller, mut reader) = ring();
        let mut told = Vec::new();
        tell(&mut teller, 1, 0..10);
        tell(&mut teller, 2, 10..15);
        assert_eq!(reader.drain(2, &mut told), 10);
        tell(&mut teller, 1, 15..18);
        tell(&mut teller, 2, 18..20);
        assert_eq!(reader.drain(2, &mut told), 3);
        assert_eq!(told.drain(..).map(number).collect::<Vec<_>>(), [10, 11, 12, 13, 14, 18, 19]);
    }

    #[test]
    fn a_late_reader_knows_how_much_it_has_lost_and_reads_on() {
        let (mut teller, mut reader) = ring();
        let (mut told, all) = (Vec::new(), 3 * ENTRIES as u64);
        (0..all / 32).for_each(|batch| tell(&mut teller, 1, batch * 32..(batch + 1) * 32));
        let lost = reader.drain(1, &mut told);
        let marks = all / MARK_EVERY + 1;
        assert!((all..=all + marks).contains(&(lost + told.len() as u64)), "{lost} and {}", told.len());
        assert!(told.len() > ENTRIES - 2 * MARGIN as usize, "the newest are all there: {}", told.len());
        assert_eq!(number(*told.last().unwrap()), all - 1);
        told.clear();
        tell(&mut teller, 1, 0..5);
        assert_eq!((reader.drain(1, &mut told), told.len()), (0, 5));
    }

    #[test]
    fn a_batch_without_end_is_published_all_the_same() {
        let (mut teller, mut reader) = ring();
        teller.begin(1);
        (0..2 * UNPUBLISHED).for_each(|n| teller.tell(asked(n)));
        let mut told = Vec::new();
        assert_eq!(reader.drain(1, &mut told), 0);
        assert!(told.len() as u64 >= UNPUBLISHED, "{}", told.len());
    }

    #[test]
    fn a_reader_beside_a_writer_in_haste_never_sees_entries_out_of_order() {
        let (mut teller, mut reader) = ring();
        let all = 4_000_000;
        std::thread::scope(|scope| {
            scope.spawn(move || (0..all / 32).for_each(|batch| tell(&mut teller, 1, batch * 32..(batch + 1) * 32)));
            let (mut seen, mut lost, mut last, mut told) = (0, 0, None, Vec::new());
            while last != Some(all - 1) {
                lost += reader.drain(1, &mut told);
                for number in told.drain(..).map(number) {
                    assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
                    last = Some(number);
                    seen += 1;
                }
            }
            let marks = all / MARK_EVERY + 1;
            assert!((all..=all + marks).contains(&(seen + lost)), "{seen} seen and {lost} lost of {all}");
        });
    }

    proptest! {
        #[test]
        fn every_entry_is_read_or_lost(batches in prop::collection::vec((0u64..3, 0u64..3_000, any::<bool>()), 1..60)) {
            let (mut teller, mut reader) = ring();
            let (mut told, mut lost, mut next) = (Vec::new(), 0, 0);
            for &(epoch, length, read) in &batches {
                tell(&mut teller, epoch, next..next + length);
                next += length;
                if read {
                    lost += reader.drain(1, &mut told);
                }
            }
            lost += reader.drain(1, &mut told);
            let marks = batches.len() as u64;
            let sum = lost + told.len() as u64;
            prop_assert!((next..=next + marks).contains(&sum), "{} of {}", sum, next);
            let numbers: Vec<u64> = told.into_iter().map(number).collect();
            prop_assert!(numbers.is_sorted());
            let epoch_of = |number: u64| {
                let mut end = 0;
                batches.iter().find(|(_, length, _)| { end += length; number < end }).unwrap().0
            };
            prop_assert!(numbers.iter().all(|n| epoch_of(*n) == 1));
        }
    }
}
