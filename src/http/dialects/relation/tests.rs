//! The document's shapes: what a send takes, what a type is, what is said and with which status.

use http_body_util::BodyExt;
use protocol::ids::{MessageId, Uid};

use super::caller::expired_at;
use super::messages::kind_of;
use super::*;
use crate::http::envelope::Envelope;
use crate::http::extract::parse;

#[test]
fn the_documents_request_is_taken_as_printed() {
    let body = br#"{
    "type": "TEXT",
    "channelUuid": "4f326124812c41448bc587bf6b2eaf42",
    "toRelationId": null,
    "content": "hello",
    "sendUuid": "1u4dp-6qaaa-aaaaj-aag4q-cai-87b4c789ee444d28960dfdd9b208d1ef-1665371575954-35534417409750164",
    "quoteId":1579047130798100481,
    "mentionedUser":["1u4dp-6qaaa-aaaaj-aag4q-cai"]
}"#;
    let send = parse::<wire::Send>(body).expect("the document's own example");
    assert_eq!((send.kind.as_str(), send.to_relation_id.as_str()), ("TEXT", ""));
    // Above 2^53: a double would have made it …480.
    assert_eq!(send.quote_id, Some(MessageId::new(1_579_047_130_798_100_481)));
    assert_eq!(send.mentioned_user, ["1u4dp-6qaaa-aaaaj-aag4q-cai"]);
    assert_eq!(send.send_uuid.len(), 92);
}

#[test]
fn types_are_words_in_lower_case() {
    for (given, kind) in [("TEXT", "text"), (" Card ", "card"), ("", "text"), ("SYS", "sys"), ("ÄÖ", "äö")] {
        assert_eq!(kind_of(given).expect("a type"), kind);
    }
    for bad in ["x".repeat(65).as_str(), "a\u{0}b"] {
        assert_eq!(kind_of(bad).expect_err("none").field(), Some("type"));
    }
}

#[test]
fn a_jwt_tells_its_end_and_nothing_else_does() {
    let document = "eyJhbG1ciOiJFUzI1NiJ9.eyJqdGkiOiI0MzdiN2EzZDEwMGY0ODVkOWVhMWUzZmZlOWE1NmEyZSIsImlzcyI6InJlbGF0aW9ub\
                    GFicy5haSIsImlhdCI6MTY2NTIxNTUzNSwic3ViIjoiZGhreXEtc3FhYWEtYWFhYWotc2d6M3EtY2FpIiwiZXhwIjoxNjY1ODIw\
                    MzM1fQ.rj7KKuIcgmvaIwZ63YHnXQ4jvvI-eR2Wo7k3YEyz1Muxo8j5ezCowKDpcW0u9zIuHPFqwD0-1XPWdPLR1d1HLFw";
    assert_eq!(expired_at(document), Some(1_665_820_335));
    for other in ["", "a", "a.b", "a.b.c", "cwu_00", "..", "a.eyJhIjoxfQ.c", "a.WzFd.c"] {
        assert_eq!(expired_at(other), None, "{other}");
    }
}

#[test]
fn a_chat_is_thirty_two_digits() {
    let (alice, bob) = (Uid::from_stored("alice"), Uid::from_stored("bob"));
    let uuid = channel_uuid(&ChannelKey::person(&alice, &bob));
    assert!(uuid.len() == 32 && uuid.bytes().all(|b| b.is_ascii_hexdigit()), "{uuid}");
}

#[tokio::test]
async fn every_problem_is_said_in_both_manners() {
    let problems = crate::voices::tests::samples().into_iter().map(Problem::Refused).chain([
        Problem::CredentialExpired,
        Problem::ApplicationUnknown { given: false },
        Problem::ApplicationUnknown { given: true },
        Problem::malformed("content", "is needed"),
        Problem::BodyTooLarge { max: 1 },
        Problem::BodyBroken,
        Problem::TimedOut,
        Problem::Panicked,
        Problem::NoSuchPath,
        Problem::MethodNotAllowed,
    ]);
    for problem in problems {
        let is_https = matches!(problem, Problem::NoSuchPath | Problem::MethodNotAllowed);
        for (voice, is_bare) in [(&IN_BODY, !is_https), (&IN_STATUS, false)] {
            let response = voice.problem(&problem, "r1");
            let status = match (is_bare, problem.voice().relation.code) {
                (true, _) => axum::http::StatusCode::OK,
                (false, "13108") => axum::http::StatusCode::FORBIDDEN,
                (false, _) => problem.status(),
            };
            assert_eq!(response.status(), status, "{problem:?}");
            let bytes = response.into_body().collect().await.expect("in memory").to_bytes();
            let said: Refused = serde_json::from_slice(&bytes).expect("the document's shape");
            assert_ne!(said.code, "0", "{problem:?}");
            assert!(said.desc.starts_with(problem.voice().relation.desc) && said.data.is_none(), "{said:?}");
            assert_eq!(said.retry_after_ms, problem.retry_after_ms());
            // Nobody learns from a text whether a group exists.
            if said.code == "13108" {
                assert_eq!(said.desc, "Not the member of this group");
            }
        }
    }
}
