//! The token out of a request: from its query, or from the host that it is for.

use http::Request;

use crate::proto::host::host;

/// The first `token` of the query that is not empty. A line's end behind it is cut off, as people paste one.
pub(super) fn by_query<B>(request: &Request<B>) -> Option<String> {
    let query = form_urlencoded::parse(request.uri().query()?.as_bytes());
    query.filter(|(name, _)| name == "token").find_map(|(_, value)| {
        let value = value.trim_end_matches(['\r', '\n']);
        (!value.is_empty()).then(|| value.to_owned())
    })
}

/// The host without its port, as the visitor wrote it.
pub(super) fn by_host<B>(request: &Request<B>) -> Option<String> {
    let host = host(request).ok()??;
    let host = host.to_str().ok()?;
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => host.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use http::header::HOST;

    use super::*;

    fn request(uri: &str, host: Option<&str>) -> Request<()> {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn the_first_token_of_the_query_counts_and_is_decoded() {
        for (uri, token) in [
            ("/websockify?token=abc", Some("abc")),
            ("/?x=1&token=a%2Fb+c&token=d", Some("a/b c")),
            ("/?token=&token=second", Some("second")),
            ("/?token=line%0A", Some("line")),
            ("/?token=%0A", None),
            ("/?tokens=abc", None),
            ("/token=abc", None),
            ("/", None),
        ] {
            assert_eq!(by_query(&request(uri, None)).as_deref(), token, "{uri}");
        }
    }

    #[test]
    fn a_host_is_a_token_without_its_port() {
        for (host, token) in [
            ("desk.example.com:6080", Some("desk.example.com")),
            ("desk.example.com", Some("desk.example.com")),
            ("[::1]:6080", Some("::1")),
            (":6080", None),
        ] {
            assert_eq!(by_host(&request("/?token=x", Some(host))).as_deref(), token, "{host}");
        }
        for header in [None, Some("other.test")] {
            let token = by_host(&request("https://desk.test:1/", header));
            assert_eq!(token.as_deref(), Some("desk.test"), "a route goes by the address, too");
        }
        assert_eq!(by_host(&request("/", None)), None);
    }
}
