//! Payloads that prove themselves: random bytes that name their message and can be compared whole.
//!
//! ```text
//! 0   u64  when it was meant to be sent, nanoseconds of the run, big-endian
//! 8   u32  sender
//! 12  u32  counter of the sender, from 0
//! 16  u64  checksum of the three and the seed
//! 24  …    random bytes from a pool, at a place that sender and counter decide
//! ```

use crate::plan::PAYLOAD_MIN;

/// Random bytes to cut bodies from: small enough for a cache, so that comparing is cheap.
const POOL_BYTES: usize = 64 << 10;

/// Makes and checks payloads.
pub struct Payloads {
    pool: Vec<u8>,
    seed: u64,
    bytes: usize,
}

/// What a payload names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// When it was meant to be sent, nanoseconds since the run began.
    pub intended_ns: u64,
    /// Which sender.
    pub sender: u32,
    /// Which of its messages.
    pub counter: u32,
}

fn mix(mut x: u64) -> u64 {
    // SplitMix64's finaliser.
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Payloads {
    /// Payloads of `bytes` bytes, at least [`PAYLOAD_MIN`].
    pub fn new(seed: u64, bytes: usize) -> Self {
        let mut state = seed;
        let length = (POOL_BYTES + bytes).next_multiple_of(8);
        let mut pool = Vec::with_capacity(length);
        while pool.len() < length {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            pool.extend_from_slice(&mix(state).to_le_bytes());
        }
        Self { pool, seed, bytes }
    }

    fn sum(&self, named: Named) -> u64 {
        let name = u64::from(named.sender) << 32 | u64::from(named.counter);
        mix(self.seed ^ mix(named.intended_ns ^ mix(name)))
    }

    /// The first bytes of the message's payload.
    pub fn head(&self, named: Named) -> [u8; PAYLOAD_MIN] {
        let mut head = [0; PAYLOAD_MIN];
        head[..8].copy_from_slice(&named.intended_ns.to_be_bytes());
        head[8..12].copy_from_slice(&named.sender.to_be_bytes());
        head[12..16].copy_from_slice(&named.counter.to_be_bytes());
        head[16..].copy_from_slice(&self.sum(named).to_be_bytes());
        head
    }

    /// The bytes behind it.
    pub fn body(&self, named: Named) -> &[u8] {
        let place = mix(u64::from(named.sender) << 32 | u64::from(named.counter)) as usize % POOL_BYTES;
        &self.pool[place..place + self.bytes - PAYLOAD_MIN]
    }

    /// Which message this payload is, when every byte of it is right.
    pub fn check(&self, payload: &[u8]) -> Option<Named> {
        let (head, body) = payload.split_first_chunk::<PAYLOAD_MIN>()?;
        let (intended, rest) = head.split_first_chunk::<8>()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (counter, sum) = rest.split_first_chunk::<4>()?;
        let named = Named {
            intended_ns: u64::from_be_bytes(*intended),
            sender: u32::from_be_bytes(*sender),
            counter: u32::from_be_bytes(*counter),
        };
        let sum_is_right = sum == self.sum(named).to_be_bytes();
        (sum_is_right && payload.len() == self.bytes && body == self.body(named)).then_some(named)
    }
}
