//! Headers of HAProxy's PROXY protocol, versions 1 and 2 (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>):
//! read and written, without a socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{BufMut, BytesMut};

use super::api::ProxyProtocol;
use super::limits::proxy_header::{V1_BYTES, V2_BYTES};

/// How a header of version 1 begins.
const V1: &[u8] = b"PROXY ";
/// How one of version 2 does.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of one of version 2 before its addresses.
const V2_FIXED: usize = 16;
/// Version and command of one that is passed on.
const V2_PROXY: u8 = 0x21;
/// The same of one that the proxy itself has opened, such as a health check.
const V2_LOCAL: u8 = 0x20;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

/// The two ends of a viewer's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The viewer.
    pub source: SocketAddr,
    /// What it connected to.
    pub destination: SocketAddr,
}

/// Why a header is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Something else came.
    #[error("the connection does not begin with a PROXY header")]
    None,
    /// A line of version 1 that breaks the rules.
    #[error("the PROXY header (v1) cannot be read")]
    V1,
    /// Version 2 with another command or shorter than its addresses.
    #[error("the PROXY header (v2) cannot be read")]
    V2,
    /// Longer than is taken.
    #[error("the PROXY header is too long")]
    TooLong,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The ends of the connection; `None`: those of the socket itself (`LOCAL`, `UNKNOWN`, and what is not TCP).
    pub ends: Option<Ends>,
    /// Bytes of it; what follows is the viewer's.
    pub length: usize,
}

/// Reads the header with which `bytes` begin; `None`: it has not come whole.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    if begins(bytes, V2) {
        return if bytes.len() < V2.len() { Ok(None) } else { v2(bytes) };
    }
    if begins(bytes, V1) {
        return if bytes.len() < V1.len() { Ok(None) } else { v1(bytes) };
    }
    Err(HeaderError::None)
}

/// Whether one is the beginning of the other.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let common = bytes.len().min(with.len());
    bytes[..common] == with[..common]
}

fn v1(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let seen = &bytes[..bytes.len().min(V1_BYTES)];
    let Some(end) = memchr::memchr(b'\n', seen) else {
        return if seen.len() == V1_BYTES { Err(HeaderError::TooLong) } else { Ok(None) };
    };
    let line = seen[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.ok_or(HeaderError::V1)?.split(' ').skip(1);
    let length = end + 1;
    let mut word = || words.next().ok_or(HeaderError::V1);
    let is_ipv4 = match word()? {
        // Whatever else the line says.
        "UNKNOWN" => return Ok(Some(Header { ends: None, length })),
        "TCP4" => true,
        "TCP6" => false,
        _ => return Err(HeaderError::V1),
    };
    let address = |text: &str| match is_ipv4 {
        true => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| HeaderError::V1),
        false => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| HeaderError::V1),
    };
    let (source, destination) = (address(word()?)?, address(word()?)?);
    let (from, to) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(HeaderError::V1);
    }
    let ends = Ends { source: (source, from).into(), destination: (destination, to).into() };
    Ok(Some(Header { ends: Some(ends), length }))
}

/// As the specification has it: digits, and no zero before them.
fn port(text: &str) -> Result<u16, HeaderError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(HeaderError::V1)
}

fn v2(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let Some(fixed) = bytes.get(V2.len()..V2_FIXED) else {
        // What is wrong already need not be waited for.
        return match bytes.get(V2.len()) {
            None | Some(&(V2_PROXY | V2_LOCAL)) => Ok(None),
            Some(_) => Err(HeaderError::V2),
        };
    };
    let &[command, family, high, low] = fixed else { return Err(HeaderError::V2) };
    if !matches!(command, V2_PROXY | V2_LOCAL) {
        return Err(HeaderError::V2);
    }
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES {
        return Err(HeaderError::TooLong);
    }
    let Some(rest) = bytes.get(V2_FIXED..length) else { return Ok(None) };
    // What follows the addresses means nothing to us.
    let ends = match (command, family) {
        (V2_PROXY, V2_TCP4) => Some(ends::<4>(rest)?),
        (V2_PROXY, V2_TCP6) => Some(ends::<16>(rest)?),
        _ => None,
    };
    Ok(Some(Header { ends, length }))
}

fn ends<const SIZE: usize>(bytes: &[u8]) -> Result<Ends, HeaderError>
where
    IpAddr: From<[u8; SIZE]>,
{
    let address = |at: usize| bytes.get(at..at + SIZE).and_then(|bytes| <[u8; SIZE]>::try_from(bytes).ok());
    let port = |at: usize| bytes.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let end = |ip: usize, at: usize| {
        let ip = IpAddr::from(address(ip).ok_or(HeaderError::V2)?);
        Ok(SocketAddr::new(ip, port(at).ok_or(HeaderError::V2)?))
    };
    Ok(Ends { source: end(0, 2 * SIZE)?, destination: end(SIZE, 2 * SIZE + 2)? })
}

/// The header for a connection with these ends; `None`: they are not known.
pub fn write(version: ProxyProtocol, ends: Option<Ends>) -> BytesMut {
    let mut out = BytesMut::new();
    // Of one family: where they differ, the older one is written as the newer.
    let ends = ends.map(|Ends { source, destination }| {
        let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let (source, destination) = (canonical(source), canonical(destination));
        match source.is_ipv4() == destination.is_ipv4() {
            true => Ends { source, destination },
            false => Ends { source: as_ipv6(source), destination: as_ipv6(destination) },
        }
    });
    match version {
        ProxyProtocol::V1 => write_v1(&mut out, ends),
        ProxyProtocol::V2 => write_v2(&mut out, ends),
    }
    out
}

fn as_ipv6(end: SocketAddr) -> SocketAddr {
    match end.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), end.port()),
        IpAddr::V6(_) => end,
    }
}

fn write_v1(out: &mut BytesMut, ends: Option<Ends>) {
    let Some(Ends { source, destination }) = ends else { return out.put_slice(b"PROXY UNKNOWN\r\n") };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.port(), destination.port());
    let line = format!("PROXY {family} {} {} {from} {to}\r\n", source.ip(), destination.ip());
    out.put_slice(line.as_bytes());
}

fn write_v2(out: &mut BytesMut, ends: Option<Ends>) {
    out.put_slice(V2);
    out.put_u8(V2_PROXY);
    let Some(Ends { source, destination }) = ends else { return out.put_slice(&[0, 0, 0]) };
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            out.put_u8(V2_TCP4);
            out.put_u16(12);
            out.put_slice(&source.octets());
            out.put_slice(&destination.octets());
        }
        (source, destination) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            out.put_u8(V2_TCP6);
            out.put_u16(36);
            out.put_slice(&octets(source));
            out.put_slice(&octets(destination));
        }
    }
    out.put_u16(source.port());
    out.put_u16(destination.port());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect()
    }

    const SIGNATURE: &str = "0d0a0d0a000d0a515549540a";

    #[test]
    fn headers_are_written_as_the_specification_has_them() {
        let four = of("192.168.0.1:56324", "192.168.0.11:443");
        let six = of("[2001:db8::1]:1", "[2001:db8::2]:65535");
        for (ends, line, rest) in [
            (
                Some(four),
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
                "21 11 000c c0a80001 c0a8000b dc04 01bb",
            ),
            (
                Some(six),
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
                "21 21 0024 20010db8000000000000000000000001 20010db8000000000000000000000002 0001 ffff",
            ),
            (None, "PROXY UNKNOWN\r\n", "21 00 0000"),
            // An IPv4 address in the guise of IPv6 is shown as what it is; one of each is both IPv6.
            (
                Some(of("[::ffff:10.0.0.1]:1", "10.0.0.2:2")),
                "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
                "21 11 000c 0a000001 0a000002 0001 0002",
            ),
            (
                Some(of("10.0.0.1:1", "[::1]:2")),
                "PROXY TCP6 ::ffff:10.0.0.1 ::1 1 2\r\n",
                "21 21 0024 00000000000000000000ffff0a000001 00000000000000000000000000000001 0001 0002",
            ),
        ] {
            assert_eq!(write(ProxyProtocol::V1, ends), line.as_bytes());
            assert_eq!(write(ProxyProtocol::V2, ends), hex(&format!("{SIGNATURE} {rest}")));
        }
        let longest =
            of("[ffff:f:f:f:f:f:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:65535");
        assert!(write(ProxyProtocol::V1, Some(longest)).len() <= V1_BYTES);
    }

    #[test]
    fn headers_of_other_programs_are_read() {
        let four = of("192.168.0.1:56324", "192.168.0.11:443");
        for (bytes, ends) in [
            (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n".to_vec(), Some(four)),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), None),
            // With what haproxy and cloud balancers put behind the addresses.
            (hex(&format!("{SIGNATURE} 2111 0013 c0a80001 c0a8000b dc04 01bb 04 0004 00000000")), Some(four)),
            (hex(&format!("{SIGNATURE} 2000 0000")), None),
            (hex(&format!("{SIGNATURE} 2011 000c c0a80001 c0a8000b dc04 01bb")), None),
            (hex(&format!("{SIGNATURE} 2100 0000")), None),
            // UDP and Unix sockets.
            (hex(&format!("{SIGNATURE} 2112 000c c0a80001 c0a8000b dc04 01bb")), None),
            (hex(&format!("{SIGNATURE} 2131 00d8 {}", "00".repeat(216))), None),
        ] {
            let length = bytes.len();
            assert_eq!(parse(&bytes), Ok(Some(Header { ends, length })), "{bytes:?}");
            let more = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&more), Ok(Some(Header { ends, length })));
        }
    }

    #[test]
    fn what_is_no_header_is_told_as_soon_as_it_shows() {
        for (bytes, error) in [
            (&b"GET / HTTP/1.1\r\n"[..], HeaderError::None),
            (b"PROXX", HeaderError::None),
            (b"\r\n\r\nGET", HeaderError::None),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", HeaderError::V1),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", HeaderError::V1),
            (b"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n", HeaderError::V1),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", HeaderError::V1),
            (b"PROXY TCP4 ::1 ::2 1 2\r\n", HeaderError::V1),
            (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", HeaderError::V1),
            (b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n", HeaderError::V1),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", HeaderError::V1),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", HeaderError::V1),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", HeaderError::V1),
            (b"PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n", HeaderError::V1),
            (b"PROXY TCP4 \xff\r\n", HeaderError::V1),
        ] {
            assert_eq!(parse(bytes), Err(error), "{:?}", String::from_utf8_lossy(bytes));
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(V1_BYTES));
        assert_eq!(parse(long.as_bytes()), Err(HeaderError::TooLong));
        for (rest, error) in [
            ("11", HeaderError::V2),
            ("31", HeaderError::V2),
            ("2211 000c", HeaderError::V2),
            ("2111 000b c0a80001 c0a8000b dc04 01", HeaderError::V2),
            ("2121 000c c0a80001 c0a8000b dc04 01bb", HeaderError::V2),
            ("2111 ffff", HeaderError::TooLong),
        ] {
            assert_eq!(parse(&hex(&format!("{SIGNATURE} {rest}"))), Err(error), "{rest}");
        }
    }

    fn addresses() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_wherever_it_is_cut(
            source in addresses(),
            destination in addresses(),
            second in any::<bool>(),
            behind in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let version = if second { ProxyProtocol::V2 } else { ProxyProtocol::V1 };
            let written = write(version, Some(Ends { source, destination }));
            let all = [&written[..], &behind].concat();
            for cut in 0..written.len() {
                prop_assert_eq!(parse(&all[..cut]), Ok(None));
            }
            let Ok(Some(Header { ends: Some(ends), length })) = parse(&all) else { panic!("{written:?}") };
            prop_assert_eq!(length, written.len());
            let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
            prop_assert_eq!(canonical(ends.source), canonical(source));
            prop_assert_eq!(canonical(ends.destination), canonical(destination));
            prop_assert_eq!(ends.source.is_ipv4(), ends.destination.is_ipv4());
        }

        #[test]
        fn no_bytes_panic_and_more_of_them_change_no_verdict(
            v2 in any::<bool>(),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let all = [if v2 { V2 } else { V1 }, &bytes].concat();
            for bytes in [&bytes, &all] {
                let whole = parse(bytes);
                for cut in 0..bytes.len() {
                    match parse(&bytes[..cut]) {
                        Ok(None) => {}
                        verdict => prop_assert_eq!(verdict, whole),
                    }
                }
            }
        }
    }
}
