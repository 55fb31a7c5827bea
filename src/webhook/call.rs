//! One call of an endpoint: the request, its signature, what counts as success, and how long to wait after a failure.
//!
//! Owns the HTTP client. Only status 200 is success (wukongim-http.md section 10). No redirect is followed, no proxy
//! variable heeded, and an answer's body is read up to a bound, to keep the connection and to show the operator its
//! beginning.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::Sha256;

use super::endpoint::{EndpointSpec, Event, OldKey};

/// The time of the call, Unix seconds, as signed.
pub const TIMESTAMP_HEADER: &str = "x-chinwag-timestamp";
/// `v1=` and the signature in hexadecimal digits; with several keys one after the other, a comma between.
pub const SIGNATURE_HEADER: &str = "x-chinwag-signature";
/// Bytes of an answer that are read; a longer one costs its connection.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Characters of an answer that are shown.
const SHOWN_CHARS_MAX: usize = 200;
/// First wait after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Idle connections are closed after this; most servers close theirs later.
const IDLE: Duration = Duration::from_secs(30);

/// Why a call did not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It was answered, not with 200.
    Answered {
        /// The status.
        status: u16,
        /// The beginning of the answer, printable.
        text: String,
    },
    /// No answer in time.
    Timeout,
    /// Nobody was reached, or the connection broke.
    Unreachable(String),
}

impl Failure {
    /// Whether another body might have fared better. Who was not reached has judged nothing.
    #[must_use]
    pub fn may_be_the_content(&self) -> bool {
        !matches!(self, Self::Unreachable(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { status, text } if text.is_empty() => write!(f, "answered {status}, not 200"),
            Self::Answered { status, text } => write!(f, "answered {status}, not 200: {text}"),
            Self::Timeout => f.write_str("did not answer in time"),
            Self::Unreachable(why) => f.write_str(why),
        }
    }
}

/// Where calls go, and who signs them.
#[derive(Clone)]
pub struct Target {
    uri: Uri,
    secret: Option<Arc<str>>,
    old_keys: Arc<[OldKey]>,
    timeout: Duration,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Target {
    /// The target of an event of an endpoint, which was checked by [`EndpointSpec::check`].
    ///
    /// # Errors
    /// The address with the event's name is none.
    pub fn new(spec: &EndpointSpec, event: Event, timeout: Duration) -> Result<Self, http::uri::InvalidUri> {
        let url = spec.url.split('#').next().unwrap_or(&spec.url);
        let joint = if url.contains('?') { '&' } else { '?' };
        let uri = format!("{url}{joint}event={}", event.name()).parse()?;
        Ok(Self {
            uri,
            secret: spec.secret.as_deref().map(Arc::from),
            old_keys: spec.old_keys.as_slice().into(),
            timeout,
        })
    }

    /// One signature per key that signs at this time, the present key's first; `None`: it has none.
    fn signatures(&self, now_s: u64, event: Event, body: &[u8]) -> Option<String> {
        let old = self.old_keys.iter().filter(|key| key.signs_at(now_s.saturating_mul(1_000)));
        let keys = self.secret.iter().map(|key| &**key).chain(old.map(|key| key.secret.as_str()));
        let all: Vec<String> =
            keys.map(|key| format!("v1={}", signature(key.as_bytes(), now_s, event.name(), body))).collect();
        (!all.is_empty()).then(|| all.join(","))
    }
}

/// The authorities of a file in PEM, for endpoints whose certificates none of the system's has signed.
///
/// # Errors
/// It cannot be read, or holds no certificate, or one that is none of an authority.
pub fn authorities_of(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.with_context(|| format!("webhook.ca_file = {} cannot be read", file.display()))?;
    anyhow::ensure!(!found.is_empty(), "webhook.ca_file = {} holds no certificate in PEM", file.display());
    for certificate in &found {
        let added = RootCertStore::empty().add(certificate.clone());
        added.with_context(|| format!("webhook.ca_file = {} holds what is no certificate", file.display()))?;
    }
    Ok(found)
}

/// Makes calls and keeps connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// A client that trusts the system's authorities, or those of the file that `SSL_CERT_FILE` names, and `more`. Without
    /// any, `https` endpoints cannot be verified and are not reached; `http` ones are.
    #[must_use]
    pub fn new(more: &[CertificateDer<'static>]) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let system = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(system.certs);
        roots.add_parsable_certificates(more.iter().cloned());
        if roots.is_empty() {
            let errors: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
            let error = errors.join("; ");
            tracing::warn!(error, "no certificates on this system: https webhooks cannot be verified and will fail");
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls);
        let https = https.https_or_http().enable_http1().wrap_connector(tcp);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(https);
        Self { pool }
    }

    /// Makes one call. `now_s`: Unix seconds, as signed.
    ///
    /// # Errors
    /// Anything but an answer with status 200 within the target's time.
    pub async fn call(&self, target: &Target, event: Event, body: Bytes, now_s: u64) -> Result<(), Failure> {
        match tokio::time::timeout(target.timeout, self.answer(target, event, body, now_s)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Timeout),
        }
    }

    async fn answer(&self, target: &Target, event: Event, body: Bytes, now_s: u64) -> Result<(), Failure> {
        let mut request = Request::post(target.uri.clone())
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::USER_AGENT, concat!("chinwag/", env!("CARGO_PKG_VERSION")));
        if let Some(signatures) = target.signatures(now_s, event, &body) {
            request = request.header(TIMESTAMP_HEADER, now_s).header(SIGNATURE_HEADER, signatures);
        }
        let request = request.body(Full::new(body)).map_err(|error| Failure::Unreachable(error.to_string()))?;
        let answer = self.pool.request(request).await.map_err(|error| Failure::Unreachable(causes_of(&error)))?;
        let status = answer.status().as_u16();
        let text = match http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            // The status has said it all.
            Err(_) => Bytes::new(),
        };
        if status == 200 {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(&text);
        let shown = shown.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect();
        Err(Failure::Answered { status, text: shown })
    }
}

fn causes_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// HMAC-SHA256 over `timestamp.event.body`, in hexadecimal digits.
#[must_use]
pub fn signature(secret: &[u8], timestamp_s: u64, event: &str, body: &[u8]) -> String {
    // A key of any length is one.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(format!("{timestamp_s}.{event}.").as_bytes());
    mac.update(body);
    let mut text = String::with_capacity(64);
    for byte in mac.finalize().into_bytes() {
        use fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// How long to wait after the nth failure in a row (from 1): twice as long each time up to `max`, of which the second half
/// is chance, so that endpoints that failed together are not called together. `chance` is from 0 to 1.
#[must_use]
pub fn backoff(failures: u32, max: Duration, chance: f64) -> Duration {
    let doubled = RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let whole = doubled.min(max);
    whole.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

/// A number from 0 to 1.
pub(super) fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness the wait is the longest, which is fine too.
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn the_signature_is_what_openssl_says() {
        // printf '%s' '1700000000.msg.notify.[]' | openssl dgst -sha256 -hmac 0123456789abcdef
        assert_eq!(
            signature(b"0123456789abcdef", 1_700_000_000, "msg.notify", b"[]"),
            "439b584a32feeba9a4778a26aa873ffd3b4c2da97ebd31341c4f4b8feac34392",
        );
    }

    fn spec(url: &str, secret: Option<&str>) -> EndpointSpec {
        let config = config::Webhook { url: url.to_owned(), ..config::Webhook::default() };
        EndpointSpec::of_config(&config, secret.map(str::to_owned).into_iter().collect()).expect("an endpoint")
    }

    #[test]
    fn every_key_that_is_in_force_signs_and_the_present_one_first() {
        let mut spec = spec("http://a.test/h", Some("0123456789abcdef"));
        let signed = |spec: &EndpointSpec, now_s| {
            let target = Target::new(spec, Event::Notify, Duration::ZERO).expect("an address");
            target.signatures(now_s, Event::Notify, b"[]")
        };
        let by = |key: &str, now_s| format!("v1={}", signature(key.as_bytes(), now_s, "msg.notify", b"[]"));
        assert_eq!(signed(&spec, 7), Some(by("0123456789abcdef", 7)));
        spec.rotate("a new key of the test".to_owned(), 9_000);
        assert_eq!(signed(&spec, 8), Some([by("a new key of the test", 8), by("0123456789abcdef", 8)].join(",")));
        assert_eq!(signed(&spec, 9), Some(by("a new key of the test", 9)));
        (spec.secret, spec.old_keys) = (None, Vec::new());
        assert_eq!(signed(&spec, 7), None);
    }

    #[test]
    fn a_file_of_authorities_that_holds_none_is_named() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("ca.pem");
        let not = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, why) in
            [(None, "cannot be read"), (Some(""), "holds no certificate"), (Some(not), "is no certificate")]
        {
            if let Some(text) = text {
                std::fs::write(&file, text).expect("written");
            }
            let error = authorities_of(&file).expect_err("none").to_string();
            assert!(error.contains(why) && error.contains("ca.pem"), "{error}");
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_half_of_each_is_chance() {
        let max = Duration::from_secs(60);
        let table = [(1, 500), (2, 1_000), (3, 2_000), (7, 32_000), (8, 60_000), (1_000_000, 60_000)];
        for (failures, ms) in table {
            assert_eq!(backoff(failures, max, 1.0), Duration::from_millis(ms), "{failures}");
            assert_eq!(backoff(failures, max, 0.0), Duration::from_millis(ms / 2), "{failures}");
        }
        assert!((0.0..=1.0).contains(&chance()));
    }

    #[test]
    fn the_event_joins_the_query_that_is_there() {
        let target = |url| {
            let spec = spec(url, None);
            Target::new(&spec, Event::Offline, Duration::ZERO).expect("an address").uri.to_string()
        };
        assert_eq!(target("http://a.test/h"), "http://a.test/h?event=msg.offline");
        assert_eq!(target("http://a.test"), "http://a.test/?event=msg.offline");
        assert_eq!(target("http://a.test/h?k=1#x"), "http://a.test/h?k=1&event=msg.offline");
    }
}
