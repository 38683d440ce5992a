//! A tunnel for programs: opened in a few lines, told about as a stream of events, closed in order or by dropping it.

mod builder;
mod error;
mod words;

pub use builder::TunnelBuilder;
pub use error::TunnelError;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tokio::sync::mpsc;

use super::event::{End, Event};
use super::session::{Options, Session};
use crate::auth::Secret;

/// An open tunnel. It keeps itself open: a relay that was lost is found again, and the URL stays the same.
///
/// Its events need not be read. Dropping it ends it at once; [`Tunnel::shutdown`] ends it in order.
///
/// It is a [`Stream`] of [`Event`]s too. Their texts may hold the words of strangers: what goes to a terminal has to be
/// escaped first, for example by `escape_debug`.
pub struct Tunnel {
    session: Session,
    events: mpsc::Receiver<Event>,
    url: String,
    id: String,
    end: Option<End>,
}

impl Tunnel {
    /// Begins a tunnel through the relay at `relay`: `https://relay.example.com`, or `http://…` for one without TLS.
    pub fn to(relay: impl Into<String>) -> TunnelBuilder {
        TunnelBuilder::new(relay.into())
    }

    /// Opens a tunnel from its parts: for many tunnels over one [`Connector`](super::Connector). It is open when this
    /// returns. `wait`: a relay that is not reached is waited for, unless `options` say to exit.
    pub async fn open(options: Options, wait: bool) -> Result<Self, TunnelError> {
        let (session, events) = Session::start(options);
        let mut tunnel = Self { session, events, url: String::new(), id: String::new(), end: None };
        loop {
            match tunnel.next_event().await {
                Some(Event::Online { .. }) => return Ok(tunnel),
                Some(Event::Offline { reason, .. }) if !wait => {
                    // What may have been created already is deleted.
                    tunnel.shutdown().await;
                    return Err(TunnelError::Unreachable(reason));
                }
                Some(Event::Ended(end)) => return Err(end.into()),
                Some(_) => {}
                None => return Err(tunnel.ended().await.into()),
            }
        }
    }

    /// Where viewers go; the same as long as the tunnel is open.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Id of the tunnel in the REST API, as of the last event read: it may change when the relay was lost.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The next event; `None` behind the last one, [`Event::Ended`]. Events that find 64 unread ones are dropped. Safe
    /// to cancel.
    pub async fn next_event(&mut self) -> Option<Event> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Requests since the last call that were not told as events, where these are wanted at all.
    pub fn take_omitted(&self) -> u64 {
        self.session.take_omitted()
    }

    /// Gives it a fresh key or token of the same owner, before the former one ends. [`Event::Auth`] says what came of it,
    /// where the relay tells; a refused one changes nothing.
    pub fn authenticate(&self, key: impl Into<String>) -> Result<(), TunnelError> {
        Ok(self.session.authenticate(&Secret::new(key))?)
    }

    /// Asks for the end in order and returns at once; [`Event::Ended`] says when it is reached.
    pub fn stop(&self) {
        self.session.stop();
    }

    /// Waits for the end, whoever brings it about. Safe to cancel, and to call again.
    pub async fn ended(&mut self) -> End {
        if let Some(end) = &self.end {
            return end.clone();
        }
        let end = words::of_end(self.session.ended().await);
        self.end.insert(end).clone()
    }

    /// Ends in order: no new viewers, five seconds for running requests, and the tunnel is deleted, within three.
    pub async fn shutdown(mut self) -> End {
        self.stop();
        self.ended().await
    }

    fn note(&mut self, event: &Event) {
        if let Event::Online { url, id, .. } = event {
            (self.url, self.id) = (url.clone(), id.clone());
        }
    }
}

impl Stream for Tunnel {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = self.get_mut();
        let event = ready!(this.events.poll_recv(cx)).map(words::of_event);
        event.iter().for_each(|event| this.note(event));
        Poll::Ready(event)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("url", &self.url).field("id", &self.id).finish_non_exhaustive()
    }
}
