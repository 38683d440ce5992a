//! `GET /api/…`: what the dashboard reads.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Asked, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use uuid::Uuid;

use super::problem::Problem;
use super::query::Query;
use super::summary::Summary;
use super::{Admin, actions, events, fleet, tunnels};

type Answer = Result<Response, Problem>;

/// JSON that is written already.
fn json(written: serde_json::Result<Vec<u8>>) -> Answer {
    let written = written.map_err(|_| Problem::failed())?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], written).into_response())
}

/// Reads the query, or says what is wrong with it.
pub fn read(query: Result<Asked<Query>, QueryRejection>) -> Result<Query, Problem> {
    query.map(|Asked(query)| query).map_err(|error| Problem::query(error.body_text()))
}

/// `GET /api/summary`
pub async fn summary(State(admin): State<Arc<Admin>>) -> Answer {
    let work = |admin: &Admin| serde_json::to_vec(&Summary::of(&admin.shared, &admin.snapshot()));
    json(admin.work(work).await?)
}

/// `GET /api/clients`
pub async fn clients(State(admin): State<Arc<Admin>>, query: Result<Asked<Query>, QueryRejection>) -> Answer {
    let ask = fleet::ask(&read(query)?)?;
    json(admin.work(move |admin| serde_json::to_vec(&fleet::page(&admin.snapshot(), &ask))).await?)
}

/// `GET /api/clients/{id}`
pub async fn client(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Answer {
    let id = Uuid::parse_str(&id).map_err(|_| Problem::no_client())?;
    let work = move |admin: &Admin| {
        fleet::find(&admin.snapshot(), id).map(|client| serde_json::to_vec(&client.show_with_spread()))
    };
    json(admin.work(work).await?.ok_or_else(Problem::no_client)?)
}

/// `GET /api/tunnels`
pub async fn tunnels(State(admin): State<Arc<Admin>>, query: Result<Asked<Query>, QueryRejection>) -> Answer {
    let ask = tunnels::ask(&read(query)?)?;
    let work = move |admin: &Admin| {
        serde_json::to_vec(&tunnels::page(&admin.snapshot(), &admin.shared.routes, &ask))
    };
    json(admin.work(work).await?)
}

/// `GET /api/tunnels/{id}`
pub async fn tunnel(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Answer {
    json(tunnels::one(&actions::tunnel(&admin, &id)?, &admin.shared.routes))
}

/// `GET /api/events`
pub async fn events(State(admin): State<Arc<Admin>>, query: Result<Asked<Query>, QueryRejection>) -> Answer {
    let ask = events::ask(&read(query)?)?;
    let work = move |admin: &Admin| serde_json::to_vec(&events::page(&admin.shared.registry.events, &ask));
    json(admin.work(work).await?)
}

/// `GET /api/keys`
pub async fn keys(State(admin): State<Arc<Admin>>) -> Answer {
    let stored = admin.shared.keys.live().await?;
    json(admin.work(move |admin| serde_json::to_vec(&events::keys(&admin.shared, stored))).await?)
}
