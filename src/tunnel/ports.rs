//! Ports of the relay that lead to tunnels: who gets which, and that each is listened on as long as its tunnel is there.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{CreateError, Registry, Spec, Tunnel};
use crate::auth::Owner;
use crate::proto::api::Proto;
use crate::store::StoreError;

/// Whoever listens on the ports. What comes in at one asks [`Registry::by_port`] where it leads.
pub trait Ports: Send + Sync {
    /// Those that may be given to tunnels; `None`: none.
    fn range(&self) -> Option<RangeInclusive<u16>>;

    /// Begins to listen; nothing happens where it does already.
    fn open(&self, port: u16) -> Result<(), PortError>;

    /// Stops listening; nothing happens where it does not listen.
    fn close(&self, port: u16);
}

/// Why a port is not listened on.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The system does not let us, mostly as another program has it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The relay has as many descriptors open as it may.
    #[error("the relay has as many connections as it can take")]
    Full,
    /// Another process has the ports by now.
    #[error("another relay has taken over")]
    HandedOver,
}

/// A relay without ports.
pub(super) struct NoPorts;

impl Ports for NoPorts {
    fn range(&self) -> Option<RangeInclusive<u16>> {
        None
    }

    fn open(&self, _: u16) -> Result<(), PortError> {
        Err(io::Error::from(io::ErrorKind::Unsupported).into())
    }

    fn close(&self, _: u16) {}
}

/// A port that is listened on for a tunnel to be, and closed again if nothing comes of it.
pub(super) struct Opened<'a> {
    ports: &'a dyn Ports,
    pub(super) port: u16,
    kept: bool,
}

impl Opened<'_> {
    /// The tunnel is there.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.ports.close(self.port);
        }
    }
}

impl Registry {
    /// With ports for TCP tunnels.
    pub fn with_ports(mut self, ports: Arc<dyn Ports>) -> Self {
        self.ports = ports;
        self
    }

    /// The tunnel that the port leads to.
    pub fn by_port(&self, port: u16) -> Option<Arc<Tunnel>> {
        self.by_port.get(&port).map(|tunnel| Arc::clone(&tunnel))
    }

    /// How many ports lead to tunnels.
    pub fn ports(&self) -> usize {
        self.by_port.len()
    }

    /// The ports that lead to tunnels are listened on; what cannot be is tried again at the next call. `first`: failures
    /// are told.
    pub fn open_ports(&self, first: bool) {
        if self.by_port.is_empty() {
            return;
        }
        let ports: Vec<u16> = self.by_port.iter().map(|entry| *entry.key()).collect();
        for port in ports {
            match self.ports.open(port) {
                Err(error) if first => {
                    tracing::warn!(port, %error, "the port of a tunnel cannot be listened on")
                }
                _ => {}
            }
            // It may have ended meanwhile.
            if !self.by_port.contains_key(&port) {
                self.ports.close(port);
            }
        }
    }

    /// Whether a tunnel that has the port `current` has all that it needs by this `spec`, which is completed then.
    pub(super) fn keeps_port(&self, spec: &mut Spec, current: Option<u16>) -> bool {
        if spec.proto != Proto::Tcp {
            spec.port = None;
            return true;
        }
        let Some(port) = current.filter(|port| spec.port.is_none_or(|wanted| wanted == *port)) else {
            return false;
        };
        let given = self.ports.range().is_some_and(|range| range.contains(&port));
        if given {
            spec.port = current;
        }
        given
    }

    /// Finds the port that a tunnel of this `spec` shall have, other than the one that it has, and listens there. `None`:
    /// it needs none. To be called by whoever holds the right to write, until the tunnel is written.
    pub(super) async fn find_port(
        &self,
        owner: &Owner,
        name: Option<&str>,
        spec: &mut Spec,
    ) -> Result<Option<Opened<'_>>, CreateError> {
        if spec.proto != Proto::Tcp {
            spec.port = None;
            return Ok(None);
        }
        let range = self.ports.range().ok_or(CreateError::NoPorts)?;
        let (from, to) = (*range.start(), *range.end());
        if spec.port.is_some_and(|port| !range.contains(&port)) {
            return Err(CreateError::PortNotGiven { from, to });
        }
        let given = self.store.ports().await?;
        let holder =
            |port: u16| given.binary_search_by_key(&port, |row| row.port).ok().and_then(|at| given.get(at));
        // One of the owner's that has ended may be had; the store sees to that.
        let is_live = |name: &str| self.by_name(name).is_some();
        let is_free = |port: u16| {
            !self.by_port.contains_key(&port)
                && holder(port).is_none_or(|row| {
                    row.owner == owner.as_str() && (Some(row.name.as_str()) == name || !is_live(&row.name))
                })
        };
        let opened = |port| Opened { ports: &*self.ports, port, kept: false };
        if let Some(port) = spec.port {
            if !is_free(port) {
                return Err(CreateError::PortTaken(port));
            }
            return match self.ports.open(port) {
                Ok(()) => Ok(Some(opened(port))),
                Err(PortError::Io(error)) => Err(CreateError::PortInUse { port, error: error.to_string() }),
                Err(error) => Err(not_now(&error)),
            };
        }
        // What the name had before, then what nobody has.
        let before = given.iter().find(|row| Some(row.name.as_str()) == name && row.owner == owner.as_str());
        let before = before.map(|row| row.port).filter(|port| range.contains(port) && is_free(*port));
        for port in before.into_iter().chain(range.filter(|port| holder(*port).is_none() && is_free(*port))) {
            match self.ports.open(port) {
                Ok(()) => {
                    spec.port = Some(port);
                    return Ok(Some(opened(port)));
                }
                Err(PortError::Io(error)) => tracing::debug!(port, %error, "another program has the port"),
                Err(error) => return Err(not_now(&error)),
            }
        }
        Err(CreateError::NoFreePort { from, to })
    }

    /// The port of `tunnel` was `before`, or none.
    pub(super) fn port_changed(&self, tunnel: &Arc<Tunnel>, before: Option<u16>) {
        let now = tunnel.spec().port;
        if before == now {
            return;
        }
        if let Some(now) = now {
            self.by_port.insert(now, Arc::clone(tunnel));
        }
        if let Some(before) = before {
            self.leave_port(tunnel, before);
        }
    }

    /// `port` does not lead to `tunnel` any more.
    pub(super) fn leave_port(&self, tunnel: &Arc<Tunnel>, port: u16) {
        if self.by_port.remove_if(&port, |_, current| Arc::ptr_eq(current, tunnel)).is_some() {
            self.ports.close(port);
        }
    }
}

fn not_now(error: &PortError) -> CreateError {
    match error {
        PortError::HandedOver => CreateError::Draining,
        error => StoreError::Unavailable(error.to_string()).into(),
    }
}
