//! Answers that are no WebSocket: a status, and a line of text that says what to do.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

/// The body of every answer.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// No body.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Why a request gets no WebSocket.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// The status.
    pub(super) status: StatusCode,
    /// What goes along with it.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// For whoever reads it.
    pub(super) text: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, headers: Vec::new(), text: text.into() }
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// As the viewer gets it.
    pub(super) fn answer(self) -> Response<Body> {
        let text = Full::new(Bytes::from(format!("{}\n", self.text)));
        let mut response = Response::new(text.map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.extend(self.headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
