//! Opens the SQLite file, or says why not: never an empty database in the place of a damaged one.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::StoreError;
use super::migrations::{APPLICATION_ID, migrate};

/// Name of the database in the data directory.
pub const FILE_NAME: &str = "adit.db";

/// How long a call waits for another process that is writing. Writes take milliseconds; whatever holds the
/// lock for longer is not ours, and the callers behind this one should hear of it.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// The write-ahead log is cut back to this after a checkpoint, so that one burst does not keep the disk for
/// ever.
const LOG_BYTES: i64 = 4 * 1024 * 1024;

/// Opens the database in `dir`; makes the directory (mode 0700) and the file (0600) if they are missing.
pub(super) fn open(dir: &Path) -> Result<Connection, StoreError> {
    make_dir(dir).map_err(|error| io_error(dir, &error))?;
    let path = dir.join(FILE_NAME);
    if !path.try_exists().map_err(|error| io_error(&path, &error))? {
        create(dir, &path)?;
    }
    let at = |error| at_path(&path, error);
    let mut conn = connect(&path)?;
    check(&conn).map_err(at)?;
    migrate(&mut conn).map_err(at)?;
    Ok(conn)
}

/// A database in memory, gone with the connection.
pub(super) fn memory() -> Result<Connection, StoreError> {
    let mut conn = Connection::open_in_memory().map_err(store_error)?;
    migrate(&mut conn)?;
    Ok(conn)
}

/// Connects to the existing file, without checking what is in it.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    // A database is whole before it gets its name (see `create`), so an empty file is what is left of one.
    // SQLite would take it for a new database.
    let length = fs::metadata(path).map_err(|error| io_error(path, &error))?.len();
    if length == 0 {
        return Err(StoreError::Corrupt(format!("{}: the file is empty", path.display())));
    }
    let configure = || -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).map_err(store_error)?;
        // SQLite opens a file it may not write for reading only, and says nothing.
        if conn.is_readonly("main").map_err(store_error)? {
            return Err(StoreError::Unavailable("it can be read but not written; check who owns it".into()));
        }
        conn.busy_timeout(BUSY_WAIT).map_err(store_error)?;
        conn.pragma_update(None, "foreign_keys", true).map_err(store_error)?;
        let mode: String =
            conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(store_error)?;
        if mode != "wal" {
            return Err(StoreError::Unavailable(
                "this file system has no shared memory for SQLite; use a data directory on a local disk"
                    .into(),
            ));
        }
        // With NORMAL a commit is handed to the operating system before it is answered, so the end of the
        // process, kill -9 too, loses nothing. Only a power cut can lose the last commits, and never corrupts
        // the file: right for tunnels, which their clients register anew. Keys are synced to the disk, see
        // `sqlite::key_write`.
        conn.pragma_update(None, "synchronous", "NORMAL").map_err(store_error)?;
        conn.query_row(&format!("PRAGMA journal_size_limit = {LOG_BYTES}"), [], |_| Ok(()))
            .map_err(store_error)?;
        Ok(conn)
    };
    configure().map_err(|error| at_path(path, error))
}

/// Makes a new, whole, empty database and then gives it its name, so that a kill in between leaves nothing
/// that could be taken for a database.
fn create(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let log = dir.join(format!("{FILE_NAME}-wal"));
    if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Err(StoreError::Corrupt(format!(
            "{} is missing, but its log {} is there",
            path.display(),
            log.display()
        )));
    }
    // Named after the process: another one may be doing the same.
    let draft = dir.join(format!("{FILE_NAME}.new-{}", std::process::id()));
    let made = create_at(&draft, path);
    // Left behind, it would only be litter.
    let _ = fs::remove_file(&draft);
    made
}

fn create_at(draft: &Path, path: &Path) -> Result<(), StoreError> {
    let _ = fs::remove_file(draft);
    // Made by us for the mode; SQLite gives its log the mode of the database. Only a file that is new is ever
    // opened here: closing a descriptor of an open database would drop SQLite's locks on it (POSIX).
    new_file(draft).map_err(|error| io_error(draft, &error))?;
    let filled = || -> Result<(), StoreError> {
        let mut conn =
            Connection::open_with_flags(draft, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(store_error)?;
        conn.pragma_update(None, "application_id", APPLICATION_ID).map_err(store_error)?;
        migrate(&mut conn)?;
        conn.close().map_err(|(_, error)| store_error(error))
    };
    filled().map_err(|error| at_path(draft, error))?;
    // A link, not a rename: it never takes the place of the database that another process has just made.
    match fs::hard_link(draft, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A file system without links.
        Err(_) if !path.exists() => fs::rename(draft, path).map_err(|error| io_error(path, &error)),
        Err(error) => Err(io_error(path, &error)),
    }
}

/// Refuses what is damaged or not ours. The whole file is read once.
fn check(conn: &Connection) -> Result<(), StoreError> {
    let verdict: String =
        conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(store_error)?;
    if verdict != "ok" {
        return Err(StoreError::Corrupt(verdict.replace('\n', " ")));
    }
    let id: i64 = conn.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(store_error)?;
    if id != APPLICATION_ID {
        return Err(StoreError::Corrupt("it is a database of another program".into()));
    }
    Ok(())
}

/// Sorts an error of SQLite by what a caller can do about it.
pub(super) fn store_error(error: rusqlite::Error) -> StoreError {
    let text = error.to_string();
    let Some(code) = error.sqlite_error_code() else {
        return match error {
            // STRICT tables hold no value of a wrong type, so this is damage.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..) => StoreError::Corrupt(text),
            _ => StoreError::Other(text),
        };
    };
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
            StoreError::Unavailable(format!("another process holds it ({text})"))
        }
        ErrorCode::DiskFull => StoreError::Unavailable(format!("the disk is full; make room ({text})")),
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => StoreError::Unavailable(
            format!("it cannot be written; check the directory and who owns it ({text})"),
        ),
        ErrorCode::SystemIoFailure => StoreError::Unavailable(format!(
            "reading or writing failed; see what the system logs about the disk ({text})"
        )),
        ErrorCode::OutOfMemory => StoreError::Unavailable(text),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt(text),
        _ => StoreError::Other(text),
    }
}

fn at_path(path: &Path, error: StoreError) -> StoreError {
    let at = |text: String| format!("{}: {text}", path.display());
    match error {
        StoreError::Unavailable(text) => StoreError::Unavailable(at(text)),
        StoreError::Corrupt(text) => StoreError::Corrupt(at(text)),
        StoreError::Other(text) => StoreError::Other(at(text)),
        known @ (StoreError::Newer { .. } | StoreError::Superseded) => known,
    }
}

/// Tells a file from another one of its name.
pub(super) type FileId = (u64, u64);

/// Which file has this name now.
pub(super) fn identify<P: AsRef<Path>>(path: P) -> Result<(P, FileId), StoreError> {
    match fs::metadata(path.as_ref()) {
        #[cfg(unix)]
        Ok(found) => {
            use std::os::unix::fs::MetadataExt;
            Ok((path, (found.dev(), found.ino())))
        }
        #[cfg(not(unix))]
        Ok(_) => Ok((path, (0, 0))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Unavailable(format!(
            "{} was deleted; put it back, or restart the relay to begin anew",
            path.as_ref().display()
        ))),
        Err(error) => Err(io_error(path.as_ref(), &error)),
    }
}

fn io_error(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

fn make_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    // An existing directory keeps its mode: it may be shared on purpose.
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn new_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::migrations::latest;

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[cfg(unix)]
    #[test]
    fn directory_and_files_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let root = dir();
        let data = root.path().join("a/b");
        let conn = open(&data).unwrap();
        conn.execute_batch("INSERT INTO keys (name, hash, created_at) VALUES ('a', zeroblob(32), 1)")
            .unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data), 0o700);
        let mut names: Vec<_> =
            fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["adit.db", "adit.db-shm", "adit.db-wal"]);
        for name in names {
            assert_eq!(mode(&data.join(name)), 0o600);
        }
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_as_it_is() {
        let data = dir();
        let path = data.path().join(FILE_NAME);
        let mut conn = open(data.path()).unwrap();
        let fill = conn.transaction().unwrap();
        for at in 0..2000 {
            fill.execute(
                "INSERT INTO keys (name, hash, created_at) VALUES (?1, randomblob(32), 1)",
                [format!("key-{at}")],
            )
            .unwrap();
        }
        fill.commit().unwrap();
        drop(conn);
        let whole = fs::read(&path).unwrap();
        let mut middle = whole.clone();
        middle[8192..16384].fill(0xa5);
        for damaged in [vec![], b"not a database".repeat(1000), whole[..whole.len() / 2].to_vec(), middle] {
            fs::write(&path, &damaged).unwrap();
            let error = open(data.path()).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
            assert!(error.to_string().contains("adit.db"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
        fs::write(&path, whole).unwrap();
        open(data.path()).unwrap();
    }

    #[test]
    fn a_log_without_its_database_is_refused() {
        let data = dir();
        fs::write(data.path().join("adit.db-wal"), "something").unwrap();
        assert!(matches!(open(data.path()), Err(StoreError::Corrupt(_))));
        assert!(!data.path().join(FILE_NAME).exists());
    }

    #[test]
    fn a_newer_database_is_refused() {
        let data = dir();
        open(data.path()).unwrap().pragma_update(None, "user_version", latest() + 1).unwrap();
        let newer = StoreError::Newer { found: latest() + 1, known: latest() };
        assert_eq!(open(data.path()).unwrap_err(), newer);
    }

    #[test]
    fn a_database_of_another_program_is_refused() {
        let data = dir();
        let other = Connection::open(data.path().join(FILE_NAME)).unwrap();
        other.execute_batch("CREATE TABLE theirs (x)").unwrap();
        drop(other);
        assert!(open(data.path()).unwrap_err().to_string().contains("another program"));
    }

    #[test]
    fn a_directory_that_cannot_be_made_or_written_is_unavailable() {
        let data = dir();
        fs::write(data.path().join("file"), "").unwrap();
        assert!(matches!(open(&data.path().join("file/sub")), Err(StoreError::Unavailable(_))));

        let closed = data.path().join("closed");
        drop(open(&closed).unwrap());
        let writable = fs::metadata(&closed).unwrap().permissions();
        let mut read_only = writable.clone();
        read_only.set_readonly(true);
        fs::set_permissions(&closed, read_only).unwrap();
        // Modes mean nothing to root, whom such a directory does not stop.
        if fs::File::create(closed.join("probe")).is_err() {
            assert!(matches!(open(&closed), Err(StoreError::Unavailable(_))));
        }
        fs::set_permissions(&closed, writable).unwrap();
        open(&closed).unwrap();
    }
}
