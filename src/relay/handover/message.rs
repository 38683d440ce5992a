//! How a successor asks for the listeners, and what it is told.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the successor says first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// It wants to take over.
    TakeOver(Wanted),
}

/// The addresses that the successor is configured for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// Version of its program, for the log.
    pub version: String,
    /// Where viewers and clients come in; port 0 is whatever port there is.
    pub listen: Vec<SocketAddr>,
    /// Where the operator comes in, likewise.
    pub admin: SocketAddr,
    /// It takes [`Reply::Ports`].
    #[serde(default)]
    pub ports: bool,
    /// It takes [`Reply::Workers`].
    #[serde(default)]
    pub workers: bool,
    /// Where viewers and clients come in by a path.
    #[serde(default)]
    pub unix: Vec<PathBuf>,
    /// Where metrics are read, if anywhere beside the admin listener.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// Whatever there is, it takes: the running relay has started it.
    #[serde(default)]
    pub any: bool,
}

/// What the running relay answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The listeners come along, as descriptors in this order.
    Listeners(Listening),
    /// It has stopped accepting, and so many sockets that listen at ports of tunnels come along. [`Reply::Yours`] follows,
    /// perhaps after more of these.
    Ports(usize),
    /// The workers that it knows: no store has them. [`Reply::Yours`] follows, perhaps after more of these.
    Workers(Vec<Worker>),
    /// It has stopped accepting: the successor accepts from now on.
    Yours,
    /// The successor is configured for other addresses; the text names both.
    OtherAddresses(String),
    /// Not now; the text says why.
    Refused(String),
}

/// A worker of Taskcluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its id.
    pub id: String,
    /// An operator has its viewers turned away.
    #[serde(default)]
    pub suspended: bool,
}

/// The addresses of listeners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// Where viewers and clients come in.
    pub listen: Vec<SocketAddr>,
    /// Where the operator comes in, if anywhere.
    pub admin: Option<SocketAddr>,
    /// Where viewers and clients come in by a path.
    #[serde(default)]
    pub unix: Vec<PathBuf>,
    /// The files of these are the relay's to remove.
    #[serde(default)]
    pub files: bool,
    /// How many of `listen`, at its end, are for TLS alone.
    #[serde(default)]
    pub tls: usize,
    /// Where metrics are read, if that is where the successor wants it. Its descriptor is the last.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
}

/// Whether an address is the one that is wanted; port 0 is any.
fn fits((has, wanted): (&SocketAddr, &SocketAddr)) -> bool {
    has == wanted || (wanted.port() == 0 && has.ip() == wanted.ip())
}

impl Wanted {
    /// Whether metrics are to be read at `address`. Other than with those of the other listeners, nobody is hurt if not:
    /// then the one listener is closed, and the successor opens its own.
    pub fn takes_metrics(&self, address: &SocketAddr) -> bool {
        self.metrics.iter().any(|wanted| fits((address, wanted)))
    }
}

impl Listening {
    /// Whether these are the addresses that `wanted` names; the error is a sentence about the first that is not.
    pub fn check(&self, wanted: &Wanted) -> Result<(), String> {
        let list = |all: &[SocketAddr]| all.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ");
        if self.listen.len() != wanted.listen.len() || !self.listen.iter().zip(&wanted.listen).all(fits) {
            return Err(format!(
                "listen: the running relay has {} and not {}; give the same, or stop it first",
                list(&self.listen),
                list(&wanted.listen)
            ));
        }
        if self.unix != wanted.unix {
            let list = |all: &[PathBuf]| {
                all.iter().map(|path| format!("unix:{} ", path.display())).collect::<String>()
            };
            let none = |text: String| {
                if text.is_empty() { "no path".to_owned() } else { text.trim_end().to_owned() }
            };
            let (has, wanted) = (none(list(&self.unix)), none(list(&wanted.unix)));
            return Err(format!(
                "listen: the running relay has {has} and not {wanted}; give the same, or stop it first"
            ));
        }
        let admin = self.admin.as_slice();
        if !admin.iter().zip([&wanted.admin]).all(fits) || admin.is_empty() {
            return Err(format!(
                "admin-listen: the running relay has {} and not {}; give the same, or stop it first",
                list(admin),
                wanted.admin
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(listen: &[&str], admin: &str) -> Wanted {
        Wanted {
            version: String::new(),
            listen: listen.iter().map(|address| address.parse().unwrap()).collect(),
            admin: admin.parse().unwrap(),
            ports: true,
            workers: true,
            unix: Vec::new(),
            metrics: None,
            any: false,
        }
    }

    #[test]
    fn the_listener_for_metrics_goes_only_to_a_successor_that_wants_that_one() {
        let has = "127.0.0.1:9464".parse().unwrap();
        for (metrics, takes) in [
            (None, false),
            (Some("127.0.0.1:9464"), true),
            (Some("127.0.0.1:0"), true),
            (Some("127.0.0.1:9465"), false),
            (Some("0.0.0.0:9464"), false),
        ] {
            let metrics = metrics.map(|address| address.parse().unwrap());
            let wanted = Wanted { metrics, ..wanted(&[], "127.0.0.1:0") };
            assert_eq!(wanted.takes_metrics(&has), takes, "{metrics:?}");
        }
    }

    #[test]
    fn addresses_must_be_the_same_and_port_0_is_any() {
        let has = Listening {
            listen: vec!["127.0.0.1:80".parse().unwrap(), "[::1]:81".parse().unwrap()],
            admin: Some("127.0.0.1:9090".parse().unwrap()),
            unix: Vec::new(),
            files: false,
            tls: 0,
            metrics: None,
        };
        for same in [["127.0.0.1:80", "[::1]:81"], ["127.0.0.1:0", "[::1]:0"]] {
            assert_eq!(has.check(&wanted(&same, "127.0.0.1:9090")), Ok(()));
        }
        for (other, admin, named) in [
            (&["127.0.0.1:80"][..], "127.0.0.1:9090", "has 127.0.0.1:80 [::1]:81 and not 127.0.0.1:80;"),
            (&["127.0.0.2:0", "[::1]:81"], "127.0.0.1:9090", "not 127.0.0.2:0 [::1]:81"),
            (&["127.0.0.1:81", "[::1]:81"], "127.0.0.1:9090", "not 127.0.0.1:81"),
            (
                &["127.0.0.1:80", "[::1]:81"],
                "127.0.0.1:9091",
                "admin-listen: the running relay has 127.0.0.1:9090",
            ),
        ] {
            let error = has.check(&wanted(other, admin)).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
