//! Faults of machines and networks: what breaks off looks broken, nobody waits in vain, and all of it comes back.

mod clock;
mod descriptors;
mod disk;
mod network;
mod process;
mod storm;
mod target;

use std::net::SocketAddr;

use adit::client::{Event, Proxies, Tunnel, TunnelBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};

use crate::program::http;
use crate::rig::{ALICE, Answer, read_head, soon, target};
use crate::wire::Viewer;

/// A process as that command has it, `wrapper`, which becomes it.
fn under(wrapper: &[&str], inner: &Command) -> Command {
    let inner = inner.as_std();
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped()).kill_on_drop(true);
    command
}

/// The real client of alice, not yet connected to the relay at that address.
fn tunnel(relay: SocketAddr, name: &str) -> TunnelBuilder {
    Tunnel::to(format!("http://{relay}")).key(ALICE).name(name).proxies(Proxies::none())
}

/// Reads what the tunnel tells up to that event.
async fn until(tunnel: &mut Tunnel, wanted: impl Fn(&Event) -> bool) -> Event {
    soon(async {
        loop {
            let event = tunnel.next_event().await.expect("the tunnel has ended");
            assert!(!matches!(event, Event::Ended(_)), "{event:?}");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

fn is_offline(event: &Event) -> bool {
    matches!(event, Event::Offline { .. })
}

fn is_online(event: &Event) -> bool {
    matches!(event, Event::Online { .. })
}

/// A GET by path, on a connection of its own.
fn by_path(name: &str, path: &str) -> String {
    format!("GET /t/{name}{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Asks until the tunnel serves.
async fn served(relay: SocketAddr, name: &str) {
    crate::rig::until(async || http(relay, by_path(name, "/")).await.status == 200).await;
}

async fn viewer(relay: SocketAddr) -> Viewer {
    Viewer(soon(TcpStream::connect(relay)).await.unwrap())
}

/// The answer of a viewer who has asked on a connection that ends with it.
async fn answer(viewer: &mut Viewer) -> Answer {
    Answer::parse(&viewer.rest().await)
}

/// Bytes in no order that repeats, so that one lost or doubled is seen.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// What became of an upload at the target that [`halves`] makes.
#[derive(Debug, PartialEq, Eq)]
enum Upload {
    Begun,
    Whole,
    Cut,
}

/// A target that answers the first half of a body of eight bytes and no more of it: `/length`, `/chunked`, `/close` by its
/// framing, `/raw` after an upgrade. `/upload` waits for a body of eight bytes, tells what became of it, and answers.
/// Everything else is answered with `ok`.
async fn halves() -> (SocketAddr, mpsc::Receiver<Upload>) {
    halves_with(watch::channel(()).1).await
}

/// The same, which sends one more byte of each half when it is nudged.
async fn halves_with(nudge: watch::Receiver<()>) -> (SocketAddr, mpsc::Receiver<Upload>) {
    let (tell, uploads) = mpsc::channel(64);
    let address = target(move |_, mut stream| {
        let (tell, mut nudge) = (tell.clone(), nudge.clone());
        nudge.mark_unchanged();
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap();
                let begun = match path {
                    "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf",
                    "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
                    "/close" => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf",
                    "/raw" => {
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\nhalf"
                    }
                    "/upload" => {
                        let _ = tell.send(Upload::Begun).await;
                        let mut body = [0; 8];
                        let read = stream.read_exact(&mut body).await;
                        let whole = read.is_ok() && body == *b"complete";
                        let _ = tell.send(if whole { Upload::Whole } else { Upload::Cut }).await;
                        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                    }
                    _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                };
                if stream.write_all(begun.as_bytes()).await.is_err() {
                    return;
                }
                if begun.ends_with("half") || begun.ends_with("half\r\n") {
                    // Held until the other side ends it.
                    let mut some = [0; 64];
                    loop {
                        tokio::select! {
                            read = stream.read(&mut some) => if !matches!(read, Ok(1..)) { return },
                            Ok(()) = nudge.changed() => drop(stream.write_all(b"1").await),
                        }
                    }
                }
            }
        }
    })
    .await;
    (address, uploads)
}

/// Viewers of `name` that have read the first half of a response, one for each framing, and one that has sent the first
/// half of an upload.
async fn half_way(relay: SocketAddr, name: &str) -> Vec<(&'static str, Viewer)> {
    let mut viewers = Vec::new();
    for path in ["/length", "/chunked", "/close", "/raw"] {
        let mut viewer = viewer(relay).await;
        let upgrade = if path == "/raw" { "Connection: upgrade\r\nUpgrade: raw\r\n" } else { "" };
        viewer.say(format!("GET /t/{name}{path} HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n")).await;
        assert!(viewer.head().await.starts_with(if path == "/raw" {
            "http/1.1 101"
        } else {
            "http/1.1 200"
        }));
        let body = viewer.bytes(if matches!(path, "/chunked" | "/close") { 9 } else { 4 }).await;
        assert!(body.windows(4).any(|bytes| bytes == b"half"), "{path}: {body:?}");
        viewers.push((path, viewer));
    }
    let mut upload = viewer(relay).await;
    upload
        .say(format!("POST /t/{name}/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\ncomp"))
        .await;
    viewers.push(("/upload", upload));
    viewers
}

/// The target has seen the beginning of an upload.
async fn begun(uploads: &mut mpsc::Receiver<Upload>) {
    assert_eq!(soon(uploads.recv()).await, Some(Upload::Begun));
}

/// No half of an upload passes for a whole one.
async fn cut(uploads: &mut mpsc::Receiver<Upload>) {
    assert_eq!(soon(uploads.recv()).await, Some(Upload::Cut));
}

/// None of these viewers gets anything that looks like the rest.
async fn all_broken(viewers: Vec<(&'static str, Viewer)>) {
    for (path, mut viewer) in viewers {
        let rest = viewer.rest().await;
        match path {
            "/upload" => assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest)),
            _ => assert_eq!(String::from_utf8_lossy(&rest), "", "{path}: nothing after the first half"),
        }
    }
}
