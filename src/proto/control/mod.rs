//! The two ends of a control session as protocol cores: no socket, no task, and the time is told to them.

pub mod client;
pub mod relay;

#[cfg(test)]
mod tests;

/// What an end wants sent; to be sent in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A text message.
    Text(String),
    /// A ping with this payload.
    Ping(&'static [u8]),
    /// The close frame; nothing follows.
    Close(u16, &'static str),
}
