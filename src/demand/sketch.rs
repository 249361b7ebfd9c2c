//! Which keys ask most, in bounded memory: Space-Saving (Metwally, Agrawal, El Abbadi 2005), with counts that fade.
//!
//! A key that is not kept takes the place of the one that has asked least and inherits its count as its error. So a count
//! is never too low, `count − error` never too high, and whoever asks for more than one part in [`KEYS`] of all is kept.

use std::collections::HashMap;
use std::time::Duration;

use super::asked::Asked;
use super::estimate::WINDOW;

/// Keys kept, of all groups together. Some 0.5 MB.
pub const KEYS: usize = 8192;
/// Counts fade to 1/e in this time, seconds: long enough to see how often a resolver comes back that caches for a minute.
const FADE_S: f64 = 300.0;
/// A rate is not taken from less, seconds: a few askings at once say nothing about how often they come.
const SETTLED_S: f64 = 60.0;
/// Askings below which a key's rate is not known.
const KNOWN: f64 = 4.0;

/// A key that is kept.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub key: Asked,
    /// Askings since the last [`Sketch::fade`].
    pub recent: f64,
    /// Askings, faded.
    count: f64,
    /// How much of the count may be other keys'.
    error: f64,
    age_s: f64,
    /// Position in the heap.
    heap: u16,
}

impl Slot {
    /// Askings a second over the last minutes, with certainty at least so many; `None`: not known well enough.
    pub fn rate(&self) -> Option<f64> {
        let certain = self.count - self.error;
        let seconds = FADE_S * (1.0 - (-self.age_s.max(SETTLED_S) / FADE_S).exp());
        // Rates are read of keys that have just asked, half an asking above their mean, at the end of a window, of which the
        // askings are half a window old.
        (certain >= KNOWN).then(|| (certain - 0.5) / (seconds + WINDOW.as_secs_f64() / 2.0))
    }
}

#[derive(Default)]
pub struct Sketch {
    slots: Vec<Slot>,
    /// Slots; the one with the lowest count comes first.
    heap: Vec<u16>,
    // Seeded: who chooses the keys can't make them collide.
    at: HashMap<Asked, u16, foldhash::quality::RandomState>,
}

impl Sketch {
    /// `weight`: how many askings this one stands for; finite and not negative.
    pub fn count(&mut self, key: Asked, weight: f64) {
        let slot = match self.at.get(&key) {
            Some(&slot) => slot,
            None if self.slots.len() < KEYS => {
                let (slot, heap) = (self.slots.len() as u16, self.heap.len() as u16);
                self.slots.push(Slot { key, recent: 0.0, count: 0.0, error: 0.0, age_s: 0.0, heap });
                self.heap.push(slot);
                self.at.insert(key, slot);
                self.rise(heap.into());
                slot
            }
            None => {
                let slot = self.heap[0];
                let least = &mut self.slots[usize::from(slot)];
                self.at.remove(&least.key);
                *least = Slot { key, recent: 0.0, error: least.count, age_s: 0.0, ..*least };
                self.at.insert(key, slot);
                slot
            }
        };
        let slot = &mut self.slots[usize::from(slot)];
        slot.count += weight;
        slot.recent += weight;
        let heap = usize::from(slot.heap);
        self.sink(heap);
    }

    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Lets time pass; what was recent is so no more.
    pub fn fade(&mut self, passed: Duration) {
        let keep = (-passed.as_secs_f64() / FADE_S).exp();
        for slot in &mut self.slots {
            slot.count *= keep;
            slot.error *= keep;
            slot.recent = 0.0;
        }
    }

    /// To be called after so much time, before rates are read and [`Sketch::fade`] is called.
    pub fn age(&mut self, passed: Duration) {
        self.slots.iter_mut().for_each(|slot| slot.age_s += passed.as_secs_f64());
    }

    /// Renames or forgets keys.
    pub fn rename(&mut self, mut name: impl FnMut(Asked) -> Option<Asked>) {
        let mut kept: Vec<Slot> = std::mem::take(self).slots;
        kept.retain_mut(|slot| name(slot.key).map(|key| slot.key = key).is_some());
        // Sorted, it is a heap.
        kept.sort_by(|a, b| a.count.total_cmp(&b.count));
        for mut slot in kept {
            let position = self.slots.len() as u16;
            if self.at.insert(slot.key, position).is_none() {
                slot.heap = position;
                self.slots.push(slot);
                self.heap.push(position);
            } else {
                // Two names became one, which `name` should not do; the greater count stands.
                let same = self.slots.iter().rposition(|other| other.key == slot.key).unwrap_or_default();
                self.at.insert(slot.key, same as u16);
            }
        }
    }

    fn count_at(&self, heap: usize) -> f64 {
        self.slots[usize::from(self.heap[heap])].count
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for position in [a, b] {
            self.slots[usize::from(self.heap[position])].heap = position as u16;
        }
    }

    fn rise(&mut self, mut position: usize) {
        while position > 0 && self.count_at(position) < self.count_at((position - 1) / 2) {
            self.swap(position, (position - 1) / 2);
            position = (position - 1) / 2;
        }
    }

    fn sink(&mut self, mut position: usize) {
        loop {
            let children = 2 * position + 1..(2 * position + 3).min(self.heap.len());
            let Some(least) = children.min_by(|a, b| self.count_at(*a).total_cmp(&self.count_at(*b))) else { return };
            if self.count_at(least) >= self.count_at(position) {
                return;
            }
            self.swap(position, least);
            position = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geo::CellId;

    fn key(number: u64) -> Asked {
        Asked::new((number >> 40) as u32, CellId((number >> 24) as u16), (number & 0xFF_FFFF) << 33).unwrap()
    }

    fn after(seconds: u64, sketch: &mut Sketch) {
        sketch.age(Duration::from_secs(seconds));
    }

    #[test]
    fn a_heavy_key_is_found_among_a_flood_of_keys_that_ask_once() {
        let mut sketch = Sketch::default();
        for i in 0..200_000u64 {
            sketch.count(key(1_000 + i), 1.0);
            if i % 100 == 0 {
                sketch.count(key(1), 1.0);
            }
        }
        after(100, &mut sketch);
        assert_eq!(sketch.slots().len(), KEYS);
        let heavy = sketch.slots().iter().find(|slot| slot.key == key(1)).expect("kept");
        let rate = heavy.rate().expect("known");
        assert!((1.0..=2000.0 / 85.0).contains(&rate), "{rate}");
        let known = sketch.slots().iter().filter(|slot| slot.rate().is_some()).count();
        assert!(known < 20, "keys that ask once are not taken for heavy: {known}");
    }

    #[test]
    fn a_steady_key_has_its_rate_and_a_short_burst_has_none_of_its_own() {
        let mut sketch = Sketch::default();
        for _ in 0..60 {
            sketch.count(key(1), 2.0);
            after(10, &mut sketch);
            sketch.fade(Duration::from_secs(10));
        }
        let rate = sketch.slots()[0].rate().unwrap();
        assert!((rate - 0.2).abs() < 0.012, "{rate}");
        sketch.count(key(2), 5.0);
        after(10, &mut sketch);
        let burst = sketch.slots()[1].rate().unwrap();
        assert!(burst < 0.1, "five askings in one second are not five a second: {burst}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn counts_bound_the_truth_from_both_sides(asked in prop::collection::vec((0u64..20_000, 0.0f64..4.0), 0..30_000)) {
            let mut sketch = Sketch::default();
            let mut truth: HashMap<Asked, f64> = HashMap::new();
            for &(number, weight) in &asked {
                // Some keys much more often than others.
                let key = key(number * number / 20_000);
                sketch.count(key, weight);
                *truth.entry(key).or_default() += weight;
            }
            let all: f64 = truth.values().sum();
            for slot in sketch.slots() {
                prop_assert!(slot.count + 1e-6 >= truth[&slot.key]);
                prop_assert!(slot.count - slot.error <= truth[&slot.key] + 1e-6);
            }
            for (key, count) in &truth {
                prop_assert!(*count <= all / KEYS as f64 + 1e-6 || sketch.at.contains_key(key));
            }
            for position in 1..sketch.heap.len() {
                prop_assert!(sketch.count_at(position) >= sketch.count_at((position - 1) / 2));
                prop_assert_eq!(usize::from(sketch.slots[usize::from(sketch.heap[position])].heap), position);
            }
        }
    }

    #[test]
    fn renamed_keys_keep_their_counts_and_dropped_ones_go() {
        let mut sketch = Sketch::default();
        (0..100).for_each(|i| (0..=i).for_each(|_| sketch.count(key(i), 1.0)));
        sketch.rename(|asked| (asked.bits() >> 1 & 1 == 0).then(|| asked.in_group(7)).flatten());
        assert_eq!(sketch.slots().len(), 50);
        assert!(sketch.slots().iter().all(|slot| slot.key.group() == 7));
        sketch.count(key(98).in_group(7).unwrap(), 1.0);
        assert_eq!(sketch.slots().len(), 50, "found under the new name");
        assert_eq!(sketch.slots().iter().map(|slot| slot.count).fold(0.0, f64::max), 100.0);
    }
}
