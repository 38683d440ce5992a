//! Calls of the collector: HTTP/1.1, a connection for each, within a deadline.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::proto::limits::spans::{ANSWER_BYTES, CALL_WAIT};
use crate::stream::call::call_url;
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
            timeout(CALL_WAIT, call_url(tls.as_ref(), request.map(Full::new), ANSWER_BYTES))
                .await
                .map_err(late)?
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
