//! Which route a request takes: by the beginning or the end of its path, its host, and a map of extensions.

use std::borrow::Cow;

use regex::Regex;

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

    /// As it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Prefix(text) | Self::Suffix(text) => text,
        }
    }
}

/// All that a request must be for a route.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// Its path.
    pub key: Key,
    /// What its path must also fit, somewhere in it.
    pub url: Option<Regex>,
    /// What its host must fit, somewhere in it; with the port if the request names one.
    pub host: Option<Regex>,
}

/// Routes in the order in which they are tried, each with what it leads to.
#[derive(Debug)]
pub struct Routes<T> {
    list: Vec<(Matcher, T)>,
    /// Ends of paths, and the key of the route that takes them.
    extensions: Vec<(String, String)>,
}

impl<T> Routes<T> {
    /// The first of `list` that fits takes a request; before that, the first of `extensions` that a path ends in names the key of
    /// its route.
    pub fn new(list: Vec<(Matcher, T)>, extensions: Vec<(String, String)>) -> Self {
        Self { list, extensions }
    }

    /// The route of a request for `path` (as it came, without the query) at `host`.
    pub fn find(&self, path: &str, host: &str) -> Option<&T> {
        let path = plain(path);
        let mut fitting = self.list.iter().filter(|(matcher, _)| {
            matcher.url.as_ref().is_none_or(|url| url.is_match(&path))
                && matcher.host.as_ref().is_none_or(|pattern| pattern.is_match(host))
        });
        let mapped = self.extensions.iter().find(|(end, _)| path.ends_with(end.as_str()));
        if let Some((_, key)) = mapped
            && let Some((_, found)) = fitting.clone().find(|(matcher, _)| matcher.key.as_str() == key)
        {
            return Some(found);
        }
        fitting.find(|(matcher, _)| matcher.key.takes(&path)).map(|(_, found)| found)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &(Matcher, T)> {
        self.list.iter()
    }
}

/// A path as it is compared: without escapes, empty segments, `.` and `..`, so that two ways to write one place take one route.
fn plain(path: &str) -> Cow<'_, str> {
    if !path.contains('%') && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let decoded = decoded(path);
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

/// `%2F` and the like undone; what is no escape stays.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, after) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                bytes.extend(hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(keys: &[(&str, Option<&str>)], extensions: &[(&str, &str)]) -> Routes<usize> {
        let route = |(place, (key, url)): (usize, &(&str, Option<&str>))| {
            let url = url.map(|url| Regex::new(url).unwrap());
            (Matcher { key: Key::from(*key), url, host: None }, place)
        };
        let extensions = extensions.iter().map(|(end, key)| (end.to_string(), key.to_string()));
        Routes::new(keys.iter().enumerate().map(route).collect(), extensions.collect())
    }

    #[test]
    fn the_first_key_that_fits_takes_a_path() {
        let routes = routes(&[("/rr", None), (".tun", None), ("/a/b", None), ("/a", None)], &[(".alias", ".tun")]);
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
        let routes = routes(&[("/admin", None), ("", None)], &[]);
        for path in ["/admin", "/%61dmin", "//admin", "/./admin", "/x/../admin", "/%2e%2E/admin/", "/x/%2e%2e/admin"] {
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
        let mut routes = routes(&[("", Some("^/websockify")), (".tun", Some("^/(a|b)/"))], &[(".x", ".tun")]);
        routes.list[1].0.host = Some(Regex::new("^example\\.org(:\\d+)?$").unwrap());
        assert_eq!(routes.find("/websockify/x", ""), Some(&0));
        assert_eq!(routes.find("/other", ""), None);
        assert_eq!(routes.find("/a/x.tun", "example.org:80"), Some(&1));
        assert_eq!(routes.find("/b/y.x", "example.org"), Some(&1));
        assert_eq!(routes.find("/b/y.x", "example.com"), None);
        assert_eq!(routes.find("/c/x.tun", "example.org"), None);
    }
}
