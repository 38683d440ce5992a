//! Eight hours of mixed life in minutes: what clients, operators and viewers do to one relay, again and again.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::crowd::{Crowd, control, idle};
use crate::house::{BACK_WAIT, House, KEY, create, delete, until};
use crate::report::Figures;
use crate::tally::Tally;
use crate::{http, viewers};

/// Their clients are left alone: no request may fail, but for announced windows.
const HEALTHY: [&str; 2] = ["alpha", "beta"];
/// Its client is killed and stopped.
const VICTIM: &str = "gamma";
/// What a viewer of the victim may get.
const STATUSES: [u16; 4] = [200, 502, 503, 504];
/// Waits are short, so that what takes hours happens in minutes.
const OPTIONS: [&str; 7] = [
    "--ping-every=2s",
    "--pong-wait=6s",
    "--keep-alive=5s",
    "--claim-wait=5s",
    "--reconnect-wait=10s",
    "--head-wait=5s",
    "--drain=8s",
];
/// Idle clients that come and go.
const CROWD: usize = 200;

/// Lives until `end`: the figures of the relay.
pub async fn live(temp: &Path, target: SocketAddr, end: Instant, tally: &Arc<Tally>) -> Result<Figures> {
    let mut house = House::start(temp, "life", &OPTIONS).await?;
    let mut figures = Figures::begin("mixed life", house.admin()).await?;
    for name in HEALTHY.iter().chain([&VICTIM]) {
        house.start_client(name, target)?;
    }
    for name in HEALTHY.iter().chain([&VICTIM]) {
        is_back(house.address, name).await.context(*name)?;
    }
    let stop = CancellationToken::new();
    let viewers = viewers::start(house.address, &HEALTHY, tally, &stop);
    let prober = tokio::spawn(probe(house.address, Arc::clone(tally), stop.clone()));
    for round in 0.. {
        for event in EVENTS {
            if Instant::now() >= end {
                break;
            }
            let start = Instant::now();
            let done = event.happen(&mut house, target, tally).await;
            tally.note(event.name(), start, done.with_context(|| format!("in round {round}")));
            sleep(Duration::from_millis(500)).await;
        }
        if Instant::now() >= end {
            break;
        }
    }
    stop.cancel();
    viewers.join_all().await;
    prober.await?;
    house.stop_clients().await?;
    house.delete_tunnels().await?;
    figures.settle(tally).await;
    let ended = house.stop(BACK_WAIT).await?;
    ensure!(ended.success(), "the relay ended with {ended}");
    Ok(figures)
}

/// Until the tunnel answers.
async fn is_back(relay: SocketAddr, tunnel: &str) -> Result<()> {
    let answers = async || {
        timeout(BACK_WAIT, viewers::download(relay, tunnel, 10)).await.is_ok_and(|answer| answer.is_ok())
    };
    until(BACK_WAIT, answers).await
}

/// Asks the victim all the time: every answer is one of those expected.
async fn probe(relay: SocketAddr, tally: Arc<Tally>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let start = Instant::now();
        let request =
            format!("GET /down/5 HTTP/1.1\r\nHost: {VICTIM}.soak.test\r\nConnection: close\r\n\r\n");
        let asked = timeout(BACK_WAIT, http::ask(relay, &request)).await.context("no answer in time");
        let answered = asked.and_then(|answer| answer).and_then(|(status, _)| {
            ensure!(STATUSES.contains(&status), "status {status}");
            Ok(())
        });
        tally.note("a request of a tunnel whose client is killed", start, answered);
        sleep(Duration::from_millis(50)).await;
    }
}

#[derive(Clone, Copy)]
enum Event {
    Aborts,
    Dawdlers,
    KillClient,
    StopClient,
    Tunnels,
    Keys,
    Crowd,
    TakeOver,
    KillRelay,
}

const EVENTS: [Event; 9] = [
    Event::Aborts,
    Event::KillClient,
    Event::Tunnels,
    Event::TakeOver,
    Event::Dawdlers,
    Event::Keys,
    Event::StopClient,
    Event::Crowd,
    Event::KillRelay,
];

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Aborts => "event: 200 viewers abort",
            Self::Dawdlers => "event: 40 slow readers and writers",
            Self::KillClient => "event: kill -9 of a client",
            Self::StopClient => "event: a client is stopped for 3 s",
            Self::Tunnels => "event: 20 tunnels created and deleted",
            Self::Keys => "event: a key made and revoked",
            Self::Crowd => "event: 200 clients come back at 1,000 a second",
            Self::TakeOver => "event: another relay takes over",
            Self::KillRelay => "event: kill -9 of the relay",
        }
    }

    async fn happen(self, house: &mut House, target: SocketAddr, tally: &Tally) -> Result<()> {
        let relay = house.address;
        match self {
            Self::Aborts => viewers::abort(relay, HEALTHY[0], 200).await,
            Self::Dawdlers => viewers::dawdle(relay, HEALTHY[1], 40, Duration::from_secs(4)).await,
            Self::KillClient => {
                house.kill_client(VICTIM).await?;
                sleep(Duration::from_millis(viewers::some(1500))).await;
                house.start_client(VICTIM, target)?;
                is_back(relay, VICTIM).await?;
            }
            Self::StopClient => {
                house.signal_client(VICTIM, "STOP")?;
                sleep(Duration::from_secs(3)).await;
                house.signal_client(VICTIM, "CONT")?;
                timeout(Duration::from_secs(10), is_back(relay, VICTIM))
                    .await
                    .context("it did not wake")??;
            }
            Self::Tunnels => {
                for number in 0..20 {
                    let id = create(relay, KEY, &format!("short-{number}"), "").await?;
                    let socket = control(relay, KEY, &id).await?;
                    delete(relay, &id).await?;
                    let ended = timeout(Duration::from_secs(10), idle(socket)).await;
                    ended.context("a client was not told of the end of its tunnel")?;
                }
            }
            Self::Keys => keys(house).await?,
            Self::Crowd => {
                let mut crowd = Crowd::gather(relay, CROWD).await?;
                let (back, refused) = crowd.storm(1000, Duration::from_secs(1)).await;
                crowd.leave().await?;
                ensure!(refused == 0, "{refused} of {} were refused", back + refused);
            }
            Self::TakeOver => house.take_over(Duration::from_secs(20)).await?,
            Self::KillRelay => {
                tally.window_begins();
                house.kill_relay().await?;
                house.restart_relay().await?;
                for name in HEALTHY.iter().chain([&VICTIM]) {
                    is_back(relay, name).await.context(*name)?;
                }
                tally.window_ends();
            }
        }
        Ok(())
    }
}

/// A key lets in from its creation to its revocation, and what it let in ends then.
async fn keys(house: &House) -> Result<()> {
    let relay = house.address;
    let name = format!("guest-{}", viewers::some(1_000_000));
    let key = house.key(&["create", &name]).await?;
    let id = create(relay, &key, &name, "15s").await?;
    let socket = control(relay, &key, &id).await?;
    house.key(&["revoke", &name]).await?;
    timeout(Duration::from_secs(10), idle(socket)).await.context("the session outlived its key")?;
    ensure!(control(relay, &key, &id).await.is_err(), "a revoked key was let in");
    Ok(())
}
