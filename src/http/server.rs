//! The HTTP listener: accepts, bounds and ends connections.
//!
//! Owns sockets of the API. Refuses to know routes. Invariants: at most `http.connections_max` connections are open, more
//! wait in the kernel's backlog; a peer that does not send a complete head in time is let go; a drain ends idle
//! connections at once and lets requests that run finish.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tower::ServiceExt;

use super::{HttpState, Peer, router};

/// How long a peer may take for a request's head, and how long a kept connection may be silent.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A running listener.
#[derive(Debug)]
pub struct HttpServer {
    addr: SocketAddr,
    ending: watch::Sender<bool>,
    connections: Arc<Semaphore>,
    connections_max: u32,
    accepting: JoinHandle<()>,
}

impl HttpServer {
    /// Binds and begins to answer.
    ///
    /// # Errors
    /// The address cannot be bound; the error names it.
    pub async fn bind(addr: SocketAddr, backlog: u32, state: Arc<HttpState>) -> io::Result<Self> {
        let named = |e: io::Error| {
            let why = match e.kind() {
                io::ErrorKind::AddrInUse => "is in use by another process".to_owned(),
                _ => format!("cannot be bound: {e}"),
            };
            io::Error::new(e.kind(), format!("listen.http = {addr} {why}"))
        };
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(named)?;
        // Lets a restart bind while old connections are in TIME_WAIT; a second listener is still refused.
        socket.set_reuseaddr(true).map_err(named)?;
        socket.bind(addr).map_err(named)?;
        let listener = socket.listen(backlog).map_err(named)?;
        let addr = listener.local_addr().map_err(named)?;
        let (ending, ended) = watch::channel(false);
        let connections_max = u32::try_from(state.connections_max).unwrap_or(u32::MAX);
        let connections = Arc::new(Semaphore::new(state.connections_max));
        let accepting = tokio::spawn(accept(listener, router(state.clone()), state, connections.clone(), ended));
        Ok(Self { addr, ending, connections, connections_max, accepting })
    }

    /// Where it listens, with the port that was taken for 0.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting, lets running requests finish, and answers whether all did within the time.
    pub async fn drain(self, timeout: Duration) -> bool {
        self.ending.send_replace(true);
        self.accepting.abort();
        tokio::time::timeout(timeout, self.connections.acquire_many(self.connections_max)).await.is_ok()
    }
}

/// All that a blocked caller gets.
const FORBIDDEN: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

async fn accept(
    listener: TcpListener,
    router: Router,
    state: Arc<HttpState>,
    connections: Arc<Semaphore>,
    ended: watch::Receiver<bool>,
) {
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) if state.hub.is_address_blocked(peer.ip()) => {
                // A fresh socket has room for so few bytes; where it has none, the caller sees it closed.
                let _ = stream.try_write(FORBIDDEN);
            }
            Ok((stream, peer)) => {
                let peer = Peer(peer.ip().to_canonical());
                tokio::spawn(serve(stream, peer, router.clone(), permit, ended.clone()));
            }
            Err(error) => {
                // Out of file descriptors, mostly: accepting again at once would spin.
                tracing::warn!(%error, "cannot accept an http connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    permit: OwnedSemaphorePermit,
    mut ended: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set nodelay");
    }
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = until_ended(&mut ended) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an http connection ended early");
    }
    drop(permit);
}

async fn until_ended(ended: &mut watch::Receiver<bool>) {
    // An error means that the server itself is gone, which ends connections too.
    let _ = ended.wait_for(|ended| *ended).await;
}
