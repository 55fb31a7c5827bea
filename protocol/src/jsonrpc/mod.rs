//! WuKongIM's JSON-RPC, the text protocol of its Easy SDKs: one JSON value per WebSocket message, the same packets as
//! [`crate::wukong`] in other clothes, never encrypted.
//!
//! Owns the envelope, the methods, both spellings of field names (camelCase; snake_case of the Android SDK) and the rules
//! of payloads. Refuses to know sessions and who answers what. Source: wukongim-wire.md part B.
//!
//! Invariants:
//! - No input panics or recurses; what is allocated is bounded by the input. Strings without escapes are borrowed.
//! - Input is read in either spelling, camelCase first; output is written in both, fields at zero included.
//! - A notice has no `id`, an answer has exactly one of `result` and `error`: the SDKs drop or end on anything else.
//!
//! ```text
//! request  {"jsonrpc"?: "2.0", "id": str, "method": "connect"|"send"|"ping", "params": {…}}
//! notice   {"jsonrpc"?: "2.0", "method": "recvack"|"disconnect"|"recv"|"event", "params": {…}}
//! answer   {"jsonrpc": "2.0", "id": str, "result": {…}|null}
//! refusal  {"jsonrpc": "2.0", "id": str, "error": {"code": reason code, "message": "ReasonAuthFail"}}
//! ```

mod decode;
mod encode;
mod fields;

pub use decode::{Answer, ClientMessage, Failure, ServerMessage, decode_client, decode_server};
pub use encode::{Spelling, encode_answer, encode_client, encode_notice, encode_refusal};

use crate::close::CloseReason;

/// Largest message in bytes, as large as a body of [`crate::wukong`].
pub const MESSAGE_BYTES_MAX: usize = crate::wukong::BODY_BYTES_MAX;
/// Longest `id` of a request in bytes: it is echoed.
pub const ID_BYTES_MAX: usize = 128;

/// A message that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// No JSON, no object, or another version of JSON-RPC: nobody can be answered.
    #[error("malformed: {reason}")]
    Malformed {
        /// What the decoder said.
        reason: String,
    },
    /// More bytes than the limit.
    #[error("{bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A request that cannot be read. Answered with [`encode_refusal`] and code 0 when it has an id, and the connection
    /// stays, unless it was the first (wukongim-wire.md 8).
    #[error("{reason}")]
    Request {
        /// The request's id, at most [`ID_BYTES_MAX`].
        id: Option<String>,
        /// Which field and what is wrong, or that the method is unknown.
        reason: String,
    },
    /// A packet that this direction has no message for, or a value JSON cannot say.
    #[error("is not written: {reason}")]
    NotWritten {
        /// Why.
        reason: &'static str,
    },
}

impl RpcError {
    /// Why the connection ends; `None` when the request is refused and the connection stays.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        match self {
            Self::Malformed { .. } => Some(CloseReason::ProtocolError),
            Self::TooLarge { .. } => Some(CloseReason::TooLarge),
            Self::Request { .. } => None,
            Self::NotWritten { .. } => Some(CloseReason::Internal),
        }
    }
}
