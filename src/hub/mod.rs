//! The connection hub: drafts in, durable facts and deliveries out.

pub mod conversations;
