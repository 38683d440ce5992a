//! What the SQLite store is asked, as SQL.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, named_params, params};
use uuid::Uuid;

use super::open::store_error;
use super::sqlite::{Sqlite, data_version};
use super::{Activity, CertificateRow, KeyRow, PortRow, Put, Reply, Store, StoreError, TunnelRow};
use crate::proto::api::Balance;

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

const COLUMNS: &str = "id, name, owner, chosen, local_port, ttl_seconds, device_name, source, host_header, \
    reuse, auth, created_at, expires_at, suspended, closed, reserved_until, bytes_in, bytes_out, \
    requests, last_active, generation, kind, port, proxy_protocol, target_proto, replica, policy, domains";

fn tunnel_row(row: &Row<'_>) -> rusqlite::Result<TunnelRow> {
    Ok(TunnelRow {
        id: Uuid::from_bytes(row.get("id")?),
        name: row.get("name")?,
        owner: row.get("owner")?,
        chosen: row.get("chosen")?,
        local_port: row.get("local_port")?,
        ttl_seconds: unsigned(row.get("ttl_seconds")?),
        device_name: row.get("device_name")?,
        source: row.get("source")?,
        host_header: row.get("host_header")?,
        reuse: row.get("reuse")?,
        auth: row.get("auth")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
        suspended: row.get("suspended")?,
        closed: row.get("closed")?,
        reserved_until: row.get("reserved_until")?,
        bytes_in: unsigned(row.get("bytes_in")?),
        bytes_out: unsigned(row.get("bytes_out")?),
        requests: unsigned(row.get("requests")?),
        last_active: row.get("last_active")?,
        generation: row.get("generation")?,
        kind: row.get("kind")?,
        port: row.get("port")?,
        proxy_protocol: row.get("proxy_protocol")?,
        target_proto: row.get("target_proto")?,
        replica: replica(row.get("replica")?),
        policy: row.get("policy")?,
        domains: row.get("domains")?,
    })
}

/// How several clients share viewers, as it is kept: 0 is one client alone.
fn replica_number(replica: Option<Balance>) -> i64 {
    match replica {
        None => 0,
        Some(Balance::LeastBusy) => 1,
        Some(Balance::Sticky) => 2,
    }
}

fn replica(number: i64) -> Option<Balance> {
    match number {
        0 => None,
        2 => Some(Balance::Sticky),
        _ => Some(Balance::LeastBusy),
    }
}

fn key_row(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    Ok(KeyRow { name: row.get(0)?, created_at: row.get(1)?, revoked_at: row.get(2)? })
}

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
        self.call(|db| {
            let mut query = db
                .conn
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM tunnels WHERE reserved_until > ?1 ORDER BY name"
                ))
                .map_err(store_error)?;
            let rows = query.query_map([now()], tunnel_row).map_err(store_error)?;
            rows.collect::<Result<_, _>>().map_err(store_error)
        })
    }

    fn put_tunnel(&self, row: TunnelRow) -> Reply<'_, Put> {
        self.call(move |db| {
            // One statement decides: no other process can take the name between a look and a write.
            let sql = format!(
                "INSERT INTO tunnels ({COLUMNS})
                 VALUES (:id, :name, :owner, :chosen, :local_port, :ttl_seconds, :device_name, :source,
                     :host_header, :reuse, :auth, :created_at, :expires_at, :suspended, :closed, :reserved_until,
                     :bytes_in, :bytes_out, :requests, :last_active, :generation, :kind, :port, :proxy_protocol,
                     :target_proto, :replica, :policy, :domains)
                 ON CONFLICT (name) DO UPDATE SET
                     id = excluded.id, owner = excluded.owner, chosen = excluded.chosen,
                     local_port = excluded.local_port, ttl_seconds = excluded.ttl_seconds,
                     device_name = excluded.device_name, source = excluded.source,
                     host_header = excluded.host_header, reuse = excluded.reuse, auth = excluded.auth,
                     created_at = excluded.created_at, expires_at = excluded.expires_at,
                     suspended = excluded.suspended, closed = excluded.closed,
                     reserved_until = excluded.reserved_until,
                     bytes_in = iif(id = excluded.id, bytes_in, excluded.bytes_in),
                     bytes_out = iif(id = excluded.id, bytes_out, excluded.bytes_out),
                     requests = iif(id = excluded.id, requests, excluded.requests),
                     last_active = excluded.last_active, generation = excluded.generation,
                     kind = excluded.kind, port = excluded.port, proxy_protocol = excluded.proxy_protocol,
                     target_proto = excluded.target_proto, replica = excluded.replica, policy = excluded.policy,
                     domains = excluded.domains
                 WHERE (tunnels.owner = excluded.owner OR tunnels.reserved_until <= :now)
                     AND tunnels.generation <= excluded.generation"
            );
            let transaction = match row.port {
                None => None,
                Some(port) => {
                    // Immediate: a lock that is only asked for halfway would fail without waiting for its turn.
                    db.conn.execute_batch("BEGIN IMMEDIATE").map_err(store_error)?;
                    let transaction = Open { conn: &db.conn, done: false };
                    let free = "UPDATE tunnels SET port = NULL WHERE port = ?1 AND name <> ?2
                        AND (reserved_until <= ?4 OR (owner = ?3 AND (closed OR expires_at <= ?4)))";
                    let mut free = db.conn.prepare_cached(free).map_err(store_error)?;
                    free.execute(params![port, row.name, row.owner, now()]).map_err(store_error)?;
                    Some(transaction)
                }
            };
            let mut put = db.conn.prepare_cached(&sql).map_err(store_error)?;
            let stored = put.execute(named_params! {
                ":id": row.id.as_bytes(), ":name": row.name, ":owner": row.owner, ":chosen": row.chosen,
                ":local_port": row.local_port, ":ttl_seconds": signed(row.ttl_seconds),
                ":device_name": row.device_name, ":source": row.source, ":host_header": row.host_header,
                ":reuse": row.reuse, ":auth": row.auth, ":created_at": row.created_at,
                ":expires_at": row.expires_at, ":suspended": row.suspended, ":closed": row.closed,
                ":reserved_until": row.reserved_until, ":bytes_in": signed(row.bytes_in),
                ":bytes_out": signed(row.bytes_out), ":requests": signed(row.requests),
                ":last_active": row.last_active, ":generation": db.generation, ":now": now(),
                ":kind": row.kind, ":port": row.port, ":proxy_protocol": row.proxy_protocol,
                ":target_proto": row.target_proto, ":replica": replica_number(row.replica), ":policy": row.policy,
                ":domains": row.domains,
            });
            let stored = match stored {
                Err(error) if row.port.is_some() && is_port_conflict(&error) => return Ok(Put::PortTaken),
                stored => stored.map_err(store_error)?,
            };
            if let Some(transaction) = transaction.filter(|_| stored > 0) {
                transaction.commit()?;
            }
            if stored > 0 {
                return Ok(Put::Stored);
            }
            let mut query = db
                .conn
                .prepare_cached("SELECT owner = ?2 AND generation > ?3 FROM tunnels WHERE name = ?1")
                .map_err(store_error)?;
            let newer = query.query_row(params![row.name, row.owner, db.generation], |row| row.get(0));
            Ok(if newer.map_err(store_error)? { Put::Newer } else { Put::Taken })
        })
    }

    fn ports(&self) -> Reply<'_, Vec<PortRow>> {
        self.call(|db| {
            let sql = "SELECT port, name, owner FROM tunnels WHERE port IS NOT NULL AND reserved_until > ?1 ORDER BY port";
            let mut query = db.conn.prepare_cached(sql).map_err(store_error)?;
            let rows = query.query_map([now()], |row| {
                Ok(PortRow { port: row.get(0)?, name: row.get(1)?, owner: row.get(2)? })
            });
            rows.map_err(store_error)?.collect::<Result<_, _>>().map_err(store_error)
        })
    }

    fn save_activity(&self, rows: Vec<Activity>) -> Reply<'_, ()> {
        self.call(move |db| {
            let save = |conn: &mut Connection| -> rusqlite::Result<()> {
                // Immediate: a lock that is only asked for halfway would fail without waiting for its turn.
                let all = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let mut one = all.prepare_cached(
                    // max() of nothing and a time would be nothing.
                    "UPDATE tunnels SET bytes_in = min(bytes_in + ?2, ?7), bytes_out = min(bytes_out + ?3, ?7),
                         requests = min(requests + ?4, ?7), last_active = max(ifnull(last_active, ?5), ifnull(?5, last_active)),
                         reserved_until = max(reserved_until, ?6) WHERE id = ?1",
                )?;
                for row in &rows {
                    one.execute(params![
                        row.id.as_bytes(),
                        signed(row.bytes_in),
                        signed(row.bytes_out),
                        signed(row.requests),
                        row.last_active,
                        row.reserved_until,
                        i64::MAX,
                    ])?;
                }
                drop(one);
                all.commit()
            };
            save(&mut db.conn).map_err(store_error)
        })
    }

    fn create_key(&self, name: String, hash: [u8; 32]) -> Reply<'_, bool> {
        self.call(move |db| {
            key_write(&db.conn, |conn| {
                conn.execute(
                    "INSERT INTO keys (name, hash, created_at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING",
                    params![name, hash, now()],
                )
            })
        })
    }

    fn revoke_key(&self, name: String) -> Reply<'_, bool> {
        self.call(move |db| {
            key_write(&db.conn, |conn| {
                conn.execute(
                    "UPDATE keys SET revoked_at = ?2 WHERE name = ?1 AND revoked_at IS NULL",
                    params![name, now()],
                )
            })
        })
    }

    fn keys(&self) -> Reply<'_, Vec<KeyRow>> {
        self.call(|db| {
            let mut query = db
                .conn
                .prepare_cached("SELECT name, created_at, revoked_at FROM keys ORDER BY created_at, id")
                .map_err(store_error)?;
            let rows = query.query_map([], key_row).map_err(store_error)?;
            rows.collect::<Result<_, _>>().map_err(store_error)
        })
    }

    fn find_key(&self, hash: [u8; 32]) -> Reply<'_, Option<KeyRow>> {
        self.call(move |db| {
            let mut query = db
                .conn
                .prepare_cached(
                    "SELECT name, created_at, revoked_at FROM keys WHERE hash = ?1 AND revoked_at IS NULL",
                )
                .map_err(store_error)?;
            query.query_row([hash], key_row).optional().map_err(store_error)
        })
    }

    fn changed(&self) -> Reply<'_, bool> {
        self.call(|db| {
            let version = data_version(&db.conn)?;
            Ok(std::mem::replace(&mut db.seen, version) != version)
        })
    }

    fn certificates(&self) -> Reply<'_, Vec<CertificateRow>> {
        self.call(|db| {
            let mut query = db
                .conn
                .prepare_cached("SELECT directory, name, chain, key FROM certificates ORDER BY name")
                .map_err(store_error)?;
            let rows = query.query_map([], |row| {
                Ok(CertificateRow {
                    directory: row.get(0)?,
                    name: row.get(1)?,
                    chain: row.get(2)?,
                    key: row.get(3)?,
                })
            });
            rows.map_err(store_error)?.collect::<Result<_, _>>().map_err(store_error)
        })
    }

    fn put_certificate(&self, row: CertificateRow) -> Reply<'_, ()> {
        self.call(move |db| {
            let CertificateRow { directory, name, chain, key } = &row;
            db.conn
                .execute(
                    "INSERT OR REPLACE INTO certificates VALUES (?1, ?2, ?3, ?4)",
                    params![directory, name, chain, key],
                )
                .map(drop)
                .map_err(store_error)
        })
    }

    fn acme_account(&self, directory: String) -> Reply<'_, Option<String>> {
        self.call(move |db| {
            let sql = "SELECT credentials FROM acme_accounts WHERE directory = ?1";
            db.conn.query_row(sql, [directory], |row| row.get(0)).optional().map_err(store_error)
        })
    }

    fn put_acme_account(&self, directory: String, credentials: String) -> Reply<'_, ()> {
        self.call(move |db| {
            db.conn
                .execute("INSERT OR REPLACE INTO acme_accounts VALUES (?1, ?2)", [directory, credentials])
                .map(drop)
                .map_err(store_error)
        })
    }

    fn waiting(&self) -> usize {
        self.queued()
    }
}

/// A transaction that is rolled back unless it is committed.
struct Open<'a> {
    conn: &'a Connection,
    done: bool,
}

impl Open<'_> {
    fn commit(mut self) -> Result<(), StoreError> {
        self.conn.execute_batch("COMMIT").map_err(store_error)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.conn.execute_batch("ROLLBACK");
        }
    }
}

/// Whether what failed is that another row has the port.
fn is_port_conflict(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(_, Some(text)) if text.contains("tunnels.port"))
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
pub(super) mod tests {
    use super::*;

    pub(in crate::store) fn row(name: &str, owner: &str, reserved_for: i64) -> TunnelRow {
        TunnelRow {
            id: Uuid::new_v4(),
            name: name.into(),
            owner: owner.into(),
            chosen: true,
            local_port: 3000,
            ttl_seconds: 3600,
            device_name: Some("laptop".into()),
            source: None,
            host_header: Some("localhost".into()),
            reuse: true,
            auth: Some("hash".into()),
            kind: "http".into(),
            port: None,
            proxy_protocol: Some("v2".into()),
            target_proto: Some("h2".into()),
            replica: Some(Balance::Sticky),
            policy: Some("{}".into()),
            domains: Some("www.example.com".into()),
            created_at: 1,
            expires_at: Some(2),
            suspended: true,
            closed: false,
            reserved_until: now() + reserved_for,
            bytes_in: 3,
            bytes_out: u64::try_from(i64::MAX).unwrap(),
            requests: 5,
            last_active: None,
            generation: 0,
        }
    }

    #[tokio::test]
    async fn a_name_belongs_to_its_owner_until_the_reservation_ends() {
        let store = Sqlite::memory().unwrap();
        let first = row("web", "alice", 60_000);
        assert_eq!(store.put_tunnel(first.clone()).await, Ok(Put::Stored));
        assert_eq!(store.put_tunnel(row("web", "bob", 60_000)).await, Ok(Put::Taken));
        assert_eq!(store.load_tunnels().await, Ok(vec![first]));
        // Its owner may change all of it, the reservation too.
        assert_eq!(store.put_tunnel(row("web", "alice", -1)).await, Ok(Put::Stored));
        let second = row("web", "bob", 60_000);
        assert_eq!(store.put_tunnel(second.clone()).await, Ok(Put::Stored));
        assert_eq!(store.load_tunnels().await, Ok(vec![second]));
    }

    #[tokio::test]
    async fn a_port_belongs_to_its_name_and_is_let_go_only_by_its_owner_or_by_time() {
        let store = Sqlite::memory().unwrap();
        let with_port = |name: &str, owner: &str, port| TunnelRow {
            port: Some(port),
            expires_at: None,
            ..row(name, owner, 60_000)
        };
        let db = with_port("db", "alice", 7000);
        assert_eq!(store.put_tunnel(db.clone()).await, Ok(Put::Stored));
        for owner in ["alice", "bob"] {
            assert_eq!(
                store.put_tunnel(with_port("other", owner, 7000)).await,
                Ok(Put::PortTaken),
                "{owner}"
            );
        }
        assert_eq!(store.load_tunnels().await, Ok(vec![db.clone()]), "nothing is left of what was refused");
        // Ended, it still belongs to its owner.
        store.put_tunnel(TunnelRow { closed: true, ..db.clone() }).await.unwrap();
        assert_eq!(store.put_tunnel(with_port("other", "bob", 7000)).await, Ok(Put::PortTaken));
        // A name that is another's takes no port along.
        assert_eq!(store.put_tunnel(with_port("theirs", "bob", 7001)).await, Ok(Put::Stored));
        assert_eq!(store.put_tunnel(with_port("theirs", "alice", 7000)).await, Ok(Put::Taken));
        let port = |port, name: &str, owner: &str| PortRow { port, name: name.into(), owner: owner.into() };
        let ports = vec![port(7000, "db", "alice"), port(7001, "theirs", "bob")];
        assert_eq!(store.ports().await, Ok(ports));
        assert_eq!(store.put_tunnel(with_port("db2", "alice", 7000)).await, Ok(Put::Stored));
        // By time it is free for all.
        store.put_tunnel(TunnelRow { reserved_until: 1, ..with_port("db2", "alice", 7000) }).await.unwrap();
        assert_eq!(store.put_tunnel(with_port("other", "bob", 7000)).await, Ok(Put::Stored));
        assert_eq!(store.ports().await.unwrap()[0], port(7000, "other", "bob"));
    }

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
    async fn activity_adds_to_the_counters_and_takes_nothing_back() {
        let store = Sqlite::memory().unwrap();
        let before = row("web", "alice", 60_000);
        store.put_tunnel(before.clone()).await.unwrap();
        let known = Activity {
            id: before.id,
            bytes_in: 10,
            bytes_out: 20,
            requests: 30,
            last_active: Some(40),
            reserved_until: before.reserved_until + 1,
        };
        let unknown = Activity { id: Uuid::new_v4(), ..known.clone() };
        let earlier = Activity { last_active: None, reserved_until: 0, ..known.clone() };
        store.save_activity(vec![unknown, known]).await.unwrap();
        store.save_activity(vec![earlier]).await.unwrap();
        let after = TunnelRow {
            bytes_in: 3 + 20,
            // As far as the column goes.
            bytes_out: i64::MAX as u64,
            requests: 5 + 60,
            last_active: Some(40),
            reserved_until: before.reserved_until + 1,
            ..before.clone()
        };
        assert_eq!(store.load_tunnels().await, Ok(vec![after.clone()]));
        store.put_tunnel(before.clone()).await.unwrap();
        let counters = |row: &TunnelRow| (row.bytes_in, row.bytes_out, row.requests);
        let kept = store.load_tunnels().await.unwrap();
        assert_eq!(counters(&kept[0]), counters(&after), "a new spec leaves the counters alone");
        store.put_tunnel(TunnelRow { id: Uuid::new_v4(), ..before.clone() }).await.unwrap();
        let anew = store.load_tunnels().await.unwrap();
        assert_eq!(counters(&anew[0]), counters(&before), "a new tunnel has counters of its own");
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
