//! What the SQLite store is asked, as SQL.

mod certificates;
mod keys;
pub(super) mod tunnels;

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, TransactionBehavior};

use super::open::store_error;
use super::sqlite::{Sqlite, data_version};
use super::{Activity, CertificateRow, KeyRow, PortRow, Put, Reply, Store, StoreError, TunnelRow};

impl Store for Sqlite {
    fn begin(&self) -> Reply<'_, i64> {
        self.call(|db| {
            let begin = |conn: &mut Connection| -> rusqlite::Result<i64> {
                let all = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
                all.execute("DELETE FROM tunnels WHERE reserved_until <= ?1", [now()])?;
                let next = all.query_row(
                    "UPDATE relay SET generation = generation + 1 RETURNING generation",
                    [],
                    |row| row.get(0),
                )?;
                all.commit()?;
                Ok(next)
            };
            db.generation = match begin(&mut db.conn).map_err(store_error) {
                Ok(next) => next,
                // A full disk keeps no relay from starting with what it can read.
                Err(StoreError::Unavailable(_)) => db
                    .conn
                    .query_row("SELECT generation FROM relay", [], |row| row.get(0))
                    .map_err(store_error)?,
                Err(error) => return Err(error),
            };
            Ok(db.generation)
        })
    }

    fn load_tunnels(&self) -> Reply<'_, Vec<TunnelRow>> {
        self.call(tunnels::load)
    }

    fn put_tunnel(&self, row: TunnelRow) -> Reply<'_, Put> {
        self.call(move |db| tunnels::put(db, row))
    }

    fn ports(&self) -> Reply<'_, Vec<PortRow>> {
        self.call(tunnels::ports)
    }

    fn save_activity(&self, rows: Vec<Activity>) -> Reply<'_, ()> {
        self.call(move |db| tunnels::save_activity(db, rows))
    }

    fn create_key(&self, name: String, hash: [u8; 32]) -> Reply<'_, bool> {
        self.call(move |db| keys::create(db, name, hash))
    }

    fn revoke_key(&self, name: String) -> Reply<'_, bool> {
        self.call(move |db| keys::revoke(db, name))
    }

    fn keys(&self) -> Reply<'_, Vec<KeyRow>> {
        self.call(keys::all)
    }

    fn find_key(&self, hash: [u8; 32]) -> Reply<'_, Option<KeyRow>> {
        self.call(move |db| keys::find(db, hash))
    }

    fn changed(&self) -> Reply<'_, bool> {
        self.call(|db| {
            let version = data_version(&db.conn)?;
            Ok(std::mem::replace(&mut db.seen, version) != version)
        })
    }

    fn certificates(&self) -> Reply<'_, Vec<CertificateRow>> {
        self.call(certificates::all)
    }

    fn put_certificate(&self, row: CertificateRow) -> Reply<'_, ()> {
        self.call(move |db| certificates::put(db, row))
    }

    fn acme_account(&self, directory: String) -> Reply<'_, Option<String>> {
        self.call(move |db| certificates::account(db, directory))
    }

    fn put_acme_account(&self, directory: String, credentials: String) -> Reply<'_, ()> {
        self.call(move |db| certificates::put_account(db, directory, credentials))
    }

    fn waiting(&self) -> usize {
        self.queued()
    }

    fn tally(&self) -> Option<&super::Tally> {
        Some(self.counted())
    }
}

/// SQLite's integers have a sign; a total beyond them is not to be met.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The wall clock, as the times on disk outlive the process.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::tunnels::tests::row;
    use super::*;

    #[tokio::test]
    async fn tunnels_whose_reservation_ended_are_not_loaded_and_deleted_at_the_next_start() {
        let store = Sqlite::memory().unwrap();
        store.put_tunnel(row("old", "alice", -1)).await.unwrap();
        assert_eq!(store.load_tunnels().await, Ok(vec![]));
        assert_eq!(store.begin().await, Ok(1));
        let left = store.call(|db| {
            db.conn
                .query_row("SELECT count(*) FROM tunnels", [], |row| row.get::<_, i64>(0))
                .map_err(store_error)
        });
        assert_eq!(left.await, Ok(0));
    }

    #[tokio::test]
    async fn each_process_has_a_higher_generation_and_an_older_one_undoes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (Sqlite::open(dir.path()).unwrap(), Sqlite::open(dir.path()).unwrap());
        assert_eq!((old.begin().await, new.begin().await), (Ok(1), Ok(2)));
        let first = row("web", "alice", 60_000);
        assert_eq!(old.put_tunnel(first.clone()).await, Ok(Put::Stored));
        assert_eq!(new.load_tunnels().await.unwrap()[0].generation, 1);
        let second = TunnelRow { suspended: false, local_port: 4000, ..first.clone() };
        assert_eq!(new.put_tunnel(second.clone()).await, Ok(Put::Stored));
        assert_eq!(old.put_tunnel(first.clone()).await, Ok(Put::Newer));
        assert_eq!(old.put_tunnel(row("web", "bob", 60_000)).await, Ok(Put::Taken));
        let kept = TunnelRow { generation: 2, ..second };
        assert_eq!(old.load_tunnels().await, Ok(vec![kept.clone()]));
        // What both have counted adds up.
        let activity = |requests| Activity {
            id: first.id,
            bytes_in: 0,
            bytes_out: 0,
            requests,
            last_active: None,
            reserved_until: 0,
        };
        new.save_activity(vec![activity(7)]).await.unwrap();
        old.save_activity(vec![activity(8)]).await.unwrap();
        assert_eq!(new.load_tunnels().await, Ok(vec![TunnelRow { requests: 5 + 15, ..kept }]));
        drop((old, new));
        let third = Sqlite::open(dir.path()).unwrap();
        assert_eq!(third.begin().await, Ok(3));
    }
}
