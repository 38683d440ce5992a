//! What all sessions of one relay and key share: the way there, the key, and the watch for sleep.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::dial::{Dialer, RelayIo};
use super::relay_url::RelayUrl;
use super::wake;
use crate::auth::Secret;
use crate::stream::handshake::{self, ConnectError, Opened};

/// Who we are to a relay.
pub(super) const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("adit/", env!("CARGO_PKG_VERSION")));

/// The key has characters that cannot stand in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key has characters that no key has: check ADIT_KEY or --key for quotes, spaces and line ends")]
pub struct KeyError;

/// A relay as one key sees it. Cheap to share among thousands of sessions.
pub struct Connector {
    dialer: Dialer,
    bearer: Option<HeaderValue>,
    woken: watch::Receiver<u64>,
    _watcher: AbortOnDropHandle<()>,
}

impl Connector {
    /// Must be called within a tokio runtime, as it starts the watch for sleep. Nothing is connected yet.
    pub fn new(dialer: Dialer, key: Option<&Secret>) -> Result<Arc<Self>, KeyError> {
        let bearer = key.map(|key| bearer(key.expose().trim())).transpose()?;
        let (woken, watcher) = wake::watch();
        Ok(Arc::new(Self { dialer, bearer, woken, _watcher: watcher }))
    }

    /// The relay.
    pub fn relay(&self) -> &RelayUrl {
        self.dialer.relay()
    }

    /// Whether a key was given.
    pub fn has_key(&self) -> bool {
        self.bearer.is_some()
    }

    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    pub(super) fn bearer(&self) -> Option<&HeaderValue> {
        self.bearer.as_ref()
    }

    /// Changes each time the machine has slept.
    pub(super) fn woken(&self) -> watch::Receiver<u64> {
        self.woken.clone()
    }

    /// Opens a WebSocket at `path_and_query`. The caller sets the deadline of the handshake.
    pub(super) async fn websocket(
        &self,
        path_and_query: &str,
        with_key: bool,
    ) -> Result<Opened<RelayIo>, SocketError> {
        let uri = self.relay().uri(path_and_query).ok_or(ConnectError::BadAnswer)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, USER_AGENT);
        if let Some(bearer) = self.bearer().filter(|_| with_key) {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
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

fn bearer(key: &str) -> Result<HeaderValue, KeyError> {
    let visible = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    let value = visible.then(|| HeaderValue::from_str(&format!("Bearer {key}")).ok()).flatten();
    let mut value = value.ok_or(KeyError)?;
    value.set_sensitive(true);
    Ok(value)
}
