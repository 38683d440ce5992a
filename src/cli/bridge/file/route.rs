//! `[[route]]`: which requests it takes, its backends, and how their WebSockets are treated.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::reader::{Entry, Reader};
use crate::bridge::{
    Admit, Balancing, FrameType, Key, Matcher, Pattern, Place, Route, Service, Spawn, Target, TextMessages,
};
use crate::cli::bridge::settings::target;
use crate::proto::limits::bridge::spawn::{BACKLOG, PROCS};

const SIGTERM: i32 = 15;

/// A route as far as the file says it; the rest is that of the command line.
#[derive(Debug)]
pub(in crate::cli::bridge) struct RouteFile {
    matcher: Matcher,
    backends: Vec<Target>,
    spawned: Vec<Spawn>,
    balancing: Balancing,
    admit: Option<Arc<Admit>>,
    frame_type: Option<FrameType>,
    text: Option<TextMessages>,
    ping_interval: Option<Duration>,
    connect_timeout: Option<Duration>,
    idle: Option<Duration>,
    read_idle: Option<Duration>,
    write_idle: Option<Duration>,
    connect_first: Option<bool>,
    debug: Option<u8>,
}

impl RouteFile {
    /// The route, with what it does not say itself from `usual`. Where nobody says whether it connects first, it does, as
    /// mod_wstunnel: only so another backend can be tried, and a failure be a status.
    pub(in crate::cli::bridge) fn into_route(self, usual: &Service, connect_first: Option<bool>) -> Route {
        let mut service = usual.clone();
        (service.target, service.tokens) = (None, None);
        service.connect_first = self.connect_first.or(connect_first).unwrap_or(true);
        service.dialling.wait = self.connect_timeout.unwrap_or(usual.dialling.wait);
        service.frame_type = self.frame_type.unwrap_or(usual.frame_type);
        service.text = self.text.unwrap_or(usual.text);
        service.heartbeat = some_time(self.ping_interval, usual.heartbeat);
        service.idle = some_time(self.idle, usual.idle);
        service.read_idle = some_time(self.read_idle, usual.read_idle);
        service.write_idle = some_time(self.write_idle, usual.write_idle);
        service.debug = self.debug.or(usual.debug);
        let Self { matcher, backends, spawned, balancing, admit, .. } = self;
        Route { matcher, backends, spawned, balancing, admit, service }
    }
}

/// A time of zero switches off what `usual` has.
fn some_time(own: Option<Duration>, usual: Option<Duration>) -> Option<Duration> {
    own.map_or(usual, |own| (!own.is_zero()).then_some(own))
}

const KEYS: [&str; 20] = [
    "path",
    "extensions",
    "url",
    "host",
    "target",
    "targets",
    "spawn",
    "balance",
    "disable-time",
    "connect-timeout",
    "connect-first",
    "frame-type",
    "text",
    "ping-interval",
    "idle-timeout",
    "read-timeout",
    "write-timeout",
    "allow",
    "deny",
    "origins",
];

/// Reads one; `line` is that of its brackets.
pub(super) fn read<'a>(reader: &mut Reader<'a>, line: usize, entries: Vec<Entry<'a>>) -> RouteFile {
    let mut route = RouteFile {
        matcher: Matcher { key: Key::from(""), extensions: Vec::new(), url: Vec::new(), host: Vec::new() },
        backends: Vec::new(),
        spawned: Vec::new(),
        balancing: Balancing::default(),
        admit: None,
        frame_type: None,
        text: None,
        ping_interval: None,
        connect_timeout: None,
        idle: None,
        read_idle: None,
        write_idle: None,
        connect_first: None,
        debug: None,
    };
    let mut admit = Admit::default();
    let mut has_path = false;
    let mut has_backends = false;
    let mut asks = false;
    for entry in &entries {
        match entry.key {
            "path" => {
                has_path = true;
                route.matcher.key = Key::from(reader.text(entry).unwrap_or_default().as_str());
            }
            "extensions" => route.matcher.extensions = reader.texts(entry).unwrap_or_default(),
            "url" => route.matcher.url = reader.all_parsed(entry, str::parse::<Pattern>),
            "host" => route.matcher.host = reader.all_parsed(entry, str::parse::<Pattern>),
            "target" | "targets" => {
                has_backends = true;
                route.backends.extend(reader.all_parsed(entry, target));
            }
            "spawn" => {
                has_backends = true;
                for (line, entries) in reader.tables(entry) {
                    route.spawned.extend(spawn(reader, line, &entries));
                }
            }
            "balance" => route.balancing.balance = reader.parsed(entry, str::parse).unwrap_or_default(),
            "disable-time" => route.balancing.disable_time = reader.time(entry).unwrap_or_default(),
            "connect-timeout" => match reader.time(entry) {
                Some(Duration::ZERO) => {
                    reader.wrong(entry.line, "connect-timeout: no backend answers in no time")
                }
                time => route.connect_timeout = time,
            },
            "connect-first" => route.connect_first = reader.truth(entry),
            "frame-type" => route.frame_type = reader.parsed(entry, str::parse),
            "text" => route.text = reader.parsed(entry, str::parse),
            "ping-interval" => route.ping_interval = reader.time(entry),
            "idle-timeout" => route.idle = reader.time(entry),
            "read-timeout" => route.read_idle = reader.time(entry),
            "write-timeout" => route.write_idle = reader.time(entry),
            "debug" => route.debug = reader.number(entry, 0, 4).and_then(|level| u8::try_from(level).ok()),
            "allow" | "deny" | "origins" => {
                let texts = reader.texts(entry).unwrap_or_default();
                let added = match entry.key {
                    "allow" => admit.allow(&texts),
                    "deny" => admit.deny(&texts),
                    _ => admit.plugin("ExpectOrigin", &texts.join(" ")),
                };
                if let Err(error) = added {
                    reader.wrong(entry.line, format_args!("{}: {error}", entry.key));
                }
                asks = true;
            }
            _ => reader.unknown(
                entry,
                KEYS.into_iter().chain(["debug"]),
                "`adit bridge --help` shows those of a route",
            ),
        }
    }
    route.admit = asks.then(|| Arc::new(admit));
    if !has_path {
        reader.wrong(line, "the route has no path; write path = \"\" if it is for all");
    }
    if !has_backends {
        reader.wrong(line, "the route leads nowhere; write target = \"HOST:PORT\"");
    }
    route
}

fn spawn<'a>(reader: &mut Reader<'a>, line: usize, entries: &[Entry<'a>]) -> Option<Spawn> {
    let mut command = Vec::new();
    let mut place = None;
    let (mut min, mut max) = (1, None);
    let mut environment = Vec::new();
    let mut copy_environment = None;
    let (mut kill_signal, mut listen_backlog) = (SIGTERM, BACKLOG);
    for entry in entries {
        let small = |number: Option<i64>| number.and_then(|number| usize::try_from(number).ok());
        match entry.key {
            "command" => command = reader.texts(entry).unwrap_or_default(),
            "socket" => place = reader.text(entry).map(|path| Place::Unix(path.into())),
            "listen" => place = reader.parsed(entry, address).map(Place::Tcp),
            "min-procs" => min = small(reader.number(entry, 1, PROCS)).unwrap_or(1),
            "max-procs" => max = small(reader.number(entry, 1, PROCS)),
            "environment" => environment = reader.pairs(entry).unwrap_or_default(),
            "copy-environment" => copy_environment = reader.texts(entry),
            "kill-signal" => {
                kill_signal = reader.number(entry, 1, 31).map_or(SIGTERM, |number| number as i32)
            }
            "listen-backlog" => {
                listen_backlog = reader.number(entry, 1, 65535).map_or(BACKLOG, |number| number as i32);
            }
            _ => reader.unknown(entry, SPAWN_KEYS, "`adit bridge --help` shows those of [[route.spawn]]"),
        }
    }
    // One word is a whole command, as it is typed.
    if let [line] = &command[..] {
        command = line.split_whitespace().map(str::to_owned).collect();
    }
    if command.is_empty() {
        reader.wrong(line, "there is nothing to run; write command = [\"/usr/bin/program\", \"-x\"]");
    }
    let has_place = entries.iter().any(|entry| matches!(entry.key, "socket" | "listen"));
    if !has_place {
        reader.wrong(
            line,
            "the program needs a socket; write socket = \"/run/x.sock\" or listen = \"127.0.0.1:7000\"",
        );
    }
    let max_procs = max.unwrap_or(min);
    if max_procs < min {
        reader.wrong(line, format!("max-procs is {max_procs}, which is less than min-procs, {min}"));
    }
    Some(Spawn {
        command,
        place: place?,
        min_procs: min,
        max_procs,
        environment,
        copy_environment,
        kill_signal,
        listen_backlog,
    })
}

/// Where a program listens.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?}: write an address and a port, such as 127.0.0.1:7000 or [::1]:7000; names are not looked up")
    })
}

const SPAWN_KEYS: [&str; 9] = [
    "command",
    "socket",
    "listen",
    "min-procs",
    "max-procs",
    "environment",
    "copy-environment",
    "kill-signal",
    "listen-backlog",
];
