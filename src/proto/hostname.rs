//! Host names as DNS has them.

/// A DNS name of letters, digits and hyphens (RFC 1123), in lower case. The error says what is
/// expected.
pub fn parse(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !name.is_ascii() {
        return Err("write an international name in its ASCII form, xn--…".into());
    }
    if name.len() > 253 || !name.split('.').all(label) {
        return Err("write a host name of letters, digits, '-' and '.'".into());
    }
    Ok(name)
}
