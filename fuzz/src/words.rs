//! Names, durations, hosts and URLs as strangers and users write them: what is taken is taken again as it is shown.

use adit::client::text::visible;
use adit::client::{RelayUrl, Target};
use adit::proto::duration;
use adit::proto::name::Name;
use adit::relay::public_url::{PublicUrl, base_domain};
use adit::relay::route::{is_valid_host, split_host};

/// See the top.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = Name::parse(text) {
        assert_eq!(Name::parse(name.as_str()), Ok(name));
    }
    if let Ok(parsed) = duration::parse(text) {
        assert!(duration::parse(&duration::format(parsed)).is_ok());
    }
    if let Ok(target) = Target::parse(text) {
        assert_eq!(Target::parse(&target.to_string()), Ok(target));
    }
    if let Ok(url) = RelayUrl::parse(text) {
        assert_eq!(RelayUrl::parse(&url.to_string()), Ok(url.clone()));
        assert!(url.uri("/v1/tunnels").is_some());
    }
    if let Ok(url) = PublicUrl::parse(text) {
        assert_eq!(PublicUrl::parse(&url.to_string()), Ok(url));
    }
    if let Ok(domain) = base_domain(text) {
        assert_eq!(base_domain(&domain), Ok(domain));
    }
    if is_valid_host(text) {
        let (host, port) = split_host(text).expect("a valid host has its parts");
        assert!(!host.is_empty() && text.starts_with(host));
        assert!(port.is_none_or(|port| text.ends_with(port)));
    }
    assert!(!visible(text).contains(char::is_control));
}
