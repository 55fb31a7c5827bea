//! Moving here from WuKongIM: a scripted server answers in the shapes of its v2 (and v1) HTTP API, the real binary reads it,
//! and a server is started on the result.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::harness::{Server, check, command, done, run};

const SENT: i64 = 1_700_000_000;

/// What the scripted server does with its nth request.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    /// Answers 400 from then on.
    Refuse(u64),
    /// Never answers that one.
    Hang(u64),
}

/// The scripted server's data.
#[derive(Default)]
struct Script {
    /// By (canonical id, type), ascending.
    messages: BTreeMap<(String, u64), Vec<Value>>,
    /// Rows of /conversation/sync by user.
    rows: BTreeMap<String, Vec<Value>>,
    max_seq: BTreeMap<String, u64>,
    /// By id: of channels, and of users (their uid).
    allowed: BTreeMap<String, Vec<&'static str>>,
    denied: BTreeMap<String, Vec<&'static str>>,
    /// What v2 lists of itself below /cluster, newest first, by path; without it (v1): no such routes.
    catalogue: Option<BTreeMap<&'static str, Vec<Value>>>,
    subscribers: BTreeMap<String, Vec<&'static str>>,
    system_uids: Value,
    /// A message of alice and bob that comes right before their last seq is told.
    late: Option<Value>,
    token: Option<String>,
    /// v1: lists of texts.
    is_v1: bool,
    trouble: Option<Trouble>,
    /// An answer of another shape, by route.
    wrong: Option<(&'static str, Value)>,
    asked: Vec<String>,
}

type Shared = Arc<Mutex<Script>>;

/// `a@b`, the greater CRC-32 first (wukongim-http.md 8.1).
fn pair(a: &str, b: &str) -> String {
    let crc = |uid: &str| crc32fast::hash(uid.as_bytes());
    if crc(a) > crc(b) { format!("{a}@{b}") } else { format!("{b}@{a}") }
}

async fn before(script: &Shared, headers: &HeaderMap, asked: String) -> Option<Response> {
    let (trouble, answer) = {
        let mut script = script.lock();
        script.asked.push(asked.clone());
        let token = headers.get("token").and_then(|token| token.to_str().ok());
        let nth = script.asked.len() as u64;
        let answer = match (&script.token, &script.wrong) {
            (Some(wanted), _) if token != Some(wanted) => Some(StatusCode::UNAUTHORIZED.into_response()),
            (_, Some((route, answer))) if asked.starts_with(route) => Some(Json(answer.clone()).into_response()),
            _ => None,
        };
        let trouble = match script.trouble {
            Some(Trouble::Refuse(from)) if nth >= from => Some(Trouble::Refuse(from)),
            Some(Trouble::Hang(at)) if nth == at => Some(Trouble::Hang(at)),
            _ => None,
        };
        (trouble, answer)
    };
    match trouble {
        Some(Trouble::Refuse(_)) => {
            Some((StatusCode::BAD_REQUEST, Json(json!({"msg": "in trouble", "status": 400}))).into_response())
        }
        Some(Trouble::Hang(_)) => {
            std::future::pending::<()>().await;
            None
        }
        None => answer,
    }
}

async fn sync(State(script): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let uid = body["uid"].as_str().unwrap_or_default().to_owned();
    if let Some(answer) = before(&script, &headers, format!("/conversation/sync {uid}")).await {
        return answer;
    }
    let script = script.lock();
    let all = script.rows.get(&uid).cloned().unwrap_or_default();
    assert!(body.get("page").is_none(), "all at once");
    Json(all).into_response()
}

async fn messages(State(script): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let (login, id) = (body["login_uid"].as_str().unwrap_or_default(), body["channel_id"].as_str().unwrap_or_default());
    let channel_type = body["channel_type"].as_u64().unwrap_or(0);
    let start = body["start_message_seq"].as_u64().unwrap_or(0);
    let id = if channel_type == 1 { pair(login, id) } else { id.to_owned() };
    if let Some(answer) = before(&script, &headers, format!("/channel/messagesync {id} {start}")).await {
        return answer;
    }
    assert_eq!((&body["pull_mode"], &body["end_message_seq"]), (&json!(1), &json!(0)), "upwards");
    let script = script.lock();
    // The server's own limit is lower than what is asked for.
    let limit = (body["limit"].as_u64().unwrap_or(0) as usize).min(7);
    let all = script.messages.get(&(id, channel_type)).cloned().unwrap_or_default();
    let found = all.into_iter().filter(|message| message["message_seq"].as_u64() >= Some(start));
    let mut found: Vec<Value> = found.take(limit).collect();
    // As the real one does: the first message of each page has no header flags.
    if let Some(first) = found.first_mut().filter(|_| !script.is_v1) {
        first["header"] = json!({"no_persist": 0, "red_dot": 0, "sync_once": 0});
    }
    let more = u8::from(found.len() == limit);
    Json(json!({"start_message_seq": start, "end_message_seq": 0, "more": more, "messages": found})).into_response()
}

async fn max_seq(
    State(script): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let id = query["channel_id"].clone();
    if let Some(answer) = before(&script, &headers, format!("/channel/max_message_seq {id}")).await {
        return answer;
    }
    let mut script = script.lock();
    let channel_type = query["channel_type"].parse().unwrap_or(0);
    if id == pair("alice", "bob")
        && let Some(late) = script.late.take()
    {
        script.messages.entry((id.clone(), channel_type)).or_default().push(late);
    }
    let last = script.messages.get(&(id.clone(), channel_type)).and_then(|all| all.last()?["message_seq"].as_u64());
    let last = script.max_seq.get(&id).copied().or(last);
    match last {
        // As v2 does with channels that nobody ever wrote to.
        None if !script.is_v1 => {
            (StatusCode::BAD_REQUEST, Json(json!({"msg": "not found", "status": 400}))).into_response()
        }
        seq => Json(json!({"message_seq": seq.unwrap_or(0)})).into_response(),
    }
}

/// By name, as v2 finds them with their header flags.
async fn look_up(State(script): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let (login, id) = (body["login_uid"].as_str().unwrap_or_default(), body["channel_id"].as_str().unwrap_or_default());
    let channel_type = body["channel_type"].as_u64().unwrap_or(0);
    let id = if channel_type == 1 { pair(login, id) } else { id.to_owned() };
    if let Some(answer) = before(&script, &headers, format!("/messages {id} {}", body["client_msg_nos"])).await {
        return answer;
    }
    let all = script.lock().messages.get(&(id, channel_type)).cloned().unwrap_or_default();
    let found: Vec<Value> =
        all.into_iter().filter(|message| body["client_msg_nos"][0] == message["client_msg_no"]).collect();
    Json(json!({"start_message_seq": 0, "end_message_seq": 0, "more": 0, "messages": found})).into_response()
}

/// Pages of rows that were created before `offset_created_at`, as v2 cuts them.
async fn catalogue(
    State(script): State<Shared>,
    headers: HeaderMap,
    uri: axum::http::Uri,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    if let Some(answer) = before(&script, &headers, uri.to_string()).await {
        return answer;
    }
    let script = script.lock();
    let Some(rows) = script.catalogue.as_ref() else { return StatusCode::NOT_FOUND.into_response() };
    let rows = rows.get(uri.path()).cloned().unwrap_or_default();
    let number = |field: &str| query.get(field).and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    // The server's own limit is lower than what is first asked for.
    let (before, limit) = (number("offset_created_at"), number("limit").div_ceil(250));
    let at = |row: &Value| row["created_at"].as_u64().unwrap_or(0) as usize;
    let found: Vec<Value> = rows.into_iter().filter(|row| before == 0 || at(row) < before).collect();
    let more = u8::from(found.len() > limit);
    Json(json!({"total": 0, "more": more, "data": found[..found.len().min(limit)]})).into_response()
}

async fn on_list(
    State(script): State<Shared>,
    headers: HeaderMap,
    uri: axum::http::Uri,
    axum::extract::Path((id, _, list)): axum::extract::Path<(String, u8, String)>,
) -> Response {
    if let Some(answer) = before(&script, &headers, uri.to_string()).await {
        return answer;
    }
    let script = script.lock();
    if script.catalogue.is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let lists = if list == "denylist" { &script.denied } else { &script.subscribers };
    Json(lists.get(&id).cloned().unwrap_or_default()).into_response()
}

async fn system_uids(State(script): State<Shared>, headers: HeaderMap) -> Response {
    if let Some(answer) = before(&script, &headers, "/user/systemuids".to_owned()).await {
        return answer;
    }
    let script = script.lock();
    match script.is_v1 {
        true => StatusCode::NOT_FOUND.into_response(),
        false => Json(script.system_uids.clone()).into_response(),
    }
}

async fn allowed(
    State(script): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let id = query["channel_id"].clone();
    if let Some(answer) = before(&script, &headers, format!("/channel/whitelist {id}")).await {
        return answer;
    }
    let script = script.lock();
    let uids = script.allowed.get(&id).cloned().unwrap_or_default();
    match (uids.is_empty(), script.is_v1) {
        (true, true) => Json(Value::Null).into_response(),
        (_, true) => Json(uids).into_response(),
        (_, false) => {
            let at = "2026-11-22T13:38:10.480187113Z";
            let row = |uid| json!({"id": 21_748_447_695_211_092_u64, "uid": uid, "created_at": at, "updated_at": at});
            Json(uids.into_iter().map(row).collect::<Vec<_>>()).into_response()
        }
    }
}

async fn start(script: Script) -> (String, Shared) {
    let script = Arc::new(Mutex::new(script));
    let routes = Router::new()
        .route("/conversation/sync", post(sync))
        .route("/channel/messagesync", post(messages))
        .route("/channel/max_message_seq", get(max_seq))
        .route("/channel/whitelist", get(allowed))
        .route("/messages", post(look_up))
        .route("/user/systemuids", get(system_uids))
        .route("/cluster/users", get(catalogue))
        .route("/cluster/devices", get(catalogue))
        .route("/cluster/channels", get(catalogue))
        .route("/cluster/conversations", get(catalogue))
        .route("/cluster/channels/{id}/{channel_type}/{list}", get(on_list))
        .with_state(script.clone());
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (format!("http://{address}"), script)
}

fn message(seq: u64, from: &str, channel: (&str, u64), at: i64) -> Value {
    json!({
        "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0}, "setting": 8, "message_id": 9_100_000_000_000_000_000 + seq,
        "message_idstr": (9_100_000_000_000_000_000 + seq).to_string(), "client_msg_no": format!("{}-{seq}", channel.0),
        "message_seq": seq, "from_uid": from, "channel_id": channel.0, "channel_type": channel.1, "topic": "t",
        "expire": 0, "timestamp": at, "payload": STANDARD.encode(format!("{{\"type\":1,\"content\":\"no {seq}\"}}")),
    })
}

fn row(channel: &str, channel_type: u64, unread: u64, last: u64) -> Value {
    json!({
        "channel_id": channel, "channel_type": channel_type, "unread": unread, "timestamp": SENT, "last_msg_seq": last,
        "last_client_msg_no": "", "offset_msg_seq": 0, "readed_to_msg_seq": last - unread, "version": SENT * 1_000_000_000,
        "recents": [],
    })
}

/// alice and bob, 20 messages; a group of three with 30, seq 11 to 13 missing and 31 and 32 gone; carol deleted it.
fn script() -> Script {
    let mut script = Script { catalogue: Some(BTreeMap::new()), ..Script::default() };
    let person = (0..20).map(|n| {
        let (from, to) = if n % 2 == 0 { ("alice", "bob") } else { ("bob", "alice") };
        message(n + 1, from, (to, 1), SENT + n as i64)
    });
    script.messages.insert((pair("alice", "bob"), 1), person.collect());
    let group = (1..=30).filter(|seq| !(11..=13).contains(seq));
    // Two in a second, and a clock that steps back once.
    let at = |seq: u64| SENT + 5 + (seq as i64) / 2 - if seq == 20 { 3 } else { 0 };
    let group = group.map(|seq| message(seq, if seq % 3 == 0 { "bob" } else { "alice" }, ("team", 2), at(seq)));
    script.messages.insert(("team".to_owned(), 2), group.collect());
    script.max_seq.insert("team".to_owned(), 32);
    script.allowed.insert("team".to_owned(), vec!["alice", "bob"]);
    let rows = [row("bob", 1, 0, 20), row("team", 2, 4, 30), row("club", 2, 0, 0), row("info", 6, 0, 3)];
    script.rows.insert("alice".to_owned(), rows.to_vec());
    script.rows.insert("bob".to_owned(), vec![row("alice", 1, 3, 20), row("team", 2, 0, 30)]);
    script
}

fn files(dir: &Path) -> (PathBuf, PathBuf) {
    let (users, channels) = (dir.join("users"), dir.join("channels"));
    std::fs::write(&users, "alice\n\n").expect("written");
    let team = json!({"channel_id": "team", "channel_type": 2, "large": 0, "ban": 0, "subscribers": ["alice", "bob", "carol"]});
    std::fs::write(&channels, format!("{team}\n")).expect("written");
    (users, channels)
}

fn arguments<'a>(from: &'a str, users: &'a Path, channels: &'a Path) -> Vec<&'a str> {
    let text = |path: &'a Path| path.to_str().expect("text");
    vec!["import", "wukongim", "--from", from, "--users", text(users), "--channels", text(channels)]
}

/// Runs the command beside the scripted server, which lives on this runtime.
async fn ran(data: &Path, args: &[&str]) -> (i32, String) {
    let (data, args) = (data.to_owned(), args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
    let run = move || run(&data, &args.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.expect("it ends")
}

async fn got(server: &Server, path: &str) -> Value {
    let request = server.client.get(format!("{}{path}", server.http)).bearer_auth(&server.key);
    request.send().await.expect("an answer").json().await.expect("JSON")
}

async fn history(server: &Server, login: &str, channel: &str, channel_type: u64) -> Vec<Value> {
    let body = json!({"login_uid": login, "channel_id": channel, "channel_type": channel_type, "start_message_seq": 1,
                      "end_message_seq": 0, "limit": 1_000, "pull_mode": 1});
    let (_, answer) = server.post("/channel/messagesync", body).await;
    answer["messages"].as_array().expect("messages").clone()
}

async fn conversations(server: &Server, uid: &str) -> BTreeMap<String, (u64, u64)> {
    let (_, rows) = server.post("/conversation/sync", json!({"uid": uid, "version": 0, "msg_count": 1})).await;
    let rows = rows.as_array().expect("rows").iter();
    rows.map(|row| {
        let number = |field: &str| row[field].as_u64().expect("a number");
        (row["channel_id"].as_str().expect("an id").to_owned(), (number("unread"), number("last_msg_seq")))
    })
    .collect()
}

/// That a server on `data` shows what the script has.
async fn assert_moved(data: &Path) {
    let (code, report) = check(data);
    assert_eq!(code, 0, "{report}");
    let server = Server::start(data);
    let script = script();
    let person = history(&server, "alice", "bob", 1).await;
    let original = &script.messages[&(pair("alice", "bob"), 1)];
    assert_eq!(person.len(), original.len());
    for (found, told) in person.iter().zip(original) {
        for field in ["message_seq", "client_msg_no", "from_uid", "payload", "timestamp", "setting", "topic", "header"]
        {
            assert_eq!(found[field], told[field], "{field}: {found}");
        }
    }
    let group = history(&server, "bob", "team", 2).await;
    let seqs: Vec<u64> = group.iter().map(|message| message["message_seq"].as_u64().expect("a seq")).collect();
    assert_eq!(seqs, (1..=32).collect::<Vec<_>>(), "seqs are kept, holes are taken");
    for seq in [11, 12, 13, 31, 32] {
        assert!(group[seq - 1].to_string().contains("expired"), "{}", group[seq - 1]);
    }
    let last = &group[29];
    assert_eq!((&last["client_msg_no"], &last["timestamp"]), (&json!("team-30"), &json!(SENT + 20)));
    let times: Vec<i64> = group.iter().filter_map(|message| message["timestamp"].as_i64()).collect();
    assert!(times.is_sorted(), "{times:?}");

    let alice = conversations(&server, "alice").await;
    // Own messages after the read position do not count.
    assert_eq!(alice.get("bob"), Some(&(0, 20)), "{alice:?}");
    assert_eq!(alice.get("team"), Some(&(2, 32)), "27 and 30 are unread, 28 and 29 own: {alice:?}");
    let bob = conversations(&server, "bob").await;
    assert_eq!(bob.get("alice"), Some(&(1, 20)), "18 and 20 are own: {bob:?}");
    assert_eq!(conversations(&server, "carol").await, BTreeMap::new(), "deleted there, deleted here");
    // A retry of an old send gets its first outcome, a new one the next seq.
    let body = json!({"from_uid": "alice", "channel_id": "team", "channel_type": 2, "client_msg_no": "team-1",
                      "header": {"red_dot": 1}, "payload": group[0]["payload"]});
    let (_, answer) = server.post("/message/send", body).await;
    assert_eq!(answer["message_seq"], 1, "{answer}");
    assert_eq!(server.send("team", "new").await.0, 33);
    assert_eq!(conversations(&server, "carol").await.get("team"), Some(&(1, 33)), "a new message revives it");
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wukongim_is_moved_with_its_seqs_names_and_read_positions() {
    let dir = tempfile::tempdir().expect("a directory");
    let (users, channels) = files(dir.path());
    let (from, asked) = start(script()).await;
    let data = dir.path().join("data");
    let (code, out) = ran(&data, &arguments(&from, &users, &channels)).await;
    assert_eq!(code, 0, "{out}");
    for said in [
        "read: 3 users (0 of them found on the way), 3 channels",
        "read: 47 messages now, 0 by earlier runs",
        "1 conversations and channels of type 6",
        "without members, since --channels does not name them: club",
        "read: 2 users on lists of channels and of users, 0 system users, 0 tokens",
        "5 messages were not in it",
        "sound\n",
    ] {
        assert!(out.contains(said), "{said}: {out}");
    }
    let pages = asked.lock().asked.iter().filter(|asked| asked.contains("messagesync team")).count();
    assert_eq!(pages, 5, "27 messages in pages of 7, each but the first with the last known message");
    assert_moved(&data).await;
    let (code, out) = ran(&data, &arguments(&from, &users, &channels)).await;
    assert!(code == 4 && out.contains("is not empty"), "{code} {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_move_goes_on_and_a_later_one_reads_what_is_new() {
    let dir = tempfile::tempdir().expect("a directory");
    let (users, channels) = files(dir.path());
    let (from, shared) = start(script()).await;
    let data = dir.path().join("data");
    let args = arguments(&from, &users, &channels);
    // Refused from the nth request on; then killed while the nth one is not answered.
    for nth in [1, 3, 7, 12, 14, 17, 15] {
        shared.lock().asked.clear();
        shared.lock().trouble = Some(Trouble::Refuse(nth));
        let (code, out) = ran(&data, &args).await;
        assert!(code == 1 && out.contains("in trouble") && !data.exists(), "{nth}: {code} {out}");
    }
    for nth in [2, 8] {
        shared.lock().asked.clear();
        shared.lock().trouble = Some(Trouble::Hang(nth));
        let mut child = command(&data, &args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        let begun = std::time::Instant::now();
        while (shared.lock().asked.len() as u64) < nth {
            assert!(begun.elapsed() < crate::harness::PATIENCE && child.try_wait().expect("waits").is_none());
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
    {
        let mut script = shared.lock();
        (script.trouble, script.asked) = (None, Vec::new());
    }
    let download = [&args[..], &["--download-only"]].concat();
    let (code, out) = ran(&data, &download).await;
    assert!(code == 0 && out.contains("nothing was imported yet") && !data.exists(), "{code} {out}");
    let first = shared.lock().asked.clone();
    assert!(!first.iter().any(|asked| asked.starts_with("/conversation/sync alice")), "asked before: {first:?}");
    assert!(!first.iter().any(|asked| asked == "/channel/messagesync team 1"), "asked before: {first:?}");

    // Later: 21 comes while the channel is read, the rest is there already.
    {
        let mut script = shared.lock();
        script.late = Some(message(21, "bob", ("alice", 1), SENT + 100));
        script.asked.clear();
    }
    let (code, out) = ran(&data, &download).await;
    assert!(code == 0 && out.contains("read: 1 messages now, 52 by earlier runs"), "{code} {out}");
    let again = shared.lock().asked.clone();
    assert!(
        again.iter().any(|asked| asked.starts_with("/conversation/sync alice")),
        "positions are read anew: {again:?}"
    );
    assert!(again.contains(&format!("/channel/messagesync {} 20", pair("alice", "bob"))), "{again:?}");

    // What was staged is the same as what an undisturbed run makes.
    shared.lock().messages.get_mut(&(pair("alice", "bob"), 1)).expect("there").pop();
    std::fs::remove_dir_all(dir.path().join("data.wukongim")).expect("removed");
    for nth in [5, 9, 13] {
        shared.lock().asked.clear();
        shared.lock().trouble = Some(Trouble::Refuse(nth));
        assert_eq!(ran(&data, &args).await.0, 1);
    }
    shared.lock().trouble = None;
    let (code, out) = ran(&data, &args).await;
    assert_eq!(code, 0, "{out}");
    assert_moved(&data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_another_shape_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let (users, channels) = files(dir.path());
    let (from, shared) = start(script()).await;
    let data = dir.path().join("data");
    let args = arguments(&from, &users, &channels);
    let page = |messages: Value| json!({"start_message_seq": 0, "end_message_seq": 0, "more": 0, "messages": messages});
    let with = |field: &str, value: Value| {
        let mut changed = message(1, "alice", ("team", 2), SENT);
        changed[field] = value;
        page(json!([changed]))
    };
    let descending = json!([message(2, "a", ("team", 2), SENT), message(1, "a", ("team", 2), SENT)]);
    for (route, answer, said) in [
        ("/conversation/sync", json!({"status": 200}), "is not what WuKongIM answers"),
        ("/conversation/sync", json!([{"channel_id": 7, "channel_type": 1}]), "[0].channel_id"),
        ("/conversation/sync", json!([row("a#b", 1, 0, 1)]), "channel_id \"a#b\" of a conversation of alice"),
        ("/channel/messagesync", json!([]), "is not what WuKongIM answers"),
        ("/channel/messagesync", with("message_seq", json!("1")), "messages[0].message_seq"),
        ("/channel/messagesync", with("payload", json!("***")), "message_seq 1: payload is no base64"),
        ("/channel/messagesync", with("from_uid", json!("a@b")), "from_uid \"a@b\""),
        ("/channel/messagesync", page(descending), "messages must ascend"),
        ("/channel/messagesync", with("message_seq", json!(5_000_000)), "4999999 messages are missing"),
        ("/channel/max_message_seq", json!({"message_seq": -1}), "message_seq"),
    ] {
        shared.lock().wrong = Some((route, answer));
        let (code, out) = ran(&data, &args).await;
        assert!(code == 1 && out.contains(said) && !data.exists(), "{route}: {code} {out} for {said}");
        assert!(out.contains(route) || out.contains("channel "), "the request or the channel is named: {out}");
        let _ = std::fs::remove_dir_all(dir.path().join("data.wukongim"));
    }
    {
        let mut script = shared.lock();
        (script.wrong, script.token) = (None, Some("secret".to_owned()));
    }
    let (code, out) = ran(&data, &args).await;
    assert!(code == 1 && out.contains("401") && out.contains("--token"), "{code} {out}");
    // The operator's own files, the address.
    std::fs::write(&users, "alice\na@b\n").expect("written");
    let (code, out) = ran(&data, &args).await;
    assert!(code == 1 && out.contains("users: line 2") && out.contains("'@'"), "{code} {out}");
    std::fs::write(&users, "alice\n").expect("written");
    std::fs::write(&channels, "{\"channel_id\":\"x\",\"channel_type\":1}\n").expect("written");
    let (code, out) = ran(&data, &args).await;
    assert!(code == 1 && out.contains("channels: line 1") && out.contains("channel_type"), "{code} {out}");
    files(dir.path());
    let (code, out) = ran(&data, &arguments("ftp://x", &users, &channels)).await;
    assert!(code == 1 && out.contains("is no address"), "{code} {out}");
    let (other, _) = start(Script::default()).await;
    let (code, out) = ran(&data, &arguments(&other, &users, &channels)).await;
    assert!(code == 1 && out.contains("was read from"), "{code} {out}");
    // With the token it is read.
    let with_token = [&args[..], &["--token", "secret"]].concat();
    let (code, out) = ran(&data, &with_token).await;
    assert_eq!(code, 0, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wukongim_2_is_moved_without_files_with_its_lists_and_tokens() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut new = script();
    let user = |uid: &str, at: u64| json!({"uid": uid, "device_count": 0, "created_at": at, "slot": 1});
    let device = |uid: &str, token: &str, flag: u64, at: u64| {
        json!({"uid": uid, "token": token, "device_flag": flag, "device_level": 1, "device_level_format": "主设备",
               "created_at": at})
    };
    let channel = |id: &str, channel_type: u8, at: u64| {
        json!({"channel_id": id, "channel_type": channel_type, "ban": u8::from(id == "carol"), "disband": 0,
               "subscriber_count": 0, "status_format": "正常", "created_at": at})
    };
    // Three of one instant: more than a page holds at first.
    let users = [user("eve", 9), user("bob", 7), user("alice", 7), user("carol", 7)];
    let devices = [
        device("alice", "alices", 0, 9),
        device("bob", "bobs", 1, 8),
        device("eve", "", 0, 7),
        device("x", "t", 300, 6),
    ];
    let channels = [
        channel("info", 6, 9),
        channel("empty", 2, 8),
        channel("team", 2, 7),
        channel("carol", 1, 6),
        channel("help", 3, 5),
        channel("", 2, 4),
    ];
    new.catalogue = Some(BTreeMap::from([
        ("/cluster/users", users.to_vec()),
        ("/cluster/devices", devices.to_vec()),
        ("/cluster/channels", channels.to_vec()),
    ]));
    new.subscribers.insert("team".to_owned(), vec!["bob", "alice", "carol", "", "a@b"]);
    new.subscribers.insert("help".to_owned(), vec!["eve"]);
    new.denied.extend([("team".to_owned(), vec!["carol"]), ("alice".to_owned(), vec!["eve"])]);
    new.allowed.insert("bob".to_owned(), vec!["alice"]);
    new.system_uids = json!(["robot"]);
    // The system user's conversations are shown to nobody, and its name to nobody either.
    let mut greeting = message(1, "", ("alice", 1), SENT + 50);
    greeting["header"]["red_dot"] = json!(0);
    new.messages.insert((pair("alice", "____system"), 1), vec![greeting]);
    let (from, _) = start(new).await;
    let data = dir.path().join("data");
    let (code, out) = ran(&data, &["import", "wukongim", "--from", &from, "--tokens"]).await;
    assert_eq!(code, 0, "{out}");
    for said in [
        "read: 4 users (0 of them found on the way)",
        "read: 48 messages now",
        "2 conversations and channels of type 6",
        "read: 5 users on lists of channels and of users, 1 system users, 2 tokens",
        "2 tokens are empty, too long or of unknown devices",
        "left out, since this server does not take such names: \"\", \"a@b\"",
    ] {
        assert!(out.contains(said), "{said}: {out}");
    }
    assert!(!out.contains("no credentials in it"), "{out}");
    let staged =
        std::fs::read_to_string(dir.path().join("data.wukongim/export/credentials.ndjson")).expect("it is there");
    assert!(!staged.contains("alices") && staged.contains("\"hash\""), "hashes only: {staged}");
    assert_moved(&data).await;
    let server = Server::start(&data);
    assert_eq!(got(&server, "/user/systemuids").await, json!(["robot"]));
    assert_eq!(got(&server, "/channel/whitelist?channel_id=team&channel_type=2").await, json!(["alice", "bob"]));
    assert_eq!(got(&server, "/channel/whitelist?channel_id=bob&channel_type=1").await, json!(["alice"]));
    let greeted = history(&server, "alice", "____system", 1).await;
    assert_eq!((&greeted[0]["from_uid"], &greeted[0]["header"]["red_dot"]), (&json!("____system"), &json!(0)));
    assert!(!conversations(&server, "alice").await.contains_key("____system"), "shown there to nobody");
    let (_, answer) = server.post("/user/token", json!({"uid": "carol", "token": "t"})).await;
    assert_eq!(answer["status"], json!(19), "banned there, banned here");
    for (token, expected) in [("alices", 200), ("bobs", 403), ("t", 401)] {
        let sync = server.client.post(format!("{}/conversation/sync", server.http)).bearer_auth(token);
        let answer = sync.json(&json!({"uid": "alice"})).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), expected, "{token}");
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_wukongim_is_read_as_far_as_it_tells() {
    let dir = tempfile::tempdir().expect("a directory");
    let (users, _) = files(dir.path());
    let mut old = script();
    (old.is_v1, old.catalogue) = (true, None);
    for rows in old.rows.values_mut() {
        for row in rows {
            row.as_object_mut().expect("an object").remove("readed_to_msg_seq");
            row["recents"] = Value::Null;
        }
    }
    // Names that are empty or twice there, an empty sender, the future.
    let team = old.messages.get_mut(&("team".to_owned(), 2)).expect("there");
    (team[0]["client_msg_no"], team[1]["from_uid"], team[2]["client_msg_no"]) = (json!(""), json!(""), json!("team-4"));
    team[26]["timestamp"] = json!(4_000_000_000_i64);
    team[26]["stream_data"] = json!("aGk=");
    let (from, _) = start(old).await;
    let data = dir.path().join("data");
    let args = [
        "import",
        "wukongim",
        "--from",
        &from,
        "--users",
        users.to_str().expect("text"),
        "--members-from-conversations",
    ];
    let (code, out) = ran(&data, &args).await;
    assert_eq!(code, 0, "{out}");
    for said in [
        "read: 2 users (1 of them found on the way), 3 channels",
        "1 messages had no client_msg_no",
        "1 messages were sent in the future",
        "1 messages had streamed text",
        "this WuKongIM does not list users, channels, members and deny lists",
    ] {
        assert!(out.contains(said), "{said}: {out}");
    }
    let server = Server::start(&data);
    let team = history(&server, "alice", "team", 2).await;
    assert_eq!(
        (&team[0]["client_msg_no"], &team[1]["from_uid"]),
        (&json!("wukongim-9100000000000000001"), &json!("____system"))
    );
    assert_eq!(conversations(&server, "bob").await.get("alice"), Some(&(1, 20)), "last seq less what is unread");
    server.stop();
    let exported = dir.path().join("export");
    done(&data, &["export", exported.to_str().expect("text")]);
    done(&dir.path().join("again"), &["import", exported.to_str().expect("text")]);
}
