//! How far the relay has come in ending, for everybody who has to know.

use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

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
    /// The end has begun.
    pub begun: CancellationToken,
    /// Nothing more is accepted.
    pub deaf: CancellationToken,
    /// Connections between two requests are closed.
    pub closing: CancellationToken,
    /// What still runs is cut.
    pub cut: CancellationToken,
}

impl Ending {
    /// Begins the end; the first kind stays. A successor accepts from then on.
    pub fn begin(&self, kind: Kind) {
        let _ = self.kind.set(kind);
        if !self.is_stopping() {
            self.deaf.cancel();
        }
        self.begun.cancel();
    }

    /// Until a successor has taken over; for ever if none does.
    pub async fn handed_over(&self) {
        self.begun.cancelled().await;
        if self.is_stopping() {
            std::future::pending().await
        }
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
