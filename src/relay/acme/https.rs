//! Calls of the authority: HTTP/1.1 over TLS, a connection for each, within a deadline.

use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::AcmeError;
use crate::proto::limits::acme::{ANSWER_BYTES, CALL_WAIT};
use crate::stream::call::{Failure, call_url};
use crate::stream::tls;

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

async fn call(tls: TlsConnector, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Failure> {
    if request.uri().scheme_str() != Some("https") {
        return Err("the authority's addresses begin with https://".into());
    }
    let answer = call_url(Some(&tls), request, ANSWER_BYTES).await?;
    Ok(answer.map(Full::new).into())
}
