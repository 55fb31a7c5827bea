//! A back end that acts for a user over HTTP: sends (and sends again what another wire lost), syncs, moves read positions,
//! reads history.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::desk::{Desk, Letter, Phase, digest, payload};
use crate::native::Habit;
use crate::record::{Answer, Ask, Channel, Row, Seen, Via};
use crate::server::{Address, PATIENCE};

const REFERENCE: Via = Via::Http("reference");
const CONVERSATION: Via = Via::Http("conversation");

/// Calls of one user.
pub struct Caller {
    desk: Arc<Desk>,
    client: reqwest::Client,
    pub address: Address,
    user: String,
    version: u64,
}

fn seen(message: &Value) -> Option<Seen> {
    Some(Seen {
        seq: message["message_seq"].as_u64()?,
        id: message["message_id"].as_u64()?,
        from: message["from_uid"].as_str()?.to_owned(),
        name: message["client_msg_no"].as_str()?.to_owned(),
        payload: digest(&STANDARD.decode(message["payload"].as_str()?).ok()?),
    })
}

fn all_seen(messages: &Value) -> Result<Vec<Seen>> {
    let messages = messages.as_array().context("messages")?;
    messages.iter().map(|message| seen(message).with_context(|| format!("a message: {message}"))).collect()
}

impl Caller {
    pub fn new(desk: &Arc<Desk>, address: &Address, user: &str) -> Result<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        Ok(Self { desk: desk.clone(), client, address: address.clone(), user: user.to_owned(), version: 0 })
    }

    async fn post(&self, path: &str, body: Value) -> Result<(u16, Option<u64>, Value)> {
        let request = self.client.post(format!("{}{path}", self.address.http)).header("token", &self.address.key);
        let response = request.json(&body).send().await?;
        let version = response.headers().get("x-chinwag-version").and_then(|v| v.to_str().ok()?.parse().ok());
        Ok((response.status().as_u16(), version, response.json().await?))
    }

    /// Asks and records what came back, read by `read` when it is a success.
    async fn ask(
        &self,
        via: Via,
        ask: Ask,
        path: &str,
        body: Value,
        read: impl FnOnce(Option<u64>, &Value) -> Option<Answer>,
    ) -> Answer {
        let op = self.desk.ask(&self.user, via, ask);
        let answer = match self.post(path, body).await {
            Ok((200, version, body)) => read(version, &body).unwrap_or_else(|| refusal(&body)),
            Ok((_, _, body)) => refusal(&body),
            Err(_) => Answer::Unknown,
        };
        self.desk.answer(op, answer.clone());
        answer
    }

    pub async fn send(&self, letter: &Letter) -> Answer {
        let Letter { channel, name } = letter;
        let bytes = payload(name);
        let (channel_id, channel_type) = channel.seen_by(&self.user);
        let ask = Ask::Send { channel: channel.clone(), name: name.clone(), payload: digest(&bytes), disk: true };
        let body = json!({ "header": { "red_dot": 1 }, "from_uid": self.user, "channel_id": channel_id,
                           "channel_type": channel_type, "client_msg_no": name, "payload": STANDARD.encode(bytes) });
        let read = |_, body: &Value| {
            let (seq, id) = (body["message_seq"].as_u64()?, body["message_id"].as_u64()?);
            (seq > 0).then(|| Answer::Stored { seq, id, disk: true, duplicate: body["duplicate"] == true })
        };
        self.ask(REFERENCE, ask, "/message/send", body, read).await
    }

    pub async fn sync(&mut self, since: u64, recents: u64) -> Answer {
        let body = json!({ "uid": self.user, "version": since, "msg_count": recents });
        let user = self.user.clone();
        let read = |version: Option<u64>, body: &Value| {
            let row = |row: &Value| {
                Some(Row {
                    channel: Channel::of(&user, row["channel_id"].as_str()?, row["channel_type"].as_u64()? as u8),
                    version: row["version"].as_u64()?,
                    unread: row["unread"].as_u64()?,
                    read_to: row["readed_to_msg_seq"].as_u64()?,
                    last: row["last_msg_seq"].as_u64()?,
                    recents: all_seen(&row["recents"]).ok()?,
                })
            };
            let rows = body.as_array()?.iter().map(row).collect::<Option<Vec<Row>>>()?;
            Some(Answer::Synced { version: version?, reset: false, rows })
        };
        let answer = self.ask(CONVERSATION, Ask::Sync { since, recents }, "/conversation/sync", body, read).await;
        if let Answer::Synced { version, .. } = &answer {
            self.version = *version;
        }
        answer
    }

    async fn set_unread(&self, channel: &Channel, unread: u64) -> Answer {
        let (channel_id, channel_type) = channel.seen_by(&self.user);
        let body =
            json!({ "uid": self.user, "channel_id": channel_id, "channel_type": channel_type, "unread": unread });
        let read = |_, body: &Value| {
            let (version, unread) = (body["version"].as_u64()?, body["unread"].as_u64()?);
            Some(Answer::Put { version, unread, read_to: body["readed_to_msg_seq"].as_u64()? })
        };
        let ask = Ask::SetUnread { channel: channel.clone(), unread };
        self.ask(CONVERSATION, ask, "/conversations/setUnread", body, read).await
    }

    /// A page of a channel's history, or all of it.
    pub async fn history(&self, channel: &Channel, first: u64, whole: bool) -> Result<()> {
        let op = self.desk.ask(&self.user, REFERENCE, Ask::History { channel: channel.clone(), first, whole });
        let (channel_id, channel_type) = channel.seen_by(&self.user);
        let mut got: Vec<Seen> = Vec::new();
        let answer = loop {
            let next = first + got.len() as u64;
            let body = json!({ "login_uid": self.user, "channel_id": channel_id, "channel_type": channel_type,
                               "start_message_seq": next, "end_message_seq": 0, "limit": 300, "pull_mode": 1 });
            match self.post("/channel/messagesync", body).await {
                Ok((200, _, page)) => {
                    got.extend(all_seen(&page["messages"])?);
                    if !whole || page["more"] != 1 {
                        break Answer::Page { messages: got };
                    }
                }
                Ok((_, _, body)) => break refusal(&body),
                Err(_) => break Answer::Unknown,
            }
        };
        self.desk.answer(op, answer);
        Ok(())
    }

    /// Makes a user a member, or none.
    pub async fn membership(&self, channel: &Channel, uid: &str, member: bool) -> Answer {
        let (channel_id, channel_type) = channel.seen_by(&self.user);
        let ask = Ask::Membership { channel: channel.clone(), uid: uid.to_owned(), member };
        let path = if member { "/channel/subscriber_add" } else { "/channel/subscriber_remove" };
        let body = json!({ "channel_id": channel_id, "channel_type": channel_type, "subscribers": [uid] });
        self.ask(REFERENCE, ask, path, body, |_, _| Some(Answer::Changed)).await
    }

    /// Makes a group.
    pub async fn group(&self, id: &str, members: &[&str]) -> Result<()> {
        let body = json!({ "channel_id": id, "channel_type": 2, "subscribers": members });
        let (status, _, body) = self.post("/channel", body).await?;
        anyhow::ensure!(status == 200, "POST /channel: {status} {body}");
        Ok(())
    }
}

fn refusal(body: &Value) -> Answer {
    let code = body["code"].as_str().map_or_else(|| body.to_string(), str::to_owned);
    let later = body.to_string().contains("retry_after_ms");
    Answer::Refused { code, later }
}

/// Lives through a round, as [`crate::native::Life`] does.
pub async fn live(desk: Arc<Desk>, habit: Habit, seed: u64, finished: tokio::sync::mpsc::Sender<String>) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut server = desk.server.subscribe();
    let mut names = 0;
    let mut caller: Option<Caller> = None;
    let (mut member, mut version) = (false, 0);
    loop {
        let is_busy = *desk.phase.borrow() == Phase::Busy;
        let address = server.borrow_and_update().clone();
        let Some(address) = address else {
            server.changed().await?;
            continue;
        };
        if caller.as_ref().is_none_or(|caller| caller.address != address) {
            caller = Some(Caller::new(&desk, &address, &habit.user)?);
        }
        let Some(caller) = &mut caller else { continue };
        let letter = match desk.take_open(&habit.user) {
            Some(letter) => Some(letter),
            None if !is_busy => break,
            None => match rng.random_range(0..100) {
                0..50 if habit.sends => {
                    names += 1;
                    let channel = habit.channels[rng.random_range(0..habit.channels.len())].clone();
                    Some(Letter { channel, name: format!("{}-h{seed}-{names}", habit.user) })
                }
                50..60 => desk.some_acked(&habit.user, rng.random_range(0..1_000)),
                _ => None,
            },
        };
        let channel = habit.channels[rng.random_range(0..habit.channels.len())].clone();
        match letter {
            Some(letter) => match caller.send(&letter).await {
                Answer::Stored { .. } => desk.was_acked(&habit.user, letter, rng.random_range(0..1_000)),
                Answer::Unknown | Answer::Refused { later: true, .. } => desk.put_back(&habit.user, letter),
                _ => {}
            },
            None => match rng.random_range(0..10) {
                0..4 => {
                    let since = if rng.random_bool(0.3) { 0 } else { version };
                    caller.sync(since, rng.random_range(0..4)).await;
                    version = version.max(caller.version);
                }
                4..6 if habit.reads => drop(caller.set_unread(&channel, rng.random_range(0..5)).await),
                6 => caller.history(&channel, rng.random_range(1..20), false).await?,
                7..9 if matches!(channel, Channel::Group(_)) && habit.user == crate::round::KEEPER => {
                    member = !member;
                    caller.membership(&channel, crate::round::GUEST, member).await;
                }
                _ => {}
            },
        }
        tokio::time::sleep(Duration::from_millis(habit.pace_ms)).await;
    }
    let _ = finished.send(format!("{} over HTTP", habit.user)).await;
    Ok(())
}
