//! What must hold of any bytes that a stranger sends, one function for each way in: the fuzzer looks for bytes of which
//! it does not hold, and the tests feed the same functions with the kept ones.

pub mod control;
pub mod courier;
pub mod frame;
pub mod handshake;
pub mod http1;
mod pieces;
pub mod policy;
pub mod proxy_header;
pub mod response;
pub mod token;
pub mod viewer;
pub mod websocket;
pub mod words;
pub mod wsmux;

/// A target's name, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("control", control::check),
    ("courier", courier::check),
    ("frame", frame::check),
    ("handshake", handshake::check),
    ("http1", http1::check),
    ("policy", policy::check),
    ("proxy_header", proxy_header::check),
    ("response", response::check),
    ("token", token::check),
    ("viewer", viewer::check),
    ("websocket", websocket::check),
    ("words", words::check),
    ("wsmux", wsmux::check),
];
