//! A small complete client in this process, of both levels, in which one thing can be broken.

mod data;
mod defect;
mod session;
mod wire;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit::conform::client::Start;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub(crate) use defect::{Defect, MUTANTS};
use session::{Ended, Session};
use wire::{Answer, ask};

/// How it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Policy,
    Tcp,
}

/// What all of it knows.
struct Client {
    start: Start,
    relay: String,
    kind: Kind,
    defect: Option<Defect>,
    state: Mutex<State>,
    streams: TaskTracker,
    /// Ends with the client, and everything with it.
    gone: CancellationToken,
    /// One at a time, of those who wait for each other.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    key: String,
    name: Option<String>,
    id: String,
    port: Option<u64>,
    /// A session was there before.
    known: bool,
    /// Ends the streams, where they end together.
    cut: CancellationToken,
}

/// Why there is no session.
enum Failure {
    Final,
    Passing(Duration),
}

/// Runs the client until its end.
pub(crate) async fn run(start: Start, kind: Kind, defect: Option<Defect>) {
    let gone = CancellationToken::new();
    let _guard = gone.clone().drop_guard();
    let relay = start.relay.trim_start_matches("http://").trim_start_matches("https://").to_owned();
    let state = Mutex::new(State { key: start.key.clone(), ..State::default() });
    let secure = start.relay.starts_with("https://");
    let (streams, turn) = (TaskTracker::new(), tokio::sync::Mutex::new(()));
    let client = Arc::new(Client { start, relay, kind, defect, state, streams, gone, turn });
    if secure {
        return client.secure().await;
    }
    client.keep().await;
    if client.start.stop.is_cancelled() && !client.is(Defect::LeavesWithoutWord) {
        client.streams.close();
        client.streams.wait().await;
        client.delete("?unless_connected=true").await;
    }
}

impl Client {
    fn is(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// Runs beside, until the client is gone.
    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let gone = self.gone.clone();
        self.streams.spawn(async move {
            tokio::select! {
                () = gone.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// A relay whose certificate nobody knows: it is reached, and left.
    async fn secure(&self) {
        let Ok(mut stream) = tokio::net::TcpStream::connect(&self.relay).await else { return };
        if self.is(Defect::TrustsAnybody) {
            let connector = adit::stream::tls::unverified().unwrap();
            let name = "127.0.0.1".try_into().unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            let request =
                format!("POST /v1/tunnels HTTP/1.1\r\nAuthorization: Bearer {}\r\n\r\n", self.key());
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await;
            sleep(Duration::from_secs(1)).await;
        } else {
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
        }
    }

    fn key(&self) -> String {
        self.state.lock().unwrap().key.clone()
    }

    /// Sessions, one after the other, and while one drains beside it.
    async fn keep(self: &Arc<Self>) {
        let (events, mut heard) = mpsc::channel(16);
        let (mut wait, mut longest) =
            (Duration::ZERO, Duration::from_millis(if self.is(Defect::Sluggish) { 8000 } else { 800 }));
        let (mut number, mut predecessor) = (0_u64, None::<String>);
        loop {
            tokio::select! {
                () = sleep(wait) => {}
                () = self.start.stop.cancelled() => return,
            }
            number += 1;
            match self.connect(predecessor.as_deref(), number, &events).await {
                Ok(()) => {}
                Err(Failure::Final) => return,
                Err(Failure::Passing(least)) => {
                    wait = self.pause(&mut longest).max(least);
                    continue;
                }
            }
            let began = Instant::now();
            let ended = loop {
                match heard.recv().await {
                    Some((which, name, ended)) if which == number => {
                        predecessor = name;
                        break ended;
                    }
                    Some(_) => {}
                    None => return,
                }
            };
            match ended {
                Ended::Over | Ended::Stopped => return,
                Ended::Drain(reconnect) => wait = reconnect,
                Ended::Lost if self.is(Defect::NeverComesBack) => return,
                Ended::Lost => {
                    predecessor = None;
                    if began.elapsed() > longest {
                        longest = Duration::from_millis(800);
                    }
                    wait = self.pause(&mut longest);
                }
            }
        }
    }

    /// Random, and longer each time.
    fn pause(&self, longest: &mut Duration) -> Duration {
        if self.is(Defect::HotLoop) {
            return Duration::from_millis(20);
        }
        let now = longest.mul_f64(0.5 + f64::from(Uuid::new_v4().as_bytes()[0]) / 512.0);
        *longest = (*longest * 2).min(Duration::from_secs(30));
        now
    }

    async fn connect(
        self: &Arc<Self>,
        predecessor: Option<&str>,
        number: u64,
        events: &mpsc::Sender<(u64, Option<String>, Ended)>,
    ) -> Result<(), Failure> {
        self.create().await?;
        let id = self.state.lock().unwrap().id.clone();
        let successor = predecessor.filter(|_| !self.is(Defect::NoSuccessor));
        let successor = successor.map(|name| format!("&successor_of={name}")).unwrap_or_default();
        let key = if self.is(Defect::KeyInQuery) { format!("&key={}", self.key()) } else { String::new() };
        let path = format!("/ws/control?tunnel_id={id}{successor}{key}");
        let offer = "Sec-WebSocket-Protocol: adit.1".to_owned();
        let answer = self.handshake(&path, &[self.bearer(), offer]).await?;
        let two = answer.header("sec-websocket-protocol").as_deref() == Some("adit.1");
        if !two && self.is(Defect::NeedsLevelTwo) {
            return Err(Failure::Passing(Duration::ZERO));
        }
        let session = Session::new(Arc::clone(self), two, id, answer.socket());
        let events = events.clone();
        self.spawn(async move { session.run(number, events).await });
        self.state.lock().unwrap().known = true;
        Ok(())
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.key())
    }

    /// A handshake whose answer is 101.
    async fn handshake(&self, path: &str, lines: &[String]) -> Result<Answer, Failure> {
        let key = adit::stream::handshake::new_key();
        let mut head = vec![
            format!("GET {path} HTTP/1.1"),
            "Upgrade: websocket".into(),
            "Connection: Upgrade".into(),
            "Sec-WebSocket-Version: 13".into(),
            format!("Sec-WebSocket-Key: {key}"),
        ];
        head.extend_from_slice(lines);
        if self.is(Defect::OffersExtension) {
            head.push("Sec-WebSocket-Extensions: permessage-deflate".into());
        }
        let answer = self.sent(&head, "").await?;
        if answer.status != 101 {
            return Err(self.judge(&answer));
        }
        let accept = answer.header("sec-websocket-accept").unwrap_or_default();
        match accept == adit::stream::handshake::accept_of(&key) || self.is(Defect::TakesAnyAccept) {
            true => Ok(answer),
            false => Err(Failure::Passing(Duration::ZERO)),
        }
    }

    async fn sent(&self, head: &[String], body: &str) -> Result<Answer, Failure> {
        let mut answer = ask(&self.relay, head, body).await;
        if self.is(Defect::FollowsRedirects) {
            let to = answer.as_ref().ok().and_then(|answer| answer.header("location"));
            if let Some((at, _)) =
                to.as_deref().and_then(|to| to.trim_start_matches("http://").split_once('/'))
            {
                answer = ask(at, head, body).await;
            }
        }
        answer.map_err(|_| match self.is(Defect::GivesUpWhenRefused) {
            true => Failure::Final,
            false => Failure::Passing(Duration::ZERO),
        })
    }

    /// What a refusal means (`protocol.md`, section 2.3).
    fn judge(&self, answer: &Answer) -> Failure {
        let told = answer.json();
        let code = told["code"].as_str().unwrap_or_default();
        let passing = ["", "tunnel_not_found", "port_in_use", "no_free_port"].contains(&code);
        let last = match answer.status {
            401 | 403 => true,
            408 | 429 => false,
            400..500 => !passing,
            _ => answer.status < 400,
        };
        if code == "name_taken" && self.is(Defect::TakesAnotherName) {
            self.state.lock().unwrap().name = None;
            return Failure::Passing(Duration::ZERO);
        }
        if (last || self.is(Defect::EverythingIsFinal)) && !self.is(Defect::NothingIsFinal) {
            return Failure::Final;
        }
        let after = answer.header("retry-after").and_then(|text| text.parse().ok());
        Failure::Passing(Duration::from_secs(after.filter(|_| !self.is(Defect::Hasty)).unwrap_or(0)))
    }

    async fn create(&self) -> Result<(), Failure> {
        let mut asked = json!({ "local_port": self.start.port, "source": "mutant" });
        {
            let state = self.state.lock().unwrap();
            if let Some(name) = state.name.as_ref().filter(|_| !self.is(Defect::ForgetsName)) {
                asked["name"] = name.as_str().into();
            }
            if state.known && !self.is(Defect::NoResume) {
                asked["resume"] = true.into();
            }
            if let Some(port) = state.port.filter(|_| !self.is(Defect::ForgetsPort)) {
                asked["remote_port"] = port.into();
            }
        }
        match self.kind {
            Kind::Plain => {}
            Kind::Policy => asked["policy"] = json!({ "allow": ["127.0.0.0/8"] }),
            Kind::Tcp => asked["proto"] = "tcp".into(),
        }
        let head =
            ["POST /v1/tunnels HTTP/1.1".to_owned(), self.bearer(), "Content-Type: application/json".into()];
        let answer = self.sent(&head, &asked.to_string()).await?;
        if answer.status / 100 != 2 {
            return Err(self.judge(&answer));
        }
        let told = answer.json();
        if !told.is_object() && self.is(Defect::HangsOnBadAnswer) {
            std::future::pending::<()>().await;
        }
        self.adopt(&told).await
    }

    async fn adopt(&self, told: &Value) -> Result<(), Failure> {
        let (Some(id), Some(slug)) = (told["id"].as_str(), told["slug"].as_str()) else {
            return Err(Failure::Passing(Duration::ZERO));
        };
        let strange = told.as_object().is_some_and(|told| told.keys().any(|name| name.starts_with("x-")));
        if strange && self.is(Defect::StrictTunnel) {
            return Err(Failure::Final);
        }
        {
            let mut state = self.state.lock().unwrap();
            state.name = Some(slug.to_owned());
            state.port = told["remote_port"].as_u64();
            if !(state.known && self.is(Defect::KeepsOldId)) {
                state.id = id.to_owned();
            }
        }
        if self.kind == Kind::Policy && told.get("policy").is_none() && !self.is(Defect::IgnoresPolicy) {
            return Err(Failure::Final);
        }
        if self.kind == Kind::Tcp && told["proto"] != "tcp" {
            if !self.is(Defect::KeepsHttpTunnel) {
                self.delete("").await;
            }
            return Err(Failure::Final);
        }
        Ok(())
    }

    async fn delete(&self, query: &str) {
        let id = self.state.lock().unwrap().id.clone();
        let head = [format!("DELETE /v1/tunnels/{id}{query} HTTP/1.1"), self.bearer()];
        let _ = ask(&self.relay, &head, "").await;
    }
}
