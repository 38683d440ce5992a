//! Hosts of their owners' own that lead to tunnels, beside the relay's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

/// Which host leads to which tunnel. Hosts are in lower case.
#[derive(Debug, Clone, Default)]
pub struct Domains(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    names: DashMap<String, String>,
    /// How many there are: most relays have none, and look no further.
    count: AtomicUsize,
}

impl Domains {
    /// Name of the tunnel that `host` leads to; its case does not matter.
    pub fn tunnel_of(&self, host: &str) -> Option<String> {
        if self.0.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.0.names.get(&host.to_ascii_lowercase()).map(|name| name.clone())
    }

    /// Leads `host` to the tunnel `name`; if it leads to another one, that one's name.
    pub(super) fn claim(&self, host: &str, name: &str) -> Result<(), String> {
        match self.0.names.entry(host.to_owned()) {
            Entry::Occupied(taken) if taken.get() == name => Ok(()),
            Entry::Occupied(taken) => Err(taken.get().clone()),
            Entry::Vacant(free) => {
                free.insert(name.to_owned());
                self.0.count.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Takes away what leads to the tunnel `name`.
    pub(super) fn release(&self, host: &str, name: &str) {
        if self.0.names.remove_if(host, |_, taken| taken == name).is_some() {
            self.0.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_leads_to_one_tunnel_and_is_free_when_that_lets_go() {
        let domains = Domains::default();
        assert_eq!(domains.claim("www.a.test", "web"), Ok(()));
        assert_eq!(domains.claim("www.a.test", "web"), Ok(()));
        assert_eq!(domains.claim("www.a.test", "other"), Err("web".into()));
        assert_eq!(domains.tunnel_of("WWW.a.test").as_deref(), Some("web"));
        domains.release("www.a.test", "other");
        assert_eq!(domains.tunnel_of("www.a.test").as_deref(), Some("web"));
        domains.release("www.a.test", "web");
        assert_eq!(domains.tunnel_of("www.a.test"), None);
        assert_eq!(domains.claim("www.a.test", "other"), Ok(()));
    }
}
