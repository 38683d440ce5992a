//! Recordings of sessions, in the form of websockify's that noVNC plays back: a script with one array, of which each
//! element is a direction, a time and bytes.

use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::{self, Write};
use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::proto::limits::bridge::{RECORDING_AT_ONCE, RECORDING_WAITS};
use crate::sync::lock;

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

    /// The recording of a session that begins now, and what writes it, apart from the session: ready once the recording was
    /// dropped and all of it is with the system. What goes wrong is told in the log, and ends the recording alone.
    pub(super) fn start(self: &Arc<Self>) -> (Recording, impl Future<Output = ()> + Send + 'static + use<>) {
        let (recorder, number) = (Arc::clone(self), self.next());
        let waiting = Waiting { text: BEGIN.to_vec(), ..Waiting::default() };
        let sheet = Arc::new(Sheet { waiting: Mutex::new(waiting), more: Notify::new() });
        let recording = Recording { began: Instant::now(), sheet: Arc::clone(&sheet) };
        let writing = async move {
            match aside(move || recorder.open(number)).await {
                Ok((path, file)) => {
                    let path = path.display();
                    tracing::info!(file = %path, "the session is recorded");
                    if let Err(error) = sheet.write_to(file).await {
                        tracing::error!(file = %path, %error, "the recording ends here; its session goes on");
                    }
                }
                Err(error) => tracing::error!(%error, "the session cannot be recorded"),
            }
            sheet.close();
        };
        (recording, writing)
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A new file with this number or, if there is one, the next that is free: what an earlier run recorded stays. Only its
    /// owner may read it, as everything that is typed is in it.
    fn open(&self, mut number: u64) -> io::Result<(PathBuf, File)> {
        loop {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            let path = PathBuf::from(path);
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            match options.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number = self.next(),
                opened => return opened.map(|file| (path, file)),
            }
        }
    }
}

/// Runs what waits for a disk on a thread for that.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The highest number beside `path`, so that no session has to look for it.
fn last(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number = |entry: io::Result<DirEntry>| {
        entry.ok()?.file_name().to_str()?.strip_prefix(name)?.strip_prefix('.')?.parse().ok()
    };
    fs::read_dir(path.parent()?).ok()?.filter_map(number).max()
}

const BEGIN: &[u8] = b"var VNC_frame_data = [\n";
/// Without it the array is none.
const END: &[u8] = b"'EOF'];\n";

/// One session's recording, as the session sees it.
pub(super) struct Recording {
    began: Instant,
    sheet: Arc<Sheet>,
}

impl Recording {
    /// Bytes from the visitor to the target.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.element(b'}', bytes);
    }

    /// Bytes from the target to the visitor.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        self.element(b'{', bytes);
    }

    fn element(&mut self, direction: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            let (direction, time) = (char::from(direction), self.began.elapsed().as_millis());
            self.sheet.put(bytes, &format!("'{direction}{time}{direction}"));
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.sheet.end();
    }
}

/// What is between a session, which waits for no disk, and its file.
struct Sheet {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    /// Nothing more comes.
    ended: bool,
    /// As it was too much.
    lost: bool,
}

impl Sheet {
    fn put(&self, bytes: &[u8], head: &str) {
        let mut waiting = lock(&self.waiting);
        if waiting.ended {
            return;
        }
        if waiting.text.len() >= RECORDING_WAITS {
            waiting.lost = true;
            waiting.end();
        } else {
            waiting.text.extend_from_slice(head.as_bytes());
            escape(&mut waiting.text, bytes);
            waiting.text.extend_from_slice(b"',\n");
        }
        if waiting.ended || waiting.text.len() >= RECORDING_AT_ONCE {
            self.more.notify_one();
        }
    }

    fn end(&self) {
        lock(&self.waiting).end();
        self.more.notify_one();
    }

    /// What comes from now on is for nobody.
    fn close(&self) {
        *lock(&self.waiting) = Waiting { ended: true, ..Waiting::default() };
    }

    /// Writes what is put, until the end.
    async fn write_to(&self, mut file: File) -> io::Result<()> {
        loop {
            self.more.notified().await;
            let (text, ended, lost) = {
                let mut waiting = lock(&self.waiting);
                (take(&mut waiting.text), waiting.ended, waiting.lost)
            };
            file = aside(move || file.write_all(&text).map(|()| file)).await?;
            if lost {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the disk is slower than the session"));
            }
            if ended {
                return Ok(());
            }
        }
    }
}

impl Waiting {
    fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.text.extend_from_slice(END);
        }
    }
}

/// Bytes as Latin-1 text in single quotes, as Python writes it.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\'' => out.extend_from_slice(b"\\'"),
            b' '..=b'~' => out.push(*byte),
            byte => {
                let [high, low] = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
                out.extend_from_slice(&[b'\\', b'x', high, low]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn recorder(path: PathBuf) -> Arc<Recorder> {
        Arc::new(Recorder::new(path))
    }

    #[tokio::test(start_paused = true)]
    async fn a_recording_is_written_as_websockify_does() {
        let dir = tempfile::tempdir().unwrap();
        let (mut recording, writing) = recorder(dir.path().join("rec")).start();
        recording.sent(b"RFB 003.008\n");
        tokio::time::advance(Duration::from_millis(12)).await;
        recording.received(b"it's\\\t\r\x00\x7f\xff");
        recording.received(b"");
        drop(recording);
        writing.await;
        let path = dir.path().join("rec.1");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "var VNC_frame_data = [\n'{0{RFB 003.008\\n',\n'}12}it\\'s\\\\\\t\\r\\x00\\x7f\\xff',\n'EOF'];\n"
        );
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn no_recording_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["rec.1", "rec.7", "rec.x", "other.9"] {
            fs::write(dir.path().join(name), "kept").unwrap();
        }
        let recorder = recorder(dir.path().join("rec"));
        fs::write(dir.path().join("rec.8"), "of another run").unwrap();
        for number in [9, 10] {
            let (recording, writing) = recorder.start();
            drop(recording);
            writing.await;
            assert!(dir.path().join(format!("rec.{number}")).exists(), "{number}");
        }
        assert_eq!(fs::read_to_string(dir.path().join("rec.1")).unwrap(), "kept");
    }

    #[tokio::test]
    async fn what_is_recorded_is_written_while_the_session_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (mut recording, writing) = recorder(dir.path().join("rec")).start();
        let writing = tokio::spawn(writing);
        recording.sent(&[b'x'; RECORDING_AT_ONCE]);
        let written = async {
            while fs::metadata(dir.path().join("rec.1")).map_or(0, |file| file.len())
                < RECORDING_AT_ONCE as u64
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), written).await.unwrap();
        drop(recording);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_disk_that_is_too_slow_or_not_there_ends_a_recording_and_takes_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        let chunk = [b'x'; 64 * 1024];
        let (mut recording, writing) = recorder(dir.path().join("rec")).start();
        for _ in 0..4 * RECORDING_WAITS / chunk.len() {
            recording.sent(&chunk);
        }
        writing.await;
        let text = fs::read(dir.path().join("rec.1")).unwrap();
        assert!(text.ends_with(b"',\n'EOF'];\n"));
        assert!((RECORDING_WAITS..RECORDING_WAITS + 2 * chunk.len()).contains(&text.len()), "{}", text.len());

        let (mut missing, writing) = recorder(dir.path().join("missing/rec")).start();
        writing.await;
        for recording in [&mut recording, &mut missing] {
            recording.sent(&chunk);
            assert!(lock(&recording.sheet.waiting).text.is_empty());
        }
    }
}
