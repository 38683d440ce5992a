//! Whom a tunnel or a bridge is open to, by address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Bits of an IPv6 address before the IPv4 one that is mapped into it.
const MAPPED: u8 = 96;

/// Networks that are let in, and those that are not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// Empty: everybody.
    pub allow: Vec<IpNet>,
    /// Goes before `allow`.
    pub deny: Vec<IpNet>,
}

impl Networks {
    /// Whether a viewer of this address is let in.
    pub fn admit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let among = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        (self.allow.is_empty() || among(&self.allow)) && !among(&self.deny)
    }

    /// Why nobody at all would be let in.
    pub fn contradiction(&self) -> Option<&'static str> {
        // Neighbours are joined, so a network that several cover together lies within one.
        let denied = IpNet::aggregate(&self.deny);
        let is_denied = |network: &IpNet| denied.iter().any(|denied| denied.contains(network));
        if self.allow.is_empty() {
            let all = [
                IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
                IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
            ];
            let nobody = all.iter().all(is_denied);
            return nobody
                .then_some("deny: it covers every address; to turn everybody away, suspend the tunnel");
        }
        let nobody = self.allow.iter().all(is_denied);
        nobody.then_some(
            "allow and deny: every network that is allowed is denied as well, so nobody could come in",
        )
    }
}

/// Reads a network or an address; an IPv4 one that is mapped into IPv6 is the IPv4 one.
pub fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let address = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    let network = address.or_else(|_| text.parse::<IpNet>());
    let network = network.map_err(|_| {
        let text: String = text.chars().take(64).collect();
        format!("{text:?} is no network; write an address or a network, such as 10.0.0.1, 10.0.0.0/8 or 2001:db8::/32")
    })?;
    if network.addr() != network.network() {
        // It is not clear which half was meant.
        return Err(format!(
            "{network} has bits behind its prefix; write {} for the network, or {} for the address",
            network.trunc(),
            network.addr()
        ));
    }
    match network {
        IpNet::V6(six) if six.prefix_len() >= MAPPED => {
            let four = six.addr().to_ipv4_mapped();
            let four = four.and_then(|four| Ipv4Net::new(four, six.prefix_len() - MAPPED).ok());
            Ok(four.map_or(network, IpNet::V4))
        }
        network => Ok(network),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(allow: &[&str], deny: &[&str]) -> Networks {
        let read = |list: &[&str]| list.iter().map(|text| network(text).unwrap()).collect();
        Networks { allow: read(allow), deny: read(deny) }
    }

    #[test]
    fn what_is_denied_is_denied_though_it_is_allowed() {
        let rule = networks(&["10.0.0.0/8", "2001:db8::/32"], &["10.1.0.0/16", "10.2.0.1"]);
        for (address, open) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("10.1.0.1", false),
            ("::ffff:10.1.0.1", false),
            ("10.2.0.1", false),
            ("10.2.0.2", true),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(rule.admit(address.parse().unwrap()), open, "{address}");
        }
        assert!(networks(&[], &["10.0.0.0/8"]).admit("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn a_mapped_network_is_that_of_ipv4() {
        assert_eq!(network("::ffff:10.0.0.0/104").unwrap(), "10.0.0.0/8".parse::<IpNet>().unwrap());
        assert_eq!(network("::ffff:10.0.0.1").unwrap(), "10.0.0.1/32".parse::<IpNet>().unwrap());
        for (bad, part) in [
            ("10.0.0.1/8", "write 10.0.0.0/8 for"),
            ("10.0.0.0/33", "no network"),
            ("localhost", "no network"),
            ("", "no network"),
        ] {
            assert!(network(bad).unwrap_err().contains(part), "{bad}");
        }
    }

    #[test]
    fn a_list_that_lets_nobody_in_is_a_contradiction() {
        for (allow, deny, nobody) in [
            (&["10.0.0.0/8"][..], &["10.0.0.0/8"][..], true),
            (&["10.0.0.0/8"], &["10.0.0.0/9", "10.128.0.0/9"], true),
            (&["10.0.0.0/8"], &["10.0.0.0/9"], false),
            (&["10.0.0.0/8", "::1"], &["0.0.0.0/0"], false),
            (&["10.0.0.0/8", "::1"], &["0.0.0.0/0", "::/0"], true),
            (&[], &["0.0.0.0/0", "::/0"], true),
            (&[], &["0.0.0.0/0"], false),
        ] {
            assert_eq!(networks(allow, deny).contradiction().is_some(), nobody, "{allow:?} {deny:?}");
        }
    }

    fn nets() -> impl Strategy<Value = Vec<IpNet>> {
        // Few bits, so that networks meet.
        let four = (0u32..16, 0u8..=8).prop_map(|(bits, prefix)| {
            IpNet::from(Ipv4Net::new((bits << 24).into(), prefix).unwrap()).trunc()
        });
        let six = (0u128..16, 0u8..=16).prop_map(|(bits, prefix)| {
            IpNet::from(Ipv6Net::new((bits << 112).into(), prefix).unwrap()).trunc()
        });
        prop::collection::vec(prop_oneof![four, six], 0..5)
    }

    proptest! {
        #[test]
        fn who_is_let_in_is_allowed_and_not_denied(allow in nets(), deny in nets(), four in 0u32..16, six in 0u128..16) {
            let rule = Networks { allow: allow.clone(), deny: deny.clone() };
            let addresses = [
                IpAddr::V4((four << 24 | 7).into()),
                IpAddr::V6(Ipv4Addr::from(four << 24 | 7).to_ipv6_mapped()),
                IpAddr::V6((six << 112 | 7).into()),
            ];
            for address in addresses {
                let canonical = address.to_canonical();
                let among = |list: &[IpNet]| list.iter().any(|one| one.addr().is_ipv4() == canonical.is_ipv4() && {
                    let bits = |address: IpAddr| match address {
                        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
                        IpAddr::V6(address) => address.to_bits(),
                    };
                    let shift = 128 - u32::from(one.prefix_len());
                    shift == 128 || bits(one.addr()) >> shift == bits(canonical) >> shift
                });
                let open = (allow.is_empty() || among(&allow)) && !among(&deny);
                prop_assert_eq!(rule.admit(address), open);
                if rule.contradiction().is_some() {
                    prop_assert!(!open);
                }
            }
        }
    }
}
