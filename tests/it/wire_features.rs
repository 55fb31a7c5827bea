//! Proves, on the native wire: whatever becomes of messages, conversations and groups is answered to who asks for it, told to
//! who is online at once, and to who comes back by sync; what is refused names why, and nothing changes.

use protocol::native::{
    ChangedItem, Changes, ChannelEvent, ClientFrame, Edit, Encoding, Event, Expel, Flags, FlagsEvent, GiveRole, Group,
    Invite, Leave, MemberItem, Members, MembersList, MessageChange, MessageEvent, MessageItem, MessageState, Messages,
    Profile, ProfileNow, React, Reaction, ReadBy, Readers, Refused, Relation, RelationItem, Relations, Revoke, Role,
    Row, Search, Send, ServerFrame, Settings, Strangers,
};

use crate::harness::{Client, Server};

/// Asks and waits for whatever answers.
async fn ask(
    client: &mut Client,
    build: impl FnOnce(u64) -> ClientFrame<'static>,
) -> Result<ServerFrame<'static>, Refused<'static>> {
    let asked = client.seq();
    client.send(&build(asked)).await;
    client
        .expect(|frame| {
            let answers = match frame {
                ServerFrame::Refused(refused) if refused.client_seq == asked => return Some(Err(refused.clone())),
                ServerFrame::Done(done) => done.client_seq,
                ServerFrame::Messages(messages) => messages.client_seq,
                ServerFrame::Changes(changes) => changes.client_seq,
                ServerFrame::Readers(readers) => readers.client_seq,
                ServerFrame::Relations(list) => list.client_seq,
                ServerFrame::Settings(settings) => settings.client_seq,
                ServerFrame::Profile(profile) => profile.client_seq,
                ServerFrame::Members(list) => list.client_seq,
                _ => return None,
            };
            (answers == asked).then(|| Ok(frame.clone()))
        })
        .await
}

/// Asks for what is answered by `done`; its version.
async fn done(client: &mut Client, build: impl FnOnce(u64) -> ClientFrame<'static>) -> u64 {
    match ask(client, build).await {
        Ok(ServerFrame::Done(done)) => done.version,
        other => panic!("expected done, got {other:?}"),
    }
}

/// Asks for what must be refused; the code.
async fn refused(client: &mut Client, build: impl FnOnce(u64) -> ClientFrame<'static>) -> String {
    ask(client, build).await.expect_err("must be refused").code.into_owned()
}

fn revoke(channel_id: &'static str, channel_type: u8, message_seq: u64) -> impl FnOnce(u64) -> ClientFrame<'static> {
    move |client_seq| {
        ClientFrame::Revoke(Revoke { client_seq, channel_id: channel_id.into(), channel_type, message_seq })
    }
}

fn edit(message_seq: u64, payload: &'static [u8]) -> impl FnOnce(u64) -> Edit<'static> {
    move |client_seq| Edit {
        client_seq,
        channel_id: "crew".into(),
        channel_type: 2,
        message_seq,
        payload: payload.into(),
        reply_to: 0,
        mentions: Vec::new(),
        mention_all: false,
        files: Vec::new(),
    }
}

fn react(message_seq: u64, reaction: Reaction) -> impl FnOnce(u64) -> ClientFrame<'static> {
    move |client_seq| {
        ClientFrame::React(React { client_seq, channel_id: "crew".into(), channel_type: 2, message_seq, reaction })
    }
}

fn search(text: &'static str, last_seq: u64, limit: u32) -> impl FnOnce(u64) -> ClientFrame<'static> {
    move |client_seq| {
        ClientFrame::Search(Search {
            client_seq,
            channel_id: "crew".into(),
            channel_type: 2,
            text: text.into(),
            first_seq: 0,
            last_seq,
            limit,
            oldest_first: false,
        })
    }
}

async fn found(client: &mut Client, build: impl FnOnce(u64) -> ClientFrame<'static>) -> Messages<'static> {
    match ask(client, build).await {
        Ok(ServerFrame::Messages(messages)) => messages,
        other => panic!("expected messages, got {other:?}"),
    }
}

fn seqs(messages: &[MessageItem<'_>]) -> Vec<u64> {
    messages.iter().map(|message| message.message_seq).collect()
}

async fn message_event(client: &mut Client) -> MessageEvent<'static> {
    client
        .event(|event| match event {
            Event::Message(event) => Some(event.clone()),
            _ => None,
        })
        .await
}

/// The first event about a channel that says this; making a group tells its members of its parts too.
async fn channel_event(client: &mut Client, says: impl Fn(&ChannelEvent<'_>) -> bool) -> ChannelEvent<'static> {
    client
        .event(|event| match event {
            Event::Channel(event) if says(event) => Some(event.clone()),
            _ => None,
        })
        .await
}

async fn flags_event(client: &mut Client) -> FlagsEvent<'static> {
    client
        .event(|event| match event {
            Event::Flags(event) => Some(event.clone()),
            _ => None,
        })
        .await
}

/// The row of a channel in what changed since a version.
async fn row(client: &mut Client, version: u64, channel_id: &str) -> Option<Row<'static>> {
    let synced = client
        .sync(|sync| {
            sync.version = version;
            sync.msg_count = 1;
        })
        .await
        .expect("synced");
    synced.rows.into_iter().find(|row| row.channel_id == channel_id)
}

/// Alice and Bob in a group of three, Bob in JSON.
async fn crew() -> (Server, Client, Client) {
    let server = Server::on_memory().await;
    server.group("crew", &["alice", "bob", "carol"]).await;
    let alice = server.connect("alice").await;
    let token = server.user("bob").await;
    let bob = Client::connect(&server, &token, Encoding::Json, |_| {}).await;
    (server, alice, bob)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_message_refers_to_reaches_its_readers() {
    let (server, mut alice, mut bob) = crew().await;
    let first = alice.say("crew", 2, b"who sails?").await;
    bob.delivered().await;
    let send = Send {
        reply_to: first.message_id,
        mentions: vec!["alice".into(), "carol".into(), "alice".into()],
        mention_all: false,
        ..bob.message("crew", 2, b"I do")
    };
    let second = bob.ask_send(send).await.expect("stored");
    let refers = |item: &MessageItem<'_>| {
        let mentions: Vec<String> = item.mentions.iter().map(ToString::to_string).collect();
        (item.message_seq, item.reply_to, mentions, item.mention_all)
    };
    let expected = (2, first.message_id, vec!["alice".to_owned(), "carol".to_owned()], false);
    let delivered = alice
        .expect(|frame| match frame {
            ServerFrame::Deliver(deliver) => Some(refers(&deliver.messages[0])),
            _ => None,
        })
        .await;
    assert_eq!(delivered, expected);
    assert_eq!(second.message_seq, 2);
    let history = alice.whole_history("crew", 2, 1, 0).await;
    assert_eq!(refers(&history[1]), expected);
    // Who was away finds it by sync, and that it mentions her.
    let mut carol = server.connect("carol").await;
    let row = row(&mut carol, 0, "crew").await.expect("a row");
    assert_eq!((refers(&row.recents[0]), row.mentions, row.unread), (expected, 1, 2));
    // What is no uid, and what is no message of this channel, is refused.
    let wrong = Send { mentions: vec!["a@b".into()], ..bob.message("crew", 2, b"x") };
    assert_eq!(bob.ask_send(wrong).await.expect_err("refused").field.as_deref(), Some("mentions"));
    let wrong = Send { reply_to: 1, ..bob.message("crew", 2, b"x") };
    bob.ask_send(wrong).await.expect_err("refused");
    assert_eq!(alice.whole_history("crew", 2, 1, 0).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_taken_back_for_everybody() {
    let (server, mut alice, mut bob) = crew().await;
    let mut carol = server.connect("carol").await;
    alice.say("crew", 2, b"oops").await;
    carol.delivered().await;
    let before = carol.sync(|_| {}).await.expect("synced").version;
    drop(carol);
    assert_eq!(refused(&mut bob, revoke("crew", 2, 1)).await, "forbidden");
    assert_eq!(refused(&mut alice, revoke("crew", 2, 9)).await, "not_found");
    let version = done(&mut alice, revoke("crew", 2, 1)).await;
    let event = message_event(&mut bob).await;
    assert_eq!(
        (&*event.channel_id, event.message_seq, event.version, event.what, &*event.by),
        ("crew", 1, version, MessageChange::Revoked, "alice")
    );
    let history = bob.whole_history("crew", 2, 1, 0).await;
    assert_eq!((history[0].state, history[0].payload.len()), (MessageState::Revoked, 0));
    // Again: success. Afterwards nothing can be done to it.
    done(&mut alice, revoke("crew", 2, 1)).await;
    assert_eq!(refused(&mut bob, react(1, Reaction::Like)).await, "message_gone");
    let again = edit(1, b"x");
    assert_eq!(refused(&mut alice, |seq| ClientFrame::Edit(again(seq))).await, "message_gone");
    let mut carol = server.connect("carol").await;
    let row = row(&mut carol, before, "crew").await.expect("a changed row");
    assert_eq!((row.changed, row.unread), (vec![1], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_reactions_reach_who_is_there_and_who_comes_back() {
    let (server, mut alice, mut bob) = crew().await;
    let mut carol = server.connect("carol").await;
    let first = alice.say("crew", 2, b"helo").await;
    alice.say("crew", 2, b"second").await;
    let before = carol.sync(|_| {}).await.expect("synced").version;
    drop(carol);
    let mut build = edit(1, b"hello")(0);
    (build.mentions, build.mention_all) = (vec!["bob".into()], true);
    let edited = done(&mut alice, |client_seq| ClientFrame::Edit(Edit { client_seq, ..build })).await;
    let event = message_event(&mut bob).await;
    assert_eq!((event.message_seq, event.version, event.what), (1, edited, MessageChange::Edited));
    assert_eq!((&*event.payload, &*event.by, event.mention_all), (b"hello".as_slice(), "alice", true));
    assert_eq!(event.mentions, ["bob"]);
    let others = edit(1, b"mine now");
    assert_eq!(refused(&mut bob, |seq| ClientFrame::Edit(others(seq))).await, "forbidden");
    done(&mut bob, react(1, Reaction::Like)).await;
    let event = message_event(&mut alice).await;
    // Her own edit is told to her other sessions only if at all; the reaction is.
    let event = if event.what == MessageChange::Edited { message_event(&mut alice).await } else { event };
    assert_eq!((event.what, &*event.by, event.reaction), (MessageChange::Reacted, "bob", Reaction::Like));
    let last = done(&mut bob, react(1, Reaction::Dislike)).await;
    let history = alice.whole_history("crew", 2, 1, 0).await;
    assert_eq!((&*history[0].payload, history[0].edited), (b"hello".as_slice(), edited));
    assert_eq!((history[0].likes.len(), &history[0].dislikes), (0, &vec!["bob".into()]));
    assert_eq!(history[0].message_id, first.message_id);
    let unknown = ask(&mut bob, react(1, Reaction::Unknown)).await.expect_err("refused");
    assert_eq!(unknown.field.as_deref(), Some("reaction"));
    // Who was away: the row names what changed, changes name when, history has what.
    let mut carol = server.connect("carol").await;
    let row = row(&mut carol, before, "crew").await.expect("a changed row");
    assert_eq!((row.changed, row.changed_more), (vec![1], false));
    let changes = |since, limit| {
        move |client_seq| {
            ClientFrame::Changes(Changes { client_seq, channel_id: "crew".into(), channel_type: 2, since, limit })
        }
    };
    let Ok(ServerFrame::Changes(page)) = ask(&mut carol, changes(before, 10)).await else { panic!("no changes") };
    assert_eq!((page.items, page.more), (vec![ChangedItem { message_seq: 1, version: last }], false));
    let Ok(ServerFrame::Changes(page)) = ask(&mut carol, changes(last, 10)).await else { panic!("no changes") };
    assert_eq!(page.items, []);
    done(&mut bob, react(1, Reaction::None)).await;
    let history = alice.whole_history("crew", 2, 1, 0).await;
    assert!(history[0].dislikes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_told_from_read_positions() {
    let (_server, mut alice, mut bob) = crew().await;
    alice.say("crew", 2, b"read me").await;
    let read_by = |client_seq| {
        ClientFrame::ReadBy(ReadBy { client_seq, channel_id: "crew".into(), channel_type: 2, message_seq: 1, limit: 0 })
    };
    let readers = |answer: Result<ServerFrame<'static>, Refused<'static>>| match answer {
        Ok(ServerFrame::Readers(Readers { uids, of, more, message_seq: 1, .. })) => (uids, of, more),
        other => panic!("expected readers, got {other:?}"),
    };
    assert_eq!(readers(ask(&mut alice, read_by).await), (vec![], 2, false));
    let client_seq = bob.seq();
    let read = protocol::native::Read { client_seq, channel_id: "crew".into(), channel_type: 2, message_seq: 1 };
    bob.ask_done(client_seq, ClientFrame::Read(read)).await.expect("read");
    assert_eq!(readers(ask(&mut alice, read_by).await), (vec!["bob".into()], 2, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_begun_after_an_ack_finds_the_message() {
    let (server, mut alice, mut bob) = crew().await;
    for text in ["Çay var mı?", "no", "çay, 100% siyah", "ÇAY"] {
        alice.say("crew", 2, text.as_bytes()).await;
    }
    let page = found(&mut bob, search("çay", 0, 2)).await;
    assert_eq!((seqs(&page.messages), page.head_seq), (vec![4, 3], 4));
    let rest = found(&mut bob, search("çay", page.resume.expect("there is more"), 2)).await;
    assert_eq!((seqs(&rest.messages), rest.resume), (vec![1], None));
    assert_eq!(seqs(&found(&mut bob, search("100%", 0, 0)).await.messages), [3]);
    assert!(found(&mut bob, search("1.*%", 0, 0)).await.messages.is_empty());
    done(&mut alice, revoke("crew", 2, 3)).await;
    assert!(found(&mut bob, search("100%", 0, 0)).await.messages.is_empty());
    let mut eve = server.connect("eve").await;
    assert_eq!(refused(&mut eve, search("çay", 0, 0)).await, "not_member");
    assert_eq!(refused(&mut bob, search("", 0, 0)).await, "invalid");
}

fn flags(
    pinned: Option<bool>,
    muted: Option<bool>,
    accepted: Option<bool>,
) -> impl FnOnce(u64) -> ClientFrame<'static> {
    move |client_seq| {
        let (channel_id, channel_type) = ("alice".into(), 1);
        ClientFrame::Flags(Flags { client_seq, channel_id, channel_type, pinned, muted, accepted })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_of_a_conversation_reach_the_other_devices() {
    let (_server, mut alice, mut bob) = crew().await;
    let server = &_server;
    alice.say("bob", 1, b"hi").await;
    bob.delivered().await;
    let mut bob2 = server.connect("bob").await;
    let before = bob2.sync(|_| {}).await.expect("synced").version;
    let version = done(&mut bob, flags(Some(true), Some(true), None)).await;
    let event = flags_event(&mut bob2).await;
    assert_eq!((&*event.channel_id, event.version, event.pinned, event.muted), ("alice", version, true, true));
    done(&mut bob, flags(None, Some(false), None)).await;
    assert!(!flags_event(&mut bob2).await.muted);
    let row = row(&mut bob2, before, "alice").await.expect("a changed row");
    assert_eq!((row.pinned, row.muted, row.unread), (true, false, 1));
    // Nobody else is told.
    let own = |frame: &ServerFrame<'_>| matches!(frame, ServerFrame::Event(Event::Flags(_)));
    assert!(!alice.pending().await.iter().any(own));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_asked_about_and_blocked_users_write_nothing() {
    let (server, mut alice, mut bob) = crew().await;
    let settings = |strangers| move |client_seq| ClientFrame::Settings(Settings { client_seq, strangers });
    let now = |answer: Result<ServerFrame<'static>, Refused<'static>>| match answer {
        Ok(ServerFrame::Settings(settings)) => settings.strangers,
        other => panic!("expected settings, got {other:?}"),
    };
    assert_eq!(now(ask(&mut bob, settings(None)).await), Strangers::Allow);
    assert_eq!(now(ask(&mut bob, settings(Some(Strangers::Quarantine))).await), Strangers::Quarantine);
    assert_eq!(now(ask(&mut bob, settings(None)).await), Strangers::Quarantine);
    alice.say("bob", 1, b"do you know me?").await;
    assert!(row(&mut bob, 0, "alice").await.expect("a row").request);
    done(&mut bob, flags(None, None, Some(true))).await;
    assert!(!row(&mut bob, 0, "alice").await.expect("a row").request);
    now(ask(&mut bob, settings(Some(Strangers::Block))).await);
    let mut eve = server.connect("eve").await;
    let stranger = eve.message("bob", 1, b"hello");
    assert_eq!(eve.ask_send(stranger).await.expect_err("refused").code, "stranger_refused");
    let unknown = ask(&mut bob, settings(Some(Strangers::Unknown))).await.expect_err("refused");
    assert_eq!(unknown.field.as_deref(), Some("strangers"));

    let relation = |uid: &'static str, contact, blocked| {
        move |client_seq| ClientFrame::Relation(Relation { client_seq, uid: uid.into(), contact, blocked })
    };
    let list = |answer: Result<ServerFrame<'static>, Refused<'static>>| match answer {
        Ok(ServerFrame::Relations(list)) => list.relations,
        other => panic!("expected relations, got {other:?}"),
    };
    let blocked = RelationItem { uid: "alice".into(), contact: false, blocked: true };
    assert_eq!(list(ask(&mut bob, relation("alice", None, Some(true))).await), [blocked.clone()]);
    let message = alice.message("bob", 1, b"still there?");
    assert_eq!(alice.ask_send(message).await.expect_err("refused").code, "blocked");
    list(ask(&mut bob, relation("eve", Some(true), None)).await);
    eve.say("bob", 1, b"now I may").await;
    let eve_now = RelationItem { uid: "eve".into(), contact: true, blocked: false };
    let all = |client_seq| ClientFrame::Relations(Relations { client_seq });
    assert_eq!(list(ask(&mut bob, all).await), [blocked, eve_now]);
    list(ask(&mut bob, relation("alice", None, Some(false))).await);
    alice.say("bob", 1, b"thanks").await;
    assert_eq!(refused(&mut bob, relation("bob", None, Some(true))).await, "invalid");
}

async fn members(client: &mut Client, id: &str, skip: u32, limit: u32) -> MembersList<'static> {
    let channel_id = id.to_owned();
    let members = move |client_seq| {
        ClientFrame::Members(Members { client_seq, channel_id: channel_id.into(), channel_type: 2, skip, limit })
    };
    match ask(client, members).await {
        Ok(ServerFrame::Members(list)) => list,
        other => panic!("expected members, got {other:?}"),
    }
}

fn listed(list: &MembersList<'_>) -> Vec<(String, Role)> {
    list.members.iter().map(|MemberItem { uid, role }| (uid.to_string(), *role)).collect()
}

async fn profile(client: &mut Client, id: &str, name: Option<&'static str>) -> Result<ProfileNow<'static>, String> {
    let channel_id = id.to_owned();
    let profile = move |client_seq| {
        let (name, icon, description) = (name.map(Into::into), None, None);
        ClientFrame::Profile(Profile {
            client_seq,
            channel_id: channel_id.into(),
            channel_type: 2,
            name,
            icon,
            description,
        })
    };
    match ask(client, profile).await {
        Ok(ServerFrame::Profile(profile)) => Ok(profile),
        Err(refused) => Err(refused.code.into_owned()),
        other => panic!("expected a profile, got {other:?}"),
    }
}

async fn joined_or_left(client: &mut Client) -> (String, Vec<String>, Vec<String>) {
    let names = |uids: &[std::borrow::Cow<'_, str>]| uids.iter().map(ToString::to_string).collect();
    client
        .event(|event| match event {
            Event::Member(event) => Some((event.channel_id.to_string(), names(&event.joined), names(&event.left))),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn users_make_and_keep_groups() {
    let (server, mut alice, mut bob) = crew().await;
    let mut dave = server.connect("dave").await;
    let group = |client_seq| {
        ClientFrame::Group(Group {
            client_seq,
            name: "Sailors".into(),
            icon: "".into(),
            description: "Who sails".into(),
            members: vec!["bob".into()],
        })
    };
    let Ok(ServerFrame::Profile(made)) = ask(&mut alice, group).await else { panic!("no group") };
    assert_eq!((made.channel_type, &*made.name, &*made.creator), (2, "Sailors", "alice"));
    let id = made.channel_id.into_owned();
    assert_eq!(joined_or_left(&mut bob).await, (id.clone(), vec!["bob".into()], vec![]));
    assert_eq!(
        listed(&members(&mut bob, &id, 0, 0).await),
        [("alice".into(), Role::Owner), ("bob".into(), Role::Member)]
    );
    assert_eq!(profile(&mut bob, &id, None).await.expect("read").description, "Who sails");
    assert_eq!(profile(&mut bob, &id, Some("Mine")).await, Err("forbidden".into()));
    assert_eq!(profile(&mut dave, &id, None).await.map(drop), Err("not_member".into()));
    // Another name: what was not named stays, and members are told.
    assert_eq!(profile(&mut alice, &id, Some("The sailors")).await.expect("changed").description, "Who sails");
    let event = channel_event(&mut bob, |event| event.name.as_deref() == Some("The sailors")).await;
    assert_eq!((&*event.channel_id, event.description.as_deref()), (&*id, Some("Who sails")));

    let channel = || id.clone().into();
    let give = |uid: &'static str, role| {
        let channel_id = channel();
        move |client_seq| ClientFrame::Role(GiveRole { client_seq, channel_id, channel_type: 2, uid: uid.into(), role })
    };
    assert_eq!(refused(&mut bob, give("bob", Role::Admin)).await, "forbidden");
    done(&mut alice, give("bob", Role::Admin)).await;
    let is_bobs = |event: &ChannelEvent<'_>| event.roles.iter().any(|item| item.uid == "bob");
    let event = channel_event(&mut bob, is_bobs).await;
    assert_eq!((event.roles[0].role, event.roles.len(), event.name), (Role::Admin, 1, None));

    // An admin invites and removes.
    let channel_id = channel();
    let invite = |client_seq| {
        ClientFrame::Invite(Invite {
            client_seq,
            channel_id,
            channel_type: 2,
            uids: vec!["dave".into(), "erin".into()],
        })
    };
    done(&mut bob, invite).await;
    assert_eq!(joined_or_left(&mut dave).await.1, ["dave"]);
    let page = members(&mut dave, &id, 1, 2).await;
    assert_eq!(
        (listed(&page), page.of, page.more),
        (vec![("bob".into(), Role::Admin), ("dave".into(), Role::Member)], 4, true)
    );
    dave.say(&id, 2, b"hello").await;
    let before = dave.sync(|_| {}).await.expect("synced").version;
    let channel_id = channel();
    let expel =
        |client_seq| ClientFrame::Expel(Expel { client_seq, channel_id, channel_type: 2, uids: vec!["dave".into()] });
    done(&mut bob, expel).await;
    assert_eq!(joined_or_left(&mut dave).await.2, ["dave"]);
    // Who was removed reads nothing any more, and finds it gone.
    assert_eq!(dave.history(&id, 2, 1, 0).await.expect_err("refused").code, "not_member");
    assert!(row(&mut dave, before, &id).await.expect("a tombstone").is_deleted);
    let none = {
        let channel_id = channel();
        move |client_seq| ClientFrame::Invite(Invite { client_seq, channel_id, channel_type: 2, uids: vec![] })
    };
    assert_eq!(ask(&mut bob, none).await.expect_err("refused").field.as_deref(), Some("uids"));

    // The owner leaves: the admin owns it.
    let channel_id = channel();
    done(&mut alice, |client_seq| ClientFrame::Leave(Leave { client_seq, channel_id, channel_type: 2 })).await;
    assert_eq!(listed(&members(&mut bob, &id, 0, 1).await), [("bob".into(), Role::Owner)]);
    assert_eq!(profile(&mut alice, &id, None).await.map(drop), Err("not_member".into()));
}
