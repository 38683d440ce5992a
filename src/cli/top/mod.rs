//! `adit top`: the dashboard of a relay as a live table in the terminal.

mod draw;
mod operator;
mod screen;
mod table;
mod told;
mod view;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use self::operator::{Operator, Trouble};
use self::screen::{Next, Screen};
use self::told::Told;
use super::http::{RelayArgs, WayArgs, usage};
use super::status::DEFAULT_ADMIN;
use crate::auth::Secret;
use crate::proto::limits::admin::EVERY;

pub(super) const HELP: &str = "The password of the dashboard comes from ADIT_ADMIN_PASSWORD, or is asked for; a relay \
    without one takes the link that it wrote when it started. ? shows the keys.\n\nExit codes:\n  \
    0   ended by q, Ctrl-C or SIGTERM\n  \
    2   wrong usage, or not in a terminal\n  \
    69  what answers is no admin listener of a relay, or nothing did from the start";

/// `adit top`.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// The relay's admin listener, or the link that it wrote when it started
    #[arg(value_name = "URL|LINK", default_value = DEFAULT_ADMIN)]
    admin: String,
    /// Certificates, in PEM, of the authority that the listener's certificate is from [default: those of the system]
    #[arg(long, env = "ADIT_RELAY_CA", value_name = "FILE")]
    relay_ca: Option<PathBuf>,
}

/// What came of something that was asked of the relay.
enum Outcome {
    /// What there is now, for the question with that number.
    Told(u64, Result<Box<Told>, Trouble>),
    /// Who was let in, or not.
    LoggedIn(Result<(), Trouble>),
    /// What was done.
    Done(Result<String, Trouble>),
}

/// Shows what there is until somebody ends it.
pub(super) async fn run(args: TopArgs) -> anyhow::Result<ExitCode> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let sentence = "this needs a terminal; `adit status --admin` prints once how the relay is".to_owned();
        return Ok(usage("top", &[sentence]));
    }
    let (url, link) = operator::address(&args.admin);
    let relay = RelayArgs {
        relay: Some(url),
        way: WayArgs { relay_ca: args.relay_ca, ..WayArgs::default() },
        ..RelayArgs::default()
    };
    let connector = match relay.connector_given_by("the address of its admin-listen") {
        Ok(connector) => connector,
        Err(sentence) => return Ok(usage("top", &[sentence])),
    };
    let password = std::env::var("ADIT_ADMIN_PASSWORD").ok().map(Secret::new);
    let operator = Arc::new(Operator::new(connector, password));
    // What is wrong from the start is told where it can be read afterwards.
    let started = match link {
        Some(link) => operator.log_in(&link).await,
        None => operator.summary().await,
    };
    let mut screen = Screen::new(operator.url());
    match started {
        Ok(()) => {}
        Err(Trouble::Login(why)) => screen.ask_to_log_in(&why),
        Err(trouble) => {
            eprintln!("adit top: {trouble}");
            return Ok(ExitCode::from(69));
        }
    }
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let shown = show(&mut terminal, &mut screen, &operator).await;
    ratatui::restore();
    shown?;
    Ok(ExitCode::SUCCESS)
}

async fn show(
    terminal: &mut DefaultTerminal,
    screen: &mut Screen,
    operator: &Arc<Operator>,
) -> anyhow::Result<()> {
    let (mut keys, mut ended) = (EventStream::new(), signal(SignalKind::terminate())?);
    let mut under_way: FuturesUnordered<BoxFuture<'static, Outcome>> = FuturesUnordered::new();
    screen.room = draw::room(terminal.size()?.height);
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        terminal.draw(|frame| draw::all(frame, screen))?;
        let next = tokio::select! {
            event = keys.next() => match event.context("the terminal is gone")?? {
                Event::Key(key) if key.kind != KeyEventKind::Release => screen.key(key),
                Event::Resize(_, lines) => {
                    screen.room = draw::room(lines);
                    Next::Ask
                }
                _ => Next::Stay,
            },
            Some(outcome) = under_way.next() => screen.take(outcome),
            _ = every.tick() => if screen.is_live() { Next::Ask } else { Next::Stay },
            _ = ended.recv() => Next::Quit,
        };
        let operator = Arc::clone(operator);
        match next {
            Next::Stay => {}
            Next::Quit => return Ok(()),
            Next::Ask => {
                if let Some((number, path)) = screen.question() {
                    under_way
                        .push(Box::pin(async move { Outcome::Told(number, operator.told(&path).await) }));
                }
            }
            Next::LogIn(typed) => under_way
                .push(Box::pin(async move { Outcome::LoggedIn(operator.log_in(typed.expose()).await) })),
            Next::Do(order) => {
                under_way.push(Box::pin(async move { Outcome::Done(operator.order(&order).await) }));
            }
        }
    }
}
