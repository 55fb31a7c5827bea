//! Proves the rules of messages, groups, people, chats and files through a running server's hub: who may what, what a
//! recipient decided holds from the moment it is answered, what a message refers to is checked in order, every change
//! reaches who is online and the next sync, and one unread is shown everywhere.

use bytes::Bytes;
use chinwag::clock;
use chinwag::domain::channel::{ChannelProfile, Role, Standing, chat_id};
use chinwag::domain::message::{Draft, Durability, Extras, MessageFlags, MessageState, Reaction};
use chinwag::domain::refusal::Refusal;
use chinwag::domain::user::{Strangers, UserSettings};
use chinwag::hub::chats::{ChatRow, ChatsQuery};
use chinwag::hub::conversations::SyncRequest;
use chinwag::hub::files::NewFile;
use chinwag::hub::groups::NewGroup;
use chinwag::hub::messages::Search;
use chinwag::hub::people::{FlagsChange, RelationChange};
use chinwag::hub::{Reader, Sent};
use chinwag::store::Store as _;
use futures_util::future::join_all;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, FileId, MessageId, Uid, Version};
use protocol::native::ServerFrame;

use crate::harness::{Client, Server, group};

fn uid(text: &str) -> Uid {
    Uid::new(text).expect("valid uid")
}

fn pair(a: &str, b: &str) -> ChannelKey {
    ChannelKey::person(&uid(a), &uid(b))
}

fn user(text: &str) -> Reader {
    Reader::User(uid(text))
}

fn draft(from: &str, channel: &ChannelKey, text: &str) -> Draft {
    Draft {
        channel: channel.clone(),
        from_uid: uid(from),
        client_msg_no: None,
        flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload: Bytes::from(text.to_owned()),
        extras: None,
        durability: Durability::Disk,
    }
}

fn with(extras: Extras, draft: Draft) -> Draft {
    Draft { extras: extras.boxed(), ..draft }
}

async fn try_say(server: &Server, from: &str, channel: &ChannelKey, text: &str) -> Result<Sent, Refusal> {
    server.app.hub().send(draft(from, channel, text), Standing::Client).await
}

async fn say(server: &Server, from: &str, channel: &ChannelKey, text: &str) -> u64 {
    let sent = try_say(server, from, channel, text).await.expect("stored");
    sent.message_seq.expect("has a seq").get()
}

async fn strangers(server: &Server, who: &str, strangers: Strangers) {
    server.app.hub().put_user_settings(uid(who), UserSettings { strangers }).await.expect("settings");
}

async fn relate(server: &Server, who: &str, peer: &str, contact: Option<bool>, blocked: Option<bool>) {
    let change = RelationChange { contact, blocked };
    server.app.hub().put_relation(uid(who), uid(peer), change).await.expect("relation");
}

async fn chats(server: &Server, who: &str) -> Vec<ChatRow> {
    listed(server, who, false).await
}

async fn listed(server: &Server, who: &str, requests: bool) -> Vec<ChatRow> {
    let query = ChatsQuery { with_empty: false, requests, skip: 0, limit: 100 };
    server.app.hub().chats(uid(who), query).await.expect("chats")
}

fn keys(rows: &[ChatRow]) -> Vec<&ChannelKey> {
    rows.iter().map(|row| &row.key).collect()
}

async fn head(server: &Server, key: &ChannelKey) -> u64 {
    let query = chinwag::hub::conversations::HistoryQuery {
        first: 0,
        last: 0,
        limit: 1,
        bytes_max: 1_000_000,
        newest_first: true,
    };
    server.app.hub().history(Reader::Trusted, key.clone(), query).await.expect("history").head_seq
}

async fn hears_an_event(client: &mut Client) {
    client.expect(|frame| matches!(frame, ServerFrame::Event(_)).then_some(())).await;
}

// People.

#[tokio::test(flavor = "multi_thread")]
async fn what_a_recipient_decided_holds_from_the_next_message_on() {
    let server = Server::on_memory().await;
    let key = pair("ann", "bob");
    assert_eq!(say(&server, "ann", &key, "1").await, 1);
    // The lane is warm and has cached that everything is open; each decision must reach it before it is answered.
    for round in 0..20 {
        relate(&server, "bob", "ann", None, Some(true)).await;
        assert_eq!(try_say(&server, "ann", &key, "no").await, Err(Refusal::Blocked), "round {round}");
        // The one who blocked may still write: what one decides is about what arrives.
        say(&server, "bob", &key, "from bob").await;
        relate(&server, "bob", "ann", None, Some(false)).await;
        say(&server, "ann", &key, "yes").await;
    }
    assert_eq!(head(&server, &key).await, 41);
    relate(&server, "bob", "ann", None, Some(true)).await;
    let trusted = server.app.hub().send(draft("ann", &key, "notice"), Standing::Trusted).await.expect("stored");
    assert_eq!(trusted.message_seq.expect("seq").get(), 42, "back ends are not asked");
    assert_eq!(
        server.app.hub().put_relation(uid("bob"), uid("bob"), RelationChange::default()).await.map_err(|r| r.code()),
        Err("invalid")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_talks_is_asked_about_once() {
    let (server, store) = Server::on_shared_memory(|_| {}).await;
    let key = pair("ann", "bob");
    for from in ["ann", "bob"] {
        strangers(&server, from, Strangers::Quarantine).await;
        say(&server, from, &key, "hello").await;
    }
    // The request that answering ended was a decision too: one more question each.
    for from in ["ann", "bob"] {
        say(&server, from, &key, "hello").await;
    }
    let before = store.read_counts();
    for from in ["ann", "bob", "ann", "bob"] {
        say(&server, from, &key, "more").await;
    }
    assert_eq!(store.read_counts(), before, "nothing was decided, so nothing is asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refuses_strangers_stores_nothing_of_them() {
    let server = Server::on_memory().await;
    let key = pair("ann", "bob");
    strangers(&server, "bob", Strangers::Block).await;
    assert_eq!(try_say(&server, "ann", &key, "hi").await, Err(Refusal::StrangerRefused));
    assert_eq!(server.app.hub().resolve_chat(Reader::Trusted, &chat_id(&key)).await, Err(Refusal::ChannelNotFound));
    server.app.hub().send(draft("ann", &key, "notice"), Standing::Trusted).await.expect("stored");
    assert_eq!(try_say(&server, "ann", &key, "hi").await, Err(Refusal::StrangerRefused));
    // Writing makes the other a correspondent, at once, before it is on disk, and for good.
    let outcomes = join_all([try_say(&server, "bob", &key, "hello ann"), try_say(&server, "ann", &key, "hi")]).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    strangers(&server, "bob", Strangers::Block).await;
    assert_eq!(say(&server, "ann", &key, "hi again").await, 4);
    let other = pair("ann", "carl");
    strangers(&server, "carl", Strangers::Block).await;
    assert_eq!(try_say(&server, "ann", &other, "hi").await, Err(Refusal::StrangerRefused));
    relate(&server, "carl", "ann", Some(true), None).await;
    assert_eq!(say(&server, "ann", &other, "hi").await, 1);
    // To oneself one is no stranger.
    strangers(&server, "ann", Strangers::Block).await;
    assert_eq!(say(&server, "ann", &pair("ann", "ann"), "note").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_in_quarantine_is_a_request_until_answered_or_accepted() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    for who in ["bob", "carl"] {
        strangers(&server, who, Strangers::Quarantine).await;
    }
    let (to_bob, to_carl) = (pair("ann", "bob"), pair("ann", "carl"));
    let sends = ["1", "2", "3"].map(|text| try_say(&server, "ann", &to_bob, text));
    assert!(join_all(sends).await.iter().all(Result::is_ok), "a request may be more than one message");
    // What a back end says in a stranger's name makes no request; what the stranger says then does.
    hub.send(draft("ann", &to_carl, "order shipped"), Standing::Trusted).await.expect("stored");
    assert!(listed(&server, "carl", true).await.is_empty());
    say(&server, "ann", &to_carl, "hi").await;
    assert_eq!(keys(&listed(&server, "bob", true).await), [&to_bob]);
    assert!(chats(&server, "bob").await.is_empty());
    assert_eq!(keys(&chats(&server, "ann").await), [&to_carl, &to_bob], "for the sender it is a chat like any other");
    assert_eq!(hub.unread_totals(uid("bob")).await, Ok((0, 0)), "requests are not in the totals");
    let row = &hub.sync(SyncRequest::full(uid("bob"), 1)).await.expect("synced").rows[0];
    assert_eq!((row.request, row.unread), (true, 3));
    // Answering is accepting.
    say(&server, "bob", &to_bob, "hello").await;
    assert!(listed(&server, "bob", true).await.is_empty());
    let row = &chats(&server, "bob").await[0];
    assert!(!row.is_request && !row.flags.request);
    // So is saying so; what comes then is no request again.
    let before = hub.chat(uid("carl"), to_carl.clone()).await.expect("row");
    assert!(before.is_request && before.unread == 2);
    let accept = FlagsChange { accepted: Some(true), ..FlagsChange::default() };
    let version = hub.set_flags(uid("carl"), to_carl.clone(), accept).await.expect("accepted");
    assert!(version > before.version);
    say(&server, "ann", &to_carl, "thanks").await;
    let row = hub.chat(uid("carl"), to_carl.clone()).await.expect("row");
    assert_eq!((row.is_request, row.flags.accepted, row.unread), (false, true, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_alone_are_a_change_that_other_devices_learn_of() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    let key = pair("ann", "bob");
    say(&server, "ann", &key, "hi").await;
    let mut bob = server.connect("bob").await;
    let at = hub.sync(SyncRequest::full(uid("bob"), 1)).await.expect("synced").version;
    let mute = FlagsChange { pinned: Some(true), muted: Some(true), accepted: None };
    let version = hub.set_flags(uid("bob"), key.clone(), mute).await.expect("set");
    hears_an_event(&mut bob).await;
    let since = SyncRequest { version: at, ..SyncRequest::full(uid("bob"), 1) };
    let answer = hub.sync(since.clone()).await.expect("synced");
    let [row] = &answer.rows[..] else { panic!("{answer:?}") };
    assert_eq!((row.pinned, row.muted, row.version, row.unread), (true, true, version, 1));
    assert!(row.changed.is_empty());
    assert_eq!(hub.unread_totals(uid("bob")).await, Ok((0, 0)), "muted is not in the totals");
    // Saying it again changes nothing.
    hub.set_flags(uid("bob"), key.clone(), mute).await.expect("set");
    let again = SyncRequest { version: answer.version, ..since };
    assert!(hub.sync(again).await.expect("synced").rows.is_empty());
    assert_eq!(hub.set_flags(uid("eve"), key, mute).await, Err(Refusal::NotMember));
    assert_eq!(hub.set_flags(uid("bob"), pair("bob", "zoe"), mute).await, Err(Refusal::ChannelNotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_that_decide_at_once_both_win() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    for round in 0..20 {
        let peer = uid(&format!("peer-{round}"));
        let contact = RelationChange { contact: Some(true), blocked: None };
        let blocked = RelationChange { contact: None, blocked: Some(true) };
        let (a, b) = tokio::join!(
            hub.put_relation(uid("ann"), peer.clone(), contact),
            hub.put_relation(uid("ann"), peer.clone(), blocked)
        );
        a.and(b).expect("both are answered");
    }
    let relations = hub.relations(uid("ann")).await.expect("relations");
    assert_eq!(relations.len(), 20);
    assert!(relations.iter().all(|(_, relation)| relation.contact && relation.blocked));
}

#[tokio::test(flavor = "multi_thread")]
async fn known_users_are_told_from_unknown_ones() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    hub.create_user(uid("made")).await.expect("made");
    hub.create_user(uid("made")).await.expect("made twice");
    server.user("with-token").await;
    server.group("g", &["member"]).await;
    say(&server, "sender", &pair("sender", "sender"), "x").await;
    let known = ["made", "with-token", "member", "sender"].map(uid).to_vec();
    assert_eq!(hub.require_known(known.clone()).await, Ok(()));
    let unknown = [known, vec![uid("nobody")]].concat();
    assert_eq!(hub.require_known(unknown).await, Err(Refusal::NotFound { what: "user" }));
}

// What messages refer to.

#[tokio::test(flavor = "multi_thread")]
async fn what_a_message_refers_to_is_checked_and_keeps_its_senders_order() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    server.group("g", &["ann", "bob", "carl"]).await;
    server.group("other", &["ann"]).await;
    let key = group("g");
    let first = try_say(&server, "bob", &key, "first").await.expect("stored").message_id;
    let elsewhere = try_say(&server, "ann", &group("other"), "x").await.expect("stored").message_id;
    let mentions = |uids: &[&str]| Extras { mentions: uids.iter().map(|u| uid(u)).collect(), ..Extras::default() };
    let reply = |to| Extras { reply_to: Some(to), ..Extras::default() };
    let sends = [
        with(mentions(&["bob", "ann", "bob", "stranger"]), draft("ann", &key, "2")),
        draft("ann", &key, "3"),
        with(reply(elsewhere), draft("ann", &key, "refused")),
        with(reply(first), draft("ann", &key, "4")),
        with(mentions(&["stranger"]), draft("ann", &key, "5")),
        draft("ann", &key, "6"),
    ];
    let outcomes = join_all(sends.map(|draft| hub.send(draft, Standing::Client))).await;
    let seqs: Vec<Option<u64>> =
        outcomes.iter().map(|sent| sent.as_ref().ok().map(|sent| sent.message_seq.expect("seq").get())).collect();
    assert_eq!(seqs, [Some(2), Some(3), None, Some(4), Some(5), Some(6)]);
    assert_eq!(outcomes[2].as_ref().expect_err("refused").field(), Some("reply_to"));
    let id = |i: usize| outcomes[i].as_ref().expect("stored").message_id;
    let stored = |id: MessageId| async move { hub.message(user("ann"), id).await.expect("message").extras };
    assert_eq!(stored(id(0)).await, mentions(&["bob"]).boxed(), "members, once, not oneself");
    assert_eq!(stored(id(3)).await, reply(first).boxed());
    assert_eq!(stored(id(4)).await, None, "what says nothing is stored as nothing");
    let row = hub.chat(uid("bob"), key.clone()).await.expect("row");
    assert_eq!((row.mentions, row.unread), (1, 5));
    let all = Extras { mention_all: true, ..Extras::default() };
    hub.send(with(all, draft("ann", &key, "7")), Standing::Client).await.expect("stored");
    assert_eq!(hub.chat(uid("bob"), key.clone()).await.expect("row").mentions, 2);
    assert_eq!(hub.sync(SyncRequest::full(uid("bob"), 1)).await.expect("synced").rows[0].mentions, 2);
    let many: Vec<String> = (0..101).map(|n| format!("u{n}")).collect();
    let many = mentions(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let refused = hub.send(with(many, draft("ann", &key, "x")), Standing::Client).await;
    assert_eq!(refused.expect_err("refused").code(), "too_many");
    // A retry is known by its name, whatever it refers to.
    let no = ClientMsgNo::new("retry").expect("valid");
    let named = Draft { client_msg_no: Some(no), ..with(reply(first), draft("ann", &key, "8")) };
    let sent = hub.send(named.clone(), Standing::Client).await.expect("stored");
    let again = hub.send(named, Standing::Client).await.expect("known");
    assert_eq!((again.message_id, again.duplicate), (sent.message_id, true));
    // In a pair, the peer is who can be mentioned.
    let direct = hub.send(with(mentions(&["bob", "carl"]), draft("ann", &pair("ann", "bob"), "x")), Standing::Client);
    let direct = direct.await.expect("stored").message_id;
    assert_eq!(stored(direct).await, mentions(&["bob"]).boxed());
}

// What becomes of messages.

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_taken_back_by_who_may_and_members_learn_of_it() {
    let server = Server::on_memory_with(|config| config.messages.revoke_within_s = 0).await;
    let hub = server.app.hub();
    let group_of = NewGroup { owner: Some(uid("ann")), members: vec![uid("bob"), uid("carl")], ..NewGroup::default() };
    let key = hub.create_group(group_of).await.expect("made");
    for text in ["1", "2", "3"] {
        say(&server, "bob", &key, text).await;
    }
    let mut carl = server.connect("carl").await;
    let at = hub.sync(SyncRequest::full(uid("carl"), 5)).await.expect("synced").version;
    let revoke = |who: Reader, seq| hub.revoke(who, key.clone(), seq);
    assert_eq!(revoke(user("bob"), 1).await.map_err(|r| r.code()), Err("too_late"));
    assert_eq!(revoke(user("carl"), 1).await.map_err(|r| r.code()), Err("forbidden"));
    assert_eq!(revoke(user("eve"), 1).await, Err(Refusal::NotMember));
    assert_eq!(revoke(user("ann"), 9).await, Err(Refusal::NotFound { what: "message" }));
    let version = revoke(user("ann"), 1).await.expect("an owner may");
    hears_an_event(&mut carl).await;
    assert!(revoke(user("ann"), 1).await.expect("again") >= version);
    assert!(revoke(Reader::Trusted, 2).await.is_ok(), "a back end may");
    let since = SyncRequest { version: at, ..SyncRequest::full(uid("carl"), 5) };
    let row = hub.sync(since).await.expect("synced").rows.remove(0);
    assert_eq!(row.unread, 1, "what was taken back is not unread");
    let seqs: Vec<u64> = row.changed.iter().map(|(seq, _)| *seq).collect();
    assert_eq!((seqs, row.changed_more), (vec![2, 1], false));
    assert!(row.recents.iter().filter(|m| m.message_seq.get() < 3).all(|m| m.state == MessageState::Revoked));
    let changes = hub.message_changes(user("carl"), key.clone(), version, 10).await.expect("changes");
    assert_eq!(changes.changes.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [2]);
    assert_eq!(hub.message_changes(user("eve"), key.clone(), version, 10).await, Err(Refusal::NotMember));
    let react = hub.react(uid("carl"), key.clone(), 1, Some(Reaction::Like)).await;
    assert_eq!(react, Err(Refusal::MessageGone));
    assert_eq!(hub.edit(Reader::Trusted, key, 1, Bytes::from("x"), None).await, Err(Refusal::MessageGone));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_edited_by_their_sender_only() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    let key = pair("ann", "bob");
    let sent = try_say(&server, "ann", &key, "one").await.expect("stored");
    let edit = |who: Reader, text: &'static str| hub.edit(who, key.clone(), 1, Bytes::from(text), None);
    assert_eq!(edit(user("bob"), "two").await.map_err(|r| r.code()), Err("forbidden"));
    let version = edit(user("ann"), "two").await.expect("edited");
    let message = hub.message(user("bob"), sent.message_id).await.expect("message");
    assert_eq!((&message.payload[..], message.edited), (&b"two"[..], version));
    assert!(edit(user("ann"), "two").await.is_ok());
    let now = hub.message(user("bob"), sent.message_id).await.expect("message");
    assert_eq!(now.edited, version, "saying the same again changes nothing");
    let long = Bytes::from(vec![0; 65 * 1024]);
    assert_eq!(hub.edit(user("ann"), key.clone(), 1, long, None).await.map_err(|r| r.code()), Err("too_large"));
    // A retry of what was first said is still a retry.
    let no = ClientMsgNo::new("named").expect("valid");
    let named = Draft { client_msg_no: Some(no), ..draft("ann", &key, "first words") };
    let first = hub.send(named.clone(), Standing::Client).await.expect("stored");
    hub.edit(user("ann"), key.clone(), 2, Bytes::from("other words"), None).await.expect("edited");
    let again = hub.send(named, Standing::Client).await.expect("known");
    assert_eq!((again.message_id, again.duplicate), (first.message_id, true));
    // Who was blocked may not put other words where the other reads, but may take them back.
    relate(&server, "bob", "ann", None, Some(true)).await;
    assert_eq!(edit(user("ann"), "three").await, Err(Refusal::Blocked));
    let like = hub.react(uid("ann"), key.clone(), 1, Some(Reaction::Like)).await;
    assert_eq!(like, Err(Refusal::Blocked));
    assert!(hub.revoke(user("ann"), key.clone(), 1).await.is_ok());
    assert_eq!(hub.message(user("eve"), sent.message_id).await, Err(Refusal::NotFound { what: "message" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn reactions_are_one_per_user_and_bounded() {
    let server = Server::on_memory_with(|config| config.messages.reactions_max = 2).await;
    let hub = server.app.hub();
    server.group("g", &["ann", "bob", "carl"]).await;
    let key = group("g");
    let sent = try_say(&server, "ann", &key, "x").await.expect("stored");
    let react = |who: &str, reaction| hub.react(uid(who), key.clone(), 1, reaction);
    let first = react("ann", Some(Reaction::Like)).await.expect("liked");
    react("bob", Some(Reaction::Like)).await.expect("liked");
    assert_eq!(react("carl", Some(Reaction::Like)).await.map_err(|r| r.code()), Err("too_many"));
    react("bob", Some(Reaction::Dislike)).await.expect("another word of the same user");
    react("ann", Some(Reaction::Like)).await.expect("as it was");
    let changes = hub.message_changes(user("carl"), key.clone(), first, 10).await.expect("changes");
    assert_eq!(changes.changes.len(), 1);
    let reactions = hub.message(user("ann"), sent.message_id).await.expect("message").reactions;
    let reactions: Vec<(&str, Reaction)> = reactions.iter().map(|r| (r.uid.as_str(), r.reaction)).collect();
    assert_eq!(reactions, [("ann", Reaction::Like), ("bob", Reaction::Dislike)]);
    react("ann", None).await.expect("taken back");
    react("carl", Some(Reaction::Like)).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_the_newest_or_the_oldest_page_by_page() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    server.group("g", &["ann"]).await;
    let key = group("g");
    for n in 1..=30 {
        let text = if n % 3 == 0 { format!("İstanbul {n}") } else { format!("nothing {n}") };
        say(&server, "ann", &key, &text).await;
    }
    for newest_first in [true, false] {
        let (mut first, mut last, mut found) = (0, 0, Vec::new());
        loop {
            let search = Search { text: "iSTANBUL".into(), first, last, limit: 4, newest_first };
            let page = hub.search(user("ann"), key.clone(), search).await.expect("found");
            assert!(page.messages.len() <= 4 && page.head_seq == 30);
            found.extend(page.messages.iter().map(|message| message.message_seq.get()));
            match (page.resume, newest_first) {
                (None, _) => break,
                (Some(resume), true) => last = resume,
                (Some(resume), false) => first = resume,
            }
        }
        let mut expected: Vec<u64> = (1..=10).map(|n| n * 3).collect();
        if newest_first {
            expected.reverse();
        }
        assert_eq!(found, expected, "newest first: {newest_first}");
    }
    let search = |text: &str| Search { text: text.into(), first: 0, last: 0, limit: 0, newest_first: true };
    for text in ["", &"x".repeat(257)] {
        let refused = hub.search(user("ann"), key.clone(), search(text)).await;
        assert_eq!(refused.expect_err("refused").field(), Some("text"));
    }
    assert_eq!(hub.search(user("eve"), key, search("x")).await, Err(Refusal::NotMember));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_a_message_come_from_read_positions() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    server.group("g", &["ann", "bob", "carl", "dora"]).await;
    let key = group("g");
    for text in ["1", "2"] {
        say(&server, "ann", &key, text).await;
    }
    hub.read(uid("bob"), key.clone(), 1).await.expect("read");
    hub.view_chat(uid("carl"), key.clone()).await.expect("viewed");
    let read_by = |seq, limit| hub.read_by(user("ann"), key.clone(), seq, limit);
    let names = |uids: &[Uid]| uids.iter().map(|uid| uid.as_str().to_owned()).collect::<Vec<_>>();
    let first = read_by(1, 10).await.expect("readers");
    assert_eq!((names(&first.uids), first.of, first.more), (vec!["bob".into(), "carl".into()], 3, false));
    let first = read_by(1, 1).await.expect("readers");
    assert_eq!((names(&first.uids), first.more), (vec!["bob".into()], true));
    assert_eq!(names(&read_by(2, 10).await.expect("readers").uids), ["carl"]);
    assert_eq!(read_by(3, 10).await, Err(Refusal::NotFound { what: "message" }));
}

// Groups.

#[tokio::test(flavor = "multi_thread")]
async fn a_group_begins_whole_and_once() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    let profile = ChannelProfile { name: "Tea".into(), project: "p".into(), ..ChannelProfile::default() };
    let new = NewGroup {
        channel_id: None,
        owner: Some(uid("ann")),
        members: vec![uid("bob"), uid("ann"), uid("bob")],
        profile: profile.clone(),
    };
    let mut bob = server.connect("bob").await;
    let key = hub.create_group(new.clone()).await.expect("made");
    hears_an_event(&mut bob).await;
    assert_eq!(chat_id(&key), key.channel_id(), "a new group is named by the uuid every dialect calls it by");
    let members = hub.members(user("bob"), key.clone()).await.expect("members");
    let members: Vec<(&str, Role)> = members.iter().map(|(uid, m)| (uid.as_str(), m.role)).collect();
    assert_eq!(members, [("ann", Role::Owner), ("bob", Role::Member)]);
    let stored = hub.profile(user("bob"), key.clone()).await.expect("profile");
    assert_eq!(stored, ChannelProfile { creator: Some(uid("ann")), ..profile });
    let again = NewGroup {
        channel_id: Some(key.channel_id().to_owned()),
        owner: Some(uid("eve")),
        members: vec![uid("eve")],
        profile: ChannelProfile::default(),
    };
    assert_eq!(hub.create_group(again).await, Ok(key.clone()));
    assert_eq!(hub.members(user("eve"), key.clone()).await, Err(Refusal::NotMember));
    assert_eq!(hub.profile(Reader::Trusted, key.clone()).await.expect("profile").name, "Tea");
    assert_eq!(head(&server, &key).await, 0, "making a group stores no message");
    for bad in ["a@b", "", "a\nb"] {
        let refused = hub.create_group(NewGroup { channel_id: Some(bad.into()), ..new.clone() }).await;
        assert_eq!(refused.expect_err("refused").field(), Some("channel_id"), "{bad:?}");
    }
    let long = ChannelProfile { name: "x".repeat(256), ..ChannelProfile::default() };
    let refused = hub.create_group(NewGroup { profile: long, ..new }).await.expect_err("refused");
    assert_eq!(refused.field(), Some("name"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_led_by_its_owner_and_admins() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    let members = ["bob", "carl", "dora"].map(uid).to_vec();
    let new = NewGroup { owner: Some(uid("ann")), members, ..NewGroup::default() };
    let key = hub.create_group(new).await.expect("made");
    let role_of = |who: &str| {
        let who = uid(who);
        let key = key.clone();
        async move {
            let members = hub.members(Reader::Trusted, key).await.expect("members");
            members.into_iter().find(|(uid, _)| *uid == who).map(|(_, membership)| membership.role)
        }
    };
    let profile = |name: &str| ChannelProfile { name: name.into(), ..ChannelProfile::default() };
    let put = |who: &str, name: &str| hub.put_profile(user(who), key.clone(), profile(name));
    assert_eq!(put("bob", "x").await.map_err(|r| r.code()), Err("forbidden"));
    assert_eq!(put("eve", "x").await, Err(Refusal::NotMember));
    let invite = |who: &str, whom: &str| hub.invite(user(who), key.clone(), vec![uid(whom)]);
    assert_eq!(invite("bob", "eve").await.map_err(|r| r.code()), Err("forbidden"));
    let set = |who: &str, whom: &str, role| hub.set_role(user(who), key.clone(), uid(whom), role);
    set("ann", "carl", Role::Admin).await.expect("the owner may");
    assert_eq!(set("carl", "bob", Role::Admin).await.map_err(|r| r.code()), Err("forbidden"));
    assert_eq!(set("ann", "eve", Role::Admin).await, Err(Refusal::NotFound { what: "member" }));
    put("carl", "Tea").await.expect("an admin may");
    assert_eq!(hub.profile(user("bob"), key.clone()).await.expect("profile").creator, Some(uid("ann")));
    invite("carl", "eve").await.expect("an admin may");
    let expel = |who: &str, whom: &str| hub.expel(user(who), key.clone(), vec![uid(whom)]);
    assert_eq!(expel("carl", "ann").await.map_err(|r| r.code()), Err("forbidden"));
    expel("carl", "eve").await.expect("an admin may those below");
    // Giving ownership away makes the giver an admin.
    set("ann", "bob", Role::Owner).await.expect("given away");
    assert_eq!((role_of("ann").await, role_of("bob").await), (Some(Role::Admin), Some(Role::Owner)));
    // An owner who leaves passes it to the oldest admin, then to the oldest member.
    hub.leave_group(uid("bob"), key.clone()).await.expect("left");
    assert_eq!((role_of("bob").await, role_of("ann").await), (None, Some(Role::Owner)));
    hub.remove_members(key.clone(), vec![uid("ann"), uid("carl")]).await.expect("removed");
    assert_eq!(role_of("dora").await, Some(Role::Owner), "removed by a back end too");
    assert_eq!(hub.leave_group(uid("ann"), key.clone()).await, Err(Refusal::NotMember));
    assert_eq!(hub.leave_group(uid("ann"), pair("ann", "bob")).await.map_err(|r| r.code()), Err("invalid"));
    // What was read before is not readable after.
    say(&server, "dora", &key, "secret").await;
    assert_eq!(hub.profile(user("ann"), key.clone()).await, Err(Refusal::NotMember));
    assert_eq!(try_say(&server, "ann", &key, "x").await, Err(Refusal::NotMember));
    // A group nobody leads belongs to all its members.
    server.group("all", &["ann", "bob"]).await;
    hub.invite(user("bob"), group("all"), vec![uid("carl")]).await.expect("any member may");
    assert_eq!(hub.invite(user("eve"), group("all"), vec![uid("eve")]).await, Err(Refusal::NotMember));
    assert_eq!(hub.invite(Reader::Trusted, group("none"), vec![uid("a")]).await, Err(Refusal::ChannelNotFound));
}

// Chats.

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_begun_on_a_socket_is_found_by_its_id_in_any_spelling() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    let mut ann = server.connect("ann").await;
    ann.say("bob", 1, b"hi").await;
    let id = chat_id(&pair("ann", "bob"));
    for spelling in [id.clone(), id.to_uppercase(), id.replace('-', "")] {
        assert_eq!(hub.resolve_chat(user("bob"), &spelling).await, Ok(pair("ann", "bob")), "{spelling}");
    }
    assert_eq!(hub.resolve_chat(user("eve"), &id).await, Err(Refusal::NotMember));
    assert_eq!(hub.resolve_chat(Reader::Trusted, &id).await, Ok(pair("ann", "bob")));
    for unknown in ["6f9b5f4a-2b57-4d2e-9d0e-6c1d4a53d0c1", "no-uuid", ""] {
        assert_eq!(hub.resolve_chat(user("bob"), unknown).await, Err(Refusal::ChannelNotFound), "{unknown}");
    }
    // Groups: by their own uuid however it is spelled, by an alias when their name is none.
    let uuid = "6f9b5f4a-2b57-4d2e-9d0e-6c1d4a53d0c1";
    let upper = uuid.to_uppercase();
    for name in ["tea", uuid, &"a3c1e0f1-0000-4000-8000-00000000000A".replace('-', ""), &upper] {
        server.group(name, &["ann"]).await;
        let id = chat_id(&group(name));
        let found = hub.resolve_chat(user("ann"), &id).await.expect("found");
        assert_eq!(chat_id(&found), id, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_are_ordered_by_pin_and_activity_with_the_one_unread() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    let names = ["g1", "g2", "g3", "g4"];
    for name in names {
        server.group(name, &["ann", "bob"]).await;
    }
    server.group("empty", &["ann"]).await;
    for name in names {
        say(&server, "bob", &group(name), name).await;
    }
    say(&server, "bob", &pair("ann", "bob"), "direct").await;
    let g = names.map(group);
    let direct = pair("ann", "bob");
    assert_eq!(keys(&chats(&server, "ann").await), [&direct, &g[3], &g[2], &g[1], &g[0]]);
    let pin = FlagsChange { pinned: Some(true), ..FlagsChange::default() };
    hub.set_flags(uid("ann"), g[1].clone(), pin).await.expect("pinned");
    hub.delete_conversation(uid("ann"), g[2].clone()).await.expect("deleted");
    hub.leave_group(uid("ann"), g[3].clone()).await.expect("left");
    let rows = chats(&server, "ann").await;
    assert_eq!(keys(&rows), [&g[1], &direct, &g[0]]);
    let synced = hub.sync(SyncRequest::full(uid("ann"), 1)).await.expect("synced");
    for row in &rows {
        let same = synced.rows.iter().find(|synced| synced.channel == row.key).expect("in the sync too");
        let last = row.last_message.as_ref().expect("has a last message");
        assert_eq!((row.unread, row.version, row.read_to_msg_seq), (same.unread, same.version, same.read_to_msg_seq));
        assert_eq!(last.message_seq.get(), same.last_msg_seq);
    }
    let query = ChatsQuery { with_empty: true, requests: false, skip: 1, limit: 2 };
    let page = hub.chats(uid("ann"), query).await.expect("chats");
    assert_eq!(keys(&page), [&direct, &g[0]]);
    let query = ChatsQuery { with_empty: true, requests: false, skip: 3, limit: 10 };
    let page = hub.chats(uid("ann"), query).await.expect("chats");
    assert_eq!(keys(&page), [&group("empty")]);
    assert_eq!(hub.unread_totals(uid("ann")).await, Ok((3, 0)));
    // A command is delivered, and is no message of a chat.
    let command = Draft {
        flags: MessageFlags { sync_once: true, red_dot: true, no_persist: false },
        ..draft("bob", &direct, "{}")
    };
    hub.send(command, Standing::Client).await.expect("stored");
    let row = hub.chat(uid("ann"), direct.clone()).await.expect("row");
    assert_eq!(&row.last_message.expect("the one before").payload[..], b"direct");
    // Viewing is reading, once.
    hub.view_chat(uid("ann"), direct.clone()).await.expect("viewed");
    let viewed = hub.chat(uid("ann"), direct.clone()).await.expect("row");
    assert_eq!((viewed.unread, viewed.read_to_msg_seq), (0, 2));
    assert!(viewed.access_ms > 0);
    hub.view_chat(uid("ann"), direct.clone()).await.expect("viewed");
    assert_eq!(hub.chat(uid("ann"), direct.clone()).await.expect("row").version, viewed.version);
    // One that nobody has begun is a row all the same.
    let unborn = hub.chat(uid("ann"), pair("ann", "zoe")).await.expect("row");
    assert_eq!((unborn.members.len(), unborn.head_seq, unborn.version), (2, 0, Version::ZERO));
    assert_eq!(hub.chat(uid("eve"), direct).await, Err(Refusal::NotMember));
}

// Files.

async fn upload(server: &Server, who: &str, name: &str, parts: &[&str]) -> FileId {
    let hub = server.app.hub();
    let file = NewFile { uploader: Some(uid(who)), name: name.into(), mime: "text/plain".into() };
    let mut upload = hub.begin_upload(file).await.expect("begun");
    for part in parts {
        hub.write_upload(&mut upload, Bytes::from((*part).to_owned())).await.expect("written");
    }
    hub.finish_upload(upload).await.expect("finished").record.file_id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_by_who_may_read_a_message_that_carries_it() {
    let server = Server::on_memory_with(|config| config.files.bytes_max = 1024).await;
    let hub = server.app.hub();
    server.group("g", &["ann", "bob"]).await;
    let key = group("g");
    let file = upload(&server, "ann", "notes/hello.txt", &["hello, ", "world"]).await;
    let unknown = Err(Refusal::NotFound { what: "file" });
    let open = |who: Reader| hub.open_file(who, file.clone());
    let (info, path) = open(user("ann")).await.expect("the uploader may");
    assert_eq!((info.record.name.as_str(), info.record.size), ("hello.txt", 12));
    assert_eq!(std::fs::read(&path).expect("content"), b"hello, world");
    assert_eq!(open(user("bob")).await, unknown);
    assert!(open(Reader::Trusted).await.is_ok());
    let carrying =
        |files: &[&FileId]| Extras { files: files.iter().map(|file| (*file).clone()).collect(), ..Extras::default() };
    let sent = hub.send(with(carrying(&[&file, &file]), draft("ann", &key, "see")), Standing::Client).await;
    let sent = sent.expect("stored");
    let stored = hub.message(user("bob"), sent.message_id).await.expect("message").extras;
    assert_eq!(stored, carrying(&[&file]).boxed(), "each file once");
    assert!(open(user("bob")).await.is_ok());
    assert_eq!(open(user("eve")).await, unknown);
    // Another's file cannot be sent, else sending would be a way to read it.
    let bobs = upload(&server, "bob", "b.txt", &["b"]).await;
    let stolen = hub.send(with(carrying(&[&bobs]), draft("ann", &key, "see")), Standing::Client).await;
    assert_eq!(stolen.expect_err("refused").field(), Some("files"));
    assert!(hub.send(with(carrying(&[&bobs]), draft("ann", &key, "x")), Standing::Trusted).await.is_ok());
    // An edit keeps what the message carries.
    let edited = hub.edit(user("ann"), key.clone(), 1, Bytes::from("look"), carrying(&[&file]).boxed()).await;
    assert!(edited.is_ok());
    hub.revoke(user("ann"), key.clone(), 1).await.expect("revoked");
    assert_eq!(open(user("bob")).await, unknown, "a message taken back shows nothing");
    // Too much, of what is not taken, and nothing.
    let file = |mime: &str| NewFile { uploader: None, name: "x".into(), mime: mime.into() };
    let mut large = hub.begin_upload(file("text/plain")).await.expect("begun");
    let refused = hub.write_upload(&mut large, Bytes::from(vec![0; 1025])).await;
    assert_eq!(refused.expect_err("refused").code(), "too_large");
    let empty = hub.begin_upload(file("text/plain")).await.expect("begun");
    assert_eq!(hub.finish_upload(empty).await.expect_err("refused").code(), "invalid");
    assert_eq!(hub.begin_upload(file("nonsense")).await.expect_err("refused").field(), Some("mime"));
    drop(large);
    let leftovers = std::fs::read_dir(server.config.data_dir.join("files/uploads")).expect("directory").count();
    assert_eq!(leftovers, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_nobody_carries_are_collected_and_shared_contents_stay() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    server.group("g", &["ann"]).await;
    let carried = upload(&server, "ann", "a.txt", &["same"]).await;
    let alike = upload(&server, "bob", "b.txt", &["same"]).await;
    let alone = upload(&server, "ann", "c.txt", &["other"]).await;
    let extras = Extras { files: vec![carried.clone()], ..Extras::default() };
    hub.send(with(extras, draft("ann", &group("g"), "x")), Standing::Client).await.expect("stored");
    let path = |file: &FileId| {
        let file = file.clone();
        async move { hub.open_file(Reader::Trusted, file).await.expect("file").1 }
    };
    let (shared, lonely) = (path(&carried).await, path(&alone).await);
    assert_eq!(shared, path(&alike).await, "one content, however often it is uploaded");
    let now = clock::now_ms();
    assert_eq!(hub.collect_files(now.saturating_sub(60_000), 10).await, Ok(0), "not before their time");
    assert_eq!(hub.collect_files(now + 60_000, 10).await, Ok(2));
    assert!(shared.exists() && !lonely.exists());
    let known = hub.file_infos(vec![carried.clone(), alike, alone]).await.expect("infos");
    assert_eq!(known.iter().map(|info| &info.record.file_id).collect::<Vec<_>>(), [&carried]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_can_be_switched_off() {
    let server = Server::on_memory_with(|config| config.files.on = false).await;
    let file = NewFile { uploader: None, name: "x".into(), mime: "text/plain".into() };
    let refused = server.app.hub().begin_upload(file).await.expect_err("refused");
    assert_eq!(refused, Refusal::FeatureOff { key: "files.on" });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_service_channel_is_found_too() {
    let server = Server::on_memory().await;
    let hub = server.app.hub();
    let key = ChannelKey::named("vic|shop", ChannelType::CustomerService).expect("valid");
    let mentions = Extras { mentions: vec![uid("vic")], ..Extras::default() };
    let sent = hub.send(with(mentions.clone(), draft("agent", &key, "hello")), Standing::Client).await.expect("stored");
    assert_eq!(hub.message(user("vic"), sent.message_id).await.expect("message").extras, mentions.boxed());
    assert_eq!(hub.resolve_chat(user("vic"), &chat_id(&key)).await, Ok(key.clone()));
    assert_eq!(keys(&chats(&server, "vic").await), [&key]);
}
