//! Recordings of sessions, in the form of websockify's that noVNC plays back: a script with one array, of which each
//! element is a direction, a time and bytes.

use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// Where recordings go: `PATH.1`, `PATH.2` and so on, one for each session.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    last: AtomicU64,
}

impl Recorder {
    /// Recordings beside `path`, numbered behind those that are there.
    pub fn new(path: PathBuf) -> Self {
        let last = AtomicU64::new(last(&path).unwrap_or_default());
        Self { path, last }
    }

    /// A new file with the next number that is free: what an earlier run recorded stays. Only its owner may read it, as
    /// everything that is typed is in it.
    pub(super) fn start(&self) -> io::Result<Recording> {
        loop {
            let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            let path = PathBuf::from(path);
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            match options.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(file) => {
                    let mut file = BufWriter::new(file);
                    file.write_all(b"var VNC_frame_data = [\n")?;
                    return Ok(Recording { path, began: Instant::now(), file: Some(file) });
                }
            }
        }
    }
}

/// The highest number beside `path`, so that no session has to look for it.
fn last(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number = |entry: io::Result<DirEntry>| {
        entry.ok()?.file_name().to_str()?.strip_prefix(name)?.strip_prefix('.')?.parse().ok()
    };
    fs::read_dir(path.parent()?).ok()?.filter_map(number).max()
}

/// One session's file. What is written goes to the system's memory first; a disk that is full ends the recording, and not
/// the session.
pub(super) struct Recording {
    path: PathBuf,
    began: Instant,
    /// `None` after a failure.
    file: Option<BufWriter<File>>,
}

impl Recording {
    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes from the visitor to the target.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.element(b'}', bytes);
    }

    /// Bytes from the target to the visitor.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        self.element(b'{', bytes);
    }

    fn element(&mut self, direction: u8, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let (direction, time) = (char::from(direction), self.began.elapsed().as_millis());
        self.write(|file| {
            write!(file, "'{direction}{time}{direction}")?;
            escape(file, bytes)?;
            file.write_all(b"',\n")
        });
    }

    fn write(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = write(file) {
            tracing::error!(file = %self.path.display(), %error, "the recording ends here; its session goes on");
            self.file = None;
        }
    }
}

/// The end of the array, without which it is none.
impl Drop for Recording {
    fn drop(&mut self) {
        self.write(|file| {
            file.write_all(b"'EOF'];\n")?;
            file.flush()
        });
    }
}

/// Bytes as Latin-1 text in single quotes, as Python writes it.
fn escape(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        match byte {
            b'\n' => out.write_all(b"\\n"),
            b'\r' => out.write_all(b"\\r"),
            b'\t' => out.write_all(b"\\t"),
            b'\\' => out.write_all(b"\\\\"),
            b'\'' => out.write_all(b"\\'"),
            b' '..=b'~' => out.write_all(&[*byte]),
            byte => write!(out, "\\x{byte:02x}"),
        }?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_recording_is_written_as_websockify_does() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::new(dir.path().join("rec"));
        let mut recording = recorder.start().unwrap();
        recording.sent(b"RFB 003.008\n");
        tokio::time::advance(Duration::from_millis(12)).await;
        recording.received(b"it's\\\t\r\x00\x7f\xff");
        recording.received(b"");
        let path = recording.path().to_owned();
        drop(recording);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "var VNC_frame_data = [\n'{0{RFB 003.008\\n',\n'}12}it\\'s\\\\\\t\\r\\x00\\x7f\\xff',\n'EOF'];\n"
        );
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn no_recording_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["rec.1", "rec.7", "rec.x", "other.9"] {
            fs::write(dir.path().join(name), "kept").unwrap();
        }
        let recorder = Recorder::new(dir.path().join("rec"));
        fs::write(dir.path().join("rec.8"), "of another run").unwrap();
        let names = [(); 2].map(|()| recorder.start().unwrap().path().file_name().unwrap().to_owned());
        assert_eq!(names, ["rec.9", "rec.10"]);
        assert_eq!(fs::read_to_string(dir.path().join("rec.1")).unwrap(), "kept");
        assert!(Recorder::new(dir.path().join("missing/rec")).start().is_err());
    }
}
