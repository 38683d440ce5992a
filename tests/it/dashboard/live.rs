//! Live figures: what a page is told as long as it reads, and what becomes of one that does not.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Desk, code};
use crate::counts::{counts, settle};
use crate::rig::{ALICE, PATIENCE, Rig, read_head, soon};

/// A page that is open.
struct Page {
    head: String,
    stream: TcpStream,
    read: Vec<u8>,
    events: Vec<(String, Value)>,
}

impl Page {
    async fn open(desk: &Desk, query: &str) -> Self {
        Self::on(TcpStream::connect(desk.admin).await.unwrap(), desk, query).await
    }

    async fn on(mut stream: TcpStream, desk: &Desk, query: &str) -> Self {
        let (admin, cookie) = (desk.admin, &desk.cookie);
        let request = format!("GET /api/live{query} HTTP/1.1\r\nHost: {admin}\r\nCookie: {cookie}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = soon(read_head(&mut stream)).await.unwrap();
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        Self { head, stream, read: Vec::new(), events: Vec::new() }
    }

    /// The data of the next event of that name, those of others aside; `None` at the end.
    async fn next(&mut self, name: &str) -> Option<Value> {
        soon(async {
            loop {
                if let Some(at) = self.events.iter().position(|(known, _)| known == name) {
                    return Some(self.events.remove(at).1);
                }
                if self.read.ends_with(b"\r\n0\r\n\r\n") {
                    return None;
                }
                let mut buffer = vec![0; 64 << 10];
                match self.stream.read(&mut buffer).await {
                    Ok(count @ 1..) => self.read.extend_from_slice(&buffer[..count]),
                    _ => return None,
                }
                self.take_events();
            }
        })
        .await
    }

    /// Each message is a chunk, so that no line of a chunk's length is within an event.
    fn take_events(&mut self) {
        while let Some(end) = self.read.windows(2).position(|window| window == b"\n\n") {
            let text = String::from_utf8(self.read.drain(..end + 2).collect()).unwrap();
            let (_, event) = text.split_once("event: ").unwrap();
            let (name, data) = event.split_once("\ndata: ").unwrap();
            self.events.push((name.to_owned(), serde_json::from_str(data).unwrap()));
        }
    }
}

#[tokio::test]
async fn an_open_page_is_told_what_changes_until_its_session_ends() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    rig.create(ALICE, "before").await;
    let mut page = Page::open(&desk, "?view=tunnels&sort=name&order=desc").await;
    let first = page.next("page").await.unwrap();
    assert_eq!(first["tunnels"][0]["name"], "before");
    assert!(page.head.contains("text/event-stream") && page.head.contains("no-store"), "{}", page.head);
    let control = rig.control(ALICE, "web").await;
    let second = page.next("page").await.unwrap();
    assert_eq!((&second["total"], &second["tunnels"][0]["name"]), (&json!(2), &json!("web")));
    let mut seen = Vec::new();
    while seen.last().is_none_or(|kind| kind != "connected") {
        let events = page.next("events").await.unwrap();
        let kinds = events["events"].as_array().unwrap().iter().rev();
        seen.extend(kinds.map(|event| event["kind"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen, ["created", "created", "connected"], "each once, with what was before");
    let summary = page.next("summary").await.unwrap();
    assert_eq!(summary["relay"]["state"], "serving");
    desk.ask("POST", "/logout", "", "").await;
    while page.next("summary").await.is_some() {}
    settle(rig.admin, &json!({"admin_connections": 1})).await;
    drop(control);
}

/// A browser asks for another list with another stream, and comes back with one.
#[tokio::test]
async fn a_page_is_told_what_happened_between_two_of_its_streams() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let mut page = Page::open(&desk, "?view=fleet").await;
    page.next("page").await.unwrap();
    drop(page);
    rig.create(ALICE, "between").await;
    let mut page = Page::open(&desk, "?view=tunnels").await;
    let events = page.next("events").await.unwrap();
    let [event] = &events["events"].as_array().unwrap()[..] else { panic!("{events}") };
    assert_eq!((&event["kind"], &event["tunnel"]), (&json!("created"), &json!("between")));
}

#[tokio::test]
async fn more_pages_than_may_be_open_are_told_so() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let mut pages = Vec::new();
    for _ in 0..100 {
        pages.push(Page::open(&desk, "").await);
    }
    let answer = desk.get("/api/live").await;
    assert_eq!(
        (answer.status, code(&answer).as_str(), answer.header("retry-after")),
        (503, "too_many", Some("10"))
    );
    desk.json("/api/summary").await;
    pages.clear();
    settle(rig.admin, &json!({"admin_connections": 1})).await;
    let mut page = Page::open(&desk, "?view=events").await;
    assert!(page.next("page").await.is_some());
    assert_eq!(desk.get("/api/live?view=x").await.status, 400);
}

#[tokio::test]
async fn a_page_that_reads_no_more_is_cut_off_and_holds_up_nobody() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let mut controls = Vec::new();
    for at in 0..200 {
        controls.push(rig.control(ALICE, &format!("{at:03}-{}", "x".repeat(40))).await);
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(rig.admin).await.unwrap();
    let page = Page::on(stream, &desk, "?view=fleet&size=200").await;
    let mut reader = Page::open(&desk, "?view=fleet&size=200").await;
    settle(rig.admin, &json!({"admin_connections": 3})).await;
    // The messages fill what the systems at both ends take, and then nothing is taken for ten seconds.
    tokio::time::timeout(2 * PATIENCE, async {
        while counts(rig.admin).await["admin_connections"] != 2 {
            assert!(reader.next("page").await.is_some());
        }
    })
    .await
    .expect("the page is cut off");
    drop(page);
}
