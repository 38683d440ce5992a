//! Headers that an owner sets, adds or removes, in one direction.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::proto::limits::policy::{HEADER_BYTES, HEADERS};

/// Which messages are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

impl Direction {
    /// The name of the rule.
    pub(super) fn rule(self) -> &'static str {
        match self {
            Self::Request => "request_headers",
            Self::Response => "response_headers",
        }
    }
}

/// What is changed of each message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// What a message has of these goes away, in front of what is written.
    removed: Vec<HeaderName>,
    written: Vec<(HeaderName, HeaderValue)>,
}

impl Changes {
    /// Reads `Name: value` (sets), `+Name: value` (adds) and `-Name` (removes); all that is wrong at once. Beside the
    /// changes: the same as text in one form.
    pub(super) fn read(direction: Direction, texts: &[String]) -> Result<(Self, Vec<String>), Vec<String>> {
        let rule = direction.rule();
        let (mut changes, mut canonical, mut wrong) = (Self::default(), Vec::new(), Vec::new());
        let (mut set, mut added) = (Vec::new(), Vec::new());
        if texts.is_empty() {
            wrong.push(format!("{rule}: the list is empty; leave it out"));
        }
        if texts.len() > HEADERS || texts.iter().map(String::len).sum::<usize>() > HEADER_BYTES {
            wrong.push(format!("{rule}: at most {HEADERS} changes of {HEADER_BYTES} bytes together"));
        }
        for text in texts.iter().take(HEADERS) {
            let (name, value) = match one(direction, text) {
                Ok(read) => read,
                Err(error) => {
                    wrong.push(format!("{rule}: {error}"));
                    continue;
                }
            };
            let Some(value) = value else {
                canonical.push(format!("-{name}"));
                changes.removed.push(name);
                continue;
            };
            let adds = text.trim_start().starts_with('+');
            canonical.push(format!("{}{name}: {}", if adds { "+" } else { "" }, lossy(&value)));
            if adds {
                added.push(name.clone())
            } else {
                set.push(name.clone())
            }
            changes.written.push((name, value));
        }
        let twice = |list: &[HeaderName]| {
            list.iter()
                .enumerate()
                .find(|(at, name)| list[..*at].contains(name))
                .map(|(_, name)| name.clone())
        };
        if let Some(name) = twice(&set) {
            wrong.push(format!("{rule}: {name} is set twice; write +{name} to have both values"));
        }
        if let Some(name) = twice(&changes.removed) {
            wrong.push(format!("{rule}: {name} is removed twice"));
        }
        for name in &changes.removed {
            if set.contains(name) {
                wrong.push(format!(
                    "{rule}: {name} is both set and removed; setting it takes away what was there"
                ));
            } else if added.contains(name) {
                wrong.push(format!(
                    "{rule}: {name} is both added and removed; write \"{name}: value\" to replace it"
                ));
            }
        }
        if let Some(name) = set.iter().find(|name| added.contains(name)) {
            wrong.push(format!(
                "{rule}: {name} is both set and added; write + before each value, or remove nothing"
            ));
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        changes.removed.extend(set);
        Ok((changes, canonical))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.written.is_empty()
    }

    /// Whether what a message has of this name goes away.
    pub fn removes(&self, name: &HeaderName) -> bool {
        self.removed.contains(name)
    }

    /// What is written into each message.
    pub fn written(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.written.iter().map(|(name, value)| (name, value))
    }

    /// Changes a head.
    pub fn apply(&self, headers: &mut HeaderMap) {
        self.strip(headers);
        for (name, value) in &self.written {
            headers.append(name, value.clone());
        }
    }

    /// Takes out of trailers what the head must not have: some receivers merge the two.
    pub fn strip(&self, headers: &mut HeaderMap) {
        for name in &self.removed {
            headers.remove(name);
        }
    }
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// One change: the name, and the value unless the header is removed.
fn one(direction: Direction, text: &str) -> Result<(HeaderName, Option<HeaderValue>), String> {
    let text = text.trim();
    let shown = || text.chars().take(40).collect::<String>();
    let (name, value) = match text.strip_prefix('-') {
        Some(name) if name.contains(':') => {
            return Err(format!("{:?}: to remove a header write -Name without a value", shown()));
        }
        Some(name) => (name, None),
        None => {
            let (name, value) = text.strip_prefix('+').unwrap_or(text).split_once(':').ok_or_else(|| {
                format!("{:?}: write \"Name: value\", \"+Name: value\" or \"-Name\"", shown())
            })?;
            (name, Some(value.trim()))
        }
    };
    let name = HeaderName::from_bytes(name.trim().as_bytes())
        .map_err(|_| format!("{:?} has no header's name", shown()))?;
    if let Some(why) = untouchable(direction, &name) {
        return Err(format!("{name} cannot be changed: {why}"));
    }
    if name == header::COOKIE && text.starts_with('+') {
        return Err(
            "cookie cannot be added, as a request has one line of cookies; write \"Cookie: …\" to replace it"
                .into(),
        );
    }
    let value = value.map(|value| {
        HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| format!("the value of {name} has characters that no header may have"))
    });
    Ok((name, value.transpose()?))
}

/// Why a header is the relay's own business.
fn untouchable(direction: Direction, name: &HeaderName) -> Option<&'static str> {
    let text = name.as_str();
    match text {
        "content-length" | "transfer-encoding" | "trailer" | "te" | "expect" => {
            Some("it frames the message, which the relay does")
        }
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "upgrade"
        | "http2-settings"
        | "proxy-authorization"
        | "proxy-authenticate"
        | "proxy-authentication-info" => Some("it is for one hop only"),
        _ if text.starts_with("sec-websocket-") => Some("it belongs to the handshake of a WebSocket"),
        _ if direction == Direction::Response => None,
        _ if *name == header::HOST => Some("host_header (--host-header) says what the target sees as Host"),
        "forwarded" | "x-real-ip" | "adit-via" | "via" => {
            Some("the relay says with it where a request comes from")
        }
        _ if text.starts_with("x-forwarded-") => Some("the relay says with it where a request comes from"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(direction: Direction, texts: &[&str]) -> Result<(Changes, Vec<String>), Vec<String>> {
        Changes::read(direction, &texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn headers_are_set_added_and_removed() {
        let (changes, canonical) = read(
            Direction::Response,
            &["X-Set: a", "+Vary: Origin", "+vary:  Cookie ", "-Server", "X-Empty:"],
        )
        .unwrap();
        assert_eq!(canonical, ["x-set: a", "+vary: Origin", "+vary: Cookie", "-server", "x-empty: "]);
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-set", "1"), ("x-set", "2"), ("vary", "Accept"), ("server", "x"), ("kept", "y")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        changes.apply(&mut headers);
        let all = |name: &str| {
            headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(all("x-set"), ["a"]);
        assert_eq!(all("vary"), ["Accept", "Origin", "Cookie"]);
        assert_eq!((all("server").len(), all("kept"), all("x-empty")), (0, vec!["y"], vec![""]));
        // What was read once is read again as the same.
        let again = Changes::read(Direction::Response, &canonical).unwrap();
        assert_eq!(again, (changes, canonical));
    }

    #[test]
    fn what_is_the_relays_own_is_refused_by_name() {
        for name in [
            "Host",
            "Content-Length",
            "transfer-encoding",
            "Connection",
            "Upgrade",
            "TE",
            "X-Forwarded-For",
            "x-forwarded-anything",
            "Forwarded",
            "X-Real-IP",
            "Adit-Via",
            "Keep-Alive",
            "Sec-WebSocket-Key",
            "Trailer",
            "Expect",
        ] {
            for text in [format!("{name}: x"), format!("-{name}"), format!("+{name}: x")] {
                let errors = read(Direction::Request, &[&text]).unwrap_err();
                assert!(errors[0].contains(&name.to_ascii_lowercase()), "{text}: {errors:?}");
            }
        }
        assert!(read(Direction::Response, &["content-length: 3"]).is_err());
        assert!(read(Direction::Response, &["Host: x"]).is_ok(), "it means nothing there");
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let errors = read(
            Direction::Request,
            &[
                "nonsense", "-A: b", "b c: d", "X: \u{1}", "Y: 1", "Y: 2", "-Z", "-Z", "-Y", "W: 1", "+W: 2",
                ": x",
            ],
        )
        .unwrap_err();
        for part in [
            "nonsense",
            "without a value",
            "\"b c: d\"",
            "value of x",
            "y is set twice",
            "z is removed twice",
            "y is both set and removed",
            "w is both",
            "\": x\"",
        ] {
            assert!(errors.iter().any(|error| error.contains(part)), "{part}: {errors:#?}");
        }
        assert_eq!(errors.len(), 9, "{errors:#?}");
        assert!(read(Direction::Request, &[]).is_err());
        let long = format!("X: {}", "y".repeat(9000));
        assert!(read(Direction::Request, &[&long]).unwrap_err()[0].contains("bytes together"));
    }
}
