//! Round trips of every kind, golden bytes, and bytes that are no record.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn uid() -> impl Strategy<Value = Uid> {
    "[a-z0-9é😀\u{1f}]{1,12}".prop_map(|text| Uid::from_stored(&text))
}

fn channel() -> impl Strategy<Value = ChannelNo> {
    prop_oneof![0..300_u32, any::<u32>()].prop_map(ChannelNo)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..1_000_u64, any::<u64>()]
}

/// A message of any shape.
pub(in crate::store) fn message() -> impl Strategy<Value = MessageRecord> {
    let names = (channel(), 1..=u64::MAX, uid(), "[ -~]{1,40}");
    let rest = (any::<[bool; 3]>(), any::<u8>(), "[a-z]{0,5}", any::<u32>(), vec(any::<u8>(), 0..300), extras());
    (names, rest).prop_map(|((channel, seq, from_uid, no), (flags, setting, topic, expire_s, payload, extras))| {
        MessageRecord {
            channel,
            message_seq: MessageSeq::new(seq).expect("from 1"),
            from_uid,
            client_msg_no: ClientMsgNo::from_stored(&no),
            flags: MessageFlags { no_persist: flags[0], red_dot: flags[1], sync_once: flags[2] },
            setting,
            topic,
            expire_s,
            payload: payload.into(),
            extras,
        }
    })
}

fn extras() -> impl Strategy<Value = Option<Box<Extras>>> {
    let file = "[0-9a-f-]{1,36}".prop_map(|id| FileId::from_stored(&id));
    let some = (proptest::option::of(1..=u64::MAX), vec(uid(), 0..4), any::<bool>(), vec(file, 0..3));
    prop_oneof![
        Just(None),
        some.prop_map(|(reply_to, mentions, mention_all, files)| {
            Extras { reply_to: reply_to.map(Version::new), mentions, mention_all, files }.boxed()
        }),
    ]
}

/// A record of any kind.
pub(in crate::store) fn record() -> impl Strategy<Value = Record> {
    let key = prop_oneof![
        (uid(), uid()).prop_map(|(a, b)| ChannelKey::person(&a, &b)),
        "[a-z0-9|]{1,20}".prop_map(|id| ChannelKey::from_stored(&id, ChannelType::Group)),
        "[a-z0-9|]{1,20}".prop_map(|id| ChannelKey::from_stored(&id, ChannelType::CustomerService)),
    ];
    let api_key =
        ("[a-z]{0,9}", "[ -~]{0,9}", any::<[u8; 32]>(), any::<[bool; 4]>(), proptest::option::of("[a-z]{0,9}"));
    prop_oneof![
        message().prop_map(Record::Message),
        (channel(), key).prop_map(|(channel, key)| Record::ChannelCreated { channel, key }),
        (channel(), any::<[bool; 5]>()).prop_map(|(channel, b)| Record::ChannelSettings {
            channel,
            settings: ChannelSettings { ban: b[0], disband: b[1], send_ban: b[2], large: b[3], allow_stranger: b[4] },
        }),
        (channel(), number(), vec(uid(), 0..20)).prop_map(|(channel, join_floor, uids)| Record::MembersAdded {
            channel,
            join_floor,
            uids
        }),
        (channel(), number(), vec(uid(), 0..20)).prop_map(|(channel, delete_floor, uids)| Record::MembersRemoved {
            channel,
            delete_floor,
            uids
        }),
        (channel(), uid(), number()).prop_map(|(channel, uid, seq)| Record::ReadPosition { channel, uid, seq }),
        (channel(), uid(), number()).prop_map(|(channel, uid, delete_floor)| Record::ConversationDeleted {
            channel,
            uid,
            delete_floor
        }),
        (channel(), vec(number(), 0..20)).prop_map(|(channel, seqs)| Record::MessagesExpired { channel, seqs }),
        uid().prop_map(|uid| Record::UserCreated { uid }),
        (uid(), any::<u8>(), any::<u8>(), proptest::option::of(any::<[u8; 32]>())).prop_map(
            |(uid, flag, device_level, token)| Record::UserToken {
                uid,
                device_flag: DeviceFlag(flag),
                device_level,
                token
            }
        ),
        api_key.prop_map(|(key_id, name, secret, b, namespace)| Record::ApiKey(ApiKey {
            key_id,
            name,
            secret,
            scopes: Scopes { admin: b[0], send: b[1], read: b[2] },
            namespace,
            revoked: b[3],
        })),
        ("[a-z0-9-]{1,36}", channel()).prop_map(|(alias, channel)| Record::Alias { alias, channel }),
        later_record(),
        (number(), number())
            .prop_map(|(kept, until)| Record::Break { kept: Version::new(kept), until: Version::new(until) }),
    ]
}

/// Changes of messages, people and files.
fn later_record() -> impl Strategy<Value = Record> {
    let by = || proptest::option::of(uid());
    let reaction = prop_oneof![Just(None), Just(Some(Reaction::Like)), Just(Some(Reaction::Dislike))];
    let role = prop_oneof![Just(Role::Member), Just(Role::Admin), Just(Role::Owner)];
    let strangers = prop_oneof![Just(Strangers::Allow), Just(Strangers::Quarantine), Just(Strangers::Block)];
    let file_id = || "[0-9a-f-]{1,36}".prop_map(|id| FileId::from_stored(&id));
    prop_oneof![
        (channel(), number(), by()).prop_map(|(channel, seq, by)| Record::MessageRevoked { channel, seq, by }),
        (channel(), number(), by(), vec(any::<u8>(), 0..99), extras()).prop_map(
            |(channel, seq, by, payload, extras)| {
                Record::MessageEdited { channel, seq, by, payload: payload.into(), extras }
            }
        ),
        (channel(), number(), uid(), reaction).prop_map(|(channel, seq, uid, reaction)| Record::MessageReacted {
            channel,
            seq,
            uid,
            reaction
        }),
        (channel(), number(), lane()).prop_map(|(channel, seq, lane)| Record::MessageEvent {
            channel,
            seq,
            lane: Box::new(lane)
        }),
        (channel(), uid(), role).prop_map(|(channel, uid, role)| Record::MemberRole { channel, uid, role }),
        (channel(), "[ -~]{0,9}", "[a-z]{0,9}", "[a-z]{0,9}", by()).prop_map(
            |(channel, name, icon, project, creator)| {
                let profile = ChannelProfile { name, icon, description: String::new(), project, creator };
                Record::ChannelProfile { channel, profile: Box::new(profile) }
            }
        ),
        (channel(), uid(), any::<[bool; 4]>()).prop_map(|(channel, uid, b)| {
            let flags = ConversationFlags { pinned: b[0], muted: b[1], request: b[2], accepted: b[3] };
            Record::ConversationFlags { channel, uid, flags }
        }),
        (uid(), strangers)
            .prop_map(|(uid, strangers)| Record::UserSettings { uid, settings: UserSettings { strangers } }),
        (uid(), uid(), any::<[bool; 2]>()).prop_map(|(uid, peer, b)| {
            Record::Relation { uid, peer, relation: Relation { contact: b[0], blocked: b[1] } }
        }),
        (file_id(), by(), "[a-z.]{0,9}", number(), any::<[u8; 32]>()).prop_map(
            |(file_id, uploader, name, size, content)| {
                let mime = "text/plain".into();
                Record::File(Box::new(FileRecord { file_id, uploader, name, mime, size, content }))
            }
        ),
        file_id().prop_map(|file_id| Record::FileRemoved { file_id }),
        listing_record(),
    ]
}

/// A lane of any shape.
pub(in crate::store) fn lane() -> impl Strategy<Value = Lane> {
    let names = ("[a-z]{1,9}", "[ -~]{1,9}", "[a-z.]{1,9}", "[ -~]{0,9}");
    let rest = (any::<u8>(), 0..4_u8, number(), 0..3_u8, number(), any::<u8>(), vec(any::<u8>(), 0..99));
    (names, rest).prop_map(|((key, event_id, event_type, error), rest)| {
        let (number, status, seq, visibility, occurred_at_ms, end_reason, snapshot) = rest;
        Lane {
            number,
            key,
            status: LaneStatus::from_stored(status).expect("known"),
            seq,
            event_id,
            event_type,
            visibility: Visibility::from_stored(visibility).expect("known"),
            occurred_at_ms,
            end_reason,
            error,
            snapshot: snapshot.into(),
        }
    })
}

/// Lists, system users, commands, addresses.
fn listing_record() -> impl Strategy<Value = Record> {
    let list = prop_oneof![Just(ChannelList::Deny), Just(ChannelList::Allow)];
    prop_oneof![
        (channel(), list, any::<bool>(), vec(uid(), 0..20))
            .prop_map(|(channel, list, on, uids)| Record::ChannelListed { channel, list, on, uids }),
        (uid(), any::<bool>()).prop_map(|(uid, on)| Record::SystemUser { uid, on }),
        (uid(), number(), number()).prop_map(|(uid, position, message_id)| Record::CommandsRead {
            uid,
            position,
            message_id: Version::new(message_id),
        }),
        (any::<std::net::IpAddr>(), any::<bool>()).prop_map(|(address, on)| Record::AddressBlocked { address, on }),
    ]
}

fn body(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode_body(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn every_record_comes_back(record in record()) {
        let bytes = body(&record);
        let kind = record.kind().to_stored();
        prop_assert_eq!(Record::decode_body(kind, record.body_format(), &bytes), Ok(record.clone()));
        // Kinds that have a channel begin with it.
        if let Some(channel) = record.channel() {
            let mut first = Vec::new();
            put_varint(&mut first, u64::from(channel.0));
            prop_assert!(bytes.starts_with(&first));
        }
        // Neither shorter nor longer is a record.
        for end in 0..bytes.len() {
            prop_assert!(Record::decode_body(kind, record.body_format(), &bytes[..end]).is_err(), "cut at {}", end);
        }
        let mut longer = bytes;
        longer.push(0);
        prop_assert!(Record::decode_body(kind, record.body_format(), &longer).is_err());
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(kind in 0..33_u8, format in 1..3_u8, bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(record) = Record::decode_body(kind, format, &bytes) {
            prop_assert_eq!(body(&record), bytes);
        }
    }
}

#[test]
fn a_message_lies_as_the_page_says() {
    let record = Record::Message(MessageRecord {
        channel: ChannelNo(300),
        message_seq: MessageSeq::new(7).expect("from 1"),
        from_uid: Uid::from_stored("al"),
        client_msg_no: ClientMsgNo::from_stored("n1"),
        flags: MessageFlags { no_persist: false, red_dot: true, sync_once: false },
        setting: 9,
        topic: "t".into(),
        expire_s: 1,
        payload: Bytes::from_static(b"hey"),
        extras: None,
    });
    let expected = b"\xac\x02\x07\x02al\x02n1\x02\x09\x01t\x01\x03hey";
    assert_eq!(body(&record), expected);
    let Record::Message(message) = record else { unreachable!("a message") };
    let extras =
        Extras { reply_to: Some(Version::new(5)), mentions: vec![Uid::from_stored("bo")], ..Extras::default() };
    let record = Record::Message(MessageRecord { extras: extras.boxed(), ..message });
    let expected = b"\xac\x02\x07\x02al\x02n1\x02\x09\x01t\x01\x05\x00\x01\x02bo\x00\x03hey";
    assert_eq!((record.body_format(), body(&record)), (BODY_FORMAT_EXTRAS, expected.to_vec()));
}

#[test]
fn an_event_lies_as_the_page_says() {
    let lane = Lane {
        number: 1,
        key: "main".into(),
        status: LaneStatus::Error,
        seq: 300,
        event_id: "e1".into(),
        event_type: "x.y".into(),
        visibility: Visibility::Restricted,
        occurred_at_ms: 5,
        end_reason: 9,
        error: "no".into(),
        snapshot: Bytes::from_static(b"{}"),
    };
    let record = Record::MessageEvent { channel: ChannelNo(300), seq: 7, lane: Box::new(lane) };
    let expected = b"\xac\x02\x07\x01\x04main\x02\xac\x02\x02e1\x03x.y\x02\x05\x09\x02no\x02{}";
    assert_eq!(body(&record), expected);
    assert_eq!(record.kind().to_stored(), 29);
    for (place, number) in [(9, 4), (19, 3)] {
        let mut bytes = expected.to_vec();
        bytes[place] = number;
        let refused = Record::decode_body(29, BODY_FORMAT, &bytes);
        assert!(matches!(refused, Err(RecordError::Malformed(what)) if what.ends_with("not known")), "{place}");
    }
}

#[test]
fn later_kinds_and_formats_are_named() {
    let mut unknown: Vec<u8> = RESERVED_KINDS.iter().map(|(kind, _)| *kind).collect();
    unknown.extend([0, 30, 255]);
    for kind in unknown {
        let newer = RecordError::Newer { kind, format: BODY_FORMAT };
        assert_eq!(Record::decode_body(kind, BODY_FORMAT, b""), Err(newer));
        assert_eq!(RecordKind::from_stored(kind), None);
    }
    let newer = RecordError::Newer { kind: 9, format: 2 };
    assert_eq!(Record::decode_body(9, 2, b"\x01a"), Err(newer));
    assert!(newer.to_string().starts_with("newer data format"));
}

#[test]
fn a_lying_count_allocates_nothing() {
    // MembersAdded, channel 0, floor 0, count 2^62.
    let mut bytes = vec![0, 0];
    put_varint(&mut bytes, 1 << 62);
    let expected = Err(RecordError::Malformed("a count is larger than what follows"));
    assert_eq!(Record::decode_body(4, BODY_FORMAT, &bytes), expected);
}
