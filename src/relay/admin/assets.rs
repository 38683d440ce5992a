//! The files of the dashboard, in the program itself.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::problem::Problem;
use crate::auth::{hex, sha256};
use crate::relay::errors::escaped;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("assets/", $name)))),*]
    };
}

/// Those at `/assets/NAME`.
const FILES: &[(&str, &[u8])] = files![
    "actions.js",
    "api.js",
    "app.js",
    "asking.js",
    "charts.js",
    "client.js",
    "detail.js",
    "dialogs.js",
    "dom.js",
    "events.js",
    "facts.js",
    "fleet.js",
    "format.js",
    "history.js",
    "icon.svg",
    "keys.js",
    "latest.js",
    "list.js",
    "listview.js",
    "live.js",
    "marks.js",
    "route.js",
    "shortcuts.js",
    "spread.js",
    "stats.js",
    "strip.js",
    "style.css",
    "table.js",
    "tunnel.js",
    "tunnels.js",
    "vendor/uplot/uPlot.iife.min.js",
    "vendor/uplot/uPlot.min.css",
    "views.css",
];
const INDEX: &str = include_str!("assets/index.html");
const LOGIN: &str = include_str!("assets/login.html");
/// Where the login page has its sentence.
const ERROR: &str = "{{error}}";

/// A file that is ready to be sent.
struct Asset {
    kind: HeaderValue,
    content: &'static [u8],
    /// Changes with the content.
    tag: HeaderValue,
}

static ASSETS: LazyLock<HashMap<&'static str, Asset>> = LazyLock::new(|| {
    let asset = |(name, content): &(&'static str, &'static [u8])| {
        let tag = format!("\"{}\"", &hex(&sha256(content))[..32]);
        let tag = HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""));
        (*name, Asset { kind: HeaderValue::from_static(kind(name)), content, tag })
    };
    FILES.iter().map(asset).collect()
});

/// The type that a name stands for.
fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// `GET /assets/NAME`; 304 for who has it already.
pub async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.get(name.as_str()) else {
        return Problem::not_found("there is no such file").into_response();
    };
    let common = [
        (header::ETAG, asset.tag.clone()),
        // Asked for anew each time: another version of the program has other files under the same names.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if headers.get_all(header::IF_NONE_MATCH).iter().any(|tag| has(tag, &asset.tag)) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(header::CONTENT_TYPE, asset.kind.clone())], asset.content).into_response()
}

/// Whether a list of tags has this one (RFC 9110, section 13.1.2), be it a weak one.
fn has(list: &HeaderValue, tag: &HeaderValue) -> bool {
    let tags = list.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tags.map(|known| known.strip_prefix(b"W/").unwrap_or(known)).any(|known| known == tag.as_bytes())
}

/// The dashboard.
pub fn index() -> Html<&'static str> {
    Html(INDEX)
}

/// The login page with a sentence, or with none.
pub fn login(error: &str) -> Html<String> {
    Html(LOGIN.replacen(ERROR, &escaped(error), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_page_has_one_place_for_a_sentence_which_is_no_markup() {
        assert_eq!(LOGIN.matches(ERROR).count(), 1);
        assert!(LOGIN.contains("action=\"/login\"") && LOGIN.contains("name=\"password\""));
        assert!(!login("").0.contains(ERROR));
        assert!(login("<b>\"&").0.contains("&lt;b&gt;&quot;&amp;"));
    }

    /// The content security policy forbids it, so it would do nothing.
    #[test]
    fn no_page_has_script_or_style_in_itself() {
        for page in [INDEX, LOGIN] {
            let page = page.to_ascii_lowercase();
            for inline in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
                assert!(!page.contains(inline), "{inline}");
            }
            assert!(
                page.matches("<script").count()
                    == page.matches("<script src=\"/assets/").count()
                        + page.matches("<script type=\"module\" src=\"/assets/").count()
                        + page.matches("<script defer src=\"/assets/").count()
            );
        }
    }

    /// What stands in the directory is served.
    #[test]
    fn every_file_is_listed() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/relay/admin/assets");
        let (mut dirs, mut bytes) = (vec![root.clone()], 0);
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                bytes += path.metadata().unwrap().len();
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
                let listed = FILES.iter().any(|(listed, _)| *listed == name);
                let words = matches!(
                    name,
                    "index.html" | "login.html" | "vendor/uplot/LICENSE" | "vendor/uplot/VERSION"
                );
                assert!(listed || words, "{name}");
            }
        }
        assert!(bytes < 300_000, "{bytes} bytes, for a page that also opens over a slow line");
    }

    /// What a client or viewer sent is text: no script of ours makes markup of any.
    #[test]
    fn no_script_makes_markup_of_text() {
        let makers = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"];
        for (name, content) in FILES.iter().filter(|(name, _)| !name.starts_with("vendor/")) {
            let content = std::str::from_utf8(content).unwrap();
            assert_eq!(makers.iter().find(|maker| content.contains(**maker)), None, "{name}");
        }
    }
}
