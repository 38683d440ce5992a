//! A target inside this program: a tower service that hyper calls straight from the data socket, without a port.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::sync::lock;

/// Header lines of a request: those that the relay lets through, and its own.
const MAX_HEADERS: usize = 128;

/// What tower calls any error.
type BoxError = Box<dyn Error + Send + Sync>;

/// A byte stream that a service may be given.
pub(in crate::client) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection being served.
pub(in crate::client) type Serving = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Whoever takes connections in this program.
pub(in crate::client) trait Serve: Send + Sync {
    /// Serves `io` to its end, or until it is upgraded.
    fn serve(&self, io: Box<dyn Io>) -> Serving;
}

/// A service that takes connections; equal is only the very same.
#[derive(Clone)]
pub(in crate::client) struct Service(pub(in crate::client) Arc<dyn Serve>);

impl PartialEq for Service {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Service {}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

/// Who asks, as an extension of each request to a service in this program.
///
/// It is the first address in `X-Forwarded-For`. The relay writes that header itself: where viewers come to it directly
/// it is the peer of their connection, and nothing that they could claim. Behind a proxy that the relay trusts it is
/// what this proxy says, which must therefore replace the header and not append to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewer {
    ip: IpAddr,
}

impl Viewer {
    /// The viewer's address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    fn of(headers: &HeaderMap) -> Option<Self> {
        let first = headers.get("x-forwarded-for")?.to_str().ok()?.split(',').next()?.trim();
        first.parse().ok().map(|ip| Self { ip })
    }
}

/// A tower service and a way to have it in many connections at the same time.
pub(super) struct Tower<S>(Mutex<S>);

impl<S> Tower<S> {
    pub(super) fn new(service: S) -> Self {
        Self(Mutex::new(service))
    }
}

impl<S, B> Serve for Tower<S>
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    fn serve(&self, io: Box<dyn Io>) -> Serving {
        let service = lock(&self.0).clone();
        let answer = service_fn(move |mut request: Request<Incoming>| {
            if let Some(viewer) = Viewer::of(request.headers()) {
                request.extensions_mut().insert(viewer);
            }
            let mut service = service.clone();
            async move {
                poll_fn(|cx| service.poll_ready(cx)).await?;
                service.call(request).await
            }
        });
        // No deadline of ours: the relay ends what is idle, and TCP what has no relay any more.
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(io), answer)
            .with_upgrades();
        Box::pin(async move {
            match AssertUnwindSafe(connection).catch_unwind().await {
                Ok(ended) => ended.map_err(io::Error::other),
                Err(panic) => Err(panicked(&*panic)),
            }
        })
    }
}

/// What the service said when it panicked; only this connection ends by it.
fn panicked(panic: &(dyn Any + Send)) -> io::Error {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    tracing::error!(said, "the service panicked");
    io::Error::other("the service panicked")
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::client::target::Target;

    #[tokio::test]
    async fn a_service_can_be_connected_to_and_is_equal_to_itself() {
        let site = Router::new().route("/", get(|| async { "ok" }));
        let (target, other) = (Target::service(site.clone()), Target::service(site));
        assert!(target == target.clone() && target != other);
        assert_eq!((target.to_string().as_str(), target.port()), ("a service of this program", None));
        let mut io = target.connect().await.unwrap();
        io.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{answer}");
    }

    #[test]
    fn the_viewer_is_the_first_address_that_the_relay_tells() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", text.parse().unwrap());
            Viewer::of(&headers).map(|viewer| viewer.ip().to_string())
        };
        assert_eq!(of("203.0.113.7"), Some("203.0.113.7".into()));
        assert_eq!(of("2001:db8::1, 10.0.0.1"), Some("2001:db8::1".into()));
        assert_eq!(of("unknown"), None);
        assert_eq!(Viewer::of(&HeaderMap::new()), None);
    }
}
