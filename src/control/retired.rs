//! Snapshots that were replaced but may still be read.
//!
//! Freeing a snapshot takes milliseconds once zones and atlas go with it. A reader that dropped the last reference
//! would do that in the middle of answering, so the control loop keeps every old one until nobody else holds it.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::thread;

use super::aside::give_way;

/// More are never kept. A reader looks at the published snapshot several times a second, so that many are only passed
/// when a reader is stuck; then it may as well be the one to free what it holds.
const LIMIT: usize = 256;

pub struct Retired<T> {
    kept: VecDeque<Arc<T>>,
}

impl<T> Default for Retired<T> {
    fn default() -> Retired<T> {
        Retired { kept: VecDeque::new() }
    }
}

impl<T> Retired<T> {
    /// Takes what the swap gave back. From then on no reader can come by a new reference to it.
    pub fn keep(&mut self, old: Arc<T>) {
        if self.kept.len() == LIMIT {
            self.kept.pop_front();
        }
        self.kept.push_back(old);
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Those that nobody else reads any more, for the caller to drop where it disturbs nobody.
    pub fn take_unread(&mut self) -> Vec<Arc<T>> {
        let (unread, read) = self.kept.drain(..).partition(|old| Arc::strong_count(old) == 1);
        self.kept = read;
        Vec::from(unread)
    }
}

/// A thread that frees what is thrown in, and gives way meanwhile.
pub struct Bin<T> {
    throw: mpsc::Sender<T>,
}

impl<T: Send + 'static> Bin<T> {
    pub fn start() -> Bin<T> {
        let (throw, thrown) = mpsc::channel();
        let free = move || {
            give_way();
            thrown.into_iter().for_each(drop);
        };
        // Without a thread it is freed by who throws it in.
        let _ = thread::Builder::new().name("free".to_owned()).spawn(free);
        Bin { throw }
    }

    pub fn take(&self, old: T) {
        let _ = self.throw.send(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_still_read_is_kept_and_one_unread_is_given_up() {
        let (reader, unread) = (Arc::new(1), Arc::new(2));
        let mut retired = Retired::default();
        retired.keep(Arc::clone(&reader));
        retired.keep(unread);
        assert_eq!(retired.take_unread(), [Arc::new(2)]);
        assert!(!retired.is_empty() && retired.take_unread().is_empty());
        drop(reader);
        assert_eq!(retired.take_unread(), [Arc::new(1)]);
        assert!(retired.is_empty());
    }

    #[test]
    fn a_stuck_reader_cannot_make_it_grow() {
        let mut retired = Retired::default();
        let readers: Vec<_> = (0..LIMIT + 10).map(Arc::new).collect();
        for reader in &readers {
            retired.keep(Arc::clone(reader));
        }
        assert_eq!(retired.kept.len(), LIMIT);
        assert_eq!(Arc::strong_count(&readers[0]), 1, "the oldest is left to its reader");
    }
}
