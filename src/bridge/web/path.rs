//! From the path of an address to that of a file, which never leaves the directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The file below the root that a path names; `None` if there can be none. Nothing is mended: what a browser would never
/// send (`..`, `//`, slashes that are encoded) is not there.
pub(super) fn inside(path: &str) -> Option<PathBuf> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut file = PathBuf::new();
    if path.is_empty() {
        return Some(file);
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    for part in path.split('/') {
        let name: Vec<u8> = percent_encoding::percent_decode_str(part).collect();
        let hidden = name.starts_with(b".") && name != b".well-known";
        if name.is_empty() || hidden || name.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0)) {
            return None;
        }
        file.push(OsStr::from_bytes(&name));
    }
    Some(file)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_a_way_out_is_none() {
        for (path, file) in [
            ("/", ""),
            ("", ""),
            ("/a/b.html", "a/b.html"),
            ("/a/", "a"),
            ("/a%20b%25", "a b%"),
            ("/%252e%252e/x", "%2e%2e/x"),
            ("/.well-known/x", ".well-known/x"),
            ("/a..b", "a..b"),
        ] {
            assert_eq!(inside(path).as_deref(), Some(Path::new(file)), "{path}");
        }
        for path in [
            "/..",
            "/../x",
            "/a/../x",
            "/%2e%2e/x",
            "/.%2e/x",
            "/a/..%2fx",
            "/a%2fb",
            "//x",
            "/a//b",
            "//",
            "/./a",
            "/.git/config",
            "/a%00b",
            "/a\\b",
            "/..%5cx",
            "/a/%2E%2E%2F%2E%2E/etc/passwd",
        ] {
            assert_eq!(inside(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leaves_the_directory(path in "(/|[.]|%2e|%2f|%5c|%00|[a-c\\\\]){0,20}") {
            if let Some(file) = inside(&path) {
                let normal = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(file.components().all(normal), "{:?}", file);
            }
        }
    }
}
