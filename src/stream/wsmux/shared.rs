//! What the handles of a session and its driver have in common: the core, and who waits for what.

use std::sync::Mutex;
use std::task::Waker;
use std::time::Instant;

use tokio::sync::Notify;

use crate::proto::wsmux::{ByStream, Event, Mux};
use crate::sync::lock;

/// Whoever waits for one stream.
#[derive(Default)]
struct Waiting {
    to_read: Option<Waker>,
    to_write: Option<Waker>,
}

/// Those to wake.
#[derive(Default)]
struct Woken {
    wakers: Vec<Waker>,
    /// One who accepts, for each of so many streams.
    acceptable: usize,
    /// All who wait for the end.
    ended: bool,
}

/// What is behind the mutex.
pub(super) struct State {
    pub(super) mux: Mux,
    waiting: ByStream<Waiting>,
    driver: Option<Waker>,
}

impl State {
    /// `waker` is woken when there may be something to read, or the stream has failed.
    pub(super) fn wait_to_read(&mut self, id: u32, waker: &Waker) {
        remember(&mut self.waiting.entry(id).or_default().to_read, waker);
    }

    /// The same for writing, and for the stream's being accepted.
    pub(super) fn wait_to_write(&mut self, id: u32, waker: &Waker) {
        remember(&mut self.waiting.entry(id).or_default().to_write, waker);
    }

    /// The driver is woken when there may be something to send.
    pub(super) fn wait_to_send(&mut self, waker: &Waker) {
        remember(&mut self.driver, waker);
    }

    /// Whom the events of the core concern.
    fn woken(&mut self) -> Woken {
        let mut woken = Woken::default();
        while let Some(event) = self.mux.event() {
            match event {
                Event::Readable(id) => {
                    woken.wakers.extend(self.waiting.get_mut(&id).and_then(|waiting| waiting.to_read.take()));
                }
                Event::Writable(id) => {
                    woken
                        .wakers
                        .extend(self.waiting.get_mut(&id).and_then(|waiting| waiting.to_write.take()));
                }
                Event::Roomy => woken.wakers.extend(self.driver.take()),
                Event::Acceptable => woken.acceptable += 1,
                Event::Ended => {
                    let all =
                        self.waiting.drain().flat_map(|(_, waiting)| [waiting.to_read, waiting.to_write]);
                    woken.wakers.extend(all.flatten());
                    woken.ended = true;
                }
            }
        }
        woken
    }

    /// The stream is nobody's any more. What it gives is to be dropped when the lock is free again: with a waker, others may
    /// be dropped that take it.
    pub(super) fn forget(&mut self, id: u32) -> impl Sized + use<> {
        self.waiting.remove(&id)
    }
}

fn remember(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(known) => known.clone_from(waker),
        None => *slot = Some(waker.clone()),
    }
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// There is a stream to accept, or the end.
    pub(super) acceptable: Notify,
    /// The session is over.
    pub(super) over: Notify,
}

impl Shared {
    pub(super) fn new(mux: Mux) -> Self {
        let state = State { mux, waiting: ByStream::default(), driver: None };
        Self { state: Mutex::new(state), acceptable: Notify::new(), over: Notify::new() }
    }

    /// Does something with the core, and wakes whom that concerns: the driver if there is something to send.
    pub(super) fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let (value, driver) = self.drive(|state| {
            let value = action(state);
            (value, if state.mux.has_output() { state.driver.take() } else { None })
        });
        if let Some(driver) = driver {
            driver.wake();
        }
        value
    }

    /// The same for the driver itself. All are woken when the lock is free again.
    pub(super) fn drive<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        let value = action(&mut state);
        let woken = state.woken();
        drop(state);
        woken.wakers.into_iter().for_each(Waker::wake);
        for _ in 0..woken.acceptable {
            self.acceptable.notify_one();
        }
        if woken.ended {
            self.acceptable.notify_waiters();
            self.over.notify_waiters();
        }
        value
    }
}

/// Tokio's time, so that paused time drives a session in tests.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
