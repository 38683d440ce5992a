//! The policy column of a tunnel's row: what is in force, and what was asked for where that is something else.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Policy, PolicyError};
use crate::proto::policy as written;

#[derive(Serialize, Deserialize)]
struct Column {
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<written::Policy>,
    /// Another policy was put in the place of the one that was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    replaced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<written::Policy>,
}

/// What is in force; and what was asked for, where that is something else.
pub(in crate::tunnel) type Both = (Option<Arc<Policy>>, Option<Option<Arc<Policy>>>);

/// Reads the column. `before` keeps its state where nothing has changed.
pub(in crate::tunnel) fn read(text: Option<&str>, before: Option<&Policy>) -> Result<Both, PolicyError> {
    let Some(text) = text else { return Ok((None, None)) };
    let column: Column =
        serde_json::from_str(text).map_err(|error| PolicyError::Stored(error.to_string()))?;
    let restore = |stored: Option<written::Policy>, before| {
        stored.map(|stored| Policy::restore(&stored, before).map(Arc::new)).transpose()
    };
    let asked = if column.replaced { Some(restore(column.asked, None)?) } else { None };
    Ok((restore(column.policy, before)?, asked))
}

/// Writes it; nothing where there is no policy.
pub(in crate::tunnel) fn write(policy: Option<&Policy>, asked: Option<Option<&Policy>>) -> Option<String> {
    let column = Column {
        policy: policy.map(|policy| policy.stored().clone()),
        replaced: asked.is_some(),
        asked: asked.flatten().map(|policy| policy.stored().clone()),
    };
    // It is nothing but texts and cannot fail; if it did, an empty column could not be read, and would open nothing.
    (policy.is_some() || asked.is_some()).then(|| serde_json::to_string(&column).unwrap_or_default())
}
