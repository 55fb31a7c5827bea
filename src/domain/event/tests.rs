//! What each event does to its lane, as a table; and that merging is what the joined texts say, whatever the events are.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn event(id: &str, event_type: &str, payload: &Value) -> NewEvent {
    let payload = if payload.is_null() { Bytes::new() } else { payload.to_string().into() };
    NewEvent::new((id, event_type, ""), "", 7, payload).expect("an event")
}

fn delta(id: &str, text: &str) -> NewEvent {
    event(id, "stream.delta", &json!({"kind": "text", "delta": text}))
}

fn shown(lane: &Lane) -> Value {
    match lane.snapshot.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&lane.snapshot).expect("a snapshot is JSON"),
    }
}

/// Types and payloads in order; then status, snapshot, end_reason, error.
type Row = (Vec<(&'static str, Value)>, LaneStatus, Value, u8, &'static str);

#[test]
fn events_come_to_one_state() {
    let text = |text: &str| json!({"kind": "text", "text": text});
    let (d, s, c) = ("stream.delta", "stream.snapshot", "stream.close");
    let hel = || (d, json!({"kind": "text", "delta": "Hel"}));
    let lo = || (d, json!({"kind": "text", "delta": "lo"}));
    let tool = || json!({"kind": "tool_call", "tool": "weather"});
    use LaneStatus::{Cancelled, Closed, Error, Open};
    let rows: Vec<Row> = vec![
        (vec![hel(), lo()], Open, text("Hello"), 0, ""),
        (vec![hel(), lo(), (c, json!({"end_reason": 3}))], Closed, text("Hello"), 3, ""),
        (vec![hel(), (c, json!({"end_reason": "4"}))], Closed, text("Hel"), 4, ""),
        (vec![hel(), (c, json!({"end_reason": 900}))], Closed, text("Hel"), 0, ""),
        (vec![hel(), (c, Value::Null)], Closed, text("Hel"), 0, ""),
        (vec![hel(), (c, json!({"snapshot": text("all of it")}))], Closed, text("all of it"), 0, ""),
        (vec![hel(), (c, json!({"snapshot": null}))], Closed, text("Hel"), 0, ""),
        (vec![hel(), ("stream.error", json!({"error": "timeout"}))], Error, text("Hel"), 0, "timeout"),
        (vec![("stream.error", json!({"error": {"code": 5}}))], Error, Value::Null, 0, "{\"code\":5}"),
        (vec![hel(), ("stream.cancel", Value::Null)], Cancelled, text("Hel"), 0, ""),
        (vec![hel(), (c, Value::Null), lo(), ("stream.error", json!({"error": "late"}))], Closed, text("Hel"), 0, ""),
        (vec![(d, tool())], Open, tool(), 0, ""),
        (vec![(d, json!([1])), (d, tool())], Open, tool(), 0, ""),
        (vec![hel(), (d, tool()), lo()], Open, text("Hello"), 0, ""),
        (vec![(d, tool()), hel()], Open, text("Hel"), 0, ""),
        (vec![(d, json!({"kind": "text", "delta": ""}))], Open, text(""), 0, ""),
        (vec![(s, text("Hel")), lo()], Open, text("Hello"), 0, ""),
        (
            vec![(s, json!({"kind": "text", "text": "Hel", "lang": "en"})), lo()],
            Open,
            json!({"kind": "text", "text": "Hello", "lang": "en"}),
            0,
            "",
        ),
        (vec![hel(), (s, text("anew")), (c, Value::Null)], Closed, text("anew"), 0, ""),
        (vec![hel(), ("stream.open", tool()), ("my.own", tool())], Open, text("Hel"), 0, ""),
    ];
    for (events, status, snapshot, end_reason, error) in rows {
        let mut lane = Growing::new(0, KEY_DEFAULT);
        for (at, (event_type, payload)) in events.iter().enumerate() {
            lane.take(&event(&format!("e{at}"), event_type, payload), Some(at as u64 + 1));
            // Kept in between or not: the same.
            lane = Growing::resume(&lane.lane());
        }
        let lane = lane.lane();
        let found = (lane.status, shown(&lane), lane.end_reason, lane.error.as_str());
        assert_eq!(found, (status, snapshot, end_reason, error), "{events:?}");
    }
}

#[test]
fn words_are_read_and_bounded() {
    let long = |bytes: usize| "x".repeat(bytes);
    let new = |words: (&str, &str, &str), visibility: &str| NewEvent::new(words, visibility, 1, Bytes::new());
    let event = new((" e1 ", " Stream.Delta ", " side "), " PRIVATE ").expect("an event");
    assert_eq!((&*event.id, &*event.event_type, &*event.given_type), ("e1", "stream.delta", "Stream.Delta"));
    assert_eq!((&*event.key, event.visibility, event.effect()), ("side", Some(Visibility::Private), Effect::Delta));
    let finish = new(("e", "stream.finish", "side"), "").expect("an event");
    assert_eq!((&*finish.key, finish.visibility), (KEY_FINISH, None));
    assert_eq!(new(("e", "x", ""), "").expect("an event").key, KEY_DEFAULT);
    for (words, visibility, field) in [
        (("", "x", ""), "", "event_id"),
        (("\n", "x", ""), "", "event_id"),
        (("e", " ", ""), "", "event_type"),
        (("e", "a\u{7}b", ""), "", "event_type"),
        (("e", "stream.delta", KEY_FINISH), "", "event_key"),
        (("e", "x", ""), "secret", "visibility"),
        ((&*long(EVENT_ID_BYTES_MAX + 1), "x", ""), "", "event_id"),
        (("e", &*long(EVENT_TYPE_BYTES_MAX + 1), ""), "", "event_type"),
        (("e", "x", &*long(EVENT_KEY_BYTES_MAX + 1)), "", "event_key"),
    ] {
        let refusal = new(words, visibility).expect_err("refused");
        assert_eq!(refusal.field(), Some(field), "{words:?} {visibility}");
    }
}

#[test]
fn a_lane_is_shown_to_its_audience() {
    let (bot, eve) = (Uid::from_stored("bot"), "eve");
    let mut lane = Growing::new(0, KEY_DEFAULT);
    let with = |visibility| NewEvent { visibility, ..delta("e", "x") };
    for (given, now) in [
        (None, Visibility::Public),
        (Some(Visibility::Private), Visibility::Private),
        (None, Visibility::Private),
        (Some(Visibility::Restricted), Visibility::Restricted),
        (Some(Visibility::Public), Visibility::Public),
    ] {
        lane.take(&with(given), None);
        assert_eq!(lane.state().visibility, now, "{given:?}");
        assert_eq!(lane.lane().is_shown_to(&bot, eve), now.is_public());
        assert!(lane.lane().is_shown_to(&bot, "bot"));
    }
    // Finishing the message says nothing about who sees a lane.
    lane.take(&with(Some(Visibility::Private)), None);
    lane.finish(&NewEvent { visibility: Some(Visibility::Public), ..event("f", "stream.finish", &Value::Null) }, 4);
    assert_eq!((lane.state().visibility, lane.state().status), (Visibility::Private, LaneStatus::Closed));
}

#[test]
fn old_clients_get_the_text() {
    let plain = |snapshot: Value| {
        let lane = Lane { snapshot: snapshot.to_string().into(), ..Lane::default() };
        String::from_utf8(lane.plain()).expect("text")
    };
    assert_eq!(plain(json!({"kind": "text", "text": "Hi"})), "Hi");
    assert_eq!(plain(json!({"kind": "text"})), "");
    assert_eq!(plain(json!({"kind": "binary", "data": "AQ=="})), "AQ==");
    assert_eq!(plain(json!({"kind": "binary"})), "{\"kind\":\"binary\"}");
    assert_eq!(plain(json!({"kind": "tool"})), "{\"kind\":\"tool\"}");
    assert_eq!(plain(json!("free")), "\"free\"");
    assert_eq!(Lane::default().plain(), b"");
}

proptest! {
    /// Texts joined are the text, whatever stands between them, wherever the lane was stored and taken up again; and what
    /// the lane says it weighs bounds what it holds.
    #[test]
    fn joined_texts_are_the_text(steps in vec((0..6_u8, "[a-z\"\\\\é😀\u{1}]{0,9}", any::<bool>()), 0..40)) {
        let (mut lane, mut text, mut seq) = (Growing::new(3, "k"), None::<String>, 0);
        for (at, (step, word, store)) in steps.into_iter().enumerate() {
            let id = format!("e{at}");
            let event = match step {
                0..=2 => {
                    text.get_or_insert_default().push_str(&word);
                    delta(&id, &word)
                }
                3 => {
                    text = Some(word.clone());
                    event(&id, "stream.snapshot", &json!({"kind": "text", "text": word}))
                }
                4 => event(&id, "application.word", &json!({"kind": "text", "delta": word})),
                _ if text.is_some() => event(&id, "stream.delta", &json!({"kind": "tool", "delta": word})),
                _ => continue,
            };
            let stored = event.effect() != Effect::Delta;
            seq += u64::from(stored);
            lane.take(&event, stored.then_some(seq));
            if store {
                lane = Growing::resume(&lane.lane());
            }
            prop_assert!(lane.ended_with(&id));
        }
        let kept = lane.lane();
        prop_assert_eq!(kept.seq, seq);
        prop_assert_eq!((kept.number, kept.key.as_str()), (3, "k"));
        match text {
            None => prop_assert!(kept.snapshot.is_empty()),
            Some(text) => prop_assert_eq!(kept.plain(), text.into_bytes()),
        }
        // Escapes are six bytes for one at most.
        prop_assert!(kept.snapshot.len() <= lane.bytes() * 6);
    }
}
