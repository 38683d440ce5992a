//! TCP to a name or address with several candidates: they are tried in turn, and the quickest wins (RFC 8305).

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};

use super::relay_url::is_local_name;
use crate::stream::tcp::tune;

/// An address that has not answered by now gets company by the next one (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried; a name has two to eight, and a hostile one does not decide for us.
const MOST_ADDRESSES: usize = 16;

/// The addresses of `host` (no brackets). `localhost` is IPv4 first, then IPv6, without asking a resolver. Never empty.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    if is_local_name(host) {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    let found: Vec<_> = lookup_host((host, port)).await?.take(MOST_ADDRESSES).collect();
    if found.is_empty() {
        Err(io::Error::new(ErrorKind::NotFound, "the name has no address"))
    } else {
        Ok(found)
    }
}

/// Connects to the first of `addresses` that answers; the error is that of the first. The caller sets the deadline.
pub(super) async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut left = addresses.iter();
    let mut tries = FuturesUnordered::new();
    let mut first_error = None;
    loop {
        match left.next() {
            Some(address) => tries.push(TcpStream::connect(*address)),
            None if tries.is_empty() => {
                return Err(first_error.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into()));
            }
            None => {}
        }
        tokio::select! {
            Some(tried) = tries.next() => match tried {
                Ok(stream) => {
                    tune(&stream);
                    return Ok(stream);
                }
                Err(error) => first_error = first_error.or(Some(error)),
            },
            () = tokio::time::sleep(HEAD_START), if left.len() > 0 => {}
        }
    }
}
