//! WebSocket handshakes in both roles: a request is answered only as RFC 6455 asks, and no answer passes for one to our
//! key that is not.

use adit::stream::handshake::{check as check_request, connect, offers};
use http::{HeaderMap, Method, Request, Uri, Version};

use super::pieces::{Script, cuts};

/// A request as the relay's parser makes it of these bytes.
fn request(data: &[u8]) -> Option<Request<()>> {
    let mut lines = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut lines);
    if !parsed.parse(data).ok()?.is_complete() {
        return None;
    }
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut request = Request::builder().method(parsed.method?).uri(parsed.path?).version(version);
    for line in parsed.headers.iter() {
        request = request.header(line.name, line.value);
    }
    request.body(()).ok()
}

/// See the top.
pub fn check(data: &[u8]) {
    if let Some(request) = request(data) {
        if let Ok(accept) = check_request(&request) {
            assert_eq!(
                (accept.len(), request.method(), request.version()),
                (28, &Method::GET, Version::HTTP_11)
            );
            assert!(["connection", "upgrade"].iter().all(|name| request.headers().contains_key(*name)));
            assert_eq!(request.headers().get_all("sec-websocket-key").iter().count(), 1);
        }
        let _ = offers(&request, "adit.1");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let [whole, bytes, _] = cuts(data);
    let outcomes = [whole, bytes].map(|pieces| {
        let script = Script::new(&pieces, usize::MAX);
        let uri = Uri::from_static("http://relay.example/ws/control");
        match runtime.block_on(connect(script, &uri, HeaderMap::new())) {
            Ok(_) => panic!("an answer that cannot know the key was taken"),
            Err(error) => std::mem::discriminant(&error),
        }
    });
    assert_eq!(outcomes[0], outcomes[1]);
}
