//! A set of channel numbers: one bit per channel that exists.

/// See the module's head.
#[derive(Debug, Default)]
pub struct Numbers {
    words: Vec<u64>,
}

impl Numbers {
    /// Puts a number in.
    pub fn insert(&mut self, no: u32) {
        let at = no as usize / 64;
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        self.words[at] |= 1 << (no % 64);
    }

    /// Whether it is in.
    pub fn contains(&self, no: u32) -> bool {
        self.words.get(no as usize / 64).is_some_and(|word| word & (1 << (no % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in() {
        let mut numbers = Numbers::default();
        [0, 63, 64, 100_000].into_iter().for_each(|no| numbers.insert(no));
        let held: Vec<u32> = (0..100_100).filter(|no| numbers.contains(*no)).collect();
        assert_eq!(held, [0, 63, 64, 100_000]);
    }
}
