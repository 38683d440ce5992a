//! Tokens and passwords: none is taken that a secret has not signed, and a look at one says the same as its check.

use adit::auth::Secret;
use adit::auth::jwt::{MAX_TOKEN, Secrets, looks_like};
use adit::auth::password::{BasicAuth, Verdict};
use http::HeaderValue;

/// Within the times of the kept tokens, in Unix milliseconds.
const NOW: i64 = 1_700_000_000_000;

/// See the top.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let ours = Secrets::new(vec![Secret::new("0123456789abcdef0123456789abcdef".to_owned())]);
    for secrets in [&ours, &Secrets::default()] {
        let (verified, inspected) = (secrets.verify(text, NOW), secrets.inspect(text, NOW));
        assert_eq!(inspected.is_valid(), verified.is_ok());
        if verified.is_ok() {
            assert!(looks_like(text) && text.len() <= MAX_TOKEN && !secrets.is_empty());
        }
    }
    if let Ok(auth) = BasicAuth::from_text(text) {
        assert!(BasicAuth::from_text(&auth.to_text()).is_ok());
    }
    let stored = format!("pbkdf2-sha256$1${}${}", "00".repeat(16), "00".repeat(32));
    let auth = BasicAuth::from_text(&stored).expect("a stored password");
    if let Ok(value) = HeaderValue::from_bytes(data) {
        assert_ne!(auth.check(Some(&value)), Verdict::Accepted);
        assert!(!auth.verify_slow(&value));
    }
}
