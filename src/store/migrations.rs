//! The schema of the SQLite database, as numbered steps from one version to the next.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;
use super::open::store_error;

/// Marks the file as ours (`PRAGMA application_id`): "Adit" in ASCII.
pub(super) const APPLICATION_ID: i64 = 0x4164_6974;

/// Step `n` of this list brings a database from version `n` to `n + 1` (`PRAGMA user_version`). A step that
/// has been released is never changed; a new one is added at the end.
const STEPS: &[&str] = &[
    // 1: tunnels and keys. STRICT, so that a value of a wrong type is refused when written, not found when
    // read.
    "CREATE TABLE tunnels (
        name           TEXT PRIMARY KEY NOT NULL,
        id             BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
        owner          TEXT NOT NULL,
        chosen         INTEGER NOT NULL,
        local_port     INTEGER NOT NULL,
        ttl_seconds    INTEGER NOT NULL,
        device_name    TEXT,
        source         TEXT,
        host_header    TEXT,
        reuse          INTEGER NOT NULL,
        auth           TEXT,
        created_at     INTEGER NOT NULL,
        expires_at     INTEGER,
        suspended      INTEGER NOT NULL,
        closed         INTEGER NOT NULL,
        reserved_until INTEGER NOT NULL,
        bytes_in       INTEGER NOT NULL,
        bytes_out      INTEGER NOT NULL,
        requests       INTEGER NOT NULL,
        last_active    INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE keys (
        id         INTEGER PRIMARY KEY,
        name       TEXT NOT NULL,
        hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
        created_at INTEGER NOT NULL,
        revoked_at INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX live_keys ON keys (name) WHERE revoked_at IS NULL;",
    // 2: generations of relay processes, so that one that is replaced undoes nothing of its successor's.
    "ALTER TABLE tunnels ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE relay (generation INTEGER NOT NULL) STRICT;
    INSERT INTO relay VALUES (0);",
    // 3: tunnels that are not HTTP, several clients on one, and what its owner wants of viewers. A port belongs to one row.
    "ALTER TABLE tunnels ADD COLUMN kind TEXT NOT NULL DEFAULT 'http';
    ALTER TABLE tunnels ADD COLUMN port INTEGER;
    ALTER TABLE tunnels ADD COLUMN target_proto TEXT;
    ALTER TABLE tunnels ADD COLUMN replica INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tunnels ADD COLUMN policy TEXT;
    CREATE UNIQUE INDEX ports ON tunnels (port) WHERE port IS NOT NULL;",
    // 4: hosts of owners' own; certificates that were ordered, and the accounts at their authorities.
    "ALTER TABLE tunnels ADD COLUMN domains TEXT;
    CREATE TABLE certificates (
        directory TEXT NOT NULL,
        name      TEXT NOT NULL,
        chain     TEXT NOT NULL,
        key       TEXT NOT NULL,
        PRIMARY KEY (directory, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE acme_accounts (
        directory   TEXT PRIMARY KEY NOT NULL,
        credentials TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;",
    // 5: targets that are told of their viewers.
    "ALTER TABLE tunnels ADD COLUMN proxy_protocol TEXT;",
];

/// The newest version that this program knows.
pub(super) fn latest() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// Brings the database to [`latest`]. Each step is one transaction together with its number, so a kill in
/// between leaves a database of a whole version.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), StoreError> {
    loop {
        let found = version(conn)?;
        if found == latest() {
            return Ok(());
        }
        if found > latest() {
            return Err(StoreError::Newer { found, known: latest() });
        }
        let sql = usize::try_from(found).ok().and_then(|at| STEPS.get(at));
        let sql = sql.ok_or_else(|| StoreError::Corrupt(format!("{found} is no version")))?;
        let step = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)?;
        // Read again under the write lock: of two processes that start together, one does the step.
        if version(&step)? == found {
            step.execute_batch(sql).map_err(store_error)?;
            step.pragma_update(None, "user_version", found + 1).map_err(store_error)?;
            step.commit().map_err(store_error)?;
        }
    }
}

fn version(conn: &Connection) -> Result<i64, StoreError> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(store_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_version_0_gets_every_step_once() {
        let mut conn = Connection::open_in_memory().unwrap();
        assert_eq!(version(&conn), Ok(0));
        migrate(&mut conn).unwrap();
        assert_eq!(version(&conn), Ok(latest()));
        conn.execute_batch("INSERT INTO keys (name, hash, created_at) VALUES ('a', zeroblob(32), 1)")
            .unwrap();
        migrate(&mut conn).unwrap();
        let keys: i64 = conn.query_row("SELECT count(*) FROM keys", [], |row| row.get(0)).unwrap();
        assert_eq!(keys, 1);
    }

    #[test]
    fn what_version_1_holds_is_there_afterwards() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(STEPS[0]).unwrap();
        conn.pragma_update(None, "user_version", 1).unwrap();
        conn.execute_batch(
            "INSERT INTO tunnels VALUES ('web', zeroblob(16), 'alice', 1, 1, 0, NULL, NULL, NULL, 1, NULL, 1, NULL,
                 0, 0, 9, 1, 2, 3, NULL)",
        )
        .unwrap();
        migrate(&mut conn).unwrap();
        let row = conn.query_row("SELECT requests, generation FROM tunnels WHERE name = 'web'", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        });
        assert_eq!(row, Ok((3, 0)));
    }

    #[test]
    fn a_newer_version_is_refused_and_left_alone() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.pragma_update(None, "user_version", latest() + 1).unwrap();
        let newer = StoreError::Newer { found: latest() + 1, known: latest() };
        assert_eq!(migrate(&mut conn), Err(newer));
        assert_eq!(version(&conn), Ok(latest() + 1));
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE keys (x)").unwrap();
        assert!(matches!(migrate(&mut conn), Err(StoreError::Other(_))));
        assert_eq!(version(&conn), Ok(0));
        let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        assert_eq!(tables, 1, "the half of a step must not stay");
    }
}
