//! Entries in the order of their last use.
//!
//! They stand side by side without gaps: removing one moves the last into its place, so there is no free place that something could be
//! left in, and no number of a place outlives its entry. They come in chunks: growing copies nothing and never needs memory for two
//! copies. The order of use is kept apart from the entries: a use writes to three or four neighbours there, and would otherwise pull as many
//! entries into the processor's cache. A small part of each value, its handle, lies there too: what that points to can be on its way
//! from memory while the entry still is. What leads from a key to its place takes four bytes and one of hash.

use hashbrown::HashTable;

use crate::key::Key;

/// The place of an entry.
type Place = u32;

/// No place: the end of the order.
const NONE: Place = Place::MAX;

/// Entries of a chunk. The first one grows to that by doubling, so that a small cache is small.
const CHUNK: usize = 512;

/// Values by key, in the order of their last use.
pub(crate) struct Recent<H, V> {
    places: HashTable<Place>,
    chunks: Vec<Chunk<H, V>>,
    newest: Place,
    oldest: Place,
}

/// Entries, and as many links.
struct Chunk<H, V> {
    entries: Vec<Entry<V>>,
    links: Vec<Links<H>>,
}

/// With up to 96 bytes, it is in two cache lines at most.
#[repr(C, align(32))]
struct Entry<V> {
    key: Key,
    value: V,
}

/// Whoever was used after and before.
struct Links<H> {
    newer: Place,
    older: Place,
    handle: H,
}

impl<H, V> Recent<H, V> {
    /// The most there can be.
    pub(crate) const MOST: usize = NONE as usize;

    pub(crate) const fn new() -> Self {
        Self { places: HashTable::new(), chunks: Vec::new(), newest: NONE, oldest: NONE }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Uses an entry: it is the newest now.
    #[inline(always)]
    pub(crate) fn get(&mut self, key: &Key) -> Option<(&mut H, &mut V)> {
        let place = self.place(key)?;
        self.promote(place);
        self.value(place)
    }

    /// The same without a use.
    pub(crate) fn peek(&mut self, key: &Key) -> Option<(&mut H, &mut V)> {
        let place = self.place(key)?;
        self.value(place)
    }

    /// All values, in no order that means something.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.chunks.iter().flat_map(|chunk| &chunk.entries).map(|entry| (&entry.key, &entry.value))
    }

    /// Puts the newest entry, in place of an older one of this key. With [`MOST`](Self::MOST) entries there is no room for another.
    pub(crate) fn put(&mut self, key: Key, handle: H, value: V) {
        self.pop(&key);
        let at = self.len();
        let Some(place) = Place::try_from(at).ok().filter(|&place| place != NONE) else { return };
        while self.chunks.len() <= at / CHUNK {
            let room = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks.push(Chunk { entries: Vec::with_capacity(room), links: Vec::with_capacity(room) });
        }
        let Some(chunk) = self.chunks.get_mut(at / CHUNK) else { return };
        chunk.entries.push(Entry { key, value });
        chunk.links.push(Links { newer: NONE, older: NONE, handle });
        self.link(place);
        let Self { places, chunks, .. } = self;
        places.insert_unique(key.hash64(), place, |&place| entry(chunks, place).map_or(0, |entry| entry.key.hash64()));
    }

    pub(crate) fn pop(&mut self, key: &Key) -> Option<(H, V)> {
        let place = self.place(key)?;
        self.remove(place).map(|(_, handle, value)| (handle, value))
    }

    /// Removes the entry that was not used for longest.
    pub(crate) fn pop_oldest(&mut self) -> Option<(Key, H, V)> {
        self.remove(self.oldest)
    }

    #[inline(always)]
    fn place(&self, key: &Key) -> Option<Place> {
        self.places
            .find(key.hash64(), |&place| entry(&self.chunks, place).is_some_and(|entry| entry.key == *key))
            .copied()
    }

    fn value(&mut self, place: Place) -> Option<(&mut H, &mut V)> {
        let (chunk, at) = split(place);
        let chunk = self.chunks.get_mut(chunk)?;
        Some((&mut chunk.links.get_mut(at)?.handle, &mut chunk.entries.get_mut(at)?.value))
    }

    fn promote(&mut self, place: Place) {
        if self.newest != place {
            self.unlink(place);
            self.link(place);
        }
    }

    /// Takes a place out of the order.
    fn unlink(&mut self, place: Place) {
        let Some(&mut Links { newer, older, .. }) = self.links(place) else { return };
        self.join(newer, older);
    }

    /// Makes a place that is in no order the newest.
    fn link(&mut self, place: Place) {
        let newest = self.newest;
        if let Some(links) = self.links(place) {
            links.newer = NONE;
        }
        self.join(place, newest);
        self.newest = place;
    }

    /// Lets these two follow each other; at an end of the order one of them is none.
    fn join(&mut self, newer: Place, older: Place) {
        match self.links(newer) {
            Some(links) => links.older = older,
            None => self.newest = older,
        }
        match self.links(older) {
            Some(links) => links.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn links(&mut self, place: Place) -> Option<&mut Links<H>> {
        let (chunk, at) = split(place);
        self.chunks.get_mut(chunk)?.links.get_mut(at)
    }

    /// Removes an entry, and lets the last one have its place.
    fn remove(&mut self, place: Place) -> Option<(Key, H, V)> {
        let key = entry(&self.chunks, place)?.key;
        self.places.find_entry(key.hash64(), |&one| one == place).ok()?.remove();
        self.unlink(place);
        // One is gone from the places already, so their number is the last place.
        let last = Place::try_from(self.places.len()).ok()?;
        let (chunk, _) = split(last);
        let ends = self.chunks.get_mut(chunk)?;
        let (moved, links) = (ends.entries.pop()?, ends.links.pop()?);
        // One that is empty is kept behind the last for the next entry, a second one is not.
        self.chunks.truncate(chunk + 2);
        let (removed, handle) = if place == last {
            (moved, links.handle)
        } else {
            if let Some(known) = self.places.find_mut(moved.key.hash64(), |&one| one == last) {
                *known = place;
            }
            let (newer, older) = (links.newer, links.older);
            let (chunk, at) = split(place);
            let chunk = self.chunks.get_mut(chunk)?;
            let removed = std::mem::replace(chunk.entries.get_mut(at)?, moved);
            let handle = std::mem::replace(chunk.links.get_mut(at)?, links).handle;
            self.join(newer, place);
            self.join(place, older);
            (removed, handle)
        };
        Some((removed.key, handle, removed.value))
    }
}

fn entry<H, V>(chunks: &[Chunk<H, V>], place: Place) -> Option<&Entry<V>> {
    let (chunk, at) = split(place);
    chunks.get(chunk)?.entries.get(at)
}

const fn split(place: Place) -> (usize, usize) {
    (place as usize / CHUNK, place as usize % CHUNK)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::rc::Rc;

    use lru::LruCache;

    use super::*;

    /// Few of these differ in their hash, so that places are found among others of the same hash.
    fn key(n: u32) -> Key {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&[(n % 7).to_le_bytes()[0], (n / 64).to_le_bytes()[0]]);
        bytes[20..24].copy_from_slice(&n.to_le_bytes());
        Key::of(bytes)
    }

    /// Numbers without a plan, the same in every run (xorshift).
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u32) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            u32::try_from(self.0 >> 33).unwrap() % end
        }
    }

    impl<H, V> Recent<H, V> {
        /// Every key, the newest first, read in both directions.
        fn order(&self) -> Vec<Key> {
            let walk = |start, step: fn(&Links<H>) -> Place| {
                let mut keys = Vec::new();
                let mut place = start;
                while place != NONE {
                    keys.push(entry(&self.chunks, place).unwrap().key);
                    let (chunk, at) = split(place);
                    place = step(&self.chunks[chunk].links[at]);
                }
                keys
            };
            let newest_first = walk(self.newest, |links| links.older);
            let mut oldest_first = walk(self.oldest, |links| links.newer);
            oldest_first.reverse();
            assert_eq!(newest_first, oldest_first);
            newest_first
        }

        /// What holds at every moment.
        fn check(&self) {
            let entries: usize = self.chunks.iter().map(|chunk| chunk.entries.len()).sum();
            assert_eq!(entries, self.len());
            assert_eq!(self.order().len(), self.len());
            let full = self.chunks.iter().take_while(|chunk| chunk.entries.len() == CHUNK).count();
            assert!(self.chunks.iter().skip(full + 1).all(|chunk| chunk.entries.is_empty()), "there is no gap");
            assert!(self.chunks.len() <= self.len() / CHUNK + 2);
            for (at, (key, _)) in self.iter().enumerate() {
                assert_eq!(self.place(key), Some(Place::try_from(at).unwrap()));
            }
        }
    }

    /// The value, whose handle is the same number.
    fn both((handle, value): (&mut u32, &mut Rc<u32>)) -> Rc<u32> {
        assert_eq!(*handle, **value);
        Rc::clone(value)
    }

    fn whole((key, mut handle, mut value): (Key, u32, Rc<u32>)) -> (Key, Rc<u32>) {
        (key, both((&mut handle, &mut value)))
    }

    /// The same done to both, and everything about them compared.
    fn compare(seed: u64, keys: u32, capacity: usize, steps: u32) {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut ours = Recent::new();
        let mut theirs = LruCache::new(NonZeroUsize::new(capacity).unwrap());
        // Each value counts who has it.
        let mut values = Vec::new();
        for step in 0..steps {
            let key = key(random.below(keys));
            match random.below(16) {
                0..=6 => assert_eq!(ours.get(&key).map(both), theirs.get(&key).cloned()),
                7..=11 => {
                    let value = Rc::new(step);
                    if ours.len() == capacity && !theirs.contains(&key) {
                        assert_eq!(ours.pop_oldest().map(whole), theirs.pop_lru());
                    }
                    ours.put(key, step, Rc::clone(&value));
                    theirs.put(key, Rc::clone(&value));
                    values.push(value);
                }
                12 => assert_eq!(ours.peek(&key).map(both), theirs.peek(&key).cloned()),
                13..=14 => assert_eq!(
                    ours.pop(&key).map(|(mut handle, mut value)| both((&mut handle, &mut value))),
                    theirs.pop(&key)
                ),
                _ => assert_eq!(ours.pop_oldest().map(whole), theirs.pop_lru()),
            }
            assert_eq!(ours.len(), theirs.len());
            if step % (steps / 50) == 0 {
                ours.check();
                assert_eq!(ours.order(), theirs.iter().map(|(key, _)| *key).collect::<Vec<_>>());
                values.retain(|value| Rc::strong_count(value) > 1);
                assert!(values.iter().all(|value| Rc::strong_count(value) == 3), "both hold it, or neither");
                assert_eq!(values.len(), ours.len());
            }
            // Now and then nearly everything goes, so that places are used again.
            if random.below(steps / 4) == 0 {
                for _ in 0..random.below(u32::try_from(ours.len()).unwrap() + 1) {
                    assert_eq!(ours.pop_oldest().map(whole), theirs.pop_lru());
                }
            }
        }
        while let Some(oldest) = ours.pop_oldest().map(whole) {
            assert_eq!(Some(oldest), theirs.pop_lru());
        }
        assert!(theirs.is_empty());
        ours.check();
        assert!(values.iter().all(|value| Rc::strong_count(value) == 1), "nothing is left behind");
    }

    #[test]
    fn whatever_is_done_the_order_and_the_values_are_those_of_a_plain_list() {
        for seed in 1..=40 {
            compare(seed, 12, 8, 2000);
            compare(seed, 3, 2, 500);
            compare(seed, 1, 1, 100);
        }
        for seed in 1..=3 {
            compare(seed, 4000, 3 * CHUNK + 7, 20_000);
        }
    }

    #[test]
    fn a_removed_value_is_dropped_at_once_and_its_key_finds_nothing() {
        let mut recent = Recent::new();
        let values: Vec<Rc<u32>> = (0..10).map(Rc::new).collect();
        for (n, value) in (0..).zip(&values) {
            recent.put(key(n), (), Rc::clone(value));
        }
        for n in [0, 9, 4] {
            drop(recent.pop(&key(n)));
            assert_eq!(Rc::strong_count(&values[n as usize]), 1);
            assert!(recent.get(&key(n)).is_none() && recent.iter().all(|(one, _)| *one != key(n)));
            recent.check();
        }
        recent.put(key(4), (), Rc::clone(&values[0]));
        assert!(
            recent.get(&key(4)).is_some_and(|(_, value)| Rc::ptr_eq(value, &values[0])),
            "not what was there before"
        );
        recent.put(key(4), (), Rc::clone(&values[9]));
        assert_eq!((recent.len(), Rc::strong_count(&values[0])), (8, 1), "a value in place of another lets that go");
    }

    #[test]
    fn chunks_come_whole_but_for_the_first_and_go_when_they_are_empty() {
        let mut recent = Recent::new();
        recent.put(key(0), (), ());
        assert!(recent.chunks[0].entries.capacity() < CHUNK / 8, "a small cache is small");
        let many = u32::try_from(4 * CHUNK).unwrap();
        for n in 1..many {
            recent.put(key(n), (), ());
        }
        assert_eq!(recent.chunks.len(), 4);
        assert!(recent.chunks.iter().all(|chunk| chunk.entries.capacity() == CHUNK), "growing copies nothing");
        for n in 0..many - 1 {
            assert!(recent.pop(&key(n)).is_some());
        }
        assert_eq!((recent.len(), recent.chunks.len()), (1, 2), "one is kept for the next entry");
        recent.check();
    }
}
