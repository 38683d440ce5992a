//! The ids under which workers register, as Taskcluster's websocktunnel has them.

/// The header that names the worker that registers.
pub const ID: &str = "x-websocktunnel-id";

/// The header of the answer with the URL at which it is viewed.
pub const CLIENT_URL: &str = "x-websocktunnel-client-url";

/// What an id is written with, for those who wrote another.
pub const ID_RULE: &str = "letters, digits, '_', '~', '.', '%' and '-'";

/// Whether a worker may register under `id`: one or more of [`ID_RULE`].
pub fn is_worker_id(id: &str) -> bool {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'~' | b'.' | b'%' | b'-');
    !id.is_empty() && id.bytes().all(may)
}

#[cfg(test)]
mod tests {
    use super::is_worker_id;

    #[test]
    fn an_id_is_a_piece_of_a_path() {
        for good in ["a", "fBW_6x~1.2-3%2F", "VpNl3W.1624-aaaa"] {
            assert!(is_worker_id(good), "{good}");
        }
        for bad in ["", "a/b", "a b", "ä", "a?", "a\n"] {
            assert!(!is_worker_id(bad), "{bad}");
        }
    }
}
