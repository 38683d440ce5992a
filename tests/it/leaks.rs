//! Storms of viewers, after which the relay holds what it held before; and slow ones, who take little and hold up nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::counts::{House, SHORT, counts, settle};
use crate::rig::{ALICE, LOOK_EVERY, Rig, echo_target, read_all, read_head, soon, target};
use crate::wire::{claim, receive};

/// Viewers at the same time; some storms are of many more.
const AT_ONCE: usize = 50;

/// Runs `viewer` for each of `0..count`, some at a time.
pub async fn storm<T>(count: usize, viewer: impl Fn(usize) -> T)
where
    T: Future<Output = ()> + Send + 'static,
{
    let mut running = JoinSet::new();
    for number in 0..count {
        if running.len() == AT_ONCE {
            soon(running.join_next()).await.unwrap().unwrap();
        }
        running.spawn(viewer(number));
    }
    while let Some(ended) = soon(running.join_next()).await {
        ended.unwrap();
    }
}

/// A target that does what the path says: `/up` reads, `/down` sends, both without end; `/chat` switches and echoes.
async fn wild_target() -> SocketAddr {
    target(|_, mut stream| async move {
        let Some(head) = read_head(&mut stream).await else { return };
        match head.split(|byte| *byte == b' ').nth(1) {
            Some(b"/down") => {
                let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                while sent.is_ok() {
                    sent = stream.write_all(&[b'd'; 4096]).await;
                }
            }
            Some(b"/chat") => {
                let _ = stream.write_all(SWITCH).await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
            _ => drop(read_all(&mut stream).await),
        }
    })
    .await
}

const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";

/// Comes as far as `number` says, and leaves.
async fn abort(relay: SocketAddr, number: usize) {
    let mut viewer = TcpStream::connect(relay).await.unwrap();
    let (request, wait) = match number % 6 {
        0 => ("GET / HTTP/1.1\r\nHost: web.re", 0),
        1 => ("GET / HTTP/1.1\r\nHost: nobody.relay.test\r\n\r\n", 0),
        2 => ("GET / HTTP/1.1\r\nHost: deaf.relay.test\r\n\r\n", 0),
        3 => ("POST /up HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: 99999999\r\n\r\nsome", 0),
        4 => ("GET /down HTTP/1.1\r\nHost: web.relay.test\r\n\r\n", 100 + number * 37 % 20_000),
        _ => {
            ("GET /chat HTTP/1.1\r\nHost: web.relay.test\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n", 30)
        }
    };
    viewer.write_all(request.as_bytes()).await.unwrap();
    if number % 6 == 3 {
        let _ = viewer.write_all(&vec![b'u'; number * 53 % 100_000]).await;
    }
    let _ = soon(viewer.read_exact(&mut vec![0; wait])).await;
    if number % 4 < 2 {
        viewer.set_zero_linger().unwrap();
    }
}

#[tokio::test]
async fn viewers_that_abort_at_any_point_leave_nothing() {
    let house = House::open(&SHORT).await;
    let wild = wild_target().await;
    house
        .stands(async |rig| {
            let _client = rig.client(ALICE, "web", wild).await;
            let _deaf = rig.control(ALICE, "deaf").await;
            let relay = rig.address;
            storm(504, move |number| abort(relay, number)).await;
        })
        .await;
}

#[tokio::test]
async fn both_sides_that_close_at_once_leave_nothing() {
    let house = House::open(&[]).await;
    // Each side ends as soon as it has the other's one byte, or at the end of the head.
    let closing = target(|number, mut stream| async move {
        let Some(_) = read_head(&mut stream).await else { return };
        let _ = stream.write_all(&[SWITCH, b"x"].concat()).await;
        let _ = stream.read_u8().await;
        if number % 3 == 0 {
            stream.set_zero_linger().unwrap();
        }
    })
    .await;
    house
        .stands(async |rig| {
            let _client = rig.client(ALICE, "web", closing).await;
            let relay = rig.address;
            storm(500, move |number| async move {
                let mut viewer = TcpStream::connect(relay).await.unwrap();
                let ask = "GET /chat HTTP/1.1\r\nHost: web.relay.test\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n";
                viewer.write_all(ask.as_bytes()).await.unwrap();
                soon(read_head(&mut viewer)).await;
                let _ = viewer.write_all(b"x").await;
                if number % 4 == 0 {
                    viewer.set_zero_linger().unwrap();
                }
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn reset_http_2_streams_leave_nothing() {
    let house = House::open(&[]).await;
    let wild = wild_target().await;
    house
        .stands(async |rig| {
            let _client = rig.client(ALICE, "web", wild).await;
            let relay = rig.address;
            storm(10, move |_| async move {
                let io = TokioIo::new(TcpStream::connect(relay).await.unwrap());
                let (mut sender, connection) =
                    soon(http2::handshake(TokioExecutor::new(), io)).await.unwrap();
                let driving = tokio::spawn(connection);
                for number in 0..50 {
                    let path = ["/up", "/down"][number % 2];
                    let request = Request::get(format!("http://web.relay.test{path}"));
                    let answer = sender.send_request(request.body(Empty::<&[u8]>::new()).unwrap());
                    let mut answer = Box::pin(answer);
                    soon(sender.ready()).await.unwrap();
                    // What is dropped is reset: before its claim, or with the body under way.
                    match number % 4 {
                        1 => drop(soon(soon(&mut answer).await.unwrap().into_body().frame()).await),
                        _ => drop(timeout(Duration::from_millis(1), &mut answer).await),
                    }
                }
                drop(sender);
                soon(driving).await.unwrap().unwrap();
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn rest_requests_and_admin_connections_that_are_cut_leave_nothing() {
    let house = House::open(&SHORT).await;
    house
        .stands(async |rig| {
            let (relay, admin) = (rig.address, rig.admin);
            storm(300, move |number| async move {
                let mut stream =
                    TcpStream::connect(if number % 3 == 0 { admin } else { relay }).await.unwrap();
                let create = format!(
                    "POST /v1/tunnels HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALICE}\r\n\
                     Content-Length: 40\r\n\r\n{{\"local_port\": 1, \"name\": \"we"
                );
                let whole = match number % 3 {
                    0 => "GET /counts HTTP/1.1\r\nHost: localhost\r\n\r\n",
                    1 => "GET /v1/version HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer none\r\n\r\n",
                    _ => &create,
                };
                let cut = if number % 2 == 0 { whole.len() } else { number % whole.len() };
                stream.write_all(&whole.as_bytes()[..cut]).await.unwrap();
                if number % 4 < 2 {
                    stream.set_zero_linger().unwrap();
                }
            })
            .await;
        })
        .await;
}

/// Slow viewers of one kind. Each fills the kernel's buffers at all six sockets on its way, which are on one machine here, with
/// 8 MB; of a few hundred the kernel has had enough, and throws away what comes for anybody.
const SLOW_VIEWERS: u64 = 25;
/// These have this much of the relay's memory: two buffers of 64 KiB in each direction of each, and as much again for
/// what an allocator needs.
const SLOW: u64 = SLOW_VIEWERS * 2 * 2 * 2 * 64 * 1024;

/// What nobody reads fills the kernel's buffers soon.
fn small(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_recv_buffer_size(8192).unwrap();
    socket.set_send_buffer_size(8192).unwrap();
}

#[tokio::test]
async fn a_viewer_that_resets_behind_what_nobody_reads_is_noticed() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut viewer = rig.viewer().await;
    viewer.set_zero_linger().unwrap();
    let head = "POST / HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: 999999999\r\n\r\n";
    viewer.write_all(head.as_bytes()).await.unwrap();
    let mut socket = claim(&rig, &mut control).await;
    // Until the upload stands still.
    while timeout(Duration::from_millis(500), viewer.write_all(&[b'u'; 64 * 1024])).await.is_ok() {}
    drop(viewer);
    settle(rig.admin, &serde_json::json!({"exchanges": 0})).await;
    while receive(&mut socket).await.is_some() {}
}

#[tokio::test]
async fn slow_readers_and_slow_writers_take_little_and_hold_up_nobody() {
    let house = House::open(&["--in-flight-bytes=64KiB"]).await;
    let rig = &house.rig;
    let moved = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&moved);
    // Sends what nobody reads, and reads nothing of what is sent.
    let stuck = target(move |_, mut stream| {
        let count = Arc::clone(&count);
        async move {
            small(&stream);
            let head = read_head(&mut stream).await.unwrap();
            if head.starts_with(b"POST") {
                return std::future::pending().await;
            }
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while sent.is_ok() {
                sent = stream.write_all(&[b'd'; 64 * 1024]).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
    let _slow = rig.client(ALICE, "slow", stuck).await;
    let _quick = rig.client(ALICE, "web", echo_target().await).await;
    let before = house.memory().await;
    let mut viewers = JoinSet::new();
    for number in 0..2 * SLOW_VIEWERS {
        let (mut stream, moved) = (rig.viewer().await, Arc::clone(&moved));
        small(&stream);
        // At the end it leaves with a reset: an end in order would stand behind what nobody reads.
        stream.set_zero_linger().unwrap();
        let method = if number % 2 == 0 { "GET" } else { "POST" };
        let head =
            format!("{method} / HTTP/1.1\r\nHost: slow.relay.test\r\nContent-Length: 99999999999\r\n\r\n");
        let head = if number % 2 == 0 { head.replace("99999999999", "0") } else { head };
        viewers.spawn(async move {
            stream.write_all(head.as_bytes()).await.unwrap();
            while number % 2 == 1 && stream.write_all(&[b'u'; 64 * 1024]).await.is_ok() {
                moved.fetch_add(1, Ordering::Relaxed);
            }
            std::future::pending::<()>().await
        });
    }
    settle(rig.admin, &serde_json::json!({"exchanges": 2 * SLOW_VIEWERS, "waiting": 0})).await;
    // Until every buffer on the way is full, or far more has moved than the relay may hold.
    let (mut last, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_millis(300) && last * 64 * 1024 < 5 * SLOW {
        sleep(LOOK_EVERY).await;
        assert!(house.memory().await < before + 2 * SLOW);
        let now = moved.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    for _ in 0..20 {
        let answer = timeout(Duration::from_secs(5), rig.get("web", "/")).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    assert_eq!(counts(rig.admin).await["exchanges"], 2 * SLOW_VIEWERS);
    drop(viewers);
    settle(rig.admin, &serde_json::json!({"exchanges": 0, "data_sockets_in_use": 0})).await;
}
