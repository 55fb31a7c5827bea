//! What can be wrong with the bytes of a packet, or with a packet that shall become bytes.

use crate::close::CloseReason;

/// Bytes that are no packet of their version, or a packet that has no bytes in it. "Incomplete" is no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The body ends inside a field.
    #[error("{field} at byte {offset} of the body needs {need} bytes, {have} are left")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Where in the body it starts.
        offset: usize,
        /// Bytes it takes.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// A string is no UTF-8.
    #[error("{field} at byte {offset} of the body is no UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
        /// Where in the body its text starts.
        offset: usize,
    },
    /// A string is longer than [`super::STR_BYTES_MAX`].
    #[error("{field} has {bytes} bytes, at most {max} are allowed")]
    StringTooLong {
        /// The field.
        field: &'static str,
        /// Bytes it has, or claims.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The remaining length has more than four bytes.
    #[error("the remaining length has more than four bytes")]
    LengthTooWide,
    /// The body is larger than the limit.
    #[error("a body of {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Bytes it has, or claims.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A position is too high for the 32 bits of versions up to 5 (wukongim-wire.md part D, 14).
    #[error("message_seq {seq} does not fit 32 bits")]
    SeqTooWide {
        /// The position.
        seq: u64,
    },
    /// A packet that is only read: of an unknown type.
    #[error("packets of type {number} are not written")]
    NotWritten {
        /// The type.
        number: u8,
    },
}

impl PacketError {
    /// Why the connection ends.
    #[must_use]
    pub fn close_reason(&self) -> CloseReason {
        match self {
            Self::Truncated { .. } | Self::NotUtf8 { .. } | Self::StringTooLong { .. } | Self::LengthTooWide => {
                CloseReason::ProtocolError
            }
            Self::TooLarge { .. } => CloseReason::TooLarge,
            Self::SeqTooWide { .. } | Self::NotWritten { .. } => CloseReason::Internal,
        }
    }
}
