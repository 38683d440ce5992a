//! How many calls of the API were refused, by code.

use crate::tally::Counter;

/// All codes of [`ApiFailure`](super::ApiFailure), in order.
const CODES: [&str; 47] = [
    "body_too_large",
    "connected",
    "connection_not_found",
    "dns_unavailable",
    "domain_not_proven",
    "domain_taken",
    "draining",
    "foreign_connection",
    "foreign_tunnel",
    "id_in_use",
    "invalid_auth",
    "invalid_balance",
    "invalid_body",
    "invalid_domain",
    "invalid_host_header",
    "invalid_id",
    "invalid_name",
    "invalid_policy",
    "invalid_port",
    "invalid_proto",
    "invalid_proxy_protocol",
    "invalid_remote_port",
    "invalid_target_proto",
    "invalid_ttl",
    "method_not_allowed",
    "missing_parameter",
    "name_taken",
    "no_base_domain",
    "no_free_port",
    "no_session",
    "no_tcp_ports",
    "not_found",
    "not_implemented",
    "not_websocket",
    "only_http",
    "port_in_use",
    "port_not_given",
    "port_taken",
    "store_unavailable",
    "token_limited",
    "too_many_clients",
    "too_many_creations",
    "too_many_standby",
    "too_many_tunnels",
    "tunnel_not_found",
    "unauthorized",
    "websocket_version",
];

/// Of all calls since the process began.
pub struct Counted([Counter; CODES.len()]);

impl Default for Counted {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Counted {
    /// One more.
    pub fn count(&self, code: &str) {
        if let Ok(at) = CODES.binary_search(&code) {
            self.0[at].increment();
        }
    }

    /// How many there are of each code.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        CODES.into_iter().zip(&self.0).map(|(code, count)| (code, count.get()))
    }

    /// How many there are of this one.
    pub fn of(&self, code: &str) -> u64 {
        CODES.binary_search(&code).map_or(0, |at| self.0[at].get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_the_codes_of_all_failures_and_no_others() {
        let source = include_str!("error.rs");
        let (_, statuses) = source.split_once("pub fn status(&self)").unwrap();
        let (statuses, _) = statuses.split_once("\n    }\n}").unwrap();
        let mut codes: Vec<_> = statuses
            .split("StatusCode::")
            .filter_map(|rest| rest.split_once(", \"")?.1.split_once('"'))
            .map(|(code, _)| code)
            .collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes, CODES);
    }
}
