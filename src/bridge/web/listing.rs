//! The page that lists a directory.

use std::fs;
use std::io;
use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::proto::limits::bridge::web::LISTED;

/// What needs no escape in a path (RFC 3986, section 2.3).
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Lists what is in `directory`, directories first; waits for the disk.
pub(super) fn page(directory: &Path) -> io::Result<String> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entries.len() == LISTED {
            break;
        }
        // Through links, as the file itself is served.
        let is_dir = fs::metadata(entry.path()).is_ok_and(|found| found.is_dir());
        entries.push((!is_dir, name));
    }
    entries.sort();
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Files</title>\
         <style>:root{color-scheme:light dark}body{font:16px/1.6 system-ui,sans-serif;max-width:40rem;\
         margin:2rem auto;padding:0 1.5rem}ul{list-style:none;padding:0}</style></head><body><h1>Files</h1><ul>\n",
    );
    for (is_file, name) in &entries {
        let slash = if *is_file { "" } else { "/" };
        let link = percent_encode(name.as_encoded_bytes(), KEPT);
        let shown = escaped(&name.to_string_lossy());
        page.push_str(&format!("<li><a href=\"./{link}{slash}\">{shown}{slash}</a></li>\n"));
    }
    let end = match entries.len() {
        0 => "</ul><p>There are none.</p></body></html>\n".to_owned(),
        LISTED => format!("</ul><p>These are the first {LISTED}.</p></body></html>\n"),
        _ => "</ul></body></html>\n".to_owned(),
    };
    page.push_str(&end);
    Ok(page)
}

/// The name of a file, which must not become markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
