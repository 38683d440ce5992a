//! WebSocket over HTTP/2 (RFC 8441): a viewer's extended CONNECT as the HTTP/1.1 upgrade that a target understands, and
//! the target's 101 as the 200 that the viewer waits for.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::ext::Protocol;

use super::errors::Cause;
use super::forward;
use crate::stream::handshake;

/// The one protocol that is asked for so.
const WEBSOCKET: &str = "websocket";

/// Whether the request is an extended CONNECT for a WebSocket. Every other CONNECT is refused.
pub fn is_asked<B>(request: &Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    request.method() == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

/// What a request wants its connection, or its stream of HTTP/2, to become.
pub struct Wanted {
    /// What the target is asked for in `Upgrade`.
    pub protocols: HeaderValue,
    /// Our half of the handshake, where the viewer speaks HTTP/2, in which there is none.
    pub key: Option<String>,
}

impl Wanted {
    /// What a viewer of HTTP/1.1 asks for.
    pub fn upgrade(headers: &HeaderMap) -> Option<Self> {
        forward::wanted_upgrade(headers).map(|protocols| Self { protocols, key: None })
    }

    /// Makes an extended CONNECT the request that asks for the same in HTTP/1.1.
    pub fn translate(parts: &mut Parts) -> Result<Self, Cause> {
        let key = handshake::new_key();
        parts.method = Method::GET;
        parts.extensions.remove::<Protocol>();
        let value = HeaderValue::from_str(&key).map_err(|_| Cause::Internal)?;
        parts.headers.insert(header::SEC_WEBSOCKET_KEY, value);
        Ok(Self { protocols: HeaderValue::from_static(WEBSOCKET), key: Some(key) })
    }

    /// The answer to a target's 101 as the viewer gets it: its status, with `headers` made fit for it.
    pub fn answer(&self, headers: &mut HeaderMap, protocol: HeaderValue) -> Result<StatusCode, Cause> {
        let Some(key) = &self.key else {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocol);
            return Ok(StatusCode::SWITCHING_PROTOCOLS);
        };
        // Whoever accepts without a look at the key is no WebSocket server, but an echo or a cache.
        let accept = headers.remove(header::SEC_WEBSOCKET_ACCEPT).ok_or(Cause::BadResponse)?;
        if !handshake::is_accepted(key, &accept) {
            return Err(Cause::BadResponse);
        }
        headers.remove(header::CONTENT_LENGTH);
        Ok(StatusCode::OK)
    }

    /// Whether the viewer would take `status`, which is no 101, for a WebSocket.
    pub fn is_mistaken(&self, status: StatusCode) -> bool {
        self.key.is_some() && status.is_success()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_extended_connect_for_a_websocket_is_one() {
        let request = |method: Method, protocol: Option<&'static str>| {
            let mut request = Request::new(());
            *request.method_mut() = method;
            protocol.map(|protocol| request.extensions_mut().insert(Protocol::from_static(protocol)));
            is_asked(&request)
        };
        assert!(request(Method::CONNECT, Some("websocket")));
        assert!(!request(Method::CONNECT, Some("connect-udp")) && !request(Method::CONNECT, None));
        assert!(!request(Method::GET, Some("websocket")));
    }

    #[test]
    fn a_101_without_the_right_accept_is_no_websocket() {
        let (mut parts, ()) = Request::new(()).into_parts();
        let wanted = Wanted::translate(&mut parts).ok().unwrap();
        assert_eq!(parts.method, Method::GET);
        let key = parts.headers[header::SEC_WEBSOCKET_KEY].clone();
        let protocol = || HeaderValue::from_static("websocket");
        let mut headers = HeaderMap::new();
        assert_eq!(wanted.answer(&mut headers, protocol()), Err(Cause::BadResponse));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
        assert_eq!(wanted.answer(&mut headers, protocol()), Err(Cause::BadResponse));
        let accept = handshake::accept_of(wanted.key.as_deref().unwrap());
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.parse().unwrap());
        assert_eq!(wanted.answer(&mut headers, protocol()), Ok(StatusCode::OK));
        assert!(headers.is_empty(), "{headers:?}");
        assert!(wanted.is_mistaken(StatusCode::OK) && !wanted.is_mistaken(StatusCode::FORBIDDEN));
    }
}
