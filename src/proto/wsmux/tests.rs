//! Two ends of a session talk to each other in one thread; time is a number that the test turns.

#![allow(clippy::disallowed_methods, reason = "any time is as good as another")]

#[cfg(test)]
mod breaches;
#[cfg(test)]
mod random;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod time;

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::proto::frame::Role;

const SECOND: Duration = Duration::from_secs(1);

/// One end, and what it was told of the wire.
struct End {
    mux: Mux,
    events: Vec<Event>,
    /// Nothing reaches it.
    deaf: bool,
    close: Option<(u16, &'static str)>,
}

impl End {
    fn new(now: Instant, role: Role, settings: Settings) -> Self {
        let mux = Mux::new(now, role, settings);
        Self { mux, events: Vec::new(), deaf: false, close: None }
    }

    /// A whole message comes, in pieces of this size.
    fn hear(&mut self, now: Instant, message: &[u8], piece: usize) {
        let mut pieces: Vec<&[u8]> = message.chunks(piece).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        for (at, part) in pieces.iter().enumerate() {
            self.mux.piece(now, Bytes::copy_from_slice(part), at + 1 == pieces.len());
        }
        self.note();
    }

    fn note(&mut self) {
        while let Some(event) = self.mux.event() {
            self.events.push(event);
        }
    }

    /// All that it has to say, as messages; pings are left out.
    fn say(&mut self) -> Vec<Vec<u8>> {
        let mut said = Vec::new();
        while let Some(output) = self.mux.output() {
            match output {
                Output::Frame(head, payload) => said.push([head.as_ref(), &payload[..]].concat()),
                Output::Ping => {}
                Output::Close(code, reason) => self.close = Some((code, reason)),
            }
        }
        self.note();
        said
    }

    /// Reads what there is.
    fn read(&mut self, id: u32) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok(Taken::Bytes(bytes)) = self.mux.read(id, usize::MAX) {
            all.extend_from_slice(&bytes);
        }
        all
    }
}

/// Both ends: the server, and the client.
struct Pair {
    now: Instant,
    ends: [End; 2],
    piece: usize,
    pings: [usize; 2],
    /// Longest DAT.
    longest: usize,
}

const SERVER: usize = 0;
const CLIENT: usize = 1;

impl Pair {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let ends = [End::new(now, Role::Server, settings.clone()), End::new(now, Role::Client, settings)];
        Self { now, ends, piece: usize::MAX, pings: [0; 2], longest: 0 }
    }

    /// One thing that `from` has to say reaches the other end: whether there was one.
    fn carry(&mut self, from: usize) -> bool {
        if self.ends[1 - from].mux.is_full() {
            return false;
        }
        let Some(output) = self.ends[from].mux.output() else { return false };
        self.ends[from].note();
        let now = self.now;
        let other = &mut self.ends[1 - from];
        match output {
            Output::Frame(head, payload) => {
                self.longest = self.longest.max(payload.len());
                if !other.deaf {
                    other.mux.lives();
                    other.hear(now, &[head.as_ref(), &payload[..]].concat(), self.piece);
                }
            }
            Output::Ping => {
                self.pings[from] += 1;
                if !other.deaf {
                    other.mux.lives();
                    if !self.ends[from].deaf {
                        self.ends[from].mux.ponged(now);
                    }
                }
            }
            Output::Close(code, reason) => {
                self.ends[from].close = Some((code, reason));
                let other = &mut self.ends[1 - from];
                if !other.deaf {
                    other.mux.finish(Ended::ByPeer(Some(code)));
                    other.note();
                }
            }
        }
        true
    }

    /// Carries over what both have to say until neither has anything.
    fn talk(&mut self) {
        while self.carry(SERVER) | self.carry(CLIENT) {}
    }

    /// Lets time pass, with each end woken when it asked for it.
    fn pass(&mut self, time: Duration) {
        let (until, mut wakes) = (self.now + time, 0);
        loop {
            self.talk();
            let alive = || self.ends.iter().filter(|end| end.mux.ended().is_none());
            let next = alive().map(|end| end.mux.timeout()).fold(until, Instant::min);
            assert!(next >= self.now, "time goes back");
            self.now = next;
            if next == until {
                return;
            }
            for end in &mut self.ends {
                if end.mux.timeout() <= next {
                    end.mux.wake(next);
                    end.note();
                }
            }
            wakes += 1;
            assert!(wakes < 100_000, "an end is woken for nothing");
        }
    }

    /// A stream that the end `by` opened and the other one accepted.
    fn stream(&mut self, by: usize) -> u32 {
        let id = self.ends[by].mux.open(self.now).unwrap();
        self.talk();
        assert_eq!(self.ends[1 - by].mux.accept(), Some(id));
        self.talk();
        assert_eq!(self.ends[by].mux.opening(id), Opening::Open);
        id
    }

    fn ended(&self) -> [Option<Ended>; 2] {
        [self.ends[0].mux.ended(), self.ends[1].mux.ended()]
    }
}

fn sample(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}
