//! What a case has: the relay, keys, and the verbs by which clients and viewers come to be.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

use super::Outcome;
use super::control::{Client, Welcome};
use super::data::Data;
use super::http::{Answer, request};
use super::place::Place;
use super::rest::Tunnel;
use super::socket::{Socket, handshake};
use super::viewer::Viewer;
use super::wire::Wire;
use crate::client::text::percent_encode;
use crate::conform::case::Ended;
use crate::conform::trace::Trace;
use crate::proto::http1::ResponseHead;
use crate::proto::message::ADIT_1;
use crate::sync::lock;

/// What all cases of a run share.
pub struct Settings {
    /// The relay.
    pub place: Place,
    /// Whose tunnels are made, unless a case makes tokens of its own.
    pub key: String,
    /// Somebody else's key, for the cases between two owners.
    pub key2: Option<String>,
    /// The relay's secret for tokens, for the cases about them.
    pub secret: Option<String>,
    /// Bytes that are sent each way where it is about many.
    pub bytes: u64,
    /// How long something is waited for that happens at once.
    pub patience: Duration,
    /// The tunnels that were made and not deleted yet: the number of the world, and the id.
    pub made: Mutex<Vec<(u32, String)>>,
    /// The numbers of the relay's sessions, once a session of level two has told them.
    pub welcome: OnceLock<Welcome>,
}

impl Settings {
    /// Those of a run without options; `patience` is how long something is waited for that happens at once.
    pub fn new(place: Place, key: impl Into<String>, patience: Duration) -> Self {
        Self {
            place,
            key: key.into(),
            key2: None,
            secret: None,
            bytes: 8_000_000,
            patience,
            made: Mutex::default(),
            welcome: OnceLock::new(),
        }
    }

    /// What must not be shown.
    pub fn secrets(&self) -> Vec<String> {
        [Some(&self.key), self.key2.as_ref(), self.secret.as_ref()].into_iter().flatten().cloned().collect()
    }
}

/// Worlds, counted.
static WORLDS: AtomicU32 = AtomicU32::new(0);

/// The world of one case.
#[derive(Clone)]
pub struct World {
    number: u32,
    settings: Arc<Settings>,
    /// Whose tunnels are made.
    key: String,
    trace: Trace,
}

impl World {
    /// A world of its own for a case.
    pub fn new(settings: Arc<Settings>, trace: Trace) -> Self {
        let key = settings.key.clone();
        Self { number: WORLDS.fetch_add(1, Ordering::Relaxed), settings, key, trace }
    }

    /// The same world for another owner.
    pub fn with_key(&self, key: String) -> Self {
        Self { key, ..self.clone() }
    }

    /// Whose tunnels are made.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What all cases share.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How long something is waited for that happens at once.
    pub fn patience(&self) -> Duration {
        self.settings.patience
    }

    /// A little more than `time`, for what the relay does after it.
    pub fn beyond(&self, time: Duration) -> Duration {
        time + self.settings.patience
    }

    /// The relay's numbers: those of its `welcome`, else the defaults of section 7.
    pub fn times(&self) -> Welcome {
        self.settings.welcome.get().cloned().unwrap_or_default()
    }

    /// A name that nobody has.
    pub fn name(&self) -> String {
        let random = uuid::Uuid::new_v4().simple().to_string();
        format!("kit-{}", &random[..16])
    }

    /// The other owner's key, or the case is skipped.
    pub fn key2(&self) -> Outcome<&str> {
        let missing = || Ended::Skipped("it needs the key of a second owner: give --key2".into());
        self.settings.key2.as_deref().ok_or_else(missing)
    }

    async fn wire(&self, who: &'static str, host: &str) -> Outcome<Wire> {
        let stream = self.settings.place.connect(host).await;
        let stream =
            stream.map_err(|error| Ended::failed("the relay takes a connection", format!("{error}")))?;
        Ok(Wire::new(stream, who, self.patience(), self.trace.clone()))
    }

    /// A connection to a port of the relay that leads to a tunnel.
    pub async fn port(&self, port: u16) -> Outcome<Wire> {
        let stream = self.settings.place.port(port).await;
        let stream = stream.map_err(|error| {
            Ended::failed(format!("a connection to port {port} of the relay"), error.to_string())
        })?;
        Ok(Wire::new(stream, "viewer", self.patience(), self.trace.clone()))
    }

    /// The host of the relay itself, as it stands in `Host`.
    pub fn host(&self) -> &str {
        self.settings.place.url().authority()
    }

    /// A connection for requests to the relay itself.
    pub async fn caller(&self) -> Outcome<Wire> {
        let host = self.host().to_owned();
        self.wire("caller", &host).await
    }

    /// A call with header lines of one's own, on a connection of its own.
    pub async fn ask(&self, method: &str, path: &str, lines: &str, body: &[u8]) -> Outcome<Answer> {
        let mut wire = self.caller().await?;
        let lines = format!("{lines}Connection: close\r\n");
        wire.say(&request(method, path, self.host(), &lines, body)).await?;
        let expected = format!("an answer to {method} {path}");
        Answer::read(&mut wire, &method.parse().unwrap_or_default(), &expected).await
    }

    /// A call of the REST API with `key`; no key is sent where that is empty.
    pub async fn call_as(&self, key: &str, method: &str, path: &str, body: &Value) -> Outcome<Answer> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.ask(method, path, &bearer(key), &body).await
    }

    /// The same with our key.
    pub async fn call(&self, method: &str, path: &str, body: &Value) -> Outcome<Answer> {
        self.call_as(&self.key, method, path, body).await
    }

    /// The answer to the creation of a tunnel with these fields.
    pub async fn try_create(&self, key: &str, fields: &Value) -> Outcome<Answer> {
        let mut body = json!({ "local_port": 80 });
        if let (Some(body), Some(fields)) = (body.as_object_mut(), fields.as_object()) {
            body.extend(fields.clone());
        }
        loop {
            let answer = self.call_as(key, "POST", "/v1/tunnels", &body).await?;
            // A quota of the key is no matter of the case.
            match (answer.status, answer.header("retry-after").parse()) {
                (429, Ok(seconds @ 0..=60)) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                _ => {
                    self.made(&answer);
                    return Ok(answer);
                }
            }
        }
    }

    /// Remembers the tunnel that a creation has answered with, if it has.
    pub fn made(&self, answer: &Answer) {
        if let Some(id) = answer.json().ok().as_ref().and_then(|made| made["id"].as_str()) {
            lock(&self.settings.made).push((self.number, id.to_owned()));
        }
    }

    /// A tunnel of ours with these fields, and a name made up by the relay unless they have one.
    pub async fn tunnel(&self, fields: Value) -> Outcome<Tunnel> {
        let answer = self.try_create(&self.key, &fields).await?;
        match answer.status {
            200 | 201 => Tunnel::read(answer.json()?, self.host()),
            403 | 429 => {
                let advice = "a quota of the key fails all cases: give a key without one, or run fewer at a time (--jobs)";
                Err(Ended::failed("201 for a new tunnel", format!("{}; {advice}", answer.shown())))
            }
            _ => Err(Ended::failed(format!("201 for a tunnel with {fields}"), answer.shown())),
        }
    }

    /// Deletes a tunnel, however the relay says that it is gone.
    pub async fn delete(&self, tunnel: &Tunnel) -> Outcome {
        let answer = self.call("DELETE", &tunnel.path(""), &Value::Null).await?;
        if answer.status < 300 { Ok(()) } else { Err(Ended::failed("204 for a deletion", answer.shown())) }
    }

    /// The tunnel as the relay shows it now.
    pub async fn look(&self, id: &str) -> Outcome<Value> {
        self.call("GET", &format!("/v1/tunnels/{id}"), &Value::Null)
            .await?
            .must_be(200, "with the tunnel")?
            .json()
    }

    /// Looks until the tunnel has, or has not, a client.
    pub async fn until_connected(&self, id: &str, connected: bool) -> Outcome {
        let began = tokio::time::Instant::now();
        while self.look(id).await?["connected"] != connected {
            if began.elapsed() > self.patience() {
                let expected = format!("`connected` of the tunnel becomes {connected}");
                return Err(Ended::failed(expected, format!("it has not for {:?}", self.patience())));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// A WebSocket with the relay, or its refusal. `lines` are more headers.
    pub async fn socket(
        &self,
        who: &'static str,
        path: &str,
        lines: &str,
    ) -> Outcome<Result<(Socket, ResponseHead), Answer>> {
        let host = self.host().to_owned();
        let wire = self.wire(who, &host).await?;
        Socket::open(wire, &handshake(path, &host, lines)).await
    }

    /// A base client of a new tunnel, which is known to the relay when it has answered a ping.
    pub async fn client(&self) -> Outcome<Client> {
        self.client_of(json!({})).await
    }

    /// The same of a tunnel with these fields.
    pub async fn client_of(&self, fields: Value) -> Outcome<Client> {
        let tunnel = self.tunnel(fields).await?;
        let mut client = self.serve(tunnel).await?;
        client.socket.ping(b"here").await?;
        Ok(client)
    }

    /// A base client of `tunnel`, of which nothing was read yet.
    pub async fn serve(&self, tunnel: Tunnel) -> Outcome<Client> {
        let path = format!("/ws/control?tunnel_id={}", percent_encode(&tunnel.id));
        let opened = self.socket("control", &path, &bearer(&self.key)).await?;
        let (socket, _) =
            opened.map_err(|answer| Ended::failed("101 for a control socket", answer.shown()))?;
        Ok(Client::base(self.clone(), tunnel, socket))
    }

    /// A client of level two of a new tunnel, its `welcome` read.
    pub async fn two(&self) -> Outcome<Client> {
        let tunnel = self.tunnel(json!({})).await?;
        self.serve_two(tunnel, "").await
    }

    /// A client of level two of `tunnel`; `more` is put behind the query.
    pub async fn serve_two(&self, tunnel: Tunnel, more: &str) -> Outcome<Client> {
        let path = format!("/ws/control?tunnel_id={}{more}", percent_encode(&tunnel.id));
        let lines = format!("{}Sec-WebSocket-Protocol: {ADIT_1}\r\n", bearer(&self.key));
        let opened = self.socket("control", &path, &lines).await?;
        let (socket, head) =
            opened.map_err(|answer| Ended::failed("101 for a control socket", answer.shown()))?;
        let agreed = head.headers.get("sec-websocket-protocol").map(|value| value.as_bytes());
        if agreed != Some(ADIT_1.as_bytes()) {
            return Err(Ended::Skipped(format!(
                "the relay does not know {ADIT_1}: it speaks the base level"
            )));
        }
        let client = Client::two(self.clone(), tunnel, socket).await?;
        let _ = self.settings.welcome.set(client.welcome.clone());
        Ok(client)
    }

    /// The data socket of a connection, or its refusal; without a key where that is empty.
    pub async fn claim(&self, id: &str, key: &str) -> Outcome<Result<Data, Answer>> {
        self.data_at(&format!("/ws/data?id={}", percent_encode(id)), key).await
    }

    /// The same by path and query.
    pub async fn data_at(&self, path: &str, key: &str) -> Outcome<Result<Data, Answer>> {
        let opened = self.socket("data", path, &bearer(key)).await?;
        Ok(opened.map(|(socket, _)| Data::new(socket)))
    }

    /// Fails unless a data socket with this id is refused.
    pub async fn refused(&self, id: &str, key: &str, status: u16, code: &str, what: &str) -> Outcome {
        match self.claim(id, key).await? {
            Err(answer) => answer.refused(status, code, what).map(drop),
            Ok(_) => Err(Ended::failed(format!("{status} `{code}` {what}"), "101: the socket was taken")),
        }
    }

    /// A viewer of `tunnel`, connected.
    pub async fn viewer(&self, tunnel: &Tunnel) -> Outcome<Viewer> {
        let wire = self.wire("viewer", &tunnel.host).await?;
        Ok(Viewer::new(wire, tunnel))
    }

    /// A viewer that has asked for the front page.
    pub async fn asking(&self, tunnel: &Tunnel) -> Outcome<Viewer> {
        let mut viewer = self.viewer(tunnel).await?;
        viewer.ask("GET", "/", "", b"").await?;
        Ok(viewer)
    }

    /// Deletes the tunnels that this world has made.
    pub async fn tidy(&self) {
        let mine = |(world, _): &mut (u32, String)| *world == self.number;
        let made: Vec<_> = lock(&self.settings.made).extract_if(.., mine).collect();
        self.delete_all(made).await;
    }

    /// Deletes the tunnels of all worlds: of cases that came to no end, too.
    pub async fn tidy_all(&self) {
        let made = std::mem::take(&mut *lock(&self.settings.made));
        self.delete_all(made).await;
    }

    /// Out of the trace, in which it would push aside what matters.
    async fn delete_all(&self, made: Vec<(u32, String)>) {
        let quiet = Self { trace: Trace::new(&[]), ..self.clone() };
        let keys = [Some(self.settings.key.as_str()), self.settings.key2.as_deref()];
        for (_, id) in made {
            let path = format!("/v1/tunnels/{}", percent_encode(&id));
            for key in keys.into_iter().flatten() {
                let gone = quiet.call_as(key, "DELETE", &path, &Value::Null).await;
                if gone.is_ok_and(|answer| answer.status < 300) {
                    break;
                }
            }
        }
    }
}

/// The header line of a key; nothing where it is empty.
pub fn bearer(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") }
}
