//! Chance that can be had again: numbers, texts, bytes and session keys of a printed seed. `CHINWAG_FUZZ_SEED` repeats a run.

#![allow(dead_code, reason = "every test binary uses its part")]

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

use chinwag_protocol::wukong::*;

/// SplitMix64: small, and the same everywhere.
pub struct Dice(u64);

impl Dice {
    /// Of the environment's seed or a new one, which is printed.
    pub fn new(test: &str) -> Self {
        let given = std::env::var("CHINWAG_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(test));
        println!("{test}: CHINWAG_FUZZ_SEED={seed}");
        Self(seed)
    }

    /// The same in every run.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    /// Small ones, large ones and those at the edges.
    pub fn number(&mut self) -> u64 {
        let bits = self.below(64);
        match self.below(3) {
            0 => self.roll() >> bits,
            1 => (1 << bits) - 1,
            _ => 1 << bits,
        }
    }

    pub fn bytes(&mut self, end: usize) -> Vec<u8> {
        let length = self.below(end);
        (0..length).map(|_| self.roll() as u8).collect()
    }

    pub fn text(&mut self) -> Cow<'static, str> {
        const LETTERS: [char; 12] = ['a', 'Z', '0', '@', '"', '\\', '\n', '\u{0}', 'ü', '你', '😀', '{'];
        let length = if self.below(50) == 0 { 300 } else { self.below(12) };
        Cow::Owned((0..length).map(|_| LETTERS[self.below(LETTERS.len())]).collect())
    }

    pub fn flags(&mut self) -> Flags {
        Flags::from_bits(self.roll() as u8)
    }
}

/// The two ends of a session.
pub fn cipher(dice: &mut Dice) -> (Cipher, Cipher) {
    let random = |dice: &mut Dice| -> [u8; 32] { std::array::from_fn(|_| dice.roll() as u8) };
    let (server, client) = (ServerSecret::from_random(random(dice)), ServerSecret::from_random(random(dice)));
    let salt = salt_of(random(dice)[..SALT_BYTES].try_into().expect("16 bytes"));
    assert!(salt.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    (
        server.agree(&client.public_key(), &salt).expect("a key"),
        client.agree(&server.public_key(), &salt).expect("a key"),
    )
}
