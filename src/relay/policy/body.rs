//! Signed bodies: held until their signature was checked, and then sent on as they came.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::proto::http1::RequestBody;
use crate::proto::limits::policy::SIGNED_BODY_WAIT;
use crate::relay::errors::Cause;
use crate::relay::exchange::UploadError;
use crate::tunnel::policy::{Holding, Policy};

/// A body that has come as a whole.
pub struct Body {
    /// What came.
    pub data: Bytes,
    /// What came behind it.
    pub trailers: Option<HeaderMap>,
    /// Its bytes count until they are with the target.
    pub holding: Holding,
}

impl Body {
    /// How it is framed towards the target: its length is known now. Where something came behind it, it stays chunked.
    pub fn framing(&self, came: RequestBody) -> RequestBody {
        match came {
            RequestBody::Chunked if self.trailers.is_none() => RequestBody::Length(self.data.len() as u64),
            came => came,
        }
    }
}

/// Reads the body of a request, if all signatures that the policy wants are there and bear it out.
pub async fn verified(
    policy: &Arc<Policy>,
    headers: &HeaderMap,
    body: Incoming,
    framing: RequestBody,
) -> Result<Body, Cause> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // What is wrong without a look at the body is refused before it was read.
    let claims: Option<Vec<_>> =
        policy.signatures.iter().map(|signature| signature.claimed(headers, now)).collect();
    let claims = claims.ok_or(Cause::SignatureRefused)?;
    let limit = policy.signed_body();
    if let RequestBody::Length(length) = framing
        && length > limit
    {
        return Err(Cause::BodyTooLarge(limit));
    }
    let whole = timeout(SIGNED_BODY_WAIT, read(policy, body, limit)).await;
    let whole = whole.map_err(|_| Cause::SlowBody)??;
    // All of them are looked at, whichever is wrong.
    let held = claims.iter().fold(true, |held, claim| held & claim.holds(&whole.data));
    if held { Ok(whole) } else { Err(Cause::SignatureRefused) }
}

async fn read(policy: &Arc<Policy>, mut body: Incoming, limit: u64) -> Result<Body, Cause> {
    let (mut whole, mut trailers, mut holding) = (BytesMut::new(), None, policy.hold());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| UploadError::Viewer(error).cause())?;
        match frame.into_data() {
            Ok(data) => {
                if (whole.len() + data.len()) as u64 > limit {
                    return Err(Cause::BodyTooLarge(limit));
                }
                if !holding.more(data.len()) {
                    return Err(Cause::SignatureBusy);
                }
                whole.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok(Body { data: whole.freeze(), trailers, holding })
}
