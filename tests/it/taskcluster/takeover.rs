//! One relay process in the place of another, with workers.

use std::net::SocketAddr;
use std::path::Path;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{SECRET, Worker};
use crate::program::{Running, relay};
use crate::rig::{echo_target, soon};
use crate::takeover::successor_with;
use crate::wire::Viewer;

fn with_workers(home: &Path, more: &[&str]) -> Command {
    let mut command = relay(home, more);
    command.env("ADIT_WORKER_SECRET", SECRET);
    command
}

async fn status(address: SocketAddr, path: &str) -> u16 {
    let mut viewer = Viewer(soon(TcpStream::connect(address)).await.unwrap());
    viewer.say(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await;
    viewer.answer().await.status
}

#[tokio::test]
async fn viewers_find_workers_that_are_still_at_the_process_before() {
    let home = tempfile::tempdir().unwrap();
    let old = Running::start(with_workers(home.path(), &[])).await;
    let address = old.addresses[0];
    let busy = Worker::of(address, "busy").await;
    // A response under way keeps its session at the old process.
    let mut streaming = Viewer(soon(TcpStream::connect(address)).await.unwrap());
    streaming.say(format!("GET /busy/ HTTP/1.1\r\nHost: {address}\r\n\r\n")).await;
    let mut stream = busy.stream().await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
    assert!(streaming.head().await.starts_with("http/1.1 200"));
    let idle = Worker::start(address, "idle", echo_target().await).await;
    assert_eq!(status(address, "/idle/").await, 200);

    let new = successor_with(with_workers(home.path(), &["--take-over"]), &old).await;
    // Through both.
    assert_eq!(status(address, "/idle/").await, 200);
    assert_eq!(status(address, "/nobody/").await, 404);
    stream.write_all(b"cd").await.unwrap();
    assert_eq!(streaming.bytes(4).await, b"abcd");
    drop((streaming, stream));
    // The old process ends, and the worker is on its way: its viewers wait.
    soon(idle.session.over()).await;
    let (viewed, _idle) = tokio::join!(status(address, "/idle/"), async {
        assert_eq!(old.end().await.0, Some(0));
        Worker::start(address, "idle", echo_target().await).await
    });
    assert_eq!(viewed, 200);
    assert_eq!(status(address, "/idle/").await, 200);
    new.signal("TERM");
    assert_eq!(new.end().await.0, Some(0));
}
