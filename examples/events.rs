//! Prints what happens to a tunnel, and closes it in order at Ctrl-C: `ADIT_RELAY=https://… ADIT_KEY=… cargo run
//! --example events 3000`.

use std::error::Error;
use std::pin::pin;

use adit::client::{Event, Tunnel};
use futures_util::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let target = std::env::args().nth(1).unwrap_or("3000".into());
    let relay = Tunnel::to(std::env::var("ADIT_RELAY")?).key(std::env::var("ADIT_KEY")?);
    // A relay that is not there yet is waited for, and a target that is not there is told of at once.
    let mut tunnel = relay.wait_for_relay(true).probe(true).requests_per_second(20).expose(&target).await?;
    println!("{}", tunnel.url());
    // One for all turns of the loop: a signal that comes between two of them would be lost.
    let (mut stopped, mut stopping) = (pin!(tokio::signal::ctrl_c()), false);
    loop {
        tokio::select! {
            // Also at the end of a tunnel that somebody else has ended.
            event = tunnel.next() => match event {
                Some(event) => print(&event),
                None => return Ok(()),
            },
            asked = &mut stopped, if !stopping => {
                asked?;
                stopping = true;
                tunnel.stop();
            }
        }
    }
}

/// What viewers have sent is escaped: it could steer the terminal.
fn print(event: &Event) {
    match event {
        Event::Online { url, .. } => eprintln!("online again: {url}"),
        Event::Offline { reason, retry_in } => {
            eprintln!("offline: {}; trying again in {retry_in:.0?}", reason.escape_debug());
        }
        Event::Request(request) => {
            let status = request.status.map_or("no answer".into(), |status| status.to_string());
            eprintln!("{} {} {status}", request.method.escape_debug(), request.path.escape_debug());
        }
        Event::TargetDown { error, .. } => eprintln!("{}. {}", error.to_string().escape_debug(), error.fix()),
        Event::Ended(end) => eprintln!("ended: {}", end.to_string().escape_debug()),
        _ => {}
    }
}
