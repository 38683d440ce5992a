//! What looks at the bytes of a session: its recording, and a character for each thing that moves (`--traffic`), as
//! websockify prints them.

use std::io::{self, Write};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::record::Recording;
use super::shared::Shared;
use super::socket::{Tap, Waits};
use crate::proto::limits::bridge::TRAFFIC_QUEUE;
use crate::stream::splice::Moved;

/// What the characters mean, once for each session.
const LEGEND: &str = "\nTraffic: } from the client, > to the target, { from the target, < to the client; behind a part is a dot\n";

/// See above.
struct Watching {
    recording: Option<Recording>,
    traffic: Option<Taken>,
}

/// What looks at the bytes of a new session; nothing, if nothing is asked for.
pub(super) fn tap(shared: &Shared) -> Option<Box<dyn Tap>> {
    let recording = shared.config.record.as_ref().map(|recorder| {
        let (recording, writing) = recorder.start();
        shared.tasks.spawn(writing);
        recording
    });
    let traffic = shared.config.traffic.then(|| {
        print(LEGEND);
        Taken::default()
    });
    let watching = Watching { recording, traffic };
    (watching.traffic.is_some() || watching.recording.is_some()).then(|| Box::new(watching) as Box<dyn Tap>)
}

impl Tap for Watching {
    fn received(&mut self, data: &[u8], whole: bool) {
        if let Some(recording) = &mut self.recording {
            recording.received(data);
        }
        if self.traffic.is_some() {
            print(if whole { "}" } else { "}." });
        }
    }

    fn sent(&mut self, data: &[u8]) {
        if let Some(recording) = &mut self.recording {
            recording.sent(data);
        }
        if self.traffic.is_some() {
            print("{");
        }
    }

    fn moved(&mut self, moved: Moved, waits: Waits) {
        let Some(taken) = &mut self.traffic else { return };
        match taken.target.look(moved.outward, waits.for_target) {
            Some(true) => print(">"),
            Some(false) => print(">."),
            None => {}
        }
        match taken.viewer.look(moved.inward, waits.for_viewer) {
            Some(true) => print("<"),
            Some(false) => print("<."),
            None => {}
        }
    }
}

/// What target and viewer have taken of what was passed on.
#[derive(Default)]
struct Taken {
    target: Way,
    viewer: Way,
}

/// One of them.
#[derive(Default)]
struct Way {
    moved: u64,
    /// A part was taken, and the rest was not.
    owed: bool,
}

impl Way {
    /// Whether something was taken since the last look, and all that there was.
    fn look(&mut self, moved: u64, waits: bool) -> Option<bool> {
        let grew = std::mem::replace(&mut self.moved, moved) != moved;
        let told = grew || (self.owed && !waits);
        self.owed = waits && (grew || self.owed);
        told.then_some(!waits)
    }
}

/// At once, as somebody looks on. Whoever looks on no more, or not for now, stops no session: what does not fit is left out.
fn print(text: &'static str) {
    static OUT: LazyLock<SyncSender<&'static str>> = LazyLock::new(|| {
        let (sender, texts) = sync_channel(TRAFFIC_QUEUE);
        // For as long as the process; without a thread nothing is printed.
        let _ = thread::Builder::new().name("traffic".into()).spawn(move || write(&texts, io::stdout()));
        sender
    });
    let _ = OUT.try_send(text);
}

fn write(texts: &Receiver<&'static str>, mut out: impl Write) {
    for text in texts {
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_in_parts_is_marked_so_and_its_rest_once() {
        let mut way = Way::default();
        for (moved, waits, mark) in [
            (0, false, None),
            // Nothing of it yet.
            (0, true, None),
            (5, true, Some(false)),
            (5, true, None),
            (9, true, Some(false)),
            (9, false, Some(true)),
            (9, false, None),
            (10, false, Some(true)),
        ] {
            assert_eq!(way.look(moved, waits), mark, "{moved} {waits}");
        }
    }
}
