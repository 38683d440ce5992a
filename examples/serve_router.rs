//! Serves an axum router on a tunnel, without a local port: `ADIT_RELAY=https://… ADIT_KEY=… cargo run --example
//! serve_router`.

use std::error::Error;

use adit::client::{Tunnel, Viewer};
use axum::Router;
use axum::extract::{Extension, Path};
use axum::routing::get;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let router = Router::new().route("/", get(whoami)).route("/hello/{name}", get(hello));
    let relay = Tunnel::to(std::env::var("ADIT_RELAY")?).key(std::env::var("ADIT_KEY")?);
    let tunnel = relay.serve(router).await?;
    println!("{}", tunnel.url());
    tokio::signal::ctrl_c().await?;
    tunnel.shutdown().await;
    Ok(())
}

async fn whoami(viewer: Option<Extension<Viewer>>) -> String {
    match viewer {
        Some(Extension(viewer)) => format!("you are {}\n", viewer.ip()),
        None => "the relay does not say who you are\n".into(),
    }
}

async fn hello(Path(name): Path<String>) -> String {
    format!("hello, {name}\n")
}
