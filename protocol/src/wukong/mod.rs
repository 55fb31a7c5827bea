//! WKProto, WuKongIM's binary protocol, versions 1 to 6: the packets of its clients, their session keys and their seals.
//!
//! Owns the shape of packets ([`Packet`]), how bytes are cut into them ([`cut`], [`Cutter`]) and what encryption they are
//! under ([`Cipher`], [`PreparedRecv`]). Refuses to know I/O, a clock, where random bytes come from, the rules and who
//! answers what. Source: wukongim-wire.md part A; every vector of wkproto-vectors.json is a test.
//!
//! Invariants:
//! - No input panics. Decoding allocates nothing: strings and payloads are slices of the input.
//! - A length is compared with its limit before a byte behind it is looked at; incomplete is `None`, never an error.
//! - Bytes that do not fit their version's layout are an error; a packet type nobody knows is not ([`Packet::Unknown`]).
//!
//! ```text
//! byte 0      1..4             n
//! +----+----+----------------+---------------------------+    all integers big endian
//! |type|flag| remaining n    | body                      |    str: u16 length + UTF-8
//! |7..4|3..0| base 128, LSB  | by type and version       |    rest: all that is left of the body
//! +----+----+----------------+---------------------------+
//!   flags: 8 dup, 4 syncOnce, 2 redDot, 1 noPersist; of CONNACK only 1, hasServerVersion
//!   PING 70 and PONG 80 are one byte, without a remaining length
//!
//! width of …          v1..2    v3     v4     v5     v6      wukongim-wire.md 2
//! expire              –        u32    u32    u32    u32     SEND, RECV
//! stream (bit 02)     v2 str   str    str    –      –       SEND; RECV: u8, str, u64
//! message_seq         u32      u32    u32    u32    u64     SENDACK, RECV, RECVACK
//! node_id             –        –      u64    u64    u64     CONNACK
//! ```

mod crypto;
mod cutter;
mod decode;
mod encode;
mod error;
mod packets;
mod recv;
mod words;

pub use crypto::{Cipher, KeyError, MsgKey, OpenError, SALT_BYTES, ServerSecret, salt_of};
pub use cutter::{Cutter, HEAD_BYTES_MAX, RawPacket, cut};
pub use decode::decode;
pub use encode::{encode, encode_length};
pub use error::PacketError;
pub use packets::*;
pub use recv::PreparedRecv;
pub use words::{Flags, Kind, Reason, Setting};

/// Largest body of a packet in bytes (wukongim-wire.md 1.3): more is an error that ends the connection.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest string in bytes: other implementations read its length as a signed 16-bit number (wukongim-wire.md 1.3).
pub const STR_BYTES_MAX: usize = i16::MAX as usize;

/// The version both sides of a session speak after CONNACK (wukongim-wire.md 3.3). 1 to 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u8);

impl Version {
    /// The latest: 64-bit positions.
    pub const LATEST: Self = Self(6);

    /// What a session speaks whose CONNECT said `client`: the lower of both sides; 0 means the latest.
    #[must_use]
    pub fn negotiate(client: u8) -> Self {
        match client {
            0 => Self::LATEST,
            version => Self(version.min(Self::LATEST.0)),
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }

    /// Whether SEND and RECV carry `expire`.
    #[must_use]
    pub fn has_expire(self) -> bool {
        self.0 >= 3
    }

    /// Whether the stream bit of a setting adds fields.
    #[must_use]
    pub fn has_stream(self) -> bool {
        (2..5).contains(&self.0)
    }

    /// Whether CONNACK carries `node_id`.
    #[must_use]
    pub fn has_node_id(self) -> bool {
        self.0 >= 4
    }

    /// Whether CONNACK tells the version. Clients of version 2 would misread the packet (wukongim-wire.md 2, CONNACK).
    #[must_use]
    pub fn is_told(self) -> bool {
        self.0 > 3
    }

    /// Whether positions are 64 bits wide.
    #[must_use]
    pub fn has_wide_seq(self) -> bool {
        self.0 >= 6
    }

    /// The highest position a packet can name; a message behind it cannot be sent to this session.
    #[must_use]
    pub fn seq_max(self) -> u64 {
        if self.has_wide_seq() { u64::MAX } else { u32::MAX.into() }
    }

    /// Whether two versions lay out RECV alike, so that one [`PreparedRecv`] serves both.
    #[must_use]
    pub fn same_recv(self, other: Self) -> bool {
        self.recv_layout() == other.recv_layout()
    }

    /// Which of the layouts of RECV: 0 versions 1 and 2, 1 versions 3 and 4, 2 version 5, 3 version 6. An index for caches.
    #[must_use]
    pub fn recv_layout(self) -> usize {
        match self.0 {
            0..=2 => 0,
            3..=4 => 1,
            5 => 2,
            _ => 3,
        }
    }
}
