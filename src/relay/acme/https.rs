//! Calls of the authority: HTTP/1.1 over TLS, a connection for each, within a deadline.

use std::error::Error as StdError;
use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::AcmeError;
use crate::proto::limits::acme::CALL_WAIT;
use crate::stream::tls;

type Failure = Box<dyn StdError + Send + Sync>;

/// The way to the authority.
#[derive(Clone)]
pub struct Https(TlsConnector);

impl Https {
    /// Verified against the certificates in `ca`, or else those of the system.
    pub fn new(ca: Option<&Path>) -> Result<Self, AcmeError> {
        let Some(path) = ca else {
            return tls::verified().map(Self).map_err(|error| AcmeError::Roots(error.to_string()));
        };
        let failed = |error: String| AcmeError::Ca { path: path.to_owned(), error };
        let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        tls::trusting(&pem).map(Self).map_err(failed)
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let connector = self.0.clone();
        Box::pin(async move {
            let late = |_| Error::Str("the authority does not answer in time");
            timeout(CALL_WAIT, call(connector, request)).await.map_err(late)?.map_err(Error::Other)
        })
    }
}

async fn call(
    connector: TlsConnector,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, Failure> {
    let uri = request.uri().clone();
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
    let host = host.ok_or("the authority's addresses begin with https://")?.trim_matches(['[', ']']);
    let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
    let tls = connector.connect(ServerName::try_from(host.to_owned())?, tcp).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    let authority = uri.authority().ok_or("an address without a host")?;
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
    *request.uri_mut() = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).parse()?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let (parts, body) = response.into_parts();
        let body = http_body_util::BodyExt::collect(body).await?.to_bytes();
        Ok::<_, hyper::Error>(http::Response::from_parts(parts, http_body_util::Full::new(body)))
    };
    let mut exchange = std::pin::pin!(exchange);
    // Both in one task, so that nothing is left when the caller is gone.
    let mut connection = std::pin::pin!(connection);
    let response = tokio::select! {
        response = &mut exchange => response?,
        ended = &mut connection => {
            ended?;
            exchange.await?
        }
    };
    Ok(response.into())
}
