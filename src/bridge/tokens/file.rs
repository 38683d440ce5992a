//! Lines of `token: target` in a file, or in all files of a directory (`TokenFile`, `ReadOnlyTokenFile`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::stamp::Stamp;
use super::{Target, TokenError};
use crate::proto::limits::bridge::tokens::{COMPLAINTS, FILE_BYTES};
use crate::sync::lock;

/// Where the lines are, and what stood there at the last reading.
pub(super) struct TokenFile {
    source: PathBuf,
    again: bool,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// `None` before the first reading.
    stamp: Option<Stamp>,
    targets: HashMap<String, Target>,
}

impl TokenFile {
    /// Reads `source` at the first look-up, and once more whenever it has changed if `again`. It may come later.
    pub(super) fn new(source: PathBuf, again: bool) -> Self {
        if let Err(error) = Stamp::of(&source) {
            let file = source.display();
            tracing::warn!(%file, %error, "the file of tokens cannot be read yet; nobody is let in before it can");
        }
        Self { source, again, kept: Mutex::default() }
    }

    pub(super) fn is_read_again(&self) -> bool {
        self.again
    }

    /// Changes when what is read would.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        Stamp::of(&self.source).ok()
    }

    /// Where `token` leads to; waits for the disk.
    pub(super) fn target(&self, token: &str) -> Result<Target, TokenError> {
        let mut kept = lock(&self.kept);
        if self.again || kept.stamp.is_none() {
            let failed = |error| TokenError::Source(format!("{}: {error}", self.source.display()));
            let stamp = Stamp::of(&self.source).map_err(failed)?;
            if kept.stamp.as_ref() != Some(&stamp) {
                kept.targets = read_all(&stamp).map_err(failed)?;
                kept.stamp = Some(stamp);
            }
        }
        kept.targets.get(token).cloned().ok_or(TokenError::Unknown)
    }
}

fn read_all(stamp: &Stamp) -> io::Result<HashMap<String, Target>> {
    let mut targets = HashMap::new();
    for path in stamp.files() {
        let mut text = Vec::new();
        File::open(path)?.take(FILE_BYTES + 1).read_to_end(&mut text)?;
        if text.len() as u64 > FILE_BYTES {
            return Err(io::Error::other(format!("{} is larger than {FILE_BYTES} bytes", path.display())));
        }
        read(path, &text, &mut targets);
    }
    Ok(targets)
}

/// What can be read of a file counts; the rest is told with its line. The last of two lines of one token counts.
fn read(path: &Path, text: &[u8], targets: &mut HashMap<String, Target>) {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut complaints = 0;
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        match entry(line) {
            Ok(None) => {}
            Ok(Some((token, target))) => {
                targets.insert(token, target);
            }
            Err(error) => {
                complaints += 1;
                if complaints <= COMPLAINTS {
                    tracing::warn!(file = %path.display(), line = at + 1, %error, "this line of tokens is left out");
                }
            }
        }
    }
    if complaints > COMPLAINTS {
        tracing::warn!(file = %path.display(), lines = complaints, "so many lines of tokens are left out");
    }
}

/// `token: target`, with white space behind the colon, as a token may have colons in itself.
fn entry(line: &[u8]) -> Result<Option<(String, Target)>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let colon = line.match_indices(':').find(|(at, _)| line[at + 1..].starts_with(char::is_whitespace));
    let (at, _) = colon.ok_or("a line is TOKEN: HOST:PORT, with a space behind the first colon")?;
    let (token, target) = (line[..at].trim_end(), line[at + 1..].trim());
    if token.is_empty() {
        return Err("there is no token before the colon".to_owned());
    }
    // Not the text, which may be a token.
    let target = target.parse::<Target>();
    let target = target.map_err(|_| "behind the token stands no HOST:PORT and no unix_socket:PATH")?;
    Ok(Some((token.to_owned(), target)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn target(text: &str) -> Result<Target, TokenError> {
        Ok(text.parse().unwrap())
    }

    #[test]
    fn a_bad_line_takes_nothing_from_the_others() {
        let text = "\u{feff}# desks\r\n\none: h:1\r\ntwo:h:2\n  three :\t[::1]:3  \nfour: ::1:4\nnothing\n\
                    five: unix_socket:/run/x y.sock\na:b: h:6\n: h:7\nseven: h\none: h:8\n";
        let mut targets = HashMap::new();
        read(Path::new("tokens"), text.as_bytes(), &mut targets);
        let mut found: Vec<_> =
            targets.into_iter().map(|(token, target)| format!("{token}={target}")).collect();
        found.sort();
        assert_eq!(
            found,
            ["a:b=h:6", "five=unix_socket:/run/x y.sock", "four=[::1]:4", "one=h:8", "three=[::1]:3"]
        );
        assert!(entry(b"a: h:1\xff").unwrap_err().contains("UTF-8"));
        let secret = entry(b"a: secret").unwrap_err();
        assert!(!secret.contains("secret"), "{secret}");
    }

    #[test]
    fn a_file_is_read_again_when_it_changes_and_a_read_only_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let (again, once) = (TokenFile::new(path.clone(), true), TokenFile::new(path.clone(), false));
        assert!(matches!(again.target("a"), Err(TokenError::Source(_))), "it may come later");
        fs::write(&path, "a: h:1\n").unwrap();
        for file in [&again, &once] {
            assert_eq!(file.target("a"), target("h:1"));
            assert_eq!(file.target("b"), Err(TokenError::Unknown));
        }
        // Of the same length, and by renaming: another inode.
        fs::write(path.with_extension("new"), "b: h:1\n").unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
        assert_eq!((again.target("a"), again.target("b")), (Err(TokenError::Unknown), target("h:1")));
        assert_eq!((once.target("a"), once.target("b")), (target("h:1"), Err(TokenError::Unknown)));
    }

    #[test]
    fn all_files_of_a_directory_count_but_hidden_ones() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = TokenFile::new(dir.path().to_owned(), true);
        assert_eq!(tokens.target("a"), Err(TokenError::Unknown));
        fs::write(dir.path().join("1"), "a: h:1\n").unwrap();
        fs::write(dir.path().join("2"), "b: h:2\na: h:3").unwrap();
        fs::write(dir.path().join(".swp"), "c: h:4\n").unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        assert_eq!((tokens.target("a"), tokens.target("b")), (target("h:3"), target("h:2")));
        assert_eq!(tokens.target("c"), Err(TokenError::Unknown));
        fs::remove_file(dir.path().join("2")).unwrap();
        assert_eq!((tokens.target("a"), tokens.target("b")), (target("h:1"), Err(TokenError::Unknown)));
    }
}
