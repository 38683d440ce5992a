//! Where log records go beside stderr: a syslog daemon, by UDP or by a path.

use std::fmt;
use std::path::PathBuf;

/// The port of syslog over UDP (RFC 5426, section 3.3).
const PORT: u16 = 514;

/// The sockets at which libc's `syslog` is heard: the usual name, and what systemd has behind it.
const OF_THE_SYSTEM: [&str; 2] = ["/dev/log", "/run/systemd/journal/dev-log"];

/// How log records go to a syslog daemon, if they do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyslogConfig {
    /// Where it listens; `None`: there is none.
    pub address: Option<SyslogAddress>,
    /// What the records are counted among.
    pub facility: Facility,
    /// How they are written; `None`: as whoever listens at the address expects it.
    pub format: Option<SyslogFormat>,
}

impl SyslogConfig {
    /// How records are written: RFC 5424, but for the system's own socket, whose readers (journald, and rsyslog unless it is
    /// told otherwise) know only what libc writes.
    pub fn format(&self) -> SyslogFormat {
        let local = |address: &SyslogAddress| matches!(address, SyslogAddress::Unix(path) if OF_THE_SYSTEM.iter().any(|own| path.as_os_str() == *own));
        self.format.unwrap_or(match &self.address {
            Some(address) if local(address) => SyslogFormat::Local,
            _ => SyslogFormat::Rfc5424,
        })
    }
}

/// Where a syslog daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyslogAddress {
    /// UDP (RFC 5426).
    Udp {
        /// A name or an address; an IPv6 address without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// A datagram socket at this path.
    Unix(PathBuf),
}

impl SyslogAddress {
    /// Reads `udp://HOST[:PORT]`, `HOST:PORT`, `unix:/PATH` or `/PATH`. The error says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let error = || "write udp://HOST:PORT, or a path such as unix:/dev/log".to_owned();
        if let Some(path) = text.strip_prefix("unix://").or(text.strip_prefix("unix:")).or(Some(text))
            && path.starts_with('/')
        {
            return Ok(Self::Unix(path.into()));
        }
        if text.contains("://") && !text.starts_with("udp://") || text.starts_with("unix:") {
            return Err(error() + "; for TCP or TLS let a syslog daemon on this machine pass records on");
        }
        let place = text.strip_prefix("udp://");
        let authority: http::uri::Authority =
            place.map_or(text, |place| place.trim_end_matches('/')).parse().map_err(|_| error())?;
        let host = authority.host();
        let port = match &authority.as_str()[host.len().min(authority.as_str().len())..] {
            _ if authority.as_str().contains('@') || host.is_empty() => return Err(error()),
            // Without a scheme it may be anything.
            "" if place.is_none() => return Err(error()),
            "" => PORT,
            rest => match rest.strip_prefix(':').unwrap_or_default().parse() {
                Ok(0) | Err(_) => return Err(error()),
                Ok(port) => port,
            },
        };
        Ok(Self::Udp { host: host.trim_start_matches('[').trim_end_matches(']').to_owned(), port })
    }
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp { host, port } if host.contains(':') => write!(f, "udp://[{host}]:{port}"),
            Self::Udp { host, port } => write!(f, "udp://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a record is written for a syslog daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyslogFormat {
    /// With time, host, program and the place in it (RFC 5424).
    Rfc5424,
    /// As libc's `syslog` writes on the system's own socket, but without a time, as the daemon has its own.
    Local,
}

impl SyslogFormat {
    /// Reads `rfc5424` or `local`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "rfc5424" => Ok(Self::Rfc5424),
            "local" => Ok(Self::Local),
            _ => Err("expected rfc5424 or local".into()),
        }
    }
}

impl fmt::Display for SyslogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rfc5424 => "rfc5424",
            Self::Local => "local",
        })
    }
}

/// What records are counted among (RFC 5424, section 6.2.1); `daemon` unless something else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(u8);

/// Facilities by their codes. Those from 12 to 15 have no names that all systems share.
const FACILITIES: [(u8, &str); 20] = [
    (0, "kern"),
    (1, "user"),
    (2, "mail"),
    (3, "daemon"),
    (4, "auth"),
    (5, "syslog"),
    (6, "lpr"),
    (7, "news"),
    (8, "uucp"),
    (9, "cron"),
    (10, "authpriv"),
    (11, "ftp"),
    (16, "local0"),
    (17, "local1"),
    (18, "local2"),
    (19, "local3"),
    (20, "local4"),
    (21, "local5"),
    (22, "local6"),
    (23, "local7"),
];

impl Facility {
    /// Reads a name, such as `daemon` or `local0`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = FACILITIES.iter().find(|(_, name)| *name == text);
        found.map(|(code, _)| Self(*code)).ok_or_else(|| {
            "expected a facility of syslog: daemon, user, auth, authpriv, local0 to local7 or another".into()
        })
    }

    /// Its code, 0 to 23.
    pub fn code(self) -> u8 {
        self.0
    }
}

impl Default for Facility {
    fn default() -> Self {
        Self(3)
    }
}

impl fmt::Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = FACILITIES.iter().find(|(code, _)| *code == self.0);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port_or_a_path() {
        for (text, written) in [
            ("udp://logs.example:5140", "udp://logs.example:5140"),
            ("udp://logs.example", "udp://logs.example:514"),
            ("udp://logs.example/", "udp://logs.example:514"),
            ("127.0.0.1:514", "udp://127.0.0.1:514"),
            ("udp://[::1]:514", "udp://[::1]:514"),
            ("[::1]:514", "udp://[::1]:514"),
            ("/dev/log", "unix:/dev/log"),
            ("unix:/dev/log", "unix:/dev/log"),
            ("unix:///dev/log", "unix:/dev/log"),
        ] {
            let address = SyslogAddress::parse(text).unwrap();
            assert_eq!(address.to_string(), written, "{text}");
            assert_eq!(SyslogAddress::parse(written), Ok(address));
        }
        for bad in [
            "",
            "logs",
            "udp://",
            "udp://a:0",
            "udp://a:x",
            "udp://a:65536",
            "a:",
            "a:1/b",
            "u@a:1",
            "tcp://a:1",
            "unix:log",
            "unix://log",
            "unix:",
            "a b:1",
            ":514",
            "udp://:514",
            "::1",
        ] {
            assert!(SyslogAddress::parse(bad).is_err(), "{bad}");
        }
        assert!(SyslogAddress::parse("tcp://a:1").unwrap_err().contains("daemon on this machine"));
    }

    #[test]
    fn the_systems_own_socket_gets_what_its_readers_know() {
        let at =
            |text: &str| SyslogConfig { address: SyslogAddress::parse(text).ok(), ..SyslogConfig::default() };
        assert_eq!(at("/dev/log").format(), SyslogFormat::Local);
        assert_eq!(at("/run/other/log").format(), SyslogFormat::Rfc5424);
        assert_eq!(at("udp://a").format(), SyslogFormat::Rfc5424);
        let told = SyslogConfig { format: Some(SyslogFormat::Rfc5424), ..at("/dev/log") };
        assert_eq!(told.format(), SyslogFormat::Rfc5424);
    }

    #[test]
    fn a_facility_is_one_of_those_with_names() {
        assert_eq!(Facility::parse("daemon"), Ok(Facility::default()));
        assert_eq!(Facility::parse("local7").unwrap().code(), 23);
        for (code, name) in FACILITIES {
            assert_eq!(Facility::parse(name).unwrap().to_string(), name);
            assert!(code < 24);
        }
        assert!(Facility::parse("Daemon").is_err() && Facility::parse("3").is_err());
    }
}
