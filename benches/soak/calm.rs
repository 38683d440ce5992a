//! What needs a relay that is left alone, with the limits that are the default: sleep, thousands of idle clients, and
//! bodies of gigabytes.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep, timeout};

use crate::crowd::Crowd;
use crate::house::{BACK_WAIT, House, counts, until};
use crate::report::Figures;
use crate::tally::Tally;
use crate::{http, viewers};

/// Bodies are this long where there is time.
const GIANT: u64 = 20_000_000_000;
/// What the relay's memory may vary by, while a giant passes: its buffers, and those of the allocator.
const FLAT: u64 = 32 << 20;
/// The client's sleep, and when the relay must have noticed: at its default of 60 s, and the next look after that.
const SLEEP: Duration = Duration::from_secs(90);
const NOTICED: Duration = Duration::from_secs(70);
/// From waking to the first answer.
const AWAKE: Duration = Duration::from_secs(10);
/// Descriptors that are left to everything else.
const SPARE: u64 = 1500;
/// Idle clients where the limits allow it.
const CROWD: u64 = 10_000;
/// A run of this many seconds has time for all of it.
pub const WHOLE: u64 = 600;

/// What a shorter run, or a smaller machine, has room for.
pub struct Scale {
    /// Bytes of the giants.
    pub giant: u64,
    /// Idle clients.
    pub crowd: usize,
    /// Whether there is time for the sleep.
    pub sleeps: bool,
}

impl Scale {
    /// In `seconds`, with `files` descriptors a process.
    pub fn of(seconds: u64, files: u64) -> Self {
        let part = |whole: u64| whole / WHOLE * seconds.min(WHOLE);
        let crowd = part(CROWD).min(files.saturating_sub(SPARE));
        Self { giant: part(GIANT), crowd: crowd as usize, sleeps: seconds >= 300 }
    }
}

/// Does it all: the figures of the relay, and sentences for the report.
pub async fn live(
    temp: &Path,
    target: SocketAddr,
    scale: &Scale,
    tally: &Tally,
) -> Result<(Figures, Vec<String>)> {
    // Nothing waits for a client that sleeps longer than a viewer does.
    let mut house = House::start(temp, "calm", &[]).await?;
    let mut figures = Figures::begin("gigabytes and idle clients", house.admin()).await?;
    let mut told = Vec::new();
    house.start_client("calm", target)?;
    let relay = house.address;
    let answers = async || viewers::download(relay, "calm", 10).await.is_ok();
    until(BACK_WAIT, answers).await.context("the client did not come")?;

    if scale.sleeps {
        let start = Instant::now();
        let slept = sleep_and_wake(&house, relay).await;
        if let Ok(sentence) = &slept {
            told.push(sentence.clone());
        }
        tally.note("a client asleep for 90 s", start, slept.map(drop));
    }

    for up in [false, true] {
        let start = Instant::now();
        let passed = giant(&house, relay, up, scale.giant).await;
        if let Ok(sentence) = &passed {
            told.push(sentence.clone());
        }
        tally.note("gigabytes in one body", start, passed.map(drop));
    }

    let start = Instant::now();
    let gathered = crowd(&house, relay, scale.crowd).await;
    if let Ok(sentence) = &gathered {
        told.push(sentence.clone());
    }
    tally.note("idle clients and their storm", start, gathered.map(drop));

    house.stop_clients().await?;
    house.delete_tunnels().await?;
    figures.settle(tally).await;
    let ended = house.stop(BACK_WAIT * 2).await?;
    ensure!(ended.success(), "the relay ended with {ended}");
    Ok((figures, told))
}

/// A client stopped for 90 s is dropped at 60 s, viewers get a status, and it serves within 10 s of waking.
async fn sleep_and_wake(house: &House, relay: SocketAddr) -> Result<String> {
    let start = Instant::now();
    house.signal_client("calm", "STOP")?;
    let request = "GET /down/5 HTTP/1.1\r\nHost: calm.soak.test\r\nConnection: close\r\n\r\n";
    let away = async || counts(house.admin()).await.is_ok_and(|counts| counts["sessions"] == 0);
    let (noticed, answered) = tokio::join!(
        async { until(NOTICED, away).await.map(|()| start.elapsed()) },
        // It may have been given a socket that the client had opened in advance, which breaks with the session.
        timeout(SLEEP, http::ask(relay, request)),
    );
    sleep(SLEEP.saturating_sub(start.elapsed())).await;
    // Before anything is judged: what comes next needs it awake.
    house.signal_client("calm", "CONT")?;
    let woken = Instant::now();
    until(AWAKE, async || viewers::download(relay, "calm", 5).await.is_ok())
        .await
        .context("it did not come back")?;
    let awake = woken.elapsed();
    let noticed = noticed.context("the client was not dropped")?;
    let (status, _) = answered.context("a viewer of a sleeping client got no answer")??;
    ensure!([502, 503, 504].contains(&status), "status {status} of a sleeping client");
    Ok(format!(
        "A client stopped for 90 s was dropped after {:.0} s, its viewer got {status}, and {:.1} s after it woke it \
         served.",
        noticed.as_secs_f64(),
        awake.as_secs_f64()
    ))
}

/// One body, all of whose bytes are compared at the other end, while the relay's memory is watched.
async fn giant(house: &House, relay: SocketAddr, up: bool, length: u64) -> Result<String> {
    // The first megabytes make the buffers grow.
    viewers::download(relay, "calm", 200_000_000).await?;
    viewers::upload(relay, "calm", 200_000_000).await?;
    let (start, mut least, mut most) = (Instant::now(), u64::MAX, 0);
    let passing = async {
        if up {
            viewers::upload(relay, "calm", length).await
        } else {
            viewers::download(relay, "calm", length).await
        }
    };
    let watching = async {
        loop {
            if let Ok(counts) = counts(house.admin()).await {
                let memory = counts["memory_bytes"];
                (least, most) = (least.min(memory), most.max(memory));
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        passed = passing => passed?,
        () = watching => {}
    }
    let varied = most.saturating_sub(least);
    ensure!(varied <= FLAT, "the memory varied by {} MiB", varied >> 20);
    Ok(format!(
        "A body of {:.1} GB {} came whole, every byte compared, at {:.0} MB/s; the relay's memory varied by {:.1} MiB.",
        length as f64 / 1e9,
        if up { "from a viewer" } else { "to a viewer" },
        length as f64 / 1e6 / start.elapsed().as_secs_f64(),
        varied as f64 / 1048576.0
    ))
}

/// Thousands of idle clients; then a thousand a second come back, while a download runs.
async fn crowd(house: &House, relay: SocketAddr, count: usize) -> Result<String> {
    let before = counts(house.admin()).await?["memory_bytes"];
    let start = Instant::now();
    let mut crowd = Crowd::gather(relay, count).await?;
    let gathered = start.elapsed();
    let after = counts(house.admin()).await?["memory_bytes"];
    ensure!(crowd.alive() == count, "{} of {count} idle clients are left", crowd.alive());
    let (stormed, running) = tokio::join!(crowd.storm(1000, Duration::from_secs(5)), async {
        viewers::download(relay, "calm", 500_000_000).await
    });
    running.context("a stream that ran during the storm")?;
    let (back, refused) = stormed;
    let alive = crowd.alive();
    crowd.leave().await?;
    Ok(format!(
        "{count} idle clients connected in {:.0} s and took {:.1} KiB each of the relay's memory. Of {} that came back at \
         1,000 a second {refused} were refused, and {alive} were connected afterwards; a download of 500 MB beside them \
         came whole.",
        gathered.as_secs_f64(),
        after.saturating_sub(before) as f64 / 1024.0 / count.max(1) as f64,
        back + refused,
    ))
}
