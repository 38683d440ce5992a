//! A directory in which the token is the name: of a file that holds the target (`TokenFileName`), or of a Unix socket
//! (`UnixDomainSocketDirectory`).

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use super::lead::shown;
use super::stamp::Stamp;
use super::{Target, TokenError};
use crate::proto::limits::bridge::tokens::ONE_FILE_BYTES;

/// Where the files or sockets are.
pub(super) struct Directory {
    path: PathBuf,
    of_sockets: bool,
}

impl Directory {
    /// The files hold `host:port` each.
    pub(super) fn of_files(path: PathBuf) -> Result<Self, String> {
        Self::new(path, false)
    }

    /// The files are sockets.
    pub(super) fn of_sockets(path: PathBuf) -> Result<Self, String> {
        Self::new(path, true)
    }

    fn new(path: PathBuf, of_sockets: bool) -> Result<Self, String> {
        if path.is_dir() {
            Ok(Self { path, of_sockets })
        } else {
            Err(format!("{} is no directory", path.display()))
        }
    }

    /// Changes when a look-up may find something else.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        Stamp::of(&self.path).ok()
    }

    /// Where `token` leads to; waits for the disk.
    pub(super) fn target(&self, token: &str) -> Result<Target, TokenError> {
        // A name and nothing else: no way out of the directory, and no file that is hidden.
        if token.is_empty() || token.starts_with('.') || token.contains(['/', '\\', '\0']) {
            return Err(TokenError::Unknown);
        }
        let path = self.path.join(token);
        // The name of the file is a secret as long as it leads somewhere, and so is what stands in it.
        let failed = |error: &dyn std::fmt::Display| {
            TokenError::Source(format!("the file of a token in {}: {error}", self.path.display()))
        };
        let file_type = match path.metadata() {
            Ok(metadata) => metadata.file_type(),
            // A name that is too long is none either.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidFilename) => {
                return Err(TokenError::Unknown);
            }
            Err(error) => return Err(failed(&error)),
        };
        if self.of_sockets {
            return if file_type.is_socket() { Ok(Target::Unix(path)) } else { Err(TokenError::Unknown) };
        }
        if !file_type.is_file() {
            return Err(TokenError::Unknown);
        }
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(ONE_FILE_BYTES).read_to_string(&mut text));
        read.map_err(|error| failed(&error))?;
        text.trim().parse().map_err(|_| failed(&"it holds no HOST:PORT"))
    }

    /// What a log may show of where `token` leads, if the token stands in that.
    pub(super) fn shown(&self, token: &str) -> Option<String> {
        self.of_sockets.then(|| format!("unix_socket:{}/{}", self.path.display(), shown(token)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    const WAYS_OUT: &[&str] =
        &["../other/x", "..", ".", "", "sub/x", "/etc/passwd", "..\\other\\x", "x\0", ".hidden", "./x"];

    #[test]
    fn a_file_is_named_by_its_token_and_no_way_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = dir.path().join("tokens");
        for (name, text) in
            [("tokens/x", " h:1\n"), ("tokens/.hidden", "h:2"), ("tokens/sub/x", "h:3"), ("other/x", "h:4")]
        {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(tokens.join("bad"), "nonsense").unwrap();
        let directory = Directory::of_files(tokens).unwrap();
        assert_eq!(directory.target("x"), Ok("h:1".parse().unwrap()));
        for token in WAYS_OUT.iter().copied().chain(["none", "sub", &"x".repeat(5000)]) {
            assert_eq!(directory.target(token), Err(TokenError::Unknown), "{token}");
        }
        fs::rename(directory.path.join("bad"), directory.path.join("secret-token")).unwrap();
        let Err(TokenError::Source(reason)) = directory.target("secret-token") else { panic!() };
        assert!(!reason.contains("secret") && !reason.contains("nonsense"), "a log has the text: {reason}");
        assert!(Directory::of_files(dir.path().join("missing")).is_err());
    }

    #[test]
    fn a_socket_is_named_by_its_token_and_only_sockets_are() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, other) = (dir.path().join("in"), dir.path().join("other"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&other).unwrap();
        let _sockets = [inside.join("x"), inside.join(".hidden"), other.join("x")]
            .map(|path| UnixListener::bind(path).unwrap());
        fs::write(inside.join("file"), "h:1").unwrap();
        symlink(other.join("x"), inside.join("linked")).unwrap();
        let directory = Directory::of_sockets(inside.clone()).unwrap();
        assert_eq!(directory.target("x"), Ok(Target::Unix(inside.join("x"))));
        assert_eq!(
            directory.target("linked"),
            Ok(Target::Unix(inside.join("linked"))),
            "whoever writes there decides"
        );
        assert_eq!(
            directory.shown("0123456789abcdef"),
            Some(format!("unix_socket:{}/01234567…", inside.display())),
            "a log never has a whole token"
        );
        for token in WAYS_OUT.iter().copied().chain(["file", "none"]) {
            assert_eq!(directory.target(token), Err(TokenError::Unknown), "{token}");
        }
    }
}
