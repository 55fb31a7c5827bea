//! Chinwag's own frames. One WebSocket message is one frame, in MessagePack (binary) or JSON (text): a map of one key,
//! the kind, over a map of named fields.
//!
//! Owns the shape of frames and their two encodings. Refuses to know the rules, sockets and who answers what: fields
//! become domain words in the gateway. The page for people who write clients is `docs/wire.md`.
//!
//! Invariants:
//! - No input panics, and nothing is allocated for a length the bytes only claim.
//! - Unknown fields are ignored; an unknown kind is told apart from malformed bytes.
//! - Numbers the server sends are below 2^53, so JSON keeps them.
//!
//! ```text
//! {"send": {"client_seq": 1, "channel_id": "bob", "channel_type": 1, "payload": …}}
//! 81 a4 73 65 6e 64                     map of 1, "send"
//!    84 aa 63 6c … 71 01                map of 4, "client_seq": 1
//!       …  a7 70 61 … 64 c4 02 68 69    "payload": bin of 2
//! ```

mod client;
mod decode;
mod encode;
mod groups;
mod messages;
mod parts;
mod people;
mod server;
mod streams;
mod tagged;

pub use client::*;
pub use decode::{decode_client, decode_server};
pub use encode::{encode_ack, encode_client, encode_deliver, encode_server};
pub use groups::*;
pub use messages::*;
pub use people::*;
pub use server::*;
pub use streams::*;

use parts::words;

/// The largest number JSON keeps: 2^53 - 1.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;
/// Deepest nesting of maps and lists in a frame.
pub const DEPTH_MAX: usize = 16;
/// Most cursors in one `sync` or `resume`: as many conversations as a user is expected to have.
pub const CURSORS_MAX: usize = 100_000;
/// Most uids in one `presence`, `group`, `invite` or `expel`.
pub const UIDS_MAX: usize = 1_000;
/// Most users one message mentions.
pub const MENTIONS_MAX: usize = 100;
/// Most files one message carries.
pub const FILES_MAX: usize = 32;
/// Longest name of a signal in bytes.
pub const SIGNAL_NAME_BYTES_MAX: usize = 32;
/// Largest data of a signal in bytes.
pub const SIGNAL_DATA_BYTES_MAX: usize = 1_024;
/// Longest client name and client version in bytes.
pub const CLIENT_INFO_BYTES_MAX: usize = 64;

/// WebSocket subprotocol of the MessagePack encoding.
pub const SUBPROTOCOL_MSGPACK: &str = "chinwag.v1.msgpack";
/// WebSocket subprotocol of the JSON encoding.
pub const SUBPROTOCOL_JSON: &str = "chinwag.v1.json";

/// How frames are written as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// MessagePack, in binary WebSocket messages.
    MessagePack,
    /// JSON, in text WebSocket messages.
    Json,
}

impl Encoding {
    /// The encoding a subprotocol names.
    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        match name {
            SUBPROTOCOL_MSGPACK => Some(Self::MessagePack),
            SUBPROTOCOL_JSON => Some(Self::Json),
            _ => None,
        }
    }

    /// The subprotocol that names the encoding.
    #[must_use]
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::MessagePack => SUBPROTOCOL_MSGPACK,
            Self::Json => SUBPROTOCOL_JSON,
        }
    }

    /// Whether its WebSocket messages are text.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, Self::Json)
    }

    /// What a client without a subprotocol speaks, by the first byte of its first message (design.md section 6).
    #[must_use]
    pub fn sniff(first_byte: u8) -> Sniffed {
        match first_byte {
            // fixmap, fixarray, array 16/32, map 16/32
            0x80..=0x9f | 0xdc..=0xdf => Sniffed::Native(Self::MessagePack),
            // CONNECT is packet type 1 in the high half of the first byte.
            0x10..=0x1f => Sniffed::WuKong,
            b'{' => Sniffed::JsonRpc,
            _ => Sniffed::Unknown,
        }
    }
}

/// What the first byte of a connection without a subprotocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// These frames.
    Native(Encoding),
    /// WuKongIM's binary protocol.
    WuKong,
    /// WuKongIM's JSON-RPC. Native JSON needs its subprotocol.
    JsonRpc,
    /// None of them.
    Unknown,
}

words! {
    /// How sure an ack is.
    #[derive(Default)]
    pub enum Durability {
        /// Numbered and in the lot being formed.
        Memory = "memory",
        /// fdatasync done.
        #[default]
        Disk = "disk",
        /// On a majority of nodes.
        Replicated = "replicated",
    }
}
