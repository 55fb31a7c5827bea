//! What a session speaks, as its write half needs it: entries of its outbox to bytes.
//!
//! A closed set. What is equal for many sessions is made once and shared through the delivery's slots; only what is a
//! session's own is appended to the shard's buffer.

use std::rc::Rc;

use bytes::Bytes;
use protocol::close::CloseReason;
use protocol::native::Encoding;

use super::native::{self, Viewer};
use super::{jsonrpc, wukong};
use crate::hub::outbox::{Control, Live};

/// What a session speaks.
#[derive(Clone)]
pub(super) enum Wire {
    /// Native frames.
    Native(Encoding),
    /// WuKongIM's packets, under the session's own keys.
    Wukong(Rc<wukong::Session>),
    /// WuKongIM's JSON-RPC.
    JsonRpc(Rc<jsonrpc::Session>),
}

impl Wire {
    /// Appends an answer or notice. Says why the session must end when its wire cannot say what happened.
    pub fn append_control(&self, viewer: &Viewer, control: Control, out: &mut Vec<u8>) -> Result<(), CloseReason> {
        match self {
            Self::Native(encoding) => native::append_control(*encoding, viewer, control, out),
            Self::Wukong(session) => return session.append_control(control, out),
            Self::JsonRpc(session) => return session.append_control(control, out),
        }
        Ok(())
    }

    /// A live entry: bytes that many sessions share, or `None` when it was appended to `out`.
    pub fn live(&self, viewer: &Viewer, live: &Live, out: &mut Vec<u8>) -> Option<Bytes> {
        match self {
            Self::Native(encoding) => Some(native::live(*encoding, viewer, live)),
            Self::Wukong(session) => {
                session.append_live(viewer, live, out);
                None
            }
            Self::JsonRpc(session) => session.live(viewer, live, out),
        }
    }

    /// The version of WKProto; 0: it is another protocol.
    pub fn version(&self) -> u8 {
        match self {
            Self::Wukong(session) => session.version(),
            Self::Native(_) | Self::JsonRpc(_) => 0,
        }
    }

    /// Whether it has a word for events of streamed messages.
    pub fn tells_streams(&self) -> bool {
        match self {
            Self::Wukong(session) => session.tells_streams(),
            Self::Native(_) | Self::JsonRpc(_) => true,
        }
    }

    /// Whether it has a word for what a session missed. One without is closed, so that its client connects again and syncs.
    pub fn tells_gaps(&self) -> bool {
        matches!(self, Self::Native(_))
    }

    /// What a silent session is asked; WuKongIM's clients take no question.
    pub fn question(&self) -> Option<Bytes> {
        match self {
            Self::Native(encoding) => Some(native::ping(*encoding)),
            Self::Wukong(_) | Self::JsonRpc(_) => None,
        }
    }

    /// The last words.
    pub fn closing(&self, reason: CloseReason) -> Vec<u8> {
        match self {
            Self::Native(encoding) => native::closing(*encoding, reason),
            Self::Wukong(session) => session.closing(reason),
            Self::JsonRpc(_) => jsonrpc::closing(reason),
        }
    }

    /// Whether its client is given time to read the last words before the socket goes: unread bytes of its own would
    /// otherwise make the kernel throw them away.
    pub fn lingers(&self, reason: CloseReason) -> bool {
        !matches!(self, Self::Native(_)) && wukong::kick_text(reason).is_some()
    }
}
