//! All addresses cut into runs of one value: the shape in which databases are merged, painted over and looked up.
//!
//! A run is its first key; it ends before the next run begins. Keys are whatever the user counts in: IPv4 addresses,
//! /24 blocks, the upper 64 or 48 bits of IPv6 addresses. Values are indices into a table of the user's.

use std::ops::{Shl, Shr};

/// What runs are keyed by.
pub trait Key: Copy + Ord + Into<u128> + TryFrom<u128> + Shl<u32, Output = Self> + Shr<u32, Output = Self> {
    const MIN: Self;

    /// `None` behind the last key.
    fn next(self) -> Option<Self>;
}

impl Key for u32 {
    const MIN: u32 = 0;

    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }
}

impl Key for u64 {
    const MIN: u64 = 0;

    fn next(self) -> Option<u64> {
        self.checked_add(1)
    }
}

/// Runs in the order of their first keys; neighbours differ in value. The first begins at zero, so every key has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges<K> {
    starts: Vec<K>,
    values: Vec<u32>,
}

impl<K: Key> Ranges<K> {
    /// One run over everything.
    pub fn all(value: u32) -> Ranges<K> {
        Ranges { starts: vec![K::MIN], values: vec![value] }
    }

    pub fn len(&self) -> usize {
        self.starts.len()
    }

    pub fn get(&self, key: K) -> u32 {
        self.values[self.index(key)]
    }

    /// First and last key of the run that holds `key`, and its value.
    pub fn run(&self, key: K, last: K) -> (K, K, u32) {
        let i = self.index(key);
        (self.starts[i], self.end(i, last), self.values[i])
    }

    fn index(&self, key: K) -> usize {
        // The first start is the smallest key, so at least one start is not above `key`.
        self.starts.partition_point(|&start| start <= key) - 1
    }

    /// Last key of run `i`; `last` ends the last run.
    fn end(&self, i: usize, last: K) -> K {
        match self.starts.get(i + 1) {
            Some(&next) => K::try_from(next.into() - 1).unwrap_or(last),
            None => last,
        }
    }

    /// Runs as (first, last, value), where `last` is the last key of all.
    pub fn iter(&self, last: K) -> impl Iterator<Item = (K, K, u32)> + '_ {
        (0..self.len()).map(move |i| (self.starts[i], self.end(i, last), self.values[i]))
    }

    pub fn starts(&self) -> &[K] {
        &self.starts
    }

    pub fn values(&self) -> &[u32] {
        &self.values
    }

    /// Begins a run at `start`, which is not below the start of the last run.
    fn push(&mut self, start: K, value: u32) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.values.pop();
        }
        if self.values.last() != Some(&value) {
            self.starts.push(start);
            self.values.push(value);
        }
    }

    /// Runs in the order of their first keys, the first of which is zero; neighbours of equal value are joined.
    pub fn joined(runs: impl Iterator<Item = (K, u32)>) -> Ranges<K> {
        let mut out = Ranges { starts: Vec::new(), values: Vec::new() };
        runs.for_each(|(start, value)| out.push(start, value));
        out.shrink();
        out
    }

    /// Each value replaced, in place; neighbours that become equal are joined.
    pub fn replaced(mut self, mut value: impl FnMut(u32) -> u32) -> Ranges<K> {
        let mut kept = 0;
        for i in 0..self.len() {
            let value = value(self.values[i]);
            if kept == 0 || self.values[kept - 1] != value {
                (self.starts[kept], self.values[kept]) = (self.starts[i], value);
                kept += 1;
            }
        }
        self.starts.truncate(kept);
        self.values.truncate(kept);
        self.shrink();
        self
    }

    /// Whether no run begins within a block of `1 << shift` keys.
    pub fn aligned(&self, shift: u32) -> bool {
        self.starts.iter().all(|&start| start >> shift << shift == start)
    }

    /// Both at once: each key gets `combine(own value, other's value)`.
    pub fn overlay(&self, other: &Ranges<K>, mut combine: impl FnMut(u32, u32) -> u32) -> Ranges<K> {
        let mut out = Ranges { starts: Vec::with_capacity(self.len()), values: Vec::with_capacity(self.len()) };
        let (mut i, mut j) = (0, 0);
        loop {
            let start = self.starts[i].max(other.starts[j]);
            out.push(start, combine(self.values[i], other.values[j]));
            match (self.starts.get(i + 1), other.starts.get(j + 1)) {
                (None, None) => break,
                (Some(_), None) => i += 1,
                (None, Some(_)) => j += 1,
                (Some(a), Some(b)) => {
                    let (a, b) = (*a, *b);
                    i += usize::from(a <= b);
                    j += usize::from(b <= a);
                }
            }
        }
        out.shrink();
        out
    }

    /// Keys of `1 << shift` old ones each. A new key that holds several values takes the one that most of its old keys
    /// have; of equal ones the one that comes first.
    pub fn coarsen<C: Key>(&self, shift: u32, last: K) -> Ranges<C> {
        let mut out = Ranges { starts: Vec::new(), values: Vec::new() };
        // Values of the split key that is being read, in the order of their first appearance.
        let mut tally: Vec<(u32, u128)> = Vec::new();
        let size = 1u128 << shift;
        let mut push = |key: u128, value: u32| {
            let Ok(key) = C::try_from(key) else { unreachable!("a key has fewer bits than it had before") };
            out.push(key, value);
        };
        for (start, end, value) in self.iter(last) {
            let (mut start, end) = (start.into(), end.into());
            while start <= end {
                let within = start & (size - 1);
                let left = end - start + 1;
                if within == 0 && left >= size {
                    push(start >> shift, value);
                    start += left >> shift << shift;
                    continue;
                }
                let taken = left.min(size - within);
                match tally.iter_mut().find(|(v, _)| *v == value) {
                    Some((_, count)) => *count += taken,
                    None => tally.push((value, taken)),
                }
                start += taken;
                if within + taken == size {
                    let mut most = tally[0];
                    for &candidate in &tally[1..] {
                        if candidate.1 > most.1 {
                            most = candidate;
                        }
                    }
                    push((start - 1) >> shift, most.0);
                    tally.clear();
                }
            }
        }
        out.shrink();
        out
    }

    fn shrink(&mut self) {
        self.starts.shrink_to_fit();
        self.values.shrink_to_fit();
    }
}

/// Takes blocks in the order of their addresses; what lies between them gets value 0.
pub struct Builder<K> {
    ranges: Ranges<K>,
    /// First key that has no value yet; `None` when all have.
    next: Option<K>,
}

impl<K: Key> Default for Builder<K> {
    fn default() -> Builder<K> {
        Builder { ranges: Ranges { starts: Vec::new(), values: Vec::new() }, next: Some(K::MIN) }
    }
}

impl<K: Key> Builder<K> {
    /// Gives `first..=last` its value. What lies below the blocks given before is left as it is.
    pub fn add(&mut self, first: K, last: K, value: u32) {
        let Some(next) = self.next else { return };
        let first = first.max(next);
        if first > last {
            return;
        }
        if first > next {
            self.ranges.push(next, 0);
        }
        self.ranges.push(first, value);
        self.next = last.next();
    }

    pub fn finish(mut self) -> Ranges<K> {
        if let Some(next) = self.next {
            self.ranges.push(next, 0);
        }
        self.ranges.shrink();
        self.ranges
    }
}

/// Blocks that lie within one another or apart, never across; `inside(outer value, id)` gives the value within a block.
/// Outside of all the value is 0. Equal blocks apply in the order given.
pub fn nest<K: Key>(mut blocks: Vec<(K, K, u32)>, mut inside: impl FnMut(u32, u32) -> u32) -> Ranges<K> {
    // Outer blocks first; stable, so equal ones keep their order.
    blocks.sort_by_key(|block| (block.0, std::cmp::Reverse(block.1)));
    let mut out = Ranges::all(0);
    let mut open: Vec<(K, u32)> = Vec::new();
    let close = |out: &mut Ranges<K>, open: &mut Vec<(K, u32)>, before: Option<K>| {
        while let Some(&(last, _)) = open.last() {
            if before.is_some_and(|start| start <= last) {
                break;
            }
            open.pop();
            if let Some(next) = last.next() {
                out.push(next, open.last().map_or(0, |&(_, value)| value));
            }
        }
    };
    for (first, last, id) in blocks {
        close(&mut out, &mut open, Some(first));
        let value = inside(open.last().map_or(0, |&(_, value)| value), id);
        out.push(first, value);
        open.push((last, value));
    }
    close(&mut out, &mut open, None);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(blocks: &[(u32, u32, u32)]) -> Ranges<u32> {
        let mut builder = Builder::default();
        for &(first, last, value) in blocks {
            builder.add(first, last, value);
        }
        builder.finish()
    }

    #[test]
    fn gaps_are_zero_and_equal_neighbours_are_one_run() {
        let ranges = built(&[(10, 19, 1), (20, 29, 1), (40, u32::MAX, 2)]);
        assert_eq!(ranges.starts(), [0, 10, 30, 40]);
        assert_eq!(ranges.values(), [0, 1, 0, 2]);
        assert_eq!(ranges.run(25, u32::MAX), (10, 29, 1));
        assert_eq!(ranges.run(u32::MAX, u32::MAX), (40, u32::MAX, 2));
    }

    #[test]
    fn overlay_meets_every_border_of_both() {
        let a = built(&[(10, 19, 1)]);
        let b = built(&[(15, 24, 2)]);
        let both = a.overlay(&b, |x, y| x * 10 + y);
        assert_eq!(both.starts(), [0, 10, 15, 20, 25]);
        assert_eq!(both.values(), [0, 10, 12, 2, 0]);
    }

    #[test]
    fn replaced_values_join_neighbours_that_become_equal() {
        let ranges = built(&[(10, 19, 1), (20, 29, 2), (30, 39, 3)]);
        let halved = ranges.replaced(|value| value / 2);
        assert_eq!(halved.starts(), [0, 20, 40]);
        assert_eq!(halved.values(), [0, 1, 0]);
    }

    #[test]
    fn a_split_block_takes_the_value_of_most_of_its_addresses() {
        // 0..256 is 100 × 1, 100 × 2, then 56 more of 1; 256..512 is half and half: the lower wins.
        let ranges = built(&[(0, 99, 1), (100, 199, 2), (200, 255, 1), (256, 383, 3), (384, 511, 4), (512, 1023, 5)]);
        let coarse: Ranges<u32> = ranges.coarsen(8, u32::MAX);
        assert_eq!(coarse.starts(), [0, 1, 2, 4]);
        assert_eq!(coarse.values(), [1, 3, 5, 0]);
    }

    #[test]
    fn the_innermost_block_wins_when_nested() {
        let ranges = nest(vec![(0u32, 99, 1), (10, 19, 2), (10, 14, 3), (200, u32::MAX, 4)], |_, id| id);
        assert_eq!(ranges.starts(), [0, 10, 15, 20, 100, 200]);
        assert_eq!(ranges.values(), [1, 3, 2, 1, 0, 4]);
    }
}
