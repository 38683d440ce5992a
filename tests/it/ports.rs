//! Ports for programs that must be told one, given to nobody else in this process, and below those that the system gives
//! away: 10000 to 29199 in ranges, 30000 to 32599 one by one. Test runs beside this one begin elsewhere.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::TcpListener;

/// A few ports.
pub fn some_ports() -> RangeInclusive<u16> {
    const EACH: u16 = 8;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 10_000 + (std::process::id() % 60) as u16 * 320;
    let from = begin + NEXT.fetch_add(EACH, Ordering::Relaxed);
    from..=from + EACH - 1
}

/// An address at which nobody listens.
pub async fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 30_000 + (std::process::id() % 20) as u16 * 130;
    loop {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed);
        if let Ok(free) = TcpListener::bind(("127.0.0.1", port)).await {
            return free.local_addr().unwrap();
        }
    }
}
