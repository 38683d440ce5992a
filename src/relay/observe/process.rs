//! What the system says of this process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::relay::counts;
use crate::stream::descriptors;

/// Figures of one moment; `None` where the system does not tell.
pub struct Process {
    /// Time on processors, of all threads.
    pub cpu: Duration,
    /// Bytes of memory that are resident.
    pub resident: Option<u64>,
    /// Descriptors that are open.
    pub open: Option<u64>,
    /// Descriptors that there may be; `None` is no limit.
    pub most: Option<usize>,
}

impl Process {
    /// Those of now. With very many descriptors it takes milliseconds.
    pub fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let (seconds, nanos) = (u64::try_from(cpu.tv_sec), u32::try_from(cpu.tv_nsec));
        Self {
            cpu: Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0)),
            resident: counts::memory(),
            open: counts::descriptors(),
            most: descriptors::limit(),
        }
    }
}
