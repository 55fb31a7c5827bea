//! The document's shapes: what is asked, what is answered, and the ids of errors.

use http_body_util::BodyExt;

use super::*;
use crate::http::extract::parse;

#[test]
fn a_chat_alone_is_the_pages_call_for_the_history() {
    let is_history = |json: &str| parse::<wire::Send>(json.as_bytes()).expect("valid").is_history();
    assert!(is_history(r#"{"chat_id": "bed4f0f0-da12-46d2-90d2-17ae1714a214"}"#));
    for other in [
        "{}",
        r#"{"user_id": "John", "subject": "Hello", "text": "Hey Barry"}"#,
        r#"{"chat_id": "x", "text": "x"}"#,
        r#"{"chat_id": "x", "user_id": "John"}"#,
        r#"{"chat_id": "x", "client_id": "c"}"#,
    ] {
        assert!(!is_history(other), "{other}");
    }
}

#[test]
fn users_come_in_any_shape() {
    for json in [r#"{"user_ids":["a","b"]}"#, r#"{"user_ids":"a,b"}"#, r#"{"user_ids":" a , b ,"}"#] {
        assert_eq!(parse::<wire::New>(json.as_bytes()).expect("valid").user_ids, ["a", "b"]);
    }
}

#[test]
fn answers_have_the_documents_fields_in_its_order() {
    let message = wire::Message {
        id: "1".into(),
        client_id: "c".into(),
        chat_id: "x".into(),
        user_id: "John".into(),
        subject: "Hello".into(),
        text: "Hey Barry".into(),
        sent_at: 5,
        state: None,
    };
    let page = wire::SendAnswer::History(wire::Page { messages: vec![message], more: false });
    assert_eq!(
        serde_json::to_string(&page).expect("serializes"),
        r#"{"messages":[{"id":"1","client_id":"c","chat_id":"x","user_id":"John","subject":"Hello","text":"Hey Barry","sent_at":5}]}"#
    );
    let sent = wire::SendAnswer::Sent(wire::Sent {});
    assert_eq!(serde_json::to_string(&sent).expect("serializes"), "{}");
    for answer in [page, sent] {
        let text = serde_json::to_string(&answer).expect("serializes");
        assert_eq!(serde_json::from_str::<wire::SendAnswer>(&text).expect("reads"), answer);
    }
}

#[test]
fn errors_are_named_by_method_and_what_is_wrong() {
    for (path, problem, id, code) in [
        ("/chat/New", missing("user_ids"), "chat.New.MissingUserIDs", 400),
        ("/chat/Send", missing("chat_id"), "chat.Send.MissingChatID", 400),
        ("/chat/Send", missing("user_id"), "chat.Send.MissingUserID", 400),
        ("/chat/Send", missing("text"), "chat.Send.MissingText", 400),
        ("/chat/Send", Refusal::invalid("user_id", "is empty").into(), "chat.Send.InvalidUserID", 400),
        ("/chat/New", Problem::malformed("user_ids[3]", "is empty"), "chat.New.InvalidUserIDs", 400),
        ("/chat/History", Refusal::ChannelNotFound.into(), "chat.History.InvalidChatID", 400),
        ("/chat/Send", Refusal::NotMember.into(), "chat.Send.NotMember", 403),
        ("/chat/Send", Problem::malformed("body", "is no JSON"), "chat.Send.Invalid", 400),
        ("/chat/Send", Problem::BodyTooLarge { max: 1 }, "chat.Send.TooLarge", 413),
        ("/chat/x", Problem::NoSuchPath, "chat.NotFound", 404),
    ] {
        let error = voice_of(path).error(&problem);
        assert_eq!((error.id.as_str(), error.code), (id, code), "{problem:?}");
    }
}

#[tokio::test]
async fn every_refusal_is_said_as_micro_does() {
    for refusal in crate::voices::tests::samples() {
        let problem = Problem::Refused(refusal);
        let response = voice_of("/chat/Send").problem(&problem, "r1");
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("in memory").to_bytes();
        let error: wire::Error = serde_json::from_slice(&bytes).expect("Micro's shape");
        assert_eq!((error.code, Some(error.status.as_str())), (status.as_u16(), status.canonical_reason()));
        assert!(error.id.starts_with("chat.Send.") && !error.detail.is_empty(), "{error:?}");
        // The client behind the document retries these by itself.
        assert!(error.code != 408 && (error.code != 500 || problem == Problem::Refused(Refusal::Internal)));
    }
}
