//! Connecting to the relay: straight or through a proxy, TCP and then TLS, within ten seconds in all.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::proxy::{self, Proxies};
use super::relay_url::RelayUrl;
use super::{tcp, tls};
use crate::proto::limits::client::CONNECT_WAIT;
use crate::stream::any::AnyStream;
use crate::stream::tls::TlsError;

/// Why the relay could not be reached; the text says what to check.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// The name has no address.
    #[error("the relay's host {host} was not found ({error}): check {given_by}, or the network")]
    Unresolved {
        /// The host.
        host: String,
        /// What the relay's address is from.
        given_by: &'static str,
        /// The resolver's words.
        error: io::Error,
    },
    /// TCP failed.
    #[error("nothing answers at {authority} ({error}): check {given_by}, and that the relay runs")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the relay's address is from.
        given_by: &'static str,
        /// The operating system's words.
        error: io::Error,
    },
    /// Not connected within the deadline.
    #[error("{authority} does not answer within {} seconds: check {given_by}, and the network", CONNECT_WAIT.as_secs())]
    TimedOut {
        /// Host and port.
        authority: String,
        /// What the relay's address is from.
        given_by: &'static str,
    },
    /// The relay does not speak TLS.
    #[error("{authority} does not speak TLS: write http:// if that is meant")]
    NotTls {
        /// Host and port.
        authority: String,
    },
    /// TLS failed, most often over the certificate.
    #[error(
        "no TLS with {authority} ({error}): the relay's certificate must be valid for its name; give --relay-ca FILE for \
         an authority of your own"
    )]
    Tls {
        /// Host and port.
        authority: String,
        /// The TLS library's words.
        error: String,
    },
    /// TLS cannot be used on this machine.
    #[error(transparent)]
    NoTls(#[from] TlsError),
    /// The proxy failed or refused.
    #[error("the proxy {proxy} does not lead to {authority} ({error}): check HTTPS_PROXY and NO_PROXY")]
    Proxy {
        /// The proxy, without user and password.
        proxy: String,
        /// Host and port of the relay.
        authority: String,
        /// What went wrong.
        error: String,
    },
}

/// The way to one relay.
pub struct Dialer {
    relay: RelayUrl,
    /// What the user gave the address by: an option or an argument, for the errors.
    given_by: &'static str,
    proxies: Proxies,
    /// `None`: the certificates of the system.
    tls: Option<TlsConnector>,
}

impl Dialer {
    /// The way to `relay` with the certificates of the system.
    pub fn new(relay: RelayUrl, proxies: Proxies) -> Self {
        Self { relay, given_by: "--relay", proxies, tls: None }
    }

    /// The same, whose errors tell to check `source`, such as the name of an argument, and not `--relay`.
    pub fn naming(self, source: &'static str) -> Self {
        Self { given_by: source, ..self }
    }

    /// The same, with TLS as the caller has set it up.
    pub fn with_tls(self, tls: TlsConnector) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The same, verified against the certificates in `pem` alone. The error says what is wrong with them.
    pub fn trusting(self, pem: &[u8]) -> Result<Self, String> {
        Ok(self.with_tls(tls::trusting(pem)?))
    }

    /// The same with any certificate.
    pub fn trusting_anybody(self) -> Result<Self, TlsError> {
        Ok(self.with_tls(tls::unverified()?))
    }

    /// Where it leads.
    pub fn relay(&self) -> &RelayUrl {
        &self.relay
    }

    /// What the address is from, as errors call it.
    pub(super) fn given_by(&self) -> &'static str {
        self.given_by
    }

    /// A new connection, TLS done.
    pub(super) async fn connect(&self) -> Result<RelayIo, DialError> {
        let late =
            |_| DialError::TimedOut { authority: self.relay.authority().to_owned(), given_by: self.given_by };
        timeout(CONNECT_WAIT, self.reach()).await.map_err(late)?
    }

    async fn reach(&self) -> Result<RelayIo, DialError> {
        let authority = || self.relay.authority().to_owned();
        let transport = match self.proxies.towards(&self.relay) {
            Some(found) => {
                let shown = || proxy::shown(&found);
                let failed = |error| DialError::Proxy { proxy: shown(), authority: authority(), error };
                proxy::connect(&found, &self.relay).await.map_err(failed)?
            }
            None => self.straight().await?,
        };
        if !self.relay.is_tls() {
            return Ok(RelayIo::Plain(transport));
        }
        let connector = self.tls.clone().map_or_else(tls::verified, Ok)?;
        let failed = |error: String| DialError::Tls { authority: authority(), error };
        let name =
            ServerName::try_from(self.relay.host().to_owned()).map_err(|error| failed(error.to_string()))?;
        match connector.connect(name, transport).await {
            Ok(stream) => Ok(RelayIo::Tls(Box::new(stream))),
            Err(error) if tls::is_not_tls(&error) => Err(DialError::NotTls { authority: authority() }),
            Err(error) => Err(failed(tls::words(&error))),
        }
    }

    /// TCP without a proxy.
    async fn straight(&self) -> Result<AnyStream, DialError> {
        let (relay, given_by) = (&self.relay, self.given_by);
        let unresolved = |error| DialError::Unresolved { host: relay.host().to_owned(), given_by, error };
        let addresses = tcp::resolve(relay.host(), relay.port()).await.map_err(unresolved)?;
        let refused = |error| DialError::Connect { authority: relay.authority().to_owned(), given_by, error };
        tcp::connect(&addresses).await.map(AnyStream::Tcp).map_err(refused)
    }
}

/// A connection to the relay.
pub(super) enum RelayIo {
    /// Without TLS.
    Plain(AnyStream),
    /// With TLS.
    Tls(Box<TlsStream<AnyStream>>),
}

impl RelayIo {
    /// Lets the other end see an error instead of an end when this is dropped: TCP's reset.
    pub(super) fn reset_on_close(&self) {
        match self {
            Self::Plain(transport) => transport.reset_on_close(),
            Self::Tls(stream) => stream.get_ref().0.reset_on_close(),
        }
    }
}

macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match $self {
            RelayIo::Plain($io) => $call,
            RelayIo::Tls($io) => $call,
        }
    };
}

impl AsyncRead for RelayIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, out))
    }
}

impl AsyncWrite for RelayIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, data))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::IsCa;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn dialer(url: &str, proxies: Proxies) -> Dialer {
        Dialer::new(RelayUrl::parse(url).unwrap(), proxies)
    }

    #[tokio::test]
    async fn a_connect_proxy_is_told_host_and_port_and_may_ask_for_a_password() {
        let (proxy, port) = listen().await;
        let served = tokio::spawn(async move {
            let (mut stream, _) = proxy.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let count = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            // Nothing before the client speaks: the connector drops what comes along with the proxy's answer.
            let asked = stream.read_u8().await.unwrap();
            stream.write_u8(asked + 1).await.unwrap();
            let (mut second, _) = proxy.accept().await.unwrap();
            let _ = second.read(&mut [0; 1024]).await.unwrap();
            second.write_all(b"HTTP/1.1 407 No\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&head[..count]).into_owned()
        });
        let proxies = Proxies::fixed(&format!("http://user:pass@127.0.0.1:{port}")).unwrap();
        // Plain HTTP goes by CONNECT, too, and the name is left to the proxy.
        let dialer = dialer("http://relay.invalid", proxies);
        let mut io = dialer.connect().await.unwrap();
        io.write_u8(1).await.unwrap();
        assert_eq!(io.read_u8().await.unwrap(), 2);
        let error = dialer.connect().await.err().unwrap().to_string();
        assert!(error.contains("cntlm") && !error.contains("pass@"), "{error}");
        let head = served.await.unwrap();
        assert!(head.starts_with("CONNECT relay.invalid:80 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic dXNlcjpwYXNz\r\n"), "{head}");
    }

    #[tokio::test]
    async fn a_socks_proxy_resolves_the_name() {
        let (proxy, port) = listen().await;
        let served = tokio::spawn(async move {
            let (mut stream, _) = proxy.accept().await.unwrap();
            let mut hello = [0; 3];
            stream.read_exact(&mut hello).await.unwrap();
            stream.write_all(&[5, 0]).await.unwrap();
            let mut asked = vec![0; 5 + "relay.invalid".len() + 2];
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            let said = stream.read_u8().await.unwrap();
            stream.write_u8(said + 1).await.unwrap();
            asked
        });
        let proxies = Proxies::fixed(&format!("socks5://127.0.0.1:{port}")).unwrap();
        let mut io = dialer("http://relay.invalid:8080", proxies).connect().await.unwrap();
        io.write_u8(1).await.unwrap();
        assert_eq!(io.read_u8().await.unwrap(), 2);
        let asked = served.await.unwrap();
        assert_eq!(&asked[5..], [b"relay.invalid".as_slice(), &8080_u16.to_be_bytes()].concat());
    }

    /// What accepts with a certificate for `localhost` that it has signed itself, and the connector that trusts it.
    fn self_signed(is_ca: IsCa) -> (tokio_rustls::TlsAcceptor, TlsConnector) {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.is_ca = is_ca;
        let signing = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&signing).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key)
        .unwrap();
        (tokio_rustls::TlsAcceptor::from(Arc::new(server)), tls::trusting(made.pem().as_bytes()).unwrap())
    }

    #[tokio::test]
    async fn a_certificate_of_an_authority_as_that_of_the_relay_is_explained() {
        let (acceptor, client) = self_signed(IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        let (listener, port) = listen().await;
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(stream).await;
        });
        let dialer = dialer(&format!("https://localhost:{port}"), Proxies::none()).with_tls(client);
        let error = dialer.connect().await.err().unwrap().to_string();
        assert!(error.contains("CA:TRUE"), "{error}");
        served.await.unwrap();
    }

    #[tokio::test]
    async fn tls_is_verified_by_name_and_speaks_of_plain_http() {
        let (acceptor, client) = self_signed(IsCa::NoCa);
        let (listener, port) = listen().await;
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            acceptor.accept(stream).await.unwrap().write_all(b"z").await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(stream).await;
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let url = format!("https://localhost:{port}");
        let by_name = dialer(&url, Proxies::none()).with_tls(client.clone());
        assert_eq!(by_name.connect().await.unwrap().read_u8().await.unwrap(), b'z');
        let by_address = dialer(&format!("https://127.0.0.1:{port}"), Proxies::none()).with_tls(client);
        assert!(matches!(by_address.connect().await, Err(DialError::Tls { .. })));
        assert!(matches!(by_name.connect().await, Err(DialError::NotTls { .. })));
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_port_on_which_nobody_listens_is_named() {
        let (listener, port) = listen().await;
        drop(listener);
        let error =
            dialer(&format!("http://localhost:{port}"), Proxies::none()).connect().await.err().unwrap();
        assert!(error.to_string().contains(&format!("nothing answers at localhost:{port}")), "{error}");
    }
}
