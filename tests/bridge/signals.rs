//! What ends the program leaves nothing of it behind: neither sockets nor the processes that it has started.

use std::fs;
use std::net::TcpListener as StdListener;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::program::{bridge, started, terminate};
use crate::rig::soon;

/// The process that is told in a file, once it is.
async fn told(file: &Path) -> u32 {
    soon(async {
        loop {
            if let Some(number) = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) {
                return number;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test]
async fn what_a_wrapped_program_has_started_ends_with_it_though_it_heeds_no_signal() {
    crate::wrap::library();
    for trap in ["", "trap '' TERM; "] {
        let dir = TempDir::new().unwrap();
        let number = dir.path().join("number");
        let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = bridge(&format!("127.0.0.1:{port} -- sh -c"));
        command.arg(format!("{trap}sleep 1000 & echo $! > {}; wait", number.display()));
        let (mut child, ..) = started(command).await;
        let sleeping = told(&number).await;
        assert_eq!(terminate(&mut child).await, Some(0), "{trap}");
        crate::spawn::gone(sleeping).await;
    }
}
