//! A store whose keys carry a generation, growing page by page so that no insertion copies what is there.

/// The place of an item, and which of the items that lived there it is.
// Aligned, so that both are compared at once.
#[repr(align(8))]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Key {
    /// A key that nothing has.
    pub(crate) const NONE: Self = Self { index: u32::MAX, generation: 0 };
}

const PAGE: usize = 64;

struct Page<T> {
    /// Odd while the place is taken, so that a stale key never matches a free place. Beside the slots rather than in them, where
    /// they would cost as much again in padding.
    generations: [u32; PAGE],
    slots: [Slot<T>; PAGE],
}

enum Slot<T> {
    /// The next free place.
    Free(u32),
    Taken(T),
}

impl<T> Slot<T> {
    #[inline]
    fn value(&self) -> Option<&T> {
        match self {
            Self::Taken(value) => Some(value),
            Self::Free(_) => None,
        }
    }

    #[inline]
    fn value_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Taken(value) => Some(value),
            Self::Free(_) => None,
        }
    }
}

pub(crate) struct Store<T> {
    pages: Vec<Box<Page<T>>>,
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
        let page = &mut self.pages[index as usize / PAGE];
        let generation = &mut page.generations[index as usize % PAGE];
        *generation = generation.wrapping_add(1);
        let generation = *generation;
        if let Slot::Free(next) =
            std::mem::replace(&mut page.slots[index as usize % PAGE], Slot::Taken(value))
        {
            self.free = next;
        }
        self.len += 1;
        Key { index, generation }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let free = self.free;
        let page = self.pages.get_mut(key.index as usize / PAGE)?;
        let generation = &mut page.generations[key.index as usize % PAGE];
        let slot = &mut page.slots[key.index as usize % PAGE];
        if *generation != key.generation || matches!(slot, Slot::Free(_)) {
            return None;
        }
        *generation = generation.wrapping_add(1);
        self.free = key.index;
        self.len -= 1;
        match std::mem::replace(slot, Slot::Free(free)) {
            Slot::Taken(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let page = self.pages.get(key.index as usize / PAGE)?;
        let place = key.index as usize % PAGE;
        if page.generations[place] == key.generation { page.slots[place].value() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let page = self.pages.get_mut(key.index as usize / PAGE)?;
        let place = key.index as usize % PAGE;
        if page.generations[place] == key.generation { page.slots[place].value_mut() } else { None }
    }

    /// What lives at `index` now, whichever generation it is.
    #[inline]
    pub(crate) fn at(&self, index: u32) -> Option<(Key, &T)> {
        let page = self.pages.get(index as usize / PAGE)?;
        let place = index as usize % PAGE;
        let value = page.slots[place].value()?;
        Some((Key { index, generation: page.generations[place] }, value))
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.pages.get_mut(index as usize / PAGE)?.slots[index as usize % PAGE].value_mut()
    }

    /// The key of what lives at `index` now.
    #[inline]
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        self.at(index).map(|(key, _)| key)
    }

    /// Everything, in the order of the places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let places = self.pages.iter().flat_map(|page| page.generations.iter().zip(&page.slots));
        places
            .zip(0u32..)
            .filter_map(|((&generation, slot), index)| Some((Key { index, generation }, slot.value()?)))
    }

    /// How many places there are, taken or free.
    pub(crate) fn places(&self) -> u32 {
        (self.pages.len() * PAGE) as u32
    }

    fn grow(&mut self) {
        let first = self.places();
        let last = first + PAGE as u32 - 1;
        let slots = std::array::from_fn(|place| {
            let index = first + place as u32;
            Slot::Free(if index == last { u32::MAX } else { index + 1 })
        });
        self.pages.push(Box::new(Page { generations: [0; PAGE], slots }));
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
