//! Cookies of the relay's own, which no target gets: those of the dashboard's sessions, as browsers take no heed of ports and
//! send them to every tunnel on the same host, and those of browsers that were asked whether to go on.

use http::{HeaderMap, header};
use memchr::memmem;

/// Of a session over plain HTTP.
pub const SESSION: &str = "adit_session";
/// Of one over TLS: no other host, and nobody without TLS, can set a cookie of this name.
pub const SESSION_OVER_TLS: &str = "__Host-adit_session";

/// Of a browser that was asked: what its button has to say, or that it has said so.
pub const INTERSTITIAL: &str = "adit-interstitial";

/// The values of the cookies with that name.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    pairs(headers).filter_map(|pair| value_of(pair, name))
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// All cookies, one by one.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii)
}

/// All cookies but those that are `ours`, in one line; `None`: there is no other.
pub fn without(headers: &HeaderMap, ours: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let others: Vec<&[u8]> = pairs(headers).filter(|pair| !pair.is_empty() && !ours(pair)).collect();
    (!others.is_empty()).then(|| others.join(&b"; "[..]))
}

/// Whether a request may have one of a session. Almost none has: this allocates nothing.
pub fn are_in(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::COOKIE)
        .iter()
        .any(|line| memmem::find(line.as_bytes(), SESSION.as_bytes()).is_some())
}

/// Whether a cookie is that of a browser that was asked.
pub fn is_interstitial(pair: &[u8]) -> bool {
    value_of(pair, INTERSTITIAL).is_some()
}

/// Whether a cookie, as a browser sends it or a target sets it, is of a session. Browsers take a cookie without a name for
/// one with a name when they send it.
pub fn is_one(cookie: &[u8]) -> bool {
    let cookie = cookie.trim_ascii();
    let cookie = cookie.strip_prefix(b"=").unwrap_or(cookie).trim_ascii_start();
    let name = cookie.split(|byte| matches!(byte, b'=' | b';')).next().unwrap_or_default().trim_ascii();
    [SESSION, SESSION_OVER_TLS].iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn ours_are_known_however_they_are_written() {
        for ours in [
            "adit_session=1",
            " adit_session = 1",
            "adit_session",
            "=adit_session=1",
            "= adit_session=1; Path=/",
            "__Host-adit_session=1; Secure",
            "__host-ADIT_SESSION=1",
        ] {
            assert!(is_one(ours.as_bytes()), "{ours}");
        }
        for other in ["adit_sessions=1", "a=adit_session", "my_adit_session=1", "", "="] {
            assert!(!is_one(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn of_a_browser_that_was_asked_our_cookie_alone_is_taken_out() {
        for (lines, rest) in [
            (&["a=1; adit-interstitial=x; b=2"][..], Some("a=1; b=2")),
            (&["adit-interstitial=x"], None),
            (&["adit-interstitial=x", "a=1", "b=2;adit-interstitial=y"], Some("a=1; b=2")),
            (
                &["xadit-interstitial=1; adit-interstitials=2; a=adit-interstitial=3"],
                Some("xadit-interstitial=1; adit-interstitials=2; a=adit-interstitial=3"),
            ),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, HeaderValue::from_static(line));
            }
            let others = without(&headers, is_interstitial);
            assert_eq!(others.as_deref(), rest.map(str::as_bytes), "{lines:?}");
        }
    }

    #[test]
    fn a_value_is_that_of_the_name_alone() {
        let mut headers = HeaderMap::new();
        assert!(!are_in(&headers));
        for line in ["a=1; adit_session=x", "__Host-adit_session=y;adit_session=z"] {
            headers.append(header::COOKIE, HeaderValue::from_static(line));
        }
        assert!(are_in(&headers));
        assert_eq!(cookies(&headers, SESSION).collect::<Vec<_>>(), [b"x", b"z"]);
        assert_eq!(cookies(&headers, SESSION_OVER_TLS).collect::<Vec<_>>(), [b"y"]);
    }
}
