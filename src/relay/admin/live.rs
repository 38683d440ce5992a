//! Live figures as server-sent events: made when the reader takes them, so that nothing queues up for who does not.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use http::{HeaderName, HeaderValue, header};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::guard::Caller;
use super::problem::Problem;
use super::query::{Ask, Query};
use super::sessions::Session;
use super::summary::Summary;
use super::{Admin, events, fleet, lists, tunnels};
use crate::auth::sha256;
use crate::link::sockets::pulse::Health;
use crate::proto::limits::admin::{EVERY, STREAMS};
use crate::tunnel::events::Kind;

/// Proxies that gather what they pass on would hold it back.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Which list goes along.
enum View {
    Fleet(Ask<Health, fleet::By>),
    Tunnels(Ask<tunnels::State, tunnels::By>),
    Events(Ask<Kind, ()>),
}

/// One open page.
struct Stream {
    admin: Arc<Admin>,
    view: Arc<View>,
    session: Arc<Session>,
    ticks: Interval,
    /// Hash of the list that was sent last.
    sent: [u8; 32],
    /// Number of the newest event that was sent; 0 at the beginning, so that a page which asks for another list, or was cut
    /// off, misses nothing that happened between two streams.
    newest: u64,
    _place: OwnedSemaphorePermit,
}

/// `GET /api/live`
pub async fn live(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    query: Result<axum::extract::Query<Query>, QueryRejection>,
) -> Result<Response, Problem> {
    let session = caller.session.ok_or_else(Problem::login)?;
    let view = Arc::new(View::read(&lists::read(query)?)?);
    let place = Arc::clone(&admin.streams).try_acquire_owned();
    let place = place.map_err(|_| Problem::too_many_streams(STREAMS))?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = Stream { admin, view, session, ticks, sent: [0; 32], newest: 0, _place: place };
    let messages = unfold(stream, |mut stream| async {
        let message = stream.next().await?;
        Some((Ok::<_, Infallible>(message), stream))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (UNBUFFERED, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(messages)).into_response())
}

impl View {
    fn read(query: &Query) -> Result<Self, Problem> {
        match query.view.as_str() {
            "" | "fleet" => fleet::ask(query).map(Self::Fleet),
            "tunnels" => tunnels::ask(query).map(Self::Tunnels),
            "events" => events::ask(query).map(Self::Events),
            _ => Err(Problem::query("view: expected one of fleet, tunnels, events")),
        }
    }
}

impl Stream {
    /// What there is to tell a second after the last time; `None`: the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        let shared = Arc::clone(&self.admin.shared);
        tokio::select! {
            biased;
            () = self.session.over.cancelled() => return None,
            () = shared.ending.handed_over() => return None,
            _ = self.ticks.tick() => {}
        }
        // A page that is open is in use.
        self.session.touch();
        let view = Arc::clone(&self.view);
        let (summary, page) = self.admin.work(move |admin| make(admin, &view)).await.ok()?.ok()?;
        let mut message = Vec::with_capacity(summary.len() + page.len() + 64);
        event(&mut message, "summary", &summary);
        let hash = sha256(&page);
        if hash != self.sent {
            self.sent = hash;
            event(&mut message, "page", &page);
        }
        if let Some(news) = events::since(&shared.registry.events, self.newest) {
            self.newest = news.newest;
            event(&mut message, "events", &serde_json::to_vec(&news).ok()?);
        }
        Some(message.into())
    }
}

/// Summary and list, in JSON.
fn make(admin: &Admin, view: &View) -> serde_json::Result<(Vec<u8>, Vec<u8>)> {
    let (shared, snapshot) = (&admin.shared, admin.snapshot());
    let summary = serde_json::to_vec(&Summary::of(shared, &snapshot))?;
    let page = match view {
        View::Fleet(ask) => serde_json::to_vec(&fleet::page(&snapshot, ask)),
        View::Tunnels(ask) => serde_json::to_vec(&tunnels::page(&snapshot, &shared.routes, ask)),
        View::Events(ask) => serde_json::to_vec(&events::page(&shared.registry.events, ask)),
    }?;
    Ok((summary, page))
}

/// JSON has no line end in it.
fn event(out: &mut Vec<u8>, name: &str, json: &[u8]) {
    out.extend([b"event: ", name.as_bytes(), b"\ndata: ", json, b"\n\n"].concat());
}
