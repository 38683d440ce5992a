//! The admin listener: probes for orchestrators, and counts of what is held.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::Shared;
use super::counts::counts;
use super::observe::metrics::metrics;
use super::route::split_host;

/// After a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped, with all its connections; during a shutdown, too. A successor takes the listener.
pub async fn serve(listener: Arc<TcpListener>, shared: Arc<Shared>) {
    let router = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/counts", get(counts))
        .route("/metrics", get(metrics))
        .layer(from_fn(by_own_name))
        .layer(from_fn_with_state(Arc::clone(&shared), last_of_its_connection))
        .with_state(Arc::clone(&shared));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(shared.config.limits.head_wait);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.ending.handed_over() => break,
            // Taken out as they end, so that they do not gather.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let serving = http.serve_connection(TokioIo::new(stream), service);
        let counted = shared.open.admin.hold();
        connections.spawn(async move {
            let _counted = counted;
            drop(serving.await);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
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

/// A page in the operator's browser may let its own name lead to this address, and would then read what is here: only
/// addresses and `localhost` can be nobody else's names. Probes say nothing that is worth it, and come under any name.
async fn by_own_name(request: Request, next: Next) -> Response {
    if !matches!(request.uri().path(), "/healthz" | "/readyz") && !is_own(&request) {
        let text = "ask by address, or as localhost\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    next.run(request).await
}

fn is_own(request: &Request) -> bool {
    let named = request.headers().get_all(header::HOST).iter().map(HeaderValue::to_str);
    let mut asked =
        request.uri().authority().map(|authority| Ok(authority.as_str())).into_iter().chain(named);
    asked.all(|host| {
        host.ok().and_then(split_host).is_some_and(|(host, _)| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
        })
    })
}

/// Whoever keeps a connection is led to the successor.
async fn last_of_its_connection(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if shared.ending.has_begun() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
