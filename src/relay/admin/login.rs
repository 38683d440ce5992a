//! The door of the dashboard: a password, or a link that is good once; and the cookie of those who came in.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Form, FromRequest, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::guard::Caller;
use super::sessions::{Links, Session, Sessions};
use super::tries::Tries;
use super::{Admin, assets, body};
use crate::auth::password::{BasicAuth, PasswordError, Turn, hash};
use crate::relay::config::RelayConfig;
use crate::relay::own_cookies::{SESSION, SESSION_OVER_TLS, cookies};
use crate::tunnel::seconds;

/// The user whose password it is: hashes cover both.
pub const USER: &str = "admin";

const NO_PASSWORD: &str = "No password is set. Open the link that the relay wrote when it started; it writes another on \
                           SIGHUP, as does `systemctl reload`.";
const WRONG: &str = "This is not the password.";
const USED: &str = "This link was used already, or is older than ten minutes. The relay writes another on SIGHUP, as does \
                    `systemctl reload`.";
const USED_WITH_PASSWORD: &str = "This link is not good. Log in with the password.";

/// Who may come in, and who is in.
pub struct Door {
    password: Option<Arc<BasicAuth>>,
    turn: Turn,
    tries: Tries,
    links: Links,
    sessions: Sessions,
}

impl Door {
    /// As the configuration wants it.
    pub async fn open(config: &RelayConfig) -> Result<Self, PasswordError> {
        let text = match (&config.admin_password_hash, &config.admin_password) {
            (Some(hash), _) => Some(hash.expose().to_owned()),
            (None, Some(password)) => {
                let password = password.clone();
                let hashing = spawn_blocking(move || hash(USER, password.expose()));
                Some(hashing.await.map_err(|_| PasswordError::Text)??)
            }
            (None, None) => None,
        };
        let password = text.map(|text| BasicAuth::from_text(&text).map(Arc::new)).transpose()?;
        let (turn, tries, links) = (Turn::default(), Tries::default(), Links::default());
        Ok(Self { password, turn, tries, links, sessions: Sessions::default() })
    }

    /// A token that logs in once, if there is no password.
    pub fn invite(&self) -> Option<String> {
        self.password.is_none().then(|| self.links.make().ok()).flatten()
    }

    /// How many are logged in.
    pub fn sessions(&self) -> usize {
        self.sessions.count()
    }

    /// The session of whoever sends these headers.
    pub fn session(&self, headers: &HeaderMap, secure: bool) -> Option<Arc<Session>> {
        cookies(headers, cookie_name(secure)).find_map(|token| self.sessions.find(token))
    }

    /// Whether a password is right, from an address that may try one now. An error says when it may.
    async fn takes(&self, password: String, address: IpAddr) -> Result<bool, Duration> {
        let Some(known) = &self.password else { return Ok(false) };
        self.tries.take(address)?;
        let known = Arc::clone(known);
        Ok(self.turn.run(move || known.matches(USER, &password)).await.unwrap_or(false))
    }
}

/// With TLS the name itself says that no other host has set the cookie.
fn cookie_name(secure: bool) -> &'static str {
    if secure { SESSION_OVER_TLS } else { SESSION }
}

fn cookie(secure: bool, value: &str, more: &str) -> String {
    let secure_too = if secure { "; Secure" } else { "" };
    format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure_too}{more}", cookie_name(secure))
}

/// Leads to the dashboard with a cookie.
fn go(cookie: Option<&str>) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/"));
    if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::from_str(cookie).ok()) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn let_in(door: &Door, caller: &Caller) -> Response {
    match door.sessions.begin() {
        Ok(token) => {
            tracing::info!(operator = %caller.address, "logged into the dashboard");
            go(Some(&cookie(caller.secure, &token, "")))
        }
        Err(error) => page(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// The login page.
fn page(status: StatusCode, error: &str) -> Response {
    (status, assets::login(error)).into_response()
}

/// What the query of `/login` has.
#[derive(Deserialize)]
pub struct Token {
    token: Option<String>,
}

/// `GET /`: the dashboard, or the login page.
pub async fn home(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>) -> Response {
    if caller.session.is_some() {
        return assets::index().into_response();
    }
    let hint = if admin.shared.door.password.is_some() { "" } else { NO_PASSWORD };
    page(StatusCode::OK, hint)
}

/// `GET /login`: by a link. It needs no rate: nobody guesses 128 bits, and so nobody can keep the operator out. Programs that
/// look where a link leads do so by HEAD, and must not use it up.
pub async fn by_link(
    method: Method,
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Token>, QueryRejection>,
) -> Response {
    let door = &admin.shared.door;
    match query.ok().and_then(|Query(query)| query.token) {
        None => go(None),
        Some(_) if method == Method::HEAD => go(None),
        Some(token) if door.links.take(&token) => let_in(door, &caller),
        Some(_) => {
            let hint = if door.password.is_some() { USED_WITH_PASSWORD } else { USED };
            page(StatusCode::UNAUTHORIZED, hint)
        }
    }
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    password: String,
}

/// `POST /login`: by the password.
pub async fn by_password(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let body = match body::read(body).await {
        Ok(body) => body,
        Err(problem) => return problem.into_response(),
    };
    let Ok(Form(Given { password })) = Form::from_request(Request::from_parts(head, body.into()), &()).await
    else {
        return page(
            StatusCode::BAD_REQUEST,
            "The form could not be read. Send the field \"password\" as browsers do.",
        );
    };
    let door = &admin.shared.door;
    if door.password.is_none() {
        return page(StatusCode::UNAUTHORIZED, NO_PASSWORD);
    }
    match door.takes(password, caller.address).await {
        Ok(true) => let_in(door, &caller),
        Ok(false) => {
            tracing::warn!(operator = %caller.address, "a wrong password for the dashboard");
            page(StatusCode::UNAUTHORIZED, WRONG)
        }
        Err(wait) => {
            let wait = seconds(&wait).max(1);
            let hint = format!("Too many tries. Wait {wait} s, then try again.");
            let mut response = page(StatusCode::TOO_MANY_REQUESTS, &hint);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
            response
        }
    }
}

/// `POST /logout`
pub async fn logout(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    for token in cookies(&headers, cookie_name(caller.secure)) {
        admin.shared.door.sessions.end(token);
    }
    go(Some(&cookie(caller.secure, "", "; Max-Age=0")))
}
