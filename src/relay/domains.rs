//! Proof that whoever asks for a host of their own is its owner: a TXT entry in DNS that names the key.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::time::timeout;

use crate::auth::Owner;
use crate::proto::limits::domains::PROOF_WAIT;

/// How owners prove their hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DomainProof {
    /// By a TXT entry.
    #[default]
    Dns,
    /// Not at all: every key may have every host that is free. For relays whose keys trust each other.
    Off,
}

/// Why a host was not had. The texts say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// The entry is not there, or another.
    #[error(
        "the DNS entry that proves that {host} is yours was not found: set a TXT entry at _adit.{host} with the text \
         adit-owner={owner}, and try again when it can be seen"
    )]
    Missing {
        /// The host.
        host: String,
        /// The key's name.
        owner: String,
    },
    /// DNS cannot be asked now.
    #[error("whether {host} is yours cannot be looked up at present ({error}); try again later")]
    Unavailable {
        /// The host.
        host: String,
        /// The resolver's words.
        error: String,
    },
}

/// Looks entries up.
#[derive(Clone)]
pub struct Prover {
    proof: DomainProof,
    /// Or why there is none.
    resolver: Result<Arc<TokioResolver>, String>,
}

impl Prover {
    /// Asks `server`, or else the servers of the system. Only made where it is needed.
    pub fn new(proof: DomainProof, server: Option<SocketAddr>) -> Self {
        let builder = match server {
            _ if proof == DomainProof::Off => return Self { proof, resolver: Err("off".to_owned()) },
            Some(server) => {
                let mut asked = NameServerConfig::udp_and_tcp(server.ip());
                for connection in &mut asked.connections {
                    connection.port = server.port();
                }
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![asked]);
                Ok(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
            }
            None => TokioResolver::builder_tokio(),
        };
        let resolver = builder.and_then(|mut builder| {
            // An entry that was just set must be found, and one that was taken away must not.
            builder.options_mut().cache_size = 0;
            builder.build()
        });
        Self { proof, resolver: resolver.map(Arc::new).map_err(|error| error.to_string()) }
    }

    /// Whether `host` says that it is `owner`'s.
    pub async fn prove(&self, host: &str, owner: &Owner) -> Result<(), Unproven> {
        if self.proof == DomainProof::Off {
            return Ok(());
        }
        let unavailable = |error: String| Unproven::Unavailable { host: host.to_owned(), error };
        let resolver = self.resolver.as_ref().map_err(|error| unavailable(error.clone()))?;
        let missing = || Unproven::Missing { host: host.to_owned(), owner: owner.as_str().to_owned() };
        let asked = timeout(PROOF_WAIT, resolver.txt_lookup(format!("_adit.{host}."))).await;
        let found = match asked.map_err(|_| unavailable("no answer in time".to_owned()))? {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() => return Err(missing()),
            Err(error) => return Err(unavailable(error.to_string())),
        };
        let wanted = format!("adit-owner={}", owner.as_str());
        let says = found.answers().iter().any(|record| match &record.data {
            hickory_resolver::proto::rr::RData::TXT(text) => text.txt_data.concat() == wanted.as_bytes(),
            _ => false,
        });
        if says { Ok(()) } else { Err(missing()) }
    }
}
