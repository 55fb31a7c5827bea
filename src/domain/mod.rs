//! The rules, as pure functions on data. Knows `protocol::ids` and nothing else of the wire; no I/O, no clock.

pub mod channel;
pub mod content;
pub mod conversation;
pub mod event;
pub mod file;
pub mod identity;
pub mod message;
pub mod namespace;
pub mod refusal;
pub mod user;
