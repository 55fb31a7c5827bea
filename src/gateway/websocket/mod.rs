//! WebSocket, the server's side (RFC 6455), as pure functions and one small state machine: bytes in, events and bytes out.
//!
//! Owns the opening handshake ([`handshake`]), reading of frames ([`reader`]) and writing of frames ([`writer`]).
//! Refuses to know sockets, tokio, time and what messages mean.
//!
//! Why not a library's stream: a connection that owns its read buffer costs 8 to 140 KB when idle. This reader works on
//! a buffer shared by all connections of a shard and keeps bytes of its own only while a frame is incomplete.
//!
//! Invariants: no extension is negotiated; nothing is allocated for a length that is only claimed; every violation
//! names the close code RFC 6455 gives it.

pub mod handshake;
pub mod reader;
pub mod writer;

#[cfg(test)]
mod tests;

pub use handshake::{Handshake, Upgrade, read_request};
pub use reader::{Event, FrameReader, Parked, ReadLimits, Violation};
pub use writer::{append_frame, close_frame, frame, frame_with};

/// What a frame carries (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// More of a fragmented message.
    Continuation = 0,
    /// UTF-8 text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The end.
    Close = 8,
    /// Asks for a pong with the same bytes.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Whether it is a control frame: at most 125 bytes, never fragmented, allowed between fragments.
    #[must_use]
    pub fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// Masks or unmasks in place (the operation is its own inverse). `position` is how many bytes of the frame's payload
/// came before `bytes`.
pub fn mask(bytes: &mut [u8], key: [u8; 4], position: usize) {
    let mut rotated = key;
    rotated.rotate_left(position % 4);
    let [a, b, c, d] = rotated;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(rotated.iter().cycle()) {
        *byte ^= key;
    }
}
