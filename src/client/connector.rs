//! What all sessions of one relay and key share: the way there, the key, and the watch for sleep.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderValue, header};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::dial::{Dialer, RelayIo};
use super::relay_url::RelayUrl;
use super::wake;
use crate::auth::Secret;
use crate::proto::message::{ADIT_1, Level};
use crate::stream::handshake::{self, ConnectError, Opened};
use crate::sync::lock;

/// Who we are to a relay.
pub(super) const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("adit/", env!("CARGO_PKG_VERSION")));

/// The key has characters that cannot stand in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key has characters that no key has: check ADIT_KEY or --key for quotes, spaces and line ends")]
pub struct KeyError;

/// A relay as one key sees it. Cheap to share among thousands of sessions.
pub struct Connector {
    dialer: Arc<Dialer>,
    bearer: Mutex<Option<HeaderValue>>,
    woken: watch::Receiver<u64>,
    watcher: Arc<AbortOnDropHandle<()>>,
}

impl Connector {
    /// Must be called within a tokio runtime, as it starts the watch for sleep. Nothing is connected yet.
    pub fn new(dialer: Dialer, key: Option<&Secret>) -> Result<Arc<Self>, KeyError> {
        let bearer = key.map(|key| bearer(key.expose().trim())).transpose()?;
        let (woken, watcher) = wake::watch();
        let (dialer, bearer, watcher) = (Arc::new(dialer), Mutex::new(bearer), Arc::new(watcher));
        Ok(Arc::new(Self { dialer, bearer, woken, watcher }))
    }

    /// The same relay and key for one session, whose key may then change without the others'.
    pub(super) fn of_its_own(&self) -> Arc<Self> {
        Arc::new(Self {
            dialer: Arc::clone(&self.dialer),
            bearer: Mutex::new(self.bearer()),
            woken: self.woken.clone(),
            watcher: Arc::clone(&self.watcher),
        })
    }

    /// From now on the key is another.
    pub(super) fn set_bearer(&self, bearer: HeaderValue) {
        *lock(&self.bearer) = Some(bearer);
    }

    /// The relay.
    pub fn relay(&self) -> &RelayUrl {
        self.dialer.relay()
    }

    /// What the relay's address is from, as errors call it.
    pub(super) fn given_by(&self) -> &'static str {
        self.dialer.given_by()
    }

    /// Whether a key was given.
    pub fn has_key(&self) -> bool {
        lock(&self.bearer).is_some()
    }

    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    pub(super) fn bearer(&self) -> Option<HeaderValue> {
        lock(&self.bearer).clone()
    }

    /// Changes each time the machine has slept.
    pub(super) fn woken(&self) -> watch::Receiver<u64> {
        self.woken.clone()
    }

    /// Opens a control socket at `path_and_query`, and what is spoken on it. The caller sets the deadline of the
    /// handshake.
    pub(super) async fn control(
        &self,
        path_and_query: &str,
    ) -> Result<(Opened<RelayIo>, Level), SocketError> {
        let opened = self.websocket(path_and_query, true, Some(ADIT_1)).await?;
        let level = match opened.protocol() {
            None => Level::Base,
            Some(protocol) if protocol == ADIT_1 => Level::Two,
            // One that was not offered (RFC 6455, section 4.1).
            Some(_) => return Err(ConnectError::BadAnswer.into()),
        };
        Ok((opened, level))
    }

    /// Opens a data socket at `path_and_query`; it carries the key at level two. The caller sets the deadline of the
    /// handshake.
    pub(super) async fn data(
        &self,
        path_and_query: &str,
        level: Level,
    ) -> Result<Opened<RelayIo>, SocketError> {
        self.websocket(path_and_query, level == Level::Two, None).await
    }

    async fn websocket(
        &self,
        path_and_query: &str,
        with_key: bool,
        subprotocol: Option<&'static str>,
    ) -> Result<Opened<RelayIo>, SocketError> {
        let mut headers = HeaderMap::new();
        if let Some(bearer) = self.bearer().filter(|_| with_key) {
            headers.insert(header::AUTHORIZATION, bearer);
        }
        if let Some(name) = subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        }
        self.open(path_and_query, headers).await
    }

    /// Opens a WebSocket at `path_and_query` with these headers and none of ours but the user agent. The caller sets the
    /// deadline of the handshake.
    pub(super) async fn open(
        &self,
        path_and_query: &str,
        mut headers: HeaderMap,
    ) -> Result<Opened<RelayIo>, SocketError> {
        let uri = self.relay().uri(path_and_query).ok_or(ConnectError::BadAnswer)?;
        headers.insert(header::USER_AGENT, USER_AGENT);
        let io = self.dialer.connect().await?;
        Ok(handshake::connect(io, &uri, headers).await?)
    }
}

/// Why a WebSocket could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error(transparent)]
    Dial(#[from] super::dial::DialError),
    #[error(transparent)]
    Handshake(#[from] ConnectError),
}

/// The header that carries `key`.
pub(super) fn bearer(key: &str) -> Result<HeaderValue, KeyError> {
    let visible = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    let value = visible.then(|| HeaderValue::from_str(&format!("Bearer {key}")).ok()).flatten();
    let mut value = value.ok_or(KeyError)?;
    value.set_sensitive(true);
    Ok(value)
}
