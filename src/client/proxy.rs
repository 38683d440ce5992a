//! Proxies on the way to the relay: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, or one that was named.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tower_service::Service;

use super::relay_url::RelayUrl;
use super::{tcp, tls};
use crate::stream::any::AnyStream;

/// Why a proxy was refused; the text says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the proxy {0:?} cannot be used: write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT")]
pub struct ProxyUrlError(pub String);

/// Which proxy leads to the relay. Names are resolved by the proxy.
pub struct Proxies {
    matcher: Matcher,
    /// Named by the user for this relay, so that it counts for loopback relays too.
    asked: bool,
}

impl Proxies {
    /// No proxy, whatever the environment says.
    pub fn none() -> Self {
        Self { matcher: Matcher::builder().build(), asked: false }
    }

    /// As the environment says, with curl's meaning of the variables; never for a relay on this machine.
    pub fn from_env() -> Self {
        Self { matcher: Matcher::from_env(), asked: false }
    }

    /// The proxy at `url` for every relay, also one on this machine.
    pub fn fixed(url: &str) -> Result<Self, ProxyUrlError> {
        let matcher = Matcher::builder().all(url.to_owned()).build();
        let found = matcher.intercept(&Uri::from_static("https://relay.invalid/"));
        let usable = found.is_some_and(|found| Kind::of(&found).is_some());
        if usable { Ok(Self { matcher, asked: true }) } else { Err(ProxyUrlError(without_secrets(url))) }
    }

    pub(super) fn towards(&self, relay: &RelayUrl) -> Option<Intercept> {
        if relay.is_loopback() && !self.asked {
            return None;
        }
        self.matcher.intercept(&relay.uri("/")?)
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The matcher leaves secrets out, too.
        f.debug_struct("Proxies").field("matcher", &self.matcher).field("asked", &self.asked).finish()
    }
}

fn without_secrets(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}

enum Kind {
    Http,
    Socks5,
}

impl Kind {
    fn of(proxy: &Intercept) -> Option<Self> {
        match proxy.uri().scheme_str() {
            Some("http" | "https") => Some(Self::Http),
            Some("socks5" | "socks5h") => Some(Self::Socks5),
            _ => None,
        }
    }
}

/// The proxy as it may be shown: without user and password.
pub(super) fn shown(proxy: &Intercept) -> String {
    proxy.uri().to_string().trim_end_matches('/').to_owned()
}

/// A connection to `relay` through `proxy`. The caller sets the deadline.
pub(super) async fn connect(proxy: &Intercept, relay: &RelayUrl) -> Result<AnyStream, String> {
    // The port always stands in it: the connectors take 443 for granted, which is wrong without TLS.
    let host =
        if relay.host().contains(':') { format!("[{}]", relay.host()) } else { relay.host().to_owned() };
    let target: Uri =
        format!("http://{host}:{}/", relay.port()).parse().map_err(|_| "malformed host".to_owned())?;
    let io = match Kind::of(proxy) {
        Some(Kind::Http) => {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), ToProxy);
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            tunnel.call(target).await.map_err(|error| explain(&error))?
        }
        Some(Kind::Socks5) => {
            let mut socks = SocksV5::new(proxy.uri().clone(), ToProxy);
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            socks.call(target).await.map_err(|error| explain(&error))?
        }
        None => return Err("only http, https and socks5 proxies are supported".into()),
    };
    Ok(io.into_inner())
}

/// The error with its innermost reason, and what to do where that is known.
fn explain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(source) = at {
        text = format!("{text}: {source}");
        at = source.source();
    }
    if text.contains("proxy authorization required") {
        text.push_str(
            ": write the user and password into the proxy's URL; for NTLM or Kerberos run a helper such as cntlm or px",
        );
    }
    text
}

/// Connects to the proxy itself.
#[derive(Clone)]
struct ToProxy;

impl Service<Uri> for ToProxy {
    type Response = TokioIo<AnyStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, proxy: Uri) -> Self::Future {
        Box::pin(async move {
            let host = proxy.host().unwrap_or_default();
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let secure = proxy.scheme_str() == Some("https");
            let usual = match proxy.scheme_str() {
                Some("https") => 443,
                Some("http") => 80,
                _ => 1080,
            };
            let addresses = tcp::resolve(host, proxy.port_u16().unwrap_or(usual)).await?;
            let stream = tcp::connect(&addresses).await?;
            if !secure {
                return Ok(TokioIo::new(AnyStream::Tcp(stream)));
            }
            let connector = tls::verified().map_err(io::Error::other)?;
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let stream = connector.connect(name, stream).await?;
            Ok(TokioIo::new(AnyStream::Tls(Box::new(stream.into()))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_relays_use_a_proxy_only_when_it_is_named_for_them() {
        let environment =
            Proxies { matcher: Matcher::builder().all("http://proxy:3128").build(), asked: false };
        let far = RelayUrl::parse("https://relay.example.com").unwrap();
        let near = RelayUrl::parse("http://localhost:8080").unwrap();
        assert_eq!(shown(&environment.towards(&far).unwrap()), "http://proxy:3128");
        assert!(environment.towards(&near).is_none());
        assert!(Proxies::fixed("socks5://proxy:1080").unwrap().towards(&near).is_some());
        assert!(Proxies::none().towards(&far).is_none());
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_refused_without_showing_its_password() {
        for bad in ["ftp://u:secret@a", "socks4://u:secret@a:1", "http://"] {
            let error = Proxies::fixed(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
