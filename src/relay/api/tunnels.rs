//! `/v1/tunnels`: what the owner of a key does with its tunnels.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::{Refusals, TunnelRefusals};
use super::turned_away::{TurnedAway, Who};
use super::{Api, ApiFailure};
use crate::auth::{Owner, Principal};
use crate::proto::api::{
    self, ApiError, CreateTunnel, Extend, Inspection, InspectionState, Proto, Suspend, Suspended,
};
use crate::proto::duration;
use crate::relay::object::object;
use crate::tunnel::{CreateError, Tunnel, Wanted, rfc3339};

pub(super) type Answer<T> = Result<T, ApiFailure>;

/// Longest body of a call; a create with all fields but an offline page is under 20 KiB.
pub const MAX_BODY: usize = 64 * 1024;
/// Longest body of a call that may bring an offline page, whose 64 KiB take up to twice as much in JSON.
pub const MAX_POLICY_BODY: usize = 192 * 1024;

/// The tunnels of the calling key, oldest first, as a bare array; a token that is limited to one sees that alone.
#[utoipa::path(get, path = "/v1/tunnels", security(("key" = [])),
    responses((status = 200, description = "All of them", body = [api::Tunnel]), Refusals))]
pub async fn list(State(api): State<Api>, headers: HeaderMap) -> Answer<Json<Vec<api::Tunnel>>> {
    let principal = api.authenticate(&headers).await?;
    let mut tunnels = api.registry.owned_by(&principal.owner);
    tunnels.retain(|tunnel| principal.may_use(&tunnel.name));
    Ok(Json(tunnels.iter().map(|tunnel| show(&api, tunnel)).collect()))
}

/// Creates a tunnel, or takes up the caller's own of that name (200). A token that is limited to one name gives it.
#[utoipa::path(post, path = "/v1/tunnels", security(("key" = [])), request_body = CreateTunnel,
    responses((status = 201, description = "It is new", body = api::Tunnel),
        (status = 200, description = "The key had it already; it has the new settings", body = api::Tunnel),
        (status = 400, description = "A field cannot be used; `code` says which", body = ApiError),
        (status = 403, description = "The key has as many tunnels as it may, the token is for another name, or a domain is not proven", body = ApiError),
        (status = 409, description = "The name, the port or a domain is another's, or no port is free", body = ApiError),
        (status = 413, description = "The body is over 192 KiB", body = ApiError),
        (status = 429, description = "The key has created as many tunnels as it may for now; `Retry-After` says for how long", body = ApiError), Refusals))]
pub async fn create(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<(StatusCode, Json<api::Tunnel>), TurnedAway> {
    let mut who = Who::default();
    let created = create_as_asked(&api, &headers, body, &mut who).await;
    created.map_err(|failure| who.turned_away(failure))
}

async fn create_as_asked(
    api: &Api,
    headers: &HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
    who: &mut Who,
) -> Answer<(StatusCode, Json<api::Tunnel>)> {
    let principal = api.authenticate(headers).await?;
    who.owner = Some(principal.owner.as_str().to_owned());
    let request: CreateTunnel = read(body, MAX_POLICY_BODY)?;
    who.tunnel.clone_from(&request.name);
    let request = within_limit(&principal, request)?;
    if api.predecessor.is_alive() {
        // It may have made this tunnel a moment ago.
        api.registry.learn().await;
    }
    let wanted = api.registry.check(&principal.owner, request).await?;
    if wanted.spec.proto == Proto::Tls && wanted.spec.domains.is_empty() && !api.routes.has_base_domain() {
        return Err(CreateError::NoBaseDomain.into());
    }
    prove_domains(api, &principal.owner, &wanted).await?;
    let (tunnel, new) = api.registry.create(&principal.owner, wanted).await?;
    tracing::info!(tunnel = tunnel.name, owner = tunnel.owner.as_str(), new, "tunnel created");
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(show(api, &tunnel))))
}

/// One tunnel of the calling key.
#[utoipa::path(get, path = "/v1/tunnels/{id}", security(("key" = [])), params(("id" = String, Path, description = "UUID of the tunnel")),
    responses((status = 200, description = "The tunnel", body = api::Tunnel), TunnelRefusals))]
pub async fn get(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer<Json<api::Tunnel>> {
    let tunnel = find(&api, &headers, &id).await?;
    Ok(Json(show(&api, &tunnel)))
}

/// What is asked of a deletion.
#[derive(Deserialize)]
pub struct DeleteQuery {
    #[serde(default)]
    unless_connected: bool,
}

/// Ends a tunnel for good. Its clients are told to stop; the name stays reserved for the key.
#[utoipa::path(delete, path = "/v1/tunnels/{id}", security(("key" = [])), params(("id" = String, Path, description = "UUID of the tunnel"),
        ("unless_connected" = Option<bool>, Query, description = "`true`: not while a client serves it")),
    responses((status = 204, description = "It is gone"),
        (status = 409, description = "A client serves it, and `unless_connected` was given", body = ApiError), TunnelRefusals))]
pub async fn delete(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> Answer<StatusCode> {
    let tunnel = find(&api, &headers, &id).await?;
    if query.unless_connected && tunnel.clients() > 0 {
        return Err(ApiFailure::Connected);
    }
    still_there(api.registry.delete(&tunnel).await?)?;
    tracing::info!(tunnel = tunnel.name, owner = tunnel.owner.as_str(), "tunnel deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Turns viewers away with 503, or lets them in again.
#[utoipa::path(post, path = "/v1/tunnels/{id}/suspend", security(("key" = [])), params(("id" = String, Path, description = "UUID of the tunnel")),
    request_body = Suspend, responses((status = 200, description = "Done", body = Suspended),
        (status = 400, description = "The body is not as described", body = ApiError), TunnelRefusals))]
pub async fn suspend(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Answer<Json<Suspended>> {
    let tunnel = find(&api, &headers, &id).await?;
    let Suspend { suspended } = read(body, MAX_BODY)?;
    still_there(api.registry.suspend(&tunnel, suspended).await?)?;
    let status = if suspended { "suspended" } else { "resumed" };
    tracing::info!(tunnel = tunnel.name, owner = tunnel.owner.as_str(), status, "tunnel suspension");
    Ok(Json(Suspended { status: status.to_owned(), suspended: suspended.to_string() }))
}

/// Sets the end of a tunnel to `ttl` from now; `0` is never.
#[utoipa::path(post, path = "/v1/tunnels/{id}/extend", security(("key" = [])), params(("id" = String, Path, description = "UUID of the tunnel")),
    request_body = Extend, responses((status = 200, description = "The tunnel with its new end", body = api::Tunnel),
        (status = 400, description = "The body is not as described, or `ttl` is no duration", body = ApiError),
        TunnelRefusals))]
pub async fn extend(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Answer<Json<api::Tunnel>> {
    let tunnel = find(&api, &headers, &id).await?;
    let Extend { ttl } = read(body, MAX_BODY)?;
    let ttl = duration::parse(&ttl).map_err(CreateError::from)?;
    still_there(api.registry.extend(&tunnel, Some(ttl).filter(|ttl| !ttl.is_zero())).await?)?;
    Ok(Json(show(&api, &tunnel)))
}

/// Switches the recording of requests; this relay records none.
#[utoipa::path(post, path = "/v1/tunnels/{id}/inspection", security(("key" = [])), params(("id" = String, Path, description = "UUID of the tunnel")),
    request_body = Inspection, responses((status = 200, description = "It is off", body = InspectionState),
        (status = 400, description = "The body is not as described", body = ApiError),
        (status = 501, description = "This relay records no requests", body = ApiError), TunnelRefusals))]
pub async fn inspection(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Answer<Json<InspectionState>> {
    find(&api, &headers, &id).await?;
    match read(body, MAX_BODY)? {
        Inspection { enabled: false } => Ok(Json(InspectionState { inspection_enabled: false })),
        Inspection { enabled: true } => Err(ApiFailure::NoInspection),
    }
}

/// The recorded requests: none, as none are recorded.
#[utoipa::path(get, path = "/v1/tunnels/{id}/requests", security(("key" = [])), params(("id" = String, Path, description = "UUID of the tunnel")),
    responses((status = 200, description = "An empty array", body = [Object]), TunnelRefusals))]
pub async fn requests(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer<Json<[(); 0]>> {
    find(&api, &headers, &id).await?;
    Ok(Json([]))
}

/// Each host that the tunnel is to have must be its owner's; those that it has are proven.
async fn prove_domains(api: &Api, owner: &Owner, wanted: &Wanted) -> Answer<()> {
    let proven = wanted.before.as_ref().map(|spec| spec.domains.as_slice()).unwrap_or_default();
    for host in &wanted.spec.domains {
        if api.routes.is_of_relay(host) {
            return Err(ApiFailure::OwnDomain(host.clone()));
        }
        if !proven.contains(host) {
            api.prover.prove(host, owner).await?;
        }
    }
    Ok(())
}

/// The caller's tunnel with that id; another's is not found, so that ids cannot be probed.
pub(super) async fn find(api: &Api, headers: &HeaderMap, id: &str) -> Answer<Arc<Tunnel>> {
    let principal = api.authenticate(headers).await?;
    let own = |tunnel: &Arc<Tunnel>| tunnel.owner == principal.owner && principal.may_use(&tunnel.name);
    api.tunnel(id).await.filter(own).ok_or(ApiFailure::NoTunnel)
}

/// A tunnel that ended between being found and being changed is not found.
pub(super) fn still_there(changed: bool) -> Answer<()> {
    if changed { Ok(()) } else { Err(ApiFailure::NoTunnel) }
}

/// A token for one tunnel creates no other; where no name is given, its own is meant.
fn within_limit(principal: &Principal, mut request: CreateTunnel) -> Answer<CreateTunnel> {
    let Some(only) = &principal.tunnel else { return Ok(request) };
    // Read as the name is later: spaces around it and its case do not count, an empty one is absent.
    match request.name.as_deref().map(str::trim).filter(|name| !name.is_empty()) {
        None => request.name = Some(only.to_string()),
        Some(name) if name.eq_ignore_ascii_case(only.as_str()) => {}
        Some(_) => return Err(ApiFailure::TokenLimited(only.to_string())),
    }
    Ok(request)
}

/// Reads JSON whatever its content type, as the public clients and curl differ in it.
pub(super) fn read<T: DeserializeOwned>(
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
    limit: usize,
) -> Answer<T> {
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiFailure::BodyTooLarge(limit),
        _ => ApiFailure::Body(error.body_text()),
    })?;
    object(&body).map_err(ApiFailure::Body)
}

fn show(api: &Api, tunnel: &Tunnel) -> api::Tunnel {
    let spec = tunnel.spec();
    let rules = spec.policy.as_ref().map(|policy| policy.rules()).unwrap_or_default();
    api::Tunnel {
        id: tunnel.id.to_string(),
        slug: tunnel.name.clone(),
        client_id: tunnel.owner.as_str().to_owned(),
        local_port: i64::from(spec.local_port),
        name: spec.chosen.then(|| tunnel.name.clone()),
        ttl: duration::format(spec.ttl.unwrap_or(Duration::ZERO)),
        mode: "relay".to_owned(),
        created_at: rfc3339(tunnel.created_at),
        expires_at: time(tunnel.expires_at()),
        bytes_in: tunnel.traffic.bytes_in.load(Ordering::Relaxed),
        bytes_out: tunnel.traffic.bytes_out.load(Ordering::Relaxed),
        requests: tunnel.traffic.requests.load(Ordering::Relaxed),
        last_active: time(tunnel.traffic.last_active()),
        suspended: tunnel.is_suspended(),
        connected: tunnel.clients() > 0,
        clients: tunnel.clients() as u64,
        replica: spec.replica.is_some(),
        balance: spec.replica.map(|balance| balance.as_str().to_owned()),
        device_name: spec.device_name.clone(),
        source: spec.source.clone(),
        domains: spec.domains.clone(),
        policy: Some(rules.into_iter().map(str::to_owned).collect()),
        public_url: api.routes.url_of_tunnel(tunnel),
        proto: spec.proto.as_str().to_owned(),
        remote_port: spec.port,
        proxy_protocol: spec.proxy_protocol.map(|version| version.as_str().to_owned()),
        target_proto: spec.http2.then(|| api::TARGET_HTTP2.to_owned()),
    }
}

fn time(unix_ms: Option<i64>) -> String {
    unix_ms.map_or_else(|| api::NEVER.to_owned(), rfc3339)
}
