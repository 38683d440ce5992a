//! Calls of the collector: HTTP/1.1, a connection for each, within a deadline.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::proto::limits::spans::{ANSWER_BYTES, CALL_WAIT};
use crate::sync::lock;

/// Why the last call failed: the exporter keeps that to itself.
pub(super) type Failure = Arc<Mutex<Option<String>>>;

/// The way to the collector.
pub(super) struct Collector {
    /// The exporter has a thread of its own; sockets belong to the runtime.
    pub(super) runtime: Handle,
    /// Where the address begins with `https`.
    pub(super) tls: Option<TlsConnector>,
    pub(super) failure: Failure,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
    {
        let tls = self.tls.clone();
        let calling = self.runtime.spawn(async move {
            let late = |_| HttpError::from("it does not answer in time");
            timeout(CALL_WAIT, call(tls, request)).await.map_err(late)?
        });
        Box::pin(async move {
            let answer = calling.await.unwrap_or_else(|_| Err("the relay is ending".into()));
            let failed = match &answer {
                Ok(answer) if answer.status().is_success() => None,
                Ok(answer) => Some(format!("it answers with {}", answer.status())),
                Err(error) => Some(chain(error.as_ref())),
            };
            *lock(&self.failure) = failed;
            answer
        })
    }
}

/// An error with what is behind it.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

async fn call(tls: Option<TlsConnector>, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let host = request.uri().host().ok_or("an address without a host")?.trim_matches(['[', ']']).to_owned();
    let usual = if tls.is_some() { 443 } else { 80 };
    let tcp = TcpStream::connect((host.as_str(), request.uri().port_u16().unwrap_or(usual))).await?;
    match tls {
        None => exchange(TokioIo::new(tcp), request).await,
        Some(tls) => {
            let stream = tls.connect(ServerName::try_from(host)?, tcp).await?;
            exchange(TokioIo::new(stream), request).await
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let mut request = request.map(Full::new);
    let authority = request.uri().authority().ok_or("an address without a host")?;
    let host = HeaderValue::from_str(authority.as_str())?;
    request.headers_mut().insert(header::HOST, host);
    *request.uri_mut() =
        request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).parse()?;
    let exchange = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await?.to_bytes();
        Ok::<_, HttpError>(Response::from_parts(parts, body))
    };
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    // Both in one task, so that nothing is left when the caller is gone.
    tokio::select! {
        response = &mut exchange => response,
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}
