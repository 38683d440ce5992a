//! Keys, as SQL.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::now;
use crate::store::open::store_error;
use crate::store::sqlite::Db;
use crate::store::{KeyRow, StoreError};

/// Writes to the keys reach the disk before they are answered: a key that was revoked must not come back
/// after a power cut. They are rare enough for that.
fn key_write(
    conn: &Connection,
    write: impl FnOnce(&Connection) -> rusqlite::Result<usize>,
) -> Result<bool, StoreError> {
    conn.pragma_update(None, "synchronous", "FULL").map_err(store_error)?;
    let written = write(conn).map_err(store_error);
    conn.pragma_update(None, "synchronous", "NORMAL").map_err(store_error)?;
    Ok(written? > 0)
}

fn key_row(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    Ok(KeyRow { name: row.get(0)?, created_at: row.get(1)?, revoked_at: row.get(2)? })
}

/// Adds one; `false`: there is a live one of that name.
pub(super) fn create(db: &mut Db, name: String, hash: [u8; 32]) -> Result<bool, StoreError> {
    key_write(&db.conn, |conn| {
        conn.execute(
            "INSERT INTO keys (name, hash, created_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING",
            params![name, hash, now()],
        )
    })
}

/// Revokes the live one of that name; `false`: there is none.
pub(super) fn revoke(db: &mut Db, name: String) -> Result<bool, StoreError> {
    key_write(&db.conn, |conn| {
        conn.execute(
            "UPDATE keys SET revoked_at = ?2 WHERE name = ?1 AND revoked_at IS NULL",
            params![name, now()],
        )
    })
}

/// All that there ever were, the oldest first.
pub(super) fn all(db: &mut Db) -> Result<Vec<KeyRow>, StoreError> {
    let mut query = db
        .conn
        .prepare_cached("SELECT name, created_at, revoked_at FROM keys ORDER BY created_at, id")
        .map_err(store_error)?;
    let rows = query.query_map([], key_row).map_err(store_error)?;
    rows.collect::<Result<_, _>>().map_err(store_error)
}

/// The one with that hash, unless it is revoked.
pub(super) fn find(db: &mut Db, hash: [u8; 32]) -> Result<Option<KeyRow>, StoreError> {
    let mut query = db
        .conn
        .prepare_cached(
            "SELECT name, created_at, revoked_at FROM keys WHERE hash = ?1 AND revoked_at IS NULL",
        )
        .map_err(store_error)?;
    query.query_row([hash], key_row).optional().map_err(store_error)
}

#[cfg(test)]
mod tests {
    use crate::store::{Sqlite, Store};

    #[tokio::test]
    async fn a_key_made_or_revoked_by_another_process_counts_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let relay = Sqlite::open(dir.path()).unwrap();
        let tool = Sqlite::open(dir.path()).unwrap();
        assert_eq!(relay.changed().await, Ok(false));
        assert_eq!(tool.create_key("alice".into(), [1; 32]).await, Ok(true));
        assert_eq!(relay.changed().await, Ok(true));
        assert_eq!(relay.changed().await, Ok(false));
        let found = relay.find_key([1; 32]).await.unwrap();
        assert_eq!(found, relay.keys().await.unwrap().pop());
        assert_eq!(found.unwrap().name, "alice");
        assert_eq!(relay.create_key("alice".into(), [2; 32]).await, Ok(false));
        assert_eq!(relay.changed().await, Ok(false), "its own writes are no news");

        assert_eq!(tool.revoke_key("alice".into()).await, Ok(true));
        assert_eq!(tool.revoke_key("alice".into()).await, Ok(false));
        assert_eq!(relay.find_key([1; 32]).await, Ok(None));
        assert_eq!(relay.create_key("alice".into(), [2; 32]).await, Ok(true));
        let keys = tool.keys().await.unwrap();
        let states: Vec<_> = keys.iter().map(|key| (key.name.as_str(), key.revoked_at.is_some())).collect();
        assert_eq!(states, [("alice", true), ("alice", false)]);
    }
}
