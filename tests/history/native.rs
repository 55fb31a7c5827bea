//! A client on a native socket, in MessagePack or JSON, that does what clients do, at random: connects, syncs, sends bursts,
//! reads on, falls behind, loses its connection, comes back and sends again what has no outcome.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use protocol::native::{
    ClientFrame, Connect, Durability, Encoding, Event, History, Members, MessageItem, Read, Resume, Send, ServerFrame,
    SetUnread, Sync, Synced, decode_server, encode_client,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::desk::{Desk, Letter, Phase, digest, payload};
use crate::record::{Answer, Ask, Channel, Row, Seen, Via, What};
use crate::server::{Address, PATIENCE};

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Habit {
    pub user: String,
    /// Empty: only listens.
    pub channels: Vec<Channel>,
    pub sends: bool,
    pub reads: bool,
    /// Reads nothing for a while now and then, with little room in its socket.
    pub stalls: bool,
    /// Milliseconds between two actions.
    pub pace_ms: u64,
}

/// How long a settled session is waited for.
const SETTLE: Duration = Duration::from_secs(10);
/// How often a session that was told of everything asks whether there is more.
const PINGS: u32 = 2;
/// Requests a client has in flight.
const IN_FLIGHT_MAX: usize = 40;

enum Waiting {
    /// `None`: a send that must not be repeated.
    Send(Option<Letter>),
    Sync,
    History {
        channel: Channel,
        whole: bool,
        got: Vec<Seen>,
    },
    /// Nothing to do with its answer but to record it.
    Other,
}

/// An open session.
pub struct Session {
    desk: Arc<Desk>,
    user: String,
    number: u64,
    socket: WebSocketStream<TcpStream>,
    encoding: Encoding,
    next_seq: u64,
    waiting: BTreeMap<u64, (u64, Waiting)>,
    /// What it is told of lies above.
    since: u64,
    told: HashMap<Channel, HashSet<u64>>,
    /// For the next sync.
    version: u64,
    pongs: u32,
}

fn seen(item: &MessageItem<'_>) -> Seen {
    Seen {
        seq: item.message_seq,
        id: item.message_id,
        from: item.from_uid.to_string(),
        name: item.client_msg_no.to_string(),
        payload: digest(&item.payload),
    }
}

impl Session {
    /// Connects, with an inline sync from `resume` where one is given.
    pub async fn open(
        desk: &Arc<Desk>,
        address: &Address,
        user: &str,
        resume: Option<u64>,
        room: Option<u32>,
    ) -> Result<Self> {
        let number = desk.number();
        desk.record(What::Connecting { session: number, user: user.to_owned() });
        let sync = resume.map(|since| desk.ask(user, Via::Session(number), Ask::Sync { since, recents: 3 }));
        match Self::connect(desk, address, user, number, resume, room).await {
            Ok((mut session, synced)) => {
                if let (Some(op), Some(synced)) = (sync, synced) {
                    session.synced(op, &synced);
                }
                Ok(session)
            }
            Err(error) => {
                if let Some(op) = sync {
                    desk.answer(op, Answer::Unknown);
                }
                desk.record(What::Ended { session: number });
                Err(error)
            }
        }
    }

    async fn connect(
        desk: &Arc<Desk>,
        address: &Address,
        user: &str,
        number: u64,
        resume: Option<u64>,
        room: Option<u32>,
    ) -> Result<(Self, Option<Synced<'static>>)> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = room {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address.socket.parse()?).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{}/", address.socket).into_client_request()?;
        let encoding = if number.is_multiple_of(4) { Encoding::Json } else { Encoding::MessagePack };
        request.headers_mut().insert("Sec-WebSocket-Protocol", encoding.subprotocol().parse()?);
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        let mut session = Self {
            desk: desk.clone(),
            user: user.to_owned(),
            number,
            socket,
            encoding,
            next_seq: 1,
            waiting: BTreeMap::new(),
            since: 0,
            told: HashMap::new(),
            version: resume.unwrap_or(0),
            pongs: 0,
        };
        let resume = resume.map(|version| Resume {
            version,
            cursors: Vec::new(),
            msg_count: 3,
            rows_max: 0,
            only_unread: false,
        });
        let connect = Connect {
            token: address.key.as_str().into(),
            uid: Some(user.into()),
            device_id: format!("d{number}").into(),
            device_flag: 0,
            client: None,
            resume,
        };
        session.send(&ClientFrame::Connect(connect)).await?;
        match session.next().await? {
            ServerFrame::Connected(connected) => {
                session.since = connected.version;
                desk.record(What::Connected { session: number, version: connected.version });
                Ok((session, connected.synced))
            }
            other => bail!("expected connected, got {other:?}"),
        }
    }

    async fn send(&mut self, frame: &ClientFrame<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        encode_client(self.encoding, frame, &mut bytes)?;
        let message = match self.encoding {
            Encoding::MessagePack => Message::binary(bytes),
            Encoding::Json => Message::text(String::from_utf8(bytes)?),
        };
        Ok(self.socket.send(message).await?)
    }

    async fn next(&mut self) -> Result<ServerFrame<'static>> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.context("no frame in time")?;
            match message.context("end of stream")?? {
                Message::Binary(bytes) => return Ok(decode_server(self.encoding, &bytes)?),
                Message::Text(text) => return Ok(decode_server(self.encoding, text.as_bytes())?),
                Message::Close(_) => bail!("closed"),
                _ => {}
            }
        }
    }

    fn note(&mut self, ask: Ask, waiting: Waiting) -> u64 {
        let op = self.desk.ask(&self.user, Via::Session(self.number), ask);
        let client_seq = self.next_seq;
        self.next_seq += 1;
        self.waiting.insert(client_seq, (op, waiting));
        client_seq
    }

    /// Sends a message, or again; `payload`: another one than its own, which must be refused.
    async fn say(&mut self, letter: Letter, other: Option<Vec<u8>>, disk: bool) -> Result<()> {
        let repeated = other.is_none().then(|| letter.clone());
        let Letter { channel, name } = letter;
        let bytes = other.unwrap_or_else(|| payload(&name));
        let ask = Ask::Send { channel: channel.clone(), name: name.clone(), payload: digest(&bytes), disk };
        let client_seq = self.note(ask, Waiting::Send(repeated));
        let (channel_id, channel_type) = channel.seen_by(&self.user);
        let send = Send {
            client_seq,
            channel_id: channel_id.into(),
            channel_type,
            client_msg_no: name.into(),
            payload: bytes.into(),
            durability: if disk { Durability::Disk } else { Durability::Memory },
            ..Send::default()
        };
        self.send(&ClientFrame::Send(send)).await
    }

    pub async fn sync(&mut self, since: u64, recents: u64) -> Result<()> {
        let client_seq = self.note(Ask::Sync { since, recents }, Waiting::Sync);
        let sync = Sync {
            client_seq,
            version: since,
            last_msg_seqs: None,
            cursors: Vec::new(),
            msg_count: recents as i64,
            only_unread: false,
            page_after: None,
            rows_max: 0,
        };
        self.send(&ClientFrame::Sync(sync)).await
    }

    async fn history_from(&mut self, client_seq: u64, channel: &Channel, first_seq: u64, limit: u32) -> Result<()> {
        let (channel_id, channel_type) = channel.seen_by(&self.user);
        let channel_id = channel_id.into();
        let history =
            History { client_seq, channel_id, channel_type, first_seq, last_seq: 0, limit, newest_first: false };
        self.send(&ClientFrame::History(history)).await
    }

    /// Reads a channel from a seq on; `whole`: to its end.
    pub async fn history(&mut self, channel: &Channel, first: u64, whole: bool) -> Result<()> {
        let waiting = Waiting::History { channel: channel.clone(), whole, got: Vec::new() };
        let client_seq = self.note(Ask::History { channel: channel.clone(), first, whole }, waiting);
        self.history_from(client_seq, channel, first, if whole { 1_000 } else { 50 }).await
    }

    pub async fn members(&mut self, channel: &Channel) -> Result<()> {
        let client_seq = self.note(Ask::Members { channel: channel.clone() }, Waiting::Other);
        let (channel_id, channel_type) = channel.seen_by(&self.user);
        let members = Members { client_seq, channel_id: channel_id.into(), channel_type, skip: 0, limit: 1_000 };
        self.send(&ClientFrame::Members(members)).await
    }

    async fn read(&mut self, channel: &Channel, seq: u64) -> Result<()> {
        let client_seq = self.note(Ask::Read { channel: channel.clone(), seq }, Waiting::Other);
        let (channel_id, channel_type) = channel.seen_by(&self.user);
        let read = Read { client_seq, channel_id: channel_id.into(), channel_type, message_seq: seq };
        self.send(&ClientFrame::Read(read)).await
    }

    async fn set_unread(&mut self, channel: &Channel, unread: u64) -> Result<()> {
        let client_seq = self.note(Ask::SetUnread { channel: channel.clone(), unread }, Waiting::Other);
        let (channel_id, channel_type) = channel.seen_by(&self.user);
        let unread = unread as i64;
        let set = SetUnread { client_seq, channel_id: channel_id.into(), channel_type, unread };
        self.send(&ClientFrame::SetUnread(set)).await
    }

    fn synced(&mut self, op: u64, synced: &Synced<'_>) {
        let rows = synced.rows.iter().filter(|row| !row.is_deleted).map(|row| Row {
            channel: Channel::of(&self.user, &row.channel_id, row.channel_type),
            version: row.version,
            unread: row.unread,
            read_to: row.read_to_msg_seq,
            last: row.last_msg_seq,
            recents: row.recents.iter().map(seen).collect(),
        });
        let answer = Answer::Synced { version: synced.version, reset: synced.reset, rows: rows.collect() };
        self.version = synced.version;
        self.desk.answer(op, answer);
    }

    fn tell(&mut self, channel: &Channel, seqs: impl IntoIterator<Item = u64>) {
        self.told.entry(channel.clone()).or_default().extend(seqs);
    }

    /// Takes a frame; some ask for more.
    async fn take(&mut self, frame: ServerFrame<'static>, rng: &mut StdRng) -> Result<()> {
        match frame {
            ServerFrame::Ack(ack) => {
                let Some((op, waiting)) = self.waiting.remove(&ack.client_seq) else { return Ok(()) };
                let disk = ack.level == Durability::Disk;
                let (seq, id, duplicate) = (ack.message_seq, ack.message_id, ack.duplicate);
                self.desk.answer(op, Answer::Stored { seq, id, disk, duplicate });
                if let Waiting::Send(Some(letter)) = waiting {
                    self.tell(&letter.channel, [seq]);
                    if disk {
                        self.desk.was_acked(&self.user, letter, rng.random_range(0..1_000));
                    }
                }
            }
            ServerFrame::Refused(no) => {
                let Some((op, waiting)) = self.waiting.remove(&no.client_seq) else { return Ok(()) };
                let later = no.retry_after_ms.is_some();
                self.desk.answer(op, Answer::Refused { code: no.code.into_owned(), later });
                if let (Waiting::Send(Some(letter)), true) = (waiting, later) {
                    self.desk.put_back(&self.user, letter);
                }
            }
            ServerFrame::Done(done) => {
                let Some((op, _)) = self.waiting.remove(&done.client_seq) else { return Ok(()) };
                let (unread, read_to) = (done.unread.unwrap_or(0), done.read_to_msg_seq.unwrap_or(0));
                self.desk.answer(op, Answer::Put { version: done.version, unread, read_to });
            }
            ServerFrame::Synced(synced) => {
                let Some((op, _)) = self.waiting.remove(&synced.client_seq) else { return Ok(()) };
                self.synced(op, &synced);
            }
            ServerFrame::Messages(page) => {
                let Some((op, Waiting::History { channel, whole, mut got })) = self.waiting.remove(&page.client_seq)
                else {
                    return Ok(());
                };
                got.extend(page.messages.iter().map(seen));
                let next = got.last().map_or(1, |message| message.seq + 1);
                if whole && page.more {
                    let waiting = Waiting::History { channel: channel.clone(), whole, got };
                    self.waiting.insert(page.client_seq, (op, waiting));
                    self.history_from(page.client_seq, &channel, next, 1_000).await?;
                } else {
                    self.desk.answer(op, Answer::Page { messages: got });
                }
            }
            ServerFrame::Members(list) => {
                let Some((op, _)) = self.waiting.remove(&list.client_seq) else { return Ok(()) };
                let members = list.members.iter().map(|member| member.uid.to_string()).collect();
                self.desk.answer(op, Answer::Members(members));
            }
            ServerFrame::Deliver(deliver) => {
                let channel = Channel::of(&self.user, &deliver.channel_id, deliver.channel_type);
                let messages: Vec<Seen> = deliver.messages.iter().map(seen).collect();
                self.tell(&channel, messages.iter().map(|message| message.seq));
                self.desk.record(What::Delivered { session: self.number, channel, messages });
            }
            ServerFrame::Gap(gap) => {
                let channel = Channel::of(&self.user, &gap.channel_id, gap.channel_type);
                let (first, head) = (gap.first_missing_seq, gap.head_seq);
                self.tell(&channel, first..=head);
                self.desk.record(What::Gap { session: self.number, channel: channel.clone(), first, head });
                self.history(&channel, first, false).await?;
            }
            ServerFrame::Event(Event::Conversation(moved)) if !moved.is_deleted => {
                self.desk.record(What::Moved {
                    session: self.number,
                    channel: Channel::of(&self.user, &moved.channel_id, moved.channel_type),
                    version: moved.version,
                    unread: moved.unread,
                    read_to: moved.read_to_msg_seq,
                    last: moved.last_msg_seq,
                });
            }
            ServerFrame::Event(Event::Resync(_)) => self.desk.record(What::Resync { session: self.number }),
            ServerFrame::Pong(_) => self.pongs += 1,
            ServerFrame::Ping(_) => self.send(&ClientFrame::Pong(protocol::native::Pong {})).await?,
            _ => {}
        }
        Ok(())
    }

    /// Takes frames until every request has its answer.
    pub async fn answers(&mut self) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(0);
        while !self.waiting.is_empty() {
            let frame = self.next().await?;
            self.take(frame, &mut rng).await?;
        }
        Ok(())
    }

    /// Takes leave: what has no answer has none, and is to be sent again.
    pub fn end(self) {
        self.desk.record(What::Ended { session: self.number });
        for (_, (op, waiting)) in self.waiting {
            self.desk.answer(op, Answer::Unknown);
            if let Waiting::Send(Some(letter)) = waiting {
                self.desk.put_back(&self.user, letter);
            }
        }
    }

    fn was_told(&self, heads: &HashMap<Channel, Vec<u64>>, channels: &[Channel]) -> bool {
        let none = HashSet::new();
        channels.iter().all(|channel| {
            let told = self.told.get(channel).unwrap_or(&none);
            let ids = heads.get(channel).into_iter().flatten();
            (1..).zip(ids).all(|(seq, id)| *id <= self.since || told.contains(&seq))
        })
    }

    /// Does something.
    async fn act(&mut self, habit: &Habit, names: &mut u64, rng: &mut StdRng) -> Result<()> {
        if habit.channels.is_empty() {
            return Ok(());
        }
        let channel = habit.channels[rng.random_range(0..habit.channels.len())].clone();
        let dice = rng.random_range(0..100);
        if self.waiting.len() >= IN_FLIGHT_MAX {
            return Ok(());
        }
        match dice {
            0..45 if habit.sends => {
                let mut channel = channel;
                for _ in 0..rng.random_range(1..=8) {
                    *names += 1;
                    let name = format!("{}-n{}-{names}", self.user, self.number);
                    let disk = rng.random_bool(0.9);
                    self.say(Letter { channel: channel.clone(), name }, None, disk).await?;
                    if rng.random_bool(0.2) {
                        channel = habit.channels[rng.random_range(0..habit.channels.len())].clone();
                    }
                }
            }
            45..55 if habit.sends => {
                // A retry long after the ack.
                if let Some(letter) = self.desk.some_acked(&self.user, rng.random_range(0..1_000)) {
                    self.say(letter, None, true).await?;
                }
            }
            55..57 if habit.sends => {
                if let Some(letter) = self.desk.some_acked(&self.user, rng.random_range(0..1_000)) {
                    self.say(letter, Some(b"something else".to_vec()), true).await?;
                }
            }
            60..75 if habit.reads => {
                let most = self.told.get(&channel).and_then(|told| told.iter().max().copied()).unwrap_or(1);
                self.read(&channel, rng.random_range(most.saturating_sub(6)..=most)).await?;
            }
            75..82 if habit.reads => self.set_unread(&channel, rng.random_range(0..6)).await?,
            82..88 => {
                let since = if rng.random_bool(0.5) { 0 } else { self.version };
                self.sync(since, rng.random_range(0..4)).await?;
            }
            88..92 => {
                let most = self.told.get(&channel).and_then(|told| told.iter().max().copied()).unwrap_or(1);
                self.history(&channel, rng.random_range(1..=most), false).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// A client through a round: what outlives its sessions.
pub struct Life {
    pub desk: Arc<Desk>,
    pub habit: Habit,
    pub seed: u64,
    /// Told once the client has nothing left to do.
    pub finished: tokio::sync::mpsc::Sender<String>,
}

impl Life {
    /// Lives it.
    pub async fn live(self) {
        let Self { desk, habit, seed, finished } = self;
        let (phase, mut server) = (desk.phase.subscribe(), desk.server.subscribe());
        let mut rng = StdRng::seed_from_u64(seed);
        let mut version = 0;
        let room = habit.stalls.then_some(4_096);
        let mut mind = Mind { habit, phase, finished: Some(finished), names: 0 };
        while !matches!(*mind.phase.borrow(), Phase::Settle(_)) {
            let address = server.borrow_and_update().clone();
            let Some(address) = address else {
                if server.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let listens = mind.habit.channels.is_empty();
            let resume = (!listens && rng.random_bool(0.6)).then_some(if rng.random_bool(0.1) { 0 } else { version });
            let Ok(mut session) = Session::open(&desk, &address, &mind.habit.user, resume, room).await else {
                // Refused because the server is going: whoever ends it says so in a moment.
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            if resume.is_none() {
                session.version = version;
            }
            let is_over = mind.stay(&mut session, resume.is_none() && !listens, &mut rng).await.unwrap_or(false);
            version = session.version;
            if is_over {
                desk.record(What::Settled { session: session.number });
            }
            session.end();
            if is_over {
                return;
            }
        }
    }
}

struct Mind {
    habit: Habit,
    phase: tokio::sync::watch::Receiver<Phase>,
    /// `None`: told.
    finished: Option<tokio::sync::mpsc::Sender<String>>,
    names: u64,
}

impl Mind {
    /// One session, to its end. `true`: it ended because the round did.
    async fn stay(&mut self, session: &mut Session, syncs: bool, rng: &mut StdRng) -> Result<bool> {
        if syncs {
            session.sync(session.version, 2).await?;
        }
        let mut ticks = tokio::time::interval(Duration::from_millis(self.habit.pace_ms));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut settle_until, mut pings) = (None, 0);
        loop {
            let phase = self.phase.borrow().clone();
            match &phase {
                Phase::Busy => {}
                Phase::Finish if session.waiting.is_empty() => match session.desk.take_open(&session.user) {
                    Some(letter) => session.say(letter, None, true).await?,
                    None => {
                        if let Some(finished) = self.finished.take() {
                            let _ = finished.send(format!("{} on {}", self.habit.user, session.number)).await;
                        }
                    }
                },
                Phase::Finish => {}
                Phase::Settle(messages) => {
                    let until = *settle_until.get_or_insert_with(|| tokio::time::Instant::now() + SETTLE);
                    if tokio::time::Instant::now() >= until || session.pongs >= PINGS {
                        return Ok(true);
                    }
                    // What was on its way when the last message was told comes before the second pong.
                    if session.pongs == pings && session.was_told(messages, &self.habit.channels) {
                        pings += 1;
                        session.send(&ClientFrame::Ping(protocol::native::Ping {})).await?;
                    }
                }
            }
            tokio::select! {
                frame = session.next() => {
                    let frame = frame?;
                    session.take(frame, rng).await?;
                }
                _ = ticks.tick() => {
                    if phase == Phase::Busy {
                        self.tick(session, rng).await?;
                    }
                }
                changed = self.phase.changed() => changed?,
            }
        }
    }

    async fn tick(&mut self, session: &mut Session, rng: &mut StdRng) -> Result<()> {
        if let Some(letter) = session.desk.take_open(&session.user) {
            session.say(letter, None, true).await?;
        }
        session.act(&self.habit, &mut self.names, rng).await?;
        if rng.random_bool(0.004) {
            bail!("cut");
        }
        if self.habit.stalls && rng.random_bool(0.05) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(100..500))).await;
        }
        Ok(())
    }
}
