//! One or two characters for each thing that moves (`--traffic`), as websockify prints them.

use std::io::{self, Write};

/// What moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A whole message, or the end of one, came from the visitor.
    FromClient,
    /// Part of a message came from the visitor.
    FromClientPart,
    /// Bytes came from the target.
    FromTarget,
    /// All that there was went to the target.
    ToTarget,
    /// Some of it went to the target.
    ToTargetPart,
    /// All that there was went to the visitor.
    ToClient,
    /// Some of it went to the visitor.
    ToClientPart,
}

impl Mark {
    /// Its characters.
    pub fn text(self) -> &'static str {
        match self {
            Self::FromClient => "}",
            Self::FromClientPart => "}.",
            Self::FromTarget => "{",
            Self::ToTarget => ">",
            Self::ToTargetPart => ">.",
            Self::ToClient => "<",
            Self::ToClientPart => "<.",
        }
    }
}

/// What the characters mean, once for each session.
const LEGEND: &str = "\nTraffic: } from the client   > to the target    ( . behind one: in part )\
                      \n         < to the client     { from the target\n";

/// Prints the legend.
pub fn begin() {
    print(LEGEND);
}

/// Prints a mark.
pub fn mark(mark: Mark) {
    print(mark.text());
}

/// At once, as somebody looks on. Whoever looks on no more ends no session.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
