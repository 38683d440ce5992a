//! Base64, which tokens are written in.

/// Base64 of RFC 4648 without padding; `last` are the digits 62 and 63. Small enough to need no crate.
pub(crate) fn unbase64(digits: &str, last: [u8; 2]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            digit if digit == last[0] => 62,
            digit if digit == last[1] => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    // One digit alone holds no byte.
    (digits.len() % 4 != 1).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_in_both_alphabets() {
        assert_eq!(unbase64("YW5u-_8", *b"-_"), Some(b"ann\xfb\xff".to_vec()));
        assert_eq!(unbase64("YW5u+/8", *b"+/"), Some(b"ann\xfb\xff".to_vec()));
        for bad in ["YW5u+/8", "YW5uYW5uY", "YW5=", " YW5"] {
            assert_eq!(unbase64(bad, *b"-_"), None, "{bad}");
        }
    }
}
