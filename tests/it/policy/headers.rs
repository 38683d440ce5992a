//! Headers that an owner sets, adds and removes, on the way in and on the way out.

use serde_json::json;

use super::{ask, set, with_policy};
use crate::rig::{ALICE, Rig};
use crate::wire::{Viewer, scripted};

#[tokio::test]
async fn requests_are_changed_whatever_the_viewer_sends() {
    let policy = json!({"request_headers": ["X-Secret: ours", "+X-List: b", "-X-Gone", "Cookie: own=1", "Authorization: Bearer t"]});
    let (rig, _client, recorder) = with_policy(policy).await;
    let mut viewer = Viewer::new(&rig).await;
    for (headers, list) in [
        (
            "X-Secret: theirs\r\nX-SECRET: again\r\nX-List: a\r\nX-Gone: 1\r\nCookie: a=1\r\nAuthorization: Basic x\r\n",
            vec!["a", "b"],
        ),
        // Named away by Connection: what is ours stays all the same.
        ("Connection: x-secret, x-list, authorization\r\nX-Secret: theirs\r\nX-List: a\r\n", vec!["b"]),
        ("", vec!["b"]),
    ] {
        ask(&mut viewer, "GET", "/", headers, "").await;
        let seen = recorder.only();
        assert!(seen.is_plain(), "{}", seen.head);
        assert_eq!((seen.all("x-secret"), seen.all("x-list")), (vec!["ours"], list), "{}", seen.head);
        assert_eq!((seen.all("cookie"), seen.all("authorization")), (vec!["own=1"], vec!["Bearer t"]));
        assert!(seen.all("x-gone").is_empty());
    }
    viewer
        .say("POST / HTTP/1.1\r\nHost: web.relay.test\r\nTransfer-Encoding: chunked\r\nTrailer: x-gone, x-kept\r\n\r\n0\r\nX-Gone: 1\r\nX-Secret: 2\r\nX-Kept: 3\r\n\r\n")
        .await;
    viewer.answer().await;
    let body = String::from_utf8(recorder.only().body).unwrap();
    assert_eq!(body, "0\r\nx-kept: 3\r\n\r\n", "nor do they come behind the body");
}

#[tokio::test]
async fn responses_are_changed_and_stay_within_their_tunnel() {
    let rig = Rig::start().await;
    let target = scripted(
        "HTTP/1.1 200 OK\r\nServer: x\r\nX-Frame-Options: DENY\r\nSet-Cookie: a=1\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let client = rig.client(ALICE, "web", target).await;
    let policy = json!({"response_headers": [
        "-Server", "X-Frame-Options: SAMEORIGIN", "+Set-Cookie: b=2; Path=/", "Strict-Transport-Security: max-age=9"
    ]});
    set(&rig, &client.id, policy).await;
    let mut viewer = Viewer::new(&rig).await;
    for _ in 0..2 {
        let answer = viewer.get("web", "/").await;
        assert_eq!((answer.header("server"), answer.header("x-frame-options")), (None, Some("sameorigin")));
        assert!(answer.head.contains("set-cookie: a=1\r\nset-cookie: b=2; path=/\r\n"), "{}", answer.head);
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=9"));
    }
    // By path the origin is shared: nobody speaks for the others there.
    viewer.say("GET /t/web/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = viewer.answer().await;
    assert_eq!(answer.header("strict-transport-security"), None);
    assert!(answer.head.contains("set-cookie: b=2; path=/t/web/\r\n"), "{}", answer.head);
}
