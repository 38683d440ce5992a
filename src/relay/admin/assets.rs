//! The files of the dashboard, in the program itself.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::problem::Problem;
use crate::auth::{hex, sha256};
use crate::relay::errors::escaped;

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
/// Those at `/assets/NAME`: name, type and content.
const FILES: &[(&str, &str, &[u8])] = &[
    ("actions.js", SCRIPT, include_bytes!("assets/actions.js")),
    ("api.js", SCRIPT, include_bytes!("assets/api.js")),
    ("app.js", SCRIPT, include_bytes!("assets/app.js")),
    ("charts.js", SCRIPT, include_bytes!("assets/charts.js")),
    ("client.js", SCRIPT, include_bytes!("assets/client.js")),
    ("dialogs.js", SCRIPT, include_bytes!("assets/dialogs.js")),
    ("dom.js", SCRIPT, include_bytes!("assets/dom.js")),
    ("events.js", SCRIPT, include_bytes!("assets/events.js")),
    ("facts.js", SCRIPT, include_bytes!("assets/facts.js")),
    ("fleet.js", SCRIPT, include_bytes!("assets/fleet.js")),
    ("format.js", SCRIPT, include_bytes!("assets/format.js")),
    ("history.js", SCRIPT, include_bytes!("assets/history.js")),
    ("icon.svg", IMAGE, include_bytes!("assets/icon.svg")),
    ("keys.js", SCRIPT, include_bytes!("assets/keys.js")),
    ("latest.js", SCRIPT, include_bytes!("assets/latest.js")),
    ("list.js", SCRIPT, include_bytes!("assets/list.js")),
    ("live.js", SCRIPT, include_bytes!("assets/live.js")),
    ("marks.js", SCRIPT, include_bytes!("assets/marks.js")),
    ("route.js", SCRIPT, include_bytes!("assets/route.js")),
    ("shortcuts.js", SCRIPT, include_bytes!("assets/shortcuts.js")),
    ("strip.js", SCRIPT, include_bytes!("assets/strip.js")),
    ("style.css", STYLE, include_bytes!("assets/style.css")),
    ("tunnel.js", SCRIPT, include_bytes!("assets/tunnel.js")),
    ("tunnels.js", SCRIPT, include_bytes!("assets/tunnels.js")),
    ("vendor/uplot/uPlot.iife.min.js", SCRIPT, include_bytes!("assets/vendor/uplot/uPlot.iife.min.js")),
    ("vendor/uplot/uPlot.min.css", STYLE, include_bytes!("assets/vendor/uplot/uPlot.min.css")),
    ("views.css", STYLE, include_bytes!("assets/views.css")),
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
    let asset = |(name, kind, content): &(&'static str, &'static str, &'static [u8])| {
        let tag = format!("\"{}\"", &hex(&sha256(content))[..32]);
        let tag = HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""));
        (*name, Asset { kind: HeaderValue::from_static(kind), content, tag })
    };
    FILES.iter().map(asset).collect()
});

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
    use std::path::Path;

    use super::{ERROR, FILES, INDEX, LOGIN, SCRIPT, login};

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

    /// What stands in the directory is served, but for the pages and what is said of the code of others.
    #[test]
    fn every_file_is_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/relay/admin/assets");
        let (mut dirs, mut bytes) = (vec![root.clone()], 0);
        while let Some(dir) = dirs.pop() {
            for file in std::fs::read_dir(dir).unwrap() {
                let path = file.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                bytes += path.metadata().unwrap().len();
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
                let listed = FILES.iter().any(|(listed, _, _)| *listed == name);
                let kept = name.ends_with(".html") || name.starts_with("vendor/") && !name.contains("uPlot.");
                assert!(listed || kept, "{name}");
            }
        }
        assert!(bytes < 300_000, "{bytes} bytes, for a page that also opens over a slow line");
    }

    /// What a client or viewer sent is text: nothing in the pages makes markup of it.
    #[test]
    fn no_script_of_ours_makes_markup_of_text() {
        let ours = FILES.iter().filter(|(name, kind, _)| *kind == SCRIPT && !name.starts_with("vendor/"));
        for (name, _, content) in ours {
            let content = std::str::from_utf8(content).unwrap();
            let makers = [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "DOMParser",
                "'style',",
            ];
            assert_eq!(makers.iter().find(|maker| content.contains(**maker)), None, "{name}");
        }
    }
}
