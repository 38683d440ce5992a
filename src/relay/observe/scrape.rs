//! The metrics listener: for scrapers and probes at any address, without the rest of what operators see.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::metrics::metrics;
use crate::proto::limits::metrics::{ACCEPT_PAUSE, AT_ONCE, CONNECTION};
use crate::relay::{Shared, admin};

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
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.ending.handed_over() => break,
            // Taken out as they end, so that they do not gather.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < AT_ONCE => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let serving = timeout(CONNECTION, http.serve_connection(TokioIo::new(stream), service));
        let counted = shared.open.admin.hold();
        connections.spawn(async move {
            let _counted = counted;
            drop(serving.await);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
