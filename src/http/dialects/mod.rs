//! One folder per API document, each with its source, its JSON field for field, and its conversions. A dialect never names
//! another; what two share is a word of the domain or a verb of the hub.

pub mod chats;
pub mod conversation;
pub mod threads;
