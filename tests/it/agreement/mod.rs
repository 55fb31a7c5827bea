//! Proves one-log: whatever is done through whichever dialect or socket, all views of the log agree: ids and their order,
//! texts, likes, unread, membership and who may read. And that a chat begun at the same time through two dialects is one
//! chat. The seed is printed; `CHINWAG_SEED=n` runs one case again, `CHINWAG_CASES=n` more cases.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::json;

use crate::harness::Server;

mod targets;
mod wires;

use wires::{Chat, USERS, Wire, Wires};

const OWNER: &str = USERS[0];

/// A message as it should be seen everywhere.
#[derive(Debug, Clone)]
struct Expected {
    id: Option<u64>,
    from: &'static str,
    key: String,
    sent_text: String,
    text: Option<String>,
    likes: BTreeSet<String>,
}

struct World {
    wires: Wires,
    rng: StdRng,
    chats: Vec<Chat>,
    members: BTreeSet<&'static str>,
    log: BTreeMap<Chat, Vec<Expected>>,
    made: u64,
}

impl World {
    async fn new(seed: u64, server: Server) -> Self {
        let wires = Wires::new(server).await;
        let users = json!({"users": ["bob", "carol"], "name": "team"});
        let made = wires.call(Method::POST, "/chats/groups", Some(OWNER), "", users).await.expect("a group");
        let group = Chat::Group(made["chatId"].as_str().expect("an id").to_owned());
        let chats = vec![group, Chat::pair("alice", "bob"), Chat::pair("carol", "alice"), Chat::pair("bob", "bob")];
        let members = ["alice", "bob", "carol"].into();
        Self { wires, rng: StdRng::seed_from_u64(seed), chats, members, log: BTreeMap::new(), made: 0 }
    }

    fn any<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())].clone()
    }

    fn users_of(&self, chat: &Chat) -> Vec<&'static str> {
        match chat {
            Chat::Pair(a, b) => vec![*a, *b],
            Chat::Group(_) => self.members.iter().copied().collect(),
        }
    }

    /// A chat and somebody in it.
    fn somewhere(&mut self) -> (Chat, &'static str) {
        let chat = self.any(&self.chats.clone());
        let users = self.users_of(&chat);
        (chat, self.any(&users))
    }

    async fn send(&mut self) {
        let (chat, from) = self.somewhere();
        let wire = match self.any(&Wire::ALL) {
            Wire::M3o if chat.peer(from) == Some(from) && !self.log.contains_key(&chat) => Wire::Relation,
            wire => wire,
        };
        self.made += 1;
        let (key, text) = (format!("k{}", self.made), format!("text {} of {from} 😀", self.made));
        let id = self.wires.send(wire, from, &chat, &text, &key).await;
        let id = id.unwrap_or_else(|status| panic!("{wire:?} {from} {chat:?}: {status}"));
        let expected = Expected { id, from, key, sent_text: text.clone(), text: Some(text), likes: BTreeSet::new() };
        self.log.entry(chat).or_default().push(expected);
    }

    /// The same message again, through any wire: the first outcome, also when it was edited or taken back since. With
    /// another text it is a conflict, but for what was taken back: nothing is kept that could be compared.
    async fn repeat(&mut self) {
        let Some((chat, at)) = self.some_message() else { return };
        let expected = self.log[&chat][at].clone();
        if !self.users_of(&chat).contains(&expected.from) {
            return;
        }
        let wire = self.any(&Wire::ALL);
        let again = self.wires.send(wire, expected.from, &chat, &expected.sent_text, &expected.key).await;
        let again = again.unwrap_or_else(|status| panic!("{wire:?} repeats {expected:?}: {status}"));
        if let (Some(first), Some(again)) = (expected.id, again) {
            assert_eq!(first, again, "{wire:?} repeats {expected:?}");
        }
        let other = self.wires.send(wire, expected.from, &chat, "something else", &expected.key).await;
        match expected.text {
            Some(_) => assert_eq!(other, Err(409), "{wire:?} {expected:?}"),
            None => assert!(other.is_ok(), "{wire:?} {expected:?}"),
        }
    }

    fn some_message(&mut self) -> Option<(Chat, usize)> {
        let chats: Vec<Chat> = self.log.keys().cloned().collect();
        if chats.is_empty() {
            return None;
        }
        let chat = self.any(&chats);
        let count = self.log[&chat].len();
        Some((chat, self.rng.random_range(0..count)))
    }

    /// Ids that m3o does not tell.
    async fn id_of(&mut self, chat: &Chat, at: usize) -> u64 {
        if let Some(id) = self.log[chat][at].id {
            return id;
        }
        let anybody = self.users_of(chat)[0];
        let history = self.wires.history(Wire::Native, anybody, chat).await.expect("history");
        let id = history[at].0;
        self.log.get_mut(chat).expect("there")[at].id = Some(id);
        id
    }

    async fn alter(&mut self) {
        let Some((chat, at)) = self.some_message() else { return };
        let (id, seq) = (self.id_of(&chat, at).await, at as u64 + 1);
        let (users, from) = (self.users_of(&chat), self.log[&chat][at].from);
        let gone = self.log[&chat][at].text.is_none();
        let wire = self.any(&[Wire::Native, Wire::Chats, Wire::Threads]);
        match self.rng.random_range(0..3) {
            0 if users.contains(&from) => {
                self.wires.revoke(wire, from, &chat, id, seq).await.expect("revoked");
                let message = &mut self.log.get_mut(&chat).expect("there")[at];
                (message.text, message.likes) = (None, BTreeSet::new());
            }
            1 if users.contains(&from) => {
                self.made += 1;
                let text = format!("edited {}", self.made);
                let edited = self.wires.edit(wire, from, &chat, (id, seq), &text).await;
                assert_eq!(edited, if gone { Err(404) } else { Ok(()) }, "{wire:?}");
                if !gone {
                    self.log.get_mut(&chat).expect("there")[at].text = Some(text);
                }
            }
            _ => {
                let (who, on) = (self.any(&users), self.rng.random_bool(0.7));
                let liked = self.wires.like(wire, who, &chat, (id, seq), on).await;
                assert_eq!(liked, if gone { Err(404) } else { Ok(()) }, "{wire:?}");
                let likes = &mut self.log.get_mut(&chat).expect("there")[at].likes;
                match (gone, on) {
                    (true, _) => {}
                    (false, true) => drop(likes.insert(who.to_owned())),
                    (false, false) => drop(likes.remove(who)),
                }
            }
        }
    }

    async fn attend(&mut self) {
        let (chat, uid) = self.somewhere();
        let wire = self.any(&Wire::ALL);
        if !self.log.contains_key(&chat) {
            return;
        }
        match self.rng.random_range(0..4) {
            0 => {
                let n = self.rng.random_range(0..5);
                self.wires.set_unread(wire, uid, &chat, n).await.expect("set");
            }
            1 => self.wires.delete(wire, uid, &chat).await.expect("deleted"),
            _ => self.wires.read(wire, uid, &chat).await.expect("read"),
        }
    }

    async fn change_members(&mut self) {
        let (wire, uid) = (self.any(&Wire::ALL), self.any(&USERS[1..]));
        let comes = !self.members.contains(uid);
        let group = self.chats[0].clone();
        self.wires.change_member(wire, OWNER, &group, uid, comes).await;
        if comes {
            self.members.insert(uid);
        } else {
            self.members.remove(uid);
        }
    }

    /// Unread of everybody's conversations, the same in every list.
    async fn check_unread(&mut self, what: &str) {
        for uid in USERS {
            let expected = self.wires.unread(Wire::Native, uid, &self.chats).await.expect("a list");
            for wire in Wire::ALL {
                if let Some(found) = self.wires.unread(wire, uid, &self.chats).await {
                    assert_eq!(found, expected, "{what}: {wire:?} lists for {uid}");
                }
            }
        }
    }

    async fn check(&mut self, what: &str) {
        self.check_unread(what).await;
        let group = self.chats[0].clone();
        let members: BTreeSet<String> = self.members.iter().map(|uid| (*uid).to_owned()).collect();
        for wire in Wire::ALL {
            if let Some(found) = self.wires.members(wire, OWNER, &group).await {
                assert_eq!(found, members, "{what}: {wire:?} members");
            }
        }
        for (chat, messages) in self.log.clone() {
            let users = self.users_of(&chat);
            let mut ids = BTreeMap::new();
            for uid in USERS {
                for wire in Wire::ALL {
                    let found = self.wires.history(wire, uid, &chat).await;
                    let named = matches!(&chat, Chat::Group(_)) || users.contains(&uid);
                    if !named {
                        // Nobody else has a name for a pair's own channel but its id.
                        continue;
                    }
                    if !users.contains(&uid) && wire != Wire::BackEnd {
                        assert_eq!(found, Err(403), "{what}: {wire:?} shows {uid} {chat:?}");
                        continue;
                    }
                    let found = found.unwrap_or_else(|status| panic!("{what}: {wire:?} {uid} {chat:?}: {status}"));
                    let texts: Vec<_> = found.iter().map(|(_, from, text)| (from.as_str(), text.clone())).collect();
                    let expected: Vec<_> = messages.iter().map(|m| (m.from, m.text.clone())).collect();
                    assert_eq!(texts, expected, "{what}: {wire:?} shows {uid} {chat:?}");
                    for (at, (id, ..)) in found.iter().enumerate() {
                        assert_eq!(ids.entry(at).or_insert(*id), id, "{what}: {wire:?} id of {at} in {chat:?}");
                        assert!(messages[at].id.is_none_or(|told| told == *id), "{what}: {wire:?} {at} in {chat:?}");
                    }
                }
                if users.contains(&uid) {
                    let expected: BTreeMap<u64, _> =
                        messages.iter().enumerate().map(|(at, m)| (ids[&at], m.likes.clone())).collect();
                    for wire in Wire::ALL {
                        if let Some(found) = self.wires.likes(wire, uid, &chat).await {
                            assert_eq!(found, expected, "{what}: {wire:?} likes in {chat:?}");
                        }
                    }
                }
            }
        }
        // Listing through chats and threads has marked everything as read: all lists agree on that too.
        self.check_unread(&format!("{what}, after it was listed")).await;
    }
}

async fn run(seed: u64, steps: usize, server: Server, restarts: bool) {
    eprintln!("seed {seed}");
    let mut world = World::new(seed, server).await;
    for step in 0..steps {
        match world.rng.random_range(0..100) {
            0..45 => world.send().await,
            45..55 => world.repeat().await,
            55..72 => world.alter().await,
            72..86 => world.attend().await,
            86..92 => world.change_members().await,
            92..98 => world.check_unread(&format!("seed {seed} step {step}")).await,
            _ => world.check(&format!("seed {seed} step {step}")).await,
        }
    }
    world.check(&format!("seed {seed} at the end")).await;
    if restarts {
        world.wires = world.wires.restart().await;
        world.check(&format!("seed {seed} after a restart")).await;
    }
}

/// The seed asked for, or as many as asked for.
fn seeds(cases: usize) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("CHINWAG_SEED") {
        Some(seed) => vec![seed],
        None => {
            let cases = number("CHINWAG_CASES").map_or(cases, |cases| cases as usize);
            (0..cases).map(|_| rand::random::<u32>().into()).collect()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_log_whatever_is_done_through_whichever_wire() {
    for seed in seeds(3) {
        run(seed, 120, Server::on_memory().await, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_log_on_disk_and_after_a_restart() {
    for seed in seeds(1) {
        run(seed, 80, Server::on_disk().await, true).await;
    }
}

/// "Created by this request" means seq 1, and there is one of it.
#[tokio::test(flavor = "multi_thread")]
async fn first_messages_at_the_same_time_make_one_chat() {
    let wires = Wires::new(Server::on_memory().await).await;
    for round in 0..10 {
        let users = [format!("x{round}"), format!("y{round}")];
        for uid in &users {
            wires.server.user(uid).await;
        }
        let [x, y] = [users[0].as_str(), users[1].as_str()];
        let one = wires.call(
            Method::POST,
            "/chats/messages",
            Some(x),
            "",
            json!({"userUUID": y, "message": {"type": "text", "content": "chats"}}),
        );
        let two =
            wires.call(Method::POST, "/api/v1/chat/messages", Some(y), "", json!({"to": x, "content": "threads"}));
        let three = wires.call(
            Method::POST,
            "/api/v1/message/send",
            Some(x),
            "",
            json!({"toRelationId": y, "type": "text", "content": "relation"}),
        );
        let four = wires.call(Method::POST, "/chat/New", Some(y), "", json!({"user_ids": [x, y]}));
        let (one, two, three, four) = tokio::join!(one, two, three, four);
        let (one, two, three, four) =
            (one.expect("sent"), two.expect("sent"), three.expect("sent"), four.expect("made"));
        let id = one["chatId"].as_str().expect("an id");
        assert_eq!(two["message"]["thread"], id);
        assert_eq!(three["data"]["channelUuid"], id.replace('-', ""));
        assert_eq!(four["chat_id"], id);
        let history =
            wires.call(Method::POST, "/chat/History", Some(x), "", json!({"chat_id": id})).await.expect("history");
        let messages = history["messages"].as_array().expect("messages");
        let texts: BTreeSet<&str> = messages.iter().filter_map(|m| m["text"].as_str()).collect();
        assert_eq!(texts, ["chats", "relation", "threads"].into());
        // The thread is named as created by exactly the message that has seq 1.
        let first = messages[0]["text"] == "threads";
        assert_eq!(two.get("thread").is_some(), first, "{two}");
        for uid in [x, y] {
            let list = wires.call(Method::GET, "/api/v1/chat/threads", Some(uid), "", serde_json::Value::Null).await;
            assert_eq!(list.expect("threads").as_array().map(Vec::len), Some(1), "one thread for {uid}");
        }
    }
}
