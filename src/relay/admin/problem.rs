//! What the admin listener answers when it does not do what was asked, as JSON.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::store::StoreError;
use crate::tunnel::seconds;

/// `{"error":{"code":…,"message":…}}`: a word for programs, and a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry: Option<Duration>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry: None }
    }

    /// 400: what is asked for cannot be read.
    pub fn query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "query", message)
    }

    /// 400: the body cannot be read.
    pub fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "body", message)
    }

    /// 401: nobody is logged in.
    pub fn login() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "login", "log in first: open / of this listener in a browser")
    }

    /// 403: another page asks.
    pub fn origin() -> Self {
        let message =
            "only pages of this dashboard may ask this; behind a proxy, let it pass Host on unchanged";
        Self::new(StatusCode::FORBIDDEN, "origin", message)
    }

    /// 404: there is none.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 404: no client, or not with this session any more.
    pub fn no_client() -> Self {
        Self::not_found("there is no client with this session; it may have come back with another one")
    }

    /// 404: no tunnel, or no more.
    pub fn no_tunnel() -> Self {
        Self::not_found("there is no tunnel with this id; it may have ended")
    }

    /// 405: not with this method.
    pub fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this path takes another method")
    }

    /// 409: not as things are.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 413: the body is over `most` bytes.
    pub fn too_large(most: usize) -> Self {
        let message = format!("the body is over {most} bytes; send less");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// 415: not JSON.
    pub fn content_type() -> Self {
        let message = "send JSON, with Content-Type: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message)
    }

    /// 421: under a name that may be a stranger's.
    pub fn host() -> Self {
        let message = "ask by address, as localhost, or by a name that --admin-host gives";
        Self::new(StatusCode::MISDIRECTED_REQUEST, "host", message)
    }

    /// 503: as many live streams as may be.
    pub fn too_many_streams(most: usize) -> Self {
        let message = format!("{most} pages are open already, which is as many as may; close some");
        let retry = Some(Duration::from_secs(10));
        Self { retry, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "too_many", message) }
    }

    /// 500: a defect.
    pub fn failed() -> Self {
        let message = "the relay has failed at this; its log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let retry = Some(Duration::from_secs(2));
        Self { retry, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string()) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.code, "message": self.message}});
        let mut response = (self.status, Json(body)).into_response();
        if let Some(wait) = self.retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds(&wait)));
        }
        response
    }
}
