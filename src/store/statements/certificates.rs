//! Certificates that were ordered, and accounts with their authorities, as SQL.

use rusqlite::{OptionalExtension, params};

use crate::store::open::store_error;
use crate::store::sqlite::Db;
use crate::store::{CertificateRow, StoreError};

/// All, by name.
pub(super) fn all(db: &mut Db) -> Result<Vec<CertificateRow>, StoreError> {
    let mut query = db
        .conn
        .prepare_cached("SELECT directory, name, chain, key FROM certificates ORDER BY name")
        .map_err(store_error)?;
    let rows = query.query_map([], |row| {
        Ok(CertificateRow { directory: row.get(0)?, name: row.get(1)?, chain: row.get(2)?, key: row.get(3)? })
    });
    rows.map_err(store_error)?.collect::<Result<_, _>>().map_err(store_error)
}

/// Takes the place of the one before.
pub(super) fn put(db: &mut Db, row: CertificateRow) -> Result<(), StoreError> {
    let CertificateRow { directory, name, chain, key } = &row;
    db.conn
        .execute(
            "INSERT OR REPLACE INTO certificates VALUES (?1, ?2, ?3, ?4)",
            params![directory, name, chain, key],
        )
        .map(drop)
        .map_err(store_error)
}

/// The credentials of the account with the authority of `directory`.
pub(super) fn account(db: &mut Db, directory: String) -> Result<Option<String>, StoreError> {
    let sql = "SELECT credentials FROM acme_accounts WHERE directory = ?1";
    db.conn.query_row(sql, [directory], |row| row.get(0)).optional().map_err(store_error)
}

/// Takes the place of the ones before.
pub(super) fn put_account(db: &mut Db, directory: String, credentials: String) -> Result<(), StoreError> {
    db.conn
        .execute("INSERT OR REPLACE INTO acme_accounts VALUES (?1, ?2)", [directory, credentials])
        .map(drop)
        .map_err(store_error)
}
