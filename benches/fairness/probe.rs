//! The quiet tenant's viewers: a fixed rate, whatever the answers take.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

/// Connections, each on a thread of its own: the runtime's timer is too coarse for this.
const VIEWERS: u32 = 8;
/// Between two requests of one connection: 500 a second in all.
const EVERY: Duration = Duration::from_millis(16);
/// An answer that takes longer than this is a failure of the bench.
const PATIENCE: Duration = Duration::from_secs(20);

/// What many requests took, each from the moment at which it was due.
pub struct Latencies {
    /// How many there were.
    pub count: usize,
    /// Half of them took less.
    pub p50: Duration,
    /// All but one of a hundred took less.
    pub p99: Duration,
    /// Answers other than 200.
    pub failed: usize,
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        write!(f, "{:.2}/{:.2} ms", ms(self.p50), ms(self.p99))?;
        if self.failed > 0 { write!(f, " ({} failed)", self.failed) } else { Ok(()) }
    }
}

/// Asks for `seconds`.
pub fn run(address: SocketAddr, host: &str, seconds: Duration) -> Result<Latencies> {
    let begin = Instant::now() + Duration::from_millis(50);
    let results: Vec<Result<(Vec<Duration>, usize)>> = std::thread::scope(|scope| {
        let viewers: Vec<_> = (0..VIEWERS)
            .map(|number| {
                scope.spawn(move || viewer(address, host, begin + EVERY * number / VIEWERS, seconds))
            })
            .collect();
        viewers.into_iter().filter_map(|viewer| viewer.join().ok()).collect()
    });
    let (mut all, mut failed) = (Vec::new(), 0);
    for result in results {
        let (latencies, bad) = result?;
        all.extend(latencies);
        failed += bad;
    }
    all.sort_unstable();
    let part = |part: usize| all.get(all.len() * part / 100).copied().context("nothing was measured");
    Ok(Latencies { count: all.len(), p50: part(50)?, p99: part(99)?, failed })
}

fn viewer(
    address: SocketAddr,
    host: &str,
    begin: Instant,
    seconds: Duration,
) -> Result<(Vec<Duration>, usize)> {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut stream = connect(address)?;
    let (mut latencies, mut failed, mut due) = (Vec::new(), 0, begin);
    while due < begin + seconds {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        match ask(&mut stream, &request) {
            Ok(true) => latencies.push(due.elapsed()),
            _ => {
                failed += 1;
                stream = connect(address)?;
            }
        }
        due += EVERY;
    }
    Ok((latencies, failed))
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whether the answer is the target's, which ends with `ok`.
fn ask(stream: &mut TcpStream, request: &str) -> Result<bool> {
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"\r\n\r\nok") {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "the connection ended");
        answer.extend_from_slice(&buffer[..count]);
        if answer.len() > 12 && !answer.starts_with(b"HTTP/1.1 200") {
            return Ok(false);
        }
    }
    Ok(true)
}
