//! The catalogue of reasons for which the server ends a connection, with what the client should do next.
//!
//! Owns the numbers, texts and advice; `docs/wire.md` prints the same table and a test keeps them equal. Refuses to
//! know who closes whom. Invariant: a number is never reused for another meaning.
//!
//! Numbers below 4000 are RFC 6455 section 7.4.1; 4000 to 4999 are ours.

use std::fmt;

/// Whether and when a client should connect again after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reconnect {
    /// Not by itself: a person or a new version of the client has to act.
    Never,
    /// After it has a new credential.
    AfterRefresh,
    /// By itself, with exponential backoff and jitter.
    WithBackoff,
    /// By itself, at once for the first try (with jitter), with backoff afterwards.
    Now,
}

impl Reconnect {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::AfterRefresh => "after_refresh",
            Self::WithBackoff => "with_backoff",
            Self::Now => "now",
        }
    }
}

impl fmt::Display for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// Either side is done; the answer to a client's close.
    Normal,
    /// The bytes break RFC 6455, or are no frame of the protocol.
    ProtocolError,
    /// A text message or a close reason is not UTF-8.
    NotUtf8,
    /// A message is larger than the limit.
    TooLarge,
    /// A defect of the server; its log has more.
    Internal,
    /// The server shuts down or restarts.
    Draining,
    /// The first frame was not `connect`, or a second `connect` came.
    ConnectExpected,
    /// The credential is unknown or revoked, or is not this uid's.
    BadCredential,
    /// The credential has expired.
    CredentialExpired,
    /// The same device of the same user connected again.
    SameDevice,
    /// An administrator ended the session.
    KickedByAdmin,
    /// Nothing was heard for longer than the idle limit.
    IdleTimeout,
    /// No `connect` came in time.
    ConnectTimeout,
    /// The client reads too slowly, even for gap notices.
    Slow,
    /// The user, or the server, has as many connections as are allowed.
    TooManyConnections,
    /// The first byte or the subprotocol names a protocol that is not offered.
    UnsupportedProtocol,
    /// Another device of the same kind connected, and the user has one of that kind at a time.
    OtherDevice,
}

impl CloseReason {
    /// Every reason, in the order of `docs/wire.md`.
    pub const ALL: [Self; 17] = [
        Self::Normal,
        Self::ProtocolError,
        Self::NotUtf8,
        Self::TooLarge,
        Self::Internal,
        Self::Draining,
        Self::ConnectExpected,
        Self::BadCredential,
        Self::CredentialExpired,
        Self::SameDevice,
        Self::KickedByAdmin,
        Self::IdleTimeout,
        Self::ConnectTimeout,
        Self::Slow,
        Self::TooManyConnections,
        Self::UnsupportedProtocol,
        Self::OtherDevice,
    ];

    /// The number in the WebSocket close frame and in the `closing` frame.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::ProtocolError => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
            Self::Internal => 1011,
            Self::Draining => 1012,
            Self::ConnectExpected => 4000,
            Self::BadCredential => 4001,
            Self::CredentialExpired => 4002,
            Self::SameDevice => 4003,
            Self::KickedByAdmin => 4004,
            Self::IdleTimeout => 4005,
            Self::ConnectTimeout => 4006,
            Self::Slow => 4007,
            Self::TooManyConnections => 4008,
            Self::UnsupportedProtocol => 4009,
            Self::OtherDevice => 4010,
        }
    }

    /// The stable word: the text of the close frame and a metrics label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::ProtocolError => "protocol_error",
            Self::NotUtf8 => "not_utf8",
            Self::TooLarge => "too_large",
            Self::Internal => "internal",
            Self::Draining => "draining",
            Self::ConnectExpected => "connect_expected",
            Self::BadCredential => "bad_credential",
            Self::CredentialExpired => "credential_expired",
            Self::SameDevice => "same_device",
            Self::KickedByAdmin => "kicked_by_admin",
            Self::IdleTimeout => "idle_timeout",
            Self::ConnectTimeout => "connect_timeout",
            Self::Slow => "slow",
            Self::TooManyConnections => "too_many_connections",
            Self::UnsupportedProtocol => "unsupported_protocol",
            Self::OtherDevice => "other_device",
        }
    }

    /// One sentence for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Normal => "either side is done",
            Self::ProtocolError => "the bytes break RFC 6455 or are no frame of the protocol",
            Self::NotUtf8 => "a text message or a close reason is not UTF-8",
            Self::TooLarge => "a message is larger than limits.frame_bytes_max",
            Self::Internal => "a defect of the server",
            Self::Draining => "the server shuts down or restarts",
            Self::ConnectExpected => "the first frame was not connect, or a second connect came",
            Self::BadCredential => "the credential is unknown or revoked, or is not this uid's",
            Self::CredentialExpired => "the credential has expired",
            Self::SameDevice => "the same device of the same user connected again",
            Self::KickedByAdmin => "an administrator ended the session",
            Self::IdleTimeout => "nothing was heard for longer than the idle limit",
            Self::ConnectTimeout => "no connect came in time",
            Self::Slow => "the client reads too slowly, even for gap notices",
            Self::TooManyConnections => "the user or the server has as many connections as are allowed",
            Self::UnsupportedProtocol => "the first byte or the subprotocol names a protocol that is not offered",
            Self::OtherDevice => "another device of this kind connected, and the user has one at a time",
        }
    }

    /// What the client should do next.
    #[must_use]
    pub fn reconnect(self) -> Reconnect {
        match self {
            Self::Normal
            | Self::ProtocolError
            | Self::NotUtf8
            | Self::TooLarge
            | Self::ConnectExpected
            | Self::SameDevice
            | Self::KickedByAdmin
            | Self::UnsupportedProtocol
            | Self::OtherDevice => Reconnect::Never,
            Self::BadCredential | Self::CredentialExpired => Reconnect::AfterRefresh,
            Self::Internal | Self::Slow | Self::TooManyConnections => Reconnect::WithBackoff,
            Self::Draining | Self::IdleTimeout | Self::ConnectTimeout => Reconnect::Now,
        }
    }

    /// Reads a close frame's number; `None` for numbers of nobody's catalogue (treat as [`Reconnect::WithBackoff`]).
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.number() == number)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_are_unique_and_legal() {
        for (i, a) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(CloseReason::from_number(a.number()), Some(*a));
            assert!(a.as_str().len() <= 123, "a close reason has at most 123 bytes");
            assert!((4000..5000).contains(&a.number()) || (1000..1015).contains(&a.number()));
            for b in &CloseReason::ALL[i + 1..] {
                assert_ne!(a.number(), b.number());
                assert_ne!(a.as_str(), b.as_str());
            }
        }
        assert_eq!(CloseReason::from_number(1006), None);
    }
}
