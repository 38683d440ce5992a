//! Where the relay is. Everybody connects to the address of its URL, whatever host is asked for: the names of tunnels need no DNS.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::client::RelayUrl;
use crate::stream::any::AnyStream;
use crate::stream::tls;

/// TCP and TLS are done by then, or the relay cannot be reached.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// A relay that can be connected to.
#[derive(Clone)]
pub struct Place {
    url: RelayUrl,
    addresses: Vec<SocketAddr>,
    tls: Option<TlsConnector>,
}

impl Place {
    /// Looks up the host of `url`. The error says what to do.
    pub async fn find(url: RelayUrl) -> Result<Self, String> {
        let found = tokio::net::lookup_host((url.host(), url.port())).await;
        let addresses: Vec<SocketAddr> = found.map(Iterator::collect).unwrap_or_default();
        if addresses.is_empty() {
            return Err(format!("the host {} was not found: check the URL, or the network", url.host()));
        }
        let connector = match (url.is_tls(), url.is_loopback()) {
            (false, _) => None,
            // The kernel vouches for the peer, and self-signed certificates are the rule.
            (true, true) => Some(tls::unverified()),
            (true, false) => Some(tls::verified()),
        };
        let tls = connector.transpose().map_err(|error| error.to_string())?;
        Ok(Self { url, addresses, tls })
    }

    /// What was asked for.
    pub fn url(&self) -> &RelayUrl {
        &self.url
    }

    /// A new connection; with TLS, for the name `host` (a port behind it does not count).
    pub async fn connect(&self, host: &str) -> io::Result<AnyStream> {
        timeout(CONNECT_WAIT, self.reach(host)).await.map_err(|_| {
            let seconds = CONNECT_WAIT.as_secs();
            io::Error::new(io::ErrorKind::TimedOut, format!("not connected within {seconds} seconds"))
        })?
    }

    /// A connection to another port of the relay's machine, without TLS.
    pub async fn port(&self, port: u16) -> io::Result<AnyStream> {
        let mut addresses = self.addresses.clone();
        addresses.iter_mut().for_each(|address| address.set_port(port));
        let stream = timeout(CONNECT_WAIT, TcpStream::connect(&addresses[..])).await??;
        stream.set_nodelay(true)?;
        Ok(AnyStream::Tcp(stream))
    }

    async fn reach(&self, host: &str) -> io::Result<AnyStream> {
        let stream = TcpStream::connect(&self.addresses[..]).await?;
        stream.set_nodelay(true)?;
        let Some(connector) = &self.tls else { return Ok(AnyStream::Tcp(stream)) };
        let name = host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
        });
        let name =
            ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
        let stream = connector.connect(name, stream).await?;
        Ok(AnyStream::Tls(Box::new(stream.into())))
    }
}
