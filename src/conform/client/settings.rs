//! How a client is run through the kit: its commands, the size of what is large, and how long anything may take.

use std::time::Duration;

use super::process::Launch;
use crate::conform::case::Ended;

/// Of one run.
#[derive(Clone)]
pub struct Settings {
    /// The client.
    pub plain: Launch,
    /// The same client, asking for a policy. Without it the cases about that are skipped.
    pub policy: Option<Launch>,
    /// The same client, with a tunnel whose viewers speak TCP.
    pub tcp: Option<Launch>,
    /// Bytes that go each way in the cases about large bodies.
    pub bulk: u64,
    /// Ask the cases that take most of a minute, too.
    pub slow: bool,
    /// For the first sign of a client that was started.
    pub start: Duration,
    /// For anything else that a client must do.
    pub wait: Duration,
    /// What does not happen within this does not happen. A client comes back within a second (`protocol.md`, section 5).
    pub quiet: Duration,
    /// For a ping of the client at base level, where nothing tells it to be quick.
    pub ping: Duration,
    /// What is known of the client.
    pub facts: Facts,
}

/// What a first look at the client has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// It offers `adit.1`.
    pub offers_two: bool,
    /// Where that is not answered, it opens a second control socket at once (`protocol.md`, section 8).
    pub reopens: bool,
}

/// The way in which the client is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// A tunnel for HTTP, without anything special.
    Plain,
    /// With a policy.
    Policy,
    /// For TCP.
    Tcp,
}

impl Settings {
    /// The usual ones.
    pub fn new(plain: Launch) -> Self {
        Self {
            plain,
            policy: None,
            tcp: None,
            bulk: 100_000_000,
            slow: false,
            start: Duration::from_secs(15),
            wait: Duration::from_secs(10),
            quiet: Duration::from_millis(2500),
            ping: Duration::from_secs(40),
            facts: Facts { offers_two: true, reopens: false },
        }
    }

    pub(super) fn launch(&self, variant: Variant) -> Result<&Launch, Ended> {
        let missing = |option: &str| Ended::Skipped(format!("tell by {option} how the client is started so"));
        match variant {
            Variant::Plain => Ok(&self.plain),
            Variant::Policy => self.policy.as_ref().ok_or_else(|| missing("--policy-command")),
            Variant::Tcp => self.tcp.as_ref().ok_or_else(|| missing("--tcp-command")),
        }
    }
}
