//! The main job, once through.

use crate::rig::{ALICE, Rig, echo_target};

#[tokio::test]
async fn a_request_goes_through_a_base_client_and_its_data_socket_serves_the_next_one() {
    let rig = Rig::start().await;
    let _client = rig.client(ALICE, "web", echo_target().await).await;
    let first = rig.get("web", "/a%20b//c?d=%0d%0a").await;
    assert_eq!((first.status, first.header("x-connection")), (200, Some("0.0")));
    assert!(
        first.text().starts_with("GET /a%20b//c?d=%0d%0a HTTP/1.1\r\nHost: web.relay.test\r\n"),
        "{}",
        first.text()
    );
    let second = rig.get("web", "/").await;
    assert_eq!((second.status, second.header("x-connection")), (200, Some("0.1")));
    rig.shutdown().await;
}
