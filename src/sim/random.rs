//! The generator that every choice of a simulated world comes from.

/// xoshiro256**, seeded by splitmix64: small, fast, and the same on every machine. Nothing secret comes from it.
#[derive(Clone, Debug)]
pub(crate) struct Random([u64; 4]);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    /// A generator of its own, so that what one part of the world draws does not shift the others.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // The bias is below 2^-32 for any size that occurs here.
        (self.next() % end as u64) as usize
    }

    /// True with `probability`. Draws nothing where there is no choice, so that an unused knob costs nothing.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        if probability <= 0.0 {
            return false;
        }
        // 53 bits, as many as an f64 can tell apart in [0, 1).
        ((self.next() >> 11) as f64 / (1_u64 << 53) as f64) < probability
    }

    /// `most`, or with `probability` a number from 1 to `most`.
    pub(crate) fn shorten(&mut self, most: usize, probability: f64) -> usize {
        if most > 1 && self.chance(probability) { 1 + self.below(most) } else { most }
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_again_and_another_seed_others() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            [random.next(), random.next(), random.fork().next()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_chance_of_nothing_never_comes_and_of_one_always() {
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| !random.chance(0.0)));
        assert!((0..1000).all(|_| random.chance(1.0)));
        let hits = (0..10_000).filter(|_| random.chance(0.25)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
    }

    #[test]
    fn a_shortened_length_is_never_zero() {
        let mut random = Random::new(3);
        assert_eq!(random.shorten(0, 1.0), 0);
        assert!((0..1000).all(|_| (1..=9).contains(&random.shorten(9, 1.0))));
    }
}
