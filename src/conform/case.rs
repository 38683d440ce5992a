//! One case of the kit: what it asks for, by which requirements, and how it ended.

use std::pin::Pin;

use crate::proto::message::Level;

/// Something that a client or a relay must do, and the way to see whether it does.
pub struct Case<World: 'static> {
    /// Unique, in lower case words with hyphens. It is promised: people name cases in their CI.
    pub name: &'static str,
    /// What is seen of one that passes, in one sentence.
    pub about: &'static str,
    /// A case of level two is for those who speak it.
    pub level: Level,
    /// Whether a failure fails the whole run.
    pub weight: Weight,
    /// The requirements of `protocol.md` that it tests, such as `C-12`. A failure names them all.
    pub requirements: &'static [&'static str],
    /// Seconds after which it has failed, whatever it waits for. Cases with few go first.
    pub seconds: u64,
    /// Does it, in a world of its own.
    pub run: fn(World) -> Running,
}

/// A case under way.
pub type Running = Pin<Box<dyn Future<Output = Result<(), Ended>> + Send>>;

/// How much a requirement weighs (RFC 2119).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// A MUST.
    Required,
    /// A SHOULD: told, and no failure of the run.
    Advised,
}

/// Why a case did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It cannot be asked here, for the reason given: the option that it needs is not set, for example.
    Skipped(String),
    /// Something else was seen than expected.
    Failed(Failure),
}

/// What was expected, and what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In words, as an end of the sentence "expected …".
    pub expected: String,
    /// In words, as an end of the sentence "but …".
    pub came: String,
}

impl Weight {
    /// As people and programs read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Advised => "advised",
        }
    }
}

impl Ended {
    /// A failure.
    pub fn failed(expected: impl Into<String>, came: impl Into<String>) -> Self {
        Self::Failed(Failure { expected: expected.into(), came: came.into() })
    }
}
