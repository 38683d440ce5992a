//! `adit wst` beside a relay that does only what the test says: registered, fed with tokens, lost, and ended.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use adit::auth::Secret;
use adit::auth::jwt::{Secrets, WorkerTokens};
use adit::stream::handshake;
use adit::wsmux::{Ended, Role, Session, Settings, Stream};
use bytes::BytesMut;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::task::{JoinHandle, JoinSet};

use crate::program::{adit, run, signal};
use crate::rig::{read_head, soon, target};

const ID: &str = "fBW_6x~1.2-3%2F";
const URL: &str = "https://tunnels.example/fBW";

/// A token for the id that expires so many seconds from now.
fn token(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let tokens = WorkerTokens { secrets: Secrets::new(vec![Secret::new("short")]), audience: None };
    let hour = 3600;
    let lifetime = std::time::Duration::from_secs(hour as u64);
    tokens.mint(ID, lifetime, now - (hour - seconds) * 1000).unwrap()
}

/// The relay's end of everything.
struct Scripted {
    listener: TcpListener,
    address: SocketAddr,
}

/// A registration that waits for its answer.
struct Asked {
    head: String,
    io: TcpStream,
}

/// A session that runs.
struct Serving {
    session: Session,
    driving: JoinHandle<Ended>,
}

impl Scripted {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next registration.
    async fn asked(&self) -> Asked {
        let (mut io, _) = soon(self.listener.accept()).await.unwrap();
        let head = soon(read_head(&mut io)).await.unwrap();
        Asked { head: String::from_utf8(head).unwrap(), io }
    }

    async fn serve(&self) -> Serving {
        self.asked().await.accept(URL).await
    }

    async fn refuse(&self, status: &str, body: &str) -> String {
        let mut asked = self.asked().await;
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        asked.io.write_all(answer.as_bytes()).await.unwrap();
        asked.head
    }
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    async fn accept(mut self, url: &str) -> Serving {
        let accept = handshake::accept_of(self.header("sec-websocket-key").unwrap());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nx-websocktunnel-client-url: {url}\r\n\r\n"
        );
        self.io.write_all(answer.as_bytes()).await.unwrap();
        let settings = Settings::default();
        let (session, driver) = Session::with_already(self.io, Role::Server, BytesMut::new(), settings);
        Serving { session, driving: tokio::spawn(driver.run()) }
    }
}

impl Serving {
    async fn open(&self) -> Stream {
        soon(self.session.open()).await.unwrap()
    }

    /// The connection goes without a word, as the Go program lets it go.
    fn drop_connection(self) {
        self.driving.abort();
    }
}

/// The program, as far as it has been read.
struct Wst {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
    _home: tempfile::TempDir,
}

impl Wst {
    fn start(relay: &Scripted, target: &str, more: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let url = relay.url();
        let mut command = adit(home.path(), &[&["wst", &url, ID, target], more].concat());
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stdin, stdout, stderr, _home: home }
    }

    async fn feed(&mut self, line: &str) {
        self.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn out(&mut self) -> String {
        soon(self.stdout.next_line()).await.unwrap().expect("stdout has ended")
    }

    /// Reads stderr until a line that has this.
    async fn says(&mut self, text: &str) -> String {
        let mut said = String::new();
        while let Some(line) = soon(self.stderr.next_line()).await.unwrap() {
            if line.contains(text) {
                return line;
            }
            said += &format!("{line}\n");
        }
        panic!("{text:?} was not said:\n{said}");
    }

    /// The next event of this name.
    async fn event(&mut self, name: &str) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.out().await).unwrap();
            if event["event"] == name {
                return event;
            }
        }
    }

    fn signal(&self, name: &str) {
        signal(self.child.id().unwrap(), name);
    }

    async fn ends(mut self, code: i32) {
        assert_eq!(soon(self.child.wait()).await.unwrap().code(), Some(code));
    }
}

/// Sends what it gets back when that has ended.
async fn answering_target() -> SocketAddr {
    target(|_, mut stream| async move {
        let mut question = Vec::new();
        let _ = stream.read_to_end(&mut question).await;
        question.reverse();
        let _ = stream.write_all(&question).await;
    })
    .await
}

/// Echoes.
async fn echo() -> String {
    let address = target(|_, mut stream| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    address.to_string()
}

async fn echoes(stream: &mut Stream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut back = vec![0; text.len()];
    soon(stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, text.as_bytes());
}

async fn rest(stream: &mut Stream) -> Vec<u8> {
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    rest
}

#[tokio::test]
async fn a_worker_registers_with_its_id_and_token_and_tells_its_url() {
    let relay = Scripted::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    let given = token(60);
    let file_text = file.to_str().unwrap();
    let mut wst = Wst::start(&relay, &echo().await, &["--token", &given, "--out-file", file_text]);
    let asked = relay.asked().await;
    assert!(asked.head.starts_with("GET / HTTP/1.1\r\n"), "{}", asked.head);
    assert_eq!(asked.header("x-websocktunnel-id"), Some(ID));
    assert_eq!(asked.header("authorization"), Some(&*format!("Bearer {given}")));
    assert_eq!(asked.header("sec-websocket-version"), Some("13"));
    assert_eq!(asked.header("sec-websocket-protocol"), None);
    let serving = asked.accept(URL).await;
    assert_eq!(wst.out().await, URL);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), URL);
    echoes(&mut serving.open().await, "hello").await;
    wst.signal("INT");
    assert_eq!(soon(serving.driving).await.unwrap(), Ended::ByPeer(Some(1000)));
    wst.ends(0).await;
}

#[tokio::test]
async fn a_fresh_token_breaks_nothing_and_counts_from_the_next_registration_on() {
    let relay = Scripted::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    let more = ["--verbose", "--out-file", file.to_str().unwrap()];
    let mut wst = Wst::start(&relay, &echo().await, &more);
    let (first, second) = (token(60), token(120));
    wst.says("waiting for one on stdin").await;
    wst.feed("").await;
    wst.feed(&format!("  {first} \r")).await;
    let asked = relay.asked().await;
    assert_eq!(asked.header("authorization"), Some(&*format!("Bearer {first}")));
    let serving = asked.accept(URL).await;
    assert_eq!(wst.out().await, URL);
    let mut stream = serving.open().await;
    echoes(&mut stream, "before").await;
    wst.feed("no token").await;
    wst.says("a line of stdin is no token").await;
    wst.feed(&second).await;
    wst.says("there is a fresh one").await;
    echoes(&mut stream, "after").await;
    drop(wst.stdin.take());
    wst.says("there will be no other one").await;
    serving.drop_connection();
    let asked = relay.asked().await;
    assert_eq!(asked.header("authorization"), Some(&*format!("Bearer {second}")));
    let serving = asked.accept("http://elsewhere.example/x").await;
    assert_eq!(wst.out().await, "http://elsewhere.example/x");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "http://elsewhere.example/x");
    echoes(&mut serving.open().await, "again").await;
}

#[tokio::test]
async fn an_expired_token_is_not_tried_and_the_next_one_is() {
    let relay = Scripted::start().await;
    let mut wst = Wst::start(&relay, &echo().await, &[]);
    wst.feed(&token(-1)).await;
    wst.says("it has expired; waiting for one on stdin").await;
    let good = token(60);
    wst.feed(&good).await;
    assert_eq!(relay.asked().await.header("authorization"), Some(&*format!("Bearer {good}")));
    let mut wst = Wst::start(&relay, &echo().await, &["--token", &token(-1)]);
    wst.says("it has expired, and no other one will come: give a good one by --token").await;
    wst.ends(77).await;
    let mut wst = Wst::start(&relay, &echo().await, &[]);
    drop(wst.stdin.take());
    wst.says("there is none, and no other one will come: give a good one by --token, or as a line of stdin")
        .await;
    wst.ends(77).await;
}

#[tokio::test]
async fn a_token_that_is_refused_later_is_not_tried_again() {
    let relay = Scripted::start().await;
    let mut wst = Wst::start(&relay, &echo().await, &[]);
    wst.feed(&token(60)).await;
    let serving = relay.serve().await;
    assert_eq!(wst.out().await, URL);
    serving.drop_connection();
    relay.refuse("401 Unauthorized", "Unauthorized\n").await;
    wst.says("does not accept the token").await;
    let fresh = token(120);
    wst.feed(&fresh).await;
    let asked = relay.asked().await;
    assert_eq!(asked.header("authorization"), Some(&*format!("Bearer {fresh}")));
    asked.accept(URL).await;
    wst.says("online again").await;
}

#[tokio::test]
async fn refusals_are_final_at_first_and_what_may_pass_is_tried_again() {
    let cases = [
        ("400 Bad Request", 1, "check that the token is a whole one"),
        ("404 Not Found", 1, "check SERVER"),
        ("405 Method Not Allowed", 1, "refuses the id"),
        ("301 Moved Permanently", 1, "check SERVER"),
        ("200 OK", 1, "instead of a WebSocket"),
        ("401 Unauthorized", 77, "does not accept the token"),
        ("403 Forbidden", 77, "does not accept the token"),
    ];
    for (status, code, said) in cases {
        let relay = Scripted::start().await;
        let mut wst = Wst::start(&relay, "3000", &["--token", &token(60)]);
        relay.refuse(status, "no\n").await;
        wst.says(said).await;
        wst.ends(code).await;
    }
    let relay = Scripted::start().await;
    let mut wst = Wst::start(&relay, "3000", &["--token", &token(60)]);
    for status in ["500 Internal Server Error", "503 Service Unavailable"] {
        relay.refuse(status, "").await;
        wst.says(&status[..3]).await;
    }
    // Also who hangs up.
    drop(relay.asked().await);
    relay.serve().await;
    assert_eq!(wst.out().await, URL);
}

#[tokio::test]
async fn refusals_after_the_first_registration_may_pass() {
    let relay = Scripted::start().await;
    let mut wst = Wst::start(&relay, "3000", &["--token", &token(60)]);
    relay.serve().await.drop_connection();
    relay.refuse("404 Not Found", "").await;
    wst.says("answers 404").await;
    let _serving = relay.serve().await;
    wst.says("online again").await;
}

#[tokio::test]
async fn a_target_that_is_down_ends_its_streams_at_once_and_is_told_once() {
    let relay = Scripted::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut wst = Wst::start(&relay, &address.to_string(), &["--token", &token(60)]);
    let serving = relay.serve().await;
    for _ in 0..5 {
        let mut stream = serving.open().await;
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(soon(stream.read(&mut [0; 1])).await.unwrap(), 0);
    }
    wst.says("Connection refused").await;
    let listener = TcpListener::bind(address).await.unwrap();
    let (mut stream, accepted) = tokio::join!(serving.open(), listener.accept());
    accepted.unwrap().0.write_all(b"x").await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'x');
    drop(wst.stdin.take());
    wst.signal("TERM");
    let mut rest = String::new();
    soon(wst.stderr.into_inner().read_to_string(&mut rest)).await.unwrap();
    assert!(!rest.contains("refused"), "{rest}");
}

#[tokio::test]
async fn each_direction_of_a_stream_ends_by_itself() {
    let relay = Scripted::start().await;
    let target = answering_target().await.to_string();
    let _wst = Wst::start(&relay, &target, &["--token", &token(60)]);
    let serving = relay.serve().await;
    let mut stream = serving.open().await;
    stream.write_all(b"abc").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, b"cba");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_streams_at_once_do_not_wait_for_one_that_stands_still() {
    let relay = Scripted::start().await;
    let _wst = Wst::start(&relay, &echo().await, &["--token", &token(60)]);
    let serving = relay.serve().await;
    // More than its window comes back, and nobody reads it.
    let mut stalled = serving.open().await;
    let mut filling = JoinSet::new();
    filling.spawn(async move {
        let _ = stalled.write_all(&vec![0; 16 << 20]).await;
        std::future::pending::<()>().await;
    });
    let mut streams = JoinSet::new();
    for at in 0..100_u8 {
        let session = serving.session.clone();
        streams.spawn(async move {
            let stream = session.open().await.unwrap();
            let (mut from, mut to) = tokio::io::split(stream);
            let sent = vec![at; 200_000];
            let (wrote, read) = tokio::join!(
                async {
                    to.write_all(&sent).await?;
                    to.shutdown().await
                },
                async {
                    let mut back = Vec::new();
                    from.read_to_end(&mut back).await.map(|_| back)
                }
            );
            wrote.unwrap();
            assert!(read.unwrap() == sent);
        });
    }
    while let Some(done) = soon(streams.join_next()).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn more_streams_than_the_go_client_would_queue_may_come_at_one_go() {
    let relay = Scripted::start().await;
    let _wst = Wst::start(&relay, &echo().await, &["--token", &token(60)]);
    let asked = relay.asked().await;
    let accept = handshake::accept_of(asked.header("sec-websocket-key").unwrap());
    let mut bytes = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nx-websocktunnel-client-url: {URL}\r\n\r\n"
    )
    .into_bytes();
    for at in 0..500_u32 {
        bytes.extend([0x82, 5, 1]);
        bytes.extend((at * 2).to_le_bytes());
    }
    let mut io = asked.io;
    io.write_all(&bytes).await.unwrap();
    // Each is accepted by a masked message of nine bytes.
    let (mut accepted, mut read) = (0, BytesMut::new());
    while accepted < 500 {
        assert!(soon(io.read_buf(&mut read)).await.unwrap() > 0, "the session ended after {accepted}");
        while read.len() >= 2 && read.len() >= 6 + usize::from(read[1] & 0x7f) {
            let message = read.split_to(6 + usize::from(read[1] & 0x7f));
            accepted += usize::from(message[0] == 0x82 && message[6] ^ message[2] == 2);
        }
    }
}

#[tokio::test]
async fn what_a_lost_session_cuts_short_does_not_look_whole_to_the_target() {
    let relay = Scripted::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut wst = Wst::start(&relay, &address, &["--token", &token(60)]);
    let serving = relay.serve().await;
    let (mut stream, accepted) = tokio::join!(serving.open(), listener.accept());
    let mut io = accepted.unwrap().0;
    stream.write_all(b"half of").await.unwrap();
    soon(io.read_exact(&mut [0; 7])).await.unwrap();
    serving.drop_connection();
    assert!(soon(io.read_u8()).await.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    wst.says("offline").await;
    relay.serve().await;
}

#[tokio::test]
async fn at_a_stop_streams_under_way_may_finish_and_the_relay_is_told() {
    let relay = Scripted::start().await;
    let target = answering_target().await.to_string();
    let mut wst = Wst::start(&relay, &target, &["--token", &token(60), "--json"]);
    let serving = relay.serve().await;
    assert_eq!(wst.event("online").await["url"], URL);
    let mut stream = serving.open().await;
    stream.write_all(b"abc").await.unwrap();
    wst.signal("TERM");
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, b"cba");
    let connection = wst.event("connection").await;
    assert_eq!((&connection["bytes_in"], &connection["bytes_out"]), (&3.into(), &3.into()));
    let ended = wst.event("ended").await;
    assert_eq!((&ended["kind"], &ended["exit_code"]), (&"stopped".into(), &0.into()));
    assert_eq!(soon(serving.driving).await.unwrap(), Ended::ByPeer(Some(1000)));
    assert_eq!(soon(wst.stderr.next_line()).await.unwrap(), None);
    wst.ends(0).await;
}

#[tokio::test]
async fn a_relay_that_ends_it_for_good_is_believed() {
    let relay = Scripted::start().await;
    let mut wst = Wst::start(&relay, "3000", &["--token", &token(60)]);
    relay.serve().await.session.close(1000, "").await;
    wst.says("takes over the id").await;
    wst.ends(0).await;
}

#[tokio::test]
async fn a_relay_that_restarts_is_found_again() {
    let relay = Scripted::start().await;
    let mut wst = Wst::start(&relay, "3000", &["--token", &token(60)]);
    for _ in 0..2 {
        relay.serve().await.session.close(1012, "").await;
        let line = wst.says("offline").await;
        assert!(line.contains("1012"), "{line}");
    }
}

#[tokio::test]
async fn two_workers_of_one_id_do_not_fight() {
    let relay = Scripted::start().await;
    let mut wst = Wst::start(&relay, "3000", &["--token", &token(60)]);
    relay.serve().await.drop_connection();
    wst.says("the session is lost").await;
    relay.serve().await.drop_connection();
    let line = wst.says("give each an id of its own").await;
    let (_, seconds) = line.rsplit_once("trying again in ").unwrap();
    let seconds: u64 = seconds.trim_end_matches('s').parse().unwrap();
    assert!(seconds >= 15, "{line}");
}

#[tokio::test]
async fn what_is_typed_wrong_ends_it_before_anything_is_dialled() {
    let home = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 5] = [
        (&["http://a/b", ID, "3000"], "has a path"),
        (&["http://u:p@a", ID, "3000"], "--token"),
        (&["a", ID, "3000"], "scheme"),
        (&["http://a", ID, "3000", "--out-file", "/nowhere/url"], "no such directory"),
        (&["http://a", ID, "3000", "--token", "a b"], "--token"),
    ];
    for (line, said) in cases {
        let (code, out, err) = run(&mut adit(home.path(), &[&["wst"], line].concat())).await;
        assert!((code, &*out) == (2, "") && err.contains(said), "{line:?}: {code} {err}");
    }
    assert!(!Path::new("/nowhere").exists());
}
