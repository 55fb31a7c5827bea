//! Proves at-least-once of webhooks against SIGKILL: a real server with an endpoint is killed again and again while back ends
//! send, and so is the receiver. Every message that was answered as stored is told to msg.notify and, as nobody is online, to
//! msg.offline; the first time of each in the order of its channel.
//!
//! CHINWAG_WEBHOOK_KILL_ROUNDS and CHINWAG_WEBHOOK_KILL_SEED; the seed is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

mod process;

use process::Process;

const PATIENCE: Duration = Duration::from_secs(60);
const SENDERS: usize = 4;

#[derive(Default)]
struct Told {
    /// (channel, seq, id) in the order they came.
    notify: Vec<(String, u64, u64)>,
    offline: Vec<(String, u64, u64)>,
    rng: Option<StdRng>,
    /// Calls of msg.notify that come after so many messages get no answer, nor do those of msg.offline then.
    stuck_after: Option<usize>,
    /// Calls that wait in vain.
    stuck: usize,
}

async fn take(State(told): State<Arc<Mutex<Told>>>, uri: Uri, body: Bytes) -> StatusCode {
    let json: Value = serde_json::from_slice(&body).expect("JSON");
    let is_stuck = {
        let mut told = told.lock();
        let is_stuck = told.stuck_after.is_some_and(|after| told.notify.len() >= after);
        told.stuck += usize::from(is_stuck);
        is_stuck
    };
    if is_stuck {
        // Neither taken nor answered: the server is killed with the call in flight.
        std::future::pending::<()>().await;
    }
    let mut told = told.lock();
    // A receiver that fails now and then, before or after it has taken the call.
    let luck = told.rng.as_mut().map_or(1.0, |rng| rng.random::<f64>());
    if luck < 0.05 {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    let entry = |message: &Value| {
        // A pair's messages come from one sender here, so the receiver names the channel.
        let channel = format!("{}>{}", message["from_uid"].as_str().unwrap_or(""), message["channel_id"]);
        (channel, message["message_seq"].as_u64().expect("seq"), message["message_id"].as_u64().expect("id"))
    };
    match json.as_array() {
        Some(messages) => told.notify.extend(messages.iter().map(entry)),
        None => told.offline.push(entry(&json)),
    }
    assert!(uri.query().is_some_and(|query| query.starts_with("event=msg.")));
    if luck < 0.1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

async fn start(dir: &Path, url: &str) -> Process {
    let mut command = process::server(dir, &dir.join("data"), "error");
    for set in [
        &format!("webhook.url={url}"),
        "webhook.events=msg.notify,msg.offline",
        "webhook.push_interval_ms=5",
        "webhook.retry_max_ms=100",
        "store.segment_bytes_max=1048576",
    ] {
        command.args(["--set", set]);
    }
    Process::started(command).await.expect("the server starts")
}

/// Sends until it is told to stop; what was answered as stored is in `stored`.
async fn send(
    base: String,
    key: String,
    sender: usize,
    names: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> BTreeMap<u64, u64> {
    let client = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
    let mut stored = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let name = names.fetch_add(1, Ordering::Relaxed);
        let body = json!({
            "header": {"red_dot": 1}, "from_uid": format!("s{sender}"), "channel_id": "bob", "channel_type": 1,
            "payload": "eA==", "client_msg_no": name.to_string(),
        });
        let Ok(answer) = client.post(format!("{base}/message/send")).bearer_auth(&key).json(&body).send().await else {
            break;
        };
        let Ok(answer) = answer.json::<Value>().await else { break };
        if let (Some(1), Some(id), Some(seq)) =
            (answer["reason"].as_u64(), answer["message_id"].as_u64(), answer["message_seq"].as_u64())
        {
            stored.insert(id, seq);
        }
    }
    stored
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stored_message_is_missing_at_the_endpoint_whoever_is_killed() {
    let (rounds, seed) = (number("CHINWAG_WEBHOOK_KILL_ROUNDS", 5), number("CHINWAG_WEBHOOK_KILL_SEED", 6));
    println!("seed {seed}, {rounds} rounds");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().expect("directory");
    let told = Arc::new(Mutex::new(Told { rng: Some(StdRng::seed_from_u64(seed + 1)), ..Told::default() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("address"));
    let router = Router::new().fallback(take).with_state(told.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let names = Arc::new(AtomicU64::new(0));
    let mut stored: Vec<BTreeMap<u64, u64>> = vec![BTreeMap::new(); SENDERS];
    let mut server = start(dir.path(), &url).await;
    let key = std::fs::read_to_string(dir.path().join("data/root.key")).expect("the root key").trim().to_owned();
    for round in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let mut senders = Vec::new();
        for sender in 0..SENDERS {
            let (base, key, names, stop) = (server.http.clone(), key.clone(), names.clone(), stop.clone());
            senders.push(tokio::spawn(send(base, key, sender, names, stop)));
        }
        // A kill comes with calls of both events in flight, or wherever everything is after so many messages.
        let until = told.lock().notify.len() + rng.random_range(1..200);
        let in_flight = rng.random_bool(0.7);
        told.lock().stuck_after = in_flight.then_some(until);
        let begun = Instant::now();
        while if in_flight { told.lock().stuck < 2 } else { told.lock().notify.len() < until } {
            assert!(begun.elapsed() < PATIENCE, "round {round}: the endpoint is not told");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill().expect("killed");
        {
            let mut told = told.lock();
            (told.stuck_after, told.stuck) = (None, 0);
        }
        stop.store(true, Ordering::Relaxed);
        for (sender, task) in senders.into_iter().enumerate() {
            stored[sender].extend(task.await.expect("the sender ends"));
        }
        server = start(dir.path(), &url).await;
    }
    let missing = |of: &[(String, u64, u64)]| {
        let ids: BTreeSet<u64> = of.iter().map(|(.., id)| *id).collect();
        stored.iter().flat_map(BTreeMap::keys).filter(|id| !ids.contains(id)).count()
    };
    let begun = Instant::now();
    loop {
        let (notify, offline) = {
            let told = told.lock();
            (missing(&told.notify), missing(&told.offline))
        };
        if notify == 0 && offline == 0 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "missing: {notify} at msg.notify, {offline} at msg.offline");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(stored.iter().all(|stored| !stored.is_empty()), "every sender was answered");
    let told = told.lock();
    for (event, of) in [("msg.notify", &told.notify), ("msg.offline", &told.offline)] {
        let mut heads: BTreeMap<&str, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (channel, seq, id) in of {
            if seen.insert(*id) {
                let head = heads.entry(channel).or_default();
                assert_eq!(*seq, *head + 1, "{event}: {channel} is told in order, none left out");
                *head = *seq;
            }
        }
    }
    println!(
        "{} messages stored, {} and {} told",
        names.load(Ordering::Relaxed),
        told.notify.len(),
        told.offline.len()
    );
}
