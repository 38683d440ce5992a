//! Where spans go, as the option has it or the variables of all programs with OpenTelemetry.

use http::Uri;

use super::merge::{Env, Origin};

/// What the collector of a base address is told spans at.
const PATH: &str = "/v1/traces";

/// Reads `http(s)://HOST[:PORT][/PATH]`, and puts the path for traces behind it as the standard has it. One that has it
/// already stays.
pub(super) fn traces_url(text: &str) -> Result<String, String> {
    let text = checked(text)?.trim_end_matches('/');
    Ok(if text.ends_with(PATH) { text.to_owned() } else { format!("{text}{PATH}") })
}

fn checked(text: &str) -> Result<&str, String> {
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let good = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        good && matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none()
    });
    let expected =
        || format!("{text:?}: write http:// or https://, a host and a port, such as http://localhost:4318");
    uri.map(|_| text).ok_or_else(expected)
}

/// The URL that the variables of OpenTelemetry name, if they do, with the variable.
pub(super) fn from_environment(env: &Env) -> Option<Result<(String, Origin), String>> {
    let get = |name: &str| env.text(name);
    let off = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || get("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    let whole =
        get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(|url| ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url));
    let base = || get("OTEL_EXPORTER_OTLP_ENDPOINT").map(|url| ("OTEL_EXPORTER_OTLP_ENDPOINT", url));
    let (name, url) = whole.or_else(base).filter(|_| !off)?;
    for protocol in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        match get(protocol) {
            Some("http/protobuf") => break,
            Some(other) => {
                return Some(Err(format!(
                    "environment {protocol}: {other:?} is not spoken; write http/protobuf, and in {name} the collector's port \
                     for it, mostly 4318; or set OTEL_TRACES_EXPORTER to none"
                )));
            }
            None => {}
        }
    }
    let read =
        if name == "OTEL_EXPORTER_OTLP_ENDPOINT" { traces_url(url) } else { checked(url).map(str::to_owned) };
    let origin = Origin::Env(name.to_owned());
    Some(read.map_err(|error| format!("{origin}: {error}")).map(|url| (url, origin.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_for_traces_is_put_behind_an_address_once() {
        for (text, url) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
            ("https://a.example/otlp", "https://a.example/otlp/v1/traces"),
            ("https://a.example/otlp/v1/traces", "https://a.example/otlp/v1/traces"),
        ] {
            assert_eq!(traces_url(text).as_deref(), Ok(url));
            assert_eq!(traces_url(url).as_deref(), Ok(url));
        }
        for bad in ["", "localhost:4318", "ftp://a", "http://", "http://a?b", "http://u:p@a", "a b"] {
            assert!(traces_url(bad).unwrap_err().contains("http://localhost:4318"), "{bad}");
        }
    }

    #[test]
    fn the_variables_of_all_programs_are_honoured() {
        let read = |vars: &[(&str, &str)]| {
            let vars = vars.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
            from_environment(&Env { vars, root: false }).map(|read| read.map(|(url, _)| url))
        };
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:1/x");
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[base]), Some(Ok("http://a:4318/v1/traces".into())));
        assert_eq!(read(&[base, whole]), Some(Ok("http://b:1/x".into())));
        assert_eq!(read(&[base, ("OTEL_SDK_DISABLED", "true")]), None);
        assert_eq!(read(&[base, ("OTEL_TRACES_EXPORTER", "none")]), None);
        assert!(read(&[base, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]).unwrap().is_ok());
        let error = read(&[base, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap().unwrap_err();
        assert!(error.contains("4318") && error.contains("OTEL_EXPORTER_OTLP_PROTOCOL"), "{error}");
        let bad = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "a")]).unwrap().unwrap_err();
        assert!(bad.starts_with("environment OTEL_EXPORTER_OTLP_ENDPOINT: "), "{bad}");
    }
}
