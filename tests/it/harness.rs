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
use protocol::ids::{DeviceFlag, Uid};
use protocol::native::{
    Ack, ClientFrame, Connect, Connected, Encoding, ServerFrame, decode_server, encode_client,
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
    let mut config = Config::default();
    config.data_dir = dir.path().join("data");
    config.listen.socket = "127.0.0.1:0".parse().expect("address");
    config.listen.http = "127.0.0.1:0".parse().expect("address");
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

    /// Drains the server and starts it again on the same directory.
    pub async fn restart(self) -> Self {
        let Self { app, dir, config } = self;
        let report = app.drain().await;
        assert!(report.clean, "drain was not clean: {report}");
        let app = App::start(config.clone()).await.expect("server starts again");
        Self { app, dir, config }
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

/// A client that speaks native frames.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    encoding: Encoding,
    kept: VecDeque<ServerFrame<'static>>,
    pub connected: Option<Connected<'static>>,
    next_seq: u64,
}

impl Client {
    /// Opens a socket without a session.
    pub async fn open(server: &Server, encoding: Encoding) -> Self {
        let mut request = format!("ws://{}/", server.app.socket_addr()).into_client_request().expect("request");
        let protocol = encoding.subprotocol().parse().expect("header");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.expect("upgrade");
        Self { socket, encoding, kept: VecDeque::new(), connected: None, next_seq: 1 }
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
                Ok(Message::Close(_)) | Err(_) => return None,
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
    pub fn message<'a>(&mut self, channel_id: &'a str, channel_type: u8, payload: &'a [u8]) -> protocol::native::Send<'a> {
        protocol::native::Send {
            client_seq: self.seq(),
            channel_id: channel_id.into(),
            channel_type,
            client_msg_no: "".into(),
            payload: payload.into(),
            red_dot: true,
            no_persist: false,
            sync_once: false,
            setting: 0,
            topic: "".into(),
            expire: 0,
            durability: protocol::native::Durability::Disk,
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
}
