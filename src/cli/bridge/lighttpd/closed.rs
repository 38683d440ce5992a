//! Tunnels that lighttpd keeps closed by something that a route has no word for.

use super::condition::Asked;
use super::parse::File;

/// Why requests for `path` (the beginning or the end of paths) in a block must not be let through as they are; `None` if they may.
pub(super) fn why(file: &File, block: usize, path: &str) -> Option<String> {
    let held = |at: usize, key: &str| file.blocks[at].settings.get(key);
    for at in (0..file.blocks.len()).filter(|at| is_within(file, block, *at) || is_within(file, *at, block)) {
        let place = Asked::of(&file.blocks[at].conditions).map(|mut asked| asked.settle(""));
        if place.is_ok_and(|place| place.starts_with('/') && !meet(path, &place)) {
            continue;
        }
        if let Some((line, paths)) = held(at, "auth.require")
            && paths.list().iter().any(|(begin, _)| meet(path, begin.as_deref().unwrap_or_default()))
        {
            return Some(format!(
                "auth.require (line {line}) asks for a password there; write the route with auth-plugin and auth-source"
            ));
        }
        if let Some((line, ends)) = held(at, "url.access-deny")
            && ends.list().iter().map(|(_, end)| end.shown()).any(|end| ends_so(path, &end))
        {
            return Some(format!("url.access-deny (line {line}) denies it"));
        }
        if let Some((line, _)) = held(at, "url.access-allow") {
            return Some(format!("url.access-allow (line {line}) may deny it"));
        }
    }
    None
}

/// Whether `inner` is `outer`, or stands in it.
fn is_within(file: &File, inner: usize, outer: usize) -> bool {
    std::iter::successors(Some(inner), |at| file.blocks[*at].parent).any(|at| at == outer)
}

/// Whether there may be a path that fits `path` and begins with `begin`.
fn meet(path: &str, begin: &str) -> bool {
    !path.starts_with('/') || path.starts_with(begin) || begin.starts_with(path)
}

/// Whether all that fits `path`, or all of one ending, ends with `end`.
fn ends_so(path: &str, end: &str) -> bool {
    end.is_empty() || path.ends_with(end)
}
