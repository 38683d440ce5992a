//! Reads and writes the values of options as text; each error names the value and says what is expected.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::auth::jwt::MIN_SECRET;
use crate::auth::keys::is_key_name;
use crate::auth::password::BasicAuth;
use crate::auth::{Secret, StaticKey};
use crate::proto::duration;
use crate::proto::limits::admin::PASSWORD_CHARS;

/// What `--check` prints in the place of a secret, and what is therefore no secret.
pub(crate) const HIDDEN: &str = "***";

const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

fn expected<T>(text: &str, what: impl Display) -> Result<T, String> {
    Err(format!("{text:?}: expected {what}"))
}

/// The value of an option that is given once.
pub(super) fn one(values: &[String]) -> Result<&str, String> {
    match values {
        [value] => Ok(value),
        _ => Err(format!("expected one value, not {}", values.len())),
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { expected(text, "a path") } else { Ok(text.into()) }
}

pub(super) fn email(text: &str) -> Result<String, String> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == ',';
    match text.split_once('@') {
        Some((user, host)) if !user.is_empty() && host.contains('.') && !text.contains(bad) => {
            Ok(text.to_owned())
        }
        _ => expected(text, "an address, such as admin@example.com"),
    }
}

pub(super) fn https_url(text: &str) -> Result<String, String> {
    let uri = text.parse::<::http::Uri>();
    match uri {
        Ok(uri) if uri.scheme_str() == Some("https") && uri.host().is_some() => Ok(text.to_owned()),
        _ => expected(text, "a URL that begins with https://"),
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().or_else(|_| expected(text, "an address and a port, such as 127.0.0.1:8080 or [::]:8080"))
}

/// `unix:` and a whole path.
pub(super) fn unix_path(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix:").filter(|path| path.starts_with('/'));
    path.map_or_else(
        || expected(text, "unix: and a whole path, such as unix:/run/adit/web.sock"),
        |path| Ok(path.into()),
    )
}

/// Permissions of a file.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && !text.starts_with('+'));
    mode.map_or_else(|| expected(text, "permissions in octal, such as 0660"), Ok)
}

pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().or_else(|_| expected(text, "an address, such as 0.0.0.0 or ::"))
}

/// `FROM-TO`, or one port.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let port =
        |text: &str| number(text.trim()).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    match (port(from), port(to)) {
        (Some(from), Some(to)) if from <= to => Ok(from..=to),
        _ => expected(text, "a range of ports, such as 20000-20999"),
    }
}

/// A network, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.or_else(|_| expected(text, "an address or a network, such as 10.0.0.1 or 10.0.0.0/8"))
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        // What TOML calls them.
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => expected(text, "on or off"),
    }
}

pub(super) fn show_switch(on: bool) -> String {
    if on { "on" } else { "off" }.into()
}

pub(super) fn wait(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let wait = duration::parse(text).ok().filter(|wait| range.contains(wait));
    let [from, to] = [range.start(), range.end()].map(|end| show_wait(*end));
    wait.map_or_else(
        || expected(text, format_args!("a duration from {from} to {to}, such as 90s or 1h30m")),
        Ok,
    )
}

/// The shortest way to write a duration that [`duration::parse`] reads back.
pub(super) fn show_wait(wait: Duration) -> String {
    let seconds = wait.as_secs();
    match wait.subsec_millis() {
        0 if seconds == 0 => "0".into(),
        0 if seconds.is_multiple_of(86400) => format!("{}d", seconds / 86400),
        0 if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        0 if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        0 => format!("{seconds}s"),
        _ => format!("{}ms", wait.as_millis()),
    }
}

fn number(text: &str) -> Option<u64> {
    // `parse` alone takes a plus sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn bytes(text: &str) -> Option<u64> {
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (digits, factor) = unit.unwrap_or((text, 1));
    number(digits.trim_end())?.checked_mul(factor)
}

pub(super) fn size(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let size = bytes(text).and_then(|size| usize::try_from(size).ok()).filter(|size| range.contains(size));
    let [from, to] = [range.start(), range.end()].map(|end| show_size(*end as u64));
    size.map_or_else(
        || expected(text, format_args!("a size from {from} to {to}, such as 65536 or 64KiB")),
        Ok,
    )
}

pub(super) fn show_size(size: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, factor)| size > 0 && size.is_multiple_of(*factor));
    unit.map_or_else(|| size.to_string(), |(unit, factor)| format!("{}{unit}", size / factor))
}

pub(super) fn size_or_none(text: &str) -> Result<Option<u64>, String> {
    if text == "none" {
        return Ok(None);
    }
    let size = bytes(text).map(|size| (size > 0).then_some(size));
    size.map_or_else(|| expected(text, "a size, such as 1000000 or 100MiB, or none"), Ok)
}

pub(super) fn count(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let count =
        number(text).and_then(|count| usize::try_from(count).ok()).filter(|count| range.contains(count));
    count.map_or_else(
        || expected(text, format_args!("a number from {} to {}", range.start(), range.end())),
        Ok,
    )
}

pub(super) fn count_or_none(text: &str) -> Result<Option<usize>, String> {
    if text == "none" {
        return Ok(None);
    }
    let count = number(text).and_then(|count| usize::try_from(count).ok());
    count.map_or_else(|| expected(text, "a number, or none"), |count| Ok((count > 0).then_some(count)))
}

/// Text, or `none` for a limit that is not set.
pub(super) fn show_or_none<T>(value: Option<T>, show: impl Fn(T) -> String) -> Vec<String> {
    vec![value.map_or_else(|| "none".into(), show)]
}

/// Checks the name of a key.
pub(crate) fn key_name(text: &str) -> Result<(), String> {
    if is_key_name(text) {
        Ok(())
    } else {
        expected(text, "a name of 1 to 64 letters, digits, '.', '_' and '-'")
    }
}

/// `NAME:SECRET`. No error shows the secret, or text that might be one.
pub(super) fn static_key(text: &str, position: usize) -> Result<StaticKey, String> {
    let (name, secret) =
        text.split_once(':').ok_or_else(|| format!("key {position} has no ':'; expected NAME:SECRET"))?;
    if !is_key_name(name) {
        return Err(format!(
            "the name of key {position}: expected 1 to 64 letters, digits, '.', '_' and '-'"
        ));
    }
    if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("the secret of key {name:?}: expected visible ASCII characters, at least one"));
    }
    if secret == HIDDEN {
        return Err(format!(
            "the secret of key {name:?} is the {HIDDEN} that --check prints; write the real one"
        ));
    }
    Ok(StaticKey { name: name.into(), secret: Secret::new(secret) })
}

/// A secret that signs tokens. No error shows it.
pub(super) fn jwt_secret(text: &str, position: usize) -> Result<Secret, String> {
    if text == HIDDEN {
        return Err(format!("secret {position} is the {HIDDEN} that --check prints; write the real one"));
    }
    if text.len() < MIN_SECRET {
        return Err(format!(
            "secret {position} has {} bytes; expected at least {MIN_SECRET}, such as `openssl rand -hex 32` prints",
            text.len()
        ));
    }
    Ok(Secret::new(text))
}

/// A secret that signs the tokens of workers; its length is not ours to choose. No error shows it.
pub(super) fn worker_secret(text: &str, position: usize) -> Result<Secret, String> {
    if text == HIDDEN {
        return Err(format!("secret {position} is the {HIDDEN} that --check prints; write the real one"));
    }
    Ok(Secret::new(text))
}

/// The dashboard's password. No error shows it.
pub(crate) fn admin_password(text: &str) -> Result<Secret, String> {
    if text == HIDDEN {
        return Err(format!("the password is the {HIDDEN} that --check prints; write the real one"));
    }
    if text.chars().count() < PASSWORD_CHARS {
        return Err(format!("expected a password of at least {PASSWORD_CHARS} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("a password has no control character".to_owned());
    }
    Ok(Secret::new(text))
}

/// The same, hashed. No error shows it.
pub(super) fn admin_password_hash(text: &str) -> Result<Secret, String> {
    match BasicAuth::from_text(text) {
        Ok(_) => Ok(Secret::new(text)),
        Err(_) => Err("expected what `adit gen password-hash` prints".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_an_optional_unit() {
        for (text, bytes) in
            [("65536", 65536), ("64KiB", 65536), ("1MiB", 1 << 20), ("2 GiB", 1 << 31), ("0", 0)]
        {
            assert_eq!(size(text, 0..=usize::MAX), Ok(bytes), "{text}");
            assert_eq!(size(&show_size(bytes as u64), 0..=usize::MAX), Ok(bytes), "{text}");
        }
        for bad in ["", "-1", "+1", "1.5KiB", "KiB", "1kb", "1K", "99999999999GiB", "1KiBKiB"] {
            assert!(size(bad, 0..=usize::MAX).is_err(), "{bad}");
        }
        let error = size("9MiB", 8192..=1 << 20).unwrap_err();
        assert_eq!(error, "\"9MiB\": expected a size from 8KiB to 1MiB, such as 65536 or 64KiB");
        assert_eq!([size_or_none("0"), size_or_none("none")], [Ok(None), Ok(None)]);
        assert_eq!(size_or_none("1KiB"), Ok(Some(1024)));
        assert_eq!([count_or_none("0"), count_or_none("7")], [Ok(None), Ok(Some(7))]);
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        let all = Duration::ZERO..=Duration::MAX;
        for text in ["0", "100ms", "1500ms", "90s", "1m", "36h", "30d"] {
            assert_eq!(show_wait(wait(text, all.clone()).unwrap()), text);
        }
        let error = wait("5x", Duration::from_millis(100)..=Duration::from_secs(3600)).unwrap_err();
        assert_eq!(error, "\"5x\": expected a duration from 100ms to 1h, such as 90s or 1h30m");
    }

    #[test]
    fn networks_and_addresses_are_read_strictly() {
        assert_eq!(network("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert!(network("10.0.0.0/33").is_err() && network("example.com").is_err());
        assert!(address("8080").is_err() && address("localhost:80").is_err() && address("[::1]:80").is_ok());
    }

    #[test]
    fn no_error_about_a_key_shows_its_secret() {
        assert_eq!(static_key("alice:nbk_1:2", 1).unwrap().secret.expose(), "nbk_1:2");
        for bad in ["s3cret", ":s3cret", "a b:s3cret", "alice:s3cret x", "alice:"] {
            let error = static_key(bad, 3).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
            assert!(error.contains('3') || error.contains("alice"), "{error}");
        }
        assert!(static_key("alice:***", 1).is_err());
    }

    #[test]
    fn a_password_of_the_dashboard_is_long_enough_and_no_error_shows_it() {
        assert_eq!(admin_password("s3cret-8").unwrap().expose(), "s3cret-8");
        for bad in ["s3cret", "s3cret\ns3cret", HIDDEN] {
            let error = admin_password(bad).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
        let error = admin_password_hash("s3cret-s3cret").unwrap_err();
        assert!(error.contains("adit gen password-hash") && !error.contains("s3cret"), "{error}");
        assert!(admin_password_hash(HIDDEN).is_err());
    }

    #[test]
    fn a_secret_for_tokens_has_32_bytes_and_no_error_shows_it() {
        assert_eq!(jwt_secret(&"s".repeat(32), 1).unwrap().expose(), "s".repeat(32));
        let error = jwt_secret(&"s3cret-".repeat(4), 2).unwrap_err();
        assert!(error.starts_with("secret 2 has 28 bytes; expected at least 32"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
        assert!(jwt_secret(HIDDEN, 1).unwrap_err().contains("--check"));
    }
}
