//! Why a session is over, a stream of no more use, or one not to be had.

use std::io::ErrorKind;

use super::frame::Breach;
use crate::proto::close;
use crate::proto::frame::FrameError;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// We closed it, with this code and reason.
    #[error("closed here with code {0} {1}")]
    ByUs(u16, &'static str),
    /// The other end closed it, with its code if it gave one.
    #[error("closed by the other end{}", code(.0))]
    ByPeer(Option<u16>),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(ErrorKind),
    /// Nothing came from one ping to the next, or no pong for several.
    #[error("the other end does not answer pings")]
    Silent,
    /// The WebSocket took nothing for too long.
    #[error("the other end does not read any more")]
    Stuck,
    /// The other end broke the rules of WebSockets; close code 1002.
    #[error("the other end breaks the protocol: {0}")]
    Frame(FrameError),
    /// The other end broke the rules of wsmux; close code 1008.
    #[error("the other end breaks the protocol: {0}")]
    Breach(Breach),
}

fn code(code: &Option<u16>) -> String {
    code.map(|code| format!(" with code {code}")).unwrap_or_default()
}

impl Ended {
    /// Code and reason of the close frame, where one can be sent.
    pub fn goodbye(self) -> Option<(u16, &'static str)> {
        match self {
            Self::ByUs(code, reason) => Some((code, reason)),
            Self::ByPeer(code) => Some((code.unwrap_or(close::DONE), "")),
            Self::Broken(_) | Self::Stuck => None,
            Self::Silent => Some((close::GOING_AWAY, "no pong")),
            Self::Frame(_) => Some((close::PROTOCOL_ERROR, "protocol error")),
            Self::Breach(breach) => Some((close::POLICY, breach.reason())),
        }
    }
}

/// Why a stream is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The session is over.
    #[error("the wsmux session is over: {0}")]
    Over(Ended),
    /// The other end did not accept it in time.
    #[error("the other end did not accept the stream in time")]
    NotAccepted,
    /// The other end took a larger window than may be held here.
    #[error(
        "the other end's window is {0} bytes, more than this session holds of a stream; allow a larger window"
    )]
    Window(u32),
    /// Nothing was read from it while all streams together held too much.
    #[error("too much waited to be read from the streams of this session, and nobody read from this one")]
    Overfull,
    /// It was shut down for writing.
    #[error("the stream was shut down for writing")]
    Shut,
}

/// Why a stream could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The session is over, or is being closed: connect anew.
    #[error("the wsmux session is over")]
    Over,
    /// There are [`Settings::streams`](super::Settings::streams) already: end some, or allow more.
    #[error("the wsmux session has {0} streams, which is as many as it may have")]
    TooMany(usize),
    /// The other end did not accept it in [`Settings::open_wait`](super::Settings::open_wait).
    #[error("the other end did not accept the stream in time")]
    NotAccepted,
    /// The other end took this window, which is more than [`Settings::window`](super::Settings::window).
    #[error(
        "the other end's window is {0} bytes, more than this session holds of a stream; allow a larger window"
    )]
    Window(u32),
}

impl From<Broken> for OpenError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::NotAccepted => Self::NotAccepted,
            Broken::Window(window) => Self::Window(window),
            Broken::Over(_) | Broken::Overfull | Broken::Shut => Self::Over,
        }
    }
}
