//! A data socket as the relay holds it, with the verbs of a case: what must come, how it must end, and what is said.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::call::Call;
use super::wire::{End, Heard, MESSAGE, Reader, Writer, first};
use crate::conform::case::Ended;
use crate::proto::frame::Opcode;

/// A data socket. Dropped, its connection ends.
pub(super) struct Data {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    /// Payload that was read beyond what was expected.
    left: Vec<u8>,
    wait: Duration,
}

impl Data {
    /// Answers the handshake.
    pub(super) async fn accept(call: Call, wait: Duration) -> Result<Self, Ended> {
        let (reader, writer) = call.switch(None).await.map_err(|error| {
            Ended::failed(
                "the client to wait for the answer of its data socket's handshake",
                error.to_string(),
            )
        })?;
        Ok(Self { reader, writer, left: Vec::new(), wait })
    }

    /// Sends bytes, as binary messages.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        for piece in bytes.chunks(MESSAGE) {
            self.frame(Opcode::Binary, true, piece).await?;
        }
        Ok(())
    }

    /// Sends one frame.
    pub(super) async fn frame(&mut self, opcode: Opcode, fin: bool, payload: &[u8]) -> Result<(), Ended> {
        self.writer.frame(opcode, fin, payload).await.map_err(|error| gone(&error))
    }

    /// Assigns a standby socket, or says anything else as a text.
    pub(super) async fn say(&mut self, message: &Value) -> Result<(), Ended> {
        self.frame(Opcode::Text, true, message.to_string().as_bytes()).await
    }

    /// Sends bytes that need not be frames.
    pub(super) async fn raw(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.writer.raw(bytes).await.map_err(|error| gone(&error))
    }

    /// Level two: the relay sends no more.
    pub(super) async fn say_end(&mut self) -> Result<(), Ended> {
        self.frame(Opcode::Binary, true, b"").await
    }

    /// What comes next; pings are answered, and not told.
    async fn next(&mut self, until: Instant) -> Result<Option<Heard>, Ended> {
        loop {
            match timeout_at(until, self.reader.next()).await {
                Ok(Ok(Heard::Ping(payload))) => {
                    let _ = self.writer.frame(Opcode::Pong, true, &payload).await;
                }
                Ok(Ok(Heard::End(end))) => {
                    // The answer that a client may wait for.
                    if let End::Close(code) = end {
                        self.writer.answer_close(code).await;
                    }
                    return Ok(Some(Heard::End(end)));
                }
                Ok(heard) => return heard.map(Some),
                Err(_) => return Ok(None),
            }
        }
    }

    /// The next payload of the client, in any number of messages, is exactly this.
    pub(super) async fn brings(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let (until, mut came) = (Instant::now() + self.wait, std::mem::take(&mut self.left));
        let expected = || format!("\"{}\" ({} bytes) on the data socket", first(bytes), bytes.len());
        while came.len() < bytes.len() && bytes.starts_with(&came) {
            match self.next(until).await? {
                Some(Heard::Data(data)) => came.extend_from_slice(&data),
                Some(Heard::End(end)) => {
                    let came = format!("{end} came behind \"{}\" ({} bytes)", first(&came), came.len());
                    return Err(Ended::failed(expected(), came));
                }
                Some(_) => {}
                None => {
                    let came =
                        format!("\"{}\" ({} bytes) came within {:?}", first(&came), came.len(), self.wait);
                    return Err(Ended::failed(expected(), came));
                }
            }
        }
        if !came.starts_with(bytes) {
            return Err(Ended::failed(
                expected(),
                format!("there came \"{}\" ({} bytes)", first(&came), came.len()),
            ));
        }
        self.left = came.split_off(bytes.len());
        Ok(())
    }

    /// The same, while more is sent than the client may want to take.
    pub(super) async fn brings_during(&mut self, upload: &[u8], bytes: &[u8]) -> Result<(), Ended> {
        let (until, mut came) = (Instant::now() + self.wait, Vec::new());
        let Self { reader, writer, .. } = self;
        let send = async {
            for piece in upload.chunks(MESSAGE) {
                if writer.frame(Opcode::Binary, true, piece).await.is_err() {
                    break;
                }
            }
            std::future::pending().await
        };
        let read = async {
            while came.len() < bytes.len() {
                match reader.next().await? {
                    Heard::Data(data) => came.extend_from_slice(&data),
                    Heard::End(end) => return Ok(Some(end)),
                    _ => {}
                }
            }
            Ok(None)
        };
        let ended = tokio::select! {
            ended = timeout_at(until, read) => ended,
            () = send => Ok(Ok(None)),
        };
        let ended = ended.unwrap_or(Ok(None))?;
        if came == bytes {
            return Ok(());
        }
        let how = ended.map_or_else(|| format!("within {:?}", self.wait), |end| format!("before {end}"));
        Err(Ended::failed(
            format!(
                "\"{}\" ({} bytes) on the data socket, though the target takes no more",
                first(bytes),
                bytes.len()
            ),
            format!("\"{}\" ({} bytes) came {how}", first(&came), came.len()),
        ))
    }

    /// Sends until nothing more is taken, perhaps within a frame.
    pub(super) async fn fill(&mut self) {
        const STALLED: Duration = Duration::from_millis(300);
        const MOST: usize = 2000;
        let piece = [b'z'; MESSAGE];
        for _ in 0..MOST {
            match timeout(STALLED, self.writer.frame(Opcode::Binary, true, &piece)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    }

    /// A pong with this payload; bytes that come before are an error.
    pub(super) async fn pong(&mut self, payload: &[u8]) -> Result<(), Ended> {
        let (until, expected) =
            (Instant::now() + self.wait, || format!("a pong with \"{}\"", first(payload)));
        loop {
            match self.next(until).await? {
                Some(Heard::Pong(came)) if came == payload => return Ok(()),
                Some(Heard::Pong(_)) => {}
                Some(Heard::End(end)) => return Err(Ended::failed(expected(), format!("there came {end}"))),
                Some(other) => return Err(Ended::failed(expected(), format!("there came {other:?}"))),
                None => return Err(Ended::failed(expected(), format!("none came within {:?}", self.wait))),
            }
        }
    }

    /// Level two: the client says that it sends no more, before anything else.
    pub(super) async fn brings_end(&mut self) -> Result<(), Ended> {
        let expected = "an empty message, which says that the target sends no more";
        let until = Instant::now() + self.wait;
        if !self.left.is_empty() {
            return Err(Ended::failed(expected, format!("there came \"{}\"", first(&self.left))));
        }
        loop {
            match self.next(until).await? {
                Some(Heard::Empty) => return Ok(()),
                Some(Heard::Pong(_)) => {}
                Some(Heard::Data(data)) => {
                    return Err(Ended::failed(expected, format!("there came \"{}\"", first(&data))));
                }
                Some(Heard::MessageEnd) => {
                    return Err(Ended::failed(expected, "an empty last fragment came, which ends nothing"));
                }
                Some(Heard::Ping(_)) => {}
                Some(Heard::End(end)) => return Err(Ended::failed(expected, format!("there came {end}"))),
                None => return Err(Ended::failed(expected, format!("nothing came within {:?}", self.wait))),
            }
        }
    }

    /// Reads to the end: the payload, whether an empty message came, and how it ended; `None`: it did not in time.
    pub(super) async fn rest(&mut self) -> Result<Rest, Ended> {
        let until = Instant::now() + self.wait;
        let mut rest = Rest { bytes: std::mem::take(&mut self.left), empty: false, end: None };
        loop {
            match self.next(until).await? {
                Some(Heard::Data(data)) => rest.bytes.extend_from_slice(&data),
                Some(Heard::Empty) => rest.empty = true,
                Some(Heard::End(end)) => {
                    rest.end = Some(end);
                    return Ok(rest);
                }
                Some(_) => {}
                None => return Ok(rest),
            }
        }
    }

    /// The socket ends in order, and nothing more comes on it. At base level that is a close frame with 1000, 1001 or no
    /// code, or the end of the connection between two messages (`protocol.md`, section 4).
    pub(super) async fn ends_in_order(&mut self) -> Result<(), Ended> {
        let rest = self.rest().await?;
        let expected = "the data socket to end in order (1000, 1001, or between two messages)";
        if !rest.bytes.is_empty() {
            return Err(Ended::failed(expected, format!("there came \"{}\"", first(&rest.bytes))));
        }
        match rest.end {
            Some(End::Close(None | Some(1000 | 1001)) | End::Fin) => Ok(()),
            Some(end) => Err(Ended::failed(expected, format!("there came {end}"))),
            None => Err(Ended::failed(expected, format!("it did not end within {:?}", self.wait))),
        }
    }

    /// The socket ends as one that does not end in order.
    pub(super) async fn breaks_off(&mut self) -> Result<(), Ended> {
        let rest = self.rest().await?;
        let expected = "the data socket to break off (1011, or a reset)";
        match rest.end {
            Some(End::Close(None | Some(1000 | 1001)) | End::Fin) => {
                Err(Ended::failed(expected, "it ended in order"))
            }
            Some(_) => Ok(()),
            None => Err(Ended::failed(expected, format!("it did not end within {:?}", self.wait))),
        }
    }

    /// The client closes with this code, and says nothing before but its end.
    pub(super) async fn closes_with(&mut self, code: u16) -> Result<(), Ended> {
        let rest = self.rest().await?;
        let expected = format!("a close frame with code {code}");
        match rest.end {
            Some(End::Close(Some(came))) if came == code && rest.bytes.is_empty() => Ok(()),
            _ if !rest.bytes.is_empty() => {
                Err(Ended::failed(expected, format!("\"{}\" came", first(&rest.bytes))))
            }
            Some(end) => Err(Ended::failed(expected, format!("there came {end}"))),
            None => Err(Ended::failed(expected, format!("none came within {:?}", self.wait))),
        }
    }

    /// Nothing but pings and pongs comes within `quiet`.
    pub(super) async fn stays_silent(&mut self, quiet: Duration) -> Result<(), Ended> {
        let until = Instant::now() + quiet;
        loop {
            match self.next(until).await? {
                None => return Ok(()),
                Some(Heard::Pong(_)) => {}
                Some(other) => {
                    let came = match other {
                        Heard::Data(data) => format!("there came \"{}\"", first(&data)),
                        Heard::End(end) => format!("there came {end}"),
                        other => format!("there came {other:?}"),
                    };
                    return Err(Ended::failed("the data socket to be open, and silent", came));
                }
            }
        }
    }

    /// A close frame.
    pub(super) async fn close(&mut self, code: u16) -> Result<(), Ended> {
        self.writer.close(Some(code), "").await.map_err(|error| gone(&error))
    }

    /// The same, and waits for the client's answer, as some libraries see the end of a socket no sooner.
    pub(super) async fn dismiss(&mut self, code: u16) -> Result<(), Ended> {
        self.close(code).await?;
        self.rest().await.map(drop)
    }

    /// Ends the TCP connection without a close frame.
    pub(super) async fn fin(&mut self) {
        self.writer.fin().await;
    }

    /// Drops the connection by a reset.
    pub(super) fn reset(self) {
        let Self { reader, writer, .. } = self;
        writer.reset();
        drop(reader);
    }
}

/// What came until the end.
pub(super) struct Rest {
    pub(super) bytes: Vec<u8>,
    /// An empty message was among it.
    pub(super) empty: bool,
    /// `None`: there was none in time.
    pub(super) end: Option<End>,
}

fn gone(error: &io::Error) -> Ended {
    Ended::failed("the client to read from its data socket", format!("it has ended it: {error}"))
}
