//! Targets that a Redis server keeps under their tokens (`TokenRedis`). One `GET` over a connection of its own; the
//! crate `redis` would bring sixty others and take an answer of any size.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::signed::target as of_object;
use super::{Target, TokenError};
use crate::auth::Secret;
use crate::proto::limits::bridge::tokens::{ANSWER_BYTES, REDIS_LINE_BYTES};

/// A server, and where in it the tokens are.
#[derive(Debug)]
pub(super) struct Redis {
    host: String,
    port: u16,
    db: u32,
    password: Option<Secret>,
    namespace: String,
}

impl Redis {
    /// `host[:port[:db[:password[:namespace]]]]`; what is empty is as if it were not there, and quotes of both kinds hold
    /// colons together.
    pub(super) fn new(source: &str) -> Result<Self, String> {
        let form = || {
            "write HOST[:PORT[:DB[:PASSWORD[:NAMESPACE]]]], with quotes around what has a colon".to_owned()
        };
        let mut fields = fields(source).ok_or_else(form)?.into_iter();
        let mut next = || fields.next().filter(|field| !field.is_empty());
        let (host, port, db, password, namespace) =
            (next().ok_or_else(form)?, next(), next(), next(), next());
        if fields.next().is_some() {
            return Err(form());
        }
        let port =
            port.map_or(Ok(6379), |port| port.parse()).map_err(|_| "its port is no number up to 65535")?;
        let db = db.map_or(Ok(0), |db| db.parse()).map_err(|_| "its database is no number")?;
        let namespace = namespace.map_or_else(String::new, |namespace| format!("{namespace}:"));
        Ok(Self { host, port, db, password: password.map(Secret::new), namespace })
    }

    /// Asks. The caller has the deadline.
    pub(super) async fn target(&self, token: &str) -> Result<Target, TokenError> {
        let source =
            |reason: String| TokenError::Source(format!("Redis at {}:{}: {reason}", self.host, self.port));
        let value = self.get(&format!("{}{token}", self.namespace)).await.map_err(source)?;
        let value = value.ok_or(TokenError::Unknown)?;
        read(&value).ok_or_else(|| {
            source("what is kept for the token is neither HOST:PORT nor {\"host\": \"HOST:PORT\"}".into())
        })
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let mut stream = BufReader::new(stream.map_err(|error| error.to_string())?);
        if let Some(password) = &self.password {
            ask(&mut stream, &["AUTH", password.expose()]).await?;
        }
        if self.db != 0 {
            ask(&mut stream, &["SELECT", &self.db.to_string()]).await?;
        }
        ask(&mut stream, &["GET", key]).await
    }
}

/// Sends a command and reads its answer: a text, or nothing (RESP 2).
async fn ask(stream: &mut BufReader<TcpStream>, words: &[&str]) -> Result<Option<Vec<u8>>, String> {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    let io = |error: std::io::Error| error.to_string();
    stream.write_all(command.as_bytes()).await.map_err(io)?;
    let mut line = Vec::new();
    (&mut *stream).take(REDIS_LINE_BYTES).read_until(b'\n', &mut line).await.map_err(io)?;
    let line = line.strip_suffix(b"\r\n").ok_or("it answered with no whole line")?;
    let (kind, rest) = line.split_first().ok_or("it answered with an empty line")?;
    let rest = String::from_utf8_lossy(rest);
    match kind {
        b'+' => Ok(Some(rest.into_owned().into_bytes())),
        b'-' => Err(format!("{} was refused: {rest}", words[0])),
        b'$' if rest == "-1" => Ok(None),
        b'$' => {
            let length = rest.parse().ok().filter(|length: &usize| *length <= ANSWER_BYTES);
            let length = length.ok_or("its answer is too long")?;
            let mut value = vec![0; length + 2];
            stream.read_exact(&mut value).await.map_err(io)?;
            value.truncate(length);
            Ok(Some(value))
        }
        _ => Err("it answered something else than a text".to_owned()),
    }
}

/// The fields between colons, out of their quotes; `None` if a quote does not end.
fn fields(source: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quote = None;
    for c in source.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None if c == ':' => fields.push(String::new()),
            _ => fields.last_mut()?.push(c),
        }
    }
    quote.is_none().then_some(fields)
}

/// `host:port`, or JSON that has it as `host`, or has both apart.
fn read(value: &[u8]) -> Option<Target> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.starts_with('{') {
        return text.parse().ok();
    }
    let object = serde_json::from_str(text).ok()?;
    of_object(&object).or_else(|| object.get("host")?.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_with_what_is_left_out_and_what_is_quoted() {
        for (source, shown) in [
            ("h", ("h", 6379, 0, None, "")),
            ("h:1", ("h", 1, 0, None, "")),
            ("h:1:2:pw:ns", ("h", 1, 2, Some("pw"), "ns:")),
            ("h:::pw", ("h", 6379, 0, Some("pw"), "")),
            ("\"::1\":1:0:'a:\"b':\"n:s\"", ("::1", 1, 0, Some("a:\"b"), "n:s:")),
            ("h::::ns", ("h", 6379, 0, None, "ns:")),
        ] {
            let redis = Redis::new(source).unwrap();
            let password = redis.password.as_ref().map(Secret::expose);
            assert_eq!(
                (redis.host.as_str(), redis.port, redis.db, password, redis.namespace.as_str()),
                shown,
                "{source}"
            );
            assert!(!format!("{redis:?}").contains("pw"));
        }
        for bad in ["", ":1", "h:x", "h:1:x", "h:1:2:p:n:x", "\"h", "h:99999"] {
            assert!(Redis::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_is_a_target_or_json_with_one() {
        for value in ["h:1", " h:1\n", r#"{"host":"h:1"}"#, r#"{"host":"h","port":1}"#] {
            assert_eq!(read(value.as_bytes()), Some("h:1".parse().unwrap()), "{value}");
        }
        for value in ["", "h", "{", "{}", r#"{"host":1}"#] {
            assert_eq!(read(value.as_bytes()), None, "{value}");
        }
    }
}
