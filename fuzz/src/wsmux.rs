//! A session of wsmux: whatever the other end says, in whatever pieces, it means the same, holds no more than it may, and
//! ends if at all with a reason.

use std::time::Instant;

use adit::proto::frame::Role;
use adit::proto::wsmux::{Ended, Mux, Output, Settings};
use bytes::Bytes;

use super::pieces::cuts;

/// Bytes of one stream that may wait.
const WINDOW: u32 = 64;
/// Streams at the same time.
const STREAMS: usize = 6;

/// What the session says to all of the messages.
fn converse(role: Role, now: Instant, messages: &[&[u8]], cut: usize) -> (Vec<Vec<u8>>, Option<Ended>) {
    let mut settings = Settings::default();
    (settings.window, settings.streams, settings.unaccepted) = (WINDOW, STREAMS, 3);
    settings.held = 3 * WINDOW as usize;
    let mut mux = Mux::new(now, role, settings.clone());
    let (mut said, mut held) = (Vec::new(), Vec::new());
    for (at, message) in messages.iter().enumerate() {
        // One of ours now and then, given up by and by.
        if at % 5 == 0 {
            held.extend(mux.open(now));
        }
        let pieces = &cuts(message)[cut];
        let pieces = if pieces.is_empty() { &vec![&[][..]] } else { pieces };
        for (at, piece) in pieces.iter().enumerate() {
            mux.piece(now, Bytes::copy_from_slice(piece), at + 1 == pieces.len());
        }
        assert!(mux.held() <= STREAMS * WINDOW as usize && mux.streams() <= STREAMS);
        if at % 3 == 0 {
            held.extend(mux.accept());
        }
        for id in &held {
            let _ = (mux.write(*id, b"answer"), at % 2 == 0 && mux.read(*id, 20).is_ok());
        }
        if at % 7 == 6 && !held.is_empty() {
            mux.release(now, held.remove(0));
        }
        while let Some(output) = mux.output() {
            match output {
                Output::Frame(head, payload) => said.push([head.as_ref(), &payload[..]].concat()),
                Output::Ping => {}
                Output::Close(code, reason) => {
                    assert!(mux.ended().is_some() && reason.len() <= 123);
                    said.push(code.to_be_bytes().to_vec());
                }
            }
        }
        while mux.event().is_some() {}
    }
    let ended = mux.ended();
    for id in held {
        mux.release(now, id);
    }
    assert_eq!(mux.held(), 0);
    (said, ended)
}

/// See the top. A byte before each message says how long it is.
pub fn check(data: &[u8]) {
    let (mut messages, mut rest) = (Vec::new(), data);
    while let [length, after @ ..] = rest {
        let (message, behind) = after.split_at(usize::from(*length).min(after.len()));
        messages.push(message);
        rest = behind;
    }
    #[allow(clippy::disallowed_methods, reason = "any time is as good as another")]
    let now = Instant::now();
    for role in [Role::Server, Role::Client] {
        let whole = converse(role, now, &messages, 0);
        for cut in 1..3 {
            assert_eq!(whole, converse(role, now, &messages, cut));
        }
    }
}
