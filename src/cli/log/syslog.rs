//! Log records as messages to a syslog daemon: RFC 5424, or what libc writes on the system's own socket.

mod sender;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::lines::cut;
use crate::client::text::visible;
use crate::proto::limits::log::SYSLOG_BYTES;
use crate::relay::config::{SyslogConfig, SyslogFormat};
use sender::Sender;

/// Stands before a text that is more than ASCII (RFC 5424, section 6.4).
const BOM: &str = "\u{feff}";

/// Ends a text that was too long.
const CUT: &str = "...";

/// Makes the writer of each message. Clones go to the same daemon.
#[derive(Clone)]
pub(super) struct Syslog(Arc<Shared>);

struct Shared {
    form: Form,
    address: String,
    sender: Sender,
}

impl Syslog {
    /// Begins to send to the daemon, if there is one. One that cannot be reached yet is no error.
    pub(super) fn start(config: &SyslogConfig) -> io::Result<Option<Self>> {
        let Some(address) = &config.address else { return Ok(None) };
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let form = Form {
            format: config.format(),
            facility: config.facility.code(),
            host: if is_name(&host, 255) { host } else { "-".into() },
            process: std::process::id(),
        };
        let sender = Sender::start(address.clone())?;
        Ok(Some(Self(Arc::new(Shared { form, address: address.to_string(), sender }))))
    }

    /// Of the messages since the last call, how many were lost; and what is wrong, where that is new or some were lost.
    pub(super) fn trouble(&self) -> (u64, Option<String>) {
        self.0.sender.trouble()
    }

    pub(super) fn address(&self) -> &str {
        &self.0.address
    }

    /// Waits a while until what is still here has gone out. What comes later is lost.
    pub(super) fn finish(&self) {
        self.0.sender.finish();
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Message<'a>;

    fn make_writer(&'a self) -> Message<'a> {
        Message { sender: &self.0.sender, message: self.0.form.head(Level::INFO, "adit"), counts: true }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Message<'a> {
        let counts = of.target() != super::LEFT_OUT;
        Message { sender: &self.0.sender, message: self.0.form.head(*of.level(), of.target()), counts }
    }
}

/// Takes one record, as a whole.
pub(super) struct Message<'a> {
    sender: &'a Sender,
    message: String,
    /// Its loss is told. That of a record which tells of losses would be told for ever.
    counts: bool,
}

impl Write for Message<'_> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let mut message = std::mem::take(&mut self.message);
        put_text(&mut message, &String::from_utf8_lossy(record));
        self.sender.send(message.into_bytes(), self.counts);
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What all messages have in common.
struct Form {
    format: SyslogFormat,
    facility: u8,
    /// This machine's name, or `-`.
    host: String,
    process: u32,
}

impl Form {
    /// A message up to its text.
    fn head(&self, level: Level, place: &str) -> String {
        let severity = match level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        let Self { host, process, .. } = self;
        let mut head = format!("<{}>", u32::from(self.facility) * 8 + severity);
        // Writing to a string does not fail.
        let _ = match self.format {
            SyslogFormat::Local => write!(head, "adit[{process}]: {place}: "),
            SyslogFormat::Rfc5424 => {
                head.push_str("1 ");
                let at = head.len();
                // A clock before 1970 or far from now is written with other digits than RFC 5424 takes.
                if SystemTime.format_time(&mut Writer::new(&mut head)).is_err() || head.len() - at != 27 {
                    head.replace_range(at.., "-");
                }
                let place = cut(place, 32);
                let place = if is_name(place, 32) { place } else { "-" };
                write!(head, " {host} adit {process} {place} - ")
            }
        };
        head
    }
}

/// Puts the text of a record behind the head of its message, as much as there is room for.
fn put_text(message: &mut String, record: &str) {
    let text = visible(record.trim_end_matches('\n'));
    // ASCII says the same with the mark and without it, and is easier to search for without.
    if !text.is_ascii() && message.ends_with(" - ") {
        message.push_str(BOM);
    }
    let room = SYSLOG_BYTES.saturating_sub(message.len());
    if text.len() <= room {
        message.push_str(&text);
    } else {
        message.push_str(cut(&text, room.saturating_sub(CUT.len())));
        message.push_str(CUT);
    }
}

/// Whether this can be a field of the head: visible ASCII (RFC 5424, section 6).
fn is_name(text: &str, most: usize) -> bool {
    !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(format: SyslogFormat) -> Form {
        Form { format, facility: 3, host: "relay.example".into(), process: 17 }
    }

    fn message(format: SyslogFormat, level: Level, record: &str) -> String {
        let mut message = form(format).head(level, "adit::relay");
        put_text(&mut message, record);
        message
    }

    #[test]
    fn a_message_is_as_rfc_5424_has_it() {
        let message = message(SyslogFormat::Rfc5424, Level::WARN, "no certificate name=\"web\"\n");
        let fields: Vec<&str> = message.splitn(8, ' ').collect();
        assert_eq!((fields[0], fields[2], fields[3]), ("<28>1", "relay.example", "adit"));
        assert_eq!(fields[4..], ["17", "adit::relay", "-", "no certificate name=\"web\""]);
        let time = fields[1].as_bytes();
        assert!(time.len() == 27 && time[10] == b'T' && time[19] == b'.' && time[26] == b'Z', "{message}");
    }

    #[test]
    fn a_message_for_the_systems_own_socket_has_neither_time_nor_host() {
        let message = message(SyslogFormat::Local, Level::DEBUG, "é\n");
        assert_eq!(message, "<31>adit[17]: adit::relay: é");
    }

    #[test]
    fn levels_have_their_severity() {
        let of = |level| form(SyslogFormat::Rfc5424).head(level, "x").split('>').next().unwrap().to_owned();
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(of), ["<27", "<28", "<30", "<31", "<31"]);
    }

    #[test]
    fn no_text_makes_a_second_message_or_a_character_that_steers() {
        let message =
            message(SyslogFormat::Rfc5424, Level::INFO, "a\n<0>1 b\r\u{1b}[2J\u{85}\u{2028}\u{feff}é");
        assert!(
            message.ends_with(" - \u{feff}a\\n<0>1 b\\r\\u{1b}[2J\\u{85}\\u{2028}\\u{feff}é"),
            "{message:?}"
        );
    }

    #[test]
    fn a_text_that_is_too_long_ends_with_a_whole_character() {
        for text in ["é".repeat(2000), "x".repeat(2049), "\n".repeat(2000) + "x", "\u{1f600}x".repeat(999)] {
            let message = message(SyslogFormat::Rfc5424, Level::INFO, &text);
            assert!((SYSLOG_BYTES - 3..=SYSLOG_BYTES).contains(&message.len()), "{}", message.len());
            assert!(message.ends_with("..."));
        }
        let head = form(SyslogFormat::Rfc5424).head(Level::INFO, "adit::relay").len();
        let just = "x".repeat(SYSLOG_BYTES - head);
        assert!(message(SyslogFormat::Rfc5424, Level::INFO, &just).ends_with(&just));
    }

    #[test]
    fn a_field_that_the_head_cannot_hold_is_cut_or_left_out() {
        let head = form(SyslogFormat::Rfc5424).head(Level::INFO, &"a".repeat(40));
        assert!(head.ends_with(&format!(" {} - ", "a".repeat(32))), "{head}");
        assert!(form(SyslogFormat::Rfc5424).head(Level::INFO, "a b").ends_with(" 17 - - "));
        assert!(!is_name("", 9) && !is_name("é", 9) && !is_name("aa", 1) && is_name("aa", 2));
    }
}
