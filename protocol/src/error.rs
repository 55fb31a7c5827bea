//! What can be wrong with bytes of the wire. Ignorant of the domain: a refusal of the rules is not a wire error.

use crate::close::CloseReason;

/// Bytes that are not what the wire says. "Incomplete" is no error and has no variant here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are no well-formed MessagePack or JSON, or no map of one key, or bytes follow the frame.
    #[error("malformed at byte {offset}: {reason}")]
    Malformed {
        /// Bytes read before the fault was noticed (0 when unknown).
        offset: usize,
        /// What the decoder said.
        reason: String,
    },
    /// The frame is well formed and of a known kind, but a field is missing, has the wrong type or breaks a limit.
    #[error("{field} of {kind}: {reason}")]
    Field {
        /// Kind of the frame.
        kind: String,
        /// The request's number where it could be read, so that the refusal can name it.
        client_seq: Option<u64>,
        /// Path of the field inside the frame, such as `cursors[3].channel_id`; empty for the frame itself.
        field: String,
        /// What the decoder said.
        reason: String,
    },
    /// The frame is well formed, but of a kind this side does not know.
    #[error("unknown frame kind {kind:?}")]
    UnknownFrame {
        /// The kind, cut to 64 bytes.
        kind: String,
        /// The request's number where it could be read, so that the refusal can name it.
        client_seq: Option<u64>,
    },
    /// Nested deeper than the limit.
    #[error("nested deeper than {max}")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// More bytes than the limit.
    #[error("{bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A value could not be encoded. Frames of this crate always can.
    #[error("cannot be encoded: {reason}")]
    Encode {
        /// What the encoder said.
        reason: String,
    },
}

impl WireError {
    /// The code of the `refused` frame that answers it; `None` when the connection must end (see
    /// [`WireError::close_reason`]).
    #[must_use]
    pub fn refused_code(&self) -> Option<&'static str> {
        match self {
            Self::Field { .. } => Some("invalid"),
            Self::UnknownFrame { .. } => Some("unknown_frame"),
            Self::Malformed { .. } | Self::TooDeep { .. } | Self::TooLarge { .. } | Self::Encode { .. } => None,
        }
    }

    /// Why the connection ends; `None` when it stays and the fault is answered with `refused`.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        match self {
            Self::Field { .. } | Self::UnknownFrame { .. } => None,
            Self::Malformed { .. } | Self::TooDeep { .. } => Some(CloseReason::ProtocolError),
            Self::TooLarge { .. } => Some(CloseReason::TooLarge),
            Self::Encode { .. } => Some(CloseReason::Internal),
        }
    }

    /// The request's number, where the fault is one request's.
    #[must_use]
    pub fn client_seq(&self) -> Option<u64> {
        match self {
            Self::Field { client_seq, .. } | Self::UnknownFrame { client_seq, .. } => *client_seq,
            _ => None,
        }
    }
}
