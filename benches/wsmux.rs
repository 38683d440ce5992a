//! `make bench-wsmux`: a session of wsmux beside one data socket, in memory and over loopback: a gigabyte on one stream, and a
//! hundred thousand streams of one small request each.

#![allow(clippy::expect_used, reason = "a bench that cannot begin has nothing to tell")]

use std::future::poll_fn;
use std::io;

use adit::proto::limits::Limits;
use adit::stream::Duplex;
use adit::stream::websocket::{Sizes, WebSocket};
use adit::wsmux::{Role, Session, Settings, Stream};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Bytes of a small request, and of its answer.
const SMALL: usize = 200;
/// What the transport in memory holds.
const PIPE: usize = 256 * 1024;
/// Ticks of a process's times in a second, on Linux.
const TICKS: f64 = 100.0;

/// Seconds of CPU that this process has used.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    // Fields 14 and 15 of all, of which the first two stand before the bracket.
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// What was asked for on the command line.
#[derive(Clone)]
struct Plan {
    bytes: u64,
    requests: usize,
    threads: usize,
    /// Only the lines with this in their names.
    only: String,
}

impl Plan {
    fn new() -> Self {
        let mut plan = Self { bytes: 1_000_000_000, requests: 100_000, threads: 1, only: String::new() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
            match word.as_str() {
                "--bytes" => plan.bytes = number() as u64,
                "--requests" => plan.requests = number(),
                "--threads" => plan.threads = number(),
                // What cargo says to every bench.
                "--bench" => {}
                only => plan.only = only.to_owned(),
            }
        }
        plan
    }

    /// Runs one line and prints it.
    async fn line(&self, name: &str, run: impl Future<Output = io::Result<()>>, requests: Option<usize>) {
        if !name.contains(&self.only) {
            return;
        }
        let (begun, before) = (Instant::now(), cpu());
        run.await.expect("it works");
        let (seconds, used) = (begun.elapsed().as_secs_f64(), cpu() - before);
        let megabytes = self.bytes as f64 / 1e6;
        match requests.map(|count| count as f64) {
            None => {
                println!("{name:44}{:8.0} MB/s {:9.0} CPU-ms/GB", megabytes / seconds, used / megabytes * 1e6)
            }
            Some(count) => {
                println!("{name:44}{:8.0} /s   {:9.2} CPU-us each", count / seconds, used / count * 1e6)
            }
        }
    }
}

async fn loopback() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
    let (near, (far, _)) = (near?, far?);
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// Moves `bytes` into one end and out of the other, by the ways that the relay and the client move bodies.
async fn bulk(mut from: impl Duplex + 'static, mut to: impl Duplex + 'static, bytes: u64) -> io::Result<()> {
    let mut moving = JoinSet::new();
    moving.spawn(async move {
        let mut source = tokio::io::repeat(b'x').take(bytes);
        while poll_fn(|cx| from.poll_fill(cx, &mut source)).await? > 0 {
            poll_fn(|cx| std::pin::Pin::new(&mut from).poll_flush(cx)).await?;
        }
        poll_fn(|cx| std::pin::Pin::new(&mut from).poll_shutdown(cx)).await?;
        Ok(0)
    });
    moving.spawn(async move {
        let mut count = 0;
        while let Some(chunk) = poll_fn(|cx| to.poll_chunk(cx)).await? {
            count += chunk.len() as u64;
        }
        Ok::<_, io::Error>(count)
    });
    let mut came = 0;
    while let Some(moved) = moving.join_next().await {
        came += moved.map_err(io::Error::other)??;
    }
    if came == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn other(role: Role) -> Role {
    if role == Role::Server { Role::Client } else { Role::Server }
}

/// One data socket.
async fn socket<IO>(near: IO, far: IO, role: Role, bytes: u64) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let sizes = Sizes::from(&Limits::default());
    let near = WebSocket::new(near, role, BytesMut::new(), sizes);
    let far = WebSocket::new(far, other(role), BytesMut::new(), sizes);
    bulk(near, far, bytes).await
}

/// Both ends of a session, each driven by a task; the near one has this role.
fn sessions<IO>(near: IO, far: IO, role: Role) -> (Session, Session, JoinSet<()>)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut driving = JoinSet::new();
    let mut one = |io, role| {
        let (session, driver) = Session::new(io, role, Settings::default());
        driving.spawn(async move {
            let _ = driver.run().await;
        });
        session
    };
    let (near, far) = (one(near, role), one(far, other(role)));
    (near, far, driving)
}

/// One stream of a session, which the near end opens and fills.
async fn stream<IO>(near: IO, far: IO, role: Role, bytes: u64) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (near, far, _driving) = sessions(near, far, role);
    let (from, to) = tokio::join!(near.open(), far.accept());
    bulk(from?, to.ok_or(io::ErrorKind::UnexpectedEof)?, bytes).await
}

async fn answer(mut stream: Stream) -> io::Result<()> {
    let mut request = [0; SMALL];
    stream.read_exact(&mut request).await?;
    stream.write_all(&request).await
}

async fn ask(session: &Session) -> io::Result<()> {
    let mut stream = session.open().await?;
    let mut small = [b'x'; SMALL];
    stream.write_all(&small).await?;
    stream.read_exact(&mut small).await?;
    Ok(())
}

/// So many small requests on a stream each, `at_once` of them at the same time; the server of the WebSocket asks.
async fn requests<IO>(near: IO, far: IO, count: usize, at_once: usize) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (near, far, _driving) = sessions(near, far, Role::Server);
    let mut answering = JoinSet::new();
    answering.spawn(async move {
        let mut streams = JoinSet::new();
        while let Some(stream) = far.accept().await {
            streams.spawn(answer(stream));
            while streams.try_join_next().is_some() {}
        }
    });
    let mut asking = JoinSet::new();
    for _ in 0..at_once {
        let near = near.clone();
        asking.spawn(async move {
            for _ in 0..count / at_once {
                ask(&near).await?;
            }
            Ok::<_, io::Error>(())
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.map_err(io::Error::other)??;
    }
    Ok(())
}

async fn run(plan: Plan) -> io::Result<()> {
    let (bytes, count) = (plan.bytes, plan.requests);
    for (role, name) in [(Role::Server, "server to client"), (Role::Client, "client to server, masked")] {
        let pipe = || tokio::io::duplex(PIPE);
        let ((near, far), (near2, far2)) = (pipe(), pipe());
        plan.line(&format!("memory, data socket, {name}"), socket(near, far, role, bytes), None).await;
        plan.line(&format!("memory, wsmux, {name}"), stream(near2, far2, role, bytes), None).await;
        let ((near, far), (near2, far2)) = (loopback().await?, loopback().await?);
        plan.line(&format!("loopback, data socket, {name}"), socket(near, far, role, bytes), None).await;
        plan.line(&format!("loopback, wsmux, {name}"), stream(near2, far2, role, bytes), None).await;
    }
    for at_once in [1, 64] {
        let (near, far) = tokio::io::duplex(PIPE);
        let name = format!("memory, requests, {at_once} at once");
        plan.line(&name, requests(near, far, count, at_once), Some(count)).await;
        let (near, far) = loopback().await?;
        let name = format!("loopback, requests, {at_once} at once");
        plan.line(&name, requests(near, far, count, at_once), Some(count)).await;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let plan = Plan::new();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if plan.threads == 1 {
        runtime = tokio::runtime::Builder::new_current_thread();
    }
    let runtime = runtime.worker_threads(plan.threads).enable_all().build()?;
    runtime.block_on(async { tokio::spawn(run(plan)).await.map_err(io::Error::other)? })
}
