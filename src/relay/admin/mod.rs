//! The admin listener: probes for orchestrators, counts of what is held, and the dashboard with its login.

mod actions;
mod assets;
mod body;
mod events;
mod fleet;
mod guard;
mod lists;
mod live;
mod login;
mod patient;
mod problem;
mod query;
mod rows;
mod sessions;
mod summary;
mod tries;
mod tunnels;

pub use login::{Door, USER};

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_service::Service;

use super::Shared;
use super::counts::counts;
use crate::proto::limits::admin::{BUFFER, CONNECTIONS, STREAMS, WRITE_WAIT};
use crate::tunnel::unix_ms;
use guard::{Peer, guard};
use patient::Patient;
use problem::Problem;
use rows::Rows;

/// After a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all requests of the listener share.
struct Admin {
    shared: Arc<Shared>,
    rows: Rows,
    /// Places of live streams.
    streams: Arc<Semaphore>,
    /// Unix milliseconds.
    started_at: i64,
}

fn router(shared: &Arc<Shared>) -> Router {
    let streams = Arc::new(Semaphore::new(STREAMS));
    let shared = Arc::clone(shared);
    let admin = Admin { shared: Arc::clone(&shared), rows: Rows::default(), streams, started_at: unix_ms() };
    let admin = Arc::new(admin);
    // For programs: metrics have their place here, too.
    let programs = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/counts", get(counts))
        .with_state(Arc::clone(&shared));
    Router::new()
        .route("/", get(login::home))
        .route("/login", get(login::by_link).post(login::by_password))
        .route("/logout", post(login::logout))
        .route("/assets/{*name}", get(assets::file))
        .route("/api/summary", get(lists::summary))
        .route("/api/clients", get(lists::clients))
        .route("/api/clients/{id}", get(lists::client))
        .route("/api/clients/{id}/drain", post(actions::drain))
        .route("/api/clients/{id}/disconnect", post(actions::disconnect))
        .route("/api/tunnels", get(lists::tunnels))
        .route("/api/tunnels/{id}", get(lists::tunnel))
        .route("/api/tunnels/{id}/suspend", post(actions::suspend))
        .route("/api/tunnels/{id}/extend", post(actions::extend))
        .route("/api/tunnels/{id}/close", post(actions::close))
        .route("/api/events", get(lists::events))
        .route("/api/keys", get(lists::keys))
        .route("/api/keys/{name}/revoke", post(actions::revoke))
        .route("/api/live", get(live::live))
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async { Problem::method() })
        .with_state(Arc::clone(&admin))
        .merge(programs)
        .layer(from_fn_with_state(admin, guard))
        .layer(from_fn_with_state(shared, last_of_its_connection))
}

/// Serves until it is dropped, with all its connections; during a shutdown, too. A successor takes the listener.
pub async fn serve(listener: Arc<TcpListener>, shared: Arc<Shared>) {
    let router = router(&shared);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(shared.config.limits.head_wait).max_buf_size(BUFFER);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.ending.handed_over() => break,
            // Taken out as they end, so that they do not gather.
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((place, (stream, peer))) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // What the system takes from us in advance is memory, too, and hides that nobody reads.
        let _ = SockRef::from(&stream).set_send_buffer_size(BUFFER);
        let router = router.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer.ip().to_canonical()));
            router.clone().call(request)
        });
        let serving = http.serve_connection(TokioIo::new(Patient::new(stream, WRITE_WAIT)), service);
        let counted = shared.open.admin.hold();
        connections.spawn(async move {
            let _held = (place, counted);
            drop(serving.await);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The next connection, as soon as there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::sync::OwnedSemaphorePermit, (TcpStream, SocketAddr))> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    Some((place, listener.accept().await.ok()?))
}

/// 200 while requests are taken, by this relay or by its successor; 503 from the moment a shutdown begins.
async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if shared.ending.is_stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "closing\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

/// Whoever keeps a connection is led to the successor.
async fn last_of_its_connection(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if shared.ending.has_begun() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
