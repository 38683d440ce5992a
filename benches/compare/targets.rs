//! The two targets that nginx cannot play: one that swallows uploads, and one that never finishes its response.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::http::{content_length, head_end};

/// What one read of an upload takes at most.
const READ: usize = 256 * 1024;
/// The largest request head. A read may bring a head and much of its body at once.
const MAX_HEAD: usize = READ;

/// Both targets; dropping this ends them.
pub struct Targets {
    /// Reads each request's whole body, then answers 200 with an empty body. (nginx's own `return 200` answers
    /// before the body has come, and then wrk mixes up its requests.)
    pub sink: SocketAddr,
    /// Answers each connection's first request with a head and one chunk, then holds it open.
    pub slow: SocketAddr,
    /// Connections that the slow target is holding now.
    pub held: Arc<AtomicUsize>,
    tasks: [JoinHandle<()>; 2],
}

impl Targets {
    /// Starts them on free ports.
    pub async fn start() -> Result<Self> {
        let sink = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let slow = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (sink_address, slow_address) = (sink.local_addr()?, slow.local_addr()?);
        let held = Arc::new(AtomicUsize::new(0));
        let counter = held.clone();
        let tasks = [
            tokio::spawn(serve(sink, |stream| async move {
                // An end in the middle of an upload is how wrk finishes.
                let _ = swallow(stream).await;
            })),
            tokio::spawn(serve(slow, move |stream| {
                let held = counter.clone();
                async move {
                    let _ = hold(stream, &held).await;
                }
            })),
        ];
        Ok(Self { sink: sink_address, slow: slow_address, held, tasks })
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Gives each connection to a task of its own.
async fn serve<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    each: impl Fn(TcpStream) -> F,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(each(stream));
            }
            Err(error) => eprintln!("a target cannot accept: {error}"),
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Requests with a Content-Length, one after the other.
async fn swallow(mut stream: TcpStream) -> Result<()> {
    let mut bytes = Vec::with_capacity(READ);
    while let Some(end) = read_head(&mut stream, &mut bytes).await? {
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end);
        let Some(mut left) = content_length(&head)? else {
            stream.write_all(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\n\r\n").await?;
            bail!("an upload without Content-Length");
        };
        loop {
            let taken = left.min(bytes.len());
            left -= taken;
            bytes.drain(..taken);
            if left == 0 {
                break;
            }
            ensure!(stream.read_buf(&mut bytes).await? > 0, "the connection ended inside a body");
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
    }
    Ok(())
}

/// One request, the beginning of a response, and then nothing until the other side leaves.
async fn hold(mut stream: TcpStream, held: &AtomicUsize) -> Result<()> {
    let mut bytes = Vec::new();
    if read_head(&mut stream, &mut bytes).await?.is_none() {
        return Ok(());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello\n\r\n").await?;
    held.fetch_add(1, Ordering::Relaxed);
    let left = stream.read(&mut [0; 64]).await;
    held.fetch_sub(1, Ordering::Relaxed);
    left?;
    Ok(())
}

/// Reads until a head is complete and returns its length; `None` if the connection ends before the first byte.
async fn read_head(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<Option<usize>> {
    loop {
        if let Some(end) = head_end(bytes) {
            return Ok(Some(end));
        }
        ensure!(bytes.len() < MAX_HEAD, "the request head is too large");
        if stream.read_buf(bytes).await? == 0 {
            ensure!(bytes.is_empty(), "the connection ended inside a request head");
            return Ok(None);
        }
    }
}
