//! What a viewer reads of a cause: a page for browsers, problem details for programs.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::Full;

use super::{Cause, Text};
use crate::relay::policy;
use crate::tunnel::seconds;

impl Cause {
    /// The page: HTML for browsers, problem details (RFC 9457) for everybody else.
    pub fn page(&self, html: bool, request_id: &str) -> Response<Full<Bytes>> {
        match self {
            Self::Told(_, page) if html => return policy::offline(self.status(), page, request_id),
            Self::Told(cause, _) => return cause.page(html, request_id),
            Self::Interstitial(page) => return page.answer(request_id),
            Self::NoWorker => return self.plain(request_id),
            _ => {}
        }
        let text = self.text();
        let detail = self.detail();
        let body = if html {
            html_page(&text, &escaped(&detail), request_id)
        } else {
            let problem = serde_json::json!({
                "type": "about:blank", "title": text.title, "status": text.status, "detail": detail,
                "cause": text.label, "request_id": request_id,
            });
            format!("{problem}\n")
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        let kind = if html { "text/html; charset=utf-8" } else { "application/problem+json" };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert("x-request-id", id);
        }
        match self {
            Self::AuthRequired => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Basic realm=\"tunnel\", charset=\"UTF-8\""),
                );
            }
            Self::HttpsOnly(Some(url)) => {
                headers.insert(header::LOCATION, url.clone());
            }
            Self::MethodNotAllowed => {
                headers.insert(
                    header::ALLOW,
                    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
                );
            }
            // What follows a malformed request on its connection is not to be trusted to begin where it seems to.
            Self::RateLimited(wait) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(wait)));
            }
            Self::SignatureRefused => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Signature"));
            }
            _ if matches!(text.status, 400 | 408) => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ if text.status == 503 => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        response
    }

    /// The text alone, as programs know it.
    fn plain(&self, request_id: &str) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(format!("{}\n", self.text().detail)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert("x-request-id", id);
        }
        response
    }
}

/// Whether `Accept` names HTML, as browsers do for pages.
pub fn wants_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|value| value.to_str().is_ok_and(|text| text.contains("text/html")))
}

fn html_page(text: &Text, detail: &str, request_id: &str) -> String {
    let Text { status, label, title, .. } = text;
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{status} {title}</title>\
         <style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:34rem;\
         margin:18vh auto 0;padding:0 1.5rem}}h1{{font-size:1.4rem}}small{{opacity:.65}}</style></head>\
         <body><h1>{status} {title}</h1><p>{detail}</p><p><small>{label} · request {request_id}</small></p></body></html>\n"
    )
}

/// The client's words, which must not become markup.
pub(in crate::relay) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A short id for one request: unique within the relay's life and hard to guess across it.
pub fn request_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_html_for_browsers_and_problem_json_for_programs() {
        let mut headers = HeaderMap::new();
        let json = Cause::NotClaimed.page(wants_html(&headers), "r1");
        assert_eq!(
            (json.status().as_u16(), &json.headers()["content-type"]),
            (504, &HeaderValue::from_static("application/problem+json"))
        );
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/html,*/*;q=0.8"));
        let html = Cause::ClientOffline.page(wants_html(&headers), "r1");
        assert_eq!(html.headers()["content-type"], "text/html; charset=utf-8");
        assert_eq!(html.headers()["retry-after"], "2");
        assert_eq!(html.headers()["x-request-id"], "r1");
    }
}
