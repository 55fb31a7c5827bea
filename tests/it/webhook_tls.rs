//! Webhooks over https with a real receiver: which certificates are taken, what an operator reads about the others, and that
//! nothing is lost until the receiver shows a sound one.

use std::path::Path;
use std::sync::Arc;

use chinwag::config::Config;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use serde_json::Value;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::harness::{PATIENCE, Server, until};
use crate::hook_receiver::Receiver;
use crate::http::Caller;

/// A private authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        Self(made.expect("an authority"))
    }

    /// What a receiver shows: a certificate for this host, changed as the test wants.
    fn signs(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
        Arc::new(config.expect("it can be shown"))
    }

    fn write(&self, file: &Path) {
        std::fs::write(file, self.0.pem()).expect("written");
    }
}

fn tells(receiver: &Receiver, ca_file: &Path) -> impl FnOnce(&mut Config) {
    let (url, ca_file) = (receiver.url(), ca_file.to_owned());
    move |config| {
        config.webhook.url = url;
        config.webhook.events = "msg.notify".to_owned();
        config.webhook.ca_file = ca_file;
        config.webhook.push_interval_ms = 0;
        config.webhook.retry_max_ms = 100;
    }
}

async fn failing(root: &Caller) -> Value {
    root.ok("GET", "/admin/webhooks/config", None).await["streams"][0]["failing"].clone()
}

/// Until the endpoint's state names a reason.
async fn fails_with(root: &Caller, reason: &str) {
    let begun = tokio::time::Instant::now();
    loop {
        let failing = failing(root).await;
        if failing["error"].as_str().is_some_and(|error| error.contains(reason)) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "in vain waited for {reason:?}, it is {failing}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_must_not_show_keeps_messages_until_it_shows_a_sound_certificate() {
    let dir = tempfile::tempdir().expect("directory");
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let ca_file = dir.path().join("ca.pem");
    ours.write(&ca_file);
    let receiver = Receiver::start_tls(foreign.signs("localhost", |_| {})).await;
    assert!(receiver.url().starts_with("https://localhost:"));
    let server = Server::on_disk_with(tells(&receiver, &ca_file)).await;
    let root = Caller::root(&server);
    let mut sent = Vec::new();
    for n in 0..5 {
        sent.push(root.send("alice", "bob", 1, &n.to_string()).await["message_id"].clone());
    }
    fails_with(&root, "UnknownIssuer").await;
    receiver.present(ours.signs("elsewhere.test", |_| {}));
    fails_with(&root, "not valid for name").await;
    receiver.present(ours.signs("localhost", |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
    }));
    fails_with(&root, "expired").await;
    assert!(receiver.calls("").is_empty(), "nothing was said to who could not be told apart from a stranger");
    receiver.present(ours.signs("localhost", |_| {}));
    until("what was kept is told", || receiver.notified().len() == sent.len()).await;
    let told: Vec<Value> = receiver.notified().into_iter().map(|message| message["message_id"].clone()).collect();
    assert_eq!(told, sent);
    while !failing(&root).await.is_null() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_only_when_it_is_named() {
    let authority = Authority::new("ours");
    let receiver = Receiver::start_tls(authority.signs("localhost", |_| {})).await;
    let server = Server::on_memory_with(tells(&receiver, Path::new(""))).await;
    let root = Caller::root(&server);
    root.send("alice", "bob", 1, "kept").await;
    fails_with(&root, "UnknownIssuer").await;
    assert!(receiver.calls("").is_empty());
}
