//! The host that a request is for, from the one place that counts.

use http::{HeaderValue, Request, header};

/// The request names more than one host, or none that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request names more than one host, or none that can be read")]
pub struct Ambiguous;

/// The host of a request, with its port if it names one; `None` where it names none. The address wins over the header, and two
/// headers are an error (RFC 9112, sections 3.2 and 3.2.2).
pub fn host<B>(request: &Request<B>) -> Result<Option<HeaderValue>, Ambiguous> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    match (request.uri().authority(), first, second) {
        (_, _, Some(_)) => Err(Ambiguous),
        (Some(authority), ..) => HeaderValue::from_str(authority.as_str()).map(Some).map_err(|_| Ambiguous),
        (None, host, None) => Ok(host.cloned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_wins_over_the_header_and_two_headers_are_none() {
        let asked = |uri: &str, hosts: &[&'static str]| {
            let mut request = Request::get(uri);
            for name in hosts {
                request = request.header(header::HOST, *name);
            }
            let found = host(&request.body(()).unwrap());
            found.map(|host| host.map(|host| host.to_str().unwrap().to_owned()))
        };
        let is = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(asked("/", &["a.test:1"]), is("a.test:1"));
        assert_eq!(asked("http://a.test:1/", &["b.test"]), is("a.test:1"));
        assert_eq!(asked("/", &[]), Ok(None));
        for uri in ["/", "http://a.test/"] {
            assert_eq!(asked(uri, &["a.test", "a.test"]), Err(Ambiguous), "{uri}");
        }
    }
}
