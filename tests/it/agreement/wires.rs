//! The same operations and the same questions through every dialect and the socket, each in its own words.

use std::collections::{BTreeMap, BTreeSet};

use chinwag::domain::channel::chat_id;
use chinwag::domain::content::Content;
use protocol::ids::ChannelKey;
use protocol::native::{
    ClientFrame, DeleteConversation, Edit, Expel, Invite, Members, React, Reaction, Read, Refused, Revoke, ServerFrame,
    SetUnread,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Client, PATIENCE, Server, group};

/// Everybody. The first makes the group and stays in it.
pub const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// A way to speak to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wire {
    /// Frames over the user's own socket.
    Native,
    /// WuKongIM's HTTP with the user's own token.
    Conversation,
    /// WuKongIM's HTTP with the root key, for the user.
    BackEnd,
    Chats,
    Threads,
    Relation,
    M3o,
}

impl Wire {
    pub const ALL: [Self; 7] =
        [Self::Native, Self::Conversation, Self::BackEnd, Self::Chats, Self::Threads, Self::Relation, Self::M3o];
}

/// Where people write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chat {
    /// Two users, ordered.
    Pair(&'static str, &'static str),
    /// A group by its id, which is a uuid.
    Group(String),
}

impl Chat {
    pub fn pair(a: &'static str, b: &'static str) -> Self {
        if a < b { Self::Pair(a, b) } else { Self::Pair(b, a) }
    }

    /// As this user names it on the socket and over WuKongIM's HTTP.
    pub fn seen_by(&self, uid: &str) -> (String, u8) {
        match self {
            Self::Pair(a, b) => ((if *a == uid { b } else { a }).to_string(), 1),
            Self::Group(id) => (id.clone(), 2),
        }
    }

    pub fn peer(&self, uid: &str) -> Option<&'static str> {
        match self {
            Self::Pair(a, b) => Some(if *a == uid { b } else { a }),
            Self::Group(_) => None,
        }
    }

    /// As chats, threads, relation and m3o name it.
    pub fn id(&self, server: &Server) -> String {
        chat_id(&match self {
            Self::Pair(a, b) => ChannelKey::person(&server.uid(a), &server.uid(b)),
            Self::Group(id) => group(id),
        })
    }
}

/// A message as a view shows it: id, sender, text; none when it was taken back.
pub type Shown = (u64, String, Option<String>);

/// What a dialect answered: the JSON, or its refusal as the HTTP status that the one table has for it.
pub type Answer = Result<Value, u16>;

pub struct Wires {
    pub server: Server,
    http: reqwest::Client,
    root: String,
    sockets: BTreeMap<&'static str, Client>,
}

impl Wires {
    pub async fn new(server: Server) -> Self {
        let root = std::fs::read_to_string(server.config.data_dir.join("root.key")).expect("the root key");
        let mut wires = Self {
            http: reqwest::Client::builder().timeout(PATIENCE).build().expect("a client"),
            root: root.trim().to_owned(),
            server,
            sockets: BTreeMap::new(),
        };
        wires.connect().await;
        wires
    }

    async fn connect(&mut self) {
        for uid in USERS {
            self.sockets.insert(uid, self.server.connect(uid).await);
        }
    }

    pub async fn restart(mut self) -> Self {
        self.sockets.clear();
        self.server = self.server.restart().await;
        self.connect().await;
        self
    }

    /// One HTTP call in the voice of its dialect; the refusal's status, whatever its envelope.
    pub async fn call(&self, method: Method, path: &str, uid: Option<&str>, key: &str, body: Value) -> Answer {
        let credential = uid.map_or_else(|| self.root.clone(), |uid| format!("token-of-{uid}"));
        let mut request = self.http.request(method, format!("http://{}{path}", self.server.app.http_addr()));
        request = request.bearer_auth(&credential).header("ApiKey", &self.root);
        if !key.is_empty() {
            request = request.header("Idempotency-Key", key);
        }
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"));
        assert!(status < 500, "{path}: {status} {json}");
        if status != 200 {
            return Err(status);
        }
        // Two dialects say no with HTTP 200.
        match (json.get("reason").and_then(Value::as_u64), json.get("code").and_then(Value::as_str)) {
            (Some(3 | 4 | 19 | 24 | 25), _) | (_, Some("13108" | "13301" | "10103")) => Err(403),
            (Some(5), _) | (_, Some("10113" | "13110")) => Err(404),
            (_, Some("13111")) => Err(409),
            (_, Some(code)) if path.starts_with("/api/v1/") && !path.starts_with("/api/v1/chat/") && code != "0" => {
                panic!("{path}: {json}")
            }
            _ => Ok(json),
        }
    }

    async fn post(&self, path: &str, uid: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(uid), "", body).await
    }

    fn socket(&mut self, uid: &str) -> &mut Client {
        self.sockets.get_mut(uid).expect("everybody has a socket")
    }

    /// Sends a text that everybody writes with the same bytes; its id, where the dialect tells.
    pub async fn send(
        &mut self,
        wire: Wire,
        from: &str,
        chat: &Chat,
        text: &str,
        key: &str,
    ) -> Result<Option<u64>, u16> {
        let (channel_id, channel_type) = chat.seen_by(from);
        let payload = Content::text(text).encode(None);
        let id = chat.id(&self.server);
        let number = |json: &Value, path: &str| json.pointer(path).and_then(number_of);
        match wire {
            Wire::Native => {
                let socket = self.socket(from);
                let mut send = socket.message(&channel_id, channel_type, &payload);
                send.client_msg_no = key.into();
                socket.ask_send(send).await.map(|ack| Some(ack.message_id)).map_err(|refused| status_of(&refused))
            }
            Wire::Conversation | Wire::BackEnd => {
                use base64::Engine;
                let payload = base64::engine::general_purpose::STANDARD.encode(&payload);
                let body = json!({"header": {"red_dot": 1}, "from_uid": from, "channel_id": channel_id,
                                  "channel_type": channel_type, "payload": payload, "client_msg_no": key});
                let uid = (wire == Wire::Conversation).then_some(from);
                let sent = self.call(Method::POST, "/message/send", uid, "", body).await?;
                Ok(number(&sent, "/message_idstr"))
            }
            Wire::Chats => {
                let mut body = json!({"message": {"type": "text", "content": text}});
                match chat.peer(from) {
                    Some(peer) => body["userUUID"] = peer.into(),
                    None => body["chatId"] = id.clone().into(),
                }
                let sent = self.call(Method::POST, "/chats/messages", Some(from), key, body).await?;
                assert_eq!(sent["chatId"], id.as_str());
                Ok(number(&sent, "/id"))
            }
            Wire::Threads => {
                let mut body = json!({"content": text});
                match chat.peer(from) {
                    Some(peer) => body["to"] = peer.into(),
                    None => body["thread"] = id.clone().into(),
                }
                let sent = self.call(Method::POST, "/api/v1/chat/messages", Some(from), key, body).await?;
                assert_eq!(sent["message"]["thread"], id.as_str());
                Ok(number(&sent, "/message/_id"))
            }
            Wire::Relation => {
                let mut body = json!({"type": "TEXT", "content": text, "sendUuid": key});
                match chat.peer(from) {
                    Some(peer) => body["toRelationId"] = peer.into(),
                    None => body["channelUuid"] = id.replace('-', "").into(),
                }
                let sent = self.post("/api/v1/message/send", from, body).await?;
                assert_eq!(sent["data"]["channelUuid"], id.replace('-', "").as_str());
                Ok(number(&sent, "/data/id"))
            }
            Wire::M3o => {
                // One user alone is a group of one there, and not one's own chat.
                if let Some(peer) = chat.peer(from).filter(|peer| *peer != from) {
                    let made = self.post("/chat/New", from, json!({"user_ids": [peer, from]})).await?;
                    assert_eq!(made["chat_id"], id.as_str());
                }
                let body = json!({"chat_id": id, "user_id": from, "text": text, "client_id": key});
                assert_eq!(self.post("/chat/Send", from, body).await?, json!({}));
                Ok(None)
            }
        }
    }

    /// Reads a chat up to its head.
    pub async fn read(&mut self, wire: Wire, uid: &str, chat: &Chat) -> Result<(), u16> {
        let (channel_id, channel_type) = chat.seen_by(uid);
        let id = chat.id(&self.server);
        let done = match wire {
            Wire::Native | Wire::M3o => {
                let socket = self.socket(uid);
                let client_seq = socket.seq();
                let read = Read { client_seq, channel_id: channel_id.into(), channel_type, message_seq: 0 };
                let done = socket.ask_done(client_seq, ClientFrame::Read(read)).await;
                return done.map(drop).map_err(|refused| status_of(&refused));
            }
            Wire::Conversation | Wire::BackEnd => {
                let body = json!({"uid": uid, "channel_id": channel_id, "channel_type": channel_type});
                self.call(
                    Method::POST,
                    "/conversations/clearUnread",
                    (wire == Wire::Conversation).then_some(uid),
                    "",
                    body,
                )
                .await
            }
            Wire::Chats => self.get(&format!("/chats/messages?chatId={id}&limit=1"), uid).await,
            Wire::Threads => self.get(&format!("/api/v1/chat/threads/{id}/messages?limit=1"), uid).await,
            Wire::Relation => self.post("/api/v1/message/read", uid, json!({"channelUuid": id})).await,
        };
        done.map(drop)
    }

    async fn get(&self, path: &str, uid: &str) -> Answer {
        self.call(Method::GET, path, Some(uid), "", Value::Null).await
    }

    /// Makes exactly so many messages unread.
    pub async fn set_unread(&mut self, wire: Wire, uid: &str, chat: &Chat, unread: i64) -> Result<(), u16> {
        let (channel_id, channel_type) = chat.seen_by(uid);
        if wire == Wire::Native {
            let socket = self.socket(uid);
            let client_seq = socket.seq();
            let set = SetUnread { client_seq, channel_id: channel_id.into(), channel_type, unread };
            let done = socket.ask_done(client_seq, ClientFrame::SetUnread(set)).await;
            return done.map(drop).map_err(|refused| status_of(&refused));
        }
        let body = json!({"channel_id": channel_id, "channel_type": channel_type, "unread": unread});
        self.post("/conversations/setUnread", uid, body).await.map(drop)
    }

    /// Takes a conversation off a user's list.
    pub async fn delete(&mut self, wire: Wire, uid: &str, chat: &Chat) -> Result<(), u16> {
        let (channel_id, channel_type) = chat.seen_by(uid);
        match wire {
            Wire::Native => {
                let socket = self.socket(uid);
                let client_seq = socket.seq();
                let delete = DeleteConversation { client_seq, channel_id: channel_id.into(), channel_type };
                let done = socket.ask_done(client_seq, ClientFrame::DeleteConversation(delete)).await;
                done.map(drop).map_err(|refused| status_of(&refused))
            }
            Wire::Relation => {
                let body = json!({"channelUuid": chat.id(&self.server)});
                self.post("/api/v1/chats/hide", uid, body).await.map(drop)
            }
            _ => {
                let body = json!({"channel_id": channel_id, "channel_type": channel_type});
                self.post("/conversations/delete", uid, body).await.map(drop)
            }
        }
    }

    /// Takes an own message back.
    pub async fn revoke(&mut self, wire: Wire, uid: &str, chat: &Chat, id: u64, seq: u64) -> Result<(), u16> {
        match wire {
            Wire::Chats => {
                self.call(Method::DELETE, &format!("/chats/messages/{id}"), Some(uid), "", Value::Null).await
            }
            Wire::Threads => {
                self.call(Method::DELETE, &format!("/api/v1/chat/messages/{id}"), Some(uid), "", Value::Null).await
            }
            _ => {
                let (channel_id, channel_type) = chat.seen_by(uid);
                let socket = self.socket(uid);
                let client_seq = socket.seq();
                let revoke = Revoke { client_seq, channel_id: channel_id.into(), channel_type, message_seq: seq };
                let done = socket.ask_done(client_seq, ClientFrame::Revoke(revoke)).await;
                return done.map(drop).map_err(|refused| status_of(&refused));
            }
        }
        .map(drop)
    }

    /// Says something else in an own message.
    pub async fn edit(
        &mut self,
        wire: Wire,
        uid: &str,
        chat: &Chat,
        (id, seq): (u64, u64),
        text: &str,
    ) -> Result<(), u16> {
        match wire {
            Wire::Threads => {
                let path = format!("/api/v1/chat/messages/{id}");
                self.call(Method::PATCH, &path, Some(uid), "", json!({"content": text})).await.map(drop)
            }
            _ => {
                let (channel_id, channel_type) = chat.seen_by(uid);
                let payload = Content::text(text).encode(None);
                let socket = self.socket(uid);
                let client_seq = socket.seq();
                let edit = Edit {
                    client_seq,
                    channel_id: channel_id.into(),
                    channel_type,
                    message_seq: seq,
                    payload: payload.to_vec().into(),
                    reply_to: 0,
                    mentions: Vec::new(),
                    mention_all: false,
                    files: Vec::new(),
                };
                let done = socket.ask_done(client_seq, ClientFrame::Edit(edit)).await;
                done.map(drop).map_err(|refused| status_of(&refused))
            }
        }
    }

    /// Likes a message, or takes the like back.
    pub async fn like(
        &mut self,
        wire: Wire,
        uid: &str,
        chat: &Chat,
        (id, seq): (u64, u64),
        on: bool,
    ) -> Result<(), u16> {
        match wire {
            Wire::Threads => {
                let method = if on { Method::PUT } else { Method::DELETE };
                let path = format!("/api/v1/chat/messages/{id}/like");
                self.call(method, &path, Some(uid), "", Value::Null).await.map(drop)
            }
            _ => {
                let (channel_id, channel_type) = chat.seen_by(uid);
                let socket = self.socket(uid);
                let client_seq = socket.seq();
                let reaction = if on { Reaction::Like } else { Reaction::None };
                let react =
                    React { client_seq, channel_id: channel_id.into(), channel_type, message_seq: seq, reaction };
                let done = socket.ask_done(client_seq, ClientFrame::React(react)).await;
                done.map(drop).map_err(|refused| status_of(&refused))
            }
        }
    }

    /// Adds a member to a group or removes one, as its owner.
    pub async fn change_member(&mut self, wire: Wire, owner: &str, chat: &Chat, uid: &str, comes: bool) {
        let id = chat.id(&self.server);
        let done = match (wire, comes) {
            (Wire::Native | Wire::M3o, true) => {
                let socket = self.socket(owner);
                let client_seq = socket.seq();
                let uids = vec![uid.to_owned().into()];
                let invite = Invite { client_seq, channel_id: id.into(), channel_type: 2, uids };
                socket.ask_done(client_seq, ClientFrame::Invite(invite)).await.expect("invited");
                return;
            }
            (Wire::Native | Wire::M3o, false) => {
                let socket = self.socket(owner);
                let client_seq = socket.seq();
                let uids = vec![uid.to_owned().into()];
                let expel = Expel { client_seq, channel_id: id.into(), channel_type: 2, uids };
                socket.ask_done(client_seq, ClientFrame::Expel(expel)).await.expect("expelled");
                return;
            }
            (Wire::Conversation | Wire::BackEnd, _) => {
                let path = if comes { "/channel/subscriber_add" } else { "/channel/subscriber_remove" };
                let body = json!({"channel_id": id, "channel_type": 2, "subscribers": [uid]});
                self.call(Method::POST, path, None, "", body).await
            }
            (Wire::Chats, true) => {
                self.post(&format!("/chats/groups/{id}/users"), owner, json!({"users": [uid]})).await
            }
            (Wire::Chats, false) => {
                let path = format!("/chats/groups/{id}/users/{uid}");
                self.call(Method::DELETE, &path, Some(owner), "", Value::Null).await
            }
            (Wire::Threads, true) => {
                self.post(&format!("/api/v1/chat/threads/{id}/users"), owner, json!({"users": [uid]})).await
            }
            (Wire::Threads, false) => {
                let path = format!("/api/v1/chat/threads/{id}/users/{uid}");
                self.call(Method::DELETE, &path, Some(owner), "", Value::Null).await
            }
            (Wire::Relation, _) => {
                let path = if comes { "/api/v1/groups/invite" } else { "/api/v1/groups/remove" };
                self.post(path, owner, json!({"channelUuid": id, "members": [uid]})).await
            }
        };
        done.unwrap_or_else(|status| panic!("{wire:?} {uid} comes: {comes}: {status}"));
    }

    /// Who is in a group, as its owner sees it.
    pub async fn members(&mut self, wire: Wire, owner: &str, chat: &Chat) -> Option<BTreeSet<String>> {
        let id = chat.id(&self.server);
        let names = |list: &Value| -> BTreeSet<String> {
            let list = list.as_array().expect("a list").iter();
            list.map(|v| v.as_str().or(v["relationId"].as_str()).expect("a name").to_owned()).collect()
        };
        Some(match wire {
            Wire::Native => {
                let socket = self.socket(owner);
                let client_seq = socket.seq();
                let asked = Members { client_seq, channel_id: id.into(), channel_type: 2, skip: 0, limit: 0 };
                socket.send(&ClientFrame::Members(asked)).await;
                socket
                    .expect(|frame| match frame {
                        ServerFrame::Members(list) if list.client_seq == client_seq => {
                            Some(list.members.iter().map(|member| member.uid.to_string()).collect())
                        }
                        _ => None,
                    })
                    .await
            }
            Wire::Chats => names(&self.get(&format!("/chats/groups/{id}"), owner).await.expect("a group")["users"]),
            Wire::Threads => {
                names(&self.get(&format!("/api/v1/chat/threads/{id}"), owner).await.expect("a thread")["users"])
            }
            Wire::Relation => {
                let answer = self.post("/api/v1/groups/members", owner, json!({"channelUuid": id})).await;
                names(&answer.expect("a group")["data"]["members"])
            }
            Wire::Conversation | Wire::BackEnd | Wire::M3o => return None,
        })
    }

    /// A user's conversations in which something can be seen, with what is unread; none where a wire has no such list.
    pub async fn unread(&mut self, wire: Wire, uid: &'static str, chats: &[Chat]) -> Option<BTreeMap<Chat, u64>> {
        let by_name = |name: &str, kind: u64| {
            chats.iter().find(|chat| {
                let (id, number) = chat.seen_by(uid);
                let mine = chat.peer(uid).is_none() || matches!(chat, Chat::Pair(a, b) if [a, b].contains(&&uid));
                mine && id == name && u64::from(number) == kind
            })
        };
        let ids: BTreeMap<String, Chat> = chats.iter().map(|chat| (chat.id(&self.server), chat.clone())).collect();
        let by_id =
            |id: &Value| ids[&uuid::Uuid::try_parse(id.as_str().expect("an id")).expect("a uuid").to_string()].clone();
        Some(match wire {
            Wire::Native => {
                let synced = self.socket(uid).sync(|_| {}).await.expect("synced");
                let rows = synced.rows.iter().filter(|row| !row.is_deleted);
                rows.map(|row| {
                    let chat = by_name(&row.channel_id, row.channel_type.into()).expect("one of ours");
                    (chat.clone(), row.unread)
                })
                .collect()
            }
            Wire::Conversation | Wire::BackEnd => {
                let as_user = (wire == Wire::Conversation).then_some(uid);
                let rows = self.call(Method::POST, "/conversation/sync", as_user, "", json!({"uid": uid})).await;
                let rows = rows.expect("synced");
                let rows = rows.as_array().expect("rows").iter();
                rows.map(|row| {
                    let name = row["channel_id"].as_str().expect("a name");
                    let chat = by_name(name, number_of(&row["channel_type"]).expect("a type")).expect("one of ours");
                    (chat.clone(), number_of(&row["unread"]).expect("a number"))
                })
                .collect()
            }
            Wire::Chats => {
                let list = self.get("/chats", uid).await.expect("chats");
                let rows = list["chats"].as_array().expect("chats").iter();
                let seen = rows.filter(|row| row["lastMessage"].as_object().is_some_and(|last| !last.is_empty()));
                seen.map(|row| (by_id(&row["id"]), number_of(&row["unRead"]).expect("a number"))).collect()
            }
            Wire::Threads => {
                let list = self.get("/api/v1/chat/threads", uid).await.expect("threads");
                let seen = list.as_array().expect("threads").iter().filter(|row| !row["lastMessage"].is_null());
                seen.map(|row| (by_id(&row["_id"]), number_of(&row["newActivityCount"]).expect("a number"))).collect()
            }
            Wire::Relation => {
                let list = self.post("/api/v1/chats/list", uid, json!({})).await.expect("chats");
                let rows = list["data"]["chats"].as_array().expect("chats").iter();
                let seen = rows.filter(|row| !row["lastMessage"].is_null());
                seen.map(|row| (by_id(&row["channelUuid"]), number_of(&row["unreadCount"]).expect("a number")))
                    .collect()
            }
            Wire::M3o => return None,
        })
    }

    /// All messages of a chat, oldest first. Through `chats` and `threads` this marks it as read.
    pub async fn history(&mut self, wire: Wire, uid: &str, chat: &Chat) -> Result<Vec<Shown>, u16> {
        let (channel_id, channel_type) = chat.seen_by(uid);
        let id = chat.id(&self.server);
        let shown = |list: &Value, [id, from, text]: [&str; 3]| -> Vec<Shown> {
            let list = list.as_array().expect("messages").iter();
            list.map(|m| {
                let gone = m.get("state").is_some_and(|state| !state.is_null());
                let text = (!gone).then(|| m[text].as_str().expect("a text").to_owned());
                (number_of(&m[id]).expect("an id"), m[from].as_str().expect("a sender").to_owned(), text)
            })
            .collect()
        };
        Ok(match wire {
            Wire::Native => {
                let page = self.socket(uid).history(&channel_id, channel_type, 0, 0).await;
                let (messages, more) = page.map_err(|refused| status_of(&refused))?;
                assert!(!more, "a page holds all of it");
                let live = |m: &protocol::native::MessageItem<'_>| m.state == protocol::native::MessageState::Live;
                let one = |m: &protocol::native::MessageItem<'_>| {
                    (m.message_id, m.from_uid.to_string(), live(m).then(|| Content::decode(&m.payload).body_text()))
                };
                messages.iter().map(one).collect()
            }
            Wire::Conversation | Wire::BackEnd => {
                use base64::Engine;
                let body =
                    json!({"login_uid": uid, "channel_id": channel_id, "channel_type": channel_type, "limit": 1000});
                let as_user = (wire == Wire::Conversation).then_some(uid);
                let page = self.call(Method::POST, "/channel/messagesync", as_user, "", body).await?;
                let list = page["messages"].as_array().expect("messages").iter();
                list.map(|m| {
                    let payload = m["payload"].as_str().expect("a payload");
                    let bytes = base64::engine::general_purpose::STANDARD.decode(payload).expect("base64");
                    let live = m.get("state").is_none();
                    let text = live.then(|| Content::decode(&bytes).body_text());
                    (
                        number_of(&m["message_idstr"]).expect("an id"),
                        m["from_uid"].as_str().expect("a uid").into(),
                        text,
                    )
                })
                .collect()
            }
            Wire::Chats => {
                let page = self.get(&format!("/chats/messages?chatId={id}&limit=200"), uid).await?;
                shown(&page["messages"], ["id", "from", "content"])
            }
            Wire::Threads => {
                let page = self.get(&format!("/api/v1/chat/threads/{id}/messages?limit=200"), uid).await?;
                shown(&page, ["_id", "from", "content"])
            }
            Wire::Relation => {
                let page = self.post("/api/v1/message/list", uid, json!({"channelUuid": id, "limit": 200})).await?;
                let mut newest_first = shown(&page["data"]["messages"], ["id", "fromRelationId", "content"]);
                newest_first.reverse();
                newest_first
            }
            Wire::M3o => {
                let page = self.post("/chat/History", uid, json!({"chat_id": id, "limit": 1000})).await?;
                shown(&page["messages"], ["id", "user_id", "text"])
            }
        })
    }

    /// Who likes each message, where a view shows it.
    pub async fn likes(&mut self, wire: Wire, uid: &str, chat: &Chat) -> Option<BTreeMap<u64, BTreeSet<String>>> {
        let names =
            |v: &Value| v.as_array().expect("a list").iter().map(|n| n.as_str().expect("a uid").into()).collect();
        let id = chat.id(&self.server);
        let (list, field) = match wire {
            Wire::Native => {
                let (channel_id, channel_type) = chat.seen_by(uid);
                let (messages, _) = self.socket(uid).history(&channel_id, channel_type, 0, 0).await.expect("history");
                let likes = |m: &protocol::native::MessageItem<'_>| m.likes.iter().map(|n| n.to_string()).collect();
                return Some(messages.iter().map(|m| (m.message_id, likes(m))).collect());
            }
            Wire::Chats => {
                let page = self.get(&format!("/chats/messages?chatId={id}&limit=200"), uid).await.expect("a page");
                (page["messages"].clone(), "id")
            }
            Wire::Threads => {
                let path = format!("/api/v1/chat/threads/{id}/messages?limit=200");
                (self.get(&path, uid).await.expect("a page"), "_id")
            }
            _ => return None,
        };
        let list = list.as_array().expect("messages").iter();
        Some(list.map(|m| (number_of(&m[field]).expect("an id"), names(&m["likes"]))).collect())
    }
}

/// A number, or its digits.
fn number_of(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The HTTP status of a native refusal's word, as the one table has it.
fn status_of(refused: &Refused<'_>) -> u16 {
    match &*refused.code {
        "not_member" | "forbidden" | "blocked" | "stranger_refused" | "too_late" => 403,
        "channel_not_found" | "not_found" | "message_gone" => 404,
        "client_msg_no_conflict" => 409,
        other => panic!("refused: {other}: {refused:?}"),
    }
}
