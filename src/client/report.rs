//! What the terminal shows of sessions: the URL alone on stdout and the rest on stderr, or JSON events on stdout.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::event::{Connected, End, Event, Exchange, TokenNews};
use super::target::Target;
use super::text::{elapsed, size, visible, visible_json};

/// Characters of one text of the relay's.
const MOST_SHOWN: usize = 1000;
/// A relay that stays away is mentioned again after this.
const SAME_REASON_EVERY: Duration = Duration::from_secs(60);

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// One JSON object a line on stdout, and nothing on stderr.
    pub json: bool,
    /// Only the URL, and how it ended if that is an error.
    pub quiet: bool,
    /// ANSI colours on stderr.
    pub colour: bool,
}

impl Style {
    /// Requests told in a second: what a person can read, or a program take.
    pub fn requests_per_second(self) -> u32 {
        match self {
            Self { json: true, .. } => 1000,
            Self { quiet: true, .. } => 0,
            _ => 20,
        }
    }

    /// Whether stderr is to have colours: a terminal, and no `NO_COLOR` (<https://no-color.org>).
    pub fn colour_wanted() -> bool {
        std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
    }
}

/// What goes where; both may be empty.
#[derive(Debug, Default, PartialEq, Eq)]
struct Output {
    stdout: String,
    stderr: String,
}

/// The view of one session.
pub struct Report {
    style: Style,
    /// Stands before each line where there are several sessions.
    label: Option<String>,
    target: Target,
    offline: Option<(String, Instant)>,
    /// Where viewers go, as it was told last.
    url: Option<String>,
}

impl Report {
    /// `label` tells the session from others in the same terminal.
    pub fn new(style: Style, label: Option<String>, target: Target) -> Self {
        Self { style, label, target, offline: None, url: None }
    }

    /// Shows an event.
    pub fn event(&mut self, event: &Event) {
        let shown = if self.style.json { self.json(event) } else { self.lines(event) };
        print(&shown);
    }

    /// Shows that `count` requests were not shown one by one.
    pub fn omitted(&self, count: u64) {
        let shown = match self.style {
            _ if count == 0 => return,
            Style { json: true, .. } => self.object("requests_omitted", json!({ "count": count })),
            Style { quiet: true, .. } => return,
            _ => self.line(&format!("… and {count} more requests")),
        };
        print(&shown);
    }

    fn lines(&mut self, event: &Event) -> Output {
        let quiet = self.style.quiet;
        match event {
            Event::Online { url, again, .. } => {
                // Where one control session takes over from another nobody was without service.
                let silent = self.offline.take().is_none() && *again;
                let url = shown(url);
                let told = self.url.replace(url.clone()).as_ref() == Some(&url);
                let mut shown = match quiet {
                    true => Output::default(),
                    false if !told => {
                        self.line(&format!("{}: {url} -> {}", self.paint("32", "online"), self.target))
                    }
                    false if silent => Output::default(),
                    false => self.line(&format!("{}: {url}", self.paint("32", "online again"))),
                };
                if !told {
                    shown.stdout = format!("{url}\n");
                }
                shown
            }
            Event::Offline { reason, retry_in } if !quiet => self.offline(reason, *retry_in),
            Event::Request(exchange) if !quiet => self.line(&self.request(exchange)),
            Event::Connection(connected) if !quiet => self.line(&connection(connected)),
            Event::TargetDown { error, at_start } if !quiet => {
                let after = if *at_start { " The tunnel is open and waits for it." } else { "" };
                let text = format!("{}. {}{after}", shown(&error.to_string()), error.fix());
                self.line(&format!("{}: {text}", self.paint("33", "target")))
            }
            Event::Expiring { what, left, name } if !quiet => {
                let text = expiring(what, *left, name);
                self.line(&format!("{}: {text}", self.paint("33", "expiring")))
            }
            Event::Auth { accepted: true, expires_in, .. } if !quiet => {
                let until = expires_in.map(|left| format!(" for {} s", left.as_secs())).unwrap_or_default();
                self.line(&format!("{}: the relay takes the fresh one{until}", self.paint("32", "token")))
            }
            Event::Auth { accepted: false, error, .. } => {
                let error = error.as_deref().unwrap_or("no reason given");
                let text = format!("the relay does not take the fresh one: {}", shown(error));
                self.line(&format!("{}: {text}", self.paint("31", "token")))
            }
            Event::Token(news @ TokenNews::Needed(_)) => {
                self.line(&format!("{}: {}", self.paint("33", "token"), shown(&token_news(news))))
            }
            Event::Token(news) if !quiet => self.line(&format!("token: {}", token_news(news))),
            Event::Ended(end) if end.exit_code() != 0 => {
                self.line(&format!("{}: {}", self.paint("31", "adit"), shown(&end.to_string())))
            }
            Event::Ended(end) if !quiet => self.line(&shown(&end.to_string())),
            _ => Output::default(),
        }
    }

    fn offline(&mut self, reason: &str, retry_in: Duration) -> Output {
        let told = self.offline.as_ref();
        if told.is_some_and(|(last, when)| last == reason && when.elapsed() < SAME_REASON_EVERY) {
            return Output::default();
        }
        self.offline = Some((reason.to_owned(), Instant::now()));
        let next = match retry_in.as_secs() {
            0 => "trying again at once".to_owned(),
            seconds => format!("trying again in {seconds}s"),
        };
        self.line(&format!("{}: {}; {next}", self.paint("33", "offline"), shown(reason)))
    }

    fn request(&self, exchange: &Exchange) -> String {
        let Exchange { method, path, status, duration, bytes_out, whole, .. } = exchange;
        let status = match status {
            Some(status) => {
                let colour = match status {
                    200..=299 | 101 => "32",
                    300..=399 => "36",
                    400..=499 => "33",
                    _ => "31",
                };
                self.paint(colour, &status.to_string())
            }
            None => self.paint("31", "---"),
        };
        let end = match (exchange.status, whole) {
            (None, _) => "no answer".to_owned(),
            (_, false) => format!("{} (cut off)", size(*bytes_out)),
            (_, true) => size(*bytes_out),
        };
        // A request's line must stay one line, and readable.
        let path: String = visible(without_query(path)).chars().take(200).collect();
        let method: String = visible(method).chars().take(20).collect();
        format!("{method:<6} {path:<34} {status} {:>7}    {end}", elapsed(*duration))
    }

    fn line(&self, text: &str) -> Output {
        let stderr = match &self.label {
            Some(label) => format!("[{}] {text}\n", shown(label)),
            None => format!("{text}\n"),
        };
        Output { stdout: String::new(), stderr }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.style.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn json(&self, event: &Event) -> Output {
        match event {
            Event::Connecting => self.object("connecting", json!({})),
            Event::Online { url, id, again } => {
                let target = self.target.to_string();
                self.object("online", json!({ "url": url, "id": id, "again": again, "target": target }))
            }
            Event::Offline { reason, retry_in } => {
                self.object("offline", json!({ "reason": reason, "retry_in_ms": millis(*retry_in) }))
            }
            Event::Request(exchange) => {
                let Exchange { method, path, status, duration, bytes_in, bytes_out, whole } = exchange;
                let fields = json!({
                    "method": method, "path": without_query(path), "status": status, "duration_ms": millis(*duration),
                    "bytes_in": bytes_in, "bytes_out": bytes_out, "whole": whole,
                });
                self.object("request", fields)
            }
            Event::Connection(connected) => {
                let Connected { viewer, duration, bytes_in, bytes_out, whole } = connected;
                let fields = json!({
                    "viewer": viewer, "duration_ms": millis(*duration), "bytes_in": bytes_in, "bytes_out": bytes_out,
                    "whole": whole,
                });
                self.object("connection", fields)
            }
            Event::TargetDown { error, at_start } => {
                let fields = json!({
                    "target": error.target, "reason": error.code(), "error": error.error, "fix": error.fix(),
                    "at_start": at_start,
                });
                self.object("target_down", fields)
            }
            Event::Expiring { what, left, name } => {
                self.object("expiring", json!({ "what": what, "in_ms": millis(*left), "name": name }))
            }
            Event::Auth { accepted, expires_in, error } => {
                let expires_in = expires_in.map(millis);
                let fields = json!({ "accepted": accepted, "expires_in_ms": expires_in, "error": error });
                self.object("auth", fields)
            }
            Event::Token(news) => {
                let kind = match news {
                    TokenNews::Needed(_) => "needed",
                    TokenNews::Fresh => "fresh",
                    TokenNews::Last => "last",
                };
                self.object("token", json!({ "kind": kind, "text": token_news(news) }))
            }
            Event::Ended(end) => {
                let kind = match end {
                    End::Stopped => "stopped",
                    End::Closed(_) => "closed",
                    End::Replaced => "replaced",
                    End::Refused(_) => "refused",
                    End::Unauthorised(_) => "unauthorised",
                    End::Unreachable(_) => "unreachable",
                    End::Failed => "failed",
                };
                let fields = json!({ "kind": kind, "reason": end.to_string(), "exit_code": end.exit_code() });
                self.object("ended", fields)
            }
        }
    }

    fn object(&self, name: &str, mut fields: Value) -> Output {
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        fields["event"] = name.into();
        fields["time"] = now.into();
        if let Some(label) = &self.label {
            fields["tunnel"] = label.as_str().into();
        }
        Output { stdout: visible_json(&format!("{fields}\n")).into_owned(), stderr: String::new() }
    }
}

/// The words of a stranger, not too many of them.
fn shown(text: &str) -> String {
    visible(text).chars().take(MOST_SHOWN).collect()
}

/// A connection that is over: who it was, and what moved towards the target and back.
fn connection(connected: &Connected) -> String {
    let Connected { viewer, duration, bytes_in, bytes_out, whole } = connected;
    let viewer: String = visible(viewer.as_deref().unwrap_or("a viewer")).chars().take(60).collect();
    // What went over it may be whole all the same: a connection is kept from one request to the next.
    let end = if *whole { "" } else { " (lost while open)" };
    format!("{viewer:<41} {:>7}    {} in, {} out{end}", elapsed(*duration), size(*bytes_in), size(*bytes_out))
}

fn token_news(news: &TokenNews) -> String {
    match news {
        TokenNews::Needed(reason) => format!("{reason}; waiting for one on stdin"),
        TokenNews::Fresh => "there is a fresh one; it counts from the next registration on".to_owned(),
        TokenNews::Last => "there will be no other one, as stdin has ended".to_owned(),
    }
}

/// Queries hold tokens and words of viewers, and what is shown here ends up in files.
fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}

/// What ends when, and what to do about it.
fn expiring(what: &str, left: Duration, name: &str) -> String {
    let seconds = left.as_secs();
    match what {
        "tunnel" => format!("the tunnel ends in {seconds} s: `adit extend {} 1h`", shown(name)),
        "token" => format!("the token ends in {seconds} s, and the session with it unless a fresh one comes"),
        what => format!("the {} ends in {seconds} s", shown(what)),
    }
}

/// Milliseconds with three digits behind the point.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// A reader that has gone away is no reason to end a tunnel.
fn print(output: &Output) {
    if !output.stdout.is_empty() {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(output.stdout.as_bytes()).and_then(|()| stdout.flush());
    }
    if !output.stderr.is_empty() {
        let _ = std::io::stderr().lock().write_all(output.stderr.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { json: false, quiet: false, colour: false };

    fn report(style: Style, label: Option<&str>) -> Report {
        Report::new(style, label.map(str::to_owned), Target::port_here(3000))
    }

    fn online(again: bool) -> Event {
        Event::Online { url: "https://web.relay.example".into(), id: "t1".into(), again }
    }

    fn exchange(path: &str, status: Option<u16>) -> Event {
        Event::Request(Exchange {
            method: "GET".into(),
            path: path.into(),
            status,
            duration: Duration::from_millis(12),
            bytes_in: 0,
            bytes_out: 5100,
            whole: true,
        })
    }

    #[test]
    fn the_url_alone_goes_to_stdout_and_only_once() {
        let mut report = report(PLAIN, None);
        let first = report.lines(&online(false));
        assert_eq!(first.stdout, "https://web.relay.example\n");
        assert_eq!(first.stderr, "online: https://web.relay.example -> http://localhost:3000\n");
        // A relay that is replaced by its successor is no news for its user.
        assert_eq!(report.lines(&online(true)), Output::default());
        report.lines(&Event::Offline { reason: "lost".into(), retry_in: Duration::ZERO });
        let again = report.lines(&online(true));
        assert_eq!(
            (again.stdout.as_str(), again.stderr.as_str()),
            ("", "online again: https://web.relay.example\n")
        );
    }

    #[test]
    fn a_request_is_one_line_that_cannot_steer_the_terminal() {
        let mut plain = report(PLAIN, Some("web"));
        let line = plain.lines(&exchange("/", Some(200))).stderr;
        assert_eq!(line, "[web] GET    /                                  200    12ms    5.1 kB\n");
        let line = plain.lines(&exchange("/\x1b[2J\u{9b}", None)).stderr;
        assert!(
            line.contains("/\\u{1b}[2J\\u{9b} ") && line.contains(" --- ") && line.ends_with("no answer\n"),
            "{line}"
        );
        let mut colourful = report(Style { colour: true, ..PLAIN }, None);
        assert!(colourful.lines(&exchange("/", Some(500))).stderr.contains("\x1b[31m500\x1b[0m"));
    }

    #[test]
    fn a_connection_is_one_line_too() {
        let connected = Connected {
            viewer: Some("203.0.113.7:51234".into()),
            duration: Duration::from_millis(1500),
            bytes_in: 300,
            bytes_out: 5100,
            whole: false,
        };
        let line = report(PLAIN, None).lines(&Event::Connection(connected)).stderr;
        assert!(
            line.starts_with("203.0.113.7:51234 ")
                && line.ends_with("300 B in, 5.1 kB out (lost while open)\n"),
            "{line}"
        );
    }

    #[test]
    fn no_query_is_shown_and_no_end_of_words() {
        let asked = exchange("/a?token=s3cret#s3cret", Some(200));
        let mut plain = report(PLAIN, None);
        let json = report(Style { json: true, ..PLAIN }, None);
        let shown = [plain.lines(&asked).stderr, json.json(&asked).stdout];
        assert!(shown.iter().all(|shown| shown.contains("/a") && !shown.contains("s3cret")), "{shown:?}");
        let reason = "x".repeat(1 << 20);
        let offline = Event::Offline { reason, retry_in: Duration::ZERO };
        assert!(plain.lines(&offline).stderr.len() < 2 * MOST_SHOWN);
    }

    #[test]
    fn the_same_reason_is_not_told_over_and_over() {
        let mut report = report(PLAIN, None);
        let offline =
            |reason: &str| Event::Offline { reason: reason.into(), retry_in: Duration::from_secs(3) };
        assert_eq!(report.lines(&offline("a")).stderr, "offline: a; trying again in 3s\n");
        assert_eq!(report.lines(&offline("a")).stderr, "");
        assert_ne!(report.lines(&offline("b")).stderr, "");
        report.lines(&online(true));
        assert_ne!(report.lines(&offline("b")).stderr, "");
    }

    #[test]
    fn what_ends_soon_is_told_with_what_to_do() {
        let mut report = report(PLAIN, None);
        let mut line = |what: &str| {
            let left = Duration::from_secs(60);
            report.lines(&Event::Expiring { what: what.into(), left, name: "web".into() }).stderr
        };
        assert_eq!(line("tunnel"), "expiring: the tunnel ends in 60 s: `adit extend web 1h`\n");
        assert!(line("token").contains("the token ends in 60 s"));
        assert!(line("\x1b[2J").contains("\\u{1b}[2J ends in 60 s"));
        let refused = Event::Auth { accepted: false, expires_in: None, error: Some("too old".into()) };
        assert!(report.lines(&refused).stderr.ends_with("does not take the fresh one: too old\n"));
    }

    #[test]
    fn quiet_keeps_the_url_and_the_errors() {
        let mut report = report(Style { quiet: true, ..PLAIN }, None);
        assert_eq!(
            report.lines(&online(false)),
            Output { stdout: "https://web.relay.example\n".into(), ..Output::default() }
        );
        assert_eq!(report.lines(&Event::Ended(End::Stopped)), Output::default());
        assert_eq!(report.lines(&Event::Ended(End::Refused("no".into()))).stderr, "adit: no\n");
    }

    #[test]
    fn json_is_one_object_a_line_on_stdout() {
        let report = report(Style { json: true, ..PLAIN }, Some("web"));
        let expiring =
            Event::Expiring { what: "tunnel".into(), left: Duration::from_secs(60), name: "web".into() };
        let auth = Event::Auth { accepted: true, expires_in: None, error: None };
        for event in [
            Event::Connecting,
            online(false),
            exchange("/\n", Some(200)),
            expiring,
            auth,
            Event::Ended(End::Replaced),
        ] {
            let Output { stdout, stderr } = report.json(&event);
            assert!(stderr.is_empty() && stdout.matches('\n').count() == 1, "{stdout}");
            let value: Value = serde_json::from_str(&stdout).unwrap();
            assert_eq!(value["tunnel"], "web");
            assert!(value["event"].is_string() && value["time"].is_string(), "{value}");
        }
        let request: Value = serde_json::from_str(&report.json(&exchange("/", Some(200))).stdout).unwrap();
        assert_eq!((&request["status"], &request["duration_ms"]), (&json!(200), &json!(12.0)));
    }
}
