//! A control session of the mutant, and the standby sockets that hang on it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit::proto::frame::Opcode;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::data::{join, serve};
use super::wire::{In, Reader, Writer, close, send};
use super::{Client, Defect, Failure};

/// How it ended, or what comes after it.
pub(super) enum Ended {
    /// For good.
    Over,
    Lost,
    Stopped,
    /// It goes on, and another one is wanted.
    Drain(Duration),
}

/// What its connections have to know.
pub(super) struct Shared {
    pub(super) client: Arc<Client>,
    pub(super) two: bool,
    pub(super) tunnel: String,
    pub(super) control: Writer,
    pub(super) name: Mutex<Option<String>>,
    pub(super) claim: Mutex<Duration>,
    pub(super) cancels: Mutex<HashMap<String, CancellationToken>>,
    /// The most standby sockets that the relay may want.
    most: Mutex<usize>,
    /// Ends the session for good.
    pub(super) over: CancellationToken,
}

pub(super) struct Session {
    shared: Arc<Shared>,
    reader: Reader,
    want: Option<watch::Sender<usize>>,
    offered: VecDeque<String>,
    /// What `closed` has said.
    closed: Option<String>,
    ping_every: Duration,
    pong_wait: Duration,
    drain: Option<Duration>,
}

impl Session {
    pub(super) fn new(
        client: Arc<Client>,
        two: bool,
        tunnel: String,
        (reader, control): (Reader, Writer),
    ) -> Self {
        let shared = Shared {
            client,
            two,
            tunnel,
            control,
            name: Mutex::default(),
            claim: Mutex::new(Duration::from_secs(10)),
            cancels: Mutex::default(),
            most: Mutex::new(8),
            over: CancellationToken::new(),
        };
        let (ping_every, pong_wait) = (Duration::from_millis(100), Duration::from_secs(10));
        let (offered, want, closed, drain) = (VecDeque::new(), None, None, None);
        Self { shared: Arc::new(shared), reader, want, offered, closed, ping_every, pong_wait, drain }
    }

    fn is(&self, defect: Defect) -> bool {
        self.shared.client.is(defect)
    }

    pub(super) async fn run(mut self, number: u64, events: mpsc::Sender<(u64, Option<String>, Ended)>) {
        let ended = self.live(number, &events).await;
        if self.is(Defect::StreamsDieWithSession) {
            self.shared.client.state.lock().unwrap().cut.cancel();
        }
        let name = self.shared.name.lock().unwrap().clone();
        let _ = events.send((number, name, ended)).await;
    }

    async fn live(&mut self, number: u64, events: &mpsc::Sender<(u64, Option<String>, Ended)>) -> Ended {
        let stop = self.shared.client.start.stop.clone();
        let (mut text, mut pings, mut owed) = (Vec::new(), 0, None);
        let mut ping = interval(self.ping_every);
        loop {
            let over = self.shared.over.clone();
            let heard = tokio::select! {
                heard = self.reader.next() => heard,
                () = over.cancelled() => return Ended::Over,
                () = stop.cancelled() => return self.goodbye().await,
                _ = ping.tick() => {
                    if ping.period() != self.ping_every {
                        ping = interval(self.ping_every);
                    }
                    if owed.is_some_and(|since: Instant| since.elapsed() > self.pong_wait) {
                        return Ended::Lost;
                    }
                    if !self.is(Defect::NeverPings) {
                        owed = owed.or(Some(Instant::now()));
                        let _ = send(&self.shared.control, Opcode::Ping, b"").await;
                    }
                    continue;
                }
            };
            match heard {
                In::Data(data) => {
                    text.extend_from_slice(&data);
                    if text.len() > 1 << 20 {
                        return if self.is(Defect::DiesOfBigMessage) { Ended::Over } else { Ended::Lost };
                    }
                    if self.reader.at_rest() || self.is(Defect::NoControlFragments) {
                        if let Some(ended) = self.message(&std::mem::take(&mut text)).await {
                            return ended;
                        }
                        if let Some(reconnect) = self.drain.take() {
                            let name = self.shared.name.lock().unwrap().clone();
                            let _ = events.send((number, name, Ended::Drain(reconnect))).await;
                            if self.is(Defect::LeavesAtDrain) {
                                let _ = close(&self.shared.control, 1000).await;
                                return Ended::Lost;
                            }
                        }
                    }
                }
                In::EmptyFragment => {
                    if let Some(ended) = self.message(&std::mem::take(&mut text)).await {
                        return ended;
                    }
                }
                In::Ping(payload) => {
                    pings += 1;
                    if pings > 1000 && self.is(Defect::DiesOfPings) {
                        return Ended::Over;
                    }
                    if !self.is(Defect::IgnoresControlPings) {
                        let _ = send(&self.shared.control, Opcode::Pong, &payload).await;
                    }
                }
                In::Pong => owed = None,
                In::Empty => {}
                In::Close(code) => {
                    let _ = close(&self.shared.control, code.unwrap_or(1000)).await;
                    return self.ended(code);
                }
                In::Fin | In::Cut => {
                    if self.is(Defect::ForgetsClosed) {
                        self.closed = None;
                    }
                    return self.ended(None);
                }
            }
        }
    }

    /// What the relay's end means (`protocol.md`, sections 3.1 and 8.1).
    fn ended(&self, code: Option<u16>) -> Ended {
        let last = match self.closed.as_deref() {
            Some("expired" | "deleted" | "replaced") => !self.is(Defect::ComesBackAfterEnd),
            Some("succeeded") => !self.is(Defect::SucceededIsLoss),
            Some("restart" | "stale" | "revoked" | "token_expired") => false,
            Some(_) if self.is(Defect::UnknownReasonReturns) => false,
            Some(_) if self.is(Defect::UnknownReasonStops) => true,
            _ => code == Some(1000) && !self.is(Defect::ComesBackAfterEnd),
        };
        if last { Ended::Over } else { Ended::Lost }
    }

    async fn goodbye(&mut self) -> Ended {
        if self.is(Defect::LeavesWithoutWord) {
            return Ended::Stopped;
        }
        let _ = close(&self.shared.control, 1000).await;
        if self.is(Defect::DeletesAtOnce) {
            self.shared.client.delete("?unless_connected=true").await;
        }
        let answered =
            async { while !matches!(self.reader.next().await, In::Close(_) | In::Fin | In::Cut) {} };
        let _ = timeout(Duration::from_secs(2), answered).await;
        Ended::Stopped
    }

    async fn message(&mut self, text: &[u8]) -> Option<Ended> {
        let Ok(message) = serde_json::from_slice::<Value>(text) else {
            return self.is(Defect::NonsenseEndsSession).then_some(Ended::Over);
        };
        let known =
            ["connection", "welcome", "cancel", "standby", "drain", "expiring", "auth", "error", "closed"];
        let kind = message["type"].as_str().unwrap_or_default();
        if !known.contains(&kind) && self.is(Defect::UnknownEndsSession) {
            return Some(Ended::Over);
        }
        if kind == "connection" {
            if let Some(id) = message["id"].as_str() {
                let cancelled = CancellationToken::new();
                self.shared.cancels.lock().unwrap().insert(id.to_owned(), cancelled.clone());
                self.shared.client.spawn(serve(Arc::clone(&self.shared), id.to_owned(), cancelled));
            }
        } else if self.shared.two {
            return self.level_two(kind, &message).await;
        }
        None
    }

    async fn level_two(&mut self, kind: &str, message: &Value) -> Option<Ended> {
        let ms = |name: &str| Duration::from_millis(message[name].as_u64().unwrap_or(10_000));
        match kind {
            "welcome" => self.welcome(message, ms),
            "cancel" => {
                let id = message["id"].as_str().unwrap_or_default();
                let cancelled = self.shared.cancels.lock().unwrap().get(id).cloned();
                cancelled.filter(|_| !self.is(Defect::IgnoresCancel)).inspect(CancellationToken::cancel);
            }
            "standby" => {
                let most =
                    if self.is(Defect::BelievesWant) { 100 } else { *self.shared.most.lock().unwrap() };
                let want = message["want"].as_u64().map_or(0, |want| want.min(most as u64) as usize);
                match &self.want {
                    Some(sender) => drop(sender.send_replace(want)),
                    None => {
                        let (sender, receiver) = watch::channel(want);
                        self.want = Some(sender);
                        self.shared.client.spawn(hold_some(Arc::clone(&self.shared), receiver));
                    }
                }
            }
            "drain" => self.drain = Some(ms("reconnect_ms")),
            "expiring" if message["what"] == "token" => {
                let token = format!("fresh_{}", Uuid::new_v4().simple());
                let text = json!({ "type": "auth", "token": token }).to_string();
                self.offered.push_back(token);
                let _ = send(&self.shared.control, Opcode::Text, text.as_bytes()).await;
            }
            "auth" => {
                let accepted = message["accepted"] == true;
                if !accepted && self.is(Defect::AuthRefusalEnds) {
                    return Some(Ended::Over);
                }
                let offered = self.offered.pop_front().filter(|_| accepted);
                if let Some(token) = offered.filter(|_| !self.is(Defect::IgnoresNewToken)) {
                    self.shared.client.state.lock().unwrap().key = token;
                }
            }
            "closed" => self.closed = message["reason"].as_str().map(str::to_owned),
            _ => {}
        }
        None
    }

    fn welcome(&mut self, message: &Value, ms: impl Fn(&str) -> Duration) {
        if self.shared.name.lock().unwrap().is_some() {
            return;
        }
        *self.shared.name.lock().unwrap() = message["session"].as_str().map(str::to_owned);
        let least = if self.is(Defect::BelievesNumbers) { Duration::ZERO } else { Duration::from_secs(1) };
        *self.shared.claim.lock().unwrap() = ms("claim_ms").max(least);
        self.ping_every = ms("ping_interval_ms").clamp(Duration::from_millis(100), Duration::from_secs(10));
        self.pong_wait = ms("pong_timeout_ms").clamp(Duration::from_millis(500), Duration::from_secs(20));
        *self.shared.most.lock().unwrap() =
            message["limits"]["standby"].as_u64().map_or(8, |most| most.min(8) as usize);
    }
}

/// Why a standby socket is none any more.
enum Gone {
    Assigned,
    Refused,
    Ended,
}

/// Holds as many standby sockets as are wanted.
async fn hold_some(shared: Arc<Shared>, mut want: watch::Receiver<usize>) {
    let client = Arc::clone(&shared.client);
    let (mut held, mut next, mut refused) = (JoinSet::new(), Instant::now(), false);
    loop {
        let wanted = *want.borrow_and_update();
        while held.len() < wanted && Instant::now() >= next {
            held.spawn(hold(Arc::clone(&shared)));
        }
        if held.len() > wanted && client.is(Defect::ClosesSurplus) {
            held.abort_all();
        }
        let lacking = held.len() < wanted;
        tokio::select! {
            Some(gone) = held.join_next() => match gone {
                Ok(Gone::Assigned) => {}
                Ok(Gone::Refused) if client.is(Defect::RetriesAtOnce) => {}
                Ok(Gone::Refused) => (next, refused) = (Instant::now() + Duration::from_secs(30), true),
                _ if client.is(Defect::ReplacesAtOnce) => {}
                _ => next = Instant::now() + Duration::from_secs(1),
            },
            changed = want.changed() => match changed {
                Ok(()) if refused => (next, refused) = (Instant::now(), false),
                Ok(()) => {}
                Err(_) => return,
            },
            () = sleep_until(next), if lacking => {}
        }
    }
}

async fn hold(shared: Arc<Shared>) -> Gone {
    let client = Arc::clone(&shared.client);
    let id = match client.is(Defect::RepeatsIds) {
        true => "11111111-1111-4111-8111-111111111111".to_owned(),
        false => Uuid::new_v4().to_string(),
    };
    let session = shared.name.lock().unwrap().clone().unwrap_or_default();
    let path = format!("/ws/data?tunnel_id={}&id={id}&session={session}", shared.tunnel);
    let (mut reader, writer) = match client.handshake(&path, &[client.bearer()]).await {
        Ok(answer) => answer.socket(),
        Err(Failure::Final | Failure::Passing(_)) => return Gone::Refused,
    };
    if client.is(Defect::SpeaksFirst) {
        let _ = send(&writer, Opcode::Binary, b"hello").await;
    }
    let mut text = Vec::new();
    loop {
        match reader.next().await {
            In::Ping(payload) => drop(send(&writer, Opcode::Pong, &payload).await),
            In::Data(data) => text.extend_from_slice(&data),
            In::Close(_) => {
                let _ = close(&writer, 1000).await;
                return Gone::Ended;
            }
            In::Fin | In::Cut | In::Empty => return Gone::Ended,
            In::EmptyFragment | In::Pong => {}
        }
        if !text.is_empty() && reader.at_rest() {
            break;
        }
    }
    let message: Value = serde_json::from_slice(&text).unwrap_or_default();
    let ours = reader.is_text() && message["type"] == "connection" && message["id"] == id.as_str();
    if !ours && !client.is(Defect::TakesAnyFirst) {
        return Gone::Ended;
    }
    client.clone().spawn(async move { join(&shared, &id, (reader, writer), None).await });
    Gone::Assigned
}
