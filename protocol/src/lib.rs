//! Chinwag's wire and its words.
//!
//! Owns the vocabulary every room shares ([`ids`]), the native frames ([`native`]), WuKongIM's packets ([`wukong`]) and their JSON-RPC ([`jsonrpc`]), the
//! cursor grammar of `conversation/sync` ([`sync`]), what can be wrong with bytes ([`error`]) and why connections end
//! ([`close`]). Refuses to know I/O, tokio, a clock or logging.

pub mod close;
pub mod error;
pub mod ids;
pub mod jsonrpc;
pub mod native;
pub mod sync;
pub mod wukong;
