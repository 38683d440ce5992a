//! What the relay keeps on disk (tunnels, their names' reservations, keys), behind one trait.

mod migrations;
mod open;
mod sqlite;
mod statements;
mod tally;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use uuid::Uuid;

use crate::proto::api::Balance;

pub use open::FILE_NAME;
pub use sqlite::Sqlite;
pub use tally::Tally;

/// The answer of a store, boxed so that [`Store`] can be a trait object.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why a store did not do what it was asked. The texts name what happened and, where there is a way out, what
/// to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Disk full, read-only, locked by another process, or out of reach. It can pass by itself: callers
    /// answer 503 and try again later.
    #[error("the database cannot be used at present: {0}")]
    Unavailable(String),
    /// What is on disk is not what was written there.
    #[error("the database is damaged: {0}; put a good copy in its place, or move it away to begin anew")]
    Corrupt(String),
    /// Written by a newer program.
    #[error(
        "the database has version {found} and this program knows versions up to {known}; use the newer \
         program, or another data directory"
    )]
    Newer {
        /// The version on disk.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// A newer process of the relay has written there.
    #[error("another relay has taken over from this one: try again shortly")]
    Superseded,
    /// Anything else, such as a broken rule of the schema: a defect of this program.
    #[error("the database failed: {0}")]
    Other(String),
}

/// A tunnel as it is kept. All times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelRow {
    /// Id of the tunnel.
    pub id: Uuid,
    /// The name in the URL; one row per name.
    pub name: String,
    /// Name of the key that owns it.
    pub owner: String,
    /// Whether the owner chose the name; `false`: the relay made it up.
    pub chosen: bool,
    /// Port of the target on the client's machine, for display.
    pub local_port: i64,
    /// Lifetime asked for, in seconds; 0 is none.
    pub ttl_seconds: u64,
    /// Name of the client's machine, for display.
    pub device_name: Option<String>,
    /// What made the tunnel, for display.
    pub source: Option<String>,
    /// `Host` that the target sees instead of the viewer's.
    pub host_header: Option<String>,
    /// Whether a data socket may carry more than one request.
    pub reuse: bool,
    /// User and password that viewers must give, as hashed by `auth::password`.
    pub auth: Option<String>,
    /// What viewers speak: `http`, `tcp` or `tls`.
    pub kind: String,
    /// The relay's port that belongs to the tunnel; one row per port.
    pub port: Option<u16>,
    /// The PROXY protocol that the target is spoken to: `v1` or `v2`.
    pub proxy_protocol: Option<String>,
    /// What the target speaks, where that is not HTTP/1.1: `h2`.
    pub target_proto: Option<String>,
    /// Several clients may serve the tunnel at the same time, and so viewers are shared among them.
    pub replica: Option<Balance>,
    /// What its owner wants of viewers, as JSON.
    pub policy: Option<String>,
    /// Hosts of its owner's own, with spaces between them.
    pub domains: Option<String>,
    /// When the tunnel was created.
    pub created_at: i64,
    /// When it ends; `None` is never.
    pub expires_at: Option<i64>,
    /// Whether viewers are turned away.
    pub suspended: bool,
    /// Whether its owner closed it; the name stays reserved all the same.
    pub closed: bool,
    /// Until when the name is kept for its owner.
    pub reserved_until: i64,
    /// Bytes from viewers to the target.
    pub bytes_in: u64,
    /// Bytes from the target to viewers.
    pub bytes_out: u64,
    /// Requests of viewers.
    pub requests: u64,
    /// When the last request came; `None` is never.
    pub last_active: Option<i64>,
    /// Of the process that wrote the row last (see [`Store::begin`]); [`Store::put_tunnel`] writes its own.
    pub generation: i64,
}

/// What has changed on a tunnel in use since the last time. Two processes may serve a tunnel while one replaces the other,
/// so the counters are differences, each of which is saved once, and the times only grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// Id of the tunnel; an unknown one is passed over.
    pub id: Uuid,
    /// Bytes from viewers to the target.
    pub bytes_in: u64,
    /// Bytes from the target to viewers.
    pub bytes_out: u64,
    /// Requests of viewers.
    pub requests: u64,
    /// When the last request came, in Unix milliseconds.
    pub last_active: Option<i64>,
    /// Until when the name is kept for its owner, in Unix milliseconds.
    pub reserved_until: i64,
}

/// How [`Store::put_tunnel`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The row is on disk.
    Stored,
    /// The name is reserved for another owner; nothing was changed.
    Taken,
    /// The port belongs to another name; nothing was changed.
    PortTaken,
    /// A process of a later generation has written the row; nothing was changed.
    Newer,
}

/// A port of the relay that belongs to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRow {
    /// The port.
    pub port: u16,
    /// Name of the tunnel.
    pub name: String,
    /// Name of the key that owns both.
    pub owner: String,
}

/// A key as it is listed; the secret itself is kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Name of the key, which is the owner of its tunnels. A name may occur again once it is revoked.
    pub name: String,
    /// When it was created, in Unix milliseconds. Together with the name it says which key it is.
    pub created_at: i64,
    /// When it was revoked, in Unix milliseconds; `None`: it is live.
    pub revoked_at: Option<i64>,
}

/// A certificate that was ordered from an authority.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// What it was ordered for; `*.` begins a wildcard.
    pub name: String,
    /// The directory of the authority that issued it.
    pub directory: String,
    /// The certificate and those of its authorities, in PEM.
    pub chain: String,
    /// Its private key, in PEM.
    pub key: String,
}

impl fmt::Debug for CertificateRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is nobody's to read.
        f.debug_struct("CertificateRow").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Where tunnels and keys are kept. What has been answered survives the end of the process, however it ends.
pub trait Store: Send + Sync + 'static {
    /// Begins the life of a relay process: its generation, which is higher than that of every process before it. Tunnels
    /// whose reservation has ended are deleted. While nothing can be written, it is the last one's again.
    fn begin(&self) -> Reply<'_, i64>;
    /// All tunnels whose reservation still runs.
    fn load_tunnels(&self) -> Reply<'_, Vec<TunnelRow>>;
    /// Adds the tunnel, or replaces the one of the same name, unless that name is reserved for another owner or a later
    /// process has written there. The counters of a row that has the same id stay as they are. A port is taken from a
    /// tunnel of the same owner that has ended, and from one whose reservation has, but from no other.
    fn put_tunnel(&self, row: TunnelRow) -> Reply<'_, Put>;
    /// All ports that belong to a name whose reservation still runs, in order.
    fn ports(&self) -> Reply<'_, Vec<PortRow>> {
        let port = |row: TunnelRow| Some(PortRow { port: row.port?, name: row.name, owner: row.owner });
        Box::pin(async move {
            let mut ports: Vec<_> = self.load_tunnels().await?.into_iter().filter_map(port).collect();
            ports.sort_by_key(|row| row.port);
            Ok(ports)
        })
    }
    /// Adds what has changed on several tunnels: on all of them or, on an error, none.
    fn save_activity(&self, rows: Vec<Activity>) -> Reply<'_, ()>;
    /// Adds a live key. `false`: a live key of that name exists already; the name of a revoked key is free
    /// again.
    fn create_key(&self, name: String, hash: [u8; 32]) -> Reply<'_, bool>;
    /// Revokes the live key of that name. `false`: there is none.
    fn revoke_key(&self, name: String) -> Reply<'_, bool>;
    /// All keys, the revoked ones too, oldest first.
    fn keys(&self) -> Reply<'_, Vec<KeyRow>>;
    /// The live key with that hash (`auth::keys::hash_key`).
    fn find_key(&self, hash: [u8; 32]) -> Reply<'_, Option<KeyRow>>;
    /// Whether another process has written since the last call, or since the store was opened.
    fn changed(&self) -> Reply<'_, bool>;
    /// All certificates that were ordered.
    fn certificates(&self) -> Reply<'_, Vec<CertificateRow>>;
    /// Adds a certificate, or replaces the one of the same name.
    fn put_certificate(&self, row: CertificateRow) -> Reply<'_, ()>;
    /// The account at the authority of that directory, as it was put.
    fn acme_account(&self, directory: String) -> Reply<'_, Option<String>>;
    /// Adds or replaces it.
    fn put_acme_account(&self, directory: String, credentials: String) -> Reply<'_, ()>;
    /// Calls that wait for their turn.
    fn waiting(&self) -> usize {
        0
    }
    /// What its calls came to; `None`: that is not counted.
    fn tally(&self) -> Option<&Tally> {
        None
    }
}
