//! A tunnel as the REST API shows it.

use serde_json::Value;

use super::Outcome;
use crate::conform::case::Ended;

/// What a creation has answered.
#[derive(Debug, Clone)]
pub struct Tunnel {
    /// Names the control socket.
    pub id: String,
    /// The name in the URL.
    pub slug: String,
    /// What viewers send as `Host`.
    pub host: String,
    /// What their paths begin with; empty where the tunnel has a host of its own.
    pub prefix: String,
    /// All of it.
    pub json: Value,
}

impl Tunnel {
    /// Reads a tunnel; `own` is the relay's host, for a `public_url` without one.
    pub fn read(json: Value, own: &str) -> Outcome<Self> {
        let field = |name: &str| match json[name].as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(Ended::failed(format!("a tunnel with `{name}`"), json.to_string())),
        };
        let url = field("public_url")?;
        let rest = url.split_once("://").map_or_else(|| format!("{own}{url}"), |(_, rest)| rest.to_owned());
        let (host, prefix) = rest.find('/').map_or((rest.as_str(), ""), |at| rest.split_at(at));
        Ok(Self {
            id: field("id")?,
            slug: field("slug")?,
            host: host.to_owned(),
            prefix: prefix.trim_end_matches('/').to_owned(),
            json,
        })
    }

    /// The path of a call about it.
    pub fn path(&self, action: &str) -> String {
        format!("/v1/tunnels/{}{action}", self.id)
    }
}
