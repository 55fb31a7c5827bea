//! What handlers take from a request: the body as JSON whatever its Content-Type says, and the caller.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT};
use axum::http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use protocol::ids::Uid;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};

use super::problem::Problem;
use super::{HttpState, reference};
use crate::domain::channel::Standing;
use crate::domain::identity::{Identity, Scopes};
use crate::domain::namespace::Namespace;
use crate::domain::refusal::Refusal;
use crate::hub::Reader;

/// The header that names a tenant (m3o.txt).
pub const NAMESPACE_HEADER: &str = "micro-namespace";

/// How long, and how much, is read of a body that is refused.
pub(super) const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The body as JSON, at most `http.body_bytes_max`. An empty body is `{}`: the missing field is then named. curl's `-d`
/// sends a form type, so the type is not looked at (design.md section 7).
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<HttpState>> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<HttpState>) -> Result<Self, Problem> {
        let bytes = read_body(request, state.body_bytes_max).await?;
        parse(if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes }).map(Body)
    }
}

/// The query when there is one, else the body: a GET may carry a body, and where both are given the query wins (design.md
/// section 7).
pub struct QueryOrBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<HttpState>> for QueryOrBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<HttpState>) -> Result<Self, Problem> {
        match request.uri().query().filter(|query| !query.is_empty()) {
            Some(query) => from_query(query).map(QueryOrBody),
            None => Body::from_request(request, state).await.map(|Body(value)| QueryOrBody(value)),
        }
    }
}

fn from_query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    check_query(query)?;
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(pairs).map_err(|e| {
        let path = e.path().to_string();
        Problem::malformed(if path == "." { "query".to_owned() } else { path }, e.into_inner())
    })
}

/// Refuses a query string whose escapes are broken, or that is no UTF-8 behind them: the parser would put other characters in
/// their place and ask for somebody else.
///
/// # Errors
/// `Malformed`.
pub(super) fn check_query(query: &str) -> Result<(), Problem> {
    let mut decoded = Vec::with_capacity(query.len());
    let mut bytes = query.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(Problem::malformed("query", "holds a % without two hexadecimal digits behind it"));
        };
        decoded.push((high * 16 + low) as u8);
    }
    std::str::from_utf8(&decoded).map(drop).map_err(|error| Problem::malformed("query", error))
}

/// Reads a body up to a limit; one that declares more is refused before a byte is kept.
pub(super) async fn read_body(request: Request, max: usize) -> Result<bytes::Bytes, Problem> {
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let waits = awaits_leave(request.headers());
    let mut body = request.into_body();
    if declared.is_some_and(|n| n > max as u64) {
        if !waits {
            let_finish(&mut body).await;
        }
        return Err(Problem::BodyTooLarge { max });
    }
    match Limited::new(&mut body, max).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(e) if e.downcast_ref::<LengthLimitError>().is_some() => {
            let_finish(&mut body).await;
            Err(Problem::BodyTooLarge { max })
        }
        Err(_) => Err(Problem::BodyBroken),
    }
}

/// Whether the caller sends its body only when asked to (`Expect: 100-continue`): a refusal then needs no more of it.
pub(super) fn awaits_leave(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Reads on, within bounds, what a refused caller is still sending, and drops it: many clients look for the answer only when
/// they have sent everything, and would see a broken connection instead.
pub(super) async fn let_finish(body: &mut axum::body::Body) {
    let rest = async {
        let mut left = LINGER_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // In time or not: the answer follows.
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Parses JSON; an error names the field by its dotted path.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        // A path that ends in broken syntax ends in `?`.
        let path = e.path().to_string().trim_end_matches('?').trim_end_matches('.').to_owned();
        let inner = e.into_inner();
        let field = if path.is_empty() { missing_field(&inner).unwrap_or_else(|| "body".to_owned()) } else { path };
        Problem::malformed(field, inner)
    })?;
    json.end().map_err(|e| Problem::malformed("body", e))?;
    Ok(value)
}

/// The name in serde's "missing field `x`": the path ends at the object that lacks it.
fn missing_field(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    let rest = text.strip_prefix("missing field `")?;
    Some(rest.split('`').next()?.to_owned())
}

/// `null` is the zero value, as WuKongIM's parser has it (wukongim-http.md section 1).
pub fn null_is_zero<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// WuKongIM's flags: the JSON numbers 0 and 1, never booleans.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match Option::<u8>::deserialize(deserializer)?.unwrap_or_default() {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(serde::de::Error::custom(format_args!("is {other}, but a flag is 0 or 1"))),
    }
}

/// What an API key must be allowed to do for a route. `admin` allows everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Users, channels, keys.
    Admin,
    /// To act for any user: send, mark as read, delete conversations.
    Send,
    /// To read any user's conversations and history.
    Read,
}

impl Needs {
    fn of(self, scopes: Scopes) -> bool {
        scopes.admin
            || match self {
                Self::Admin => false,
                Self::Send => scopes.send,
                Self::Read => scopes.read,
            }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Admin => "do this: it needs an API key with the scope admin",
            Self::Send => "act for other users: it needs an API key with the scope send",
            Self::Read => "read for other users: it needs an API key with the scope read",
        }
    }
}

/// Who asks. Extracting it answers 401 without a known credential.
#[derive(Debug, Clone)]
pub enum Auth {
    /// A credential with one holder.
    Known(Identity),
    /// A token that several users hold: the request must name one of them.
    Shared {
        /// The credential.
        credential: String,
    },
}

/// On whose behalf a route runs, after the rules of [`Auth`] were applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acting {
    /// A back end with an API key, for the user named: trusted.
    Trusted(Uid),
    /// The user with an own credential: every rule of a client applies.
    Own(Uid),
}

impl Acting {
    /// The user.
    #[must_use]
    pub fn uid(&self) -> &Uid {
        match self {
            Self::Trusted(uid) | Self::Own(uid) => uid,
        }
    }

    /// For the rules of sending.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self {
            Self::Trusted(_) => Standing::Trusted,
            Self::Own(_) => Standing::Client,
        }
    }

    /// For the rules of reading.
    #[must_use]
    pub fn reader(&self) -> Reader {
        match self {
            Self::Trusted(_) => Reader::Trusted,
            Self::Own(uid) => Reader::User(uid.clone()),
        }
    }
}

impl FromRequestParts<Arc<HttpState>> for Auth {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        let Some(credential) = credential(&parts.headers)? else {
            if state.wukong.api_open && reference::table::is_opened(parts.uri.path()) {
                return Ok(Self::Known(anybody()));
            }
            return Err(Refusal::CredentialMissing.into());
        };
        match identify(state, credential, None) {
            Ok(identity) => Ok(Self::Known(identity)),
            Err(Refusal::Invalid { .. }) => Ok(Self::Shared { credential: credential.to_owned() }),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

/// Who holds a credential. A user that is banned gets in here as little as through a socket; a back end that acts for one does.
fn identify(state: &HttpState, credential: &str, named: Option<&Uid>) -> Result<Identity, Refusal> {
    let identity = state.credentials.identify(&state.hub, credential, named)?;
    if let Identity::User { uid, .. } = &identity {
        state.hub.refuse_banned(uid)?;
    }
    Ok(identity)
}

/// Who calls without a credential where `wukong.api_open` lets callers in: a back end that may do everything.
fn anybody() -> Identity {
    let scopes = Scopes { admin: true, send: true, read: true };
    Identity::Key { key_id: "anybody".to_owned(), scopes, namespace: None }
}

/// The credential of a request: `Authorization: Bearer …`, the scheme in any case, or the header `token` (WuKongIM's
/// manager token). Both together must agree.
pub(super) fn credential(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let text = |value: Option<&axum::http::HeaderValue>| -> Result<Option<String>, Problem> {
        match value.map(axum::http::HeaderValue::to_str) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text.trim().to_owned())),
            Some(Err(_)) => Err(Refusal::CredentialUnknown.into()),
        }
    };
    // Checked for being text first, then borrowed: header values outlive the call.
    text(headers.get(AUTHORIZATION))?;
    text(headers.get("token"))?;
    let bearer = match headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()) {
        None => None,
        Some(value) => match value.trim().split_once(' ') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => Some(rest.trim()),
            _ => return Err(Problem::malformed("authorization", "is not `Bearer <credential>`")),
        },
    };
    let token = headers.get("token").and_then(|v| v.to_str().ok()).map(str::trim);
    match (bearer.filter(|t| !t.is_empty()), token.filter(|t| !t.is_empty())) {
        (Some(a), Some(b)) if a != b => {
            Err(Problem::malformed("token", "differs from the credential in the header authorization"))
        }
        (a, b) => Ok(a.or(b)),
    }
}

impl Auth {
    /// The user the request acts for. `named` is the uid of the body or query, empty when there is none: an API key must
    /// name one, a user acts as oneself.
    ///
    /// # Errors
    /// `Forbidden`: the key lacks the scope or is bound to a namespace, or a user named another. `Invalid`: `field` is
    /// missing or no uid.
    pub async fn acting_for(
        &self,
        state: &HttpState,
        field: &'static str,
        named: &str,
        needs: Needs,
    ) -> Result<Acting, Problem> {
        let named =
            if named.is_empty() { None } else { Some(Uid::new(named).map_err(|e| Refusal::invalid(field, e))?) };
        let identity = match self {
            Self::Known(identity) => identity.clone(),
            Self::Shared { credential } => {
                identify(state, credential, named.as_ref()).map_err(|refusal| match refusal {
                    Refusal::Invalid { reason, .. } => Refusal::Invalid { field, reason },
                    other => other,
                })?
            }
        };
        match identity {
            Identity::Key { scopes, namespace, .. } => {
                check_key(scopes, namespace.as_deref(), needs)?;
                let uid = named.ok_or_else(|| Refusal::invalid(field, "is needed"))?;
                Ok(Acting::Trusted(uid))
            }
            Identity::User { uid, .. } => match named {
                Some(named) if named != uid => Err(Refusal::Forbidden { action: "act for another user" }.into()),
                // As for bound keys: what these routes name lies in the default namespace.
                _ if uid.namespace().is_some() => {
                    Err(Refusal::Forbidden { action: "be used here: its user belongs to a namespace" }.into())
                }
                _ => Ok(Acting::Own(uid)),
            },
        }
    }

    /// Whether it is an API key.
    #[must_use]
    pub fn is_key(&self) -> bool {
        matches!(self, Self::Known(Identity::Key { .. }))
    }

    /// As [`Auth::acting_for`] for routes that know namespaces: `named` is a bare uid, and the namespace is the one that the
    /// credential is bound to, else the one the header [`NAMESPACE_HEADER`] names.
    ///
    /// # Errors
    /// As [`Auth::acting_for`]; `Forbidden` where the header names another namespace than the credential's.
    pub fn acting_in(
        &self,
        state: &HttpState,
        headers: &HeaderMap,
        field: &'static str,
        named: &str,
        needs: Needs,
    ) -> Result<Acting, Problem> {
        let asked = namespace_asked(headers)?;
        let checked = |namespace: &Namespace| namespace.uid(named).map_err(|e| Refusal::invalid(field, e));
        let identity = match self {
            Self::Known(identity) => identity.clone(),
            Self::Shared { .. } if named.is_empty() => return Err(Refusal::invalid(field, "is needed").into()),
            Self::Shared { credential } => {
                let named = checked(&Namespace::chosen(None, asked)?)?;
                identify(state, credential, Some(&named))?
            }
        };
        match identity {
            Identity::Key { scopes, namespace, .. } => {
                let namespace = key_namespace(scopes, namespace.as_deref(), asked, needs)?;
                if named.is_empty() {
                    return Err(Refusal::invalid(field, "is needed").into());
                }
                Ok(Acting::Trusted(checked(&namespace)?))
            }
            Identity::User { uid, .. } => {
                if asked.is_some_and(|asked| uid.namespace() != Some(asked)) {
                    return Err(Refusal::Forbidden { action: "name another namespace than its own" }.into());
                }
                if !named.is_empty() && named != uid.bare() {
                    return Err(Refusal::Forbidden { action: "act for another user" }.into());
                }
                Ok(Acting::Own(uid))
            }
        }
    }

    /// Lets API keys with the scope pass, and nobody else; answers the namespace they speak in, as [`Auth::acting_in`].
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn key_in(&self, headers: &HeaderMap, needs: Needs) -> Result<Namespace, Problem> {
        match self {
            Self::Known(Identity::Key { scopes, namespace, .. }) => {
                key_namespace(*scopes, namespace.as_deref(), namespace_asked(headers)?, needs)
            }
            _ => Err(Refusal::Forbidden { action: needs.action() }.into()),
        }
    }

    /// Lets API keys with the scope pass, and nobody else.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn key_with(&self, needs: Needs) -> Result<(), Problem> {
        match self {
            Self::Known(Identity::Key { scopes, namespace, .. }) => check_key(*scopes, namespace.as_deref(), needs),
            _ => Err(Refusal::Forbidden { action: needs.action() }.into()),
        }
    }
}

/// What the header asks for; `None`: nothing, or an empty text.
fn namespace_asked(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(NAMESPACE_HEADER) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes()).map_err(|e| Problem::malformed("micro-namespace", e))?.trim();
    Ok((!text.is_empty()).then_some(text))
}

fn key_namespace(scopes: Scopes, bound: Option<&str>, asked: Option<&str>, needs: Needs) -> Result<Namespace, Problem> {
    let namespace = Namespace::chosen(bound, asked)?;
    if needs.of(scopes) { Ok(namespace) } else { Err(Refusal::Forbidden { action: needs.action() }.into()) }
}

fn check_key(scopes: Scopes, namespace: Option<&str>, needs: Needs) -> Result<(), Problem> {
    if namespace.is_some() {
        // These routes have no place for a namespace, so a bound key could reach outside its own.
        return Err(Refusal::Forbidden { action: "be used here: it is bound to a namespace" }.into());
    }
    if needs.of(scopes) { Ok(()) } else { Err(Refusal::Forbidden { action: needs.action() }.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Sample {
        #[serde(default, deserialize_with = "null_is_zero")]
        uid: String,
        #[serde(default, deserialize_with = "flag")]
        large: bool,
        #[serde(default, deserialize_with = "null_is_zero")]
        list: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Inner {
        #[serde(default)]
        n: u8,
        must: String,
    }

    fn field_of(json: &str) -> String {
        match parse::<Sample>(json.as_bytes()) {
            Err(problem) => problem.field().unwrap_or_default().to_owned(),
            Ok(sample) => format!("{sample:?}"),
        }
    }

    #[test]
    fn errors_name_the_field() {
        assert_eq!(field_of(r#"{"uid":5}"#), "uid");
        assert_eq!(field_of(r#"{"large":true}"#), "large");
        assert_eq!(field_of(r#"{"large":2}"#), "large");
        assert_eq!(field_of(r#"{"list":[{"must":"x"},{"n":300,"must":"x"}]}"#), "list[1].n");
        assert_eq!(field_of(r#"{"list":[{}]}"#), "list[0]");
        assert_eq!(field_of(r#"{"uid":"a"} x"#), "body");
        assert_eq!(field_of(r"{"), "body");
        assert_eq!(field_of("[]x"), "body");
    }

    #[test]
    fn null_and_absent_are_zero_and_unknown_is_ignored() {
        let sample = parse::<Sample>(br#"{"uid":null,"large":null,"list":null,"more":[1]}"#).expect("valid");
        assert!(sample.uid.is_empty() && !sample.large && sample.list.is_empty());
        assert!(parse::<Sample>(br#"{"large":1}"#).expect("valid").large);
    }

    #[test]
    fn credentials_come_in_two_headers_and_any_case() {
        let check = |pairs: &[(&'static str, &'static str)], expected: Result<Option<&str>, ()>| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(
                    axum::http::HeaderName::from_bytes(name.as_bytes()).expect("name"),
                    axum::http::HeaderValue::from_static(value),
                );
            }
            assert_eq!(credential(&headers).map_err(|_| ()), expected, "{pairs:?}");
        };
        check(&[], Ok(None));
        check(&[("Authorization", "Bearer abc")], Ok(Some("abc")));
        check(&[("authorization", "bEARER   abc ")], Ok(Some("abc")));
        check(&[("TOKEN", "abc")], Ok(Some("abc")));
        check(&[("token", "abc"), ("authorization", "Bearer abc")], Ok(Some("abc")));
        check(&[("token", "abc"), ("authorization", "Bearer xyz")], Err(()));
        check(&[("authorization", "Basic abc")], Err(()));
        check(&[("authorization", "Bearer")], Err(()));
        check(&[("token", "")], Ok(None));
    }

    #[test]
    fn scopes_open_what_they_name() {
        let (admin, send, read) = (
            Scopes { admin: true, ..Scopes::default() },
            Scopes { send: true, ..Scopes::default() },
            Scopes { read: true, ..Scopes::default() },
        );
        for (scopes, needs, opens) in [
            (admin, Needs::Admin, true),
            (admin, Needs::Send, true),
            (admin, Needs::Read, true),
            (send, Needs::Admin, false),
            (send, Needs::Send, true),
            (send, Needs::Read, false),
            (read, Needs::Send, false),
            (read, Needs::Read, true),
            (Scopes::default(), Needs::Read, false),
        ] {
            assert_eq!(check_key(scopes, None, needs).is_ok(), opens, "{scopes:?} {needs:?}");
            assert!(check_key(scopes, Some("tenant"), needs).is_err());
        }
    }
}
