//! What crossed the wire in a case, as far as a person needs it to see what went wrong: the last of each direction.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::client::text::visible;
use crate::sync::lock;

/// Bytes of text that are kept of each direction.
const KEPT: usize = 4096;
/// Characters of one entry.
const LONGEST: usize = 700;
/// First bytes of a frame's payload, or of raw bytes, that are shown.
const FIRST_BYTES: usize = 32;

/// Who has sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The kit.
    Sent,
    /// What is tested.
    Came,
}

/// The record of one case; clones write to the same.
#[derive(Debug, Clone)]
pub struct Trace {
    record: Arc<Mutex<Record>>,
    secrets: Arc<[String]>,
    began: Instant,
}

#[derive(Debug, Default)]
struct Record {
    entries: VecDeque<Entry>,
    /// Bytes of the texts of each direction.
    sent: usize,
    came: usize,
    /// Older entries were dropped.
    cut: bool,
}

#[derive(Debug)]
struct Entry {
    at_ms: u128,
    way: Way,
    text: String,
}

impl Trace {
    /// An empty record that begins now. `secrets` are shown as `***`.
    pub fn new(secrets: &[String]) -> Self {
        let secrets = secrets.iter().filter(|secret| !secret.is_empty()).cloned().collect();
        Self { record: Arc::default(), secrets, began: Instant::now() }
    }

    /// A head of HTTP, a message, or an event such as a connection that ends. `who` names the connection.
    pub fn text(&self, way: Way, who: &str, text: &str) {
        let shown: String = self.harmless(text).chars().take(LONGEST).collect();
        let more = if shown.len() < text.len() { "…" } else { "" };
        self.keep(way, format!("{who}: {shown}{more}"));
    }

    /// Raw bytes: their number, and the first of them. `what` says what they are, such as `binary` for a frame's payload.
    pub fn bytes(&self, way: Way, who: &str, what: &str, bytes: &[u8]) {
        let first = bytes.get(..FIRST_BYTES).unwrap_or(bytes);
        let more = if first.len() < bytes.len() { "…" } else { "" };
        let first = first.escape_ascii().to_string();
        self.keep(way, format!("{who}: {what}, {} bytes: \"{}{more}\"", bytes.len(), self.harmless(&first)));
    }

    /// The record, oldest first: time in milliseconds, `>` for what the kit sent and `<` for what came.
    pub fn lines(&self) -> Vec<String> {
        let record = lock(&self.record);
        let cut = record.cut.then(|| "… what came before is left out".to_owned());
        let line = |entry: &Entry| {
            let way = if entry.way == Way::Sent { '>' } else { '<' };
            format!("{:>6} ms {way} {}", entry.at_ms, entry.text)
        };
        cut.into_iter().chain(record.entries.iter().map(line)).collect()
    }

    /// One line, without secrets and without anything that could steer a terminal.
    fn harmless<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text.trim_end());
        for secret in self.secrets.iter() {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "***").into();
            }
        }
        if text.contains("\r\n") {
            text = text.replace("\r\n", " | ").into();
        }
        match visible(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(safe) => safe.into(),
        }
    }

    fn keep(&self, way: Way, text: String) {
        let at_ms = self.began.elapsed().as_millis();
        let mut record = lock(&self.record);
        *record.size(way) += text.len();
        record.entries.push_back(Entry { at_ms, way, text });
        while *record.size(way) > KEPT {
            let Some(at) = record.entries.iter().position(|entry| entry.way == way) else { break };
            let dropped = record.entries.remove(at).map_or(0, |entry| entry.text.len());
            *record.size(way) -= dropped;
            record.cut = true;
        }
    }
}

impl Record {
    fn size(&mut self, way: Way) -> &mut usize {
        match way {
            Way::Sent => &mut self.sent,
            Way::Came => &mut self.came,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_direction_is_kept() {
        let trace = Trace::new(&[]);
        trace.text(Way::Sent, "control", "first");
        for number in 0..1000 {
            trace.text(Way::Came, "data", &format!("message {number}"));
        }
        let lines = trace.lines();
        assert!(lines[0].contains("left out") && lines[1].ends_with("> control: first"), "{lines:?}");
        assert!(lines.last().unwrap().ends_with("< data: message 999"));
        assert!(lines.iter().map(String::len).sum::<usize>() < 3 * KEPT);
    }

    #[test]
    fn neither_secrets_nor_escapes_are_shown() {
        let trace = Trace::new(&["nbk_geheim".into()]);
        trace.text(Way::Came, "rest", "GET / HTTP/1.1\r\nAuthorization: Bearer nbk_geheim\r\n\r\n");
        trace.text(Way::Came, "control", "\u{1b}[2J");
        trace.bytes(Way::Sent, "data", "binary", b"nbk_geheim\0\xff");
        let all = trace.lines().join("\n");
        assert!(!all.contains("geheim") && !all.contains('\u{1b}'), "{all}");
        assert!(all.contains("GET / HTTP/1.1 | Authorization: Bearer ***"), "{all}");
        assert!(all.contains(r#"data: binary, 12 bytes: "***\x00\xff""#), "{all}");
    }
}
