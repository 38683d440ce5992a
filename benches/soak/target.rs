//! The private service behind all tunnels: what it does is in the path.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::http::{Head, check_body, send_body};

/// Between two server-sent events.
const EVENT_EVERY: Duration = Duration::from_millis(30);

/// Starts it: where it listens. It ends with `tasks`.
pub async fn start(tasks: &mut JoinSet<()>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = connections.join_next() => {}
                Ok((stream, _)) = listener.accept() => {
                    // Viewers that abort end it early: what it saw is theirs to judge.
                    connections.spawn(async move { drop(serve(stream).await) });
                }
            }
        }
    });
    Ok(address)
}

/// `/down/N`, `/up`, `/events/N`, `/echo` (WebSocket), `/endless`; anything else is never answered.
async fn serve(stream: TcpStream) -> Result<()> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    while let Some(head) = Head::read(&mut stream).await? {
        let path = head.part(1).to_owned();
        let mut words = path.split('/').skip(1);
        let (what, number) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let number = number.parse().unwrap_or(0);
        match what {
            "down" => {
                stream
                    .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {number}\r\n\r\n").as_bytes())
                    .await?;
                send_body(&mut stream, number).await?;
            }
            "up" => {
                let checked = check_body(&mut stream, head.length()).await;
                let status = if checked.is_ok() { "200 OK" } else { "422 Unprocessable Content" };
                stream
                    .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())
                    .await?;
                checked?;
            }
            "events" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await?;
                for event in 0..number {
                    stream.write_all(format!("data: {event}\n\n").as_bytes()).await?;
                    sleep(EVENT_EVERY).await;
                }
                return Ok(());
            }
            "endless" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                return send_body(&mut stream, u64::MAX).await;
            }
            "echo" => return echo(stream, &head).await,
            _ => std::future::pending().await,
        }
    }
    Ok(())
}

async fn echo(mut stream: BufReader<TcpStream>, head: &Head) -> Result<()> {
    let Some(key) = head.get("sec-websocket-key") else { bail!("no WebSocket") };
    let accept = derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_close() {
            break;
        }
        if message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
