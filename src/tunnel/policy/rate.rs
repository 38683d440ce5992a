//! How many requests a viewer's address, or a tunnel, may make in a time, as the owner wrote it.

use std::net::IpAddr;
use std::time::Duration;

use crate::proto::limits::policy::RATE;
use crate::rate;

/// Who shares a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Per {
    /// Each address has its own; in IPv6 each network of 64 bits, which is what one subscriber has.
    Address,
    /// All viewers of the tunnel together.
    Tunnel,
}

/// A rate as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// So much of the time does one request take.
    cost: Duration,
    burst: u64,
    per: Per,
}

impl Rate {
    /// Reads `100/s`, `10/m` or `1000/h`, and what goes with it. All that is wrong at once.
    pub(super) fn read(rate: &str, burst: Option<u64>, per: Option<&str>) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let read = number_and_unit(rate);
        if read.is_none() {
            let rate: String = rate.chars().take(40).collect();
            wrong.push(format!(
                "rate_limit: {rate:?} is no rate; write a number from 1 to {RATE} and s, m or h, such as 100/s or 10/m"
            ));
        }
        if burst.is_some_and(|burst| !(1..=RATE).contains(&burst)) {
            wrong.push(format!("rate_limit: burst must be 1 to {RATE}"));
        }
        let per = match per {
            None | Some("address") => Per::Address,
            Some("tunnel") => Per::Tunnel,
            Some(_) => {
                wrong.push("rate_limit: per must be address or tunnel".to_owned());
                Per::Address
            }
        };
        match read {
            Some((number, unit)) if wrong.is_empty() => {
                let cost = Duration::from_nanos(unit.as_nanos() as u64 / number);
                Ok(Self { cost, burst: burst.unwrap_or(number), per })
            }
            _ => Err(wrong),
        }
    }

    pub(super) fn burst(self) -> u64 {
        self.burst
    }

    pub(super) fn per(self) -> &'static str {
        match self.per {
            Per::Address => "address",
            Per::Tunnel => "tunnel",
        }
    }
}

fn number_and_unit(rate: &str) -> Option<(u64, Duration)> {
    let (number, unit) = rate.split_once('/')?;
    let unit = match unit.trim() {
        "s" | "sec" | "second" => 1,
        "m" | "min" | "minute" => 60,
        "h" | "hour" => 3600,
        _ => return None,
    };
    let number = number.trim();
    let number = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok()).flatten()?;
    (1..=RATE).contains(&number).then_some((number, Duration::from_secs(unit)))
}

/// A rate, and how far everybody is.
#[derive(Debug)]
pub(super) struct Limiter {
    pub(super) rate: Rate,
    limiter: rate::Limiter,
}

impl Limiter {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, limiter: rate::Limiter::new(rate.cost, rate.burst) }
    }

    /// Counts a request or connection of that address; an error says after what time there is room for it.
    pub(super) fn take(&self, address: IpAddr) -> Result<(), Duration> {
        self.limiter.take((self.rate.per == Per::Address).then_some(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str, burst: Option<u64>) -> Rate {
        Rate::read(text, burst, None).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_its_burst_and_then_its_rate() {
        let limiter = Limiter::new(rate("10/m", Some(3)));
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(limiter.take(one), Ok(()));
        }
        assert_eq!(limiter.take(one), Err(Duration::from_secs(6)));
        assert_eq!(limiter.take(address("::ffff:192.0.2.1")), Err(Duration::from_secs(6)), "it is the same");
        assert_eq!(limiter.take(other), Ok(()));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!((limiter.take(one), limiter.take(one)), (Ok(()), Err(Duration::from_secs(6))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_is_one_and_a_tunnel_can_be_one() {
        let limiter = Limiter::new(rate("1/h", None));
        assert_eq!(limiter.take(address("2001:db8::1")), Ok(()));
        assert!(limiter.take(address("2001:db8::2:3")).is_err());
        assert_eq!(limiter.take(address("2001:db8:0:1::1")), Ok(()));
        let limiter = Limiter::new(Rate::read("1/h", None, Some("tunnel")).unwrap());
        assert_eq!(limiter.take(address("192.0.2.1")), Ok(()));
        assert_eq!(limiter.take(address("192.0.2.2")), Err(Duration::from_secs(3600)));
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, burst) in [("100/s", 100), ("10/m", 10), ("1000/hour", 1000), (" 5 / min ", 5)] {
            assert_eq!(rate(text, None).burst(), burst, "{text}");
        }
        for bad in ["", "100", "0/s", "-1/s", "+1/s", "1.5/s", "10/d", "1000001/s", "/s"] {
            assert!(Rate::read(bad, None, None).is_err(), "{bad}");
        }
        assert_eq!(Rate::read("x", Some(0), Some("y")).unwrap_err().len(), 3);
    }
}
