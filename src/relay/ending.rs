//! How far the relay has come in ending, for everybody who has to know.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::errors::Cause;

/// Why a relay ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It was told to stop, and nobody takes its place: what is new is turned away.
    Stopping,
    /// Its successor has the listeners: what still comes over old connections is served as ever.
    HandedOver,
}

/// The steps of an end, each of which begins once.
#[derive(Default)]
pub struct Ending {
    kind: OnceLock<Kind>,
    /// Number of the process that takes our place.
    successor: OnceLock<u32>,
    /// The end has begun.
    pub begun: CancellationToken,
    /// Nothing more is accepted.
    pub deaf: CancellationToken,
    /// Sessions are about to end: no more streams are opened for the successor.
    pub leaving: CancellationToken,
    /// Connections between two requests are closed.
    pub closing: CancellationToken,
    /// The time for what runs is over.
    late: AtomicBool,
    /// What still runs is cut.
    pub cut: CancellationToken,
}

impl Ending {
    /// Begins the end, unless one of the other kind has begun. A successor accepts from then on.
    pub fn begin(&self, kind: Kind) -> bool {
        let begun = *self.kind.get_or_init(|| kind);
        if begun == Kind::HandedOver {
            self.deaf.cancel();
        }
        self.begun.cancel();
        begun == kind
    }

    /// The process that is about to take over.
    pub fn set_successor(&self, pid: u32) {
        let _ = self.successor.set(pid);
    }

    /// The process that has taken over, where the system tells.
    pub fn successor(&self) -> Option<u32> {
        self.successor.get().copied()
    }

    /// Until a successor has taken over; for ever if none does.
    pub async fn handed_over(&self) {
        self.is_of(Kind::HandedOver).await;
    }

    /// Until the relay stops; for ever if it is handed over.
    pub async fn stopping(&self) {
        self.is_of(Kind::Stopping).await;
    }

    async fn is_of(&self, kind: Kind) {
        self.begun.cancelled().await;
        if self.kind.get() != Some(&kind) {
            std::future::pending().await
        }
    }

    /// The time for what runs is over: it is stopped by its tunnels, and viewers without a response are told why.
    pub fn expire(&self) {
        self.late.store(true, Ordering::Relaxed);
    }

    /// Why an exchange was stopped by its tunnel.
    pub fn why_stopped(&self) -> Cause {
        if self.late.load(Ordering::Relaxed) { Cause::Draining } else { Cause::TunnelEnded }
    }

    /// Whether each response is the last one of its connection.
    pub fn has_begun(&self) -> bool {
        self.kind.get().is_some()
    }

    /// Whether what is new is turned away.
    pub fn is_stopping(&self) -> bool {
        self.kind.get() == Some(&Kind::Stopping)
    }
}
