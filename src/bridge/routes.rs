//! Which route a request takes: by the beginning or the end of its path, its host, and a map of extensions.

use std::borrow::Cow;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use regex::{Regex, RegexBuilder};

use crate::proto::limits::bridge::routes::PATTERN_BYTES;

/// What a path must be: a KEY of `wstunnel.server`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// It begins so: `/rr` takes `/rr`, `/rr/a` and `/rrxyz`. With an empty text every path.
    Prefix(String),
    /// It ends so.
    Suffix(String),
}

impl From<&str> for Key {
    /// A text that begins with `/` is the beginning of paths, any other one their end; the empty one takes all.
    fn from(text: &str) -> Self {
        match text {
            "" => Self::Prefix(String::new()),
            text if text.starts_with('/') => Self::Prefix(text.to_owned()),
            text => Self::Suffix(text.to_owned()),
        }
    }
}

impl Key {
    fn takes(&self, path: &str) -> bool {
        match self {
            Self::Prefix(text) => path.starts_with(text.as_str()),
            Self::Suffix(text) => path.ends_with(text.as_str()),
        }
    }
}

/// What a path or a host must fit, somewhere in it.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    /// It must not fit instead.
    negated: bool,
}

impl FromStr for Pattern {
    type Err = String;

    /// A regular expression; with `!` before it, one that must not fit.
    fn from_str(text: &str) -> Result<Self, String> {
        let (negated, text) = text.strip_prefix('!').map_or((false, text), |text| (true, text));
        let regex = RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
        let regex = regex
            .map_err(|error| format!("{text:?} is no regular expression that is known here: {error}"))?;
        Ok(Self { regex, negated })
    }
}

impl Pattern {
    fn fits(&self, text: &str) -> bool {
        self.regex.is_match(text) != self.negated
    }
}

/// All that a request must be for a route.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// Its path.
    pub key: Key,
    /// Ends of paths that come here too, before all keys: `wstunnel.map-extensions`.
    pub extensions: Vec<String>,
    /// What its path must also fit, all of it.
    pub url: Vec<Pattern>,
    /// What its host must fit, in lower case, with the port if the request names one.
    pub host: Vec<Pattern>,
}

/// Routes in the order in which they are tried, each with what it leads to.
#[derive(Debug)]
pub struct Routes<T>(Vec<(Matcher, T)>);

impl<T> Routes<T> {
    /// Routes to be tried in this order.
    pub fn new(list: Vec<(Matcher, T)>) -> Self {
        Self(list)
    }

    /// What they lead to.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, found)| found)
    }

    /// The route of a request for `path` (as it came, without the query) at `host`: the first that has its extension, else the
    /// first whose key fits.
    pub fn find(&self, path: &str, host: &str) -> Option<&T> {
        let (path, host) = (plain(path), host.to_ascii_lowercase());
        let mut fitting = self.0.iter().filter(|(matcher, _)| {
            matcher.url.iter().all(|pattern| pattern.fits(&path))
                && matcher.host.iter().all(|pattern| pattern.fits(&host))
        });
        let has_extension =
            |(matcher, _): &&(Matcher, T)| matcher.extensions.iter().any(|end| path.ends_with(end.as_str()));
        let mapped = fitting.clone().find(has_extension);
        mapped.or_else(|| fitting.find(|(matcher, _)| matcher.key.takes(&path))).map(|(_, found)| found)
    }
}

/// A path as it is compared: without escapes, empty segments, `.` and `..`, so that two ways to write one place take one route.
fn plain(path: &str) -> Cow<'_, str> {
    if !path.contains('%') && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut segments: Vec<&str> = Vec::new();
    let mut rest = decoded.split('/').peekable();
    let mut ends_open = false;
    while let Some(segment) = rest.next() {
        ends_open = rest.peek().is_none() && matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => _ = segments.pop(),
            segment => segments.push(segment),
        }
    }
    let mut plain: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
    if ends_open {
        plain.push('/');
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(key: &str, extensions: &[&str], url: &[&str]) -> Matcher {
        let url = url.iter().map(|pattern| pattern.parse().unwrap()).collect();
        let extensions = extensions.iter().map(ToString::to_string).collect();
        Matcher { key: Key::from(key), extensions, url, host: Vec::new() }
    }

    /// Routes that lead to their numbers.
    fn routes(matchers: Vec<Matcher>) -> Routes<usize> {
        Routes::new(matchers.into_iter().enumerate().map(|(number, matcher)| (matcher, number)).collect())
    }

    #[test]
    fn the_first_key_that_fits_takes_a_path() {
        let routes = routes(vec![
            matcher("/rr", &[], &[]),
            matcher(".tun", &[".alias"], &[]),
            matcher("/a/b", &[], &[]),
            matcher("/a", &[], &[]),
        ]);
        for (path, route) in [
            ("/rr", Some(0)),
            ("/rrxyz", Some(0)),
            ("/rr.tun", Some(0)),
            ("/x.tun", Some(1)),
            ("/x.alias", Some(1)),
            // The map goes before the keys.
            ("/rr.alias", Some(1)),
            ("/a/b/c", Some(2)),
            ("/a/c", Some(3)),
            ("/", None),
            ("/x.tun/", None),
            ("*", None),
        ] {
            assert_eq!(routes.find(path, "").copied(), route, "{path}");
        }
    }

    #[test]
    fn one_place_is_one_route_however_it_is_written() {
        let routes = routes(vec![matcher("/admin", &[], &[]), matcher("", &[], &[])]);
        for path in
            ["/admin", "/%61dmin", "//admin", "/./admin", "/x/../admin", "/%2e%2E/admin/", "/x/%2e%2e/admin"]
        {
            assert_eq!(routes.find(path, ""), Some(&0), "{path}");
        }
        for path in ["/x", "/", "/admi%", "/admi%6", "/%zz", "/x/..", "/admin/..", "/admin/%2e%2e/x"] {
            assert_eq!(routes.find(path, ""), Some(&1), "{path}");
        }
        assert_eq!(plain("/a/../b/."), "/b/");
        assert_eq!(plain("/../.."), "/");
    }

    #[test]
    fn a_condition_and_a_host_must_fit_too() {
        let mut second = matcher(".tun", &[".x"], &["^/(a|b)/", "!secret"]);
        second.host = vec!["^example\\.org(:\\d+)?$".parse().unwrap()];
        let routes = routes(vec![matcher("", &[], &["^/websockify"]), second]);
        assert_eq!(routes.find("/websockify/x", ""), Some(&0));
        assert_eq!(routes.find("/other", ""), None);
        assert_eq!(routes.find("/a/x.tun", "example.org:80"), Some(&1));
        assert_eq!(routes.find("/b/y.x", "Example.org"), Some(&1));
        assert_eq!(routes.find("/b/secret.x", "example.org"), None);
        assert_eq!(routes.find("/b/y.x", "example.com"), None);
        assert_eq!(routes.find("/c/x.tun", "example.org"), None);
        assert!("(?=x)".parse::<Pattern>().unwrap_err().contains("(?=x)"));
        assert!("a{1000}{1000}".parse::<Pattern>().is_err());
    }
}
