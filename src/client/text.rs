//! Texts for people and for URLs: what strangers sent made harmless, sizes and times made readable.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

/// Whether a character could steer a terminal, or hide something from a reader: control characters, and those that turn
/// the direction of writing or have no width.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `text` with everything escaped that could steer a terminal.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, steers, |safe, c| safe.extend(c.escape_default()))
}

/// The same for a text that is JSON, and stays so: serde leaves most of these characters as they are. Line ends between
/// its values are kept.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    escaped(
        json,
        |c| c != '\n' && steers(c),
        |safe, c| {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        },
    )
}

fn escaped(text: &str, which: fn(char) -> bool, escape: fn(&mut String, char)) -> Cow<'_, str> {
    if !text.contains(which) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if which(c) {
            escape(&mut safe, c);
        } else {
            safe.push(c);
        }
    }
    safe.into()
}

/// `text` for HTML, in content and in quoted attributes.
pub(super) fn html(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
        safe
    })
}

/// `text` as one segment or value of a URL (RFC 3986, unreserved characters stay).
pub fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// A number of bytes: `17 B`, `3.2 kB`, `10 MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1000.0, 0);
    // From 999.5 on it would be written as 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if value < 9.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// A time that passed: `3ms`, `1.2s`, `2m5s`, `3h12m`, `4d3h`.
pub fn elapsed(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1000 => format!("{millis}ms"),
        millis @ 1000..60_000 => format!("{:.1}s", millis as f64 / 1000.0),
        millis @ 60_000..3_600_000 => format!("{}m{}s", millis / 60_000, millis / 1000 % 60),
        millis @ 3_600_000..86_400_000 => format!("{}h{}m", millis / 3_600_000, millis / 60_000 % 60),
        millis => format!("{}d{}h", millis / 86_400_000, millis / 3_600_000 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(visible("/ünïcode ok"), "/ünïcode ok");
        assert_eq!(visible("\x1b[2J\r\n\u{9b}m"), "\\u{1b}[2J\\r\\n\\u{9b}m");
        assert_eq!(visible("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(
            visible_json("{\"a\u{9b}\u{e0041}\":\n\"\u{7f}é\"}"),
            "{\"a\\u009b\\udb40\\udc41\":\n\"\\u007fé\"}"
        );
    }

    #[test]
    fn html_and_urls_are_escaped() {
        assert_eq!(html("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
        assert_eq!(percent_encode("abc d/+1é~"), "abc%20d%2F%2B1%C3%A9~");
    }

    #[test]
    fn sizes_and_times_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (20_000_000, "20 MB"), (999_999, "1.0 MB")]
        {
            assert_eq!(size(bytes), text);
        }
        for (millis, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1250, "1.2s"),
            (125_000, "2m5s"),
            (3_600_000, "1h0m"),
            (273_600_000, "3d4h"),
        ] {
            assert_eq!(elapsed(Duration::from_millis(millis)), text);
        }
    }
}
