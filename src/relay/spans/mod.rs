//! Spans of exchanges, for whoever collects traces: one for each, made of its closing record. Only builds with the feature
//! `otlp` have them.

#[cfg(feature = "otlp")]
mod collector;
#[cfg(not(feature = "otlp"))]
mod none;
#[cfg(feature = "otlp")]
mod queue;
#[cfg(feature = "otlp")]
mod sampler;
#[cfg(feature = "otlp")]
mod span;

use http::Method;

#[cfg(not(feature = "otlp"))]
pub use none::{Span, Spans};
#[cfg(feature = "otlp")]
pub use queue::Spans;
#[cfg(feature = "otlp")]
pub use span::Span;

/// Why no spans can be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpansError {
    /// This build cannot.
    #[error("{NOT_BUILT}")]
    NotBuilt,
    /// The address, or what the environment says beside it, cannot be used.
    #[error("otlp-endpoint: {0}")]
    Unusable(String),
}

/// What is said where an operator wants spans of a build that has none.
#[doc(hidden)]
pub const NOT_BUILT: &str = "this build of adit has no OpenTelemetry: build it with `cargo install adit --features otlp`, or \
                             leave otlp-endpoint out";

/// What the closing record of an exchange knows of it.
pub struct Ended<'a> {
    /// Where it was for, if that is known.
    pub tunnel: Option<&'a str>,
    /// As it came.
    pub method: &'a Method,
    /// Without the query.
    pub path: &'a str,
    /// The viewer's address.
    pub viewer: &'a str,
    /// That the viewer was sent.
    pub status: Option<u16>,
    /// What went wrong.
    pub cause: Option<&'static str>,
    /// Bytes of the body from the viewer.
    pub received: u64,
    /// Bytes of the body to the viewer.
    pub sent: u64,
}
