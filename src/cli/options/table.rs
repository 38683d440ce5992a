//! The one table of the relay's options: flags, environment, file keys, help and `--check` are made from it.

use std::time::Duration;

use super::otel;
use super::values::{
    HIDDEN, address, admin_password, admin_password_hash, count, count_or_none, email, https_url, ip,
    jwt_secret, mode, network, one, path, ports, show_or_none, show_size, show_switch, show_wait, size,
    size_or_none, static_key, switch, unix_path, wait, worker_secret,
};
use crate::auth::jwt::Secrets;
use crate::proto::hostname;
use crate::relay::config::{Facility, LogFormat, RelayConfig, SyslogAddress, SyslogFormat};
use crate::relay::domains::DomainProof;
use crate::relay::public_url::{PublicUrl, base_domain};
use crate::relay::spans::NOT_BUILT;

/// Where an option can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// Flag, environment and file.
    All,
    /// Not in the file.
    FlagAndEnv,
    /// Not as a flag: other users of a machine see the command lines.
    EnvAndFile,
}

/// One option of the relay.
pub struct Opt {
    /// Key in the file; the flag is `--` and this, the variable `ADIT_` and this in capitals.
    pub key: &'static str,
    /// What stands for the value in the help.
    pub value: &'static str,
    /// One or two sentences.
    pub help: &'static str,
    /// May be given several times, or as a list with commas.
    pub repeat: bool,
    /// Is never shown.
    pub secret: bool,
    /// Where it can be given.
    pub places: Places,
    /// Reads the values into the configuration; the error says what is expected.
    pub set: fn(&mut RelayConfig, &[String]) -> Result<(), String>,
    /// Writes the values so that `set` reads them again; secrets are hidden. Empty: not set.
    pub show: fn(&RelayConfig) -> Vec<String>,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Shorter deadlines than this are met by chance only; tests use it.
const SHORT: Duration = Duration::from_millis(100);
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;

/// An option that is given once, in any place.
const fn option(
    key: &'static str,
    value: &'static str,
    help: &'static str,
    set: fn(&mut RelayConfig, &[String]) -> Result<(), String>,
    show: fn(&RelayConfig) -> Vec<String>,
) -> Opt {
    Opt { key, value, help, repeat: false, secret: false, places: Places::All, set, show }
}

/// A deadline among the limits.
macro_rules! wait {
    ($key:literal, $field:ident, $range:expr, $help:literal) => {
        option(
            $key,
            "DURATION",
            $help,
            |config, values| put(&mut config.limits.$field, wait(one(values)?, $range)),
            |config| vec![show_wait(config.limits.$field)],
        )
    };
}

/// Something that is done or not.
macro_rules! on_off {
    ($key:literal, $field:ident, $help:literal) => {
        option(
            $key,
            "on|off",
            $help,
            |config, values| put(&mut config.$field, switch(one(values)?)),
            |config| vec![show_switch(config.$field)],
        )
    };
}

/// A number of bytes among the limits.
macro_rules! size {
    ($key:literal, $field:ident, $range:expr, $help:literal) => {
        option(
            $key,
            "SIZE",
            $help,
            |config, values| put(&mut config.limits.$field, size(one(values)?, $range)),
            |config| vec![show_size(config.limits.$field as u64)],
        )
    };
}

/// A number of things among the limits.
macro_rules! count {
    ($key:literal, $field:ident, $range:expr, $help:literal) => {
        option(
            $key,
            "NUMBER",
            $help,
            |config, values| put(&mut config.limits.$field, count(one(values)?, $range)),
            |config| vec![config.limits.$field.to_string()],
        )
    };
    ($key:literal, $field:ident, $help:literal) => {
        option(
            $key,
            "NUMBER",
            $help,
            |config, values| put(&mut config.limits.$field, count_or_none(one(values)?)),
            |config| show_or_none(config.limits.$field, |count| count.to_string()),
        )
    };
}

fn each<T>(values: &[String], read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    values.iter().map(|value| read(value)).collect()
}

/// For readers whose errors do not name the value.
fn reason<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    read(text).map_err(|error| format!("{text:?}: {error}"))
}

fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

/// Every option of the relay, in the order of the help.
pub static OPTIONS: &[Opt] = &[
    Opt {
        places: Places::FlagAndEnv,
        // Read before all others, see `options::merge`.
        ..option(
            "config",
            "FILE",
            "File with options in TOML; flags and environment go before it",
            |_, _| Ok(()),
            |_| vec![],
        )
    },
    Opt {
        repeat: true,
        ..option(
            "listen",
            "ADDRESS:PORT",
            "Where viewers and clients come in, or unix:/PATH for a proxy on this machine; may be repeated",
            |config, values| {
                let (paths, addresses): (Vec<String>, Vec<String>) =
                    values.iter().cloned().partition(|value| value.starts_with("unix:"));
                put(&mut config.listen, each(&addresses, address))?;
                put(&mut config.listen_unix, each(&paths, unix_path))
            },
            |config| {
                let paths = config.listen_unix.iter().map(|path| format!("unix:{}", path.display()));
                config.listen.iter().map(ToString::to_string).chain(paths).collect()
            },
        )
    },
    option(
        "unix-mode",
        "MODE",
        "Permissions of sockets at a path, in octal",
        |config, values| put(&mut config.unix_mode, mode(one(values)?)),
        |config| vec![format!("{:04o}", config.unix_mode)],
    ),
    Opt {
        repeat: true,
        ..option(
            "listen-tls",
            "ADDRESS:PORT",
            "The same for TLS alone; with a certificate, TLS is also taken at --listen; may be repeated",
            |config, values| put(&mut config.listen_tls, each(values, address)),
            |config| config.listen_tls.iter().map(ToString::to_string).collect(),
        )
    },
    Opt {
        repeat: true,
        ..option(
            "tls-cert",
            "FILE",
            "Certificate with its chain, in PEM; may be repeated, the viewer's host name chooses. Files that change are \
             read again",
            |config, values| put(&mut config.tls_cert, each(values, path)),
            |config| config.tls_cert.iter().map(|path| path.display().to_string()).collect(),
        )
    },
    Opt {
        repeat: true,
        ..option(
            "tls-key",
            "FILE",
            "Private key of each --tls-cert, in the same order",
            |config, values| put(&mut config.tls_key, each(values, path)),
            |config| config.tls_key.iter().map(|path| path.display().to_string()).collect(),
        )
    },
    option(
        "acme-email",
        "ADDRESS",
        "Certificates are ordered from Let's Encrypt, or the authority of --acme-directory, whose terms you accept by this: \
         for this relay's own names, and for each tunnel when it is first asked for. The authority writes to this address",
        |config, values| put(&mut config.acme.email, email(one(values)?).map(Some)),
        |config| config.acme.email.iter().cloned().collect(),
    ),
    option(
        "acme-directory",
        "URL",
        "Another authority's ACME directory",
        |config, values| put(&mut config.acme.directory, https_url(one(values)?).map(Some)),
        |config| config.acme.directory.iter().cloned().collect(),
    ),
    option(
        "acme-ca",
        "FILE",
        "Certificates, in PEM, by which the directory itself is verified, instead of the system's",
        |config, values| put(&mut config.acme.ca, path(one(values)?).map(Some)),
        |config| config.acme.ca.iter().map(|path| path.display().to_string()).collect(),
    ),
    option(
        "acme-dns-hook",
        "COMMAND",
        "Sets and removes DNS entries, so that one certificate is for all names below the base domain. It is run as \
         COMMAND present _acme-challenge.HOST TEXT, and later with cleanup",
        |config, values| put(&mut config.acme.dns_hook, path(one(values)?).map(Some)),
        |config| config.acme.dns_hook.iter().map(|path| path.display().to_string()).collect(),
    ),
    on_off!(
        "https-redirect",
        https_redirect,
        "Whether viewers and clients that come without TLS are led to https, where the public URL is https"
    ),
    option(
        "admin-listen",
        "ADDRESS:PORT",
        "Where the operator comes in",
        |config, values| put(&mut config.admin_listen, address(one(values)?)),
        |config| vec![config.admin_listen.to_string()],
    ),
    Opt {
        repeat: true,
        ..option(
            "admin-host",
            "HOST",
            "Name under which the dashboard may be asked there, beside addresses and localhost; may be repeated",
            |config, values| put(&mut config.admin_hosts, each(values, |text| reason(text, hostname::parse))),
            |config| config.admin_hosts.clone(),
        )
    },
    Opt {
        secret: true,
        places: Places::EnvAndFile,
        ..option(
            "admin-password",
            "PASSWORD",
            "Password of the dashboard",
            |config, values| put(&mut config.admin_password, admin_password(one(values)?).map(Some)),
            |config| config.admin_password.iter().map(|_| HIDDEN.into()).collect(),
        )
    },
    Opt {
        secret: true,
        places: Places::EnvAndFile,
        ..option(
            "admin-password-hash",
            "HASH",
            "The same as `adit gen password-hash` prints it",
            |config, values| {
                put(&mut config.admin_password_hash, admin_password_hash(one(values)?).map(Some))
            },
            |config| config.admin_password_hash.iter().map(|_| HIDDEN.into()).collect(),
        )
    },
    option(
        "metrics-listen",
        "ADDRESS:PORT",
        "Where /metrics, /healthz and /readyz are read without the rest of the admin listener, by whoever reaches it; \
         plain HTTP",
        |config, values| put(&mut config.metrics_listen, address(one(values)?).map(Some)),
        |config| config.metrics_listen.iter().map(ToString::to_string).collect(),
    ),
    option(
        "base-domain",
        "HOST",
        "Tunnels are reached at NAME.HOST; its DNS entry *.HOST points here",
        |config, values| put(&mut config.base_domain, reason(one(values)?, base_domain).map(Some)),
        |config| config.base_domain.iter().cloned().collect(),
    ),
    option(
        "tcp-ports",
        "FROM-TO",
        "Ports that TCP tunnels may have, each its own; without this there are none",
        |config, values| put(&mut config.tcp_ports, ports(one(values)?).map(Some)),
        |config| config.tcp_ports.iter().map(|ports| format!("{}-{}", ports.start(), ports.end())).collect(),
    ),
    Opt {
        repeat: true,
        ..option(
            "tcp-listen",
            "ADDRESS",
            "Address at which these ports are listened on; may be repeated [default: those of listen]",
            |config, values| put(&mut config.tcp_listen, each(values, ip)),
            |config| config.tcp_listen.iter().map(ToString::to_string).collect(),
        )
    },
    option(
        "public-url",
        "URL",
        "How the relay is reached from outside, such as https://relay.example.com",
        |config, values| put(&mut config.public_url, reason(one(values)?, PublicUrl::parse).map(Some)),
        |config| config.public_url.iter().map(ToString::to_string).collect(),
    ),
    option(
        "domain-proof",
        "dns|off",
        "How owners of keys prove hosts of their own (adit http --domain): by a TXT entry in DNS, or not at all",
        |config, values| match one(values)? {
            "dns" => put(&mut config.domain_proof, Ok(DomainProof::Dns)),
            "off" => put(&mut config.domain_proof, Ok(DomainProof::Off)),
            text => Err(format!("{text:?}: expected dns or off")),
        },
        |config| vec![if config.domain_proof == DomainProof::Off { "off" } else { "dns" }.into()],
    ),
    option(
        "dns-server",
        "ADDRESS:PORT",
        "Who is asked for these entries, instead of the system's servers",
        |config, values| put(&mut config.dns_server, address(one(values)?).map(Some)),
        |config| config.dns_server.iter().map(ToString::to_string).collect(),
    ),
    option(
        "data-dir",
        "DIRECTORY",
        "Holds the database; made if it is missing",
        |config, values| put(&mut config.data_dir, path(one(values)?)),
        |config| vec![config.data_dir.display().to_string()],
    ),
    option(
        "log",
        "FORMAT",
        "How log records are written: text or json; ADIT_LOG_FILTER sets how many (info, debug, adit::relay=trace)",
        |config, values| match one(values)? {
            "text" => put(&mut config.log, Ok(LogFormat::Text)),
            "json" => put(&mut config.log, Ok(LogFormat::Json)),
            text => Err(format!("{text:?}: expected text or json")),
        },
        |config| vec![if config.log == LogFormat::Json { "json" } else { "text" }.into()],
    ),
    option(
        "syslog",
        "ADDRESS",
        "A syslog daemon that gets the log records, too: udp://HOST:PORT, or unix:/PATH of a datagram socket such as \
         unix:/dev/log; see syslog-format",
        |config, values| {
            put(&mut config.syslog.address, reason(one(values)?, SyslogAddress::parse).map(Some))
        },
        |config| config.syslog.address.iter().map(ToString::to_string).collect(),
    ),
    option(
        "syslog-facility",
        "NAME",
        "What these records are counted among: daemon, user, local0 to local7 or another facility",
        |config, values| put(&mut config.syslog.facility, reason(one(values)?, Facility::parse)),
        |config| vec![config.syslog.facility.to_string()],
    ),
    option(
        "syslog-format",
        "FORMAT",
        "How they are written: rfc5424, or local as programs on the same machine do [default: local at /dev/log, elsewhere \
         rfc5424]",
        |config, values| put(&mut config.syslog.format, reason(one(values)?, SyslogFormat::parse).map(Some)),
        |config| config.syslog.format.iter().map(ToString::to_string).collect(),
    ),
    option(
        "otlp-endpoint",
        "URL",
        "Collector of OpenTelemetry that gets a span of each exchange (OTLP over HTTP), such as http://localhost:4318; also \
         OTEL_EXPORTER_OTLP_ENDPOINT. Only in builds with the feature otlp",
        |config, values| {
            let url = otel::traces_url(one(values)?)?;
            if !cfg!(feature = "otlp") {
                return Err(NOT_BUILT.into());
            }
            put(&mut config.otlp_endpoint, Ok(Some(url)))
        },
        |config| config.otlp_endpoint.iter().cloned().collect(),
    ),
    Opt {
        repeat: true,
        ..option(
            "trusted-proxy",
            "NETWORK",
            "Address or network whose X-Forwarded-* headers are believed, and see accept-proxy-protocol; may be repeated",
            |config, values| put(&mut config.trusted_proxies, each(values, network)),
            |config| config.trusted_proxies.iter().map(ToString::to_string).collect(),
        )
    },
    on_off!(
        "accept-proxy-protocol",
        accept_proxy_protocol,
        "Whether connections of trusted proxies begin with a PROXY header (v1 or v2), which says who the viewer is; one \
         without it is closed"
    ),
    on_off!(
        "path-routing",
        path_routing,
        "Whether tunnels are also reached at /t/NAME/ on the relay's own host"
    ),
    on_off!(
        "log-exchanges",
        log_exchanges,
        "One log record at level info for each request of a viewer, when it ends"
    ),
    Opt {
        repeat: true,
        secret: true,
        places: Places::EnvAndFile,
        ..option(
            "keys",
            "NAME:SECRET,…",
            "Keys beside those that `adit key create` makes",
            |config, values| {
                let keys = values.iter().zip(1..).map(|(text, position)| static_key(text, position));
                put(&mut config.static_keys, keys.collect())
            },
            |config| config.static_keys.iter().map(|key| format!("{}:{HIDDEN}", key.name)).collect(),
        )
    },
    Opt {
        repeat: true,
        secret: true,
        ..option(
            "jwt-secret",
            "SECRET",
            "Tokens signed with this secret (HS256, at least 32 bytes, no comma) are taken, see `adit token`; give a \
             second one while it is changed. Other users of the machine see command lines: better set the variable, or \
             write it in the file",
            |config, values| {
                let secrets = values.iter().zip(1..).map(|(text, position)| jwt_secret(text, position));
                put(&mut config.jwt_secrets, secrets.collect())
            },
            |config| config.jwt_secrets.iter().map(|_| HIDDEN.into()).collect(),
        )
    },
    Opt {
        repeat: true,
        secret: true,
        places: Places::EnvAndFile,
        ..option(
            "worker-secret",
            "SECRET",
            "Workers of Taskcluster register with tokens signed with this secret (HS256, no comma)",
            |config, values| {
                let secrets = values.iter().zip(1..).map(|(text, position)| worker_secret(text, position));
                let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
                if !secrets.is_empty() {
                    config.worker_tokens.get_or_insert_default().secrets = Secrets::new(secrets);
                }
                Ok(())
            },
            |config| {
                let secrets = config.worker_tokens.iter().flat_map(|tokens| tokens.secrets.iter());
                secrets.map(|_| HIDDEN.into()).collect()
            },
        )
    },
    option(
        "worker-audience",
        "TEXT",
        "What the tokens of workers must have in `aud`, where ADIT_WORKER_SECRET or worker-secret of the file lets workers of \
         Taskcluster in; without it they must have no `aud`",
        |config, values| {
            config.worker_tokens.get_or_insert_default().audience = Some(one(values)?.to_owned());
            Ok(())
        },
        |config| config.worker_tokens.iter().filter_map(|tokens| tokens.audience.clone()).collect(),
    ),
    on_off!(
        "worker-reuse",
        worker_reuse,
        "Whether a worker's connection to its target serves several requests, one behind the other, or one alone"
    ),
    size!("head-bytes", head_bytes, KIB..=MIB, "Largest request head; beyond it 431"),
    count!("headers", headers, 10..=1000, "Most header lines of a request; beyond it 431"),
    size!("target-bytes", target_bytes, 256..=MIB, "Longest request target; beyond it 414"),
    wait!(
        "head-wait",
        head_wait,
        SHORT..=seconds(10 * MINUTE),
        "From the first byte of a head to its end; then 408"
    ),
    wait!(
        "first-byte-wait",
        first_byte_wait,
        SHORT..=seconds(10 * MINUTE),
        "A new connection may say nothing this long"
    ),
    wait!(
        "keep-alive",
        keep_alive,
        SHORT..=seconds(HOUR),
        "A connection may be idle this long between requests"
    ),
    wait!(
        "claim-wait",
        claim_wait,
        SHORT..=seconds(5 * MINUTE),
        "A client has this long to take up a viewer; then 504"
    ),
    count!(
        "waiting-per-tunnel",
        waiting_per_tunnel,
        1..=65536,
        "Viewers of one tunnel that may wait for its client; then 503"
    ),
    wait!(
        "reconnect-wait",
        reconnect_wait,
        Duration::ZERO..=seconds(5 * MINUTE),
        "Viewers wait this long for a client that is away; then 503"
    ),
    count!(
        "standby-per-tunnel",
        standby_per_tunnel,
        0..=64,
        "Data sockets that a client is asked to open in advance, at most; 0 is none"
    ),
    count!(
        "standby",
        standby,
        0..=1_000_000,
        "Such sockets of all tunnels; beyond it only busy tunnels get new ones"
    ),
    size!("control-message-bytes", control_message_bytes, KIB..=MIB, "Largest message on a control socket"),
    size!(
        "data-message-bytes",
        data_message_bytes,
        KIB..=MIB,
        "Largest message to clients that hold each one in memory"
    ),
    size!(
        "in-flight-bytes",
        in_flight_bytes,
        8 * KIB..=64 * MIB,
        "Bytes under way in one direction of one stream"
    ),
    wait!("ping-every", ping_every, SHORT..=seconds(10 * MINUTE), "Between two pings on a control socket"),
    wait!("pong-wait", pong_wait, SHORT..=seconds(HOUR), "A client without a pong for this long is dead"),
    wait!(
        "idle-exchange",
        idle_exchange,
        SHORT..=seconds(7 * DAY),
        "A request on which no byte moves ends after this"
    ),
    wait!(
        "idle-upgraded",
        idle_upgraded,
        SHORT..=seconds(30 * DAY),
        "A WebSocket or TCP connection on which no byte moves ends after this"
    ),
    option(
        "body-bytes",
        "SIZE",
        "Largest request body, or none for no limit; beyond it 413",
        |config, values| put(&mut config.limits.body_bytes, size_or_none(one(values)?)),
        |config| show_or_none(config.limits.body_bytes, show_size),
    ),
    wait!(
        "drain",
        drain,
        Duration::ZERO..=seconds(HOUR),
        "Running requests may go on for this long after a stop signal"
    ),
    count!(
        "connections",
        connections,
        "Most connections at the same time, or none for as many as descriptors allow"
    ),
    count!(
        "connections-per-address",
        connections_per_address,
        "Most connections from one address (of IPv6, one /64 network), or none for no limit; trusted proxies are excepted"
    ),
    count!("tunnels-per-key", tunnels_per_key, "Most tunnels of one key, or none for no limit"),
    count!(
        "viewers-per-key",
        viewers_per_key,
        "Most requests and upgraded connections at the same time through all tunnels of one key, or none; beyond it 503"
    ),
    count!(
        "waiting-per-key",
        waiting_per_key,
        "Most viewers that wait for a client at all tunnels of one key, or none; beyond it 503"
    ),
    count!(
        "creations-per-key",
        creations_per_key,
        "Most new tunnels of one key in a minute, which may come at once, or none; beyond it 429"
    ),
    option(
        "bandwidth-per-key",
        "SIZE",
        "Most bytes a second through all tunnels of one key, both directions together, or none; beyond it streams slow \
         down",
        |config, values| put(&mut config.limits.bandwidth_per_key, size_or_none(one(values)?)),
        |config| show_or_none(config.limits.bandwidth_per_key, show_size),
    ),
];

impl Opt {
    /// The environment variable.
    pub fn env(&self) -> String {
        format!("ADIT_{}", self.key.to_ascii_uppercase().replace('-', "_"))
    }

    /// The option with that key.
    pub fn find(key: &str) -> Option<&'static Opt> {
        OPTIONS.iter().find(|option| option.key == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_read_back_as_it_is_shown() {
        let default = RelayConfig::default();
        for option in OPTIONS {
            let shown = (option.show)(&default);
            let mut config = RelayConfig::default();
            if option.repeat || !shown.is_empty() {
                assert_eq!((option.set)(&mut config, &shown), Ok(()), "{}", option.key);
            }
            assert_eq!((option.show)(&config), shown, "{}", option.key);
            assert_eq!(config.limits, default.limits, "{}", option.key);
        }
    }

    #[test]
    fn keys_and_variables_are_told_apart() {
        let mut keys: Vec<_> = OPTIONS.iter().map(|option| option.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), OPTIONS.len());
        assert_eq!(Opt::find("trusted-proxy").unwrap().env(), "ADIT_TRUSTED_PROXY");
        // Taken by the filter of log records.
        assert!(OPTIONS.iter().all(|option| option.env() != "ADIT_LOG_FILTER"));
    }

    #[test]
    fn a_secret_is_not_shown_and_has_no_flag_or_one_whose_help_warns() {
        let secrets: Vec<_> = OPTIONS.iter().filter(|option| option.secret).collect();
        let hash = format!("pbkdf2-sha256$100000${}${}", "5e".repeat(16), "c2".repeat(32));
        let given = ["s3cret-s3cret", &hash, "alice:s3cret", "s3cret-s3cret-s3cret-s3cret-s3cret", "s3cret"];
        let shown = ["***", "***", "alice:***", "***", "***"];
        assert_eq!(secrets.len(), given.len());
        for ((option, given), shown) in secrets.into_iter().zip(given).zip(shown) {
            let mut config = RelayConfig::default();
            (option.set)(&mut config, &[given.into()]).unwrap();
            assert_eq!((option.show)(&config), [shown]);
            let warns = option.help.contains("Other users of the machine see command lines");
            assert!(option.places == Places::EnvAndFile || warns, "{}", option.key);
            assert_ne!(option.places, Places::FlagAndEnv, "{}: a file is the better place", option.key);
        }
    }
}
