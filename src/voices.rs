//! One table from a refusal to how every wire and dialect says it (design.md section 7).
//!
//! Owns [`of`], the only place that decides HTTP statuses, WuKongIM's reasons, the codes of the dialects and close reasons.
//! Refuses to know HTTP types, envelopes and sockets: `http` and `gateway` both read it. Invariants: every refusal has one
//! row (there is no `_`), and `docs/dialects.md` is generated from it.

use protocol::close::CloseReason;

use crate::domain::refusal::Refusal;

/// How one refusal is said everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voice {
    /// HTTP status; also the `code` of the dialect chats, whose bodies repeat the status (CHECKLIST A19).
    pub http: u16,
    /// The stable word: native `error` frames, metrics labels, `code` of the plain envelope.
    pub native: &'static str,
    /// WuKongIM's reason code (wukongim-wire.md section 14), as acks and connects carry it.
    pub wukong_reason: u8,
    /// Whether WuKongIM's `/message/send` says it with HTTP 200 and the reason in the body: what a channel's rules refuse
    /// (wukongim-http.md section 15, 3). Everything else has its HTTP status there.
    pub wukong_in_body: bool,
    /// `code` and `desc` of the dialect relation.
    pub relation: RelationCode,
    /// `Id` suffix and `Code` of the dialect m3o.
    pub m3o: M3oError,
    /// Why a connection ends when this is what came of its `connect`.
    pub close: CloseReason,
}

impl Voice {
    /// `code` of the dialect chats: the HTTP status.
    #[must_use]
    pub fn chats(&self) -> u16 {
        self.http
    }

    /// The reason `/message/send` of WuKongIM answers with HTTP 200; `None` for what has an HTTP status there.
    #[must_use]
    pub fn wukong_send_reason(&self) -> Option<u8> {
        self.wukong_in_body.then_some(self.wukong_reason)
    }
}

/// A return code of the dialect relation: decimal digits as text, and the words its document has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationCode {
    /// `code`.
    pub code: &'static str,
    /// `desc`.
    pub desc: &'static str,
}

impl RelationCode {
    const fn new(code: &'static str, desc: &'static str) -> Self {
        Self { code, desc }
    }

    /// `relation.txt`: the call succeeded.
    pub const SUCCESS: Self = Self::new("0", "success");
    /// CHECKLIST D3: the credential opens nothing and says of itself that its time is over: fetch a new one.
    pub const EXPIRED: Self = Self::new("10100", "token expired");
    /// CHECKLIST D3: the credential is missing, unknown or revoked.
    pub const TOKEN: Self = Self::new("10101", "token error");
    /// CHECKLIST D3: the application key is missing, unknown or not this token's.
    pub const ISSUER: Self = Self::new("10102", "token issuer error");
    /// Ours: known but not allowed.
    pub const FORBIDDEN: Self = Self::new("10103", "permission denied");
    /// CHECKLIST D3: too much at once.
    pub const RATE: Self = Self::new("10110", "too many requests");
    /// Ours: the server cannot now.
    pub const UNAVAILABLE: Self = Self::new("10111", "temporarily unavailable");
    /// `relation.txt`: a field is missing, malformed or too large.
    pub const PARAMETER: Self = Self::new("10112", "parameter error");
    /// Ours: what the request names is not there.
    pub const NOT_FOUND: Self = Self::new("10113", "not found");
    /// Ours: the path has no such method.
    pub const METHOD: Self = Self::new("10114", "method not allowed");
    /// Ours: a defect of the server.
    pub const INTERNAL: Self = Self::new("10500", "internal error");
    /// `relation.txt`: no member of the group. Also for groups that do not exist, which are not told apart (CHECKLIST D12).
    pub const NOT_MEMBER: Self = Self::new("13108", "Not the member of this group");
    /// Ours: the group is banned, was disbanded, or the sender may not send.
    pub const CLOSED: Self = Self::new("13109", "sending is not allowed");
    /// Ours: the message cannot be changed any more.
    pub const GONE: Self = Self::new("13110", "the message cannot be changed any more");
    /// Ours: the sendUuid names another message.
    pub const CONFLICT: Self = Self::new("13111", "sendUuid was used for another message");
    /// `relation.txt`: the recipient takes no messages of this sender. A blocked sender is not told more (CHECKLIST B20).
    pub const STRANGER: Self = Self::new("13301", "block stranger messages");
}

/// An error of the dialect m3o (go-micro): `Id` is the method and this suffix, `chat.Send.Forbidden`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct M3oError {
    /// Last part of `Id`. For a missing field the dialect names the field in it (CHECKLIST E4).
    pub id: &'static str,
    /// `Code`; the HTTP status of this dialect.
    pub code: u16,
}

/// A row: what is the same for most refusals is derived, what is not is written out in [`of`].
const fn row(
    native: &'static str,
    http: u16,
    wukong_reason: u8,
    relation: RelationCode,
    m3o: &'static str,
    close: CloseReason,
) -> Voice {
    let m3o = M3oError { id: m3o, code: http };
    Voice { http, native, wukong_reason, wukong_in_body: false, relation, m3o, close }
}

/// A refusal of a channel's rules.
const fn rule(native: &'static str, wukong_reason: u8, relation: RelationCode, m3o: &'static str) -> Voice {
    let voice = row(native, 403, wukong_reason, relation, m3o, CloseReason::BadCredential);
    Voice { wukong_in_body: true, ..voice }
}

/// How a refusal is said.
#[must_use]
pub fn of(refusal: &Refusal) -> Voice {
    use CloseReason as Close;
    use RelationCode as Rel;
    let native = refusal.code();
    match refusal {
        Refusal::Invalid { field, .. } => {
            row(native, 400, reason_of_field(field), Rel::PARAMETER, "Invalid", Close::ProtocolError)
        }
        Refusal::CredentialMissing | Refusal::CredentialUnknown => {
            row(native, 401, 2, Rel::TOKEN, "Unauthorized", Close::BadCredential)
        }
        Refusal::Forbidden { .. } => row(native, 403, 11, Rel::FORBIDDEN, "Forbidden", Close::BadCredential),
        // m3o answers an unknown chat with 400 (CHECKLIST E8).
        Refusal::ChannelNotFound => Voice {
            wukong_in_body: true,
            m3o: M3oError { id: "InvalidChatID", code: 400 },
            ..row(native, 404, 5, Rel::NOT_MEMBER, "", Close::ProtocolError)
        },
        Refusal::NotMember => rule(native, 3, Rel::NOT_MEMBER, "NotMember"),
        Refusal::Blocked | Refusal::StrangerRefused => rule(native, 4, Rel::STRANGER, "Blocked"),
        Refusal::Denied => rule(native, 4, Rel::CLOSED, "Denied"),
        Refusal::NotListed => rule(native, 13, Rel::CLOSED, "NotListed"),
        Refusal::ChannelBanned => rule(native, 19, Rel::CLOSED, "ChatBanned"),
        Refusal::ChannelDisbanded => rule(native, 24, Rel::CLOSED, "ChatDisbanded"),
        Refusal::SendBanned => rule(native, 25, Rel::CLOSED, "SendBanned"),
        Refusal::UserBanned => row(native, 403, 19, Rel::FORBIDDEN, "UserBanned", Close::BadCredential),
        Refusal::TooLate { .. } => row(native, 403, 11, Rel::GONE, "TooLate", Close::BadCredential),
        Refusal::MessageGone => row(native, 404, 11, Rel::GONE, "MessageGone", Close::ProtocolError),
        Refusal::NotFound { .. } => row(native, 404, 11, Rel::NOT_FOUND, "NotFound", Close::ProtocolError),
        Refusal::ClientMsgNoConflict { .. } => row(native, 409, 28, Rel::CONFLICT, "Conflict", Close::ProtocolError),
        Refusal::TooLarge { .. } => row(native, 413, 9, Rel::PARAMETER, "TooLarge", Close::TooLarge),
        Refusal::TooMany { .. } => row(native, 413, 22, Rel::PARAMETER, "TooMany", Close::TooManyConnections),
        Refusal::Busy { .. } => row(native, 429, 22, Rel::RATE, "TooManyRequests", Close::Draining),
        Refusal::Draining { .. } | Refusal::StoreUnavailable { .. } => {
            row(native, 503, 15, Rel::UNAVAILABLE, "Unavailable", Close::Draining)
        }
        Refusal::DurabilityNotOffered => row(native, 400, 20, Rel::PARAMETER, "NotOffered", Close::ProtocolError),
        Refusal::FeatureOff { .. } => row(native, 400, 11, Rel::PARAMETER, "NotOffered", Close::ProtocolError),
        Refusal::Internal => INTERNAL,
    }
}

/// WuKongIM has reasons of their own for a bad channel (16, 23); any other field is a payload it cannot read (9).
fn reason_of_field(field: &str) -> u8 {
    match field {
        "channel_id" => 16,
        "channel_type" => 23,
        _ => 9,
    }
}

/// A defect of the server, refused or panicked.
pub const INTERNAL: Voice =
    row("internal", 500, 15, RelationCode::INTERNAL, "InternalServerError", CloseReason::Internal);
/// A body or query that is not what a route takes.
pub const MALFORMED: Voice = row("invalid", 400, 9, RelationCode::PARAMETER, "Invalid", CloseReason::ProtocolError);
/// A credential that says of itself that its time is over.
pub const CREDENTIAL_EXPIRED: Voice =
    row("credential_expired", 401, 2, RelationCode::EXPIRED, "Unauthorized", CloseReason::CredentialExpired);
/// A request that names no application, or none the server knows (header `ApiKey` of relation.txt).
pub const APPLICATION_UNKNOWN: Voice =
    row("application_unknown", 401, 2, RelationCode::ISSUER, "Unauthorized", CloseReason::BadCredential);
/// A body over its limit.
pub const BODY_TOO_LARGE: Voice = row("too_large", 413, 9, RelationCode::PARAMETER, "TooLarge", CloseReason::TooLarge);
/// A body that ended early.
pub const BODY_BROKEN: Voice =
    row("body_broken", 400, 9, RelationCode::PARAMETER, "Invalid", CloseReason::ProtocolError);
/// A range beyond a file's end.
pub const RANGE_NOT_SATISFIABLE: Voice =
    row("range_not_satisfiable", 416, 11, RelationCode::PARAMETER, "Invalid", CloseReason::ProtocolError);
/// A path no route has.
pub const NO_SUCH_PATH: Voice =
    row("no_such_path", 404, 11, RelationCode::NOT_FOUND, "NotFound", CloseReason::ProtocolError);
/// A method the path does not have.
pub const METHOD_NOT_ALLOWED: Voice =
    row("method_not_allowed", 405, 11, RelationCode::METHOD, "MethodNotAllowed", CloseReason::ProtocolError);
/// A route of WuKongIM's that this server does not have.
pub const NOT_SUPPORTED: Voice =
    row("not_supported", 400, 11, RelationCode::PARAMETER, "NotOffered", CloseReason::ProtocolError);
/// A request that took longer than its limit.
pub const TIMED_OUT: Voice = row("timed_out", 503, 15, RelationCode::UNAVAILABLE, "Unavailable", CloseReason::Draining);

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::refusal::ErrorKind;

    /// One line per variant, used twice: a variant without a line does not compile, and each line's sample is of its variant.
    macro_rules! every {
        ($($pattern:pat => $sample:expr),* $(,)?) => {
            /// One of every refusal, in the order of [`Refusal`]. For tests of envelopes and for `docs/dialects.md`.
            pub(crate) fn samples() -> Vec<Refusal> {
                let covered = |refusal: &Refusal| match refusal { $($pattern => (),)* };
                let samples = vec![$($sample),*];
                samples.iter().for_each(covered);
                $(assert!(matches!($sample, $pattern), "a sample stands behind another's variant");)*
                samples
            }
        };
    }

    every! {
        Refusal::Invalid { .. } => Refusal::invalid("payload", "is needed"),
        Refusal::CredentialMissing => Refusal::CredentialMissing,
        Refusal::CredentialUnknown => Refusal::CredentialUnknown,
        Refusal::Forbidden { .. } => Refusal::Forbidden { action: "act for another user" },
        Refusal::ChannelNotFound => Refusal::ChannelNotFound,
        Refusal::NotMember => Refusal::NotMember,
        Refusal::Blocked => Refusal::Blocked,
        Refusal::StrangerRefused => Refusal::StrangerRefused,
        Refusal::Denied => Refusal::Denied,
        Refusal::NotListed => Refusal::NotListed,
        Refusal::TooLate { .. } => Refusal::TooLate { action: "revoke", within_s: 120 },
        Refusal::MessageGone => Refusal::MessageGone,
        Refusal::ChannelBanned => Refusal::ChannelBanned,
        Refusal::ChannelDisbanded => Refusal::ChannelDisbanded,
        Refusal::SendBanned => Refusal::SendBanned,
        Refusal::UserBanned => Refusal::UserBanned,
        Refusal::NotFound { .. } => Refusal::NotFound { what: "user" },
        Refusal::ClientMsgNoConflict { .. } => Refusal::ClientMsgNoConflict { message_seq: 7 },
        Refusal::TooLarge { .. } => Refusal::TooLarge { field: "payload", bytes: 2, max: 1 },
        Refusal::TooMany { .. } => Refusal::TooMany { what: "members", max: 1 },
        Refusal::Busy { .. } => Refusal::Busy { retry_after_ms: 5 },
        Refusal::Draining { .. } => Refusal::Draining { retry_after_ms: 2_000 },
        Refusal::StoreUnavailable { .. } => Refusal::StoreUnavailable { retry_after_ms: 500 },
        Refusal::DurabilityNotOffered => Refusal::DurabilityNotOffered,
        Refusal::FeatureOff { .. } => Refusal::FeatureOff { key: "conversation.on" },
        Refusal::Internal => Refusal::Internal,
    }

    fn status_of(kind: ErrorKind) -> u16 {
        match kind {
            ErrorKind::Invalid => 400,
            ErrorKind::Unauthenticated => 401,
            ErrorKind::Forbidden => 403,
            ErrorKind::NotFound => 404,
            ErrorKind::Conflict => 409,
            ErrorKind::TooLarge => 413,
            ErrorKind::RateLimited => 429,
            ErrorKind::Unavailable => 503,
            ErrorKind::Internal => 500,
        }
    }

    #[test]
    fn every_refusal_has_a_voice_of_its_class() {
        let mut words = BTreeMap::new();
        for refusal in samples() {
            let voice = of(&refusal);
            assert_eq!(voice.http, status_of(refusal.kind()), "{refusal:?}");
            assert_eq!(voice.native, refusal.code());
            assert!(!voice.m3o.id.is_empty() && voice.m3o.id.chars().all(|c| c.is_ascii_alphabetic()), "{refusal:?}");
            assert!((400..600).contains(&voice.m3o.code), "{refusal:?}");
            assert!(voice.relation.code.parse::<u32>().is_ok_and(|code| code >= 10_100), "{refusal:?}");
            assert!((2..=28).contains(&voice.wukong_reason), "1 is success: {refusal:?}");
            // What time mends is said so by each voice that has a word for it (wukongim-wire.md section 15: 15 and 22).
            assert_eq!(refusal.retry_after_ms().is_some(), matches!(voice.http, 429 | 503), "{refusal:?}");
            assert!(refusal.retry_after_ms().is_none() || matches!(voice.wukong_reason, 15 | 22), "{refusal:?}");
            assert_eq!(words.insert(voice.native, refusal.clone()), None, "two refusals share a word");
        }
    }

    /// What the documents and the reference fix, as they print it.
    #[test]
    fn the_documents_codes_are_kept() {
        let reasons: Vec<(&str, u8)> =
            samples().iter().filter_map(|refusal| Some((refusal.code(), of(refusal).wukong_send_reason()?))).collect();
        assert_eq!(
            reasons,
            [
                ("channel_not_found", 5),
                ("not_member", 3),
                ("blocked", 4),
                ("stranger_refused", 4),
                ("denied", 4),
                ("not_listed", 13),
                ("channel_banned", 19),
                ("channel_disbanded", 24),
                ("send_banned", 25),
            ]
        );
        for (refusal, code, desc) in [
            (Refusal::invalid("toRelationId", "is needed"), "10112", "parameter error"),
            (Refusal::NotMember, "13108", "Not the member of this group"),
            (Refusal::ChannelNotFound, "13108", "Not the member of this group"),
            (Refusal::StrangerRefused, "13301", "block stranger messages"),
            (Refusal::CredentialUnknown, "10101", "token error"),
            (Refusal::Busy { retry_after_ms: 1 }, "10110", "too many requests"),
        ] {
            let relation = of(&refusal).relation;
            assert_eq!((relation.code, relation.desc), (code, desc), "{refusal:?}");
        }
        assert_eq!(of(&Refusal::ChannelNotFound).m3o, M3oError { id: "InvalidChatID", code: 400 });
        assert_eq!(of(&Refusal::NotMember).m3o, M3oError { id: "NotMember", code: 403 });
        assert_eq!(of(&Refusal::invalid("channel_id", "is empty")).wukong_reason, 16);
        assert_eq!(of(&Refusal::invalid("channel_type", "is 9")).wukong_reason, 23);
    }

    /// A code never has two meanings.
    #[test]
    fn a_relation_code_has_one_description() {
        let mut descriptions = BTreeMap::new();
        let problems = [
            CREDENTIAL_EXPIRED,
            APPLICATION_UNKNOWN,
            MALFORMED,
            BODY_TOO_LARGE,
            BODY_BROKEN,
            RANGE_NOT_SATISFIABLE,
            NO_SUCH_PATH,
            METHOD_NOT_ALLOWED,
            NOT_SUPPORTED,
            TIMED_OUT,
            INTERNAL,
        ];
        for voice in samples().iter().map(of).chain(problems) {
            let desc = *descriptions.entry(voice.relation.code).or_insert(voice.relation.desc);
            assert_eq!(desc, voice.relation.desc);
        }
    }
}
