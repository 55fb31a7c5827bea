//! A server of one's own and clients for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chinwag::app::App;
use chinwag::config::Config;
use chinwag::credentials::Credentials;
use chinwag::store::Store;
use chinwag::store::memory::MemoryStore;
use futures_util::{SinkExt, StreamExt};
use protocol::ids::{ChannelKey, ChannelType, DeviceFlag, Uid};
use protocol::native::{
    Ack, ClientFrame, Closing, Connect, Connected, Cursor, Deliver, Done, Encoding, Event, History, MessageItem,
    Refused, ServerFrame, Sync, Synced, decode_server, encode_client,
};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server with its data directory.
pub struct Server {
    pub app: App,
    pub dir: Arc<tempfile::TempDir>,
    pub config: Config,
}

/// A configuration for a server on free ports.
pub fn config(dir: &tempfile::TempDir) -> Config {
    let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
    config.listen.socket = "127.0.0.1:0".parse().expect("address");
    config.listen.http = "127.0.0.1:0".parse().expect("address");
    config.wukong.tcp_listen = Some("127.0.0.1:0".parse().expect("address"));
    config.shards = 2;
    config
}

impl Server {
    /// On the model of the store.
    pub async fn on_memory() -> Self {
        Self::on_memory_with(|_| {}).await
    }

    /// On the model, with a changed configuration.
    pub async fn on_memory_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("temporary directory"));
        let mut config = config(&dir);
        change(&mut config);
        std::fs::create_dir_all(&config.data_dir).expect("data directory");
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let app = App::start_with(config.clone(), store).await.expect("server starts");
        Self { app, dir, config }
    }

    /// On the durable store.
    pub async fn on_disk() -> Self {
        Self::on_disk_with(|_| {}).await
    }

    /// On the durable store, with a changed configuration.
    pub async fn on_disk_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("temporary directory"));
        let mut config = config(&dir);
        change(&mut config);
        let app = App::start(config.clone()).await.expect("server starts");
        Self { app, dir, config }
    }

    /// On a model that the test holds too: to make it fail, or wait.
    pub async fn on_shared_memory(change: impl FnOnce(&mut Config)) -> (Self, Arc<MemoryStore>) {
        let dir = Arc::new(tempfile::tempdir().expect("temporary directory"));
        let mut config = config(&dir);
        change(&mut config);
        std::fs::create_dir_all(&config.data_dir).expect("data directory");
        let store = Arc::new(MemoryStore::new());
        let app = App::start_with(config.clone(), store.clone()).await.expect("server starts");
        (Self { app, dir, config }, store)
    }

    /// Makes a group.
    pub async fn group(&self, id: &str, members: &[&str]) {
        let members = members.iter().map(|uid| self.uid(uid)).collect();
        self.app.hub().put_channel(group(id), None, members, false).await.expect("group is made");
    }

    /// Drains the server and starts it again on the same directory.
    pub async fn restart(self) -> Self {
        let Self { app, dir, config } = self;
        let report = app.drain().await;
        assert!(report.clean, "drain was not clean: {report}");
        Self { app: start_again(&config).await, dir, config }
    }

    /// Gives a user a token: `token-of-UID`.
    pub async fn user(&self, uid: &str) -> String {
        let token = format!("token-of-{uid}");
        let credentials = Credentials::open(&self.config.data_dir).expect("credentials");
        let hash = credentials.hash(&token);
        self.app.hub().set_token(self.uid(uid), DeviceFlag(0), 0, hash).await.expect("token is set");
        token
    }

    /// A uid.
    pub fn uid(&self, uid: &str) -> Uid {
        Uid::new(uid).expect("valid uid")
    }

    /// A user with a token, connected in MessagePack.
    pub async fn connect(&self, uid: &str) -> Client {
        let token = self.user(uid).await;
        Client::connect(self, &token, Encoding::MessagePack, |_| {}).await
    }
}

/// Starts a server on the directory of one that was drained. A question to the old store that nobody waits for any more may
/// still run for a moment and keep it open.
pub async fn start_again(config: &Config) -> App {
    let begun = tokio::time::Instant::now();
    loop {
        match App::start(config.clone()).await {
            Ok(app) => return app,
            Err(error) if format!("{error:#}").contains("in use") && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("the server does not start again: {error:#}"),
        }
    }
}

/// A group's key.
pub fn group(id: &str) -> ChannelKey {
    ChannelKey::named(id, ChannelType::Group).expect("valid group id")
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "in vain waited for: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A client that speaks native frames.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    encoding: Encoding,
    kept: VecDeque<ServerFrame<'static>>,
    pub connected: Option<Connected<'static>>,
    /// Number of the WebSocket close frame, once it came.
    pub close_number: Option<u16>,
    next_seq: u64,
}

impl Client {
    /// Opens a socket without a session.
    pub async fn open(server: &Server, encoding: Encoding) -> Self {
        let mut request = format!("ws://{}/", server.app.socket_addr()).into_client_request().expect("request");
        let protocol = encoding.subprotocol().parse().expect("header");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.expect("upgrade");
        Self { socket, encoding, kept: VecDeque::new(), connected: None, close_number: None, next_seq: 1 }
    }

    /// Opens a socket and a session.
    pub async fn connect(
        server: &Server,
        token: &str,
        encoding: Encoding,
        change: impl FnOnce(&mut Connect<'_>),
    ) -> Self {
        let mut client = Self::open(server, encoding).await;
        let mut connect = Connect {
            token: token.into(),
            uid: None,
            device_id: "".into(),
            device_flag: 0,
            client: None,
            resume: None,
        };
        change(&mut connect);
        client.send(&ClientFrame::Connect(connect)).await;
        match client.next().await {
            ServerFrame::Connected(connected) => client.connected = Some(connected),
            other => panic!("expected connected, got {other:?}"),
        }
        client
    }

    /// A number for a request.
    pub fn seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &ClientFrame<'_>) {
        let mut bytes = Vec::new();
        encode_client(self.encoding, frame, &mut bytes).expect("frame encodes");
        let message = match self.encoding {
            Encoding::MessagePack => Message::binary(bytes),
            Encoding::Json => Message::text(String::from_utf8(bytes).expect("utf-8")),
        };
        self.socket.send(message).await.expect("socket takes frame");
    }

    /// The next frame, whatever it is.
    pub async fn next(&mut self) -> ServerFrame<'static> {
        if let Some(frame) = self.kept.pop_front() {
            return frame;
        }
        self.receive().await.expect("a frame before the end of the stream")
    }

    /// The next frame from the socket; `None`: closed.
    pub async fn receive(&mut self) -> Option<ServerFrame<'static>> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a frame in time")?;
            let bytes = match message {
                Ok(Message::Binary(bytes)) => bytes,
                Ok(Message::Text(text)) => text.into(),
                Ok(Message::Close(frame)) => {
                    self.close_number = frame.map(|frame| frame.code.into());
                    return None;
                }
                Err(_) => return None,
                Ok(_) => continue,
            };
            return Some(decode_server(self.encoding, &bytes).expect("server frame decodes"));
        }
    }

    /// The first frame that `pick` takes; others are kept for later.
    pub async fn expect<T>(&mut self, mut pick: impl FnMut(&ServerFrame<'static>) -> Option<T>) -> T {
        if let Some(at) = self.kept.iter().position(|frame| pick(frame).is_some()) {
            let frame = self.kept.remove(at).expect("position exists");
            return pick(&frame).expect("picked before");
        }
        loop {
            let frame = self.receive().await.expect("a frame before the end of the stream");
            match pick(&frame) {
                Some(picked) => return picked,
                None => self.kept.push_back(frame),
            }
        }
    }

    /// A send frame of defaults.
    pub fn message<'a>(
        &mut self,
        channel_id: &'a str,
        channel_type: u8,
        payload: &'a [u8],
    ) -> protocol::native::Send<'a> {
        protocol::native::Send {
            client_seq: self.seq(),
            channel_id: channel_id.into(),
            channel_type,
            client_msg_no: "".into(),
            payload: payload.into(),
            ..protocol::native::Send::default()
        }
    }

    /// Sends a message and waits for its ack.
    pub async fn say(&mut self, channel_id: &str, channel_type: u8, payload: &[u8]) -> Ack<'static> {
        let send = self.message(channel_id, channel_type, payload);
        let client_seq = send.client_seq;
        self.send(&ClientFrame::Send(send)).await;
        self.expect(|frame| match frame {
            ServerFrame::Ack(ack) if ack.client_seq == client_seq => Some(ack.clone()),
            ServerFrame::Refused(refused) if refused.client_seq == client_seq => panic!("refused: {refused:?}"),
            _ => None,
        })
        .await
    }

    /// The next delivery's messages as (channel_id, seq, payload).
    pub async fn delivered(&mut self) -> Vec<(String, u64, Vec<u8>)> {
        self.expect(|frame| match frame {
            ServerFrame::Deliver(deliver) => Some(
                deliver
                    .messages
                    .iter()
                    .map(|m| (deliver.channel_id.to_string(), m.message_seq, m.payload.to_vec()))
                    .collect(),
            ),
            _ => None,
        })
        .await
    }

    /// Sends a frame without waiting until the socket took it; [`Client::flush`] does.
    pub async fn feed(&mut self, frame: &ClientFrame<'_>) {
        let mut bytes = Vec::new();
        encode_client(self.encoding, frame, &mut bytes).expect("frame encodes");
        let message = match self.encoding {
            Encoding::MessagePack => Message::binary(bytes),
            Encoding::Json => Message::text(String::from_utf8(bytes).expect("utf-8")),
        };
        self.socket.feed(message).await.expect("socket takes frame");
    }

    /// Waits until the socket took everything.
    pub async fn flush(&mut self) {
        self.socket.flush().await.expect("socket takes frames");
    }

    /// Sends and waits for the ack or the refusal.
    pub async fn ask_send(&mut self, send: protocol::native::Send<'_>) -> Result<Ack<'static>, Refused<'static>> {
        let client_seq = send.client_seq;
        self.send(&ClientFrame::Send(send)).await;
        self.outcome(client_seq).await
    }

    /// The ack or the refusal of a send.
    pub async fn outcome(&mut self, client_seq: u64) -> Result<Ack<'static>, Refused<'static>> {
        self.expect(|frame| match frame {
            ServerFrame::Ack(ack) if ack.client_seq == client_seq => Some(Ok(ack.clone())),
            ServerFrame::Refused(refused) if refused.client_seq == client_seq => Some(Err(refused.clone())),
            _ => None,
        })
        .await
    }

    /// Sends a request and waits for its `done` or its refusal.
    pub async fn ask_done(&mut self, client_seq: u64, frame: ClientFrame<'_>) -> Result<Done, Refused<'static>> {
        self.send(&frame).await;
        self.expect(|frame| match frame {
            ServerFrame::Done(done) if done.client_seq == client_seq => Some(Ok(done.clone())),
            ServerFrame::Refused(refused) if refused.client_seq == client_seq => Some(Err(refused.clone())),
            _ => None,
        })
        .await
    }

    /// A sync's answer.
    pub async fn sync(&mut self, change: impl FnOnce(&mut Sync<'_>)) -> Result<Synced<'static>, Refused<'static>> {
        let client_seq = self.seq();
        let mut sync = Sync {
            client_seq,
            version: 0,
            last_msg_seqs: None,
            cursors: Vec::new(),
            msg_count: 0,
            only_unread: false,
            page_after: None,
            rows_max: 0,
        };
        change(&mut sync);
        self.send(&ClientFrame::Sync(sync)).await;
        self.expect(|frame| match frame {
            ServerFrame::Synced(synced) if synced.client_seq == client_seq => Some(Ok(synced.clone())),
            ServerFrame::Refused(refused) if refused.client_seq == client_seq => Some(Err(refused.clone())),
            _ => None,
        })
        .await
    }

    /// A page of history, and whether there is more.
    pub async fn history(
        &mut self,
        channel_id: &str,
        channel_type: u8,
        first_seq: u64,
        last_seq: u64,
    ) -> Result<(Vec<MessageItem<'static>>, bool), Refused<'static>> {
        let client_seq = self.seq();
        let history = History {
            client_seq,
            channel_id: channel_id.into(),
            channel_type,
            first_seq,
            last_seq,
            limit: 1_000,
            newest_first: false,
        };
        self.send(&ClientFrame::History(history)).await;
        self.expect(|frame| match frame {
            ServerFrame::Messages(page) if page.client_seq == client_seq => {
                Some(Ok((page.messages.clone(), page.more)))
            }
            ServerFrame::Refused(refused) if refused.client_seq == client_seq => Some(Err(refused.clone())),
            _ => None,
        })
        .await
    }

    /// Everything a range holds, page by page.
    pub async fn whole_history(
        &mut self,
        channel_id: &str,
        channel_type: u8,
        mut first: u64,
        last: u64,
    ) -> Vec<MessageItem<'static>> {
        let mut all = Vec::new();
        loop {
            let (page, more) = self.history(channel_id, channel_type, first, last).await.expect("history");
            let Some(reached) = page.last() else { return all };
            first = reached.message_seq + 1;
            all.extend(page);
            if !more {
                return all;
            }
        }
    }

    /// The next `deliver`.
    pub async fn deliver(&mut self) -> Deliver<'static> {
        self.expect(|frame| match frame {
            ServerFrame::Deliver(deliver) => Some(deliver.clone()),
            _ => None,
        })
        .await
    }

    /// The next event that `pick` takes.
    pub async fn event<T>(&mut self, mut pick: impl FnMut(&Event<'static>) -> Option<T>) -> T {
        self.expect(|frame| match frame {
            ServerFrame::Event(event) => pick(event),
            _ => None,
        })
        .await
    }

    /// Takes whatever came up to now: everything the server wrote before it answered a ping is here afterwards, and
    /// returned. What a lot that is not announced yet will bring is not.
    pub async fn pending(&mut self) -> Vec<ServerFrame<'static>> {
        self.send(&ClientFrame::Ping(protocol::native::Ping {})).await;
        self.expect(|frame| matches!(frame, ServerFrame::Pong(_)).then_some(())).await;
        self.kept.drain(..).collect()
    }

    /// Reads to the end of the connection: the `closing` frame and the number of the close.
    pub async fn ended(&mut self) -> (Option<Closing<'static>>, Option<u16>) {
        let mut closing = None;
        for frame in self.kept.drain(..) {
            if let ServerFrame::Closing(frame) = frame {
                closing = Some(frame);
            }
        }
        while let Some(frame) = self.receive().await {
            if let ServerFrame::Closing(frame) = frame {
                closing = Some(frame);
            }
        }
        (closing, self.close_number)
    }
}

/// A cursor.
pub fn cursor(channel_id: &str, channel_type: u8, last_msg_seq: u64) -> Cursor<'static> {
    Cursor { channel_id: channel_id.to_owned().into(), channel_type, last_msg_seq }
}
