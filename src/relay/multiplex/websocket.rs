//! A WebSocket to a target that speaks HTTP/2 (RFC 8441): one stream of its connection, as bytes both ways.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::response::Parts;
use http::{HeaderValue, Response, StatusCode, Version, header};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Place;
use super::upload::poll_room;
use crate::proto::limits::read::MODEST;
use crate::relay::Shared;
use crate::relay::carry::Terms;
use crate::relay::errors::Cause;
use crate::relay::exchange::{Account, Record};
use crate::relay::extended::Wanted;
use crate::relay::front::Content;
use crate::relay::upgrade;
use crate::relay::viewer::Connection;
use crate::stream::read::ReadSize;
use crate::stream::{Duplex, handshake};
use crate::tunnel::{Tunnel, Viewing};

/// Whether a viewer wants a WebSocket. Of other protocols there is nothing in HTTP/2: such a request is one without.
pub fn is_meant(wanted: &Wanted) -> bool {
    upgrade::is_among(&wanted.protocols, &HeaderValue::from_static("websocket"))
}

/// Whoever asked for it.
pub struct Viewer<'a> {
    /// What comes after the answer.
    pub on_upgrade: OnUpgrade,
    /// The connection.
    pub connection: &'a Arc<Connection>,
    /// What it speaks.
    pub version: Version,
    /// How it asked.
    pub wanted: Wanted,
    /// Its half of a handshake of HTTP/1.1.
    pub key: Option<&'a HeaderValue>,
}

/// The answer by which the viewer's end becomes a WebSocket too; what follows runs by itself.
pub fn switch(
    shared: &Arc<Shared>,
    mut head: Parts,
    viewer: Viewer<'_>,
    (stream, tunnel, viewing): (Stream, Arc<Tunnel>, Viewing),
    terms: Terms,
    record: &mut Option<Box<Record>>,
) -> Result<Response<Content>, Cause> {
    let Viewer { on_upgrade, connection, version, wanted, key } = viewer;
    head.headers.remove(header::CONTENT_LENGTH);
    let status = if wanted.key.is_some() {
        StatusCode::OK
    } else {
        let key = key.and_then(|key| key.to_str().ok());
        let key = key.ok_or(Cause::BadRequest("A WebSocket needs a Sec-WebSocket-Key."))?;
        let accept = HeaderValue::from_str(&handshake::accept_of(key.trim())).map_err(|_| Cause::Internal)?;
        head.headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        StatusCode::SWITCHING_PROTOCOLS
    };
    let account = Account::new(tunnel, viewing, status.as_u16(), record.take());
    let viewer = upgrade::Viewer::new(on_upgrade, connection, version, &shared.open.upgraded);
    let terms = Terms { idle: shared.config.limits.idle_upgraded, ..terms };
    let parts = (Bytes::new(), Box::new(stream) as Box<dyn Duplex>, None);
    let splicing = Box::pin(upgrade::splice(viewer, parts, terms, account));
    shared.spawn(splicing);
    let mut response = Response::new(Content::Page(Default::default()));
    *response.status_mut() = status;
    *response.headers_mut() = head.headers;
    Ok(response)
}

/// Both directions of a stream. Dropped before both have ended, it is reset.
pub struct Stream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Of what is read from the viewer.
    size: ReadSize,
    /// Read, and not sent.
    out: Bytes,
    ended: bool,
    _place: Place,
}

impl Stream {
    /// The stream of a WebSocket that the target has accepted.
    pub fn new(place: Place, send: SendStream<Bytes>, receive: RecvStream) -> Self {
        let size = ReadSize::new(MODEST);
        Self { send, receive, size, out: Bytes::new(), ended: false, _place: place }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let room = ready!(poll_room(&mut self.send, self.out.len(), cx));
            let room = room.ok_or(io::ErrorKind::BrokenPipe)?.map_err(io::Error::other)?;
            let part = self.out.split_to(room.min(self.out.len()));
            self.send.send_data(part, false).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Duplex for Stream {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            let Some(data) = ready!(self.receive.poll_data(cx)) else { return Poll::Ready(Ok(None)) };
            let data = data.map_err(io::Error::other)?;
            // Only a stream that has failed cannot take it, and says so by itself.
            let _ = self.receive.flow_control().release_capacity(data.len());
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(data)));
            }
        }
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        let mut read = BytesMut::new();
        let count = ready!(self.size.poll_read(cx, Pin::new(source), &mut read, usize::MAX))?;
        self.out = read.freeze();
        Poll::Ready(Ok(count))
    }

    fn half_closes(&self) -> bool {
        true
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        this.out = Bytes::copy_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_out(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            ready!(this.poll_out(cx))?;
            this.ended = true;
            this.send.send_data(Bytes::new(), true).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}
