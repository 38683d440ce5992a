//! A client: its tunnel and the control socket, in the hands of the probe.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Outcome;
use super::data::Data;
use super::rest::Tunnel;
use super::socket::{Came, Socket, message};
use super::viewer::Viewer;
use super::world::World;
use crate::conform::case::Ended;
use crate::proto::frame::Opcode;
use crate::proto::message::Level;

/// The numbers of a session that cases need; what a relay does not tell is that of section 7.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Welcome {
    /// Names the session.
    pub session: String,
    ping_interval_ms: u64,
    pong_timeout_ms: u64,
    claim_ms: u64,
}

impl Default for Welcome {
    fn default() -> Self {
        Self { session: String::new(), ping_interval_ms: 30_000, pong_timeout_ms: 60_000, claim_ms: 10_000 }
    }
}

impl Welcome {
    /// Between two pings of the relay.
    pub fn ping(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }

    /// A client that owes a pong for so long is dead.
    pub fn pong(&self) -> Duration {
        Duration::from_millis(self.pong_timeout_ms)
    }

    /// From `connection` to its data socket.
    pub fn claim(&self) -> Duration {
        Duration::from_millis(self.claim_ms)
    }
}

/// A client of one tunnel.
pub struct Client {
    world: World,
    /// What it serves.
    pub tunnel: Tunnel,
    /// The control socket.
    pub socket: Socket,
    level: Level,
    /// What the relay said first, at level two.
    pub welcome: Welcome,
    /// The same as it came.
    pub first: Value,
}

impl Client {
    /// A client of the base level.
    pub fn base(world: World, tunnel: Tunnel, socket: Socket) -> Self {
        Self { world, tunnel, socket, level: Level::Base, welcome: Welcome::default(), first: Value::Null }
    }

    /// A client of level two; its welcome is read.
    pub async fn two(world: World, tunnel: Tunnel, socket: Socket) -> Outcome<Self> {
        let mut client = Self { level: Level::Two, ..Self::base(world, tunnel, socket) };
        let first = client.hear().await?;
        if first["type"] != "welcome" {
            return Err(Ended::failed("`welcome` is the first message", first.to_string()));
        }
        client.welcome = serde_json::from_value(first.clone()).map_err(|error| {
            Ended::failed("a `welcome` with the fields of 8.1", format!("{first} ({error})"))
        })?;
        client.first = first;
        Ok(client)
    }

    /// The next message of the relay.
    pub async fn hear(&mut self) -> Outcome<Value> {
        self.hear_or("a message on the control socket").await
    }

    async fn hear_or(&mut self, expected: &str) -> Outcome<Value> {
        loop {
            match self.socket.next(expected).await? {
                Came::Ping(_) | Came::Pong(_) => {}
                Came::Data(first) => {
                    if !self.socket.is_text() {
                        return Err(Ended::failed("text messages on the control socket", "a binary one"));
                    }
                    let text = message(&mut self.socket, first, expected).await?;
                    let read =
                        serde_json::from_slice::<Value>(&text).ok().filter(|value| value["type"].is_string());
                    return read.ok_or_else(|| {
                        let text = String::from_utf8_lossy(&text).into_owned();
                        Ended::failed("messages that are JSON objects with a `type`", text)
                    });
                }
                other => return Err(Ended::failed(expected, other.shown())),
            }
        }
    }

    /// The next message of this type; others are passed over.
    pub async fn hear_of(&mut self, kind: &str) -> Outcome<Value> {
        let expected = format!("`{kind}` on the control socket");
        loop {
            let message = self.hear_or(&expected).await?;
            if message["type"] == kind {
                return Ok(message);
            }
        }
    }

    /// Fails if a message of this type comes before a pong that is asked for now.
    pub async fn expect_none_of(&mut self, kind: &str, why: &str) -> Outcome {
        self.socket.send(Opcode::Ping, true, b"sentinel").await?;
        loop {
            match self.socket.next("a pong on the control socket").await? {
                Came::Pong(payload) if payload == b"sentinel"[..] => return Ok(()),
                Came::Data(first) => {
                    let text = message(&mut self.socket, first, "the rest of a message").await?;
                    let text = String::from_utf8_lossy(&text).into_owned();
                    if text.contains(&format!("\"{kind}\"")) {
                        return Err(Ended::failed(format!("no `{kind}`, {why}"), text));
                    }
                }
                Came::Close(..) | Came::Ended(_) => return Ok(()),
                _ => {}
            }
        }
    }

    /// Does something that takes long, and answers the relay's pings meanwhile. What else the relay says is passed over.
    pub async fn meanwhile<T>(&mut self, doing: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let answering = async {
            loop {
                // Silence of the control socket is not what this is about.
                if let Ok(Came::Close(..) | Came::Ended(_)) = self.socket.next("a ping").await {
                    return std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            done = doing => done,
            () = answering => Err(Ended::failed("the control socket stays open", "it ended")),
        }
    }

    /// The same for so long.
    pub async fn wait(&mut self, time: Duration) -> Outcome {
        self.meanwhile(async {
            tokio::time::sleep(time).await;
            Ok(())
        })
        .await
    }

    /// Says something, at level two.
    pub async fn say(&mut self, message: &Value) -> Outcome {
        self.socket.send(Opcode::Text, true, message.to_string().as_bytes()).await
    }

    /// The id of the next viewer's connection.
    pub async fn connection(&mut self) -> Outcome<String> {
        let told = self.hear_of("connection").await?;
        match told["id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => Err(Ended::failed("`connection` with an `id`", told.to_string())),
        }
    }

    /// What its data sockets carry as a key: nothing at base level.
    pub fn data_key(&self) -> &str {
        match self.level {
            Level::Base => "",
            Level::Two => self.world.key(),
        }
    }

    /// Opens the data socket of a connection.
    pub async fn take(&self, id: &str) -> Outcome<Data> {
        let taken = self.world.claim(id, self.data_key()).await?;
        taken.map_err(|answer| Ended::failed("101 for the data socket of a connection", answer.shown()))
    }

    /// Takes up the next connection.
    pub async fn accept(&mut self) -> Outcome<Data> {
        let id = self.connection().await?;
        self.take(&id).await
    }

    /// A viewer that has asked for the front page, and the data socket on which its request has come.
    pub async fn exchange(&mut self) -> Outcome<(Viewer, Data)> {
        let viewer = self.world.asking(&self.tunnel).await?;
        let mut data = self.accept().await?;
        data.request().await?;
        Ok((viewer, data))
    }

    /// A viewer is served from beginning to end: all is well. Its data socket waits for the next request, or has ended.
    pub async fn served(&mut self) -> Outcome<Data> {
        let (mut viewer, mut data) = self.exchange().await?;
        data.say(super::data::OK).await?;
        viewer.answer().await?.must_be(200, "of the target, to a viewer")?;
        Ok(data)
    }

    /// A viewer and its data socket after the target has switched over to a protocol of its own.
    pub async fn upgraded(&mut self) -> Outcome<(Viewer, Data)> {
        let mut viewer = self.world.viewer(&self.tunnel).await?;
        viewer.begin("GET", "/", "Connection: Upgrade\r\nUpgrade: kit\r\n").await?;
        let mut data = self.accept().await?;
        data.request().await?.must_have("upgrade", "kit")?;
        data.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: kit\r\n\r\n").await?;
        let head = viewer.head().await?;
        match head.status.as_u16() {
            101 => Ok((viewer, data)),
            status => Err(Ended::failed("the target's 101 reaches the viewer", format!("status {status}"))),
        }
    }
}
