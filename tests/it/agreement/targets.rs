//! Where a message may go, case by case and wire by wire (design.md section 7; CHECKLIST section 6, 6): the table is
//! `tests/vectors/targets.json`, and `docs/dialects.md` prints it.

use chinwag::domain::content::Content;
use protocol::native::{ClientFrame, Encoding, Relation, ServerFrame, Settings, Strangers};
use reqwest::Method;
use serde_json::{Value, json};

use super::wires::{Chat, Wires};
use crate::harness::{Client, Server};

const TABLE: &str = include_str!("../../vectors/targets.json");

struct Case {
    name: &'static str,
    /// The other user, where there is one.
    peer: Option<&'static str>,
    /// A chat's id; with `peer` given both are named.
    chat: Option<String>,
}

/// What a wire says, in one word of its own.
fn word(wire: &str, status: u16, answer: &Value) -> String {
    match wire {
        "relation" => answer["code"].as_str().unwrap_or("none").to_owned(),
        "m3o" if status != 200 => answer["Id"].as_str().unwrap_or("none").to_owned(),
        "conversation" if status == 200 && answer["reason"] != 1 => format!("reason {}", answer["reason"]),
        _ => status.to_string(),
    }
}

struct Asker {
    server: Server,
    http: reqwest::Client,
    root: String,
}

impl Asker {
    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.post(format!("http://{}{path}", self.server.app.http_addr()));
        let request = request.bearer_auth("token-of-alice").header("ApiKey", &self.root).body(body.to_string());
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.expect("JSON"))
    }

    /// The words of all wires for one case; `—` where a wire cannot say it.
    async fn ask(&self, case: &Case, socket: &mut Client) -> Value {
        let mut words = json!({ "case": case.name });
        let mut note = |wire: &str, (status, answer): (u16, Value)| words[wire] = word(wire, status, &answer).into();
        let (peer, chat) = (case.peer.map(Value::from), case.chat.clone().map(Value::from));

        let mut body = json!({"message": {"type": "text", "content": "x"}});
        let fields = [("userUUID", &peer), ("chatId", &chat)];
        fields.iter().for_each(|(field, value)| body[*field] = (*value).clone().unwrap_or_default());
        note("chats", self.post("/chats/messages", body).await);

        let body = json!({"content": "x", "to": peer, "thread": chat});
        note("threads", self.post("/api/v1/chat/messages", body).await);

        let body = json!({"type": "text", "content": "x", "toRelationId": peer, "channelUuid": chat});
        note("relation", self.post("/api/v1/message/send", body).await);

        let both = case.peer.is_some() && case.chat.is_some();
        let mut id = chat.clone();
        if let (Some(peer), None) = (&peer, &chat) {
            id = Some(self.post("/chat/New", json!({"user_ids": [peer, "alice"]})).await.1["chat_id"].clone());
        }
        if !both {
            note("m3o", self.post("/chat/Send", json!({"chat_id": id, "user_id": "alice", "text": "x"})).await);
            let channel = case.chat.as_deref().or(case.peer).unwrap_or_default();
            let channel_type = if case.chat.is_some() { 2 } else { 1 };
            let body = json!({"channel_id": channel, "channel_type": channel_type, "payload": "eA=="});
            note("conversation", self.post("/message/send", body).await);
            let payload = Content::text("x").encode(None);
            let send = socket.message(channel, channel_type, &payload);
            let said = socket.ask_send(send).await.map_or_else(|refused| refused.code.to_string(), |_| "ack".into());
            words["native"] = said.into();
        } else {
            for wire in ["m3o", "conversation", "native"] {
                words[wire] = "—".into();
            }
        }
        words
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_message_may_go_is_one_table() {
    let wires = Wires::new(Server::on_memory().await).await;
    let group = async |owner: &str, users: Value| {
        let made = wires.call(Method::POST, "/chats/groups", Some(owner), "", json!({ "users": users })).await;
        made.expect("a group")["chatId"].as_str().expect("an id").to_owned()
    };
    let others = group("bob", json!(["carol"])).await;
    let own = group("alice", json!(["bob"])).await;
    let over = group("alice", json!(["bob"])).await;
    let end = json!({"channel_id": over, "channel_type": 2});
    wires.call(Method::POST, "/channel/delete", None, "", end).await.expect("disbanded");
    let pair = Chat::pair("alice", "bob").id(&wires.server);

    let Wires { server, .. } = wires;
    let mut dave = Client::connect(&server, "token-of-dave", Encoding::Json, |_| {}).await;
    let client_seq = dave.seq();
    let settings = Settings { client_seq, strangers: Some(Strangers::Block) };
    dave.send(&ClientFrame::Settings(settings)).await;
    dave.expect(|frame| matches!(frame, ServerFrame::Settings(_)).then_some(())).await;
    let mut carol = Client::connect(&server, "token-of-carol", Encoding::Json, |_| {}).await;
    let client_seq = carol.seq();
    let relation = Relation { client_seq, uid: "alice".into(), contact: None, blocked: Some(true) };
    carol.send(&ClientFrame::Relation(relation)).await;
    carol.expect(|frame| matches!(frame, ServerFrame::Relations(_)).then_some(())).await;
    let mut alice = Client::connect(&server, "token-of-alice", Encoding::Json, |_| {}).await;

    let root = std::fs::read_to_string(server.config.data_dir.join("root.key")).expect("the root key");
    let asker = Asker { server, http: reqwest::Client::new(), root: root.trim().to_owned() };
    let case = |name, peer, chat: Option<&str>| Case { name, peer, chat: chat.map(str::to_owned) };
    let nowhere = "00000000-0000-4000-8000-000000000000";
    let mut found = Vec::new();
    for case in [
        case("to a user", Some("bob"), None),
        case("to oneself", Some("alice"), None),
        case("to a user nobody knows", Some("nobody"), None),
        case("to who has blocked the sender", Some("carol"), None),
        case("as a stranger, to who blocks strangers", Some("dave"), None),
        case("to a group, as a member", None, Some(&own)),
        case("to a group, as no member", None, Some(&others)),
        case("to a group that was disbanded", None, Some(&over)),
        case("to a chat that is not there", None, Some(nowhere)),
        case("with two targets that are one chat", Some("bob"), Some(&pair)),
        // Of a group and one of its members, relation's channelUuid wins (CHECKLIST D4).
        case("with two targets that are not", Some("bob"), Some(&own)),
        case("with two targets that contradict", Some("carol"), Some(&own)),
        case("without a target", None, None),
    ] {
        found.push(asker.ask(&case, &mut alice).await);
    }
    let rows: Vec<String> = found.iter().map(Value::to_string).collect();
    let text = format!("[\n  {}\n]\n", rows.join(",\n  "));
    assert!(text == TABLE, "tests/vectors/targets.json should be, if this is what is wanted:\n{text}");
}
