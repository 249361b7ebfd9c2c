//! The newest entries, oldest first, bounded in number and in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Entry, KEPT, Note};

/// Bytes of all entries together, about.
const MOST_BYTES: usize = 16 << 20;

pub(super) struct Memory {
    entries: VecDeque<Arc<Entry>>,
    /// Of all entries, by [`weight`].
    bytes: usize,
    last: u64,
}

impl Memory {
    /// Ids go on after `last`, and after those of the entries.
    pub fn after(entries: Vec<Entry>, last: u64) -> Memory {
        let mut memory = Memory { entries: VecDeque::new(), bytes: 0, last };
        for entry in entries {
            memory.last = memory.last.max(entry.id);
            memory.push(Arc::new(entry));
        }
        memory
    }

    pub fn add(&mut self, at: Timestamp, note: Note) -> Arc<Entry> {
        self.last += 1;
        let entry = Arc::new(Entry { id: self.last, at, note });
        self.push(Arc::clone(&entry));
        entry
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    pub fn since(&self, after: u64, limit: usize) -> Vec<Arc<Entry>> {
        let begin = self.entries.partition_point(|entry| entry.id <= after);
        let begin = begin.max(self.entries.len().saturating_sub(limit));
        self.entries.range(begin..).cloned().collect()
    }

    fn push(&mut self, entry: Arc<Entry>) {
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
        while self.entries.len() > KEPT || (self.bytes > MOST_BYTES && self.entries.len() > 1) {
            let oldest = self.entries.pop_front().expect("it holds more than one");
            self.bytes -= weight(&oldest);
        }
    }
}

/// What an entry takes, about. The same for an entry whenever it is asked.
fn weight(entry: &Entry) -> usize {
    let note = &entry.note;
    let names = [note.zone.as_deref(), note.region.as_deref(), note.author.as_deref(), Some(&*note.cause)];
    let shares = note.effect.iter().flat_map(|effect| effect.shares.keys());
    size_of::<Entry>()
        + names.into_iter().flatten().map(str::len).sum::<usize>()
        + shares.map(|name| name.len() + size_of::<(String, (f64, f64))>()).sum::<usize>()
}
