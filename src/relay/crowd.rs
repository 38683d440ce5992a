//! Connections of each address, where they are limited: no single peer takes all that there are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// How many connections each address has.
pub struct Crowd {
    most: usize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

impl Crowd {
    /// Up to `most` of each.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, addresses: Mutex::default() })
    }

    /// One more of that address, unless there are as many as may be.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut addresses = lock(&self.addresses);
        let count = addresses.entry(address).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { crowd: Arc::clone(self), address })
    }
}

/// One connection among those of its address, until dropped.
pub struct Place {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = lock(&self.crowd.addresses);
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// What one subscriber has: an IPv4 address, or a /64 network of IPv6.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_nothing_is_left_behind() {
        let crowd = Crowd::new(2);
        let enter = |address: &str| crowd.enter(address.parse().unwrap());
        let places = (enter("2001:db8::1"), enter("2001:db8::2:3"));
        assert!(places.0.is_some() && places.1.is_some() && enter("2001:db8::4").is_none());
        let others = (enter("2001:db8:0:1::1"), enter("192.0.2.1"), enter("::ffff:192.0.2.1"));
        assert!(others.0.is_some() && others.2.is_some() && enter("192.0.2.1").is_none());
        drop(places.0);
        assert!(enter("2001:db8::4").is_some());
        drop((places.1, others));
        assert!(lock(&crowd.addresses).is_empty());
    }
}
