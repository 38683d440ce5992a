//! The one way in which a mutex is taken here.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes `mutex` even if a holder panicked: nothing is left half-done while one is held, so what it guards is usable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
