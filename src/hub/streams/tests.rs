//! Bounds of what is open, repeats, what storing changes, and what is shown meanwhile.

use bytes::Bytes;
use protocol::ids::MessageSeq;

use super::*;
use crate::domain::event::{LaneStatus, Visibility};
use crate::domain::message::MessageFlags;

fn id() -> MessageId {
    Version::new(77)
}

fn name(from_uid: Option<&str>) -> Name {
    let (a, b) = (Uid::from_stored("bot"), Uid::from_stored("eve"));
    let client_msg_no = ClientMsgNo::from_stored("m1");
    Name { key: ChannelKey::person(&a, &b), from_uid: from_uid.map(Uid::from_stored), client_msg_no }
}

fn base(message_id: MessageId) -> Arc<Base> {
    let Name { key, client_msg_no, .. } = name(None);
    let from_uid = Uid::from_stored("bot");
    Arc::new(Base { channel: ChannelNo(3), key, message_seq: 9, message_id, from_uid, client_msg_no })
}

fn event(id: &str, event_type: &str, key: &str, payload: &str) -> NewEvent {
    NewEvent::new((id, event_type, key), "", 5, Bytes::from(payload.to_owned())).expect("an event")
}

fn delta(id: &str, key: &str, text: &str) -> NewEvent {
    event(id, "stream.delta", key, &serde_json::json!({"kind": "text", "delta": text}).to_string())
}

fn opened(lanes: &[Lane]) -> Streams {
    let streams = Streams::default();
    streams.put(&base(id()), name(Some("bot")), lanes, Version::new(100), 1_000).expect("room");
    streams
}

fn store(streams: &Streams, event: &NewEvent, version: u64) -> Vec<Lane> {
    let plan = streams.plan(id(), event).expect("planned");
    let lanes = plan.lanes.iter().map(Growing::lane).collect();
    streams.settle(id(), event, plan, Version::new(version), 1_000);
    lanes
}

fn message(lanes: Vec<Lane>) -> Message {
    let base = base(id());
    Message {
        channel: base.key.clone(),
        message_seq: MessageSeq::new(9).expect("from 1"),
        message_id: id(),
        from_uid: base.from_uid.clone(),
        client_msg_no: base.client_msg_no.clone(),
        flags: MessageFlags::default(),
        setting: 2,
        topic: String::new(),
        expire_s: 0,
        payload: Bytes::new(),
        extras: None,
        edited: Version::ZERO,
        reactions: Vec::new(),
        lanes,
        state: MessageState::Live,
    }
}

fn shown(streams: &Streams, lanes: Vec<Lane>) -> Vec<(String, LaneStatus, u64, String)> {
    let mut one = message(lanes);
    streams.show([&mut one]);
    let of = |lane: &Lane| {
        let text = String::from_utf8(lane.plain()).expect("text");
        (lane.key.clone(), lane.status, lane.seq, text)
    };
    one.lanes.iter().map(of).collect()
}

#[test]
fn a_stream_goes_its_way() {
    let streams = opened(&[]);
    for (name, text) in [("e1", "Hel"), ("e2", "lo")] {
        assert!(matches!(streams.judge(id(), &delta(name, "", text)), Ok(Judged::News)));
        let lane = streams.add(id(), &delta(name, "", text), 2_000).expect("taken");
        assert_eq!((lane.seq, lane.number, lane.status), (0, 0, LaneStatus::Open));
    }
    streams.add(id(), &delta("s1", "side", "x"), 2_000).expect("taken");
    assert_eq!(streams.behind(id()), id());
    // Planning changes nothing.
    drop(streams.plan(id(), &event("c", "stream.close", "", "{}")).expect("planned"));
    let of = |key: &str, status, seq, text: &str| (key.to_owned(), status, seq, text.to_owned());
    let (open, closed) = (LaneStatus::Open, LaneStatus::Closed);
    assert_eq!(shown(&streams, vec![]), [of("main", open, 0, "Hello"), of("side", open, 0, "x")]);
    let stored = store(&streams, &event("c", "stream.close", "", "{}"), 120);
    assert_eq!((stored.len(), stored[0].seq, stored[0].number), (1, 1, 0));
    assert_eq!(streams.behind(id()), Version::new(120));
    // A page that was read before the close, and one that was read behind it.
    assert_eq!(shown(&streams, vec![])[0], of("main", closed, 1, "Hello"));
    assert_eq!(shown(&streams, stored.clone()), [of("main", closed, 1, "Hello"), of("side", open, 0, "x")]);
    // The end of the message ends what is open, each under a number of its own.
    let ended = store(&streams, &event("f", "stream.finish", "", ""), 130);
    let numbers: Vec<_> = ended.iter().map(|lane| (lane.key.as_str(), lane.seq, lane.number, lane.status)).collect();
    assert_eq!(numbers, [("side", 2, 1, closed), (KEY_FINISH, 3, 2, closed)]);
    assert!(streams.find(&name(Some("bot"))).is_none(), "what is over is forgotten");
    assert_eq!(streams.figures(), (0, 0));
}

#[test]
fn what_is_stored_is_never_shown_older() {
    let streams = opened(&[]);
    streams.add(id(), &delta("e1", "", "old"), 1_000).expect("taken");
    let closed = Lane { key: "main".into(), status: LaneStatus::Closed, seq: 4, ..Lane::default() };
    assert_eq!(shown(&streams, vec![closed.clone()])[0].1, LaneStatus::Closed);
    let ahead = Lane { status: LaneStatus::Open, snapshot: Bytes::from_static(b"7"), ..closed.clone() };
    assert_eq!(shown(&streams, vec![ahead])[0].3, "7");
    // Reading again brings the stream up to what is stored.
    streams.put(&base(id()), name(None), &[closed], Version::new(200), 1_000).expect("room");
    assert!(matches!(streams.judge(id(), &delta("e2", "", "x")), Ok(Judged::Settled(lane)) if lane.seq == 4));
    assert_eq!(streams.read_at(id()), Some(Version::new(200)));
    assert_eq!(streams.find(&name(None)), Some(base(id())));
}

#[test]
fn repeats_change_nothing() {
    let stored = Lane { key: "main".into(), seq: 2, event_id: "last".into(), ..Lane::default() };
    let streams = opened(&[stored]);
    let settled = |event: &NewEvent| matches!(streams.judge(id(), event), Ok(Judged::Settled(_)));
    assert!(settled(&event("last", "stream.snapshot", "", "{}")), "known from the store");
    for n in 0..300 {
        let event = delta(&format!("d{n}"), "", "x");
        assert!(!settled(&event), "{n}");
        streams.add(id(), &event, 1_000).expect("taken");
        assert!(settled(&event), "{n}");
    }
    assert!(settled(&delta("d44", "", "x")) && settled(&delta("d299", "", "x")));
    assert!(!settled(&delta("d43", "", "x")), "so many are remembered");
    assert!(!settled(&delta("d299", "side", "x")), "a name is one of its lane");
    store(&streams, &event("s", "my.word", "", ""), 110);
    assert!(settled(&event("s", "my.word", "", "")) && settled(&delta("d299", "", "x")));
}

#[test]
fn bounds_refuse_and_change_nothing() {
    let streams = opened(&[]);
    let before = streams.figures();
    let large = "x".repeat(STREAM_BYTES_MAX / 2);
    streams.add(id(), &delta("e1", "", &large), 1_000).expect("taken");
    let held = streams.figures();
    let refused = streams.add(id(), &delta("e2", "", &large), 1_000).expect_err("too large");
    assert!(matches!(refused, Refusal::TooLarge { max: STREAM_BYTES_MAX, .. }));
    let snapshot = event("s", "stream.snapshot", "side", &format!("\"{large}\""));
    assert!(matches!(streams.plan(id(), &snapshot), Err(Refusal::TooLarge { .. })));
    // A snapshot takes the place of what its lane held.
    let instead = event("s", "stream.snapshot", "", &format!("\"{large}\""));
    assert!(streams.plan(id(), &instead).is_ok());
    assert_eq!(streams.figures(), held);
    streams.forget(id());
    assert_eq!((before.0, streams.figures()), (1, (0, 0)));

    let streams = opened(&[]);
    for n in 0..LANES_MAX - 1 {
        streams.add(id(), &delta("e", &format!("k{n}"), "x"), 1_000).expect("taken");
    }
    let refused = streams.add(id(), &delta("e", "one more", "x"), 1_000).expect_err("too many");
    assert_eq!(refused, Refusal::TooMany { what: "event keys", max: LANES_MAX - 1 });
    assert!(streams.plan(id(), &event("e", "stream.close", "one more", "")).is_err());
    let all = store(&streams, &event("f", "stream.finish", "", ""), 300);
    assert_eq!(all.len(), LANES_MAX, "the end always has room");
    let mut numbers: Vec<u8> = all.iter().map(|lane| lane.number).collect();
    numbers.dedup();
    assert_eq!(numbers, (0..LANES_MAX as u8).collect::<Vec<_>>());
}

#[test]
fn too_much_at_once_waits_until_something_is_over_or_idle() {
    let streams = Streams::default();
    let text = "x".repeat(STREAM_BYTES_MAX - 2_000);
    let mut taken = 0_u64;
    let refused = loop {
        let base = base(Version::new(1_000 + taken));
        let named = Name { client_msg_no: ClientMsgNo::from_stored(&taken.to_string()), ..name(None) };
        let put = streams.put(&base, named, &[], Version::ZERO, 10 + taken);
        match put.and_then(|()| streams.add(base.message_id, &delta("e", "", &text), 10 + taken)) {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Refusal::Busy { .. }));
    assert!(streams.figures().1 <= STREAMS_BYTES_MAX && taken >= 60, "{taken}");
    // Nor is there for the same to be stored, but always for an end that brings nothing.
    let (last, first) = (Version::new(1_000 + taken), Version::new(1_000));
    let snapshot = event("s", "stream.snapshot", "", &serde_json::json!({"kind": "text", "text": text}).to_string());
    assert!(matches!(streams.plan(last, &snapshot), Err(Refusal::Busy { .. })));
    assert_eq!(streams.plan(first, &event("c", "stream.close", "", "")).expect("planned").lanes.len(), 1);
    // The first half is idle now: once it is kept and forgotten there is room.
    let later = 10 + taken / 2 + IDLE_MS;
    let idle = streams.idle(later, IDLE_MS);
    assert_eq!((idle.len() as u64, streams.idle(later, 0).len() as u64), (taken / 2 + 1, taken + 1));
    for message_id in idle {
        let (base, lanes) = streams.unsaved(message_id).expect("open");
        assert_eq!((base.message_id, lanes.len(), lanes[0].state().seq), (message_id, 1, 1));
        assert_eq!(lanes[0].lane().plain().len(), text.len());
        streams.forget(message_id);
        assert!(streams.unsaved(message_id).is_none());
    }
    let late = Version::new(5_000);
    let named = Name { client_msg_no: ClientMsgNo::from_stored("late"), ..name(None) };
    streams.put(&base(late), named.clone(), &[], Version::ZERO, later).expect("room");
    streams.add(late, &delta("e", "", &text), later).expect("room");
    store_at(&streams, late, &event("s", "agent.step", "", ""));
    assert!(streams.unsaved(late).is_some_and(|(_, lanes)| lanes.is_empty()), "all of it is stored");
}

fn store_at(streams: &Streams, message_id: MessageId, event: &NewEvent) {
    let plan = streams.plan(message_id, event).expect("planned");
    streams.settle(message_id, event, plan, Version::new(9_000), 1_000);
}

#[test]
fn the_last_sent_to_be_streamed_are_noted() {
    let streams = Streams::default();
    let note = |n: usize, uid: &str| {
        let no = ClientMsgNo::from_stored(&n.to_string());
        streams.note(name(None).key, Uid::from_stored(uid), no.clone());
        no
    };
    let first = note(0, "bot");
    note(0, "other");
    assert_eq!(streams.noted(&first).map(|(_, uid)| uid), Some(Uid::from_stored("other")));
    for n in 1..=NOTED_MAX {
        note(n, "bot");
    }
    assert_eq!(streams.noted(&first), None);
    assert!(streams.noted(&ClientMsgNo::from_stored("1")).is_some());
    assert_eq!(streams.state.lock().noted.len(), NOTED_MAX);
}

#[test]
fn visibility_goes_on_with_the_lane() {
    let streams = opened(&[]);
    let private = NewEvent { visibility: Some(Visibility::Private), ..delta("e1", "", "x") };
    assert_eq!(streams.add(id(), &private, 1_000).expect("taken").visibility, Visibility::Private);
    assert_eq!(store(&streams, &event("c", "stream.close", "", ""), 110)[0].visibility, Visibility::Private);
}
