//! The REST calls of a client, each over a connection of its own and within 15 seconds.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::connector::{Connector, USER_AGENT};
use super::text::percent_encode;
use crate::proto::api::{CreateTunnel, Extend, Health, Suspend, Suspended, Tunnel};
use crate::proto::limits::client::REST_WAIT;
use crate::stream::call::call;
use crate::stream::handshake::ConnectError;

/// Bytes of the longest answer: a list of tens of thousands of tunnels.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Characters that are shown of an error, or of a body that is none of ours, such as a web server's page.
const MAX_SHOWN: usize = 300;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// 401 or 403: the key is missing, wrong, or not allowed to.
    #[error("the relay refuses the key ({status}): {message}")]
    Unauthorised {
        /// The status.
        status: StatusCode,
        /// The relay's words.
        message: String,
    },
    /// Any other status but success.
    #[error("the relay refuses ({status}): {message}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// For programs; empty when the relay gave none.
        code: String,
        /// The relay's words.
        message: String,
    },
    /// 429, or 503 with a time: it is too soon for another call.
    #[error("the relay wants us to wait: {message}")]
    TooSoon {
        /// The relay's words.
        message: String,
        /// Its `Retry-After`, if it gave seconds.
        wait: Option<Duration>,
    },
    /// There was no answer, or none that can be read.
    #[error("{0}")]
    Unreachable(String),
}

impl CallError {
    /// Trying again cannot help: a 4xx that is not about time, or a redirection, which no call follows.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Unauthorised { .. } => true,
            Self::Refused { status, .. } => {
                status.is_redirection()
                    || (status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429))
            }
            Self::TooSoon { .. } | Self::Unreachable(_) => false,
        }
    }

    /// The same for a client that was served before: the relay itself says no, by a code, and not only for now
    /// (`protocol.md`, section 2.3). What has no code may be a proxy's whose relay is away.
    pub(super) fn is_final_again(&self) -> bool {
        let passing = ["", "tunnel_not_found", "port_in_use", "no_free_port"];
        match self {
            Self::Refused { status, code, .. } => {
                status.is_client_error() && self.is_final() && !passing.contains(&code.as_str())
            }
            _ => self.is_final(),
        }
    }

    /// The error that a status other than success stands for; `body` may be our JSON, another's, or any text.
    pub(super) fn of_answer(status: StatusCode, wait: Option<Duration>, body: &[u8]) -> Self {
        let json = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
        let field = |name: &str| json.get(name).and_then(|value| value.as_str());
        let text = String::from_utf8_lossy(body);
        let message = match (field("error"), text.trim()) {
            (None, "") => "no reason given".to_owned(),
            (Some(text), _) | (None, text) => text.chars().take(MAX_SHOWN).collect(),
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Unauthorised { status, message },
            StatusCode::TOO_MANY_REQUESTS => Self::TooSoon { message, wait },
            // Who drains says when a viewer had better come back; its successor may be there sooner.
            StatusCode::SERVICE_UNAVAILABLE if wait.is_some() && field("code") != Some("draining") => {
                Self::TooSoon { message, wait }
            }
            _ => Self::Refused { status, code: field("code").unwrap_or_default().to_owned(), message },
        }
    }
}

impl From<super::connector::SocketError> for CallError {
    fn from(error: super::connector::SocketError) -> Self {
        use super::connector::SocketError::Handshake;
        match error {
            Handshake(ConnectError::Refused { status, body }) => {
                Self::of_answer(status, None, body.as_bytes())
            }
            error => Self::Unreachable(error.to_string()),
        }
    }
}

impl Connector {
    /// `GET /health`; needs no key.
    pub async fn health(&self) -> Result<Health, CallError> {
        self.json(Method::GET, "/health", None).await
    }

    /// `GET /v1/tunnels`: those of our key.
    pub async fn list(&self) -> Result<Vec<Tunnel>, CallError> {
        // Some relays say `null` for none.
        Ok(self.json::<Option<Vec<Tunnel>>>(Method::GET, "/v1/tunnels", None).await?.unwrap_or_default())
    }

    /// `POST /v1/tunnels`. The `public_url` of the answer is made absolute where the relay left that out.
    pub async fn create(&self, tunnel: &CreateTunnel) -> Result<Tunnel, CallError> {
        let body = serde_json::to_vec(tunnel).map_err(|error| CallError::Unreachable(error.to_string()))?;
        let mut made: Tunnel = self.json(Method::POST, "/v1/tunnels", Some(body)).await?;
        if made.id.is_empty() || made.slug.is_empty() {
            return Err(CallError::Unreachable("the relay's answer names no tunnel: is it a relay?".into()));
        }
        if made.public_url.is_empty() {
            made.public_url = format!("/t/{}", made.slug);
        }
        if made.public_url.starts_with('/') {
            made.public_url = format!("{}{}", self.relay(), made.public_url);
        }
        Ok(made)
    }

    /// `GET /v1/tunnels/{id}`.
    pub async fn get(&self, id: &str) -> Result<Tunnel, CallError> {
        self.json(Method::GET, &one(id, ""), None).await
    }

    /// `DELETE /v1/tunnels/{id}`.
    pub async fn delete(&self, id: &str) -> Result<(), CallError> {
        self.call(Method::DELETE, &one(id, ""), None).await.map(drop)
    }

    /// `DELETE /v1/tunnels/{id}?unless_connected=true`: not while a client serves it, which is an error then.
    pub(super) async fn leave(&self, id: &str) -> Result<(), CallError> {
        self.call(Method::DELETE, &one(id, "?unless_connected=true"), None).await.map(drop)
    }

    /// `POST /v1/tunnels/{id}/suspend`: turns viewers away, or lets them in again.
    pub async fn suspend(&self, id: &str, suspended: bool) -> Result<Suspended, CallError> {
        self.json(Method::POST, &one(id, "/suspend"), serde_json::to_vec(&Suspend { suspended }).ok()).await
    }

    /// `POST /v1/tunnels/{id}/extend`: the tunnel ends `ttl` from now; `0` is never.
    pub async fn extend(&self, id: &str, ttl: &str) -> Result<Tunnel, CallError> {
        let body = serde_json::to_vec(&Extend { ttl: ttl.to_owned() }).ok();
        self.json(Method::POST, &one(id, "/extend"), body).await
    }

    /// A GET of any path, with its answer whatever the status.
    #[doc(hidden)]
    pub async fn look(&self, path: &str) -> Result<(StatusCode, Bytes), CallError> {
        let request = Request::get(path).body(Vec::new()).map_err(|error| self.failed(&error))?;
        self.ask(request).await.map(|answer| (answer.status(), answer.into_body()))
    }

    /// Any request for a path, with its answer whatever the status. Who asks, and what of it leads there, is added.
    #[doc(hidden)]
    pub async fn ask(&self, request: Request<Vec<u8>>) -> Result<Response<Bytes>, CallError> {
        timeout(REST_WAIT, self.exchange(request)).await.map_err(|_| CallError::Unreachable(self.late()))?
    }

    fn failed(&self, error: &impl std::fmt::Display) -> CallError {
        CallError::Unreachable(format!("the call to {} failed: {error}", self.relay()))
    }

    fn late(&self) -> String {
        format!("{} did not answer within {} seconds", self.relay(), REST_WAIT.as_secs())
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, CallError> {
        let answer = self.call(method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|error| {
            let relay = self.relay();
            CallError::Unreachable(format!("the answer of {relay} cannot be read ({error}): is it a relay?"))
        })
    }

    async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Bytes, CallError> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.unwrap_or_default()).map_err(|error| self.failed(&error))?;
        let (head, body) = self.ask(request).await?.into_parts();
        let wait = head.headers.get(header::RETRY_AFTER).and_then(seconds);
        if head.status.is_success() { Ok(body) } else { Err(CallError::of_answer(head.status, wait, &body)) }
    }

    async fn exchange(&self, request: Request<Vec<u8>>) -> Result<Response<Bytes>, CallError> {
        let host = HeaderValue::from_str(self.relay().authority()).map_err(|error| self.failed(&error))?;
        let io = self.dialer().connect().await.map_err(|error| CallError::Unreachable(error.to_string()))?;
        let mut request = request.map(|body| Full::new(Bytes::from(body)));
        let headers = request.headers_mut();
        headers.insert(header::HOST, host);
        headers.insert(header::USER_AGENT, USER_AGENT);
        if let Some(bearer) = self.bearer() {
            headers.insert(header::AUTHORIZATION, bearer);
        }
        call(io, request, MAX_ANSWER).await.map_err(|error| self.failed(&error))
    }
}

/// `Retry-After` in seconds; a date, which nobody uses for this, is passed over.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn one(id: &str, action: &str) -> String {
    format!("/v1/tunnels/{}{action}", percent_encode(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_trying_again_cannot_mend_is_final() {
        let of = |status: u16| CallError::of_answer(StatusCode::from_u16(status).unwrap(), None, b"");
        for (status, last) in [
            (301, true),
            (400, true),
            (401, true),
            (403, true),
            (404, true),
            (409, true),
            (408, false),
            (425, false),
            (429, false),
            (500, false),
            (503, false),
        ] {
            assert_eq!(of(status).is_final(), last, "{status}");
        }
        assert!(!CallError::Unreachable("x".into()).is_final());
    }

    #[test]
    fn who_was_served_before_goes_by_the_code() {
        let of = |status: u16, code: &str| {
            let body = format!(r#"{{"error":"no","code":"{code}"}}"#);
            CallError::of_answer(StatusCode::from_u16(status).unwrap(), None, body.as_bytes())
        };
        assert!(of(409, "name_taken").is_final_again() && of(400, "invalid_ttl").is_final_again());
        for (status, code) in
            [(404, "tunnel_not_found"), (409, "port_in_use"), (409, ""), (301, "x"), (503, "x")]
        {
            assert!(!of(status, code).is_final_again(), "{status} {code}");
        }
    }

    #[test]
    fn a_relay_that_is_busy_says_for_how_long_and_one_that_drains_does_not() {
        let of = |status: u16, code: &str| {
            let body = format!(r#"{{"error":"no","code":"{code}"}}"#);
            let wait = Some(Duration::from_secs(3));
            CallError::of_answer(StatusCode::from_u16(status).unwrap(), wait, body.as_bytes())
        };
        assert!(matches!(of(503, "store_unavailable"), CallError::TooSoon { wait: Some(_), .. }));
        assert!(matches!(of(503, "draining"), CallError::Refused { .. }));
    }

    #[test]
    fn the_words_of_any_relay_or_web_server_are_shown() {
        let text = |body: &str| CallError::of_answer(StatusCode::CONFLICT, None, body.as_bytes()).to_string();
        assert!(text(r#"{"error":"taken","code":"name_taken"}"#).ends_with(": taken"));
        assert!(text("name in use\n").ends_with(": name in use"));
        assert!(text("").ends_with(": no reason given"));
        assert!(text(&"x".repeat(9999)).len() < 400);
        assert!(text(&format!(r#"{{"error":"{}"}}"#, "x".repeat(9999))).len() < 400);
    }
}
