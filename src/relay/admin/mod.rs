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
mod totals;
mod tries;
mod tunnels;

pub use login::{Door, USER};

use std::net::SocketAddr;
use std::sync::Arc;

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
use tokio::task::spawn_blocking;
use tower_service::Service;

use super::counts::counts;
use super::fresh::Fresh;
use super::observe::metrics::metrics;
use super::{Shared, accept};
use crate::proto::limits::admin::{AT_ONCE, BUFFER, CONNECTIONS, KEPT, STREAMS, WRITE_WAIT};
use guard::{Peer, guard};
use patient::Patient;
use problem::Problem;
use rows::Snapshot;

/// What all requests of the listener share.
struct Admin {
    shared: Arc<Shared>,
    /// One walk over the registry a second at most, however many look.
    rows: Fresh<Arc<Snapshot>>,
    /// Places of those who make lists.
    places: Arc<Semaphore>,
    /// Places of live streams.
    streams: Arc<Semaphore>,
}

impl Admin {
    fn new(shared: Arc<Shared>) -> Self {
        let (places, streams) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(STREAMS)));
        Self { shared, rows: Fresh::new(KEPT), places, streams }
    }

    /// What there is, or was less than a second ago.
    fn snapshot(&self) -> Arc<Snapshot> {
        self.rows.get_or_make(|| Arc::new(Snapshot::take(&self.shared)))
    }

    /// Runs `work`, which takes milliseconds, beside the async threads, and with few of its sort at a time.
    async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| Problem::failed())?;
        let admin = Arc::clone(self);
        let work = move || {
            let _place = place;
            work(&admin)
        };
        spawn_blocking(work).await.map_err(|_| Problem::failed())
    }
}

fn router(shared: &Arc<Shared>) -> Router {
    let shared = Arc::clone(shared);
    let admin = Arc::new(Admin::new(Arc::clone(&shared)));
    let programs = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/counts", get(counts))
        .route("/metrics", get(metrics))
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
    let serve = |stream: TcpStream, peer: SocketAddr| {
        // What the system takes from us in advance is memory, too, and hides that nobody reads.
        let _ = SockRef::from(&stream).set_send_buffer_size(BUFFER);
        let router = router.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer.ip().to_canonical()));
            router.clone().call(request)
        });
        let serving = http.serve_connection(TokioIo::new(Patient::new(stream, WRITE_WAIT)), service);
        async { drop(serving.await) }
    };
    accept::each(listener, &shared, CONNECTIONS, serve).await;
}

/// 200 while the relay lives.
pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

/// 200 while requests are taken, by this relay or by its successor; 503 from the moment a shutdown begins.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
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
