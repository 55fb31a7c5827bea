//! `chat new|send|history|connect`: Micro's chat commands (m3o.txt), over the API of a running server.
//!
//! Owns the flags, which are the document's, and how answers are printed: the API's JSON on stdout, its error's JSON on stderr
//! with exit code 1. Refuses to know what the server decides: a missing flag is the server's to refuse.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use protocol::ids::{ChannelKey, ChannelType, Uid};
use protocol::native::{ClientFrame, Connect, Deliver, Encoding, ServerFrame, decode_server, encode_client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::client::{Asked, Question, exchange, reachable};
use super::{Exit, Failure};
use crate::config::Config;
use crate::credentials::find_root_key;
use crate::domain::channel::chat_id;
use crate::domain::content::Content;
use crate::http::dialects::m3o::wire;

/// Silence after which a ping is sent, unless the server names another time.
const HEARTBEAT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct ChatArgs {
    /// Where the server's HTTP API listens [default: listen.http]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    server: Option<String>,
    /// An API key, or a user's token [default: the root key of the data directory]
    #[arg(long, global = true)]
    key: Option<String>,
    /// The tenant [default: the one the key is bound to, else the default one]
    #[arg(long, global = true)]
    namespace: Option<String>,
    #[command(subcommand)]
    command: ChatCommand,
}

#[derive(Debug, Subcommand)]
enum ChatCommand {
    /// Find or make the chat of these users
    New {
        /// The users: repeated, or with commas
        #[arg(long = "user_ids", alias = "user-ids", value_delimiter = ',')]
        user_ids: Vec<String>,
    },
    /// Send a message to a chat
    Send {
        /// The chat, from `chat new`
        #[arg(long = "chat_id", alias = "chat-id", default_value = "")]
        chat_id: String,
        /// Who sends
        #[arg(long = "user_id", alias = "user-id", default_value = "")]
        user_id: String,
        /// What it is about
        #[arg(long, default_value = "")]
        subject: String,
        /// What it says
        #[arg(long, default_value = "", allow_hyphen_values = true)]
        text: String,
        /// A name for the message that makes a retry safe
        #[arg(long = "client_id", alias = "client-id", default_value = "")]
        client_id: String,
    },
    /// Show the newest messages of a chat, oldest first
    History {
        /// The chat, from `chat new`
        #[arg(long = "chat_id", alias = "chat-id", default_value = "")]
        chat_id: String,
        /// Read as this user, who must be a member
        #[arg(long = "user_id", alias = "user-id", default_value = "")]
        user_id: String,
        /// Most messages; 0: 50
        #[arg(long, default_value_t = 0)]
        limit: u32,
        /// Only messages before this one
        #[arg(long, default_value = "")]
        before: String,
    },
    /// Print the messages of a chat as they come, one JSON line each, until interrupted
    Connect {
        /// The chat, from `chat new`
        #[arg(long = "chat_id", alias = "chat-id")]
        chat_id: String,
        /// Who listens; a member
        #[arg(long = "user_id", alias = "user-id")]
        user_id: String,
        /// Where WebSocket clients connect [default: listen.socket]
        #[arg(long, value_name = "ADDRESS:PORT")]
        socket: Option<String>,
    },
}

/// How a command reaches the server.
struct Reach {
    addr: SocketAddr,
    key: String,
    namespace: Option<String>,
}

pub(super) fn run(config: &Config, args: &ChatArgs) -> Result<Exit, Failure> {
    let reach = Reach {
        addr: match &args.server {
            None => config.listen.http,
            Some(text) => address(text)?,
        },
        key: match &args.key {
            Some(key) => key.clone(),
            None => match find_root_key(&config.auth, &config.data_dir)? {
                Some((key, _)) => key,
                None => {
                    let dir = config.data_dir.display();
                    return Err(Failure::new(Exit::Failed, format_args!("no root key in {dir}: give one with --key")));
                }
            },
        },
        namespace: args.namespace.clone().filter(|name| !name.is_empty()),
    };
    match &args.command {
        ChatCommand::New { user_ids } => reach.print::<wire::Created>("/chat/New", json!({ "user_ids": user_ids })),
        ChatCommand::Send { chat_id, user_id, subject, text, client_id } => {
            let body = json!({
                "chat_id": chat_id, "user_id": user_id, "subject": subject, "text": text, "client_id": client_id,
            });
            // The API answers a history to a chat alone; whoever types `send` means a message.
            if [user_id, subject, text, client_id].iter().all(|flag| flag.is_empty()) && !chat_id.is_empty() {
                return Err(Failure::new(Exit::Usage, "chat send needs --user_id and --text"));
            }
            reach.print::<wire::Sent>("/chat/Send", body)
        }
        ChatCommand::History { chat_id, user_id, limit, before } => {
            let body = json!({ "chat_id": chat_id, "user_id": user_id, "limit": limit, "before": before });
            reach.print::<wire::Page>("/chat/History", body)
        }
        ChatCommand::Connect { chat_id, user_id, socket } => {
            let socket = match socket {
                None => config.listen.socket,
                Some(text) => address(text)?,
            };
            reach.connect(socket, chat_id, user_id)
        }
    }
}

/// `host:port`, also written as a URL.
fn address(text: &str) -> anyhow::Result<SocketAddr> {
    let bare = ["http://", "ws://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    let bare = bare.trim_end_matches('/');
    let mut found = bare.to_socket_addrs().with_context(|| format!("{text:?} is not an address with a port"))?;
    found.next().with_context(|| format!("{text:?} is no known address"))
}

impl Reach {
    fn post(&self, path: &str, body: Value) -> anyhow::Result<(bool, bytes::Bytes)> {
        let namespace = self.namespace.as_deref();
        match exchange(self.addr, &Question { path, credential: &self.key, namespace, body: Some(body) })? {
            Asked::Answer((status, bytes)) => Ok((status.is_success(), bytes)),
            Asked::NobodyThere => bail!("no server answers at {}", self.addr),
        }
    }

    /// Asks, and prints the answer in the order of the document's fields.
    fn print<T: DeserializeOwned + Serialize>(&self, path: &str, body: Value) -> Result<Exit, Failure> {
        let (done, bytes) = self.post(path, body)?;
        if !done {
            return Ok(self.refused(&bytes)?);
        }
        let answer: T = serde_json::from_slice(&bytes).map_err(|e| self.foreign(&e))?;
        println!("{}", serde_json::to_string_pretty(&answer)?);
        Ok(Exit::Success)
    }

    fn refused(&self, bytes: &[u8]) -> anyhow::Result<Exit> {
        let error: wire::Error = serde_json::from_slice(bytes).map_err(|e| self.foreign(&e))?;
        eprintln!("{}", serde_json::to_string_pretty(&error)?);
        Ok(Exit::Failed)
    }

    fn foreign(&self, error: &serde_json::Error) -> anyhow::Error {
        anyhow!("what listens at {} does not answer as Chinwag does: {error}", self.addr)
    }

    /// Prints messages until interrupted, or until the server ends the connection.
    fn connect(&self, socket: SocketAddr, chat: &str, user_id: &str) -> Result<Exit, Failure> {
        // The API says, in its own words, whether there is such a chat and whether this user may read it.
        let (done, bytes) = self.post("/chat/History", json!({ "chat_id": chat, "user_id": user_id, "limit": 1 }))?;
        if !done {
            return Ok(self.refused(&bytes)?);
        }
        let mut socket = self.open(reachable(socket), user_id)?;
        let connected = loop {
            match next(&mut socket)? {
                Some(ServerFrame::Connected(connected)) => break connected,
                Some(ServerFrame::Closing(closing)) => return Err(closed(&closing).into()),
                Some(_) => {}
                None => return Err(anyhow!("the server ended the connection").into()),
            }
        };
        let viewer = Uid::from_stored(&connected.uid);
        if self.namespace.as_deref().is_some_and(|name| viewer.namespace() != Some(name)) {
            // A socket has no place to name a tenant.
            return Err(anyhow!("chat connect needs a key or a token of that namespace").into());
        }
        let chat = uuid::Uuid::try_parse(chat).map(|uuid| uuid.hyphenated().to_string())?;
        eprintln!("connected as {}, waiting for messages", viewer.bare());
        let heartbeat = match connected.heartbeat_s {
            0 => HEARTBEAT,
            seconds => Duration::from_secs(seconds.into()),
        };
        socket.get_ref().set_read_timeout(Some(heartbeat))?;
        loop {
            let frame = match next(&mut socket) {
                Ok(frame) => frame,
                Err(tungstenite::Error::Io(e)) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    socket.send(Message::Ping(bytes::Bytes::new()))?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match frame {
                Some(ServerFrame::Deliver(deliver)) => {
                    if !print_delivery(&viewer, &chat, &deliver)? {
                        return Ok(Exit::Success);
                    }
                }
                Some(ServerFrame::Gap(gap)) if is_chat(&viewer, &chat, &gap.channel_id, gap.channel_type) => {
                    let (first, head) = (gap.first_missing_seq, gap.head_seq);
                    eprintln!("messages {first} to {head} were not delivered in time: see `chat history`");
                }
                Some(ServerFrame::Closing(closing)) => return Err(closed(&closing).into()),
                Some(_) => {}
                None => return Err(anyhow!("the server ended the connection").into()),
            }
        }
    }

    fn open(&self, addr: SocketAddr, user_id: &str) -> anyhow::Result<WebSocket<TcpStream>> {
        let stream = TcpStream::connect(addr).with_context(|| format!("cannot reach the server's socket at {addr}"))?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{addr}/").into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", Encoding::Json.subprotocol().parse()?);
        let (mut socket, _) = tungstenite::client(request, stream)
            .map_err(|error| anyhow!("what listens at {addr} does not speak WebSocket as Chinwag does: {error}"))?;
        let connect = Connect {
            token: self.key.as_str().into(),
            uid: Some(user_id.into()),
            device_id: "".into(),
            device_flag: 0,
            client: None,
            resume: None,
        };
        let mut bytes = Vec::new();
        encode_client(Encoding::Json, &ClientFrame::Connect(connect), &mut bytes)?;
        socket.send(Message::text(String::from_utf8(bytes)?))?;
        Ok(socket)
    }
}

fn closed(closing: &protocol::native::Closing<'_>) -> anyhow::Error {
    anyhow!("the server ended the connection: {}", closing.reason)
}

/// The next frame; `None`: the end.
fn next(socket: &mut WebSocket<TcpStream>) -> Result<Option<ServerFrame<'static>>, tungstenite::Error> {
    loop {
        let text = match socket.read() {
            Ok(Message::Text(text)) => text,
            Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => return Ok(None),
            Ok(_) => continue,
            Err(error) => return Err(error),
        };
        // Kinds of newer servers are skipped.
        if let Ok(frame) = decode_server(Encoding::Json, text.as_bytes()) {
            return Ok(Some(frame));
        }
    }
}

/// Whether what the viewer calls (channel_id, channel_type) is this chat.
fn is_chat(viewer: &Uid, chat: &str, channel_id: &str, channel_type: u8) -> bool {
    let key = ChannelType::from_wire(channel_type).and_then(|kind| ChannelKey::seen_by(viewer, channel_id, kind));
    key.is_ok_and(|key| chat_id(&key) == chat)
}

/// Prints what belongs to the chat; `false`: nobody reads any more.
fn print_delivery(viewer: &Uid, chat: &str, deliver: &Deliver<'_>) -> anyhow::Result<bool> {
    if !is_chat(viewer, chat, &deliver.channel_id, deliver.channel_type) {
        return Ok(true);
    }
    let mut out = std::io::stdout().lock();
    for message in deliver.messages.iter().filter(|message| !message.sync_once) {
        let content = Content::decode(&message.payload);
        let line = wire::Message {
            id: message.message_id.to_string(),
            client_id: message.client_msg_no.clone().into_owned(),
            chat_id: chat.to_owned(),
            user_id: Uid::from_stored(&message.from_uid).bare().to_owned(),
            text: content.body_text(),
            subject: content.subject.unwrap_or_default(),
            sent_at: message.timestamp / 1_000,
            state: None,
        };
        match writeln!(out, "{}", serde_json::to_string(&line)?).and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_belongs_to_the_chat_of_its_channel() {
        let john = Uid::from_stored("John");
        let pair = chat_id(&ChannelKey::person(&john, &Uid::from_stored("Barry")));
        assert!(is_chat(&john, &pair, "Barry", 1));
        assert!(!is_chat(&john, &pair, "Bob", 1) && !is_chat(&john, &pair, "Barry", 2));
        let tenant = Uid::in_namespace(Some("acme"), "John").expect("valid");
        assert!(!is_chat(&tenant, &pair, "Barry", 1), "another tenant's Barry");
        let group = "6c1d4a53-2b57-5d2e-9d0e-6f9b5f4ad0c1";
        assert!(is_chat(&john, group, group, 2));
        let theirs = ChannelKey::named_in(Some("acme"), group, ChannelType::Group).expect("a group");
        assert!(is_chat(&tenant, &chat_id(&theirs), group, 2) && !is_chat(&tenant, group, group, 2));
    }

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for text in ["127.0.0.1:5001", "http://127.0.0.1:5001", "http://127.0.0.1:5001/", "ws://127.0.0.1:5001"] {
            assert_eq!(address(text).expect("an address"), "127.0.0.1:5001".parse().expect("an address"));
        }
        assert!(address("127.0.0.1").is_err());
    }
}
