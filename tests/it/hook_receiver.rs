//! A back end that is told: a scripted receiver on a port of its own, over HTTP or HTTPS.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::harness::{PATIENCE, until};

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    pub event: String,
    pub query: String,
    pub headers: HeaderMap,
    pub raw: Bytes,
    pub json: Value,
    /// What it was answered with.
    pub status: u16,
}

type Script = Box<dyn FnMut(&str, &Value) -> u16 + Send>;

struct Shared {
    calls: Mutex<Vec<Call>>,
    script: Mutex<Script>,
    /// Calls wait until this is false.
    held: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
    /// What it shows to who connects; `None`: plain HTTP.
    tls: Mutex<Option<Arc<ServerConfig>>>,
}

/// A receiver. Ends with its value, and may be started again on its port.
pub struct Receiver {
    shared: Arc<Shared>,
    port: u16,
    /// Its own, so that its end ends every connection too.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Receiver {
    /// One that answers 200 to everything.
    pub async fn start() -> Self {
        let shared = Shared {
            calls: Mutex::default(),
            script: Mutex::new(Box::new(|_, _| 200)),
            held: watch::channel(false).0,
            waiting: watch::channel(0).0,
            tls: Mutex::default(),
        };
        let mut receiver = Self { shared: Arc::new(shared), port: 0, runtime: None };
        receiver.listen().await;
        receiver
    }

    /// One behind TLS that shows this certificate.
    pub async fn start_tls(certificate: Arc<ServerConfig>) -> Self {
        let mut receiver = Self::start().await;
        receiver.stop();
        receiver.present(certificate);
        receiver.listen().await;
        receiver
    }

    /// What it shows from the next connection on.
    pub fn present(&self, certificate: Arc<ServerConfig>) {
        *self.shared.tls.lock() = Some(certificate);
    }

    /// Listens (again) on its port.
    pub async fn listen(&mut self) {
        let begun = tokio::time::Instant::now();
        let listener = loop {
            // The standard library sets the option that lets a port be taken again at once.
            match std::net::TcpListener::bind(("127.0.0.1", self.port)) {
                Ok(listener) => break listener,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "the port stays taken: {error}"),
            }
            tokio::task::yield_now().await;
        };
        listener.set_nonblocking(true).expect("an option");
        self.port = listener.local_addr().expect("an address").port();
        let (shared, is_tls) = (self.shared.clone(), self.shared.tls.lock().is_some());
        let router = Router::new().fallback(take).with_state(shared.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let _ = match is_tls {
                true => axum::serve(Tls { listener, shared }, router).await,
                false => axum::serve(listener, router).await,
            };
        });
        self.runtime = Some(runtime);
    }

    /// Stops listening and cuts off every connection.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        match self.shared.tls.lock().is_some() {
            true => format!("https://localhost:{}/hook", self.port),
            false => format!("http://127.0.0.1:{}/hook", self.port),
        }
    }

    /// What it answers from now on.
    pub fn script(&self, script: impl FnMut(&str, &Value) -> u16 + Send + 'static) {
        *self.shared.script.lock() = Box::new(script);
    }

    /// Answers nothing until released.
    pub fn hold(&self, held: bool) {
        self.shared.held.send_replace(held);
    }

    /// Waits until so many calls wait for an answer.
    pub async fn waiting(&self, count: usize) {
        let mut waiting = self.shared.waiting.subscribe();
        let reached = waiting.wait_for(|now| *now >= count);
        tokio::time::timeout(PATIENCE, reached).await.expect("calls in time").expect("the receiver is there");
    }

    /// All calls of an event, or of all.
    pub fn calls(&self, event: &str) -> Vec<Call> {
        let calls = self.shared.calls.lock();
        calls.iter().filter(|call| event.is_empty() || call.event == event).cloned().collect()
    }

    /// Messages of msg.notify that were answered with 200, in the order they came.
    pub fn notified(&self) -> Vec<Value> {
        let taken = self.calls("msg.notify").into_iter().filter(|call| call.status == 200);
        taken.flat_map(|call| call.json.as_array().cloned().unwrap_or_default()).collect()
    }

    /// Waits until a condition on the calls of an event holds.
    pub async fn until(&self, what: &str, event: &str, mut holds: impl FnMut(&[Call]) -> bool) -> Vec<Call> {
        until(what, || holds(&self.calls(event))).await;
        self.calls(event)
    }
}

/// Takes whom the certificate of the moment convinces.
struct Tls {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = axum::serve::Listener::accept(&mut self.listener).await;
            let config = self.shared.tls.lock().clone().expect("it was started with one");
            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn take(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, raw: Bytes) -> StatusCode {
    let query = uri.query().unwrap_or_default().to_owned();
    let event = query.split('&').find_map(|pair| pair.strip_prefix("event=")).unwrap_or_default().to_owned();
    let json: Value = serde_json::from_slice(&raw).expect("a body of JSON");
    shared.waiting.send_modify(|waiting| *waiting += 1);
    let mut held = shared.held.subscribe();
    let _ = held.wait_for(|held| !held).await;
    shared.waiting.send_modify(|waiting| *waiting -= 1);
    let status = (shared.script.lock())(&event, &json);
    shared.calls.lock().push(Call { event, query, headers, raw, json, status });
    StatusCode::from_u16(status).expect("a status")
}
