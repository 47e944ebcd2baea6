//! A store whose keys carry a generation, growing page by page so that no insertion copies what is there.

/// The place of an item, and which of the items that lived there it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

const PAGE: usize = 64;

struct Slot<T> {
    /// Odd while the slot is taken, so that a stale key never matches a free slot.
    generation: u32,
    next_free: u32,
    value: Option<T>,
}

pub(crate) struct Store<T> {
    pages: Vec<Box<[Slot<T>]>>,
    free: u32,
    len: usize,
}

impl<T> Store<T> {
    pub(crate) fn new() -> Self {
        Self { pages: Vec::new(), free: u32::MAX, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        if self.free == u32::MAX {
            self.grow();
        }
        let index = self.free;
        let slot = self.slot_mut(index);
        slot.generation = slot.generation.wrapping_add(1);
        slot.value = Some(value);
        let (generation, next) = (slot.generation, slot.next_free);
        self.free = next;
        self.len += 1;
        Key { index, generation }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let free = self.free;
        let slot = self.taken(key)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.next_free = free;
        let value = slot.value.take();
        self.free = key.index;
        self.len -= 1;
        value
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.pages.get(key.index as usize / PAGE)?.get(key.index as usize % PAGE)?;
        if slot.generation == key.generation { slot.value.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.taken(key)?.value.as_mut()
    }

    /// What lives at `index` now, whichever generation it is.
    #[inline]
    pub(crate) fn at(&self, index: u32) -> Option<(Key, &T)> {
        let slot = self.pages.get(index as usize / PAGE)?.get(index as usize % PAGE)?;
        Some((Key { index, generation: slot.generation }, slot.value.as_ref()?))
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.pages.get_mut(index as usize / PAGE)?.get_mut(index as usize % PAGE)?.value.as_mut()
    }

    /// The key of what lives at `index` now.
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        self.at(index).map(|(key, _)| key)
    }

    /// Everything, in the order of the places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.pages.iter().flatten().zip(0u32..).filter_map(|(slot, index)| {
            let value = slot.value.as_ref()?;
            Some((Key { index, generation: slot.generation }, value))
        })
    }

    /// How many places there are, taken or free.
    pub(crate) fn places(&self) -> u32 {
        (self.pages.len() * PAGE) as u32
    }

    #[inline]
    fn taken(&mut self, key: Key) -> Option<&mut Slot<T>> {
        let slot = self.pages.get_mut(key.index as usize / PAGE)?.get_mut(key.index as usize % PAGE)?;
        (slot.generation == key.generation).then_some(slot)
    }

    fn slot_mut(&mut self, index: u32) -> &mut Slot<T> {
        &mut self.pages[index as usize / PAGE][index as usize % PAGE]
    }

    fn grow(&mut self) {
        let first = self.places();
        let last = first + PAGE as u32 - 1;
        let slot = |index| Slot {
            generation: 0,
            next_free: if index == last { u32::MAX } else { index + 1 },
            value: None,
        };
        self.pages.push((first..=last).map(slot).collect());
        self.free = first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut store = Store::new();
        let first = store.insert("first");
        assert_eq!(store.remove(first), Some("first"));
        let second = store.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(store.get(first), None);
        assert_eq!(store.remove(first), None);
        assert_eq!(store.get(second), Some(&"second"));
    }

    #[test]
    fn growing_moves_nothing() {
        let mut store = Store::new();
        let keys: Vec<_> = (0..PAGE * 3).map(|n| store.insert(n)).collect();
        let address = std::ptr::from_ref(store.get(keys[0]).unwrap());
        for n in 0..PAGE {
            store.insert(n);
        }
        assert!(std::ptr::eq(address, store.get(keys[0]).unwrap()));
        assert!(keys.iter().enumerate().all(|(n, key)| store.get(*key) == Some(&n)));
        assert_eq!(store.len(), PAGE * 4);
        assert_eq!(store.iter().count(), PAGE * 4);
    }
}
