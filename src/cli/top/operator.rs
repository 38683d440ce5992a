//! The calls to the admin listener, and the login that they need.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::screen::Order;
use super::told::{List, Summary, Told};
use crate::auth::Secret;
use crate::client::text::percent_encode;
use crate::client::{CallError, Connector};
use crate::sync::lock;

/// What a link that logs in has in its query.
const LINK: &str = "/login?token=";

const NOT_TAKEN: &str = "not taken: give the password of the dashboard (ADIT_ADMIN_PASSWORD of the relay), or the link \
                         that the relay wrote when it started; it writes another on SIGHUP";

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Who asks must log in, and why.
    Login(String),
    /// Something else, which may be better the next time.
    Other(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login(why) | Self::Other(why) => f.write_str(why),
        }
    }
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Self::Other(error.to_string())
    }
}

/// An operator at one relay.
pub(super) struct Operator {
    connector: Arc<Connector>,
    /// What let the operator in, for the next time: sessions end.
    password: Mutex<Option<Secret>>,
    cookie: Mutex<Option<HeaderValue>>,
}

/// The URL of the listener, and the link to it if `typed` is one.
pub(super) fn address(typed: &str) -> (String, Option<String>) {
    let typed = typed.trim();
    let url = if typed.contains("://") { typed.to_owned() } else { format!("http://{typed}") };
    match url.split_once(LINK) {
        Some((url, _)) => (url.to_owned(), Some(typed.to_owned())),
        None => (url, None),
    }
}

impl Operator {
    pub(super) fn new(connector: Arc<Connector>, password: Option<Secret>) -> Self {
        Self { connector, password: Mutex::new(password), cookie: Mutex::new(None) }
    }

    /// Where the relay is.
    pub(super) fn url(&self) -> String {
        self.connector.relay().to_string()
    }

    /// Logs in by a password, or by a link.
    pub(super) async fn log_in(&self, typed: &str) -> Result<(), Trouble> {
        let request = match typed.split_once(LINK) {
            Some((_, token)) => {
                Request::get(format!("{LINK}{}", percent_encode(token.trim()))).body(Vec::new())
            }
            None => Request::post("/login")
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(format!("password={}", percent_encode(typed)).into_bytes()),
        };
        let answer = self.connector.ask(request.map_err(unreadable)?).await?;
        let cookie = answer.headers().get(header::SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
        let cookie = cookie.and_then(|cookie| HeaderValue::from_str(cookie.split(';').next()?).ok());
        match (answer.status(), cookie) {
            (StatusCode::SEE_OTHER, Some(cookie)) => {
                *lock(&self.cookie) = Some(cookie);
                if !typed.contains(LINK) {
                    *lock(&self.password) = Some(Secret::new(typed));
                }
                Ok(())
            }
            (StatusCode::UNAUTHORIZED, _) => {
                *lock(&self.password) = None;
                Err(Trouble::Login(NOT_TAKEN.to_owned()))
            }
            (StatusCode::TOO_MANY_REQUESTS, _) => {
                Err(Trouble::Login("too many tries: wait some seconds, then try again".to_owned()))
            }
            _ => Err(self.refused(&answer)),
        }
    }

    /// What there is: the figures on top, and the list at `path`.
    pub(super) async fn told(&self, path: &str) -> Result<Box<Told>, Trouble> {
        let list: List = self.read(path).await?;
        Ok(Box::new(Told { summary: self.read("/api/summary").await?, list }))
    }

    /// Whether the relay lets us ask.
    pub(super) async fn summary(&self) -> Result<(), Trouble> {
        self.read::<Summary>("/api/summary").await.map(drop)
    }

    /// Has it do something; the relay's sentence about it.
    pub(super) async fn order(&self, order: &Order) -> Result<String, Trouble> {
        let request = || {
            let request = Request::post(&order.path).header(header::CONTENT_TYPE, "application/json");
            request.body(order.body.to_owned().into_bytes())
        };
        let done: Value = self.json(request).await?;
        Ok(done["done"].as_str().unwrap_or("done").to_owned())
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        self.json(|| Request::get(path).body(Vec::new())).await
    }

    /// Asks, and once more with a new login if the old one has ended.
    async fn json<T: DeserializeOwned>(
        &self,
        request: impl Fn() -> http::Result<Request<Vec<u8>>>,
    ) -> Result<T, Trouble> {
        let mut answer = self.ask(request()).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let password = lock(&self.password).clone();
            let password = password.ok_or_else(|| Trouble::Login(String::new()))?;
            self.log_in(password.expose()).await?;
            answer = self.ask(request()).await?;
        }
        if !answer.status().is_success() {
            return Err(self.refused(&answer));
        }
        serde_json::from_slice(answer.body()).map_err(|_| self.refused(&answer))
    }

    async fn ask(&self, request: http::Result<Request<Vec<u8>>>) -> Result<Response<Bytes>, Trouble> {
        let mut request = request.map_err(unreadable)?;
        if let Some(cookie) = lock(&self.cookie).clone() {
            request.headers_mut().insert(header::COOKIE, cookie);
        }
        Ok(self.connector.ask(request).await?)
    }

    /// The relay's own sentence, or that it is no relay.
    fn refused(&self, answer: &Response<Bytes>) -> Trouble {
        let json: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        Trouble::Other(match json["error"]["message"].as_str() {
            Some(message) => message.to_owned(),
            None => format!(
                "what answers at {} is not the admin listener of a relay ({}): give the address of its admin-listen",
                self.connector.relay(),
                answer.status()
            ),
        })
    }
}

fn unreadable(error: http::Error) -> Trouble {
    Trouble::Other(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_the_listener_too() {
        assert_eq!(address("127.0.0.1:9090"), ("http://127.0.0.1:9090".to_owned(), None));
        let link = "http://127.0.0.1:9090/login?token=abc";
        assert_eq!(address(link), ("http://127.0.0.1:9090".to_owned(), Some(link.to_owned())));
    }
}
