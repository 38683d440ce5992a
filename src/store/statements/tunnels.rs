//! Tunnels and their counters, as SQL.

use rusqlite::{Connection, Row, TransactionBehavior, named_params, params};
use uuid::Uuid;

use super::{now, signed, unsigned};
use crate::proto::api::Balance;
use crate::store::open::store_error;
use crate::store::sqlite::Db;
use crate::store::{Activity, PortRow, Put, StoreError, TunnelRow};

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

/// Those whose names are reserved, by name.
pub(super) fn load(db: &mut Db) -> Result<Vec<TunnelRow>, StoreError> {
    let mut query = db
        .conn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM tunnels WHERE reserved_until > ?1 ORDER BY name"))
        .map_err(store_error)?;
    let rows = query.query_map([now()], tunnel_row).map_err(store_error)?;
    rows.collect::<Result<_, _>>().map_err(store_error)
}

/// See [`Store::put_tunnel`](crate::store::Store::put_tunnel).
pub(super) fn put(db: &mut Db, row: TunnelRow) -> Result<Put, StoreError> {
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
}

/// The ports that are taken, in their order.
pub(super) fn ports(db: &mut Db) -> Result<Vec<PortRow>, StoreError> {
    let sql =
        "SELECT port, name, owner FROM tunnels WHERE port IS NOT NULL AND reserved_until > ?1 ORDER BY port";
    let mut query = db.conn.prepare_cached(sql).map_err(store_error)?;
    let rows = query
        .query_map([now()], |row| Ok(PortRow { port: row.get(0)?, name: row.get(1)?, owner: row.get(2)? }));
    rows.map_err(store_error)?.collect::<Result<_, _>>().map_err(store_error)
}

/// Adds to the counters.
pub(super) fn save_activity(db: &mut Db, rows: Vec<Activity>) -> Result<(), StoreError> {
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

#[cfg(test)]
pub(in crate::store) mod tests {
    use super::*;
    use crate::store::{Sqlite, Store};

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
}
