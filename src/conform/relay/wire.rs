//! One connection to the relay as bytes: what is said, what comes, and how it ended, each with a deadline.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::Outcome;
use crate::conform::case::Ended;
use crate::conform::trace::{Trace, Way};
use crate::stream::any::AnyStream;

/// How the other side ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// In order: it sends no more.
    Closed,
    /// By a reset, or another error.
    Broken(String),
}

/// A connection.
pub struct Wire {
    stream: AnyStream,
    /// What has come and was not read yet.
    pub buffer: BytesMut,
    end: Option<End>,
    /// How long anything is waited for.
    pub patience: Duration,
    trace: Trace,
    who: &'static str,
}

impl Wire {
    /// A connection of `who`, as the trace calls it.
    pub fn new(stream: AnyStream, who: &'static str, patience: Duration, trace: Trace) -> Self {
        Self { stream, buffer: BytesMut::new(), end: None, patience, trace, who }
    }

    /// Sends bytes that are traced by whoever knows what they mean.
    pub async fn write(&mut self, bytes: &[u8]) -> Outcome {
        let writing = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let took = timeout(self.patience, writing).await;
        let expected = || format!("the relay takes what the {} sends", self.who);
        match took {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Ended::failed(expected(), format!("the connection broke: {error}"))),
            Err(_) => Err(Ended::failed(expected(), format!("it took no more for {:?}", self.patience))),
        }
    }

    /// Sends text, such as the head of a request.
    pub async fn say(&mut self, text: &[u8]) -> Outcome {
        self.trace.text(Way::Sent, self.who, &String::from_utf8_lossy(text));
        self.write(text).await
    }

    /// Waits for more in the buffer; `false` is the end. `expected` is what a silence fails.
    pub async fn more(&mut self, expected: &str) -> Outcome<bool> {
        if self.end.is_some() {
            return Ok(false);
        }
        // Room for the next read.
        self.buffer.reserve(64 * 1024);
        let read = timeout(self.patience, self.stream.read_buf(&mut self.buffer)).await;
        let end = match read {
            Err(_) => {
                return Err(Ended::failed(expected, format!("nothing came for {:?}", self.patience)));
            }
            Ok(Ok(0)) => End::Closed,
            Ok(Ok(_)) => return Ok(true),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => End::Closed,
            Ok(Err(error)) => End::Broken(error.to_string()),
        };
        let how = if end == End::Closed { "the end of the connection" } else { "a reset of the connection" };
        self.trace.text(Way::Came, self.who, how);
        self.end = Some(end);
        Ok(false)
    }

    /// How it ended; before [`Wire::more`] said so, as if in order.
    pub fn end(&self) -> End {
        self.end.clone().unwrap_or(End::Closed)
    }

    /// Everything that is there, at least one byte; empty is the end.
    pub async fn some(&mut self, expected: &str) -> Outcome<Bytes> {
        if self.buffer.is_empty() {
            self.more(expected).await?;
        }
        Ok(self.buffer.split().freeze())
    }

    /// Exactly `count` bytes.
    pub async fn exactly(&mut self, count: usize, expected: &str) -> Outcome<Bytes> {
        while self.buffer.len() < count {
            if !self.more(expected).await? {
                let came = format!("the connection ended after {} of {count} bytes", self.buffer.len());
                return Err(Ended::failed(expected, came));
            }
        }
        Ok(self.buffer.split_to(count).freeze())
    }

    /// Everything up to the end, and how that was. At most 1 MiB.
    pub async fn rest(&mut self, expected: &str) -> Outcome<(Bytes, End)> {
        while self.buffer.len() < 1024 * 1024 && self.more(expected).await? {}
        Ok((self.buffer.split().freeze(), self.end()))
    }

    /// Ends the sending direction: TCP's FIN.
    pub async fn finish(&mut self) -> Outcome {
        self.trace.text(Way::Sent, self.who, "the end of the sending direction");
        // A connection that is gone already has no end to be told.
        let _ = timeout(self.patience, self.stream.shutdown()).await;
        Ok(())
    }

    /// Drops the connection by a reset.
    pub fn reset(self) {
        self.trace.text(Way::Sent, self.who, "a reset of the connection");
        self.stream.reset_on_close();
    }

    /// Keeps text, such as a head, in the trace.
    pub fn trace(&self, way: Way, text: &str) {
        self.trace.text(way, self.who, text);
    }

    /// Keeps bytes, such as a frame's payload, in the trace.
    pub fn trace_bytes(&self, way: Way, what: &str, bytes: &[u8]) {
        self.trace.bytes(way, self.who, what, bytes);
    }
}
