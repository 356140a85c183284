//! A map that never holds more than so many keys: those that were not asked for lately go first.

use std::{collections::HashMap, hash::Hash, mem};

/// Keys in two generations: a full young one becomes the old one, whose keys are forgotten then,
/// but for those that were asked for since.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    most: usize,
}

impl<K: Eq + Hash, V> Bounded<K, V> {
    /// Makes a map of at most `most` keys.
    pub(super) fn of(most: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            most,
        }
    }

    /// Returns what stands under a key.
    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.put(key, value);
        }
        self.young.get_mut(key)
    }

    /// Puts something under a key.
    pub(super) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.most / 2 {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_bounded_and_keeps_what_is_asked_for() {
        let mut map = Bounded::of(10);
        map.put(0, "kept");
        for key in 1..1000 {
            map.put(key, "new");
            assert_eq!(map.get(&0), Some(&mut "kept"));
            assert!(map.young.len() + map.old.len() <= 10);
        }
        assert_eq!(map.get(&1), None);
    }
}
