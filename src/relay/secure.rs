//! Whether a request came as it has to: by https where that is wanted, and over a handshake for the same tenant.

use http::{HeaderMap, HeaderValue, Uri};

use super::Shared;
use super::errors::Cause;
use super::forward::says_https;
use super::route::{Route, split_host};
use super::viewer::{Connection, Security};

/// Probes of load balancers, which follow nowhere, and say nothing that is worth hiding.
const PROBE: &str = "/health";

/// Checks a request for `host` that leads to `route`.
pub fn check(
    shared: &Shared,
    connection: &Connection,
    route: &Route<'_>,
    host: &str,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Cause> {
    match &connection.security {
        Security::Tls { name: Some(name) } if !is_same_host(name, host) => {
            if is_same_tenant(shared, &shared.routes.route(name, "/"), route) {
                Ok(())
            } else {
                Err(Cause::Misdirected)
            }
        }
        Security::Tls { .. } => Ok(()),
        Security::Plain { tls_port: true } => Err(Cause::HttpsOnly(https_url(shared, route, host, uri))),
        Security::Plain { tls_port: false } => {
            let wanted = shared.tls.is_some() && shared.config.https_redirect && shared.routes.is_https();
            if !wanted
                || (*route == Route::Own && uri.path() == PROBE)
                || is_by_https(shared, connection, headers)
            {
                return Ok(());
            }
            // Unknown names are led nowhere: their 404 tells nothing that is not known.
            https_url(shared, route, host, uri).map_or(Ok(()), |url| Err(Cause::HttpsOnly(Some(url))))
        }
    }
}

fn is_same_host(name: &str, host: &str) -> bool {
    let host = split_host(host).map_or(host, |(host, _)| host);
    host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(name)
}

/// A browser may use one connection for all names of its certificate (RFC 9113, section 9.1.1). That is fine among names of
/// one owner; a request that slips from one tenant to another is refused, and comes again over a connection of its own.
fn is_same_tenant(shared: &Shared, asked: &Route<'_>, route: &Route<'_>) -> bool {
    let owner = |route: &Route<'_>| match route {
        Route::Host(name) => shared.registry.by_name(name).map(|tunnel| tunnel.owner.clone()),
        Route::Own | Route::Path(_) | Route::Nobody => None,
    };
    match (asked, route) {
        (Route::Host(asked), Route::Host(name)) if asked == name => true,
        (Route::Host(_), Route::Host(_)) => owner(asked).is_some_and(|asked| Some(asked) == owner(route)),
        // By path they share their origin anyway.
        (Route::Own | Route::Path(_), Route::Own | Route::Path(_)) => true,
        // A name that is nobody's says nothing about who was meant: the request is answered by its host.
        (Route::Nobody, _) => true,
        _ => false,
    }
}

/// Whether the viewer has TLS, with us or with a trusted proxy that says so.
pub fn is_by_https(shared: &Shared, connection: &Connection, headers: &HeaderMap) -> bool {
    connection.is_secure() || says_https(connection.remote.ip(), headers, &shared.config.trusted_proxies)
}

/// The same place by https, built from names that we know; never from what the viewer says of its host.
fn https_url(shared: &Shared, route: &Route<'_>, host: &str, uri: &Uri) -> Option<HeaderValue> {
    let routes = &shared.routes;
    let base = match route {
        Route::Own => routes.public_url().to_owned(),
        Route::Path(name) => shared.registry.by_name(name).map(|_| routes.public_url().to_owned())?,
        Route::Host(name) => {
            shared.registry.by_label(name)?;
            routes.url_of_domain(host).unwrap_or_else(|| routes.url_of(name))
        }
        Route::Nobody => return None,
    };
    if !base.starts_with("https://") {
        return None;
    }
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let slash = if target.starts_with('/') { "" } else { "/" };
    HeaderValue::from_str(&format!("{base}{slash}{target}")).ok()
}
