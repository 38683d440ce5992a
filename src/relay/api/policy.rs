//! `/v1/tunnels/{id}/policy`: what an owner wants of viewers, read and changed while the tunnel is in use.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};

use super::Api;
use super::error::TunnelRefusals;
use super::tunnels::{Answer, MAX_POLICY_BODY, find, read, still_there};
use crate::proto::api::ApiError;
use crate::proto::policy::Policy;
use crate::tunnel::Tunnel;

/// The policy of a tunnel, without its secrets; an empty object where there is none.
#[utoipa::path(get, path = "/v1/tunnels/{id}/policy", security(("key" = [])), params(("id" = String, Path, description = "UUID of the tunnel")),
    responses((status = 200, description = "The policy; `***` stands for each secret", body = Policy), TunnelRefusals))]
pub async fn get(State(api): State<Api>, headers: HeaderMap, Path(id): Path<String>) -> Answer<Json<Policy>> {
    let tunnel = find(&api, &headers, &id).await?;
    Ok(Json(show(&tunnel)))
}

/// Replaces the policy of a tunnel for all requests from now on; what is under way goes on. A secret that is written as
/// `***` stays what it is, if its rule is otherwise the same.
#[utoipa::path(put, path = "/v1/tunnels/{id}/policy", security(("key" = [])), params(("id" = String, Path, description = "UUID of the tunnel")),
    request_body = Policy, responses((status = 200, description = "The policy that is in force now", body = Policy),
        (status = 400, description = "It contradicts itself or cannot be read; `error` names all that is wrong", body = ApiError),
        (status = 413, description = "The body is over 192 KiB", body = ApiError), TunnelRefusals))]
pub async fn put(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Answer<Json<Policy>> {
    let tunnel = find(&api, &headers, &id).await?;
    let wanted: Policy = read(body, MAX_POLICY_BODY)?;
    still_there(api.registry.set_policy(&tunnel, Some(wanted)).await?)?;
    tracing::info!(tunnel = tunnel.name, owner = tunnel.owner.as_str(), "tunnel policy replaced");
    Ok(Json(show(&tunnel)))
}

/// Takes the policy of a tunnel away: everybody may come.
#[utoipa::path(delete, path = "/v1/tunnels/{id}/policy", security(("key" = [])), params(("id" = String, Path, description = "UUID of the tunnel")),
    responses((status = 204, description = "There is none any more"), TunnelRefusals))]
pub async fn delete(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    let tunnel = find(&api, &headers, &id).await?;
    still_there(api.registry.set_policy(&tunnel, None).await?)?;
    tracing::info!(tunnel = tunnel.name, owner = tunnel.owner.as_str(), "tunnel policy taken away");
    Ok(StatusCode::NO_CONTENT)
}

fn show(tunnel: &Tunnel) -> Policy {
    tunnel.spec().policy.as_ref().map(|policy| policy.shown()).unwrap_or_default()
}
