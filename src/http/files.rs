//! Files over HTTP: upload, download with ranges, and the shape in which messages list them.
//!
//! Source: threads.txt, whose messages carry `File[]` ("see the page on files", which is not part of it); the shape is this
//! server's: `{id, name, size, mime, url, createdAt}`. Owns how bytes come and go; who may read a file, its limits and types
//! are the hub's. Invariants: an upload is never in memory as a whole, and one that ends early leaves nothing; content is
//! sent so that no browser runs it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use protocol::ids::FileId;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::HttpState;
use super::caller::Party;
use super::envelope::ErrorBody;
use super::problem::Problem;
use crate::domain::file::FileInfo;
use crate::domain::message::Message;
use crate::domain::refusal::Refusal;
use crate::hub::Hub;
use crate::hub::files::{NewFile, Upload};

/// Media type of content that nobody named one for.
const MIME_UNKNOWN: &str = "application/octet-stream";
/// Bytes of a file that are read at once for a download.
const CHUNK_BYTES: usize = 64 * 1024;
/// Parts of a form that are no file and are passed over, at most.
const OTHER_PARTS_MAX: usize = 16;
/// Bytes of each of them.
const OTHER_PART_BYTES_MAX: usize = 64 * 1024;
/// When to try again where content cannot be read.
const RETRY_AFTER_MS: u32 = 1_000;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new().routes(routes!(upload)).routes(routes!(download)).routes(routes!(info))
}

/// A file as messages list it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// Its id, for `files` of a message.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Its media type.
    pub mime: String,
    /// Where to get it, relative to this API. Needs a credential of who may read it.
    pub url: String,
    /// When it was uploaded, Unix milliseconds.
    pub created_at: u64,
}

impl File {
    /// The shape of what is known of a file.
    #[must_use]
    pub fn of(info: &FileInfo) -> Self {
        let id = info.record.file_id.as_str();
        Self {
            id: id.to_owned(),
            name: info.record.name.clone(),
            size: info.record.size,
            mime: info.record.mime.clone(),
            url: format!("/api/v1/files/{id}"),
            created_at: info.created.unix_ms(),
        }
    }
}

/// Files of the messages of one answer.
#[derive(Debug, Default)]
pub struct Attached(HashMap<FileId, File>);

impl Attached {
    /// Looks up what the messages carry; asks nothing when they carry nothing.
    ///
    /// # Errors
    /// The store.
    pub async fn to<'a>(hub: &Hub, messages: impl IntoIterator<Item = &'a Message>) -> Result<Self, Refusal> {
        let mut ids: Vec<FileId> =
            messages.into_iter().filter_map(|m| m.extras.as_ref()).flat_map(|extras| extras.files.clone()).collect();
        if ids.is_empty() {
            return Ok(Self::default());
        }
        ids.sort_unstable();
        ids.dedup();
        let infos = hub.file_infos(ids).await?;
        Ok(Self(infos.iter().map(|info| (info.record.file_id.clone(), File::of(info))).collect()))
    }

    /// A message's files, in its order; one that is not there any more is left out.
    #[must_use]
    pub fn of(&self, message: &Message) -> Vec<File> {
        let ids = message.extras.as_ref().map(|extras| extras.files.as_slice()).unwrap_or_default();
        ids.iter().filter_map(|id| self.0.get(id).cloned()).collect()
    }
}

/// Reads the ids of files in a request.
///
/// # Errors
/// `Malformed` naming the entry.
pub fn file_ids(field: &str, ids: &[String]) -> Result<Vec<FileId>, Problem> {
    let read = |(i, id): (usize, &String)| {
        FileId::new(id).map_err(|e| Problem::malformed(format!("{field}[{i}]"), format_args!("is no file: {e}")))
    };
    ids.iter().enumerate().map(read).collect()
}

/// Uploads a file.
///
/// As `multipart/form-data` with one part that is a file, or as the body itself with its name in `?name=`. The answer's
/// `id` goes into `files` of a message; a file that no message carries is collected after some time. At most
/// `files.bytes_max` bytes, of a type that `files.types` allows. Needs a user's own credential, or an API key with the
/// scope send.
#[utoipa::path(
    post, path = "/api/v1/files", tag = "files",
    params(("name" = Option<String>, Query, description = "The file's name, when the body is the file")),
    request_body(content(
        (Vec<u8> = "application/octet-stream"),
        (UploadForm = "multipart/form-data"),
    )),
    responses((status = 200, body = File), (status = "default", body = ErrorBody))
)]
async fn upload(State(state): State<Arc<HttpState>>, party: Party, request: Request) -> Result<Json<File>, Problem> {
    let name = query_name(request.uri().query().unwrap_or_default());
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let patience = state.request_timeout;
    let body = request.into_body();
    let boundary = content_type.as_deref().and_then(|given| multer::parse_boundary(given).ok());
    let is_form = content_type.as_deref().is_some_and(|given| given.to_ascii_lowercase().starts_with("multipart/"));
    let info = match boundary {
        Some(boundary) => {
            let form = multer::Multipart::new(body.into_data_stream(), boundary);
            upload_form(&state.hub, party, form, name, patience).await?
        }
        None if is_form => return Err(Problem::malformed("content-type", "has no boundary")),
        None => {
            let mime = content_type.filter(|given| !given.starts_with("application/x-www-form-urlencoded"));
            let file = NewFile { uploader: party.uid, name: name.unwrap_or_default(), mime: mime_of(mime) };
            upload_raw(&state.hub, file, body, patience).await?
        }
    };
    Ok(Json(File::of(&info)))
}

/// What a form uploads.
#[derive(ToSchema)]
#[allow(dead_code)] // only its schema is used
struct UploadForm {
    /// The content, with a `filename` and a `Content-Type` of its part.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

fn query_name(query: &str) -> Option<String> {
    let found = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "name");
    found.map(|(_, name)| name.into_owned()).filter(|name| !name.is_empty())
}

/// The media type without parameters, in lower case.
fn mime_of(given: Option<String>) -> String {
    let given = given.unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.is_empty() { MIME_UNKNOWN.to_owned() } else { essence.to_ascii_lowercase() }
}

/// Waits for the next piece of a body, which may take its time as a whole but not be silent.
async fn next<T>(patience: Duration, piece: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(patience, piece).await.map_err(|_| Problem::BodyBroken)
}

async fn upload_raw(hub: &Hub, file: NewFile, mut body: HttpBody, patience: Duration) -> Result<FileInfo, Problem> {
    let mut upload = hub.begin_upload(file).await?;
    while let Some(frame) = next(patience, body.frame()).await? {
        let Ok(part) = frame.map_err(|_| Problem::BodyBroken)?.into_data() else { continue };
        hub.write_upload(&mut upload, part).await?;
    }
    Ok(hub.finish_upload(upload).await?)
}

async fn upload_form(
    hub: &Hub,
    party: Party,
    mut form: multer::Multipart<'static>,
    name: Option<String>,
    patience: Duration,
) -> Result<FileInfo, Problem> {
    let mut uploaded: Option<Upload> = None;
    for _ in 0..=OTHER_PARTS_MAX {
        let Some(mut part) = next(patience, form.next_field()).await?.map_err(form_problem)? else {
            let upload = uploaded.ok_or_else(|| Problem::malformed("file", "is needed: a part with a filename"))?;
            return Ok(hub.finish_upload(upload).await?);
        };
        let is_file = part.file_name().is_some() || part.name() == Some("file");
        if is_file && uploaded.is_some() {
            return Err(Problem::malformed("file", "is there twice: upload one at a time"));
        }
        let mut upload = match is_file {
            false => None,
            true => {
                let file = NewFile {
                    uploader: party.uid.clone(),
                    name: name.clone().or_else(|| part.file_name().map(str::to_owned)).unwrap_or_default(),
                    mime: mime_of(part.content_type().map(ToString::to_string)),
                };
                Some(hub.begin_upload(file).await?)
            }
        };
        let mut passed_over = 0;
        while let Some(chunk) = next(patience, part.chunk()).await?.map_err(form_problem)? {
            match &mut upload {
                Some(upload) => hub.write_upload(upload, chunk).await?,
                None => {
                    passed_over += chunk.len();
                    if passed_over > OTHER_PART_BYTES_MAX {
                        return Err(Problem::BodyTooLarge { max: OTHER_PART_BYTES_MAX });
                    }
                }
            }
        }
        if upload.is_some() {
            uploaded = upload;
        }
    }
    Err(Problem::malformed("body", format_args!("has more than {OTHER_PARTS_MAX} parts")))
}

fn form_problem(error: multer::Error) -> Problem {
    match error {
        multer::Error::StreamReadFailed(_)
        | multer::Error::IncompleteStream
        | multer::Error::IncompleteHeaders
        | multer::Error::IncompleteFieldData { .. } => Problem::BodyBroken,
        other => Problem::malformed("body", other),
    }
}

/// Downloads a file.
///
/// Whole, or a range of it (206; a range beyond its end is a 416). Content never changes, so its `ETag` names it for
/// `If-None-Match` and `If-Range`. For who uploaded it, members of a chat with a message that carries it, and API keys
/// with the scope read.
#[utoipa::path(
    get, path = "/api/v1/files/{id}", tag = "files",
    params(("id" = String, Path, description = "The file"), ("range" = Option<String>, Header, description = "One range")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream", description = "The file"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream", description = "The range"),
        (status = 304, description = "The caller has it"),
        (status = "default", body = ErrorBody),
    )
)]
async fn download(
    State(state): State<Arc<HttpState>>,
    party: Party,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (info, path) = state.hub.open_file(party.reader(), file_id(&id)?).await?;
    let size = info.record.size;
    let etag = etag_of(&info);
    let mut answer = HeaderMap::new();
    let mut put = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            answer.insert(name, value);
        }
    };
    put(header::ETAG, etag.clone());
    put(header::ACCEPT_RANGES, "bytes".into());
    // Whether the asker may still read it is asked again each time.
    put(header::CACHE_CONTROL, "private, no-cache".into());
    put(
        header::LAST_MODIFIED,
        httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(info.created.unix_ms() / 1_000)),
    );
    put(header::CONTENT_TYPE, info.record.mime.clone());
    put(header::CONTENT_DISPOSITION, disposition(&info.record.mime, &info.record.name));
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff".into());
    put(header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'".into());
    if names_etag(headers.get(header::IF_NONE_MATCH), &etag) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    let whole_wanted = headers.get(header::IF_RANGE).is_some_and(|given| given.as_bytes() != etag.as_bytes());
    let wanted = match headers.get(header::RANGE).and_then(|v| v.to_str().ok()).filter(|_| !whole_wanted) {
        None => Wanted::Whole,
        Some(range) => wanted(range, size),
    };
    let (status, first, length) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0, size),
        Wanted::Part { first, last } => {
            put(header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}"));
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        Wanted::Nothing => return Err(Problem::RangeNotSatisfiable { size }),
    };
    put(header::CONTENT_LENGTH, length.to_string());
    let mut file = tokio::fs::File::open(&path).await.map_err(|error| unreadable(&error, &id))?;
    if first > 0 {
        file.seek(std::io::SeekFrom::Start(first)).await.map_err(|error| unreadable(&error, &id))?;
    }
    let stream = tokio_util::io::ReaderStream::with_capacity(file.take(length), CHUNK_BYTES);
    Ok((status, answer, HttpBody::from_stream(stream)).into_response())
}

/// What is known of a file.
///
/// For who may download it.
#[utoipa::path(
    get, path = "/api/v1/files/{id}/info", tag = "files", params(("id" = String, Path, description = "The file")),
    responses((status = 200, body = File), (status = "default", body = ErrorBody))
)]
async fn info(
    State(state): State<Arc<HttpState>>,
    party: Party,
    Path(id): Path<String>,
) -> Result<Json<File>, Problem> {
    let (info, _) = state.hub.open_file(party.reader(), file_id(&id)?).await?;
    Ok(Json(File::of(&info)))
}

/// What is no file's id names no file.
fn file_id(id: &str) -> Result<FileId, Refusal> {
    FileId::new(id).map_err(|_| Refusal::NotFound { what: "file" })
}

fn unreadable(error: &std::io::Error, id: &str) -> Problem {
    tracing::error!(file.id = id, %error, "a file's content cannot be read");
    Refusal::StoreUnavailable { retry_after_ms: RETRY_AFTER_MS }.into()
}

/// Content is addressed by its hash, so the hash names it for ever.
fn etag_of(info: &FileInfo) -> String {
    let mut etag = String::with_capacity(34);
    etag.push('"');
    for byte in &info.record.content[..16] {
        etag.push_str(&format!("{byte:02x}"));
    }
    etag.push('"');
    etag
}

fn names_etag(given: Option<&HeaderValue>, etag: &str) -> bool {
    let Some(given) = given.and_then(|v| v.to_str().ok()) else { return false };
    given.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

/// Which bytes are wanted.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// All: no range, one that is malformed, or several (RFC 9110 14.2 lets a server ignore them).
    Whole,
    /// Both ends included.
    Part { first: u64, last: u64 },
    /// A range beyond the end.
    Nothing,
}

fn wanted(range: &str, size: u64) -> Wanted {
    use http_range_header::{EndPosition, StartPosition};
    let Ok(parsed) = http_range_header::parse_range_header(range) else { return Wanted::Whole };
    let [one] = parsed.ranges.as_slice() else { return Wanted::Whole };
    let first = match one.start {
        StartPosition::Index(first) => first,
        // A suffix longer than the file is the file (RFC 9110 14.1.2).
        StartPosition::FromLast(0) => size,
        StartPosition::FromLast(suffix) => size.saturating_sub(suffix),
    };
    let last = match one.end {
        EndPosition::Index(last) => last,
        EndPosition::LastByte => u64::MAX,
    };
    if first > last {
        Wanted::Whole
    } else if first >= size {
        Wanted::Nothing
    } else {
        Wanted::Part { first, last: last.min(size - 1) }
    }
}

/// Pictures, sound and film are shown in place, everything else is saved: what a browser would run is never shown from here.
fn disposition(mime: &str, name: &str) -> String {
    let shown = ["image/", "audio/", "video/"].iter().any(|kind| mime.starts_with(kind)) && mime != "image/svg+xml";
    let kind = if shown { "inline" } else { "attachment" };
    let plain: String =
        name.chars().map(|c| if c.is_ascii_graphic() && !r#""\%"#.contains(c) || c == ' ' { c } else { '_' }).collect();
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        // `attr-char` of RFC 8187.
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        for (range, expected) in [
            ("bytes=0-3", Wanted::Part { first: 0, last: 3 }),
            ("bytes=3-", Wanted::Part { first: 3, last: 9 }),
            ("bytes=-4", Wanted::Part { first: 6, last: 9 }),
            ("bytes=-40", Wanted::Part { first: 0, last: 9 }),
            ("bytes=9-99", Wanted::Part { first: 9, last: 9 }),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=10-20", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
        ] {
            assert_eq!(wanted(range, 10), expected, "{range}");
        }
    }

    #[test]
    fn names_of_files_break_no_header() {
        assert_eq!(disposition("image/png", "a b.png"), "inline; filename=\"a b.png\"; filename*=UTF-8''a%20b.png");
        let hostile = disposition("text/html", "\"x\\\r\n😀.html");
        assert_eq!(hostile, "attachment; filename=\"_x____.html\"; filename*=UTF-8''%22x%5C%0D%0A%F0%9F%98%80.html");
        assert!(HeaderValue::try_from(hostile).is_ok());
        assert!(disposition("image/svg+xml", "x").starts_with("attachment"));
    }

    #[test]
    fn etags_match_in_lists_and_weakly() {
        let check = |given: &'static str, expected: bool| {
            assert_eq!(names_etag(Some(&HeaderValue::from_static(given)), "\"ab\""), expected, "{given}");
        };
        check("\"ab\"", true);
        check("\"x\", W/\"ab\"", true);
        check("*", true);
        check("\"x\"", false);
        check("ab", false);
        assert!(!names_etag(None, "\"ab\""));
    }

    #[test]
    fn media_types_lose_their_parameters() {
        for (given, expected) in [
            (Some("Text/Plain; charset=utf-8"), "text/plain"),
            (Some(""), MIME_UNKNOWN),
            (Some(" ; x"), MIME_UNKNOWN),
            (None, MIME_UNKNOWN),
        ] {
            assert_eq!(mime_of(given.map(str::to_owned)), expected, "{given:?}");
        }
    }
}
