//! Who may use the bridge: by address, password, origin and client certificate; all that are asked for must agree.

mod basic;
mod origin;

use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, StatusCode};

use self::basic::Basic;
use self::origin::Origins;
use super::refusal::Refusal;
use crate::proto::networks::{Networks, network};

/// The plugins, by the names of websockify's classes.
pub const PLUGINS: &[&str] = &["BasicHTTPAuth", "ExpectOrigin", "ClientCertCNAuth"];

/// Why somebody cannot be asked for what was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// No plugin of ours.
    #[error("there is no auth plugin {0:?}; there are {list}, and no Python is run", list = PLUGINS.join(", "))]
    Unknown(String),
    /// It cannot be used.
    #[error("the source of {plugin} cannot be used: {reason}")]
    Source {
        /// The plugin's name.
        plugin: &'static str,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A list of networks.
    #[error("{0}")]
    Network(String),
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visitor<'a> {
    /// What came with the request.
    pub(super) headers: &'a HeaderMap,
    /// Where from; whoever comes to a Unix socket is of this machine.
    pub(super) address: IpAddr,
    /// Whether that address is not one which all share.
    pub(super) known: bool,
    /// The common name in the client's certificate, which was verified.
    pub(super) client_cn: Option<&'a str>,
}

fn forbidden(text: &'static str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, text)
}

/// What everybody has to show. Without any, everybody is let in.
#[derive(Default)]
pub struct Admit {
    networks: Networks,
    gates: Vec<Gate>,
}

enum Gate {
    Basic(Basic),
    Origins(Origins),
    Names(Vec<String>),
}

impl Admit {
    /// Asks for one thing more: that of the plugin of this name, with what its `--auth-source` says.
    pub fn plugin(&mut self, plugin: &str, source: &str) -> Result<(), AdmitError> {
        let short = plugin.strip_prefix("websockify.").unwrap_or(plugin);
        let short = short.strip_prefix("auth_plugins.").unwrap_or(short);
        let known = PLUGINS.iter().find(|name| **name == short);
        let name = *known.ok_or_else(|| AdmitError::Unknown(plugin.chars().take(100).collect()))?;
        let gate = match name {
            "BasicHTTPAuth" => Basic::new(source).map(Gate::Basic),
            "ExpectOrigin" => Origins::new(source).map(Gate::Origins),
            _ => {
                let names: Vec<String> = source.split_whitespace().map(str::to_owned).collect();
                let none = "write the common names that are let in, with spaces between them";
                if names.is_empty() { Err(none.to_owned()) } else { Ok(Gate::Names(names)) }
            }
        };
        self.gates.push(gate.map_err(|reason| AdmitError::Source { plugin: name, reason })?);
        Ok(())
    }

    /// Lets only these addresses and networks in.
    pub fn allow<T: AsRef<str>>(&mut self, networks: &[T]) -> Result<(), AdmitError> {
        self.networks.allow.append(&mut read(networks)?);
        self.consistent()
    }

    /// Does not let these addresses and networks in, allowed or not.
    pub fn deny<T: AsRef<str>>(&mut self, networks: &[T]) -> Result<(), AdmitError> {
        self.networks.deny.append(&mut read(networks)?);
        self.consistent()
    }

    fn consistent(&self) -> Result<(), AdmitError> {
        self.networks.contradiction().map_or(Ok(()), |why| Err(AdmitError::Network(why.to_owned())))
    }

    /// Whether a client must have a certificate, without which there is no name in one.
    pub fn wants_certificate(&self) -> bool {
        self.gates.iter().any(|gate| matches!(gate, Gate::Names(_)))
    }

    /// Whether an address is let in.
    pub(super) fn check_address(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.networks.admit(address) { Ok(()) } else { Err(forbidden("this address is not let in")) }
    }

    /// Whether somebody may have a WebSocket: the address, and then every plugin in its order.
    pub(super) fn check(&self, visitor: &Visitor<'_>) -> Result<(), Refusal> {
        self.check_address(visitor.address)?;
        self.gates.iter().try_for_each(|gate| gate.check(visitor))
    }

    /// Whether somebody may have a file. A browser that is told an address says no origin.
    pub(super) fn check_file(&self, visitor: &Visitor<'_>) -> Result<(), Refusal> {
        self.check_address(visitor.address)?;
        let mut gates = self.gates.iter().filter(|gate| !matches!(gate, Gate::Origins(_)));
        gates.try_for_each(|gate| gate.check(visitor))
    }
}

impl Gate {
    fn check(&self, visitor: &Visitor<'_>) -> Result<(), Refusal> {
        match self {
            Self::Basic(basic) => basic.check(visitor),
            Self::Origins(origins) => origins.check(visitor.headers),
            Self::Names(names) => match visitor.client_cn {
                Some(name) if names.iter().any(|known| known == name) => Ok(()),
                Some(_) => Err(forbidden("the name in the client certificate is not let in")),
                None => Err(forbidden("a client certificate is needed here, over TLS")),
            },
        }
    }
}

impl fmt::Debug for Admit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admit").field("networks", &self.networks).field("gates", &self.gates.len()).finish()
    }
}

fn read<T: AsRef<str>>(texts: &[T]) -> Result<Vec<ipnet::IpNet>, AdmitError> {
    texts.iter().map(|text| network(text.as_ref()).map_err(AdmitError::Network)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn admit(plugins: &[(&str, &str)]) -> Admit {
        let mut admit = Admit::default();
        for (plugin, source) in plugins {
            admit.plugin(plugin, source).unwrap();
        }
        admit
    }

    fn status(admit: &Admit, headers: &HeaderMap, address: &str, client_cn: Option<&str>) -> u16 {
        let visitor = Visitor { headers, address: address.parse().unwrap(), known: true, client_cn };
        admit.check(&visitor).err().map_or(200, |refusal| refusal.status.as_u16())
    }

    #[test]
    fn a_plugin_is_known_by_its_class_and_others_are_told_which_there_are() {
        let mut admit = Admit::default();
        for name in ["ExpectOrigin", "auth_plugins.ExpectOrigin", "websockify.auth_plugins.ExpectOrigin"] {
            assert_eq!(admit.plugin(name, "https://a.test"), Ok(()));
        }
        let error = admit.plugin("AuthenticationError", "").unwrap_err().to_string();
        assert!(PLUGINS.iter().all(|name| error.contains(name)), "{error}");
        for name in PLUGINS {
            assert!(matches!(admit.plugin(name, ""), Err(AdmitError::Source { .. })), "{name}");
        }
    }

    #[test]
    fn all_that_is_asked_for_must_be_shown() {
        let admit = admit(&[
            ("BasicHTTPAuth", "ann:secret"),
            ("ExpectOrigin", "https://a.test"),
            ("ClientCertCNAuth", "one two"),
        ]);
        assert!(admit.wants_certificate());
        let (password, origin) = (("authorization", "Basic YW5uOnNlY3JldA=="), ("origin", "https://a.test"));
        let all = request(&[password, origin]);
        assert_eq!(status(&admit, &all, "192.0.2.1", Some("two")), 200);
        assert_eq!(status(&admit, &all, "192.0.2.1", Some("three")), 403);
        assert_eq!(status(&admit, &all, "192.0.2.1", None), 403);
        assert_eq!(status(&admit, &request(&[password]), "192.0.2.1", Some("two")), 403);
        assert_eq!(status(&admit, &request(&[origin]), "192.0.2.1", Some("two")), 401);
        let file = |headers: &HeaderMap| {
            let address = [192, 0, 2, 1].into();
            let visitor = Visitor { headers, address, known: true, client_cn: Some("two") };
            admit.check_file(&visitor).is_ok()
        };
        assert!(
            file(&request(&[password])) && !file(&request(&[origin])),
            "no browser says where a page comes from"
        );
    }

    #[test]
    fn who_is_denied_is_not_asked_anything() {
        let mut admit = admit(&[("BasicHTTPAuth", "ann:secret")]);
        admit.allow(&["10.0.0.0/8"]).unwrap();
        admit.deny(&["10.1.0.0/16"]).unwrap();
        let nobody = request(&[]);
        for (peer, said) in
            [("10.0.0.1", 401), ("10.1.0.1", 403), ("192.0.2.1", 403), ("::ffff:10.0.0.1", 401)]
        {
            assert_eq!(status(&admit, &nobody, peer, None), said, "{peer}");
        }
        assert!(matches!(admit.deny(&["10.0.0.0/8"]), Err(AdmitError::Network(_))));
        assert!(matches!(admit.allow(&["here"]), Err(AdmitError::Network(_))));
    }
}
