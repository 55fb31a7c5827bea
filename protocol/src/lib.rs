//! Chinwag's wire and its words.
//!
//! Owns the vocabulary every room shares ([`ids`]), the native frames ([`native`]), the cursor grammar of
//! `conversation/sync` ([`sync`]) and what can be wrong with bytes ([`error`]). Refuses to know I/O, tokio, a clock or logging.

pub mod ids;
pub mod sync;
