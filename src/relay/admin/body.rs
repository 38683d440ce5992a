//! The body of a request to the admin listener: short, and there soon.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::problem::Problem;
use crate::proto::limits::admin::{BODY_BYTES, BODY_WAIT};

/// All of it.
pub async fn read(body: Body) -> Result<Bytes, Problem> {
    match timeout(BODY_WAIT, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if is_too_long(&error) => Err(Problem::too_large(BODY_BYTES)),
        Ok(Err(_)) => Err(Problem::body("the body broke off; send it again")),
        Err(_) => Err(Problem::body("the body took too long; send it at once")),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The JSON object that it is. No body is an empty one.
pub async fn json<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let body = read(request.into_body()).await?;
    let body = if body.trim_ascii().is_empty() { &b"{}"[..] } else { body.trim_ascii() };
    // serde would take an array for the fields in their order.
    if body.first() != Some(&b'{') {
        return Err(Problem::body("expected a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| Problem::body(error.to_string()))
}
