//! Wrap mode: a program's port is moved by the preloaded library, and its end is that of the bridge, or not.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use adit::bridge::{Key, Matcher, Route, Service, Target, Wrap, WrapError, WrapMode};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, nobody, soon};

/// The library, where it is looked for: beside this test. `cargo test` builds no library that nobody links.
pub(crate) fn library() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let this = std::env::current_exe().unwrap();
        let target = this.ancestors().nth(3).unwrap();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo
            .args(["build", "--quiet", "--offline", "--locked", "-p", "adit-rebind", "--target-dir"])
            .arg(target);
        if this.ancestors().nth(2).unwrap().ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    });
}

/// Listens at the port and the address that it is given, and tells each who connects where it really listens.
const PROGRAM: &str = r#"
import os, socket, sys
address, port = sys.argv[1], int(sys.argv[2])
listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, port))
listener.listen()
other = socket.socket()
other.bind(("127.0.0.1", 0))
while True:
    connection, _ = listener.accept()
    connection.sendall((listener.getsockname()[0] + "\n").encode())
    order = connection.recv(100)
    if order == b"exit":
        sys.exit(3)
    if order == b"abort":
        os.abort()
"#;

fn python(address: &str, port: u16) -> Vec<OsString> {
    ["python3", "-c", PROGRAM, address, &port.to_string()].map(OsString::from).into()
}

/// A port that is somebody's: the bridge's, in life.
fn taken() -> (std::net::TcpListener, u16) {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A bridge before a wrapped program.
struct Wrapped {
    rig: Rig,
    running: JoinHandle<Result<Option<u8>, WrapError>>,
    ending: CancellationToken,
    _port: std::net::TcpListener,
    /// That the program's is moved to.
    moved: u16,
}

async fn wrapped(address: &str, mode: WrapMode) -> Wrapped {
    library();
    let (listener, port) = taken();
    let wrap = Wrap::new(python(address, port), port, mode).unwrap();
    let route = Route {
        matcher: Matcher { key: Key::from(""), extensions: Vec::new(), url: Vec::new(), host: Vec::new() },
        backends: wrap.targets().into(),
        spawned: Vec::new(),
        balancing: Wrap::balancing(),
        admit: None,
        service: Service::default(),
    };
    let Target::Tcp { port: moved, .. } = wrap.targets()[0] else { panic!("no port") };
    let rig = Rig::with(nobody().await, |config| config.routes = vec![route]).await;
    let ending = CancellationToken::new();
    let until = ending.clone();
    let running = tokio::spawn(wrap.start().unwrap().run(until));
    Wrapped { rig, running, ending, _port: listener, moved }
}

impl Wrapped {
    /// Asks until the program answers: the address at which it listens, and the socket to it.
    async fn reach(&self) -> (String, crate::rig::Viewer<tokio::net::TcpStream>) {
        soon(async {
            loop {
                let mut viewer = self.rig.open().await;
                if let Some((0x82, line)) = viewer.frame().await {
                    return (String::from_utf8(line).unwrap(), viewer);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }
}

#[tokio::test]
async fn the_port_of_a_program_is_moved_to_the_loopback_address_whatever_it_asks_for() {
    for (address, moved) in
        [("0.0.0.0", "127.0.0.1\n"), ("::", "::1\n"), ("::ffff:0.0.0.0", "::ffff:127.0.0.1\n")]
    {
        let wrapped = wrapped(address, WrapMode::Exit).await;
        assert_eq!(wrapped.reach().await.0, moved);
        wrapped.ending.cancel();
        assert_eq!(soon(wrapped.running).await.unwrap().unwrap(), None);
    }
}

#[tokio::test]
async fn nobody_else_gets_the_port_of_a_program_at_either_address() {
    for address in ["0.0.0.0", "::"] {
        let wrapped = wrapped(address, WrapMode::Exit).await;
        let others = ["127.0.0.1", "::1"];
        for when in ["before it listens", "while it does"] {
            for other in others {
                let taken = std::net::TcpListener::bind((other, wrapped.moved));
                assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AddrInUse, "{other} {when}");
            }
            wrapped.reach().await;
        }
    }
}

#[tokio::test]
async fn the_code_with_which_a_program_ends_is_passed_on() {
    for (order, code) in [("exit", 3), ("abort", 128 + 6)] {
        let wrapped = wrapped("0.0.0.0", WrapMode::Exit).await;
        wrapped.reach().await.1.send(0x82, order).await;
        assert_eq!(soon(wrapped.running).await.unwrap().unwrap(), Some(code));
    }
}

#[tokio::test]
async fn a_program_that_ends_is_started_again_if_that_is_wanted() {
    let wrapped = wrapped("0.0.0.0", WrapMode::Respawn).await;
    for _ in 0..2 {
        wrapped.reach().await.1.send(0x82, "exit").await;
    }
    wrapped.reach().await;
    wrapped.ending.cancel();
    assert_eq!(soon(wrapped.running).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn the_end_of_a_program_may_be_ignored() {
    let wrapped = wrapped("0.0.0.0", WrapMode::Ignore).await;
    wrapped.reach().await.1.send(0x82, "exit").await;
    // Refused by then, or cut off.
    soon(async { while wrapped.rig.open().await.close().await.0 != 1011 {} }).await;
    assert!(!wrapped.running.is_finished());
    wrapped.ending.cancel();
    assert_eq!(soon(wrapped.running).await.unwrap().unwrap(), None);
}

fn refused(program: impl Into<OsString>) -> WrapError {
    library();
    Wrap::new(vec![program.into()], 1, WrapMode::Exit).unwrap_err()
}

#[test]
fn what_cannot_be_wrapped_is_told_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let shell = std::fs::read(std::fs::canonicalize("/bin/sh").unwrap()).unwrap();
    let program = |name: &str, bytes: &[u8], mode: u32| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    assert!(matches!(refused("no-such-program"), WrapError::NotFound(_)));
    assert!(matches!(refused(program("text", b"text", 0o755)), WrapError::NoProgram(_)));
    // The machine stands at byte 18: MIPS.
    let mut foreign = shell.clone();
    foreign[18..20].copy_from_slice(&8_u16.to_ne_bytes());
    let error = refused(program("foreign", &foreign, 0o755)).to_string();
    assert!(error.contains("is for processor 8, and"), "{error}");
    // The C library's own tool needs to run when there is none.
    let error = refused("/sbin/ldconfig").to_string();
    assert!(error.contains("is linked statically"), "{error}");
    let setuid = match std::os::unix::fs::chown(program("setuid", &shell, 0o755), Some(1), None) {
        Ok(()) => program_with_mode(dir.path().join("setuid"), 0o4755),
        // Who may not make one finds one of root.
        Err(_) => "/bin/su".into(),
    };
    let error = refused(setuid).to_string();
    assert!(error.contains("rights of another user (setuid)"), "{error}");
}

fn program_with_mode(path: PathBuf, mode: u32) -> PathBuf {
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}
