//! Exposes a port of this machine: `ADIT_RELAY=https://… ADIT_KEY=… cargo run --example expose_port 3000`.

use std::error::Error;

use adit::client::Tunnel;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).unwrap_or("3000".into()).parse()?;
    let relay = Tunnel::to(std::env::var("ADIT_RELAY")?).key(std::env::var("ADIT_KEY")?);
    let tunnel = relay.expose_port(port).await?;
    println!("{}", tunnel.url());
    tokio::signal::ctrl_c().await?;
    tunnel.shutdown().await;
    Ok(())
}
