//! Where a channel lives.
//!
//! The seam a cluster will stand behind: on one node every channel is at home here, and the broker says in which shard.

use std::hash::{BuildHasher, Hasher};

use protocol::ids::ChannelKey;

/// Where a channel is sequenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In this process, in the shard of this index.
    Shard(usize),
}

/// Says whose a channel is. Must give the same answer for the same key as long as the process lives: a channel has one
/// sequencer.
pub trait Broker: Send + Sync + 'static {
    /// The home of a channel.
    fn home(&self, key: &ChannelKey) -> Home;
}

/// One node: a channel's home is a shard, by a hash of its name.
#[derive(Debug)]
pub struct SingleNode {
    shards: usize,
    hasher: foldhash::fast::FixedState,
}

impl SingleNode {
    /// A node with this many shards, at least one.
    pub fn new(shards: usize) -> Self {
        Self { shards: shards.max(1), hasher: foldhash::fast::FixedState::with_seed(0x6368_696e_7761_6721) }
    }
}

impl Broker for SingleNode {
    fn home(&self, key: &ChannelKey) -> Home {
        if self.shards == 1 {
            return Home::Shard(0);
        }
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key.channel_id().as_bytes());
        hasher.write_u8(key.channel_type().to_wire());
        Home::Shard((hasher.finish() % self.shards as u64) as usize)
    }
}
