//! A viewer: a connection on which requests to a tunnel are made, as raw as they stand.

use bytes::Bytes;
use http::Method;

use super::Outcome;
use super::http::{Answer, head, request};
use super::rest::Tunnel;
use super::wire::{End, Wire};
use crate::conform::case::Ended;
use crate::proto::http1::ResponseHead;

/// A viewer's connection.
pub struct Viewer {
    /// Its bytes.
    pub wire: Wire,
    /// What it sends as `Host`.
    pub host: String,
    prefix: String,
    /// The method of the last request.
    method: Method,
}

impl Viewer {
    /// A viewer of `tunnel` on `wire`.
    pub fn new(wire: Wire, tunnel: &Tunnel) -> Self {
        Self { wire, host: tunnel.host.clone(), prefix: tunnel.prefix.clone(), method: Method::GET }
    }

    /// What the relay calls `path` of the tunnel.
    pub fn target(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Sends a request; `lines` are headers, each with its line end.
    pub async fn ask(&mut self, method: &str, path: &str, lines: &str, body: &[u8]) -> Outcome {
        self.method = method.parse().unwrap_or_default();
        let whole = request(method, &self.target(path), &self.host, lines, body);
        self.wire.say(&whole).await
    }

    /// Sends the head of a request with these headers, without any body.
    pub async fn begin(&mut self, method: &str, path: &str, lines: &str) -> Outcome {
        self.method = method.parse().unwrap_or_default();
        let target = self.target(path);
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n{lines}\r\n", self.host);
        self.wire.say(head.as_bytes()).await
    }

    /// The next answer.
    pub async fn answer(&mut self) -> Outcome<Answer> {
        Answer::read(&mut self.wire, &self.method, "the viewer gets an answer").await
    }

    /// The next head alone.
    pub async fn head(&mut self) -> Outcome<ResponseHead> {
        head(&mut self.wire, "the viewer gets the head of an answer").await
    }

    /// Bytes behind a head, or of an upgraded connection; fails unless they are these.
    pub async fn expect_bytes(&mut self, bytes: &[u8]) -> Outcome {
        let expected = format!("the viewer gets {:?}", String::from_utf8_lossy(bytes));
        let came = self.wire.exactly(bytes.len(), &expected).await?;
        if came == bytes {
            return Ok(());
        }
        Err(Ended::failed(expected, format!("{:?}", String::from_utf8_lossy(&came))))
    }

    /// Everything up to the end, and how that was.
    pub async fn rest(&mut self) -> Outcome<(Bytes, End)> {
        self.wire.rest("the viewer's connection ends").await
    }

    /// Fails unless the viewer can see that the answer is not whole.
    pub async fn expect_cut(&mut self, why: &str) -> Outcome {
        match self.answer().await {
            // A status of its own says so as well.
            Ok(answer) if !answer.complete || answer.status >= 500 => Ok(()),
            Ok(answer) => {
                let expected = format!("an answer that the viewer sees was cut short, as {why}");
                Err(Ended::failed(expected, format!("one that looks complete: {}", answer.shown())))
            }
            Err(ended) => Err(ended),
        }
    }
}
