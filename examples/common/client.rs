//! The default client: one user's session that heals by itself.
//!
//! Owns the connection and what has to outlive it: the version and the cursors to resume from, messages not yet acked,
//! receipts not yet sent. Refuses to know people: a program gives it [`Command`]s and hears [`Update`]s.
//!
//! Invariants:
//! - A message of a channel is told once and in the order of its seq, whatever the connection did meanwhile: what lies
//!   behind a hole waits until the hole is filled by `history`.
//! - A send is repeated with the same client_msg_no until it is acked or refused for good.
//! - Whether and when it connects again is the server's word (the close catalogue), else exponential backoff with jitter.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use protocol::close::{CloseReason, Reconnect};
use protocol::native::{
    self, ClientFrame, ClientInfo, Connect, Cursor, Encoding, Event, MessageItem, ReconnectWord, Resume, Row,
    ServerFrame, Synced,
};
use rand::RngExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::backend::{Backend, random_token};

/// The library's default read buffer of 128 KiB is zero-filled before each read; a chat needs far less.
const READ_BUFFER_BYTES: usize = 16 << 10;
/// At most one receipt per channel in this time.
const RECEIPT_INTERVAL: Duration = Duration::from_secs(1);
/// First wait of the backoff; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Jitter of a reconnect that may happen at once: spreads the clients of a restarted server.
const JITTER_NOW_MS: u64 = 300;
/// A connect that takes longer is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages asked for in one `history`.
const HISTORY_PAGE: u32 = 500;
/// Messages of each conversation asked for when resuming.
const RECENTS: i64 = 20;

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// A channel as its user names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    /// The peer's uid or the group's id.
    pub id: String,
    /// 1 person, 2 group, 3 customer service.
    pub kind: u8,
}

/// A stored message as this client tells it.
pub type Item = MessageItem<'static>;

/// Where the token comes from.
pub enum Credential {
    /// Given; when the server no longer takes it, the client ends.
    Fixed(String),
    /// Minted with an API key over HTTP, again whenever the server asks for a new one.
    Mint(Backend),
}

/// What to connect as.
pub struct Options {
    /// The `ws://` URL.
    pub server: String,
    /// The user.
    pub uid: String,
    /// The token's source.
    pub credential: Credential,
    /// Names this device; a second connection with the same one replaces the first.
    pub device_id: String,
}

/// What a program asks for.
pub enum Command {
    /// Send a message; [`Update::Sent`] or [`Update::NotSent`] follows.
    Send {
        /// Where to.
        channel: Channel,
        /// The content.
        payload: Vec<u8>,
        /// message_id of the message it answers; 0: none.
        reply_to: u64,
    },
    /// Send any other request; the frame is built with the client_seq it gets.
    Request {
        /// Builds the frame.
        build: Box<dyn FnOnce(u64) -> ClientFrame<'static> + Send>,
        /// Where the answer goes; an error when it is refused or the connection ends before.
        reply: oneshot::Sender<Result<ServerFrame<'static>>>,
    },
}

/// What a program hears.
#[derive(Debug)]
pub enum Update {
    /// The session is open; `first` the first time.
    Connected {
        /// Whether it is the first session of this client.
        first: bool,
    },
    /// The connection is gone; the next try comes after `retry`.
    Disconnected {
        /// What happened.
        cause: String,
        /// Time until the next try.
        retry: Duration,
    },
    /// A conversation as the server sees it now.
    Conversation(Box<Row<'static>>),
    /// Everything that changed before the connection was told: rows and messages up to here.
    CaughtUp,
    /// A message, once and in its channel's order. `live`: it was not there when the session opened.
    Message {
        /// Its channel.
        channel: Channel,
        /// It.
        item: Box<Item>,
        /// Whether it was delivered or filled a hole, rather than listed by a sync.
        live: bool,
    },
    /// A send is stored.
    Sent {
        /// Its channel.
        channel: Channel,
        /// Its position.
        message_seq: u64,
    },
    /// A send was refused for good.
    NotSent {
        /// Its channel.
        channel: Channel,
        /// Why.
        cause: String,
    },
    /// Something else happened.
    Event(Box<Event<'static>>),
}

/// How far one channel is held.
#[derive(Debug, Default)]
struct Held {
    /// Everything up to here was told.
    last: u64,
    /// Told up to here is known to the server.
    receipt: u64,
    /// Arrived, but behind a hole. `None`: an own message, which its sender has seen.
    ahead: BTreeMap<u64, Option<(Item, bool)>>,
    /// A `history` for the hole is under way.
    filling: bool,
}

/// A send without an ack.
struct Unacked {
    client_seq: u64,
    client_msg_no: String,
    channel: Channel,
    payload: Vec<u8>,
    reply_to: u64,
    /// Refused for a while: sent again then.
    retry_at: Option<Instant>,
}

/// What an answer is for.
enum Pending {
    Program(oneshot::Sender<Result<ServerFrame<'static>>>),
    Fill(Channel),
    SyncPage,
}

/// How a session ended.
struct End {
    cause: String,
    reconnect: Reconnect,
    retry_after: Option<Duration>,
}

impl End {
    fn network(cause: impl std::fmt::Display) -> Self {
        Self { cause: cause.to_string(), reconnect: Reconnect::WithBackoff, retry_after: None }
    }
}

/// The client.
pub struct Client {
    options: Options,
    updates: mpsc::Sender<Update>,
    token: Option<String>,
    version: u64,
    held: HashMap<Channel, Held>,
    unacked: VecDeque<Unacked>,
    pending: HashMap<u64, Pending>,
    next_seq: u64,
    sessions: u64,
}

impl Client {
    /// A client that tells `updates`.
    pub fn new(options: Options, updates: mpsc::Sender<Update>) -> Self {
        Self {
            options,
            updates,
            token: None,
            version: 0,
            held: HashMap::new(),
            unacked: VecDeque::new(),
            pending: HashMap::new(),
            next_seq: 0,
            sessions: 0,
        }
    }

    /// Connects, and connects again, until `commands` is closed (and every send is acked) or the server says never.
    ///
    /// # Errors
    /// The server does not want this client back, or no token is to be had.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<()> {
        let mut failures: u32 = 0;
        loop {
            let sessions = self.sessions;
            let end = match self.connect().await {
                Ok(socket) => match self.session(socket, &mut commands).await {
                    Ok(()) => return Ok(()),
                    Err(end) => end,
                },
                Err(end) => end,
            };
            for (_, pending) in self.pending.drain() {
                if let Pending::Program(reply) = pending {
                    // The program may have stopped waiting.
                    let _ = reply.send(Err(anyhow!("the connection was lost")));
                }
            }
            for held in self.held.values_mut() {
                held.filling = false;
            }
            failures = if self.sessions > sessions { 0 } else { failures + 1 };
            let mut wait = backoff(failures);
            match end.reconnect {
                Reconnect::Never => bail!("{}", end.cause),
                Reconnect::AfterRefresh if failures > 1 || matches!(self.options.credential, Credential::Fixed(_)) => {
                    bail!("{}: a new token is needed", end.cause)
                }
                Reconnect::AfterRefresh => self.token = None,
                Reconnect::WithBackoff => {}
                Reconnect::Now if failures == 0 => wait = jitter(JITTER_NOW_MS),
                Reconnect::Now => {}
            }
            let wait = wait.max(end.retry_after.unwrap_or_default());
            self.tell(Update::Disconnected { cause: end.cause, retry: wait }).await;
            sleep(wait).await;
        }
    }

    async fn tell(&self, update: Update) {
        // A program that no longer listens closes the commands too, which ends the run.
        let _ = self.updates.send(update).await;
    }

    async fn connect(&mut self) -> Result<Socket, End> {
        let connecting = async {
            if self.token.is_none() {
                self.token = Some(match &self.options.credential {
                    Credential::Fixed(token) => token.clone(),
                    Credential::Mint(backend) => {
                        let token = random_token()?;
                        backend.set_token(&self.options.uid, &token, 0).await.context("minting a token")?;
                        token
                    }
                });
            }
            let mut request = self.options.server.as_str().into_client_request()?;
            let protocol = HeaderValue::from_static(native::SUBPROTOCOL_MSGPACK);
            request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
            let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
            let (socket, _) = tokio_tungstenite::connect_async_with_config(request, Some(config), true).await?;
            anyhow::Ok(socket)
        };
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(e)) => Err(End::network(format!("{e:#}"))),
            Err(_) => Err(End::network("the server does not answer")),
        }
    }

    /// One session: `Ok` when the program is done.
    async fn session(&mut self, mut socket: Socket, commands: &mut mpsc::Receiver<Command>) -> Result<(), End> {
        let heartbeat = self.open(&mut socket).await?;
        let mut tick = interval(RECEIPT_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut spoke) = (Instant::now(), Instant::now());
        let mut commands_open = true;
        loop {
            if !commands_open && self.unacked.is_empty() {
                self.receipts(&mut socket).await?;
                // Leaving politely is a courtesy; the server notices a vanished client as well.
                let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
                return Ok(());
            }
            tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(message)) => self.message(&mut socket, message).await?,
                        Some(Err(e)) => return Err(End::network(e)),
                        None => return Err(End::network("the server closed the connection")),
                    }
                }
                command = commands.recv(), if commands_open => match command {
                    Some(command) => {
                        spoke = Instant::now();
                        self.command(&mut socket, command).await?;
                    }
                    None => commands_open = false,
                },
                _ = tick.tick() => {
                    self.receipts(&mut socket).await?;
                    self.retry(&mut socket, false).await?;
                    if spoke.elapsed() >= heartbeat / 2 {
                        spoke = Instant::now();
                        write(&mut socket, &ClientFrame::Ping(native::Ping {})).await?;
                    }
                    if heard.elapsed() > heartbeat * 2 {
                        return Err(End::network("nothing heard from the server"));
                    }
                }
            }
        }
    }

    /// Says who we are and what we hold; returns the heartbeat.
    async fn open(&mut self, socket: &mut Socket) -> Result<Duration, End> {
        let cursors = self.held.iter().map(|(channel, held)| Cursor {
            channel_id: Cow::Owned(channel.id.clone()),
            channel_type: channel.kind,
            last_msg_seq: held.last,
        });
        let connect = ClientFrame::Connect(Connect {
            token: Cow::Owned(self.token.clone().unwrap_or_default()),
            uid: Some(Cow::Owned(self.options.uid.clone())),
            device_id: Cow::Owned(self.options.device_id.clone()),
            device_flag: 0,
            client: Some(ClientInfo { name: "chat".into(), version: env!("CARGO_PKG_VERSION").into() }),
            resume: Some(Resume {
                version: self.version,
                cursors: cursors.collect(),
                msg_count: RECENTS,
                ..Resume::default()
            }),
        });
        write(socket, &connect).await?;
        let connected = timeout(CONNECT_TIMEOUT, async {
            loop {
                let message = match socket.next().await {
                    Some(Ok(message)) => message,
                    Some(Err(e)) => return Err(End::network(e)),
                    None => return Err(End::network("the server closed the connection")),
                };
                match decode(&message)? {
                    Some(ServerFrame::Connected(connected)) => return Ok(connected),
                    Some(ServerFrame::Refused(refused)) => {
                        let cause = format!("{}: {}", refused.code, refused.text);
                        let retry_after = refused.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
                        let reconnect = match retry_after {
                            Some(_) => Reconnect::WithBackoff,
                            None if refused.code.starts_with("credential") => Reconnect::AfterRefresh,
                            None => Reconnect::Never,
                        };
                        return Err(End { cause, reconnect, retry_after });
                    }
                    _ => {}
                }
            }
        });
        let connected = connected.await.map_err(|_| End::network("the server does not answer to connect"))??;
        self.sessions += 1;
        self.tell(Update::Connected { first: self.sessions == 1 }).await;
        if let Some(synced) = connected.synced {
            self.synced(socket, synced).await?;
        }
        self.retry(socket, true).await?;
        Ok(Duration::from_secs(u64::from(connected.heartbeat_s.max(2))))
    }

    async fn request(
        &mut self,
        socket: &mut Socket,
        pending: Pending,
        build: impl FnOnce(u64) -> ClientFrame<'static>,
    ) -> Result<(), End> {
        self.next_seq += 1;
        self.pending.insert(self.next_seq, pending);
        write(socket, &build(self.next_seq)).await
    }

    async fn command(&mut self, socket: &mut Socket, command: Command) -> Result<(), End> {
        match command {
            Command::Send { channel, payload, reply_to } => {
                self.next_seq += 1;
                let client_msg_no = random_token().map_err(End::network)?;
                let unacked =
                    Unacked { client_seq: self.next_seq, client_msg_no, channel, payload, reply_to, retry_at: None };
                let result = write(socket, &unacked.frame()).await;
                // Kept even when the write failed: the next session sends it again.
                self.unacked.push_back(unacked);
                result
            }
            Command::Request { build, reply } => self.request(socket, Pending::Program(reply), build).await,
        }
    }

    /// Sends what was never acked again: all of it after a reconnect, else what was refused for a while.
    async fn retry(&mut self, socket: &mut Socket, all: bool) -> Result<(), End> {
        let now = Instant::now();
        for unacked in &mut self.unacked {
            if all || unacked.retry_at.is_some_and(|at| at <= now) {
                unacked.retry_at = None;
                self.next_seq += 1;
                unacked.client_seq = self.next_seq;
                write(socket, &unacked.frame()).await?;
            }
        }
        Ok(())
    }

    async fn receipts(&mut self, socket: &mut Socket) -> Result<(), End> {
        for (channel, held) in &mut self.held {
            if held.last > held.receipt {
                held.receipt = held.last;
                let receipt = native::Receipt {
                    channel_id: Cow::Borrowed(&channel.id),
                    channel_type: channel.kind,
                    message_seq: held.last,
                };
                write(socket, &ClientFrame::Receipt(receipt)).await?;
            }
        }
        Ok(())
    }

    async fn message(&mut self, socket: &mut Socket, message: Message) -> Result<(), End> {
        let Some(frame) = decode(&message)? else { return Ok(()) };
        match frame {
            ServerFrame::Ping(_) => write(socket, &ClientFrame::Pong(native::Pong {})).await,
            ServerFrame::Ack(ack) => {
                let Some(at) = self.unacked.iter().position(|u| u.client_seq == ack.client_seq) else {
                    return Ok(());
                };
                let Some(unacked) = self.unacked.remove(at) else { return Ok(()) };
                let channel = unacked.channel;
                self.arrived(&channel, ack.message_seq, None);
                self.tell(Update::Sent { channel: channel.clone(), message_seq: ack.message_seq }).await;
                self.advance(socket, channel).await
            }
            ServerFrame::Refused(refused) => self.refused(refused).await,
            ServerFrame::Deliver(deliver) => {
                let channel = Channel { id: deliver.channel_id.into_owned(), kind: deliver.channel_type };
                for item in deliver.messages {
                    if item.message_seq == 0 {
                        // Not stored: there is no order to keep.
                        let update = Update::Message { channel: channel.clone(), item: Box::new(item), live: true };
                        self.tell(update).await;
                        continue;
                    }
                    self.arrived(&channel, item.message_seq, Some((item, true)));
                }
                self.advance(socket, channel).await
            }
            ServerFrame::Gap(gap) => {
                let channel = Channel { id: gap.channel_id.into_owned(), kind: gap.channel_type };
                let held = self.held.entry(channel.clone()).or_default();
                if held.last == 0 {
                    held.last = gap.first_missing_seq.saturating_sub(1);
                }
                self.fill(socket, channel, gap.head_seq).await
            }
            ServerFrame::Messages(messages) => match self.pending.remove(&messages.client_seq) {
                Some(Pending::Fill(channel)) => self.filled(socket, channel, messages).await,
                Some(Pending::Program(reply)) => answer(reply, ServerFrame::Messages(messages)),
                _ => Ok(()),
            },
            ServerFrame::Synced(synced) => match self.pending.remove(&synced.client_seq) {
                Some(Pending::SyncPage) => self.synced(socket, synced).await,
                Some(Pending::Program(reply)) => answer(reply, ServerFrame::Synced(synced)),
                _ => Ok(()),
            },
            ServerFrame::Done(done) => {
                self.version = self.version.max(done.version);
                self.answered(done.client_seq, ServerFrame::Done(done))
            }
            ServerFrame::Explained(explained) => self.answered(explained.client_seq, ServerFrame::Explained(explained)),
            ServerFrame::Peers(peers) => self.answered(peers.client_seq, ServerFrame::Peers(peers)),
            ServerFrame::Changes(changes) => self.answered(changes.client_seq, ServerFrame::Changes(changes)),
            ServerFrame::Readers(readers) => self.answered(readers.client_seq, ServerFrame::Readers(readers)),
            ServerFrame::Relations(list) => self.answered(list.client_seq, ServerFrame::Relations(list)),
            ServerFrame::Settings(settings) => self.answered(settings.client_seq, ServerFrame::Settings(settings)),
            ServerFrame::Profile(profile) => self.answered(profile.client_seq, ServerFrame::Profile(profile)),
            ServerFrame::Members(members) => self.answered(members.client_seq, ServerFrame::Members(members)),
            ServerFrame::Event(event) => self.event(socket, event).await,
            ServerFrame::Closing(closing) => Err(End {
                cause: CloseReason::from_number(closing.code)
                    .map_or_else(|| closing.reason.into_owned(), |reason| reason.text().to_owned()),
                reconnect: match closing.reconnect {
                    ReconnectWord::Never => Reconnect::Never,
                    ReconnectWord::AfterRefresh => Reconnect::AfterRefresh,
                    ReconnectWord::Now => Reconnect::Now,
                    ReconnectWord::WithBackoff | ReconnectWord::Unknown => Reconnect::WithBackoff,
                },
                retry_after: closing.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
            }),
            ServerFrame::Connected(_) | ServerFrame::Pong(_) => Ok(()),
        }
    }

    fn answered(&mut self, client_seq: u64, frame: ServerFrame<'static>) -> Result<(), End> {
        match self.pending.remove(&client_seq) {
            Some(Pending::Program(reply)) => answer(reply, frame),
            _ => Ok(()),
        }
    }

    async fn refused(&mut self, refused: native::Refused<'static>) -> Result<(), End> {
        let cause = refused.text.clone().into_owned();
        if let Some(pending) = self.pending.remove(&refused.client_seq) {
            match pending {
                Pending::Program(reply) => {
                    // The program may have stopped waiting.
                    let _ = reply.send(Err(anyhow!("{cause}")));
                }
                Pending::Fill(channel) => {
                    // History is not to be had: what waits behind the hole is better than nothing.
                    if let Some(held) = self.held.get_mut(&channel) {
                        held.filling = false;
                        held.last = held.ahead.first_key_value().map_or(held.last, |(seq, _)| seq - 1);
                    }
                    self.drain(&channel).await;
                }
                Pending::SyncPage => return Err(End::network(cause)),
            }
            return Ok(());
        }
        let Some(at) = self.unacked.iter().position(|u| u.client_seq == refused.client_seq) else { return Ok(()) };
        match refused.retry_after_ms {
            Some(ms) => self.unacked[at].retry_at = Some(Instant::now() + Duration::from_millis(ms.into())),
            None => {
                if let Some(unacked) = self.unacked.remove(at) {
                    self.tell(Update::NotSent { channel: unacked.channel, cause }).await;
                }
            }
        }
        Ok(())
    }

    async fn event(&mut self, socket: &mut Socket, event: Event<'static>) -> Result<(), End> {
        match &event {
            Event::Conversation(change) => self.version = self.version.max(change.version),
            Event::Member(change) => self.version = self.version.max(change.version),
            Event::Message(change) => self.version = self.version.max(change.version),
            Event::Stream(change) => self.version = self.version.max(change.version),
            Event::Flags(change) => self.version = self.version.max(change.version),
            Event::Channel(change) => self.version = self.version.max(change.version),
            Event::Resync(resync) => {
                let version = if resync.version == 0 { self.version } else { resync.version };
                return self.sync_page(socket, version, None).await;
            }
            _ => {}
        }
        self.tell(Update::Event(Box::new(event))).await;
        Ok(())
    }

    async fn sync_page(&mut self, socket: &mut Socket, version: u64, after: Option<String>) -> Result<(), End> {
        let cursors: Vec<Cursor<'static>> = self
            .held
            .iter()
            .map(|(channel, held)| Cursor {
                channel_id: Cow::Owned(channel.id.clone()),
                channel_type: channel.kind,
                last_msg_seq: held.last,
            })
            .collect();
        let build = |client_seq| {
            ClientFrame::Sync(native::Sync {
                client_seq,
                version,
                last_msg_seqs: None,
                cursors,
                msg_count: RECENTS,
                only_unread: false,
                page_after: after.map(Cow::Owned),
                rows_max: 0,
            })
        };
        self.request(socket, Pending::SyncPage, build).await
    }

    async fn synced(&mut self, socket: &mut Socket, synced: Synced<'static>) -> Result<(), End> {
        if synced.reset {
            self.version = 0;
            self.held.clear();
        }
        // Oldest first, so that the newest conversation is told last and stands lowest on a screen.
        for row in synced.rows.into_iter().rev() {
            self.row(socket, row).await?;
        }
        self.version = self.version.max(synced.version);
        match synced.page_after {
            Some(after) if synced.more => self.sync_page(socket, synced.version, Some(after.into_owned())).await,
            _ => {
                self.tell(Update::CaughtUp).await;
                Ok(())
            }
        }
    }

    async fn row(&mut self, socket: &mut Socket, mut row: Row<'static>) -> Result<(), End> {
        let channel = Channel { id: row.channel_id.clone().into_owned(), kind: row.channel_type };
        let recents = std::mem::take(&mut row.recents);
        let (head, complete, reset, deleted) = (row.last_msg_seq, row.complete, row.reset, row.is_deleted);
        self.tell(Update::Conversation(Box::new(row))).await;
        if deleted {
            self.held.remove(&channel);
            return Ok(());
        }
        let held = self.held.entry(channel.clone()).or_default();
        if reset {
            *held = Held::default();
        }
        let oldest = recents.iter().map(|item| item.message_seq).min();
        if held.last == 0 {
            // Nothing was held: what is older than the recents is asked for by people, not by us.
            held.last = oldest.map_or(head, |seq| seq - 1);
            held.receipt = held.last;
        } else if recents.is_empty() && !complete {
            held.last = head;
        }
        for item in recents {
            self.arrived(&channel, item.message_seq, Some((item, false)));
        }
        self.advance(socket, channel).await
    }

    /// Notes a message that arrived by any way; what was told before is dropped here.
    fn arrived(&mut self, channel: &Channel, seq: u64, item: Option<(Item, bool)>) {
        let fresh = !self.held.contains_key(channel);
        let held = self.held.entry(channel.clone()).or_default();
        if fresh {
            // A conversation that began after the sync: there is nothing before it that was not told.
            held.last = seq.saturating_sub(1);
        }
        if seq > held.last {
            held.ahead.entry(seq).or_insert(item);
        }
    }

    /// Tells what has become contiguous; asks for a hole that nothing under way can fill.
    async fn advance(&mut self, socket: &mut Socket, channel: Channel) -> Result<(), End> {
        self.drain(&channel).await;
        let Some(held) = self.held.get(&channel) else { return Ok(()) };
        let Some((first, _)) = held.ahead.first_key_value() else { return Ok(()) };
        // An own message is not delivered to its sender: its ack will fill the hole.
        if held.filling || self.unacked.iter().any(|u| u.channel == channel) {
            return Ok(());
        }
        let until = first - 1;
        self.fill(socket, channel, until).await
    }

    async fn drain(&mut self, channel: &Channel) {
        let mut told = Vec::new();
        if let Some(held) = self.held.get_mut(channel) {
            while let Some(entry) = held.ahead.first_entry() {
                if *entry.key() > held.last + 1 {
                    break;
                }
                held.last = held.last.max(*entry.key());
                if let Some(item) = entry.remove() {
                    told.push(item);
                }
            }
        }
        for (item, live) in told {
            self.tell(Update::Message { channel: channel.clone(), item: Box::new(item), live }).await;
        }
    }

    async fn fill(&mut self, socket: &mut Socket, channel: Channel, until: u64) -> Result<(), End> {
        let Some(held) = self.held.get_mut(&channel) else { return Ok(()) };
        if held.filling || held.last >= until {
            return Ok(());
        }
        held.filling = true;
        let first = held.last + 1;
        let (id, kind) = (channel.id.clone(), channel.kind);
        let build = move |client_seq| {
            ClientFrame::History(native::History {
                client_seq,
                channel_id: Cow::Owned(id),
                channel_type: kind,
                first_seq: first,
                last_seq: until,
                limit: HISTORY_PAGE,
                newest_first: false,
            })
        };
        self.request(socket, Pending::Fill(channel), build).await
    }

    async fn filled(
        &mut self,
        socket: &mut Socket,
        channel: Channel,
        messages: native::Messages<'static>,
    ) -> Result<(), End> {
        if let Some(held) = self.held.get_mut(&channel) {
            held.filling = false;
            if messages.messages.is_empty() {
                // Deleted from this user's view meanwhile: the hole will stay.
                held.last = held.ahead.first_key_value().map_or(held.last.max(messages.head_seq), |(seq, _)| seq - 1);
            }
        }
        for item in messages.messages {
            self.arrived(&channel, item.message_seq, Some((item, true)));
        }
        self.advance(socket, channel).await
    }
}

impl Unacked {
    fn frame(&self) -> ClientFrame<'_> {
        ClientFrame::Send(native::Send {
            client_seq: self.client_seq,
            channel_id: Cow::Borrowed(&self.channel.id),
            channel_type: self.channel.kind,
            client_msg_no: Cow::Borrowed(&self.client_msg_no),
            payload: Cow::Borrowed(&self.payload),
            reply_to: self.reply_to,
            ..native::Send::default()
        })
    }
}

fn answer(reply: oneshot::Sender<Result<ServerFrame<'static>>>, frame: ServerFrame<'static>) -> Result<(), End> {
    // The program may have stopped waiting.
    let _ = reply.send(Ok(frame));
    Ok(())
}

fn jitter(max_ms: u64) -> Duration {
    Duration::from_millis(rand::rng().random_range(0..=max_ms))
}

/// Exponential with full jitter over its upper half, so that clients of a dead server do not come in waves.
fn backoff(failures: u32) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
    full / 2 + jitter(u64::try_from(full.as_millis() / 2).unwrap_or(u64::MAX))
}

async fn write(socket: &mut Socket, frame: &ClientFrame<'_>) -> Result<(), End> {
    let mut bytes = Vec::with_capacity(256);
    native::encode_client(Encoding::MessagePack, frame, &mut bytes).map_err(End::network)?;
    socket.send(Message::Binary(Bytes::from(bytes))).await.map_err(End::network)
}

/// `None`: nothing of ours, or of a later protocol.
fn decode(message: &Message) -> Result<Option<ServerFrame<'static>>, End> {
    match message {
        Message::Binary(bytes) => match native::decode_server(Encoding::MessagePack, bytes) {
            Ok(frame) => Ok(Some(frame)),
            Err(protocol::error::WireError::UnknownFrame { .. }) => Ok(None),
            Err(e) => Err(End::network(format!("the server sent what is no frame: {e}"))),
        },
        Message::Close(Some(close)) => {
            let reason = CloseReason::from_number(close.code.into());
            Err(End {
                cause: reason.map_or_else(|| close.reason.to_string(), |reason| reason.text().to_owned()),
                reconnect: reason.map_or(Reconnect::WithBackoff, CloseReason::reconnect),
                retry_after: None,
            })
        }
        Message::Close(None) => Err(End::network("the server closed the connection")),
        _ => Ok(None),
    }
}
