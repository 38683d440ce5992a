//! The body of a request to the admin listener: short, and there soon.

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::problem::Problem;
use crate::proto::limits::admin::{BODY_BYTES, BODY_WAIT};
use crate::relay::object::object;

/// All of it.
pub async fn read(body: Body) -> Result<Bytes, Problem> {
    match timeout(BODY_WAIT, Limited::new(body, BODY_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(BODY_BYTES)),
        Ok(Err(_)) => Err(Problem::body("the body broke off; send it again")),
        Err(_) => Err(Problem::body("the body took too long; send it at once")),
    }
}

/// The JSON object that it is. No body is an empty one.
pub async fn json<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let body = read(body).await?;
    let body = if body.trim_ascii().is_empty() { &b"{}"[..] } else { &body };
    object(body).map_err(Problem::body)
}
