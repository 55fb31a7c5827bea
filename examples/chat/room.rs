//! One user's chat: what is typed becomes requests, what happens becomes lines.
//!
//! Owns the list of conversations and the one being talked in. Refuses to know sockets and terminals.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::native::{self, ClientFrame, Event, Row, ServerFrame};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::backend::{Backend, NewChannel};
use crate::client::{Channel, Command, Item, Update};
use crate::screen::{Ink, Screen, tame};

/// What the commands are; also the end of `--help`.
pub const HELP: &str = "\
Inside the chat:
  text               send it to whom you talk to
  /to NAME           talk to a user; /to group:NAME or /join NAME: to a group
  /group NAME [WHO…] make a group with you and others in it (needs the root key)
  /list              conversations and unread counts
  /history [N]       the newest N messages here (20)
  /read              mark this conversation as read
  /unread N          have N messages unread here
  /delete            take this conversation off your list
  /who               who is online
  /help  /quit";

/// How long an answer may take before people are told.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages of `/history` without a number.
const HISTORY_DEFAULT: u32 = 20;

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// More lines are welcome.
    Go,
    /// The user wants to leave.
    Quit,
}

/// A conversation as this user sees it.
#[derive(Debug, Clone, Default)]
struct Conversation {
    unread: u64,
    last_msg_seq: u64,
    /// Later messages count as unread; up to here they are in `unread` already.
    counted_to: u64,
}

/// What is told twice or late changes nothing: only a later version of a conversation counts.
#[derive(Debug, Default)]
struct Versions(BTreeMap<Channel, u64>);

impl Versions {
    fn is_news(&mut self, channel: &Channel, version: u64) -> bool {
        let known = self.0.entry(channel.clone()).or_default();
        let news = version > *known;
        *known = (*known).max(version);
        news
    }
}

/// The chat.
pub struct Room {
    uid: String,
    screen: Screen,
    commands: Option<mpsc::Sender<Command>>,
    updates: mpsc::Receiver<Update>,
    /// What arrived while an answer was waited for.
    deferred: VecDeque<Update>,
    backend: Option<Backend>,
    current: Option<Channel>,
    conversations: BTreeMap<Channel, Conversation>,
    /// Of changes that are not messages.
    versions: Versions,
    /// Everybody met, for `/who`.
    known: BTreeSet<String>,
    caught_up: bool,
    greeted: bool,
}

fn name_of(channel: &Channel) -> String {
    if channel.kind == 1 { channel.id.clone() } else { format!("group:{}", channel.id) }
}

impl Room {
    /// A chat nobody has said anything in.
    pub fn new(
        uid: String,
        screen: Screen,
        commands: mpsc::Sender<Command>,
        updates: mpsc::Receiver<Update>,
        backend: Option<Backend>,
    ) -> Self {
        Self {
            uid,
            screen,
            commands: Some(commands),
            updates,
            deferred: VecDeque::new(),
            backend,
            current: None,
            conversations: BTreeMap::new(),
            versions: Versions::default(),
            known: BTreeSet::new(),
            caught_up: false,
            greeted: false,
        }
    }

    /// The next thing that happened; `None` when the client has ended.
    pub async fn next_update(&mut self) -> Option<Update> {
        match self.deferred.pop_front() {
            Some(update) => Some(update),
            None => self.updates.recv().await,
        }
    }

    /// Whether lines make sense yet: not before the first list of conversations.
    pub fn ready(&self) -> bool {
        self.greeted
    }

    /// Lets the client end once everything is stored.
    pub fn leave(&mut self) -> Option<mpsc::Sender<Command>> {
        self.commands.take()
    }

    /// Tells people that something is wrong.
    pub fn complain(&self, text: &str) {
        self.screen.print(Ink::Alarm, &format!("* {text}"));
    }

    fn note(&self, text: &str) {
        self.screen.print(Ink::Note, &format!("* {text}"));
    }

    /// Something happened.
    pub async fn update(&mut self, update: Update) {
        match update {
            Update::Connected { first: true } => self.note(&format!("connected as {}", self.uid)),
            Update::Connected { first: false } => self.note("connected again"),
            Update::Disconnected { cause, retry } => {
                self.caught_up = false;
                self.complain(&format!("not connected ({cause}), trying again in {:.1} s", retry.as_secs_f64()));
            }
            Update::Conversation(row) => self.row(&row),
            Update::CaughtUp => {
                self.caught_up = true;
                if !self.greeted {
                    self.greeted = true;
                    self.greet();
                }
            }
            Update::Message { channel, item, live } => self.message(channel, &item, live).await,
            Update::Sent { channel, message_seq } => {
                let conversation = self.conversations.entry(channel).or_default();
                // One's own message is read, and all before it.
                conversation.unread = 0;
                conversation.last_msg_seq = conversation.last_msg_seq.max(message_seq);
                conversation.counted_to = conversation.counted_to.max(message_seq);
            }
            Update::NotSent { channel, cause } => {
                self.complain(&format!("not sent to {}: {}", name_of(&channel), tame(&cause)));
            }
            Update::Event(event) => self.event(*event),
        }
    }

    fn greet(&mut self) {
        if self.conversations.is_empty() {
            self.note("no conversations yet: /to NAME starts one, /help tells more");
        } else {
            self.list();
        }
        if let Some(channel) = &self.current {
            self.note(&format!("you talk to {}", name_of(channel)));
        }
    }

    fn row(&mut self, row: &Row<'static>) {
        let channel = Channel { id: row.channel_id.clone().into_owned(), kind: row.channel_type };
        self.versions.is_news(&channel, row.version);
        if row.is_deleted {
            self.conversations.remove(&channel);
            return;
        }
        if channel.kind == 1 {
            self.known.insert(channel.id.clone());
        }
        let conversation =
            Conversation { unread: row.unread, last_msg_seq: row.last_msg_seq, counted_to: row.last_msg_seq };
        self.conversations.insert(channel, conversation);
    }

    async fn message(&mut self, channel: Channel, item: &Item, live: bool) {
        let own = item.from_uid == self.uid;
        self.known.insert(item.from_uid.clone().into_owned());
        let here = self.current.as_ref() == Some(&channel);
        let conversation = self.conversations.entry(channel.clone()).or_default();
        if item.message_seq > conversation.counted_to {
            conversation.counted_to = item.message_seq;
            conversation.last_msg_seq = item.message_seq;
            if own {
                conversation.unread = 0;
            } else if item.red_dot {
                conversation.unread += 1;
            }
        }
        let unread = conversation.unread;
        // At the start the list says what is unread; from then on every message is shown, also what a reconnect brings.
        if !live && !self.greeted {
            return;
        }
        self.screen.print(if own { Ink::Own } else { Ink::Peer }, &self.show(&channel, item));
        if !own && self.current.is_none() && self.caught_up {
            self.note(&format!("/to {} answers", name_of(&channel)));
        }
        if here && !own && unread > 0 && self.caught_up {
            // Shown where the user looks: read.
            self.read_up_to(channel, item.message_seq).await;
        }
    }

    fn show(&self, channel: &Channel, item: &Item) -> String {
        let text = match item.state {
            native::MessageState::Live => tame(&String::from_utf8_lossy(&item.payload)),
            other => format!("({})", other.as_str()),
        };
        let place = if channel.kind == 1 { String::new() } else { format!("[{}] ", tame(&channel.id)) };
        let to =
            if channel.kind == 1 && item.from_uid == self.uid { format!(" → {}", channel.id) } else { String::new() };
        format!("{place}{}{to}: {text}", tame(&item.from_uid))
    }

    fn event(&mut self, event: Event<'static>) {
        match event {
            Event::Signal(signal) if signal.name == "typing" => {
                self.note(&format!("{} is typing", tame(&signal.from_uid)));
            }
            Event::Presence(peer) => {
                self.note(&format!("{} is {}", peer.uid, if peer.online { "online" } else { "offline" }));
            }
            Event::Conversation(change) => {
                let channel = Channel { id: change.channel_id.into_owned(), kind: change.channel_type };
                if !self.versions.is_news(&channel, change.version) {
                    return;
                }
                if change.is_deleted {
                    self.conversations.remove(&channel);
                } else {
                    let conversation = self.conversations.entry(channel).or_default();
                    conversation.unread = change.unread;
                    conversation.counted_to = conversation.counted_to.max(change.last_msg_seq);
                    conversation.last_msg_seq = conversation.last_msg_seq.max(change.last_msg_seq);
                }
            }
            Event::Member(change) => {
                let channel = Channel { id: change.channel_id.into_owned(), kind: change.channel_type };
                for uid in change.joined {
                    self.note(&format!("{} is in {}", tame(&uid), name_of(&channel)));
                }
                for uid in change.left {
                    self.note(&format!("{} left {}", tame(&uid), name_of(&channel)));
                }
            }
            _ => {}
        }
    }

    /// A line was typed.
    pub async fn line(&mut self, line: &str) -> Flow {
        let line = line.trim();
        if line.is_empty() {
            return Flow::Go;
        }
        let Some(command) = line.strip_prefix('/') else {
            if let Err(e) = self.say(line).await {
                self.complain(&format!("{e:#}"));
            }
            return Flow::Go;
        };
        let mut words = command.split_whitespace();
        let word = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        if matches!(word, "quit" | "q" | "exit") {
            return Flow::Quit;
        }
        if let Err(e) = self.command(word, &rest).await {
            self.complain(&format!("{e:#}"));
        }
        Flow::Go
    }

    fn here(&self) -> Result<Channel> {
        self.current.clone().context("you talk to nobody yet: /to NAME")
    }

    async fn say(&mut self, text: &str) -> Result<()> {
        let channel = self.here()?;
        let commands = self.commands.as_ref().context("leaving")?;
        let command = Command::Send { channel, payload: text.as_bytes().to_vec() };
        commands.send(command).await.ok().context("the client has ended")
    }

    async fn command(&mut self, word: &str, rest: &[&str]) -> Result<()> {
        match (word, rest) {
            ("help" | "h" | "?", _) => self.screen.print(Ink::Note, HELP),
            ("to", [name]) => match name.strip_prefix("group:") {
                Some(group) => self.talk_in(Channel { id: group.to_owned(), kind: 2 }).await?,
                None => self.talk_in(Channel { id: (*name).to_owned(), kind: 1 }).await?,
            },
            ("join", [name]) => {
                let group = name.strip_prefix("group:").unwrap_or(name);
                if let Some(backend) = &self.backend {
                    backend.change_members(group, true, std::slice::from_ref(&self.uid)).await?;
                }
                self.talk_in(Channel { id: group.to_owned(), kind: 2 }).await?;
            }
            ("group", [name, others @ ..]) => self.group(name, others).await?,
            ("list" | "l", []) => self.list(),
            ("history", []) => self.history(HISTORY_DEFAULT).await?,
            ("history", [n]) => self.history(n.parse().context("/history takes a number")?).await?,
            ("read", []) => self.set_unread(0).await?,
            ("unread", [n]) => self.set_unread(n.parse().context("/unread takes a number")?).await?,
            ("delete", []) => {
                let channel = self.here()?;
                let (channel_id, channel_type) = (Cow::Owned(channel.id.clone()), channel.kind);
                let answer = self
                    .ask(move |client_seq| {
                        let delete = native::DeleteConversation { client_seq, channel_id, channel_type };
                        ClientFrame::DeleteConversation(delete)
                    })
                    .await?;
                if let ServerFrame::Done(done) = answer {
                    self.versions.is_news(&channel, done.version);
                }
                self.conversations.remove(&channel);
                self.note(&format!("{} is off your list", name_of(&channel)));
            }
            ("who", []) => self.who().await?,
            _ => bail!("/{word} is not understood here: /help"),
        }
        Ok(())
    }

    async fn talk_in(&mut self, channel: Channel) -> Result<()> {
        self.current = Some(channel.clone());
        if !self.greeted {
            return Ok(());
        }
        self.note(&format!("you talk to {}", name_of(&channel)));
        let Some(conversation) = self.conversations.get(&channel) else { return Ok(()) };
        let (unread, last) = (conversation.unread, conversation.last_msg_seq);
        if unread > 0 {
            self.history(u32::try_from(unread).unwrap_or(u32::MAX).clamp(1, 50)).await?;
            self.read_up_to(channel, last).await;
        }
        Ok(())
    }

    async fn group(&mut self, name: &str, others: &[&str]) -> Result<()> {
        let backend = self.backend.as_ref().context("making a group needs the root key: --data-dir")?;
        let mut members = vec![self.uid.clone()];
        members.extend(others.iter().map(|uid| (*uid).to_owned()));
        let channel = NewChannel { channel_id: name.to_owned(), channel_type: 2, subscribers: members };
        backend.create_channel(&channel).await?;
        self.talk_in(Channel { id: name.to_owned(), kind: 2 }).await
    }

    fn list(&self) {
        if self.conversations.is_empty() {
            return self.note("no conversations");
        }
        for (channel, conversation) in &self.conversations {
            let unread = match conversation.unread {
                0 => String::new(),
                n => format!("  {n} unread"),
            };
            self.note(&format!("{}{unread}", tame(&name_of(channel))));
        }
    }

    async fn history(&mut self, limit: u32) -> Result<()> {
        let channel = self.here()?;
        let (channel_id, channel_type) = (Cow::Owned(channel.id.clone()), channel.kind);
        let answer = self
            .ask(move |client_seq| {
                ClientFrame::History(native::History {
                    client_seq,
                    channel_id,
                    channel_type,
                    first_seq: 0,
                    last_seq: 0,
                    limit,
                    newest_first: true,
                })
            })
            .await?;
        let ServerFrame::Messages(page) = answer else { bail!("the server answered something else") };
        if page.messages.is_empty() {
            self.note("nothing was said yet");
        }
        for item in page.messages.iter().rev() {
            let ink = if item.from_uid == self.uid { Ink::Own } else { Ink::Peer };
            self.screen.print(ink, &format!("{:>5} {}", item.message_seq, self.show(&channel, item)));
        }
        Ok(())
    }

    async fn set_unread(&mut self, unread: i64) -> Result<()> {
        let channel = self.here()?;
        let (channel_id, channel_type) = (Cow::Owned(channel.id.clone()), channel.kind);
        let answer = self
            .ask(move |client_seq| {
                let set = native::SetUnread { client_seq, channel_id, channel_type, unread };
                ClientFrame::SetUnread(set)
            })
            .await?;
        let ServerFrame::Done(done) = answer else { bail!("the server answered something else") };
        let now = done.unread.unwrap_or(unread.unsigned_abs());
        self.versions.is_news(&channel, done.version);
        self.conversations.entry(channel.clone()).or_default().unread = now;
        self.note(&format!("{now} unread in {}", name_of(&channel)));
        Ok(())
    }

    async fn read_up_to(&mut self, channel: Channel, message_seq: u64) {
        if let Some(conversation) = self.conversations.get_mut(&channel) {
            conversation.unread = 0;
        }
        let (channel_id, channel_type) = (Cow::Owned(channel.id), channel.kind);
        // Nobody waits for the answer: a read position that was not stored is put again by the next message.
        let (reply, _) = oneshot::channel();
        let build: Box<dyn FnOnce(u64) -> ClientFrame<'static> + Send> = Box::new(move |client_seq| {
            ClientFrame::Read(native::Read { client_seq, channel_id, channel_type, message_seq })
        });
        if let Some(commands) = &self.commands {
            // A full queue means the connection is down; the next message tries again.
            let _ = commands.try_send(Command::Request { build, reply });
        }
    }

    async fn who(&mut self) -> Result<()> {
        let uids: Vec<Cow<'static, str>> =
            self.known.iter().filter(|uid| **uid != self.uid).map(|uid| Cow::Owned(uid.clone())).collect();
        if uids.is_empty() {
            self.note("you know nobody yet");
            return Ok(());
        }
        let answer = self
            .ask(move |client_seq| ClientFrame::Presence(native::Presence { client_seq, uids, watch: true }))
            .await?;
        let ServerFrame::Peers(peers) = answer else { bail!("the server answered something else") };
        for peer in peers.peers {
            let seen = match (peer.online, peer.last_seen_ms) {
                (true, _) => "online".to_owned(),
                (false, Some(ms)) => format!("offline, last seen {} ago", ago(ms)),
                (false, None) => "offline".to_owned(),
            };
            self.note(&format!("{} is {seen}", tame(&peer.uid)));
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        build: impl FnOnce(u64) -> ClientFrame<'static> + Send + 'static,
    ) -> Result<ServerFrame<'static>> {
        let commands = self.commands.as_ref().context("leaving")?;
        let (reply, mut answer) = oneshot::channel();
        commands.send(Command::Request { build: Box::new(build), reply }).await.ok().context("the client has ended")?;
        let answer = async {
            loop {
                tokio::select! {
                    answer = &mut answer => return answer.context("the client has ended")?,
                    // The client must not wait for us to listen while we wait for it.
                    Some(update) = self.updates.recv() => self.deferred.push_back(update),
                }
            }
        };
        timeout(ANSWER_TIMEOUT, answer).await.context("no answer yet")?
    }
}

fn ago(ms: u64) -> String {
    let seconds = chinwag::clock::now_ms().saturating_sub(ms) / 1_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}
