//! The trace that a request belongs to, as its `traceparent` header says it (W3C Trace Context, section 3.2).

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Says to which trace a request belongs, and which span it comes from.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What others add to it; without a valid `traceparent` it means nothing.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const LENGTH: usize = 55;

/// The id of a trace; shown as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Which trace.
    pub trace: TraceId,
    /// The span that a request comes from.
    pub span: [u8; 8],
    /// Whether the trace is being recorded.
    pub sampled: bool,
}

impl TraceParent {
    /// That of a request; `None` where there is none, or none that is valid. Several are none.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        match (all.next(), all.next()) {
            (Some(one), None) => Self::parse(one.as_bytes()),
            _ => None,
        }
    }

    /// Reads the header's value, of this version and of later ones as far as they agree with it.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, later) = value.split_at_checked(LENGTH)?;
        let [a, b, b'-', rest @ ..] = known else { return None };
        let [version] = hex([*a, *b])?;
        let good = match version {
            0 => later.is_empty(),
            0xff => false,
            _ => later.first().is_none_or(|byte| *byte == b'-'),
        };
        let (trace, rest) = rest.split_first_chunk::<32>().filter(|_| good)?;
        let (span, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<16>()?;
        let flags = rest.strip_prefix(b"-")?.first_chunk::<2>()?;
        let (trace, span, [flags]) = (hex::<32, 16>(*trace)?, hex::<16, 8>(*span)?, hex::<2, 1>(*flags)?);
        let named = trace != [0; 16] && span != [0; 8];
        named.then_some(Self { trace: TraceId(trace), span, sampled: flags & 1 == 1 })
    }

    /// The header's value.
    pub fn header(&self) -> Option<HeaderValue> {
        let Self { trace, span, sampled } = self;
        let span = u64::from_be_bytes(*span);
        HeaderValue::try_from(format!("00-{trace}-{span:016x}-{:02x}", u8::from(*sampled))).ok()
    }
}

/// Reads digits in lower case, as the standard wants them.
fn hex<const DIGITS: usize, const BYTES: usize>(digits: [u8; DIGITS]) -> Option<[u8; BYTES]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<TraceParent> {
        TraceParent::parse(text.as_bytes())
    }

    #[test]
    fn a_parent_is_read_and_written_alike() {
        let parent = parse(EXAMPLE).unwrap();
        assert_eq!(parent.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((parent.span[7], parent.sampled), (0xb7, true));
        assert_eq!(parent.header().unwrap(), EXAMPLE);
        assert!(!parse(&EXAMPLE.replace("-01", "-02")).unwrap().sampled, "a flag that has no meaning yet");
    }

    #[test]
    fn a_later_version_may_have_more_behind_it() {
        let later = EXAMPLE.replacen("00", "cc", 1);
        for good in [later.clone(), format!("{later}-more"), format!("{later}-")] {
            assert_eq!(parse(&good), parse(EXAMPLE), "{good}");
        }
        assert_eq!(parse(&format!("{later}.more")), None);
    }

    #[test]
    fn what_is_not_as_the_standard_has_it_is_none() {
        for bad in [
            String::new(),
            "00".into(),
            EXAMPLE[..54].into(),
            format!("{EXAMPLE}-"),
            format!("{EXAMPLE}0"),
            format!(" {EXAMPLE}"),
            EXAMPLE.to_ascii_uppercase(),
            EXAMPLE.replacen("00", "ff", 1),
            EXAMPLE.replacen("00", "0x", 1),
            EXAMPLE.replacen('-', "_", 1),
            EXAMPLE.replace("-00f0", "_00f0"),
            EXAMPLE.replace("b7-01", "b7_01"),
            EXAMPLE.replace("4bf9", "4bg9"),
            EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn of_several_none_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceParent::of(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        assert_eq!(TraceParent::of(&headers), parse(EXAMPLE));
        headers.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        assert_eq!(TraceParent::of(&headers), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            TraceParent::parse(&bytes);
        }

        #[test]
        fn whatever_is_read_is_written_so(trace: [u8; 16], span: [u8; 8], sampled: bool) {
            let parent = TraceParent { trace: TraceId(trace), span, sampled };
            let read = TraceParent::parse(parent.header().unwrap().as_bytes());
            prop_assert_eq!(read, Some(parent).filter(|_| trace != [0; 16] && span != [0; 8]));
        }
    }
}
