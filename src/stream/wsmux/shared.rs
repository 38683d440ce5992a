//! What the handles of a session and its driver have in common: the core, and who waits for what.

use std::collections::HashMap;
use std::sync::Mutex;
use std::task::Waker;
use std::time::Instant;

use tokio::sync::Notify;

use crate::proto::wsmux::{Event, Mux};
use crate::sync::lock;

/// Whoever waits for one stream.
#[derive(Default)]
struct Waiting {
    to_read: Option<Waker>,
    to_write: Option<Waker>,
}

/// What is behind the mutex.
pub(super) struct State {
    pub(super) mux: Mux,
    waiting: HashMap<u32, Waiting>,
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
        let state = State { mux, waiting: HashMap::new(), driver: None };
        Self { state: Mutex::new(state), acceptable: Notify::new(), over: Notify::new() }
    }

    /// Does something with the core, and wakes whom that concerns: the driver if there is something to send.
    pub(super) fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        let value = action(&mut state);
        let driver = if state.mux.has_output() { state.driver.take() } else { None };
        self.wake(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        value
    }

    /// The same for the driver itself.
    pub(super) fn drive<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        let value = action(&mut state);
        self.wake(state);
        value
    }

    fn wake(&self, mut guard: std::sync::MutexGuard<'_, State>) {
        let (mut woken, mut ended) = (Vec::new(), false);
        let state = &mut *guard;
        while let Some(event) = state.mux.event() {
            match event {
                Event::Readable(id) => {
                    woken.extend(state.waiting.get_mut(&id).and_then(|waiting| waiting.to_read.take()));
                }
                Event::Writable(id) => {
                    woken.extend(state.waiting.get_mut(&id).and_then(|waiting| waiting.to_write.take()));
                }
                Event::Roomy => woken.extend(state.driver.take()),
                Event::Acceptable => self.acceptable.notify_one(),
                Event::Ended => {
                    ended = true;
                    let all = state.waiting.drain();
                    woken.extend(all.flat_map(|(_, waiting)| [waiting.to_read, waiting.to_write]).flatten());
                }
            }
        }
        drop(guard);
        woken.into_iter().for_each(Waker::wake);
        if ended {
            self.acceptable.notify_waiters();
            self.over.notify_waiters();
        }
    }
}

/// Tokio's time, so that paused time drives a session in tests.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
