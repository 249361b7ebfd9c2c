//! A long list of which the next version shares all but what is another: changing one of ten thousand entries copies 64
//! of them and a short list of chunks, and touches no other.

use std::sync::Arc;

/// Entries of a chunk; a power of two near the square root of the longest lists.
const SIZE: usize = 64;

pub struct Chunks<T> {
    chunks: Arc<[Arc<[T]>]>,
    len: usize,
}

impl<T> Clone for Chunks<T> {
    /// One counter, whatever the length.
    fn clone(&self) -> Chunks<T> {
        Chunks { chunks: Arc::clone(&self.chunks), len: self.len }
    }
}

impl<T> Default for Chunks<T> {
    fn default() -> Chunks<T> {
        [].into_iter().collect()
    }
}

impl<T> FromIterator<T> for Chunks<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Chunks<T> {
        let mut items = items.into_iter().peekable();
        let (mut chunks, mut len) = (Vec::new(), 0);
        while items.peek().is_some() {
            let chunk: Arc<[T]> = items.by_ref().take(SIZE).collect();
            len += chunk.len();
            chunks.push(chunk);
        }
        Chunks { chunks: chunks.into(), len }
    }
}

impl<T> Chunks<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Panics beyond the end, as an index does.
    pub fn get(&self, index: usize) -> &T {
        &self.chunks[index / SIZE][index % SIZE]
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}

impl<T: Clone> Chunks<T> {
    /// Panics beyond the end. What other versions hold stays as it is.
    pub fn get_mut(&mut self, index: usize) -> &mut T {
        &mut Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[index / SIZE])[index % SIZE]
    }

    pub fn push(&mut self, item: T) {
        let mut chunks: Vec<Arc<[T]>> = self.chunks.to_vec();
        match chunks.last_mut() {
            Some(last) if last.len() < SIZE => *last = last.iter().cloned().chain([item]).collect(),
            _ => chunks.push(Arc::new([item])),
        }
        self.chunks = chunks.into();
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_version_stays_what_it_was(
            first in proptest::collection::vec(any::<u16>(), 0..300),
            changes in proptest::collection::vec((any::<usize>(), any::<u16>()), 0..60),
        ) {
            let mut versions = vec![(first.iter().copied().collect::<Chunks<u16>>(), first)];
            for (index, value) in changes {
                let (mut list, mut model) = versions.last().cloned().expect("there is a first");
                if model.is_empty() || index % 4 == 0 {
                    list.push(value);
                    model.push(value);
                } else {
                    let index = index % model.len();
                    *list.get_mut(index) = value;
                    model[index] = value;
                }
                versions.push((list, model));
            }
            for (list, model) in versions {
                prop_assert_eq!(list.len(), model.len());
                prop_assert!(list.iter().eq(model.iter()));
                prop_assert!((0..model.len()).all(|index| list.get(index) == &model[index]));
            }
        }
    }

    #[test]
    fn a_change_copies_one_chunk_and_shares_the_rest() {
        let before: Chunks<Arc<usize>> = (0..1000).map(Arc::new).collect();
        let mut after = before.clone();
        *after.get_mut(500) = Arc::new(0);
        let shared = before.chunks.iter().zip(after.chunks.iter()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, before.chunks.len() - 1);
    }
}
