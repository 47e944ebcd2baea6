//! Chance for scripts and handlers, and which seeds a run takes.

/// splitmix64: the world has a generator of its own, which no choice made here may shift.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        ((self.next() >> 11) as f64 / (1_u64 << 53) as f64) < probability
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A length: mostly small, at times around a border, seldom large.
    pub(crate) fn length(&mut self) -> usize {
        match self.below(40) {
            0 => 0,
            1 => self.pick(&[125, 126, 127, 128, 4095, 4096, 16_383, 16_384]),
            2 => self.pick(&[65_535, 65_536, 70_000]),
            3..8 => self.below(6000),
            _ => self.below(200),
        }
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// Text of at most `length` bytes, with characters of one to four.
    pub(crate) fn text(&mut self, length: usize) -> String {
        let mut text = String::with_capacity(length);
        loop {
            let character = self.pick(&['a', 'Z', '\n', 'é', '€', '\u{10348}', '0', ' ']);
            if text.len() + character.len_utf8() > length {
                return text;
            }
            text.push(character);
        }
    }
}

/// As many seeds as `LODGER_SIM_SEEDS` times `count`, from `LODGER_SIM_FROM` on, or only `LODGER_SIM_SEED`.
pub(crate) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<f64>().ok());
    let count = (count as f64 * number("LODGER_SIM_SEEDS").unwrap_or(1.0)).ceil() as u64;
    let alone = std::env::var_os("LODGER_SIM_SEED").is_some();
    let from = if alone { 0 } else { number("LODGER_SIM_FROM").unwrap_or(0.0) as u64 };
    lodger::sim::seeds(count).map(move |seed| from + seed)
}
