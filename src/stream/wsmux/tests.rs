//! Sessions over pipes of every width, and beside an end that is written by hand.

#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod socket;
#[cfg(test)]
mod streams;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::task::{JoinHandle, JoinSet};

use super::*;

/// Two ends of one session, each driven by a task; `pipe` is how many bytes the transport holds.
struct Pair {
    server: Session,
    client: Session,
    driving: [JoinHandle<Ended>; 2],
}

fn pair(pipe: usize, settings: &Settings) -> Pair {
    let (near, far) = duplex(pipe);
    let (server, driver) = Session::new(near, Role::Server, settings.clone());
    let of_server = tokio::spawn(driver.run());
    let (client, driver) = Session::new(far, Role::Client, settings.clone());
    Pair { server, client, driving: [of_server, tokio::spawn(driver.run())] }
}

impl Pair {
    /// A stream that the server has opened: both of its ends.
    async fn stream(&self) -> (Stream, Stream) {
        let (opened, accepted) = tokio::join!(self.server.open(), self.client.accept());
        (opened.unwrap(), accepted.unwrap())
    }
}

fn sample(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}
