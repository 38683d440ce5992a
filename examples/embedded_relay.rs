//! A relay and a client in one process, on a free port of this machine: `cargo run --example embedded_relay`.

use std::error::Error;
use std::sync::Arc;

use adit::auth::keys::generate_key;
use adit::auth::{Keys, StaticKey};
use adit::client::Tunnel;
use adit::relay::config::RelayConfig;
use adit::relay::{Listeners, Relay};
use adit::store::{Sqlite, Store};
use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let key = generate_key()?;
    // Nothing is kept on disk: tunnels and their names end with the process.
    let store: Arc<dyn Store> = Arc::new(Sqlite::memory()?);
    let keys = Keys::new(Arc::clone(&store), vec![StaticKey { name: "me".into(), secret: key.clone() }]);
    // Browsers find every name below localhost on this machine.
    let config = RelayConfig { base_domain: Some("localhost".into()), ..RelayConfig::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let listeners = Listeners { tcp: vec![listener], ..Listeners::default() };
    let relay = Relay::start(config, listeners, keys, store).await?;

    let router = Router::new().route("/", get(|| async { "hello from inside\n" }));
    let tunnel =
        Tunnel::to(format!("http://{address}")).key(key.expose()).name("inside").serve(router).await?;
    println!("{}", tunnel.url());
    tokio::signal::ctrl_c().await?;
    tunnel.shutdown().await;
    relay.shutdown().await;
    Ok(())
}
