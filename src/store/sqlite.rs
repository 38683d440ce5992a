//! The embedded store: one SQLite file, worked on by a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::open::{self, FILE_NAME, FileId, store_error};
use super::{Reply, StoreError, Tally};
use crate::sync::lock;

/// Calls that may wait for the thread; the next caller waits until there is room.
const QUEUE: usize = 256;
/// A call not answered by then fails, though it may still be done later. Longer than the wait for another
/// process's lock, so that this is met only on a disk that hangs.
const REPLY_WAIT: Duration = Duration::from_secs(15);
/// After a failure the file is opened anew at most this often.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce(&mut Db) + Send>;

/// A SQLite database. Dropping it ends its thread, after the calls that are under way.
pub struct Sqlite(Backend, Arc<Tally>);

enum Backend {
    /// A file: each call may wait for a disk, so it is done on a thread.
    Thread { jobs: Option<mpsc::Sender<Job>>, thread: Option<JoinHandle<()>> },
    /// Memory: done in place. Nothing waits, and a paused test clock does not run on while a thread works.
    InPlace(Mutex<Db>),
}

impl Sqlite {
    /// Opens the database `adit.db` in `dir`; makes both if they are missing. A damaged one, or one of a
    /// newer program, is refused. Calls need a tokio runtime with its timer.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let conn = open::open(dir)?;
        let mut db = Db::new(conn, Some(open::identify(dir.join(FILE_NAME))?))?;
        let tally = Arc::clone(&db.tally);
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let thread = std::thread::Builder::new()
            .name("adit-store".into())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut db);
                }
            })
            .map_err(|error| StoreError::Unavailable(format!("no thread for the database: {error}")))?;
        Ok(Self(Backend::Thread { jobs: Some(jobs), thread: Some(thread) }, tally))
    }

    /// A store in memory, gone when it is dropped: for tests, and for a relay that may not write to disk.
    pub fn memory() -> Result<Self, StoreError> {
        let db = Db::new(open::memory()?, None)?;
        let tally = Arc::clone(&db.tally);
        Ok(Self(Backend::InPlace(Mutex::new(db)), tally))
    }

    /// What calls came to.
    pub(super) fn counted(&self) -> &Tally {
        &self.1
    }

    /// Calls that wait for the thread.
    pub(super) fn queued(&self) -> usize {
        match &self.0 {
            Backend::Thread { jobs: Some(jobs), .. } => jobs.max_capacity() - jobs.capacity(),
            _ => 0,
        }
    }

    /// Does `work` on the database and answers what it returns.
    pub(super) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Reply<'_, T> {
        Box::pin(async move {
            let jobs = match &self.0 {
                Backend::Thread { jobs, .. } => jobs.as_ref().ok_or_else(ended)?,
                Backend::InPlace(db) => return lock(db).run(work),
            };
            let (reply, answer) = oneshot::channel();
            // The caller may have gone meanwhile; what it asked for is done all the same.
            let job: Job = Box::new(move |db| drop(reply.send(db.run(work))));
            let answered = async {
                jobs.send(job).await.map_err(|_| ended())?;
                answer.await.map_err(|_| ended())?
            };
            tokio::time::timeout(REPLY_WAIT, answered).await.unwrap_or_else(|_| {
                self.1.unanswered.increment();
                Err(StoreError::Unavailable(format!("no answer in {REPLY_WAIT:?}")))
            })
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        if let Backend::Thread { jobs, thread } = &mut self.0 {
            drop(jobs.take());
            if let Some(thread) = thread.take() {
                // Waits for the last checkpoint, so that the file is whole without its log. A thread that
                // panicked has said so on stderr.
                let _ = thread.join();
            }
        }
    }
}

fn ended() -> StoreError {
    StoreError::Unavailable("its thread has ended; restart the relay".into())
}

/// The connection and what is known of it.
pub(super) struct Db {
    pub(super) conn: Connection,
    /// Of a database on disk, and which file had that name when it was opened.
    file: Option<(PathBuf, FileId)>,
    /// `PRAGMA data_version` as last seen.
    pub(super) seen: i64,
    /// Of this process, once its life as a relay has begun.
    pub(super) generation: i64,
    /// When a call found the file out of reach, or a new connection was last tried: this one may be of no
    /// more use.
    suspect: Option<Instant>,
    tally: Arc<Tally>,
}

impl Db {
    fn new(conn: Connection, file: Option<(PathBuf, FileId)>) -> Result<Self, StoreError> {
        let seen = data_version(&conn)?;
        Ok(Self { conn, file, seen, generation: 0, suspect: None, tally: Arc::default() })
    }

    fn run<T>(&mut self, work: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let began = Instant::now();
        self.reopen();
        let result = self.in_place().and_then(|()| work(self));
        self.tally.answered(result.as_ref().err(), began.elapsed());
        // A call that succeeds proves nothing: a connection that can only read is of that kind.
        if let Err(StoreError::Unavailable(_)) = &result {
            self.suspect.get_or_insert_with(Instant::now);
        }
        result
    }

    /// A file that was deleted or replaced can still be written, and all of that would be gone with this process.
    fn in_place(&self) -> Result<(), StoreError> {
        let Some((path, known)) = &self.file else { return Ok(()) };
        match open::identify(path) {
            Ok((_, found)) if found == *known => Ok(()),
            Ok(_) => Err(StoreError::Unavailable(format!("{} is another file now", path.display()))),
            Err(error) => Err(error),
        }
    }

    /// After a failure, tries a new connection. The old one is kept unless that succeeds: on a full disk it
    /// can still read, where a new one could not even be opened.
    fn reopen(&mut self) {
        if self.suspect.is_some_and(|since| since.elapsed() >= REOPEN_EVERY)
            && let Some((path, id)) = &mut self.file
        {
            self.suspect = Some(Instant::now());
            if let Ok((_, found)) = open::identify(&*path)
                && let Ok(conn) = open::connect(path)
            {
                self.conn = conn;
                *id = found;
                self.suspect = None;
                // What the others wrote meanwhile cannot be told from this number: the next `changed` says
                // yes.
                self.seen = -1;
            }
        }
    }
}

/// A number that changes when another connection has written.
pub(super) fn data_version(conn: &Connection) -> Result<i64, StoreError> {
    conn.query_row("PRAGMA data_version", [], |row| row.get(0)).map_err(store_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::statements::tunnels::tests::row;
    use crate::store::{Put, Store};

    #[tokio::test]
    async fn a_tunnel_is_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (web, api) = (row("web", "alice", 60_000), row("api", "bob", 60_000));
        let store = Sqlite::open(dir.path()).unwrap();
        assert_eq!(store.put_tunnel(web.clone()).await, Ok(Put::Stored));
        assert_eq!(store.put_tunnel(api.clone()).await, Ok(Put::Stored));
        drop(store);
        assert!(!dir.path().join("adit.db-wal").exists(), "the thread has ended and closed the file");
        let store = Sqlite::open(dir.path()).unwrap();
        assert_eq!(store.load_tunnels().await, Ok(vec![api, web]));
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_a_kill() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Sqlite::open(dir.path()).unwrap();
        store.put_tunnel(row("web", "alice", 60_000)).await.unwrap();
        // What the operating system has at this moment is what it has after a kill.
        for file in ["adit.db", "adit.db-wal"] {
            std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
        }
        let store = Sqlite::open(copy.path()).unwrap();
        assert_eq!(store.load_tunnels().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_full_disk_is_unavailable_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(dir.path()).unwrap();
        let pages = |count: i64| {
            store.call(move |db| {
                db.conn
                    .query_row(&format!("PRAGMA max_page_count = {count}"), [], |row| row.get::<_, i64>(0))
                    .map_err(store_error)
            })
        };
        pages(1).await.unwrap();
        let mut big = row("web", "alice", 60_000);
        big.source = Some("x".repeat(100_000));
        let full = store.put_tunnel(big.clone()).await;
        assert!(
            matches!(&full, Err(StoreError::Unavailable(text)) if text.contains("disk is full")),
            "{full:?}"
        );
        assert_eq!(store.load_tunnels().await, Ok(vec![]), "reading goes on");
        pages(1_000_000).await.unwrap();
        assert_eq!(store.put_tunnel(big).await, Ok(Put::Stored));
    }

    #[tokio::test]
    async fn a_connection_that_cannot_write_is_replaced_when_the_file_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(dir.path()).unwrap();
        store.call(|db| db.conn.pragma_update(None, "query_only", true).map_err(store_error)).await.unwrap();
        let refused = store.create_key("alice".into(), [1; 32]).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert_eq!(store.find_key([1; 32]).await, Ok(None), "reading goes on");
        // A second later, without waiting for it.
        let later = |db: &mut Db| {
            db.suspect = db.suspect.and_then(|since| since.checked_sub(REOPEN_EVERY));
            Ok(())
        };
        store.call(later).await.unwrap();
        assert_eq!(store.create_key("alice".into(), [1; 32]).await, Ok(true));
        assert_eq!(store.changed().await, Ok(true), "what happened meanwhile is not known");
    }

    #[tokio::test]
    async fn a_process_that_holds_the_lock_makes_the_store_unavailable() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(dir.path()).unwrap();
        store.call(|db| db.conn.busy_timeout(Duration::ZERO).map_err(store_error)).await.unwrap();
        let mut other = open::connect(&dir.path().join(FILE_NAME)).unwrap();
        let held = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
        let busy = store.save_activity(vec![]).await;
        assert!(matches!(busy, Err(StoreError::Unavailable(_))), "{busy:?}");
        drop(held);
        assert_eq!(store.save_activity(vec![]).await, Ok(()));
    }
}
