//! The metrics listener: for scrapers and probes at any address, without the rest of what operators see.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::metrics::metrics;
use crate::proto::limits::metrics::{AT_ONCE, CONNECTION};
use crate::relay::{Shared, accept, admin};

/// Serves until it is dropped, with all its connections; during a shutdown, too. A successor takes the listener.
pub async fn serve(listener: Arc<TcpListener>, shared: Arc<Shared>) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(admin::healthy))
        .route("/readyz", get(admin::ready))
        .with_state(Arc::clone(&shared));
    let mut http = hyper::server::conn::http1::Builder::new();
    // A scrape is rare and a connection cheap, while one that is kept has to be bounded in every way.
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(shared.config.limits.head_wait);
    let serve = |stream: TcpStream, _| {
        let service = TowerToHyperService::new(router.clone());
        let serving = timeout(CONNECTION, http.serve_connection(TokioIo::new(stream), service));
        async { drop(serving.await) }
    };
    accept::each(listener, &shared, AT_ONCE, serve).await;
}
