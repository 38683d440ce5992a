//! What tells a file, or a directory of files, from how it was before.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::proto::limits::bridge::tokens::FILES;

/// The files that there are, through links, each with what changes when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(PathBuf, u64, u64, Option<SystemTime>)>);

impl Stamp {
    /// Of the file at `path`, or of all files in the directory there whose names do not begin with a dot.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_dir() {
            return Ok(Self(vec![one(path.to_owned(), &metadata)]));
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            // One that went since it was named is not there.
            let Some(metadata) = fs::metadata(entry.path()).ok().filter(|found| !hidden && !found.is_dir())
            else {
                continue;
            };
            if files.len() == FILES {
                return Err(io::Error::other(format!(
                    "there are more than {FILES} files in {}",
                    path.display()
                )));
            }
            files.push(one(entry.path(), &metadata));
        }
        files.sort();
        Ok(Self(files))
    }

    /// Their paths, in order.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, ..)| path.as_path())
    }
}

fn one(path: PathBuf, metadata: &Metadata) -> (PathBuf, u64, u64, Option<SystemTime>) {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    (path, inode, metadata.len(), metadata.modified().ok())
}
