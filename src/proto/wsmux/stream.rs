//! The state of one stream.

use std::collections::VecDeque;
use std::time::Instant;

use super::boxes::{Inbox, Outbox};
use super::ended::Broken;
use crate::proto::limits::wsmux::TOLD_AFTER;

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// We open it; its SYN waits until fewer others wait for their ACK.
    Unsaid,
    /// Its SYN is out. `overdue` when its time for the ACK is over.
    Said { overdue: bool },
    /// The other end opened it, and nobody has accepted it yet.
    Unaccepted,
    /// Bytes may go both ways.
    Open,
}

/// Our FIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fin {
    /// We go on.
    No,
    /// It goes out behind what waits.
    Wanted,
    /// It is out.
    Sent,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) stage: Stage,
    /// We have accepted it, and the other end is to be told first of all.
    pub(super) greet: bool,
    /// Nobody holds it any more: what comes is acknowledged and thrown away.
    pub(super) gone: bool,
    pub(super) broken: Option<Broken>,
    /// For its ACK while it is being opened; for the rest when it is gone.
    pub(super) timer: Option<Instant>,

    pub(super) outbox: Outbox,
    /// Bytes that we may still send.
    pub(super) credit: u32,
    pub(super) fin: Fin,
    /// Somebody waits for room in the outbox.
    pub(super) wants_room: bool,

    pub(super) inbox: Inbox,
    /// Something was taken since the session is full.
    pub(super) touched: bool,
    /// Bytes that may still come.
    pub(super) window: u32,
    /// Bytes taken and not yet acknowledged.
    pub(super) owed: u32,
    owed_most: u32,
    /// The other end has sent its FIN.
    pub(super) ended: bool,

    /// It stands in the queue of those with a short frame to send, and of those with data.
    pub(super) in_urgent: bool,
    pub(super) in_ready: bool,
}

impl Stream {
    pub(super) fn new(stage: Stage) -> Self {
        Self {
            stage,
            greet: false,
            gone: false,
            broken: None,
            timer: None,
            outbox: Outbox::default(),
            credit: 0,
            fin: Fin::No,
            wants_room: false,
            inbox: Inbox::default(),
            touched: false,
            window: 0,
            owed: 0,
            owed_most: 0,
            ended: false,
            in_urgent: false,
            in_ready: false,
        }
    }

    /// It is accepted, by whichever end: both directions begin with this window.
    pub(super) fn accepted(&mut self, window: u32) {
        self.stage = Stage::Open;
        (self.credit, self.window) = (window, window);
        self.owed_most = (window / 2).clamp(1, TOLD_AFTER);
    }

    /// Whether an ACK is due: not for each few bytes while more is waiting here, but always before the other end has to
    /// wait for it, and never behind its end. One that broke and is still held gets none, so that no more comes.
    pub(super) fn ack_due(&self) -> bool {
        let useful = !self.greet && !self.ended;
        let taken = self.gone || self.broken.is_none();
        self.owed > 0 && useful && taken && (self.inbox.is_empty() || self.owed >= self.owed_most)
    }

    pub(super) fn fin_due(&self) -> bool {
        self.stage == Stage::Open && !self.greet && self.fin == Fin::Wanted && self.outbox.is_empty()
    }

    pub(super) fn data_due(&self) -> bool {
        self.stage == Stage::Open && !self.greet && self.credit > 0 && !self.outbox.is_empty()
    }

    /// A short frame of it is due: it takes its place in the queue of those.
    pub(super) fn be_urgent(&mut self, id: u32, urgent: &mut VecDeque<u32>) {
        if !std::mem::replace(&mut self.in_urgent, true) {
            urgent.push_back(id);
        }
    }

    /// Data of it may be due.
    pub(super) fn be_ready(&mut self, id: u32, ready: &mut VecDeque<u32>) {
        if self.data_due() && !std::mem::replace(&mut self.in_ready, true) {
            ready.push_back(id);
        }
    }

    /// It is of no more use: nothing of it goes out any more but its end, whatever the other end allows.
    pub(super) fn fail(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
        self.outbox.clear();
    }

    /// Throws away what has come: how many bytes it was.
    pub(super) fn discard(&mut self) -> usize {
        let bytes = self.inbox.clear();
        self.owed += bytes as u32;
        bytes
    }
}
