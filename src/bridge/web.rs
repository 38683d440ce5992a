//! Files beside the WebSockets (`--web`): what a browser needs before it can speak to a target.

mod listing;
mod page;
mod path;

pub use page::Page;

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use tokio::time::timeout;
use tower_http::services::ServeFile;

use super::refusal::Body;
use crate::proto::limits::bridge::web::OPEN_WAIT;

/// What is served, and how.
#[derive(Debug, Clone, Default)]
pub struct WebConfig {
    /// The page at the root; what else there is comes from the directory.
    pub page: Option<Page>,
    /// The directory. Links in it are followed, wherever they lead; names that begin with a dot are not there, but for
    /// `.well-known`.
    pub root: Option<PathBuf>,
    /// Directories without an index are not listed.
    pub file_only: bool,
    /// The file that stands for a directory; without it, `index.html`.
    pub index: Option<String>,
    /// What the paths of all addresses begin with, `/vnc`; what is outside is not there.
    pub prefix: Option<String>,
    /// Origins whose pages may read the files (`Access-Control-Allow-Origin`): `*`, or some.
    pub cors: Vec<String>,
}

/// Why files cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// It is not there.
    #[error("the web directory {0} is no directory that can be read")]
    Root(PathBuf),
    /// It does not begin with a slash, or ends with one.
    #[error("the prefix {0:?} cannot be used: write /NAME, with a slash before it and none behind it")]
    Prefix(String),
    /// It is a path.
    #[error("the index {0:?} cannot be used: write the name of a file, without directories")]
    Index(String),
    /// No origin.
    #[error("{0:?} is no origin: write *, or as in https://example.com")]
    Cors(String),
    /// Not to be written as a header.
    #[error("{0:?} is no header: write it as in 'X-Frame-Options: DENY'")]
    Header(String),
}

/// A directory whose files are served.
#[derive(Debug)]
pub struct Web {
    config: WebConfig,
    cors: Vec<HeaderValue>,
}

impl Web {
    /// Checks what was asked for.
    pub fn new(config: WebConfig) -> Result<Self, WebError> {
        if let Some(root) = config.root.as_ref().filter(|root| std::fs::read_dir(root).is_err()) {
            return Err(WebError::Root(root.clone()));
        }
        let odd =
            |prefix: &&String| !prefix.starts_with('/') || prefix.ends_with('/') || prefix.contains("//");
        if let Some(prefix) = config.prefix.as_ref().filter(odd) {
            return Err(WebError::Prefix(prefix.clone()));
        }
        let odd = |index: &&String| index.is_empty() || index.contains('/') || index.starts_with("..");
        if let Some(index) = config.index.as_ref().filter(odd) {
            return Err(WebError::Index(index.clone()));
        }
        let origin = |text: &String| {
            let good = text == "*"
                || text == "null"
                || text.split_once("://").is_some_and(|(_, host)| !host.contains('/'));
            HeaderValue::from_str(text).ok().filter(|_| good).ok_or_else(|| WebError::Cors(text.clone()))
        };
        let cors = config.cors.iter().map(origin).collect::<Result<_, _>>()?;
        Ok(Self { config, cors })
    }

    /// The answer to a request that wants no WebSocket.
    pub(super) async fn answer<B: Sync>(&self, request: &Request<B>) -> Response<Body> {
        let answer = timeout(OPEN_WAIT, self.file(request)).await;
        let mut answer = answer.unwrap_or_else(|_| {
            tracing::error!(root = ?self.config.root, "the files of the web directory cannot be read in time");
            plain(StatusCode::SERVICE_UNAVAILABLE, "the file cannot be read now")
        });
        let headers = answer.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        self.share(request.headers(), headers);
        answer
    }

    async fn file<B: Sync>(&self, request: &Request<B>) -> Response<Body> {
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS if !self.cors.is_empty() => return preflight(),
            _ => return not_allowed(),
        }
        let asked = request.uri().path();
        let below = asked.strip_prefix(self.config.prefix.as_deref().unwrap_or_default());
        let Some(below) = below.filter(|below| below.starts_with('/') || below.is_empty()) else {
            return not_found();
        };
        let Some(below) = path::inside(below) else { return not_found() };
        if let Some(page) = self.config.page.filter(|_| below.as_os_str().is_empty()) {
            // Without the slash, what the page names would be looked for beside the prefix.
            return match asked.ends_with('/') {
                true => with_type(StatusCode::OK, "text/html; charset=utf-8", page.html()),
                false => moved(&format!("{asked}/"), request.uri().query()),
            };
        }
        let Some(root) = &self.config.root else { return not_found() };
        let full = root.join(&below);
        let Ok(found) = tokio::fs::metadata(&full).await else { return not_found() };
        if !found.is_dir() {
            // A file is no directory, and to open a pipe may take for ever.
            let whole = found.is_file() && !asked.ends_with('/');
            return if whole { send(&full, request).await } else { not_found() };
        }
        if !asked.ends_with('/') {
            return moved(&format!("{asked}/"), request.uri().query());
        }
        let index = full.join(self.config.index.as_deref().unwrap_or("index.html"));
        if tokio::fs::metadata(&index).await.is_ok_and(|found| found.is_file()) {
            return send(&index, request).await;
        }
        if self.config.file_only {
            return not_found();
        }
        let listed = tokio::task::spawn_blocking(move || listing::page(&full)).await;
        match listed {
            Ok(Ok(page)) => with_type(StatusCode::OK, "text/html; charset=utf-8", page),
            _ => not_found(),
        }
    }

    /// Says which pages may read the answer.
    fn share(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        let Some(first) = self.cors.first() else { return };
        if self.cors.iter().any(|origin| origin == "*") {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return;
        }
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
        let asked = request.get(header::ORIGIN).unwrap_or(first);
        if self.cors.contains(asked) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, asked.clone());
        }
    }
}

/// Reads headers that all answers get (`--header 'Name: value'`). What HTTP itself goes by is not theirs to say.
pub fn extra_headers<T: AsRef<str>>(texts: &[T]) -> Result<HeaderMap, WebError> {
    const OURS: [HeaderName; 5] = [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TRAILER,
    ];
    let mut headers = HeaderMap::new();
    for text in texts {
        let text = text.as_ref();
        let read = text.split_once(':').and_then(|(name, value)| {
            let name: HeaderName = name.trim().parse().ok()?;
            let value = HeaderValue::from_str(value.trim()).ok()?;
            let ours = OURS.contains(&name) || name.as_str().starts_with("sec-websocket-");
            (!ours).then_some((name, value))
        });
        let (name, value) = read.ok_or_else(|| WebError::Header(text.to_owned()))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// A file, or the part of it that was asked for.
async fn send<B: Sync>(path: &Path, request: &Request<B>) -> Response<Body> {
    let mut asked = Request::new(Empty::<Bytes>::new());
    *asked.method_mut() = request.method().clone();
    asked.headers_mut().clone_from(request.headers());
    // A part is sent only of what the asker has the rest of, and that is not looked at: all of it is never wrong.
    if asked.headers_mut().remove(header::IF_RANGE).is_some() {
        asked.headers_mut().remove(header::RANGE);
    }
    match ServeFile::new(path).try_call(asked).await {
        Ok(answer) => answer.map(|body| body.map_err(io::Error::other).boxed_unsync()),
        // It went in the meantime, or is not for us to read.
        Err(_) => not_found(),
    }
}

fn with_type(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn not_found() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "there is no such file")
}

fn not_allowed() -> Response<Body> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "files are read here, by GET and HEAD");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// To the same address with something behind it.
fn moved(path: &str, query: Option<&str>) -> Response<Body> {
    let to = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let Ok(to) = HeaderValue::from_str(&to) else { return not_found() };
    let mut response = plain(StatusCode::MOVED_PERMANENTLY, "this is a directory");
    response.headers_mut().insert(header::LOCATION, to);
    response
}

/// What a browser asks before it asks for another page's file with more than a plain GET.
fn preflight() -> Response<Body> {
    let mut response = with_type(StatusCode::NO_CONTENT, "text/plain", Bytes::new());
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Range, If-None-Match, If-Modified-Since"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

#[cfg(test)]
mod tests;
