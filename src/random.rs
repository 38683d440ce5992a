//! Chance, where it only has to be different for each.

use std::hash::{BuildHasher, RandomState};

/// In [0, 1), keyed with randomness of the process: a thousand that wait must not come back in step. No secret.
pub(crate) fn fraction() -> f64 {
    let random = RandomState::new().hash_one(0) >> 11;
    random as f64 / (1_u64 << 53) as f64
}
