//! Persistent sockets: listeners, connections, drain.
//!
//! Owns one thread per shard, each with a single-thread runtime, its connections and its flusher. Knows the `Hub` and its
//! shards, never the store. A connection is one small task; its write half belongs to the shard's writers.
//!
//! Invariants: no queue is waited for; a read half stops reading at its in-flight cap and nothing else; a panic ends one
//! connection, in a shard it ends the process, since state may be wrong.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use protocol::close::CloseReason;
use tokio::sync::{Notify, watch};

use crate::clock;
use crate::credentials::Credentials;
use crate::hub::Hub;
use crate::hub::inbox::Inbox;
use crate::hub::sessions::Passed;
use crate::hub::shard::{Shard, ShardEvent};
use crate::proxies::Proxies;

mod connection;
mod features;
mod handshake;
mod jsonrpc;
pub mod native;
pub(crate) mod seat;
pub mod websocket;
mod wire;
mod writer;
mod wukong;

use writer::Writers;

/// Bounds and times of connections.
#[derive(Debug, Clone, Copy)]
pub struct GatewayLimits {
    /// Largest WebSocket message.
    pub frame_bytes_max: usize,
    /// Largest payload of any channel type, told to clients.
    pub payload_bytes_max: usize,
    /// Requests of one connection without an answer; above it its read half stops.
    pub in_flight_max: u32,
    /// Sockets at once.
    pub connections_max: usize,
    /// From accept to `connected`.
    pub connect_timeout: Duration,
    /// Silence after which a connection is closed.
    pub idle_timeout_ms: u64,
    /// How often clients should send something; after one and a half of it the server asks.
    pub heartbeat_ms: u64,
    /// Not-sent low-water mark of every socket: makes a slow reader visible after this many bytes instead of megabytes.
    pub not_sent_low_water_bytes: u32,
    /// Least time between two flushes of a shard, 0 for none.
    pub flush_interval: Duration,
    /// Control entries that may wait for a socket before its read half stops.
    pub control_entries_max: usize,
    /// Rows of one native sync page.
    pub rows_max: usize,
    /// Messages of one native history page.
    pub history_max: usize,
    /// Whether WKProto sessions agree on keys and encrypt.
    pub wukong_encryption: bool,
    /// Whether WuKongIM's clients need their token.
    pub wukong_token_auth: bool,
    /// Whether messages of the built-in system user name no sender to WuKongIM's clients.
    pub wukong_blank_system: bool,
    /// Whether connections of trusted proxies begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

/// How a socket came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Through a WebSocket handshake: any protocol.
    WebSocket,
    /// As it is: WKProto.
    Stream,
}

/// The listeners, bound ([`bind`]).
#[derive(Debug)]
pub struct Doors {
    /// WebSocket clients of every protocol.
    pub websocket: TcpListener,
    /// WKProto over TCP; `None`: off.
    pub wukong_tcp: Option<TcpListener>,
}

/// What a shard's tasks share; lives in the shard's thread.
pub(crate) struct Context {
    pub shard: RefCell<Shard>,
    writers: RefCell<Writers>,
    pub flush: Rc<Notify>,
    pub hub: Hub,
    pub credentials: Arc<Credentials>,
    pub limits: GatewayLimits,
    pub front: Arc<Front>,
    /// One read buffer for all connections of the shard: a connection holds bytes of its own only while a frame is cut.
    pub read_buffer: RefCell<Box<[u8]>>,
    /// Where payloads are decrypted.
    pub opened: RefCell<Vec<u8>>,
    /// What encrypted sessions agree on keys with.
    pub keys: wukong::KeyRing,
    /// What is read just now, until it is added to its connection's counts.
    pub taken: Taken,
}

/// What one read of a connection came to.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    packets: Cell<u32>,
    messages: Cell<u32>,
    message_bytes: Cell<u64>,
}

impl Taken {
    /// Counts a frame or packet.
    pub fn packet(&self) {
        self.packets.set(self.packets.get() + 1);
    }

    /// Counts a message and its payload.
    pub fn message(&self, payload_bytes: usize) {
        self.messages.set(self.messages.get() + 1);
        self.message_bytes.set(self.message_bytes.get() + payload_bytes as u64);
    }

    fn take(&self, bytes: usize) -> Passed {
        let (messages, packets) = (self.messages.take(), self.packets.take());
        Passed { messages, packets, message_bytes: self.message_bytes.take(), bytes: bytes as u64 }
    }
}

/// Bytes one read takes at most.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// A shard hands new sockets on when it has this many more than the least busy one.
const IMBALANCE_MAX: usize = 32;

/// How far the end has come. Every stage is waited for by many, so it is a value that stays and not a notice that one of
/// them takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Sockets are accepted.
    Open,
    /// No socket is accepted, and who has no session yet gets none.
    Closing,
    /// The shards end.
    Ended,
}

/// What the shards' listeners share.
#[derive(Debug)]
pub(crate) struct Front {
    loads: Vec<AtomicUsize>,
    handed: Vec<Inbox<(TcpStream, SocketAddr, Door)>>,
    /// Whose word about a client's address is taken.
    proxies: Proxies,
    stage: watch::Sender<Stage>,
}

impl Front {
    /// Waits until a stage is reached.
    async fn reached(&self, stage: Stage) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.stage.subscribe().wait_for(|now| *now >= stage).await;
    }

    fn connections(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum()
    }

    /// The shard a new socket goes to: the accepting one, unless it has far more than another.
    fn place(&self, here: usize) -> usize {
        let load = |shard: usize| self.loads[shard].load(Ordering::Relaxed);
        let least = (0..self.loads.len()).min_by_key(|shard| load(*shard)).unwrap_or(here);
        if load(here) > load(least) + IMBALANCE_MAX { least } else { here }
    }
}

/// The running sockets' side of the server.
#[derive(Debug)]
pub struct Gateway {
    addr: SocketAddr,
    wukong_addr: Option<SocketAddr>,
    hub: Hub,
    front: Arc<Front>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// What a drain did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainReport {
    /// Sessions when it began.
    pub sessions: usize,
    /// Sessions that were told and closed in time.
    pub closed: usize,
}

impl Gateway {
    /// Starts the shards' threads behind the listeners.
    ///
    /// # Errors
    /// A listener cannot be shared; a thread or runtime cannot be made.
    pub fn start(
        doors: Doors,
        hub: Hub,
        credentials: Arc<Credentials>,
        limits: GatewayLimits,
        proxies: Proxies,
    ) -> io::Result<Self> {
        let addr = doors.websocket.local_addr()?;
        let wukong_addr = doors.wukong_tcp.as_ref().map(TcpListener::local_addr).transpose()?;
        let shards = hub.shared().shards.len();
        let front = Arc::new(Front {
            loads: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            handed: (0..shards).map(|_| Inbox::new(usize::MAX)).collect(),
            proxies,
            stage: watch::Sender::new(Stage::Open),
        });
        let mut threads = Vec::new();
        for index in 0..shards {
            // One socket of a port for all shards, without reuse-port: a second server on the port must fail to bind, which
            // reuse-port would allow (docs/decisions).
            let websocket = doors.websocket.try_clone()?;
            let wukong_tcp = doors.wukong_tcp.as_ref().map(TcpListener::try_clone).transpose()?;
            let doors = Doors { websocket, wukong_tcp };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (hub, credentials, front) = (hub.clone(), credentials.clone(), front.clone());
            threads.push(std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
                let local = tokio::task::LocalSet::new();
                let work = std::panic::AssertUnwindSafe(|| {
                    local.block_on(&runtime, run_shard(index, doors, hub, credentials, limits, front));
                });
                if std::panic::catch_unwind(work).is_err() {
                    tracing::error!(shard = index, "a shard panicked, its state may be wrong: the process ends");
                    std::process::abort();
                }
            })?);
        }
        Ok(Self { addr, wukong_addr, hub, front, threads })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where WuKongIM's clients connect over TCP; `None`: nowhere.
    pub fn wukong_addr(&self) -> Option<SocketAddr> {
        self.wukong_addr
    }

    /// Stops accepting. Sockets that are not sessions yet are told and closed.
    pub fn stop_accepting(&self) {
        self.front.stage.send_replace(Stage::Closing);
    }

    /// Tells every session that the server goes, waits until their sockets are flushed and closed, and ends the shards.
    pub async fn close_sessions(self, timeout: Duration) -> DrainReport {
        let sessions = self.hub.shared().sessions.count();
        for shard in &self.hub.shared().shards {
            shard.inbox.push(ShardEvent::CloseAll(CloseReason::Draining));
        }
        let deadline = tokio::time::Instant::now() + timeout;
        while self.front.connections() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let left = self.front.connections();
        DrainReport { sessions, closed: sessions.saturating_sub(left) }
    }

    /// Whether every shard's thread runs.
    pub fn is_alive(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }
}

/// Ends the shards, whose threads hold the hub and with it the store.
impl Drop for Gateway {
    fn drop(&mut self) {
        self.front.stage.send_replace(Stage::Ended);
        for thread in self.threads.drain(..) {
            // A shard that panicked has ended the process.
            let _ = thread.join();
        }
    }
}

/// Binds an address for this process alone.
///
/// # Errors
/// It is in use, or cannot be bound.
pub fn bind(addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Lets a restart bind while old connections linger; on Linux it does not let two listeners share the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

async fn run_shard(
    index: usize,
    doors: Doors,
    hub: Hub,
    credentials: Arc<Credentials>,
    limits: GatewayLimits,
    front: Arc<Front>,
) {
    let flush = Rc::new(Notify::new());
    let shard = Shard::new(index as u16, hub.shared().clone(), flush.clone());
    let context = Rc::new(Context {
        shard: RefCell::new(shard),
        writers: RefCell::new(Writers::default()),
        flush,
        hub,
        credentials,
        limits,
        front: front.clone(),
        read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice()),
        opened: RefCell::new(Vec::new()),
        keys: wukong::KeyRing::default(),
        taken: Taken::default(),
    });
    tokio::task::spawn_local(turns(context.clone(), index));
    tokio::task::spawn_local(writer::flusher(context.clone()));
    tokio::task::spawn_local(care(context.clone()));
    tokio::task::spawn_local(take_handed(context.clone(), index));
    let websocket = accept(&context, Some(doors.websocket), index, Door::WebSocket);
    tokio::join!(websocket, accept(&context, doors.wukong_tcp, index, Door::Stream));
    // The listeners are closed; the shard lives on until its sessions are gone and the gateway says so.
    front.reached(Stage::Ended).await;
}

async fn accept(context: &Rc<Context>, listener: Option<TcpListener>, index: usize, door: Door) {
    let Some(listener) = listener else { return };
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the listener cannot be registered");
            return;
        }
    };
    let gauge = context.hub.metrics().shard_connections(index);
    let closing = context.front.reached(Stage::Closing);
    tokio::pin!(closing);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut closing => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // Without a word, as WuKongIM does (wukongim-http.md 7.5).
            Ok((_, peer)) if context.hub.is_address_blocked(peer.ip()) => {}
            Ok((stream, peer)) => {
                let target = context.front.place(index);
                context.front.loads[target].fetch_add(1, Ordering::Relaxed);
                gauge.set(context.front.loads[index].load(Ordering::Relaxed) as i64);
                if target == index {
                    connection::spawn(context, stream, peer, door);
                } else if let Ok(stream) = stream.into_std() {
                    context.front.handed[target].push((stream, peer, door));
                } else {
                    context.front.loads[target].fetch_sub(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: accepting again at once would spin.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn take_handed(context: Rc<Context>, index: usize) {
    let mut handed = Vec::new();
    loop {
        context.front.handed[index].filled().await;
        context.front.handed[index].take(&mut handed);
        for (stream, peer, door) in handed.drain(..) {
            match tokio::net::TcpStream::from_std(stream) {
                Ok(stream) => connection::spawn(&context, stream, peer, door),
                Err(error) => {
                    context.front.loads[index].fetch_sub(1, Ordering::Relaxed);
                    tracing::warn!(%error, "a socket cannot be registered");
                }
            }
        }
    }
}

/// The shard's turns: everything that waits in the inbox, then what it left behind.
async fn turns(context: Rc<Context>, index: usize) {
    let inbox = context.hub.shared().shards[index].inbox.clone();
    let mut events = Vec::new();
    loop {
        inbox.filled().await;
        inbox.take(&mut events);
        let mut shard = context.shard.borrow_mut();
        shard.set_clock(clock::now_ms());
        for event in events.drain(..) {
            match event {
                ShardEvent::Describe { places, reply } => {
                    // Who asked may have gone.
                    let _ = reply.send(context.writers.borrow().describe(&mut shard, &places));
                }
                event => shard.apply(event),
            }
        }
        shard.finish_turn();
    }
}

/// Once a second: idle connections, heartbeats, lanes, memory, and what was read and written into the server's metrics.
async fn care(context: Rc<Context>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now_ms = clock::now_ms();
        let mut shard = context.shard.borrow_mut();
        shard.set_clock(now_ms);
        let mut writers = context.writers.borrow_mut();
        writers.check_idle(&mut shard, now_ms, &context.limits);
        writers.publish(context.hub.metrics());
        drop(writers);
        shard.sweep();
        shard.finish_turn();
    }
}
