//! A build without spans: they are never there, and the compiler knows it.

use std::sync::Arc;

use http::{HeaderMap, Request};

use super::{Ended, SpansError};
use crate::proto::trace::TraceId;

/// There are none.
pub enum Spans {}

/// There is none.
pub enum Span {}

impl Spans {
    /// An endpoint is an error.
    pub fn open(endpoint: Option<&str>) -> Result<Option<Arc<Self>>, SpansError> {
        endpoint.map_or(Ok(None), |_| Err(SpansError::NotBuilt))
    }

    /// Never called.
    pub fn begin<B>(self: &Arc<Self>, _: &Request<B>, _: bool) -> Option<Span> {
        match **self {}
    }

    /// Never called.
    pub async fn finish(&self) {
        match *self {}
    }
}

impl Span {
    /// Never called.
    pub fn trace(&self) -> TraceId {
        match *self {}
    }

    /// Never called.
    pub fn pass_on(&self, _: &mut HeaderMap) {
        match *self {}
    }

    /// Never called.
    pub fn end(self, _: &Ended<'_>) {
        match self {}
    }
}
