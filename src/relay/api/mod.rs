//! The REST API under `/v1` and the WebSocket endpoints of clients.

mod counted;
mod error;
mod policy;
mod session;
mod sockets;
mod tunnels;
mod turned_away;

pub use counted::Counted;
pub use error::ApiFailure;
use error::Refusals;
pub use sockets::{Caller, upgraded};

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use http::HeaderMap;
use tokio_util::task::TaskTracker;
use utoipa::OpenApi;

use super::counts::Open;
use super::ending::Ending;
use super::route::Routes;
use crate::auth::{Keys, Principal, Refused};
use crate::link::peer::Predecessor;
use crate::link::sockets::Pending;
use crate::proto::api::{API_VERSION, Health, Version};
use crate::proto::limits::Limits;
use crate::relay::domains::Prover;
use crate::relay::room::Room;
use crate::tunnel::{Registry, Tunnel};

/// What the handlers need.
#[derive(Clone)]
pub struct Api {
    /// The tunnels.
    pub registry: Arc<Registry>,
    /// The keys.
    pub keys: Arc<Keys>,
    /// Connections waiting for their data socket.
    pub pending: Arc<Pending>,
    /// The process before us, which knows other such connections.
    pub predecessor: Predecessor,
    /// Whether the relay ends.
    pub ending: Arc<Ending>,
    /// For public URLs.
    pub routes: Routes,
    /// Looks up whose a host is.
    pub prover: Prover,
    /// Limits of the sockets.
    pub limits: Arc<Limits>,
    /// Control sockets under way.
    pub sessions: TaskTracker,
    /// What is open.
    pub open: Arc<Open>,
    /// Room for connections.
    pub room: Arc<Room>,
    /// Calls that were refused.
    pub refusals: Arc<Counted>,
}

impl Api {
    /// The tunnel with that id. One that is not known may have been made by the process before us a moment ago.
    async fn tunnel(&self, id: &str) -> Option<Arc<Tunnel>> {
        let known = self.registry.by_id(id);
        if known.is_some() || !self.predecessor.is_alive() {
            return known;
        }
        self.registry.learn().await;
        self.registry.by_id(id)
    }

    /// Who the bearer of the key or token is.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Refused> {
        self.keys.authenticate(headers.get(http::header::AUTHORIZATION)).await
    }
}

/// All routes of the relay's own hosts.
pub fn router(api: Api) -> Router {
    let policy_body = axum::extract::DefaultBodyLimit::max(tunnels::MAX_POLICY_BODY);
    let told = (Arc::clone(&api.refusals), Arc::clone(&api.registry));
    Router::new()
        .route("/", get(|| async { concat!("Adit relay ", env!("CARGO_PKG_VERSION"), "\n") }))
        .route("/health", get(health))
        .route("/v1/version", get(version))
        .route("/v1/tunnels", get(tunnels::list).post(tunnels::create).layer(policy_body))
        .route("/v1/tunnels/{id}", get(tunnels::get).delete(tunnels::delete))
        .route(
            "/v1/tunnels/{id}/policy",
            get(policy::get).put(policy::put).delete(policy::delete).layer(policy_body),
        )
        .route("/v1/tunnels/{id}/suspend", post(tunnels::suspend))
        .route("/v1/tunnels/{id}/extend", post(tunnels::extend))
        .route("/v1/tunnels/{id}/inspection", post(tunnels::inspection))
        .route("/v1/tunnels/{id}/requests", get(tunnels::requests))
        .route("/ws/control", get(sockets::control))
        .route("/ws/data", get(sockets::data))
        .fallback(|| async { ApiFailure::NotFound })
        .method_not_allowed_fallback(|| async { ApiFailure::MethodNotAllowed })
        .layer(axum::extract::DefaultBodyLimit::max(tunnels::MAX_BODY))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api.ending), error::unless_draining))
        .layer(axum::middleware::from_fn_with_state(told, error::with_request_id))
        .with_state(api)
}

/// The API's description, as it stands in `docs/openapi.json`.
#[derive(OpenApi)]
#[openapi(
    info(title = "Adit", description = "Tunnels of one key. See protocol.md for the WebSockets."),
    paths(
        health,
        version,
        tunnels::list,
        tunnels::create,
        tunnels::get,
        tunnels::delete,
        policy::get,
        policy::put,
        policy::delete,
        tunnels::suspend,
        tunnels::extend,
        tunnels::inspection,
        tunnels::requests
    ),
    modifiers(&BearerKey, &AsWritten)
)]
struct Description;

struct BearerKey;

impl utoipa::Modify for BearerKey {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        openapi.components.get_or_insert_default().add_security_scheme("key", scheme);
    }
}

/// Says what a relay writes and asks for. The types are more lenient when read, as other relays leave fields out, and
/// that leniency would show as defaults.
struct AsWritten;

impl utoipa::Modify for AsWritten {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::{RefOr, Schema};
        let schemas = &mut openapi.components.get_or_insert_default().schemas;
        for (name, schema) in schemas {
            let RefOr::T(Schema::Object(object)) = schema else { continue };
            for property in object.properties.values_mut() {
                if let RefOr::T(Schema::Object(property)) = property {
                    property.default = None;
                }
            }
            let required: fn(&str) -> bool = match name.as_str() {
                "CreateTunnel" => |_| false,
                // Texts are short for these, and what is absent is as usual.
                "Policy" => |_| false,
                "Verify" => |field| field == "secret",
                // Relays that know of no such thing leave `policy`, `proto` and `clients` out.
                "Tunnel" => |field| {
                    !matches!(
                        field,
                        "name"
                            | "device_name"
                            | "source"
                            | "suspended"
                            | "domains"
                            | "remote_port"
                            | "proxy_protocol"
                            | "target_proto"
                            | "replica"
                            | "balance"
                            | "policy"
                            | "proto"
                            | "clients"
                    )
                },
                _ => continue,
            };
            object.required = object.properties.keys().filter(|field| required(field)).cloned().collect();
        }
    }
}

/// The OpenAPI document, as pretty JSON.
pub fn openapi() -> String {
    Description::openapi().to_pretty_json().unwrap_or_default() + "\n"
}

/// Whether the relay is up. Needs no key; all values are strings.
#[utoipa::path(get, path = "/health", responses((status = 200, description = "It is up", body = Health)))]
async fn health() -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api_version: API_VERSION.to_owned(),
    })
}

/// Version of the relay and of its API.
#[utoipa::path(get, path = "/v1/version", security(("key" = [])),
    responses((status = 200, description = "Both versions", body = Version), Refusals))]
async fn version(State(api): State<Api>, headers: HeaderMap) -> Result<Json<Version>, ApiFailure> {
    api.authenticate(&headers).await?;
    Ok(Json(Version { version: env!("CARGO_PKG_VERSION").to_owned(), api_version: API_VERSION.to_owned() }))
}
