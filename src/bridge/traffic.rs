//! What looks at the bytes of a session: its recording, and a character for each thing that moves (`--traffic`), as
//! websockify prints them.

use std::io::{self, Write};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::config::BridgeConfig;
use super::record::Recording;
use super::socket::Tap;
use crate::proto::limits::bridge::TRAFFIC_QUEUE;

/// What the characters mean, once for each session.
const LEGEND: &str = "\nTraffic: } from the client, > to the target, { from the target, < to the client\n";

/// See above.
pub(super) struct Watching {
    recording: Option<Recording>,
    traffic: bool,
}

/// What looks at the bytes of a new session; nothing, if nothing is asked for.
pub(super) fn tap(config: &BridgeConfig) -> Option<Box<dyn Tap>> {
    let recording = config.record.as_ref().and_then(|recorder| match recorder.start() {
        Ok(recording) => {
            tracing::info!(file = %recording.path().display(), "the session is recorded");
            Some(recording)
        }
        Err(error) => {
            tracing::error!(%error, "the session cannot be recorded");
            None
        }
    });
    if config.traffic {
        print(LEGEND);
    }
    let watching = Watching { recording, traffic: config.traffic };
    (watching.traffic || watching.recording.is_some()).then(|| Box::new(watching) as Box<dyn Tap>)
}

impl Tap for Watching {
    fn received(&mut self, data: &[u8]) {
        if let Some(recording) = &mut self.recording {
            recording.received(data);
        }
        if self.traffic {
            print("}>");
        }
    }

    fn sent(&mut self, data: &[u8]) {
        if let Some(recording) = &mut self.recording {
            recording.sent(data);
        }
        if self.traffic {
            print("{<");
        }
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
