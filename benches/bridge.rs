//! `make bench-bridge`: `adit bridge` beside lighttpd's mod_wstunnel and websockify, in interleaved rounds.

#[path = "shared/machine.rs"]
mod described;
#[path = "shared/document.rs"]
mod document;
#[path = "shared/process.rs"]
#[allow(dead_code, reason = "what it shares with the other benches")]
mod process;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use process::{Server, TempDir, find_program, free_address};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Ticks of a process's times in a second, on Linux.
const TICKS: f64 = 100.0;
/// Of one load in one round.
const SECONDS: f64 = 3.0;
const ROUNDS: usize = 5;
/// Viewers that send small messages, and those that come and go.
const VIEWERS: usize = 16;
/// Bytes of a small message; with its header it is two more.
const SMALL: usize = 32;
/// Bytes of a large one.
const LARGE: usize = 64 * 1024;
/// Viewers that are open and idle.
const OPEN: usize = 500;
/// The mask of what viewers send, for those who have to take it off.
const MASK: [u8; 4] = [0x0f, 0xf0, 0x55, 0xaa];
const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                         Sec-WebSocket-Protocol: binary\r\n\r\n";

#[derive(Clone, Copy, PartialEq)]
enum Load {
    Echo,
    New,
    Down,
    Up,
}

const LOADS: [(Load, &str); 4] = [
    (Load::Echo, "echo of 32 bytes"),
    (Load::New, "new connection"),
    (Load::Down, "bulk to the viewer"),
    (Load::Up, "bulk from the viewer"),
];

/// Services that speak TCP: one sends everything back, one sends for ever, one takes for ever.
struct Targets {
    echo: SocketAddr,
    source: SocketAddr,
    sink: SocketAddr,
    taken: Arc<AtomicU64>,
}

impl Targets {
    async fn start() -> Result<Self> {
        let taken = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&taken);
        Ok(Self {
            echo: serve(|mut stream| async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            })
            .await?,
            source: serve(|mut stream| async move {
                let bytes = vec![7; 256 * 1024];
                while stream.write_all(&bytes).await.is_ok() {}
            })
            .await?,
            sink: serve(move |mut stream| {
                let taken = Arc::clone(&counting);
                async move {
                    let mut bytes = vec![0; 256 * 1024];
                    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                        taken.fetch_add(count as u64, Ordering::Relaxed);
                    }
                }
            })
            .await?,
            taken,
        })
    }
}

async fn serve<F: Future<Output = ()> + Send + 'static>(
    each: impl Fn(TcpStream) -> F + Send + 'static,
) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(each(stream));
        }
    });
    Ok(address)
}

/// A bridge in front of each target, in a process of its own.
struct Bridge {
    name: &'static str,
    echo: (Server, SocketAddr),
    source: (Server, SocketAddr),
    sink: (Server, SocketAddr),
    /// Too many processes of one viewer each would measure the machine.
    open: usize,
}

impl Bridge {
    async fn start(
        name: &'static str,
        temp: &TempDir,
        targets: &Targets,
        open: usize,
        command: impl Fn(SocketAddr, SocketAddr) -> Result<Command>,
    ) -> Result<Self> {
        let start = async |target, to| {
            let address = free_address()?;
            let log = temp.join(&format!("{name}-{to}.log"));
            let mut server = Server::start(name, &mut command(address, target)?, log)?;
            let end = Instant::now() + Duration::from_secs(10);
            while open_viewer(address).await.is_err() {
                server.check()?;
                if Instant::now() > end {
                    bail!("{name} does not serve:\n{}", server.log_tail());
                }
                sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok((server, address))
        };
        Ok(Self {
            name,
            echo: start(targets.echo, "echo").await?,
            source: start(targets.source, "source").await?,
            sink: start(targets.sink, "sink").await?,
            open,
        })
    }

    /// Units a second, and CPU microseconds of the bridge for each; a unit of bulk is a GB, and its CPU are seconds.
    async fn load(&self, load: Load, targets: &Targets) -> Result<(f64, f64)> {
        let (server, address) = match load {
            Load::Echo | Load::New => &self.echo,
            Load::Down => &self.source,
            Load::Up => &self.sink,
        };
        let (before, taken) = (server.cpu_seconds(TICKS)?, targets.taken.load(Ordering::Relaxed));
        let (count, mut viewers) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        let tasks = if matches!(load, Load::Echo | Load::New) { VIEWERS } else { 1 };
        for _ in 0..tasks {
            viewers.spawn(view(*address, load, Arc::clone(&count)));
        }
        sleep(Duration::from_secs_f64(SECONDS)).await;
        // With its children: those of websockify end with their viewers.
        let after = server.cpu_seconds(TICKS)?;
        viewers.abort_all();
        let units = match load {
            Load::Up => targets.taken.load(Ordering::Relaxed) - taken,
            _ => count.load(Ordering::Relaxed),
        } as f64;
        let scale = if tasks == 1 { 1e9 } else { 1.0 };
        let cpu = (after - before) / (units / scale);
        Ok((units / scale / SECONDS, if tasks == 1 { cpu } else { cpu * 1e6 }))
    }

    /// KiB of memory for each of many viewers that are open and have said something.
    async fn memory(&self) -> Result<f64> {
        let (server, address) = &self.echo;
        let before = server.memory_kib()?;
        let mut viewers = Vec::new();
        for _ in 0..self.open {
            let mut viewer = open_viewer(*address).await?;
            echo(&mut viewer, &frame(SMALL)).await?;
            viewers.push(viewer);
        }
        sleep(Duration::from_secs(2)).await;
        Ok((server.memory_kib()? - before) / self.open as f64)
    }
}

fn frame(length: usize) -> Vec<u8> {
    let mut frame = vec![0x82];
    match u16::try_from(length) {
        Ok(short @ ..126) => frame.push(0x80 | short as u8),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend((0..length).map(|at| at as u8));
    frame
}

/// What is not behind the head is read past the buffer.
type Viewer = BufReader<TcpStream>;

async fn open_viewer(address: SocketAddr) -> Result<Viewer> {
    let opening = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut viewer = BufReader::with_capacity(1024, stream);
        viewer.write_all(HANDSHAKE.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if viewer.read_until(b'\n', &mut head).await? == 0 {
                bail!("an end within the head: {}", String::from_utf8_lossy(&head));
            }
        }
        if !head.starts_with(b"HTTP/1.1 101") {
            bail!("{}", String::from_utf8_lossy(&head));
        }
        Ok(viewer)
    };
    timeout(Duration::from_secs(10), opening).await.context("no handshake")?
}

async fn echo(viewer: &mut Viewer, frame: &[u8]) -> Result<()> {
    viewer.write_all(frame).await?;
    let mut answer = [0; SMALL + 2];
    viewer.read_exact(&mut answer).await?;
    Ok(())
}

/// One viewer, until it is aborted.
async fn view(address: SocketAddr, load: Load, count: Arc<AtomicU64>) -> Result<()> {
    let small = frame(SMALL);
    match load {
        Load::Echo => {
            let mut stream = open_viewer(address).await?;
            loop {
                echo(&mut stream, &small).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        Load::New => loop {
            let mut stream = open_viewer(address).await?;
            echo(&mut stream, &small).await?;
            stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 232]).await?;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            count.fetch_add(1, Ordering::Relaxed);
        },
        Load::Down => {
            let (mut stream, mut bytes) = (open_viewer(address).await?, vec![0; 1024 * 1024]);
            loop {
                let read = stream.read(&mut bytes).await?;
                count.fetch_add(read as u64, Ordering::Relaxed);
            }
        }
        Load::Up => {
            let mut stream = open_viewer(address).await?;
            let bytes = frame(LARGE).repeat(16);
            loop {
                stream.write_all(&bytes).await?;
            }
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn bridges(temp: &TempDir, targets: &Targets) -> Result<Vec<Bridge>> {
    let adit = |listen: SocketAddr, target: SocketAddr| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
        command.args(["bridge", &listen.to_string(), &target.to_string()]).env("TOKIO_WORKER_THREADS", "2");
        Ok(command)
    };
    let mut bridges = vec![Bridge::start("adit", temp, targets, OPEN, adit).await?];
    let program = find_program("lighttpd").context("lighttpd is missing: run `make bench-bridge`")?;
    let lighttpd = |listen: SocketAddr, target: SocketAddr| {
        let file = temp.join(&format!("lighttpd-{}.conf", listen.port()));
        let text = format!(
            "server.modules = (\"mod_wstunnel\")\nserver.bind = \"{}\"\nserver.port = {}\n\
             server.document-root = \"/var/empty\"\nserver.stream-request-body = 2\nserver.max-read-idle = 600\n\
             server.stream-response-body = 2\nserver.max-fds = 4096\nwstunnel.frame-type = \"binary\"\n\
             wstunnel.server = (\"\" => ((\"host\" => \"{}\", \"port\" => {})))\n",
            listen.ip(),
            listen.port(),
            target.ip(),
            target.port()
        );
        std::fs::write(&file, text)?;
        let mut command = Command::new(&program);
        command.arg("-D").arg("-f").arg(file);
        Ok(command)
    };
    bridges.push(Bridge::start("lighttpd", temp, targets, OPEN, lighttpd).await?);
    let program = find_program("websockify").context("websockify is missing: run `make bench-bridge`")?;
    let websockify = |listen: SocketAddr, target: SocketAddr| {
        let mut command = Command::new(&program);
        command.args([listen.to_string(), target.to_string()]);
        Ok(command)
    };
    bridges.push(Bridge::start("websockify", temp, targets, 50, websockify).await?);
    Ok(bridges)
}

/// Measures `adit bridge` beside the originals.
#[derive(Debug, Parser)]
#[command(name = "bridge")]
struct Options {
    /// Put the table between the markers `bridge` of this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// What `cargo bench` adds of itself; means nothing here
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a bridge showed under one load: units a second and CPU for each, a pair for each round.
type Figures = Vec<(f64, f64)>;

/// The rate as a part of lighttpd's in the same round, the rate itself and the CPU.
fn cell(load: usize, figures: &Figures, lighttpds: &Figures) -> String {
    let ratios = figures.iter().zip(lighttpds).map(|((rate, _), (lighttpds, _))| rate / lighttpds);
    let ratio = median(ratios.collect());
    let (rates, cpu): (Vec<f64>, Vec<f64>) = figures.iter().copied().unzip();
    let (rate, cpu) = (median(rates), median(cpu));
    if load < 2 {
        format!("{ratio:.2}, {rate:.0}/s, {cpu:.1} µs")
    } else {
        format!("{ratio:.2}, {rate:.2} GB/s, {cpu:.2} s")
    }
}

async fn table(bridges: &[Bridge], found: &[Vec<Figures>]) -> Result<String> {
    let lighttpd = bridges.iter().position(|bridge| bridge.name == "lighttpd").context("no lighttpd")?;
    let mut text = format!(
        "| bridge | {} | KiB per open viewer |\n|---|{}---|\n",
        LOADS.map(|(_, name)| name).join(" | "),
        "---|".repeat(LOADS.len())
    );
    for (bridge, loads) in bridges.iter().zip(found) {
        let cells: Vec<_> =
            loads.iter().enumerate().map(|(at, figures)| cell(at, figures, &found[lighttpd][at])).collect();
        text += &format!("| {} | {} | {:.1} |\n", bridge.name, cells.join(" | "), bridge.memory().await?);
    }
    let version = described::said(Command::new("lighttpd").arg("-v")).await?;
    let version = version.split([' ', '/']).nth(1).unwrap_or("?");
    let machine = described::describe().await?;
    Ok(text + &format!("\n{machine}, lighttpd {version}; medians of {ROUNDS} rounds of {SECONDS} s."))
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(file) = &options.write {
        document::check(file, "bridge")?;
    }
    let temp = TempDir::new()?;
    let targets = Targets::start().await?;
    let bridges = bridges(&temp, &targets).await?;
    let mut found = vec![vec![Figures::new(); LOADS.len()]; bridges.len()];
    for _ in 0..ROUNDS {
        for (at, (load, name)) in LOADS.iter().enumerate() {
            for (bridge, found) in bridges.iter().zip(&mut found) {
                let figures = bridge.load(*load, &targets).await;
                found[at].push(figures.with_context(|| format!("{} in {name}", bridge.name))?);
            }
        }
    }
    let table = table(&bridges, &found).await?;
    println!("{table}");
    options.write.map_or(Ok(()), |file| document::write(&file, "bridge", &table))
}
