//! The accept loop of the listeners for operators: so many connections at a time, in tasks that end with it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Shared;
use crate::proto::limits::ACCEPT_PAUSE;

/// Serves each connection until all is dropped, during a shutdown, too. A successor takes the listener; then what was
/// accepted is served to its end. Those beyond `most` wait to be accepted.
pub async fn each<F>(
    listener: Arc<TcpListener>,
    shared: &Shared,
    most: usize,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.ending.handed_over() => break,
            // Taken out as they end, so that they do not gather.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < most => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (serving, counted) = (serve(stream, peer), shared.open.admin.hold());
        connections.spawn(async move {
            let _counted = counted;
            serving.await;
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
