//! Tables of what a recipient lets a sender do and of what a message may refer to, with what they cost.

use bytes::Bytes;
use protocol::ids::{ClientMsgNo, MessageId, MessageSeq};

use super::*;
use crate::domain::file::FileRecord;
use crate::domain::message::MessageFlags;
use crate::domain::user::{Relation, UserSettings};
use crate::store::memory::MemoryStore;
use crate::store::{Commit, MessageRecord, Record};

fn uid(text: &str) -> Uid {
    Uid::new(text).expect("valid uid")
}

fn commit(store: &MemoryStore, records: Vec<Record>) -> MessageId {
    let count = records.len() as u64;
    store.commit(&[Commit { records: records.into() }], &mut |_| {}).expect("commits")[0].plus(count - 1)
}

fn channel(store: &MemoryStore, key: &ChannelKey) -> ChannelNo {
    let channel = store.reserve_channel_no();
    commit(store, vec![Record::ChannelCreated { channel, key: key.clone() }]);
    channel
}

fn say(store: &MemoryStore, channel: ChannelNo, from: &str, seq: u64) -> MessageId {
    let record = MessageRecord {
        channel,
        message_seq: MessageSeq::new(seq).expect("not zero"),
        from_uid: uid(from),
        client_msg_no: ClientMsgNo::new(&format!("no-{seq}")).expect("valid"),
        flags: MessageFlags::default(),
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload: Bytes::new(),
        extras: None,
    };
    commit(store, vec![Record::Message(record)])
}

#[test]
fn what_a_recipient_decided_is_read_from_the_store() {
    let flags =
        |request, accepted| ConversationFlags { pinned: true, request, accepted, ..ConversationFlags::default() };
    let marked = Some(flags(true, false));
    for (strangers, relation, answered, stored, wrote, expected) in [
        (Strangers::Allow, (false, false), false, None, false, (Reception::Open, None)),
        (Strangers::Allow, (false, true), true, None, false, (Reception::Blocked, None)),
        (Strangers::Block, (false, false), false, None, false, (Reception::StrangerRefused, None)),
        (Strangers::Block, (true, false), false, None, false, (Reception::Open, None)),
        (Strangers::Block, (false, false), true, None, false, (Reception::Open, None)),
        (Strangers::Block, (false, false), false, None, true, (Reception::Open, None)),
        (Strangers::Block, (false, false), false, Some(flags(false, true)), false, (Reception::Open, None)),
        (Strangers::Quarantine, (false, false), false, Some(flags(false, false)), false, (Reception::Request, marked)),
        (Strangers::Quarantine, (false, false), false, Some(flags(true, false)), false, (Reception::Request, None)),
        (Strangers::Quarantine, (false, true), false, None, true, (Reception::Blocked, None)),
    ] {
        let store = MemoryStore::new();
        let (ann, bob) = (uid("ann"), uid("bob"));
        let channel = channel(&store, &ChannelKey::person(&ann, &bob));
        let relation = Relation { contact: relation.0, blocked: relation.1 };
        commit(
            &store,
            vec![
                Record::UserSettings { uid: bob.clone(), settings: UserSettings { strangers } },
                Record::Relation { uid: bob.clone(), peer: ann.clone(), relation },
            ],
        );
        // What the sender decided is of no interest.
        let own = Relation { contact: false, blocked: true };
        commit(&store, vec![Record::Relation { uid: ann.clone(), peer: bob.clone(), relation: own }]);
        say(&store, channel, "ann", 1);
        if answered {
            say(&store, channel, "bob", 2);
        }
        if let Some(flags) = stored {
            commit(&store, vec![Record::ConversationFlags { channel, uid: bob.clone(), flags }]);
        }
        let received = receive(&store, Some(channel), (&bob, &ann), wrote, false).expect("reads");
        let case = format!("{strangers:?} {relation:?} {answered} {stored:?} {wrote}");
        assert_eq!((received.reception, received.mark), expected, "{case}");
    }
}

#[test]
fn where_strangers_are_welcome_three_questions_suffice() {
    let store = MemoryStore::new();
    let (ann, bob) = (uid("ann"), uid("bob"));
    let channel = channel(&store, &ChannelKey::person(&ann, &bob));
    let before = store.read_counts();
    assert_eq!(receive(&store, Some(channel), (&bob, &ann), false, false).expect("reads"), Received::OPEN);
    let after = store.read_counts();
    assert_eq!((after.view - before.view, after.log - before.log), (3, 0));
}

#[test]
fn what_a_message_refers_to_must_be_there() {
    let store = MemoryStore::new();
    let key = ChannelKey::named("g", ChannelType::Group).expect("valid");
    let (own, other) = (channel(&store, &key), channel(&store, &ChannelKey::person(&uid("ann"), &uid("bob"))));
    let uids = vec![uid("ann"), uid("bob")];
    commit(&store, vec![Record::MembersAdded { channel: own, join_floor: 0, uids }]);
    let (here, there) = (say(&store, own, "bob", 1), say(&store, other, "ann", 1));
    commit(&store, vec![Record::MessageRevoked { channel: own, seq: 1, by: None }]);
    let file = |name: &str, uploader: Option<&str>| {
        let file_id = FileId::new(name).expect("valid");
        let record = FileRecord {
            file_id: file_id.clone(),
            uploader: uploader.map(uid),
            name: "x".into(),
            mime: "text/plain".into(),
            size: 1,
            content: [0; 32],
        };
        commit(&store, vec![Record::File(Box::new(record))]);
        file_id
    };
    let (anns, bobs, unknown) = (file("a", Some("ann")), file("b", None), FileId::new("c").expect("valid"));
    let check = |extras: Extras, standing: Standing, held: &[FileId]| {
        let place = Place { key: &key, channel: Some(own), from_uid: &uid("ann"), standing };
        let checked = check_extras(&store, place, &extras, held).expect("reads");
        checked.map(|extras| extras.map(|extras| *extras)).map_err(|refusal| (refusal.code(), refusal.field()))
    };
    let client = |extras: Extras| check(extras, Standing::Client, &[]);
    let reply = |to| Extras { reply_to: Some(to), ..Extras::default() };
    assert_eq!(client(reply(here)), Ok(Some(reply(here))), "revoked, and still a place to answer");
    for wrong in [there, MessageId::new(1)] {
        assert_eq!(client(reply(wrong)), Err(("invalid", Some("reply_to"))));
    }
    let mentions = |uids: &[&str]| Extras { mentions: uids.iter().map(|u| uid(u)).collect(), ..Extras::default() };
    assert_eq!(client(mentions(&["bob", "ann", "eve", "bob"])), Ok(Some(mentions(&["bob"]))));
    assert_eq!(client(mentions(&["eve"])), Ok(None));
    let many: Vec<String> = (0..=MENTIONS_MAX).map(|n| format!("u{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(client(mentions(&many)), Err(("too_many", None)));
    assert_eq!(client(mentions(&many[1..])), Ok(None), "as many as allowed, none of them a member");
    let files = |files: &[&FileId]| Extras { files: files.iter().map(|f| (*f).clone()).collect(), ..Extras::default() };
    assert_eq!(client(files(&[&anns, &anns])), Ok(Some(files(&[&anns]))));
    assert_eq!(client(files(&[&bobs])), Err(("invalid", Some("files"))));
    assert_eq!(check(files(&[&bobs]), Standing::Trusted, &[]), Ok(Some(files(&[&bobs]))));
    assert_eq!(check(files(&[&bobs]), Standing::Client, std::slice::from_ref(&bobs)), Ok(Some(files(&[&bobs]))));
    assert_eq!(check(files(&[&unknown]), Standing::Trusted, &[]), Err(("invalid", Some("files"))));
    let all = Extras { mention_all: true, ..Extras::default() };
    assert_eq!(client(all.clone()), Ok(Some(all)));
}

#[test]
fn before_its_first_message_a_channel_has_the_members_of_its_name() {
    let store = MemoryStore::new();
    let mentions = Extras { mentions: vec![uid("bob"), uid("vic"), uid("eve")], ..Extras::default() };
    for (key, expected) in [
        (ChannelKey::person(&uid("ann"), &uid("bob")), vec![uid("bob")]),
        (ChannelKey::named("vic|shop", ChannelType::CustomerService).expect("valid"), vec![uid("vic")]),
    ] {
        let place = Place { key: &key, channel: None, from_uid: &uid("ann"), standing: Standing::Client };
        let checked = check_extras(&store, place, &mentions, &[]).expect("reads").expect("is fine");
        assert_eq!(checked.expect("something is left").mentions, expected);
        let reply = Extras { reply_to: Some(MessageId::new(7)), ..Extras::default() };
        assert!(check_extras(&store, place, &reply, &[]).expect("reads").is_err());
    }
}
