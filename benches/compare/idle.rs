//! The relay's memory for each idle client, with thousands of simulated base-level clients.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::adit::{KEY, Relay};
use crate::http::Connection;
use crate::machine::Tools;
use crate::process::TempDir;

/// Clients that connect at the same time.
const LANES: usize = 8;
/// What one control socket may take to open.
const OPEN_WAIT: Duration = Duration::from_secs(15);
/// Before the relay's memory is read: long enough for a ping to every client (each 30 s) and its pong.
pub const SETTLE: Duration = Duration::from_secs(35);
/// The same when accuracy does not matter: what the connecting left to do is done.
pub const SETTLE_QUICK: Duration = Duration::from_secs(3);
/// Bytes of each buffer of a simulated client; its memory is not the relay's, but there are thousands.
const BUFFER: usize = 1024;

/// What idle clients cost the relay.
#[derive(Default)]
pub struct Idle {
    /// KiB of memory for each, at each of these numbers of clients.
    pub kib: Vec<(usize, f64)>,
    /// Of one core, for 10,000 of them.
    pub cpu: f64,
}

/// Connects clients, up to each number of `steps`, and reads the relay's memory after `settle`; then its CPU for as long.
pub async fn measure(tools: &Tools, temp: &TempDir, steps: &[usize], settle: Duration) -> Result<Idle> {
    let relay = Relay::start(temp, "idle").await?;
    // The first request of each kind makes the relay allocate things that are no client's own.
    let mut clients = Vec::new();
    connect(relay.address, 0..LANES, &mut clients).await?;
    sleep(settle).await;
    let before = relay.memory_kib()?;

    let mut found = Idle::default();
    let mut open = 0;
    for &step in steps {
        connect(relay.address, LANES + open..LANES + step, &mut clients).await?;
        open = step;
        sleep(settle).await;
        // A client that ended would make the figure look better than it is.
        for lane in &mut clients {
            if let Some(ended) = lane.try_join_next() {
                ended?.context("a simulated idle client was cut off")?;
            }
        }
        let each = (relay.memory_kib()? - before) / step as f64;
        eprintln!("{step} idle clients: {each:.1} KiB each");
        found.kib.push((step, each));
    }
    let clock = || relay.server.cpu_seconds(tools.ticks_per_second);
    let before = clock()?;
    sleep(settle).await;
    found.cpu = (clock()? - before) / settle.as_secs_f64() / open as f64 * 10_000.0;
    eprintln!("10,000 idle clients would take {:.1} % of a core", found.cpu * 100.0);
    Ok(found)
}

/// Connects clients with these numbers, some at a time, and leaves each to a task in one of the new `clients`.
async fn connect(
    relay: SocketAddr,
    numbers: std::ops::Range<usize>,
    clients: &mut Vec<JoinSet<Result<()>>>,
) -> Result<()> {
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let numbers = numbers.clone().skip(lane).step_by(LANES);
        lanes.spawn(async move {
            let mut clients = JoinSet::new();
            if numbers.len() > 0 {
                let mut api = Connection::open(relay).await?;
                for number in numbers {
                    let id = create(&mut api, relay, number).await.context("cannot create an idle tunnel")?;
                    let socket =
                        timeout(OPEN_WAIT, control(relay, &id)).await.context("no handshake in time")?;
                    clients
                        .spawn(idle(socket.with_context(|| format!("no control socket for idle-{number}"))?));
                }
            }
            anyhow::Ok(clients)
        });
    }
    while let Some(lane) = lanes.join_next().await {
        clients.push(lane??);
    }
    Ok(())
}

/// Makes the tunnel `idle-{number}` and returns its id.
async fn create(api: &mut Connection, relay: SocketAddr, number: usize) -> Result<String> {
    let body = format!(r#"{{"local_port":3000,"name":"idle-{number}"}}"#);
    let request = format!(
        "POST /v1/tunnels HTTP/1.1\r\nHost: {relay}\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, body) = api.ask(&request).await?;
    ensure!(status == 200 || status == 201, "status {status}: {}", String::from_utf8_lossy(&body));
    let tunnel: Value = serde_json::from_slice(&body)?;
    Ok(tunnel["id"].as_str().context("the new tunnel has no id")?.to_owned())
}

/// Opens the control socket of a tunnel at base level, that is, without a subprotocol.
async fn control(relay: SocketAddr, id: &str) -> Result<WebSocketStream<TcpStream>> {
    let mut request = format!("ws://{relay}/ws/control?tunnel_id={id}").into_client_request()?;
    request.headers_mut().insert(AUTHORIZATION, format!("Bearer {KEY}").parse()?);
    let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(BUFFER);
    let stream = TcpStream::connect(relay).await?;
    Ok(client_async_with_config(request, stream, Some(config)).await?.0)
}

/// Reads for ever, by which pings are answered; it is an error if the relay ends it.
async fn idle(mut socket: WebSocketStream<TcpStream>) -> Result<()> {
    while let Some(message) = socket.next().await {
        if message?.is_close() {
            break;
        }
    }
    bail!("the relay closed a control socket")
}
