//! The rules of a WebSocket handshake: RFC 6455 over HTTP/1.1 and RFC 8441 over HTTP/2, and which subprotocol is chosen.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::ext::Protocol;

use super::coded::{Coding, FrameType};
use super::config::Service;
use super::refusal::{Body, Refusal, empty};
use crate::proto::http1::list_contains;
use crate::stream::handshake::{self, NotWebSocket};

/// The versions of the protocol whose frames are those of RFC 6455; 7 and 8 are drafts of it.
const VERSIONS: &[&str] = &["13", "8", "7"];
/// The same for those who ask for others.
const OFFERED: HeaderValue = HeaderValue::from_static("13, 8, 7");
const BINARY: &str = "binary";
const BASE64: &str = "base64";

/// The way in which a WebSocket is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// By an upgrade of HTTP/1.1.
    Upgrade,
    /// By an extended CONNECT of HTTP/2.
    Connect,
}

/// How the request asks for a WebSocket, if it does; whether it does so rightly is for [`accept`] to say.
pub(super) fn asked<B>(request: &Request<B>) -> Option<Asked> {
    if request.method() == Method::CONNECT {
        let protocol = request.extensions().get::<Protocol>();
        return protocol.is_some_and(|protocol| protocol.as_str() == "websocket").then_some(Asked::Connect);
    }
    list_contains(request.headers(), &header::UPGRADE, "websocket").then_some(Asked::Upgrade)
}

/// The answer to a handshake that is right, and how messages are coded from then on.
pub(super) fn accept<B>(
    request: &Request<B>,
    asked: Asked,
    service: &Service,
) -> Result<(Response<Body>, Coding), Refusal> {
    let mut response = match asked {
        Asked::Upgrade => {
            let accept = handshake::check_of(request, VERSIONS).map_err(refusal)?;
            handshake::switching::<()>(accept).map(|()| empty())
        }
        Asked::Connect if handshake::is_version(request.headers(), VERSIONS) => Response::new(empty()),
        Asked::Connect => return Err(refusal(NotWebSocket::Version)),
    };
    let chosen = chosen(request.headers(), service.protocol.as_deref());
    if let Some(value) = chosen.and_then(|chosen| HeaderValue::from_str(chosen).ok()) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    let coding = match chosen {
        Some(BASE64) if service.protocol.as_deref() != chosen => Coding::Base64,
        // Whoever asks for it gets it, whatever the frames of others are.
        Some(BINARY) => Coding::Plain(FrameType::Binary, service.text),
        _ => Coding::Plain(service.frame_type, service.text),
    };
    Ok((response, coding))
}

/// The operator's own first; then, in the order of the offer, one of ours. Without any, none is named.
fn chosen<'a>(headers: &'a HeaderMap, own: Option<&str>) -> Option<&'a str> {
    let offered = || {
        let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
    };
    let mine = own.and_then(|own| offered().find(|offered| *offered == own));
    mine.or_else(|| offered().find(|offered| matches!(*offered, BINARY | BASE64)))
}

fn refusal(error: NotWebSocket) -> Refusal {
    let version = error == NotWebSocket::Version;
    let status = if version { StatusCode::UPGRADE_REQUIRED } else { StatusCode::BAD_REQUEST };
    let refusal = Refusal::new(status, error.to_string());
    match version {
        true => refusal
            .with(header::SEC_WEBSOCKET_VERSION, OFFERED)
            .with(header::UPGRADE, HeaderValue::from_static("websocket"))
            .with(header::CONNECTION, HeaderValue::from_static("upgrade")),
        false => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::TextMessages;

    #[test]
    fn the_first_subprotocol_that_is_known_is_chosen_and_the_operators_own_before_it() {
        for (lines, own, expected) in [
            (&[][..], None, None),
            (&["binary"][..], None, Some("binary")),
            (&["foo, binary"], None, Some("binary")),
            (&["foo", " base64 ,binary"], None, Some("base64")),
            (&["binary,base64"], None, Some("binary")),
            (&["nonsense"], None, None),
            (&["binary, mine"], Some("mine"), Some("mine")),
            (&["binary"], Some("mine"), Some("binary")),
            (&["BINARY"], None, None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(line));
            }
            assert_eq!(chosen(&headers, own), expected, "{lines:?}");
        }
    }

    #[test]
    fn base64_is_a_coding_unless_it_is_the_operators_own_name() {
        let coding = |offer: &'static str, service: &Service| {
            let request = Request::builder()
                .method("CONNECT")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-protocol", offer);
            accept(&request.body(()).unwrap(), Asked::Connect, service).ok().unwrap().1
        };
        let text = Service { frame_type: FrameType::Text, ..Service::default() };
        assert_eq!(coding("base64", &text), Coding::Base64);
        assert_eq!(coding("binary", &text), Coding::Plain(FrameType::Binary, TextMessages::Refuse));
        assert_eq!(coding("other", &text), Coding::Plain(FrameType::Text, TextMessages::Refuse));
        let own = Service { protocol: Some("base64".into()), ..Service::default() };
        assert_eq!(coding("base64", &own), Coding::Plain(FrameType::Binary, TextMessages::Refuse));
    }
}
