//! The relay under a supervisor such as systemd, and at paths: what it is given, and what it tells.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use adit::client::{Proxies, Tunnel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixDatagram, UnixStream};
use tokio::process::Command;

use crate::peers::{listening, start};
use crate::ports::free_address;
use crate::program::{Running, keys, relay, signal};
use crate::rig::{ALICE, Answer, echo_target, soon};
use crate::takeover::successor_with;

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The status of a probe at a path.
async fn probe(path: &Path) -> io::Result<u16> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(HEALTH.as_bytes()).await?;
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await?;
    Ok(Answer::parse(&bytes).status)
}

// ---- paths ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_viewers_and_clients_come_in_at_a_path() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("web.sock");
    let listen = format!("unix:{}", path.display());
    let more = ["--listen", &listen, "--trusted-proxy", "127.0.0.1", "--unix-mode", "0600"];
    let relay = Running::start(relay(home.path(), &more)).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(probe(&path).await.unwrap(), 200);

    let (port, dir) = (free_address().await.port(), home.path().display());
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};"))
        .concat();
    // As in docs/edge.md.
    let config = format!(
        "daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log stderr; events {{ worker_connections 64; }}
         http {{ access_log off; {paths} map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://unix:{sock}:; proxy_http_version 1.1;
         proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
         proxy_buffering off; proxy_request_buffering off; }} }} }}",
        sock = path.display(),
    );
    let file = home.path().join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let _nginx = start("nginx", &["-e", "stderr", "-c", &file.display().to_string()]);
    listening(&format!("127.0.0.1:{port}")).await;
    let tunnel =
        Tunnel::to(format!("http://127.0.0.1:{port}")).key(ALICE).proxies(Proxies::none()).name("web");
    let _tunnel = tunnel.expose(&echo_target().await.to_string()).await.unwrap();
    let get = "GET /t/web/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for _ in 0..3 {
        let answer = crate::program::http(([127, 0, 0, 1], port).into(), get).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("X-Forwarded-For: 127.0.0.1, 127.0.0.1\r\n"), "{}", answer.text());
    }

    // A request in full flight does not take its viewer for gone.
    let mut viewer = UnixStream::connect(&path).await.unwrap();
    viewer.write_all(&[get.as_bytes(), b"and more behind it"].concat()).await.unwrap();
    let mut bytes = Vec::new();
    soon(viewer.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(Answer::parse(&bytes).status, 200);

    relay.signal("TERM");
    assert_eq!(relay.end().await.0, Some(0));
    assert!(!path.exists(), "what it made it takes away");
}

#[tokio::test]
async fn what_is_left_of_a_path_is_replaced_and_what_somebody_has_is_told() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("web.sock");
    let listen = format!("unix:{}", path.display());
    let killed = Running::start(relay(home.path(), &["--listen", &listen])).await;
    killed.signal("KILL");
    killed.end().await;
    assert!(path.exists());
    let running = Running::start(relay(home.path(), &["--listen", &listen])).await;
    assert_eq!(probe(&path).await.unwrap(), 200);
    let other = tempfile::tempdir().unwrap();
    let (code, _, stderr) = crate::program::run(&mut relay(other.path(), &["--listen", &listen])).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("another program listens there") && stderr.contains(&listen), "{stderr}");
    // A successor has the socket, and the file is its own.
    let more = ["--listen", &listen, "--take-over"];
    let new = successor_with(relay(home.path(), &more), &running).await;
    assert_eq!(running.end().await.0, Some(0));
    assert_eq!(probe(&path).await.unwrap(), 200);
    let (code, _, stderr) = crate::program::run(&mut relay(home.path(), &["--take-over"])).await;
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains(&listen) && stderr.contains("no path"), "{stderr}");
    new.signal("TERM");
    assert_eq!(new.end().await.0, Some(0));
    assert!(!path.exists());
}

// ---- what is told ----

/// A supervisor's end of its notifications.
struct Notified(UnixDatagram);

impl Notified {
    fn at(path: &Path) -> Self {
        Self(UnixDatagram::bind(path).unwrap())
    }

    /// Waits for a message with this line, and gives the whole of it.
    async fn of(&self, line: &str) -> String {
        soon(async {
            loop {
                let mut bytes = [0; 1024];
                let count = self.0.recv(&mut bytes).await.unwrap();
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                if text.lines().any(|said| said.starts_with(line)) {
                    return text;
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_supervisor_is_told_of_every_step_and_gets_signs_of_life() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("notify");
    let notified = Notified::at(&path);
    let mut command = relay(home.path(), &[]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    let relay = Running::start(command).await;
    let ready = notified.of("READY=1").await;
    assert!(ready.contains(&format!("MAINPID={}\n", relay.id())), "{ready}");
    for _ in 0..3 {
        notified.of("WATCHDOG=1").await;
    }
    relay.signal("HUP");
    notified.of("RELOADING=1").await;
    notified.of("READY=1").await;
    relay.signal("TERM");
    notified.of("STOPPING=1").await;
    assert_eq!(relay.end().await.0, Some(0));
}

#[tokio::test]
async fn signs_of_life_are_for_the_process_that_is_watched_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("notify");
    let notified = Notified::at(&path);
    let mut command = relay(home.path(), &[]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let relay = Running::start(command).await;
    notified.of("READY=1").await;
    relay.signal("TERM");
    let mut bytes = [0; 1024];
    let count = soon(notified.0.recv(&mut bytes)).await.unwrap();
    assert!(bytes[..count].starts_with(b"STOPPING=1"), "{:?}", String::from_utf8_lossy(&bytes[..count]));
    assert_eq!(relay.end().await.0, Some(0));
}

#[tokio::test]
async fn at_a_signal_the_relay_starts_its_successor_and_the_supervisor_follows() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("notify");
    let notified = Notified::at(&path);
    let mut command = relay(home.path(), &["--drain=5s"]);
    command.env("NOTIFY_SOCKET", &path);
    let mut old = Running::start(command).await;
    let address = old.addresses[0];
    notified.of("READY=1").await;
    old.signal("USR2");
    let told = notified.of("MAINPID=").await;
    let line = told.lines().find_map(|line| line.strip_prefix("MAINPID=")).unwrap();
    let new: u32 = line.parse().unwrap();
    assert_ne!(new, old.id());
    // Its log goes where the old one's goes.
    old.until("relay ready").await;
    let mut viewer = TcpStream::connect(address).await.unwrap();
    viewer.write_all(HEALTH.as_bytes()).await.unwrap();
    assert_eq!(Answer::parse(&soon(crate::rig::read_all(&mut viewer)).await).status, 200);
    signal(new, "TERM");
    notified.of("STOPPING=1").await;
    // Both have ended when nobody writes there any more.
    assert_eq!(old.end().await.0, Some(0));
}

// ---- what is given ----

/// Starts a program with sockets from descriptor 3 on, as systemd does: `NAME=ADDRESS:PORT` or `NAME=/PATH` each.
const ACTIVATE: &str = "
import os, socket, sys
end = sys.argv.index('--')
names, sockets = [], []
for given in sys.argv[1:end]:
    name, where = given.split('=', 1)
    if where.startswith('/'):
        one = socket.socket(socket.AF_UNIX); one.bind(where)
    else:
        host, port = where.rsplit(':', 1)
        one = socket.socket(); one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); one.bind((host, int(port)))
    one.listen(16)
    names.append(name); sockets.append(os.dup(one.fileno()))
high = [os.dup2(one, 100 + at) for at, one in enumerate(sockets)]
for at, one in enumerate(high):
    os.dup2(one, 3 + at, inheritable=True)
os.environ.update(LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=':'.join(names), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[end + 1], sys.argv[end + 1:])
";

#[tokio::test]
async fn sockets_that_systemd_gives_are_used_in_the_place_of_those_of_the_options() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("web.sock");
    let mut command = Command::new("/usr/bin/python3");
    let program = env!("CARGO_BIN_EXE_adit");
    let unix = format!("web={}", path.display());
    let sockets = ["web=127.0.0.1:0", "admin=127.0.0.1:0", &unix];
    // A name that nobody has: what is given counts.
    let options = ["relay", "--listen", "192.0.2.1:80", "--admin-listen", "127.0.0.1:1", "--drain=5s"];
    command.args([&["-c", ACTIVATE], &sockets[..], &["--", program], &options[..]].concat());
    command.env_clear().env("HOME", home.path()).env("XDG_DATA_HOME", home.path().join("data"));
    command.env("ADIT_KEYS", keys()).kill_on_drop(true);
    command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut old = Running::start(command).await;
    let (address, admin) = (old.addresses[0], old.admin.unwrap());
    assert!(address.port() != 80 && admin.port() != 1);
    assert!(old.takes(ALICE).await);
    assert_eq!(probe(&path).await.unwrap(), 200);
    // A successor that the relay itself starts gets them too, though its options say otherwise; and the file stays.
    old.signal("USR2");
    old.until("relay ready").await;
    assert_eq!(probe(&path).await.unwrap(), 200);
    assert!(old.takes(ALICE).await);
    let said = old.said.lines().rev().find(|line| line.contains("a successor is started")).unwrap();
    let said: serde_json::Value = serde_json::from_str(said).unwrap();
    signal(said["pid"].as_u64().unwrap() as u32, "TERM");
    assert_eq!(old.end().await.0, Some(0));
    assert!(path.exists(), "it is systemd's");
}
