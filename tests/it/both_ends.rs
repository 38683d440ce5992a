//! The real client on a real relay at level two, with a witness between them that notes what the client opens.

use adit::client::{Event, Proxies, Tunnel, TunnelBuilder};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::drain;
use crate::level_two::Two;
use crate::rig::{ALICE, BOB, Rig, echo_target, read_head, soon, target};
use crate::wire::Viewer;

/// Passes connections on to a relay and notes the path of each.
struct Witness {
    address: std::net::SocketAddr,
    seen: watch::Receiver<Vec<String>>,
}

impl Witness {
    async fn before(rig: &Rig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, relay) = (listener.local_addr().unwrap(), rig.address);
        let (note, seen) = watch::channel(Vec::new());
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let note = note.clone();
                tokio::spawn(async move {
                    let Some(head) = read_head(&mut client).await else { return };
                    let path =
                        String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
                    let mut relay = TcpStream::connect(relay).await.unwrap();
                    relay.write_all(&head).await.unwrap();
                    note.send_modify(|seen| seen.push(path));
                    let _ = copy_bidirectional(&mut client, &mut relay).await;
                });
            }
        });
        Self { address, seen }
    }

    /// Waits until so many standby sockets were opened.
    async fn standby(&mut self, count: usize) {
        let opened =
            |seen: &Vec<String>| seen.iter().filter(|path| path.contains("/ws/data?tunnel_id=")).count();
        soon(self.seen.wait_for(|seen| opened(seen) >= count)).await.unwrap();
    }

    /// Data sockets that were opened for a viewer who waited.
    fn claims(&self) -> usize {
        self.seen.borrow().iter().filter(|path| path.contains("/ws/data?id=")).count()
    }

    fn tunnel(&self) -> TunnelBuilder {
        Tunnel::to(format!("http://{}", self.address)).key(ALICE).name("web").proxies(Proxies::none())
    }
}

#[tokio::test]
async fn the_first_viewer_is_served_by_a_standby_socket_and_the_next_is_opened() {
    let rig = Rig::start().await;
    let mut witness = Witness::before(&rig).await;
    let _tunnel = witness.tunnel().expose(&echo_target().await.to_string()).await.unwrap();
    witness.standby(1).await;
    // Its handshake ends a moment after it was seen: until then a viewer is announced.
    let mut viewers = 0;
    loop {
        let (claims, answer) = (witness.claims(), rig.get("web", "/").await);
        assert_eq!(answer.status, 200);
        viewers += 1;
        if witness.claims() == claims {
            break;
        }
        assert!(viewers < 50, "no standby socket is ever used");
    }
    witness.standby(2).await;
}

#[tokio::test]
async fn a_target_that_is_down_is_told_at_once_and_served_when_it_is_back() {
    // Far longer than a test may take: only the rejection can answer.
    let rig = Rig::with(|config| config.limits.claim_wait = std::time::Duration::from_secs(300)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let witness = Witness::before(&rig).await;
    let mut tunnel = witness.tunnel().expose(&address.to_string()).await.unwrap();
    for method in ["GET", "POST"] {
        for _ in 0..5 {
            let mut viewer = Viewer::new(&rig).await;
            viewer
                .say(format!("{method} / HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: 0\r\n\r\n"))
                .await;
            let answer = viewer.answer().await;
            assert_eq!(answer.status, 502);
            assert!(answer.text().contains("Connection refused"), "{}", answer.text());
        }
    }
    let told = loop {
        if let Event::TargetDown { error, .. } = soon(tunnel.next_event()).await.unwrap() {
            break error;
        }
    };
    assert_eq!(told.code(), "refused");
    let listener = TcpListener::bind(address).await.unwrap();
    let (answer, ()) = tokio::join!(rig.get("web", "/"), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback").await.unwrap();
    });
    assert_eq!(answer.text(), "back");
}

#[tokio::test]
async fn each_side_of_an_upgraded_connection_ends_by_itself() {
    let rig = Rig::start().await;
    let address = target(|_, mut stream| async move {
        read_head(&mut stream).await.unwrap();
        let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";
        stream.write_all(head).await.unwrap();
        // It answers only when the question has ended.
        let mut question = Vec::new();
        stream.read_to_end(&mut question).await.unwrap();
        question.reverse();
        stream.write_all(&question).await.unwrap();
    })
    .await;
    let witness = Witness::before(&rig).await;
    let _tunnel = witness.tunnel().expose(&address.to_string()).await.unwrap();
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n").await;
    assert!(viewer.head().await.starts_with("http/1.1 101"));
    viewer.say("abc").await;
    viewer.0.shutdown().await.unwrap();
    assert_eq!(viewer.rest().await, b"cba");
}

#[tokio::test]
async fn a_body_that_the_target_cuts_is_not_taken_for_a_whole_one() {
    let rig = Rig::start().await;
    let address = target(|number, mut stream| async move {
        read_head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsome").await.unwrap();
        if number == 0 {
            // The viewer's first byte says that all of it is under way.
            let _ = stream.read(&mut [0]).await;
            stream.set_zero_linger().unwrap();
        }
    })
    .await;
    let witness = Witness::before(&rig).await;
    let _tunnel = witness.tunnel().expose(&address.to_string()).await.unwrap();
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("POST / HTTP/1.1\r\nHost: web.relay.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert!(viewer.head().await.contains("transfer-encoding: chunked"));
    assert_eq!(viewer.bytes(9).await, b"4\r\nsome\r\n");
    viewer.say("1\r\nx\r\n").await;
    assert_eq!(viewer.rest().await, b"", "no last chunk");
    let whole = rig.get("web", "/").await;
    assert_eq!((whole.text().as_str(), whole.complete), ("some", true));
}

#[tokio::test]
async fn a_draining_relay_tells_its_clients_and_serves_those_who_wait() {
    let rig = Rig::with(|config| config.limits.claim_wait = std::time::Duration::from_secs(60)).await;
    let mut client = Two::connect(&rig, "web").await;
    let mut other = Two::of(BOB, &rig, rig.create(BOB, "other").await["id"].as_str().unwrap(), "").await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("POST / HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: 4\r\n\r\nbody").await;
    let id = client.hear_of("connection").await["id"].as_str().unwrap().to_owned();
    let address = rig.address;
    let stopping = drain::stop(rig).await;
    for client in [&mut client, &mut other] {
        // One at first, and then no more of them.
        while client.hear_of("standby").await["want"] != 0 {}
        let told = client.hear_of("drain").await;
        assert!(told["deadline_ms"] == 30_000 && told["reconnect_ms"].as_u64().unwrap() <= 3000, "{told}");
    }
    // A message in the wrong state, and one that is none: neither ends anything.
    client.say(json!({"type": "reject", "id": "none"})).await;
    client.say(json!({"type": "drain"})).await;
    let mut data = crate::level_two::data_at(address, &id).await;
    crate::level_two::read_until(&mut data, b"body").await;
    crate::level_two::send(&mut data, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nserved").await;
    assert_eq!(viewer.answer().await.text(), "served");
    for client in [&mut client, &mut other] {
        assert_eq!(client.hear_of("closed").await["reason"], "restart");
        assert_eq!(client.closed().await, Some(1012));
    }
    soon(stopping).await.unwrap();
}
