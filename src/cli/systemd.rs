//! What systemd is told and gives: sd_notify(3), watchdogs, and listening sockets (sd_listen_fds(3)).

use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use crate::relay::Listeners;
use crate::relay::config::RelayConfig;

/// Whom to tell, if anybody.
pub(super) struct Supervisor(Option<(UnixDatagram, SocketAddr)>);

impl Supervisor {
    /// The one that has started us.
    pub(super) fn of_process() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| Some((UnixDatagram::unbound().ok()?, address(&name).ok()?)));
        Self(socket)
    }

    /// We serve; this process is the one to watch.
    pub(super) fn ready(&self) {
        self.tell(&format!("READY=1\nMAINPID={}\nSTATUS=ready\n", std::process::id()));
    }

    /// The configuration is being read anew; [`ready`](Self::ready) follows.
    pub(super) fn reloading(&self) {
        self.tell("RELOADING=1\nSTATUS=reloading certificates\n");
    }

    /// The end begins.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=requests under way finish\n");
    }

    /// Another process is the one to watch from now on. It says so itself, too, but perhaps after our end.
    pub(super) fn handed_over(&self, successor: Option<u32>) {
        if let Some(pid) = successor {
            self.tell(&format!("MAINPID={pid}\n"));
        }
    }

    /// Gives signs of life twice as often as they are asked for, as long as the result is there and the runtime works.
    pub(super) fn watch(self) -> Option<AbortOnDropHandle<()>> {
        let wanted = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = wanted("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let every = Duration::from_micros(wanted("WATCHDOG_USEC").filter(|every| ours && *every > 1)?) / 2;
        self.0.as_ref()?;
        let watching = async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.tell("WATCHDOG=1\n");
            }
        };
        Some(AbortOnDropHandle::new(tokio::spawn(watching)))
    }

    /// Nobody who does not listen may keep us from working.
    fn tell(&self, words: &str) {
        if let Some((socket, to)) = &self.0
            && let Err(error) = socket.send_to_addr(words.as_bytes(), to)
        {
            tracing::debug!(%error, "the supervisor is not told");
        }
    }
}

fn address(name: &std::ffi::OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        if let Some(name) = name.as_bytes().strip_prefix(b"@") {
            return SocketAddr::from_abstract_name(name);
        }
    }
    SocketAddr::from_pathname(name)
}

/// The listening sockets that we were started with, in the place of those that `config` names, which is told of them.
/// `None`: there are none. Of TCP sockets the one whose name is `admin` is for the operator, that of `metrics` for
/// scrapers, those of `tls` are for TLS alone.
pub(super) fn inherited(config: &mut RelayConfig) -> Result<Option<Listeners>, String> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut given = ListenFd::from_env();
    if given.len() == 0 {
        return Ok(None);
    }
    let mut names = names.split(':').map(str::to_owned);
    let (mut listeners, mut tls) = (Listeners::default(), Vec::new());
    for at in 0..given.len() {
        let name = names.next().unwrap_or_default();
        let failed = |error: io::Error| {
            format!("the socket {} ({name:?}) that systemd gave cannot be used: {error}", at + 3)
        };
        if let Ok(Some(listener)) = given.take_unix_listener(at) {
            listener.set_nonblocking(true).map_err(failed)?;
            listeners.unix.push(UnixListener::from_std(listener).map_err(failed)?);
            continue;
        }
        let Some(listener) = given.take_tcp_listener(at).map_err(failed)? else { continue };
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        match name.as_str() {
            "admin" if listeners.admin.is_none() => listeners.admin = Some(listener),
            "metrics" if listeners.metrics.is_none() => listeners.metrics = Some(listener),
            "tls" => tls.push(listener),
            _ => listeners.tcp.push(listener),
        }
    }
    let for_tls = tls.len();
    listeners.tcp.extend(tls);
    if listeners.admin.is_none() {
        listeners.admin = Some(bind("admin-listen", config.admin_listen)?);
    }
    if let (None, Some(address)) = (&listeners.metrics, config.metrics_listen) {
        listeners.metrics = Some(bind("metrics-listen", address)?);
    }
    config.adopt_addresses(&listeners, for_tls);
    Ok(Some(listeners))
}

fn bind(option: &str, address: std::net::SocketAddr) -> Result<TcpListener, String> {
    crate::stream::tcp::listen(address, false)
        .map_err(|error| format!("{option}: cannot listen on {address}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_a_path_is_an_abstract_one() {
        assert!(address("/run/systemd/notify".as_ref()).unwrap().as_pathname().is_some());
        assert!(address("@adit".as_ref()).unwrap().as_pathname().is_none());
    }
}
