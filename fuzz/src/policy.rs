//! Policies and what they decide: whatever is written is refused in words or stored as it is; no header makes a signature
//! out of nothing, and no change of headers makes another line.

use adit::proto::policy::Policy as Written;
use adit::relay::onward::Onward;
use adit::tunnel::policy::{Given, Policy, PolicyError};
use http::{HeaderMap, HeaderName, HeaderValue};

use adit::proto::http1::RequestBody;

/// See the top.
pub fn check(data: &[u8]) {
    // The second part, behind an empty line, is a header of a viewer.
    let end = data.windows(2).position(|bytes| bytes == b"\n\n").unwrap_or(data.len());
    let (policy, sent) = (&data[..end], data.get(end + 2..).unwrap_or_default());
    let Ok(mut written) = serde_json::from_slice::<Written>(policy) else { return };
    // Hashing takes longer than anything else here.
    written.auth = None;
    let checked = match Policy::check(&written, &Given::default()) {
        Err(PolicyError::Wrong(wrong)) => return assert!(!wrong.is_empty()),
        Err(error) => panic!("{error}"),
        Ok(None) => return assert!(written.is_empty()),
        Ok(Some(checked)) => checked,
    };
    // What is shown is a policy again, if it has no secrets.
    let shown = serde_json::to_vec(&checked.shown()).expect("JSON");
    let shown: Written = serde_json::from_slice(&shown).expect("what was written is read");
    if checked.signatures.is_empty() {
        let again = Policy::check(&shown, &Given::default()).expect("good").expect("some");
        assert!(again == checked);
    }
    let _ = checked.admit_connection([192, 0, 2, 1].into());
    let mut headers = HeaderMap::new();
    for name in ["x-signature", "x-hub-signature-256", "stripe-signature", "x-time", "cookie", "x-a"] {
        if let Ok(value) = HeaderValue::from_bytes(sent) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    for signature in &checked.signatures {
        if let Some(claim) = signature.claimed(&headers, 1_700_000_000) {
            assert!(!claim.holds(b"a body that nobody has signed"));
        }
    }
    let (host, via) = (HeaderValue::from_static("x.io"), HeaderValue::from_static("fuzz"));
    let onward =
        Onward { body: RequestBody::Length(3), policy: Some(&checked), ..Onward::plain(&host, &via) };
    let head = onward.head(&headers);
    let mut lines = [httparse::EMPTY_HEADER; 200];
    let mut parsed = httparse::Request::new(&mut lines);
    assert_eq!(parsed.parse(&head).expect("a request"), httparse::Status::Complete(head.len()));
    let count =
        |name: &str| parsed.headers.iter().filter(|line| line.name.eq_ignore_ascii_case(name)).count();
    for name in ["host", "content-length", "x-forwarded-for"] {
        assert_eq!(count(name), 1, "{name}");
    }
    assert!(count("transfer-encoding") == 0 && count("connection") == 0 && count("cookie") <= 1);
    assert_eq!(memchr::memchr_iter(b'\n', &head).count(), parsed.headers.len() + 2);
    checked.response.apply(&mut headers);
    assert!(!headers.contains_key("content-length") && !headers.contains_key("transfer-encoding"));
}
