//! Certificates from an authority (RFC 8555): ordered when a known name is first asked for, kept in the store, renewed
//! early.

mod challenges;
mod hook;
mod https;
mod keeper;
mod order;
mod orders;

pub use hook::HookError;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use instant_acme::{Account, LetsEncrypt};
use rustls::ServerConfig;
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::time::Instant;

use super::config::RelayConfig;
use super::route::{Route, Routes};
use super::tls::{Certificate, Certificates};
use crate::proto::limits::acme;
use crate::store::{CertificateRow, Store, StoreError};
use crate::sync::lock;
use crate::tally::Counter;
use crate::tunnel::Registry;
use challenges::Challenges;
use https::Https;
use orders::Orders;

/// How certificates are ordered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcmeConfig {
    /// Where the authority writes when something is wrong with an account.
    pub email: Option<String>,
    /// The authority's directory; `None`: Let's Encrypt.
    pub directory: Option<String>,
    /// Verifies the directory, in PEM; `None`: the certificates of the system.
    pub ca: Option<PathBuf>,
    /// Sets and removes DNS entries, for the certificate of all names below the base domain.
    pub dns_hook: Option<PathBuf>,
}

impl AcmeConfig {
    fn directory(&self) -> String {
        self.directory.clone().unwrap_or_else(|| LetsEncrypt::Production.url().to_owned())
    }

    /// Whether certificates are ordered.
    pub fn is_wanted(&self) -> bool {
        self.email.is_some() || self.directory.is_some()
    }
}

/// Why certificates cannot be ordered at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcmeError {
    /// The file of `acme-ca`.
    #[error("acme-ca: {path}: {error}", path = path.display())]
    Ca {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// Nothing verifies the authority.
    #[error("acme: {0}")]
    Roots(String),
    /// What was kept cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The relay's dealings with its authority.
pub struct Acme {
    config: AcmeConfig,
    https: Https,
    account: OnceCell<Account>,
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    routes: Routes,
    /// The relay's own names.
    own: Vec<String>,
    base_domain: Option<String>,
    certificates: Arc<Certificates>,
    challenges: Arc<Challenges>,
    orders: Mutex<Orders>,
    /// Names that viewers ask for.
    asked: mpsc::Sender<String>,
    /// Told when an order ends.
    ended: watch::Sender<()>,
    /// Orders that brought a certificate.
    pub issued: Counter,
    /// Orders that did not.
    pub failed: Counter,
}

impl Acme {
    /// With the certificates that were ordered before, which `certificates` shows from now on. The receiver is for
    /// [`Acme::keep`].
    pub async fn open(
        config: &RelayConfig,
        certificates: Arc<Certificates>,
        registry: Arc<Registry>,
        routes: Routes,
        store: Arc<dyn Store>,
    ) -> Result<(Arc<Self>, mpsc::Receiver<String>), AcmeError> {
        let https = Https::new(config.acme.ca.as_deref())?;
        let directory = config.acme.directory();
        for row in store.certificates().await? {
            // One of another authority, perhaps tried out before, is no substitute.
            if row.directory != directory {
                continue;
            }
            match Certificate::from_pem(row.chain.as_bytes(), row.key.as_bytes(), (&row.name, &row.name)) {
                Ok(certificate) => certificates.set_ordered(row.name, certificate),
                Err(error) => {
                    tracing::warn!(%error, name = row.name, "a certificate in the store is ordered anew");
                }
            }
        }
        let (asked, receiver) = mpsc::channel(acme::QUEUE);
        let acme = Self {
            config: config.acme.clone(),
            https,
            account: OnceCell::new(),
            store,
            registry,
            routes,
            own: config.own_names(),
            base_domain: config.base_domain.clone(),
            certificates,
            challenges: Arc::default(),
            orders: Mutex::default(),
            asked,
            ended: watch::channel(()).0,
            issued: Counter::default(),
            failed: Counter::default(),
        };
        Ok((Arc::new(acme), receiver))
    }

    /// Until there is a certificate for `name`, or it is clear that there will be none now. Names of nobody cost nothing
    /// but a look.
    pub async fn obtain(&self, name: &str) {
        if self.certificates.has(name) || !self.may_have(name) {
            return;
        }
        let mut ended = self.ended.subscribe();
        let (may_begin, is_running) = {
            let orders = lock(&self.orders);
            (orders.may_begin(name, Instant::now()), orders.is_running(name))
        };
        if !is_running && (!may_begin || self.asked.try_send(name.to_owned()).is_err()) {
            return;
        }
        while !self.certificates.has(name) {
            if ended.changed().await.is_err() || lock(&self.orders).has_failed(name) {
                return;
            }
        }
    }

    /// Whether a certificate for `name`, which is in lower case, is ordered when it is asked for.
    fn may_have(&self, name: &str) -> bool {
        // The base domain and all below it have one in common where there is a hook.
        if self.config.dns_hook.is_some()
            && self.base_domain.as_deref().is_some_and(|base| is_within(name, base))
        {
            return false;
        }
        if self.own.iter().any(|own| own == name) {
            return true;
        }
        match self.routes.route(name, "/") {
            Route::Host(label) => self.registry.by_label(&label).is_some_and(|tunnel| !tunnel.is_suspended()),
            _ => false,
        }
    }

    /// What an authority that asks for `path` at `host` wants to read (RFC 8555, section 8.3): only for a challenge that is
    /// under way. Everything else at that path is the target's.
    pub fn answer(&self, host: &str, path: &str) -> Option<String> {
        self.challenges.answer(host, path.strip_prefix("/.well-known/acme-challenge/")?)
    }

    /// For a handshake in which an authority looks for `name` (RFC 8737).
    pub fn challenge_config(&self, name: &str) -> Option<Arc<ServerConfig>> {
        self.challenges.config(name)
    }

    async fn save(&self, name: &str, chain: String, key: String) -> Result<(), StoreError> {
        let (name, directory) = (name.to_owned(), self.config.directory());
        self.store.put_certificate(CertificateRow { name, directory, chain, key }).await
    }
}

/// Whether `name` is `base`, or one label below it.
fn is_within(name: &str, base: &str) -> bool {
    let label = name.strip_suffix(base).and_then(|rest| rest.strip_suffix('.'));
    name == base || label.is_some_and(|label| !label.contains('.'))
}
