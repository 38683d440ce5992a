//! The answer to a viewer when the target cannot be reached: address, error and likely fix, for people or programs.

use super::target::TargetError;
use super::text::html;

/// Whether the head of a request is complete.
pub(super) fn head_ends(head: &[u8]) -> bool {
    memchr::memmem::find(head, b"\r\n\r\n").is_some()
}

/// A whole 502 response to the request that `head` begins. HTML if its `Accept` names that, else problem details
/// (RFC 9457); HEAD gets no body.
pub(super) fn bad_gateway(head: &[u8], error: &TargetError) -> Vec<u8> {
    let mut lines = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut lines);
    let _ = request.parse(head);
    let accepts_html = request.headers.iter().any(|line| {
        line.name.eq_ignore_ascii_case("accept") && memchr::memmem::find(line.value, b"text/html").is_some()
    });
    let (kind, body) = if accepts_html {
        ("text/html; charset=utf-8", page(error))
    } else {
        ("application/problem+json", problem(error))
    };
    let mut answer = format!(
        "HTTP/1.1 502 Bad Gateway\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    if request.method != Some("HEAD") {
        answer.push_str(&body);
    }
    answer.into_bytes()
}

fn problem(error: &TargetError) -> String {
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": "Bad gateway",
        "status": 502,
        "detail": format!("The tunnel works, but its client {error}."),
        "cause": "target_unreachable",
        "reason": error.code(),
        "fix": error.fix(),
    });
    format!("{problem}\n")
}

fn page(error: &TargetError) -> String {
    let (target, reason, fix) = (html(&error.target), html(&error.error), html(error.fix()));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>502 Nothing behind the tunnel</title>\
         <style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:36rem;\
         margin:18vh auto 0;padding:0 1.5rem}}h1{{font-size:1.4rem}}code{{font-size:.95em;overflow-wrap:anywhere}}\
         small{{opacity:.65}}</style></head><body><h1>The tunnel works, the service behind it does not answer</h1>\
         <p>The client could not reach <code>{target}</code>:<br><code>{reason}</code></p><p>{fix}</p>\
         <p><small>502 Bad gateway · target_unreachable</small></p></body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::target::{Fault, Target};

    fn answer(head: &str) -> String {
        let error = TargetError::new(&Target::port_here(3000), Fault::Refused, "<b>refused</b>".into());
        String::from_utf8(bad_gateway(head.as_bytes(), &error)).unwrap()
    }

    #[test]
    fn browsers_get_a_page_and_programs_get_problem_details() {
        let html = answer("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html,*/*\r\n\r\n");
        let (head, body) = html.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 502 ") && head.contains("\r\nConnection: close"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("http://localhost:3000") && body.contains("start your server"), "{body}");
        assert!(body.contains("&lt;b&gt;") && !body.contains("<b>"), "{body}");
        let json = answer("POST / HTTP/1.1\r\nHost: a\r\n\r\n");
        let value: serde_json::Value = serde_json::from_str(json.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&value["status"], &value["reason"]), (&502.into(), &"refused".into()));
    }

    #[test]
    fn head_gets_no_body_and_nonsense_gets_an_answer() {
        let head = answer("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head.ends_with("\r\n\r\n") && !head.contains("Content-Length: 0"), "{head}");
        assert!(answer("\x00\x01\r\n\r\n").contains("problem+json"));
    }
}
