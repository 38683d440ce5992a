//! The world of one case: a scripted relay, a scripted target and the client between them, with the verbs of cases.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::call::Call;
use super::control::Control;
use super::data::Data;
use super::process::{Client, Start};
use super::relay::Relay;
use super::settings::{Settings, Variant};
use super::target::{Target, Visit};
use crate::conform::case::Ended;
use crate::conform::trace::Trace;
use crate::proto::frame::Opcode;
use crate::proto::message::{ADIT_1, Level};

/// What tells of no change is looked at so often.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a case gets: nothing runs yet.
pub struct Stage {
    pub(super) settings: Arc<Settings>,
    pub(super) level: Level,
    pub(super) trace: Trace,
    pub(super) key: String,
}

/// The tunnel that was created last.
#[derive(Debug, Clone)]
pub(super) struct Tunnel {
    pub(super) id: String,
    pub(super) slug: String,
}

/// A control session.
pub(super) struct Session {
    pub(super) control: Control,
    pub(super) tunnel: Tunnel,
    /// As `welcome` has named it.
    pub(super) name: String,
}

/// Everything that a case has to do with.
pub(super) struct World {
    pub(super) settings: Arc<Settings>,
    pub(super) level: Level,
    pub(super) trace: Trace,
    pub(super) key: String,
    pub(super) relay: Relay,
    pub(super) target: Target,
    client: Option<Client>,
    /// Handshakes of data sockets that came while another was waited for.
    early: VecDeque<Call>,
}

impl Stage {
    /// Relay and target listen, and the client runs.
    pub(super) fn start(self) -> Result<World, Ended> {
        self.start_as(Variant::Plain)
    }

    /// The same with the client started in another way; skipped where nobody has told which.
    pub(super) fn start_as(self, variant: Variant) -> Result<World, Ended> {
        let mut world = self.prepare()?;
        world.launch(variant)?;
        Ok(world)
    }

    /// Relay and target listen; the client is launched by the case.
    pub(super) fn prepare(self) -> Result<World, Ended> {
        let Self { settings, level, trace, key } = self;
        if level == Level::Two && !settings.facts.offers_two {
            return Err(Ended::Skipped("the client does not offer adit.1".into()));
        }
        let broken = |error| Ended::failed("the kit to listen on loopback", format!("it cannot: {error}"));
        let (relay, target) = (Relay::start(&trace).map_err(broken)?, Target::start(&trace).map_err(broken)?);
        Ok(World { settings, level, trace, key, relay, target, client: None, early: VecDeque::new() })
    }
}

impl World {
    /// Starts the client.
    pub(super) fn launch(&mut self, variant: Variant) -> Result<(), Ended> {
        let relay = format!("http://127.0.0.1:{}", self.relay.port());
        self.launch_to(variant, relay)
    }

    /// The same with another relay.
    pub(super) fn launch_to(&mut self, variant: Variant, relay: String) -> Result<(), Ended> {
        let launch = self.settings.launch(variant)?;
        let (key, port) = (self.key.clone(), self.target.port());
        let start = Start { relay, key, port, stop: CancellationToken::new() };
        let started = launch.start(start, &self.trace);
        self.client = Some(started.map_err(|error| Ended::failed("the client to start", error))?);
        Ok(())
    }

    /// The client's process.
    pub(super) fn client(&mut self) -> Result<&mut Client, Ended> {
        self.client.as_mut().ok_or_else(|| Ended::failed("the client to run", "the case has not started it"))
    }

    /// How long the client has for anything that it must do.
    pub(super) fn wait(&self) -> Duration {
        self.settings.wait
    }

    // A session

    /// The next `POST /v1/tunnels`, with the key.
    pub(super) async fn creation(&mut self) -> Result<Call, Ended> {
        let wait = if self.relay.was_reached() { self.wait() } else { self.settings.start };
        self.creation_within(wait).await
    }

    /// The same, and how long it may take.
    pub(super) async fn creation_within(&mut self, wait: Duration) -> Result<Call, Ended> {
        let expected = "the client to create its tunnel (POST /v1/tunnels)";
        let Some(client) = self.client.as_mut() else {
            return Err(Ended::failed(expected, "it does not run"));
        };
        let ended = tokio::select! {
            biased;
            call = timeout(wait, self.relay.creations.recv()) => match call {
                Ok(Some(call)) => return self.with_key(call),
                _ => None,
            },
            how = client.ended() => Some(how),
        };
        let printed = client.printed().await;
        let printed = if printed.is_empty() { printed } else { format!("; it printed: {printed}") };
        Err(match ended {
            Some(how) => Ended::failed(expected, format!("it has ended ({how}){printed}")),
            None => Ended::failed(expected, format!("it did not within {wait:?}{printed}")),
        })
    }

    fn with_key(&self, call: Call) -> Result<Call, Ended> {
        if call.bearer() == Some(self.key.as_str()) {
            return Ok(call);
        }
        let came = call.header("authorization").unwrap_or("no such header");
        let expected = format!("the key behind `Authorization: Bearer` of {} {}", call.method, call.path);
        Err(Ended::failed(expected, format!("there was {came}")))
    }

    /// Answers a creation with the tunnel that it asks for.
    pub(super) async fn grant(&mut self, call: Call) -> Result<Tunnel, Ended> {
        self.grant_with(call, json!({})).await
    }

    /// The same with more fields in the answer.
    pub(super) async fn grant_with(&mut self, call: Call, more: Value) -> Result<Tunnel, Ended> {
        let asked = call.json()?;
        let made_up = || Uuid::new_v4().simple().to_string()[..12].to_owned();
        let slug =
            asked["name"].as_str().filter(|name| !name.is_empty()).map_or_else(made_up, str::to_lowercase);
        let tunnel = Tunnel { id: Uuid::new_v4().to_string(), slug };
        call.answer(201, &told(&tunnel, &asked, more)).await;
        Ok(tunnel)
    }

    /// The handshake of the control socket of `tunnel`, with the key.
    pub(super) async fn control_call(&mut self, tunnel: &Tunnel) -> Result<Call, Ended> {
        let expected = "the client to open its control socket (GET /ws/control)";
        let call = match timeout(self.wait(), self.relay.controls.recv()).await {
            Ok(Some(call)) => call,
            _ => return Err(Ended::failed(expected, format!("it did not within {:?}", self.wait()))),
        };
        if call.query("tunnel_id").as_deref() != Some(tunnel.id.as_str()) {
            let expected = format!("`tunnel_id={}`, as the answer named it", tunnel.id);
            return Err(Ended::failed(expected, format!("it asked for {}", call.target)));
        }
        self.with_key(call)
    }

    /// A session of the case's level, from the creation of its tunnel on.
    pub(super) async fn session(&mut self) -> Result<Session, Ended> {
        self.session_with(json!({})).await
    }

    /// The same with other numbers in `welcome`.
    pub(super) async fn session_with(&mut self, welcome: Value) -> Result<Session, Ended> {
        let call = self.creation().await?;
        let tunnel = self.grant(call).await?;
        self.open(tunnel, welcome).await
    }

    /// The control socket of a tunnel that was granted.
    pub(super) async fn open(&mut self, tunnel: Tunnel, more: Value) -> Result<Session, Ended> {
        let call = self.control_call(&tunnel).await?;
        self.open_by(call, tunnel, more).await
    }

    /// The same with the handshake at hand.
    pub(super) async fn open_by(
        &mut self,
        call: Call,
        tunnel: Tunnel,
        more: Value,
    ) -> Result<Session, Ended> {
        let offers = call.list("sec-websocket-protocol").iter().any(|name| name == ADIT_1);
        let protocol = match self.level {
            Level::Base => None,
            Level::Two if offers => Some(ADIT_1),
            Level::Two => return Err(Ended::Skipped("the client does not offer adit.1".into())),
        };
        let mut control = accepted(call, protocol).await?;
        if self.level == Level::Base && offers && self.settings.facts.reopens {
            control = accepted(self.control_call(&tunnel).await?, None).await?;
        }
        let name = Uuid::new_v4().to_string();
        if self.level == Level::Two {
            control.say(&merged(welcome(&name), more)).await;
        }
        // As a relay does.
        control.frame(Opcode::Ping, true, b"kit").await;
        Ok(Session { control, tunnel, name })
    }

    // Connections

    /// The handshake of the data socket of the connection `id`.
    pub(super) async fn data_call(&mut self, id: &str) -> Result<Call, Ended> {
        self.data_call_within(id, self.wait()).await
    }

    pub(super) async fn data_call_within(&mut self, id: &str, wait: Duration) -> Result<Call, Ended> {
        let is_it = |call: &Call| call.query("id").as_deref() == Some(id);
        if let Some(call) = self.early.iter().position(is_it).and_then(|at| self.early.remove(at)) {
            return self.data_key(call);
        }
        let until = Instant::now() + wait;
        while let Ok(Some(call)) = timeout_at(until, self.relay.datas.recv()).await {
            if is_it(&call) {
                return self.data_key(call);
            }
            self.early.push_back(call);
        }
        let others: Vec<_> = self.early.iter().map(|call| call.target.as_str()).collect();
        let others =
            if others.is_empty() { String::new() } else { format!("; others came: {}", others.join(" ")) };
        let expected = format!("the client to open the data socket of the connection {id:?}");
        Err(Ended::failed(expected, format!("it did not within {wait:?}{others}")))
    }

    /// At level two data sockets carry the key; at base level they need none.
    fn data_key(&self, call: Call) -> Result<Call, Ended> {
        if self.level == Level::Base && call.header("authorization").is_none() {
            return Ok(call);
        }
        self.with_key(call)
    }

    /// The data socket of the connection `id`, open.
    pub(super) async fn data(&mut self, id: &str) -> Result<Data, Ended> {
        let call = self.data_call(id).await?;
        Data::accept(call, self.wait()).await
    }

    /// Waits until `what` is so.
    pub(super) async fn until(&self, expected: &str, what: impl Fn(&Self) -> bool) -> Result<(), Ended> {
        let until = Instant::now() + self.wait();
        while !what(self) {
            if Instant::now() > until {
                return Err(Ended::failed(expected, format!("it was not so within {:?}", self.wait())));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Announces a viewer whose bytes are `request`: its data socket and the connection to the target, on which they came.
    pub(super) async fn viewer(&mut self, session: &Session) -> Result<(Data, Visit), Ended> {
        let id = session.announce().await;
        let mut data = self.data(&id).await?;
        let request = request(&id);
        data.send(&request).await?;
        let visit = self.target.visit(&request, self.wait()).await?;
        Ok((data, visit))
    }

    /// A viewer is served whole: whatever was before, the client goes on.
    pub(super) async fn serves(&mut self, session: &Session) -> Result<(), Ended> {
        let (mut data, mut visit) = self.viewer(session).await?;
        visit.write(RESPONSE).await;
        data.brings(RESPONSE).await?;
        self.finish(&mut data, &mut visit).await
    }

    /// The target ends a connection on which all is said: its data socket ends in order.
    pub(super) async fn finish(&self, data: &mut Data, visit: &mut Visit) -> Result<(), Ended> {
        visit.fin().await;
        match self.level {
            Level::Base => data.ends_in_order().await,
            Level::Two => {
                data.brings_end().await?;
                data.say_end().await?;
                data.closes_with(1000).await
            }
        }
    }

    // What must not happen

    /// The client does not come back: it has ended, or asks nothing for a while.
    pub(super) async fn stays_away(&mut self, why: &str) -> Result<(), Ended> {
        let quiet = self.settings.quiet;
        let Some(client) = self.client.as_mut() else { return Ok(()) };
        let came = tokio::select! {
            biased;
            call = self.relay.creations.recv() => call,
            _ = client.ended() => self.relay.creations.try_recv().ok(),
            () = sleep(quiet) => None,
        };
        match came {
            Some(_) => Err(Ended::failed(
                format!("the client to stop for good {why}"),
                "it created its tunnel again",
            )),
            None => Ok(()),
        }
    }
}

impl Session {
    /// Announces a viewer: the id of its connection.
    pub(super) async fn announce(&self) -> String {
        let id = Uuid::new_v4().to_string();
        self.control.say(&connection(&id)).await;
        id
    }
}

/// A viewer's request.
pub(super) fn request(id: &str) -> Vec<u8> {
    format!("GET /{id} HTTP/1.1\r\nHost: kit.example\r\nAccept: */*\r\n\r\n").into_bytes()
}

/// What the target answers.
pub(super) const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// The announcement of a viewer.
pub(super) fn connection(id: &str) -> Value {
    json!({ "type": "connection", "id": id, "proto": "http", "remote_addr": "203.0.113.7:51234" })
}

async fn accepted(call: Call, protocol: Option<&str>) -> Result<Control, Ended> {
    let switched = call.switch(protocol).await;
    Ok(Control::new(switched.map_err(|error| {
        let expected = "the client to wait for the answer of its control socket's handshake";
        Ended::failed(expected, error.to_string())
    })?))
}

fn welcome(session: &str) -> Value {
    json!({
        "type": "welcome",
        "session": session,
        "relay": "adit-conform",
        "ping_interval_ms": 10_000,
        "pong_timeout_ms": 20_000,
        "claim_ms": 10_000,
        "limits": {
            "control_message_bytes": 65_536, "data_message_bytes": 65_536, "waiting": 256, "standby": 8,
        },
    })
}

/// The tunnel as REST tells it (`protocol.md`, section 2.2).
fn told(tunnel: &Tunnel, asked: &Value, more: Value) -> Value {
    let mut told = json!({
        "id": tunnel.id,
        "slug": tunnel.slug,
        "public_url": format!("http://{}.kit.example", tunnel.slug),
        "client_id": "kit",
        "ttl": "0s",
        "mode": "relay",
        "created_at": "2026-01-01T00:00:00Z",
        "expires_at": "0001-01-01T00:00:00Z",
        "last_active": "2026-01-01T00:00:00Z",
        "local_port": asked["local_port"].as_u64().unwrap_or(1),
        "bytes_in": 0,
        "bytes_out": 0,
        "requests": 0,
    });
    if asked["policy"].as_object().is_some_and(|policy| !policy.is_empty()) {
        told["policy"] =
            asked["policy"].as_object().map(|policy| policy.keys().cloned().collect::<Vec<_>>()).into();
    }
    if let Some(proto @ ("tcp" | "tls")) = asked["proto"].as_str() {
        told["proto"] = proto.into();
        told["public_url"] = format!("{proto}://kit.example:31001").into();
        told["remote_port"] = asked["remote_port"].as_u64().unwrap_or(31001).into();
    }
    merged(told, more)
}

/// `more` goes before; `null` takes a field away.
fn merged(mut all: Value, more: Value) -> Value {
    let (Some(fields), Value::Object(more)) = (all.as_object_mut(), more) else { return all };
    for (name, value) in more {
        match value {
            Value::Null => drop(fields.remove(&name)),
            value => drop(fields.insert(name, value)),
        }
    }
    all
}
