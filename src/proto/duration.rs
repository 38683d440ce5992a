//! Durations as the REST API writes them: Go's notation, such as `1h0m0s`.

use std::time::Duration;

/// Why a duration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration; write for example 90s, 30m, 1h30m or 0 for none")]
pub struct DurationError(pub String);

/// Reads a non-negative duration: `0`, or numbers with units (`h`, `m`, `s`, `ms`; `d` is ours), biggest first or
/// not, with a fraction where wanted: `1h30m`, `1.5h`, `500ms`.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError(text.to_owned());
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(error());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
        let number: f64 = rest[..digits].parse().map_err(|_| error())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(error()),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| error())?;
        total = total.checked_add(part).ok_or_else(error)?;
        rest = &rest[unit_end..];
    }
    // A hundred years: beyond it, adding to a date overflows.
    if total > Duration::from_secs(100 * 366 * 86400) { Err(error()) } else { Ok(total) }
}

/// Writes a duration as Go does: `0s`, `1.5s`, `1m0s`, `1h0m0s`.
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let millis = duration.subsec_millis();
    let fraction =
        if millis == 0 { String::new() } else { format!(".{millis:03}").trim_end_matches('0').to_owned() };
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}{fraction}s"),
        (0, _) => format!("{minutes}m{rest}{fraction}s"),
        _ => format!("{hours}h{minutes}m{rest}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_notation_of_go() {
        for (text, seconds, written) in [
            ("0", 0.0, "0s"),
            ("90s", 90.0, "1m30s"),
            ("1h", 3600.0, "1h0m0s"),
            ("1h30m", 5400.0, "1h30m0s"),
            ("1.5h", 5400.0, "1h30m0s"),
            ("1500ms", 1.5, "1.5s"),
            ("2d", 172800.0, "48h0m0s"),
        ] {
            let duration = parse(text).unwrap();
            assert_eq!(duration, Duration::from_secs_f64(seconds), "{text}");
            assert_eq!(format(duration), written, "{text}");
        }
        for bad in ["", "-1h", "1", "h", "1x", "1h-2m", "99999999999999h", "1e400s", "nan", "1..2s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
