//! A control socket of the client: read all the time, its pings answered, and anything said on it that the case wants.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, timeout, timeout_at};

use super::wire::{End, Heard, Reader, Writer, close_payload, first, frame};
use crate::conform::case::Ended;
use crate::proto::frame::Opcode;

/// Messages that may wait for the case, or for the client.
const QUEUE: usize = 1024;
/// Bytes of one message of the client; a relay takes no more (`protocol.md`, section 7).
const LARGEST: usize = 64 * 1024;

/// A control session as the relay holds it. Dropped, its connection ends.
pub(super) struct Control {
    orders: mpsc::Sender<Order>,
    heard: mpsc::Receiver<Said>,
    _pump: JoinSet<()>,
}

enum Order {
    Frame(Opcode, bool, Vec<u8>),
    Raw(Vec<u8>),
    /// The same, byte by byte; no pong comes between them.
    Slowly(Vec<u8>),
    Fin,
    Reset,
    /// Answer no more pings.
    Mute,
}

/// What the client said.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// A whole message.
    Message(Vec<u8>),
    /// A ping, which was answered.
    Ping,
    /// A pong with this payload.
    Pong(Vec<u8>),
    /// Nothing more comes.
    End(End),
    /// A frame that RFC 6455 forbids; nothing more is read.
    Broken(Ended),
}

impl Control {
    pub(super) fn new((reader, writer): (Reader, Writer)) -> Self {
        let ((orders, ordered), (say, heard)) = (mpsc::channel(QUEUE), mpsc::channel(QUEUE));
        let mut pump = JoinSet::new();
        pump.spawn(run(reader, writer, ordered, say));
        Self { orders, heard, _pump: pump }
    }

    /// Says a message.
    pub(super) async fn say(&self, message: &Value) {
        self.text(&message.to_string()).await;
    }

    /// Says any text in one message.
    pub(super) async fn text(&self, text: &str) {
        self.frame(Opcode::Text, true, text.as_bytes()).await;
    }

    /// One frame of any kind.
    pub(super) async fn frame(&self, opcode: Opcode, fin: bool, payload: &[u8]) {
        self.order(Order::Frame(opcode, fin, payload.to_vec())).await;
    }

    /// Several messages in one write, so that they arrive together.
    pub(super) async fn at_once(&self, messages: &[Value]) {
        let frames = messages.iter().map(|message| frame(Opcode::Text, true, message.to_string().as_bytes()));
        self.raw(frames.flatten().collect()).await;
    }

    /// Bytes as they are.
    pub(super) async fn raw(&self, bytes: Vec<u8>) {
        self.order(Order::Raw(bytes)).await;
    }

    /// The same, each byte by itself.
    pub(super) async fn slowly(&self, bytes: Vec<u8>) {
        self.order(Order::Slowly(bytes)).await;
    }

    /// A close frame.
    pub(super) async fn close(&self, code: Option<u16>, reason: &str) {
        self.frame(Opcode::Close, true, &close_payload(code, reason)).await;
    }

    /// Ends the TCP connection without a close frame.
    pub(super) async fn fin(&self) {
        self.order(Order::Fin).await;
    }

    /// Drops the connection by a reset.
    pub(super) async fn reset(&self) {
        self.order(Order::Reset).await;
    }

    /// From now on no ping is answered.
    pub(super) async fn mute(&self) {
        self.order(Order::Mute).await;
    }

    /// The socket may be gone, which is seen where something is expected of it.
    async fn order(&self, order: Order) {
        let _ = self.orders.send(order).await;
    }

    /// What comes next; `None` if nothing does within `wait`.
    pub(super) async fn next(&mut self, wait: Duration) -> Option<Said> {
        timeout(wait, self.heard.recv()).await.ok().map(|said| said.unwrap_or(Said::End(End::Fin)))
    }

    /// The next message of this type; others are an error.
    pub(super) async fn message(&mut self, kind: &str, wait: Duration) -> Result<Value, Ended> {
        let expected = || format!("the message `{kind}` on the control socket");
        let until = Instant::now() + wait;
        loop {
            let Ok(said) = timeout_at(until, self.heard.recv()).await else {
                return Err(Ended::failed(expected(), format!("none came within {wait:?}")));
            };
            let bytes = match said {
                Some(Said::Message(bytes)) => bytes,
                Some(Said::Ping | Said::Pong(_)) => continue,
                Some(Said::Broken(ended)) => return Err(ended),
                Some(Said::End(end)) => return Err(Ended::failed(expected(), format!("there came {end}"))),
                None => return Err(Ended::failed(expected(), "the control socket had ended")),
            };
            return match serde_json::from_slice::<Value>(&bytes) {
                Ok(message) if message["type"] == kind => Ok(message),
                _ => Err(Ended::failed(expected(), format!("there came \"{}\"", first(&bytes)))),
            };
        }
    }

    /// A pong with exactly this payload.
    pub(super) async fn pong(&mut self, payload: &[u8], wait: Duration) -> Result<(), Ended> {
        let expected = || format!("a pong with \"{}\" on the control socket", first(payload));
        let until = Instant::now() + wait;
        loop {
            match timeout_at(until, self.heard.recv()).await {
                Ok(Some(Said::Pong(came))) if came == payload => return Ok(()),
                Ok(Some(Said::Broken(ended))) => return Err(ended),
                Ok(Some(Said::End(end))) => {
                    return Err(Ended::failed(expected(), format!("there came {end}")));
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err(Ended::failed(expected(), "the control socket had ended")),
                Err(_) => return Err(Ended::failed(expected(), format!("none came within {wait:?}"))),
            }
        }
    }

    /// How the client ends the socket; `None` if it does not within `wait`.
    pub(super) async fn end(&mut self, wait: Duration) -> Option<End> {
        let until = Instant::now() + wait;
        loop {
            match timeout_at(until, self.heard.recv()).await.ok()? {
                Some(Said::End(end)) => return Some(end),
                None => return Some(End::Fin),
                Some(_) => {}
            }
        }
    }

    /// Fails if anything but pings and pongs has come, up to the pong of a ping that is sent now.
    pub(super) async fn said_nothing(&mut self, wait: Duration) -> Result<(), Ended> {
        const LAST: &[u8] = b"anything?";
        let expected = "nothing on the control socket but pings and pongs";
        self.frame(Opcode::Ping, true, LAST).await;
        let until = Instant::now() + wait;
        loop {
            let came = match timeout_at(until, self.heard.recv()).await {
                Ok(Some(Said::Pong(payload))) if payload == LAST => return Ok(()),
                Ok(Some(Said::Ping | Said::Pong(_))) => continue,
                Ok(Some(Said::Message(bytes))) => format!("there came \"{}\"", first(&bytes)),
                Ok(Some(Said::End(end))) => format!("there came {end}"),
                Ok(Some(Said::Broken(ended))) => return Err(ended),
                Ok(None) => "the control socket had ended".to_owned(),
                Err(_) => format!("no pong came within {wait:?}"),
            };
            return Err(Ended::failed(expected, came));
        }
    }
}

async fn slowly(writer: &mut Writer, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes.chunks(1) {
        writer.raw(byte).await?;
        yield_now().await;
    }
    Ok(())
}

async fn run(
    mut reader: Reader,
    mut writer: Writer,
    mut orders: mpsc::Receiver<Order>,
    say: mpsc::Sender<Said>,
) {
    let (mut message, mut mute, mut reading) = (BytesMut::new(), false, true);
    loop {
        tokio::select! {
            order = orders.recv() => {
                let written = match order {
                    Some(Order::Frame(opcode, fin, payload)) => writer.frame(opcode, fin, &payload).await,
                    Some(Order::Raw(bytes)) => writer.raw(&bytes).await,
                    Some(Order::Slowly(bytes)) => slowly(&mut writer, &bytes).await,
                    Some(Order::Fin) => {
                        writer.fin().await;
                        Ok(())
                    }
                    Some(Order::Reset) => return writer.reset(),
                    Some(Order::Mute) => {
                        mute = true;
                        Ok(())
                    }
                    None => return,
                };
                // What the client has said before it left may still be read.
                drop(written);
            }
            heard = reader.next(), if reading => {
                let said = match heard {
                    Ok(Heard::Ping(payload)) => {
                        if !mute {
                            let _ = writer.frame(Opcode::Pong, true, &payload).await;
                        }
                        Said::Ping
                    }
                    Ok(Heard::Pong(payload)) => Said::Pong(payload.to_vec()),
                    Ok(Heard::End(end)) => {
                        reading = false;
                        if let End::Close(code) = end {
                            writer.answer_close(code).await;
                        }
                        Said::End(end)
                    }
                    Ok(heard) => {
                        if let Heard::Data(data) = &heard {
                            message.extend_from_slice(data);
                        }
                        if message.len() > LARGEST {
                            reading = false;
                            Said::Broken(Ended::failed("messages of at most 64 KiB", "a longer one came"))
                        } else if reader.at_rest() {
                            Said::Message(message.split().to_vec())
                        } else {
                            continue;
                        }
                    }
                    Err(broken) => {
                        reading = false;
                        Said::Broken(broken)
                    }
                };
                // Pings and pongs need no place: a case that does not listen is not to be held up by them.
                if matches!(said, Said::Ping | Said::Pong(_)) {
                    let _ = say.try_send(said);
                } else if say.send(said).await.is_err() {
                    return;
                }
            }
        }
    }
}
