//! Windows of three characters of a folded text, as 24-bit hashes.
//!
//! Characters, not bytes: `ağ` is two of them. Two windows may share a hash; that makes a candidate more, never one less.

use foldhash::{HashSet, HashSetExt};
use xxhash_rust::xxh3::xxh3_64;

/// Characters of a window: the index's unit. A shorter pattern has none and is looked for by reading texts.
pub const WINDOW: usize = 3;
/// Bits of a hash.
pub const HASH_BITS: u32 = 24;
/// A text with more different windows is not indexed by them: it is a candidate of every search. Bounds what one unit of
/// the index may need in memory while it is made.
pub const WINDOWS_MAX: usize = 16_384;
/// A long pattern is represented by this many of its windows, evenly spread.
const PATTERN_WINDOWS_MAX: usize = 24;

/// Hashes windows with a seed of the log, so that nobody outside can aim at a hash.
#[derive(Debug, Clone, Copy)]
pub struct Grams {
    seed: u64,
}

impl Grams {
    /// For one log.
    pub fn new(log_id: &[u8; 16]) -> Self {
        Self { seed: xxh3_64(log_id) }
    }

    fn hash(self, window: u64) -> u32 {
        let x = (window ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (x >> (64 - HASH_BITS)) as u32
    }

    fn each(self, folded: &str, mut take: impl FnMut(u32) -> bool) {
        // A character has 21 bits, so three fit; what a fourth pushes out is masked away.
        const MASK: u64 = (1 << (21 * WINDOW)) - 1;
        let mut window = 0u64;
        for (at, c) in folded.chars().enumerate() {
            window = (window << 21 | u64::from(u32::from(c))) & MASK;
            if at + 1 >= WINDOW && !take(self.hash(window)) {
                return;
            }
        }
    }

    /// Adds the windows of a text to `pairs` as hash × 2^16 + `place`. `false`: it has too many and nothing was added.
    pub fn add(self, folded: &str, place: u16, pairs: &mut Vec<u64>) -> bool {
        let pair = |hash: u32| u64::from(hash) << 16 | u64::from(place);
        if folded.len() <= WINDOWS_MAX {
            self.each(folded, |hash| {
                pairs.push(pair(hash));
                true
            });
            return true;
        }
        let mut distinct = HashSet::with_capacity(WINDOWS_MAX / 4);
        self.each(folded, |hash| {
            distinct.insert(hash);
            distinct.len() <= WINDOWS_MAX
        });
        if distinct.len() > WINDOWS_MAX {
            return false;
        }
        pairs.extend(distinct.into_iter().map(pair));
        true
    }

    /// The windows to look a folded pattern up by, each once; none of a pattern shorter than a window.
    pub fn of_pattern(self, folded: &str) -> Vec<u32> {
        let mut hashes = Vec::new();
        self.each(folded, |hash| {
            if !hashes.contains(&hash) {
                hashes.push(hash);
            }
            // Behind this the search is long decided.
            hashes.len() < 8 * PATTERN_WINDOWS_MAX
        });
        if hashes.len() > PATTERN_WINDOWS_MAX {
            let count = hashes.len();
            hashes = (0..PATTERN_WINDOWS_MAX).map(|i| hashes[i * count / PATTERN_WINDOWS_MAX]).collect();
        }
        hashes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_of_characters_and_a_texts_windows_hold_its_substrings() {
        let grams = Grams::new(&[7; 16]);
        assert!(grams.of_pattern("ağ").is_empty());
        assert_eq!(grams.of_pattern("ağı").len(), 1);
        assert_eq!(grams.of_pattern("aaaa").len(), 1);
        let text = "bugün hava çok güzel 😀😀😀 %_.*";
        let mut pairs = Vec::new();
        assert!(grams.add(text, 5, &mut pairs));
        let chars: Vec<char> = text.chars().collect();
        for from in 0..chars.len() {
            for to in from..=chars.len() {
                let pattern: String = chars[from..to].iter().collect();
                for hash in grams.of_pattern(&pattern) {
                    assert!(pairs.contains(&(u64::from(hash) << 16 | 5)), "{pattern:?}");
                }
            }
        }
    }

    #[test]
    fn long_texts_count_different_windows_only_and_long_patterns_are_sampled() {
        let grams = Grams::new(&[7; 16]);
        let mut pairs = Vec::new();
        assert!(grams.add(&"ab".repeat(WINDOWS_MAX), 0, &mut pairs));
        assert_eq!(pairs.len(), 2);
        let all: String = (0..WINDOWS_MAX as u32 * 2).filter_map(|i| char::from_u32(0x4e00 + i)).collect();
        assert!(!grams.add(&all, 1, &mut pairs));
        assert_eq!(pairs.len(), 2);
        assert_eq!(grams.of_pattern(&all).len(), PATTERN_WINDOWS_MAX);
    }
}
