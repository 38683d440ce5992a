//! What a program that speaks gRPC is told when the relay itself answers: it reads a status of its own, not HTTP's.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::errors::Cause;

/// Whether the body of these headers is of gRPC.
pub fn is_of(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return false };
    let Some(rest) = kind.as_bytes().strip_prefix(b"application/grpc") else { return false };
    matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// The answer to a call that fails by `cause`: a head that is its own trailers.
pub fn answer(cause: &Cause, request_id: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", code(cause).into());
    let message = encoded(&format!("{} ({}, request {request_id})", cause.detail(), cause.label()));
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert("grpc-message", message);
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-request-id", id);
    }
    response
}

/// The status by the list of gRPC: that of HTTP as the list translates it, where the cause says no more.
fn code(cause: &Cause) -> u16 {
    const CANCELLED: u16 = 1;
    const UNKNOWN: u16 = 2;
    const INVALID_ARGUMENT: u16 = 3;
    const PERMISSION_DENIED: u16 = 7;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    const UNAUTHENTICATED: u16 = 16;
    match (cause, cause.status()) {
        (Cause::ViewersOfKey(_) | Cause::WaitingOfKey(_) | Cause::BodyTooLarge(_), _) => RESOURCE_EXHAUSTED,
        // REFUSED_STREAM, CANCEL and ENHANCE_YOUR_CALM.
        (Cause::TargetReset(7), _) => UNAVAILABLE,
        (Cause::TargetReset(8) | Cause::ViewerLeft, _) => CANCELLED,
        (Cause::TargetReset(11), _) => RESOURCE_EXHAUSTED,
        (Cause::TargetReset(_) | Cause::BadResponse | Cause::NotHttp2 | Cause::Internal, _) => INTERNAL,
        (_, StatusCode::UNAUTHORIZED) => UNAUTHENTICATED,
        (_, StatusCode::FORBIDDEN) => PERMISSION_DENIED,
        (_, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) => {
            UNIMPLEMENTED
        }
        (
            _,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT,
        ) => UNAVAILABLE,
        (_, status) if status.is_client_error() => INVALID_ARGUMENT,
        _ => UNKNOWN,
    }
}

/// A message as gRPC writes it into a header: what is no printable ASCII, and `%`, by its bytes.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_itself_is_grpc() {
        let is = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            is_of(&headers)
        };
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;x=y"));
        // That of browsers has its status in the body, and takes HTTP's for an error.
        assert!(!is("application/grpc-web") && !is("application/json") && !is_of(&HeaderMap::new()));
    }

    #[test]
    fn a_cause_has_a_status_and_its_words() {
        for (cause, status) in [
            (Cause::ClientOffline, "14"),
            (Cause::NotClaimed, "14"),
            (Cause::AuthRequired, "16"),
            (Cause::NoSuchTunnel, "12"),
            (Cause::BodyTooLarge(5), "8"),
            (Cause::TargetReset(8), "1"),
            (Cause::TargetReset(2), "13"),
            (Cause::BadHost, "3"),
        ] {
            let answer = answer(&cause, "r1");
            assert_eq!(
                (answer.status(), &answer.headers()["grpc-status"]),
                (StatusCode::OK, &HeaderValue::from_static(status)),
                "{cause:?}"
            );
            assert!(answer.headers()["grpc-message"].to_str().unwrap().contains(cause.label()));
        }
        assert_eq!(encoded("100 %\né"), "100 %25%0A%C3%A9");
    }
}
