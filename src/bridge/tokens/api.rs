//! Targets that a web service knows: the token is put into its address (`BaseTokenAPI`, `JSONTokenApi`).

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Empty;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use tokio_rustls::TlsConnector;

use super::signed::target as of_object;
use super::{Target, TokenError};
use crate::proto::limits::bridge::tokens::ANSWER_BYTES;
use crate::stream::{call, tls};

/// An address with a place for the token.
pub(super) struct Api {
    before: String,
    after: String,
    json: bool,
    tls: Option<TlsConnector>,
}

impl Api {
    /// `source` has one `%s`, and `%%` for each other `%`, as Python has it.
    pub(super) fn new(source: &str, json: bool) -> Result<Self, String> {
        let parts: Vec<&str> = source.split("%s").collect();
        let &[before, after] = &parts[..] else {
            return Err("write an address with one %s, where the token goes: http://HOST/PATH/%s".to_owned());
        };
        let [before, after] = [before, after].map(|part| part.replace("%%", "%"));
        let uri: Uri = format!("{before}token{after}").parse().map_err(|_| "it is no address".to_owned())?;
        if uri.authority().is_none_or(|authority| authority.host().is_empty()) {
            return Err("it must begin with http:// or https:// and a host".to_owned());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(
                "a user and a password in it are not sent: let it through by address, or in the query"
                    .to_owned(),
            );
        }
        if uri.authority().map(ToString::to_string) != before_authority(&before) {
            return Err("a token must not choose the host that is asked: put %s behind it".to_owned());
        }
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(tls::verified().map_err(|error| error.to_string())?),
            _ => return Err("it must begin with http:// or https://".to_owned()),
        };
        Ok(Self { before, after, json, tls })
    }

    /// Asks. The caller has the deadline.
    pub(super) async fn target(&self, token: &str) -> Result<Target, TokenError> {
        let token = utf8_percent_encode(token, NON_ALPHANUMERIC);
        let request = Request::get(format!("{}{token}{}", self.before, self.after));
        let request =
            request.header(header::ACCEPT, if self.json { "application/json" } else { "text/plain" });
        let request = request.body(Empty::<Bytes>::new()).map_err(|_| TokenError::Unknown)?;
        let answer = call::call_url(self.tls.as_ref(), request, ANSWER_BYTES).await;
        let answer = answer.map_err(|error| TokenError::Source(format!("the token service: {error}")))?;
        let status = answer.status();
        if status.is_client_error() {
            return Err(TokenError::Unknown);
        }
        if !status.is_success() {
            return Err(TokenError::Source(format!(
                "the token service answered {status}; 200 or 404 is understood"
            )));
        }
        let read = if self.json { read_json(answer.body()) } else { read_text(answer.body()) };
        read.ok_or_else(|| {
            let wanted = if self.json { r#"{"host": HOST, "port": PORT}"# } else { "HOST:PORT" };
            TokenError::Source(format!("the token service did not answer {wanted}"))
        })
    }
}

/// The authority, if it ends before the token.
fn before_authority(before: &str) -> Option<String> {
    let (_, rest) = before.split_once("://")?;
    let (authority, _) = rest.split_at(rest.find(['/', '?'])?);
    Some(authority.to_owned())
}

fn read_text(body: &[u8]) -> Option<Target> {
    std::str::from_utf8(body).ok()?.trim().parse().ok()
}

fn read_json(body: &[u8]) -> Option<Target> {
    of_object(&serde_json::from_slice::<Map<String, Value>>(body).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_place_for_the_token_which_is_not_its_host() {
        for good in ["http://h/%s", "http://h:81/x?%%20&t=%s&y", "http://h?t=%s"] {
            assert!(Api::new(good, true).is_ok(), "{good}");
        }
        for (bad, part) in [
            ("http://h/", "one %s"),
            ("http://h/%s/%s", "one %s"),
            ("http://%s/", "choose the host"),
            ("http://h%s/x", "choose the host"),
            ("http://u:p@h/%s", "password"),
            ("ftp://h/%s", "http://"),
            ("/x/%s", "host"),
        ] {
            assert!(Api::new(bad, true).err().unwrap().contains(part), "{bad}");
        }
    }

    #[test]
    fn answers_are_read_in_every_form_and_nonsense_is_none() {
        for body in [r#"{"host":"h","port":1}"#, r#"{"host":"h","port":"1","x":2}"#] {
            assert_eq!(read_json(body.as_bytes()), Some("h:1".parse().unwrap()), "{body}");
        }
        assert_eq!(read_json(br#"{"host":"::1","port":1}"#), Some("[::1]:1".parse().unwrap()));
        for body in [
            "",
            "[]",
            r#"{"host":"h"}"#,
            r#"{"host":"unix_socket","port":"/x"}"#,
            r#"{"host":"h","port":70000}"#,
        ] {
            assert_eq!(read_json(body.as_bytes()), None, "{body}");
        }
        assert_eq!(read_text(b" h:1\n"), Some("h:1".parse().unwrap()));
        assert_eq!(read_text(b"\xff"), None);
    }
}
