//! What the rules can say no to: one closed list, which every voice (native codes, close codes, HTTP) maps exhaustively.

use std::fmt;

/// Class of a refusal, for voices that do not tell each apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is malformed.
    Invalid,
    /// No credential, or one the server does not know.
    Unauthenticated,
    /// Known but not allowed.
    Forbidden,
    /// What the request names is not there.
    NotFound,
    /// Contradicts what is stored.
    Conflict,
    /// Over a limit of size or count.
    TooLarge,
    /// Too much at once: later.
    RateLimited,
    /// The server cannot now: later.
    Unavailable,
    /// A defect of the server.
    Internal,
}

/// A refusal with its numbers. `Display` is what a client reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A field is missing or malformed.
    Invalid {
        /// Name of the field as the wire calls it.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No credential was given.
    CredentialMissing,
    /// The credential is unknown, revoked or expired.
    CredentialUnknown,
    /// The credential is known but may not do this.
    Forbidden {
        /// What it may not do.
        action: &'static str,
    },
    /// No such channel, or none the asker may see.
    ChannelNotFound,
    /// The asker is not a member of the channel.
    NotMember,
    /// The recipient has blocked the sender.
    Blocked,
    /// The recipient takes no messages of strangers and the sender is one.
    StrangerRefused,
    /// The sender is on the channel's deny list.
    Denied,
    /// Only who is listed may send here, and the sender is not.
    NotListed,
    /// The time in which the sender may revoke or edit is over.
    TooLate {
        /// What came too late.
        action: &'static str,
        /// Seconds the sender had.
        within_s: u64,
    },
    /// The message was revoked, has expired or is damaged.
    MessageGone,
    /// The channel is banned.
    ChannelBanned,
    /// The channel was disbanded.
    ChannelDisbanded,
    /// The sender may not send.
    SendBanned,
    /// A back end has banned the user: nothing is open to it.
    UserBanned,
    /// No such user, key or message.
    NotFound {
        /// Kind of thing.
        what: &'static str,
    },
    /// The same client_msg_no was used for another payload.
    ClientMsgNoConflict {
        /// The stored message's seq.
        message_seq: u64,
    },
    /// A field is larger than its limit.
    TooLarge {
        /// Name of the field.
        field: &'static str,
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// There are more of something than its limit.
    TooMany {
        /// Kind of thing.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A queue is full.
    Busy {
        /// When to try again.
        retry_after_ms: u32,
    },
    /// The server is shutting down.
    Draining {
        /// When to try again.
        retry_after_ms: u32,
    },
    /// The store cannot take or answer this now.
    StoreUnavailable {
        /// When to try again.
        retry_after_ms: u32,
    },
    /// The wanted durability is not offered by this server.
    DurabilityNotOffered,
    /// The feature is switched off in the configuration.
    FeatureOff {
        /// The configuration key.
        key: &'static str,
    },
    /// A defect of the server; the log has more.
    Internal,
}

impl Refusal {
    /// Shorthand for [`Refusal::Invalid`].
    #[must_use]
    pub fn invalid(field: &'static str, reason: impl fmt::Display) -> Self {
        Self::Invalid { field, reason: reason.to_string() }
    }

    /// The class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } | Self::DurabilityNotOffered | Self::FeatureOff { .. } => ErrorKind::Invalid,
            Self::CredentialMissing | Self::CredentialUnknown => ErrorKind::Unauthenticated,
            Self::Forbidden { .. }
            | Self::NotMember
            | Self::Blocked
            | Self::StrangerRefused
            | Self::Denied
            | Self::NotListed
            | Self::TooLate { .. }
            | Self::ChannelBanned
            | Self::ChannelDisbanded
            | Self::SendBanned
            | Self::UserBanned => ErrorKind::Forbidden,
            Self::ChannelNotFound | Self::NotFound { .. } | Self::MessageGone => ErrorKind::NotFound,
            Self::ClientMsgNoConflict { .. } => ErrorKind::Conflict,
            Self::TooLarge { .. } | Self::TooMany { .. } => ErrorKind::TooLarge,
            Self::Busy { .. } => ErrorKind::RateLimited,
            Self::Draining { .. } | Self::StoreUnavailable { .. } => ErrorKind::Unavailable,
            Self::Internal => ErrorKind::Internal,
        }
    }

    /// The stable code of the native wire, metrics labels and HTTP bodies.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::CredentialMissing => "credential_missing",
            Self::CredentialUnknown => "credential_unknown",
            Self::Forbidden { .. } => "forbidden",
            Self::ChannelNotFound => "channel_not_found",
            Self::NotMember => "not_member",
            Self::Blocked => "blocked",
            Self::StrangerRefused => "stranger_refused",
            Self::Denied => "denied",
            Self::NotListed => "not_listed",
            Self::TooLate { .. } => "too_late",
            Self::MessageGone => "message_gone",
            Self::ChannelBanned => "channel_banned",
            Self::ChannelDisbanded => "channel_disbanded",
            Self::SendBanned => "send_banned",
            Self::UserBanned => "user_banned",
            Self::NotFound { .. } => "not_found",
            Self::ClientMsgNoConflict { .. } => "client_msg_no_conflict",
            Self::TooLarge { .. } => "too_large",
            Self::TooMany { .. } => "too_many",
            Self::Busy { .. } => "busy",
            Self::Draining { .. } => "draining",
            Self::StoreUnavailable { .. } => "store_unavailable",
            Self::DurabilityNotOffered => "durability_not_offered",
            Self::FeatureOff { .. } => "feature_off",
            Self::Internal => "internal",
        }
    }

    /// When to try again, for refusals that time mends.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u32> {
        match self {
            Self::Busy { retry_after_ms }
            | Self::Draining { retry_after_ms }
            | Self::StoreUnavailable { retry_after_ms } => Some(*retry_after_ms),
            _ => None,
        }
    }

    /// The field the refusal is about, where there is one.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Invalid { field, .. } | Self::TooLarge { field, .. } => Some(field),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { field, reason } => write!(f, "{field} {reason}"),
            Self::CredentialMissing => f.write_str("a credential is needed"),
            Self::CredentialUnknown => f.write_str("the credential is not known"),
            Self::Forbidden { action } => write!(f, "this credential may not {action}"),
            Self::ChannelNotFound => f.write_str("no such channel"),
            Self::NotMember => f.write_str("not a member of this channel"),
            Self::Blocked => f.write_str("the recipient has blocked the sender"),
            Self::StrangerRefused => f.write_str("the recipient takes no messages of strangers"),
            Self::Denied => f.write_str("the sender is on the deny list of this channel"),
            Self::NotListed => f.write_str("only listed users may send here, and the sender is not one"),
            Self::TooLate { action, within_s } => write!(f, "too late to {action}, senders have {within_s} seconds"),
            Self::MessageGone => f.write_str("the message was revoked or has expired"),
            Self::ChannelBanned => f.write_str("the channel is banned"),
            Self::ChannelDisbanded => f.write_str("the channel was disbanded"),
            Self::SendBanned => f.write_str("the sender may not send"),
            Self::UserBanned => f.write_str("the user is banned"),
            Self::NotFound { what } => write!(f, "no such {what}"),
            Self::ClientMsgNoConflict { message_seq } => {
                write!(f, "client_msg_no was used for another payload, stored with message_seq {message_seq}")
            }
            Self::TooLarge { field, bytes, max } => {
                write!(f, "{field} has {bytes} bytes, at most {max} are allowed")
            }
            Self::TooMany { what, max } => write!(f, "too many {what}, at most {max} are allowed"),
            Self::Busy { .. } => f.write_str("too much at once, try again later"),
            Self::Draining { .. } => f.write_str("the server is shutting down"),
            Self::StoreUnavailable { .. } => f.write_str("the store cannot do this now, try again later"),
            Self::DurabilityNotOffered => f.write_str("this durability is not offered here"),
            Self::FeatureOff { key } => write!(f, "switched off by {key} in the configuration"),
            Self::Internal => f.write_str("internal error"),
        }
    }
}

impl std::error::Error for Refusal {}
