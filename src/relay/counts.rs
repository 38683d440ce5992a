//! What the relay holds at this moment, in numbers: `GET /counts` of the admin listener.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::Shared;
use crate::sync::Count;

/// What is counted nowhere else.
#[derive(Default)]
pub struct Open {
    /// Requests that are not answered to the end.
    pub exchanges: Count,
    /// Connections of viewers that the target has switched to another protocol.
    pub upgraded: Count,
    /// Connections of viewers whose bytes nobody reads, from their beginning.
    pub raw: Count,
    /// Connections that became control sockets.
    pub control_sockets: Count,
    /// Connections that became data sockets.
    pub data_sockets: Count,
    /// Data sockets that are kept for one viewer, or will be after the exchange under way.
    pub pinned: Count,
    /// Accepted on the admin listener or that for metrics, and not closed.
    pub admin: Count,
}

/// One flat object of numbers, without names. Each is what is there now, not a sum of what was: when viewers and clients
/// have gone, all are as they were before these came, but for memory, tunnels and remembered keys. They are read one
/// after the other, so two of them may differ by what happened between.
///
/// A new table or queue gets a field here and a line in [`count`].
#[derive(Serialize)]
struct Counts {
    /// Descriptors of the process; absent where the system has no `/proc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    descriptors: Option<u64>,
    /// Bytes of memory of the process that are resident; absent where the system has no `/proc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    /// Tasks that have not ended.
    tasks: usize,
    /// Accepted on the public listeners and alive, whatever they have become.
    connections: usize,
    /// Requests under way, REST and handshakes included.
    exchanges: usize,
    /// Connections of viewers that speak another protocol by now, such as WebSocket.
    upgraded: usize,
    /// Connections of viewers of TCP and TLS tunnels.
    raw: usize,
    /// Sockets that listen at ports of tunnels.
    tcp_listeners: usize,
    /// Tasks of viewers: connections, upgraded ones, and uploads that outlast their response.
    viewer_tasks: usize,
    /// Tasks of clients: control sockets, and data sockets whose handshake is under way.
    client_tasks: usize,
    /// Sessions; some may serve no tunnel any more, as their control socket is just ending.
    sessions: usize,
    /// Connections that became control sockets.
    control_sockets: usize,
    /// Data sockets that carry an exchange.
    data_sockets_in_use: usize,
    /// Data sockets between two exchanges.
    idle_data_sockets: usize,
    /// Data sockets opened in advance, with those whose handshake is under way.
    standby_data_sockets: usize,
    /// Data sockets that are kept for one viewer, or will be after the exchange under way.
    pinned_data_sockets: usize,
    /// Connections that clients were told of and that are not answered yet.
    pending: usize,
    /// Of these, the ones that nobody has claimed.
    waiting: usize,
    /// Viewers that wait for a client that is away.
    waiting_for_client: usize,
    /// Viewers whose password is being checked.
    password_checks: usize,
    /// Bytes of bodies that are held until their signature was checked.
    signed_bytes: usize,
    /// Messages that clients have not been sent yet.
    unsent_messages: usize,
    /// Tunnels, by name.
    tunnels: usize,
    /// Tunnels, by id.
    tunnels_by_id: usize,
    /// Tunnels, by port.
    tunnels_by_port: usize,
    /// Keys that were good when last looked up, remembered in case the store fails.
    keys_remembered: usize,
    /// Calls that wait for the store.
    store_queue: usize,
    /// 1 while the process lives that this one has taken over from.
    predecessors: usize,
    /// Questions to it that are not on their way yet.
    questions_to_predecessor: usize,
    /// Questions of a successor under way.
    questions_of_successor: usize,
    /// Connections to the admin listener and that for metrics.
    admin_connections: usize,
    /// Operators that are logged into the dashboard.
    admin_sessions: usize,
}

/// `GET /counts`
pub async fn counts(State(shared): State<Arc<Shared>>) -> Result<Json<impl Serialize>, StatusCode> {
    let tasks = Handle::current().metrics().num_alive_tasks();
    // With thousands of descriptors and tunnels it takes milliseconds.
    let counting = spawn_blocking(move || count(&shared, tasks));
    counting.await.map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

fn count(shared: &Shared, tasks: usize) -> Counts {
    let Shared { open, pending, registry, predecessor, .. } = shared;
    let (mut idle, mut away, mut checks, mut unsent, mut held) = (0, 0, 0, 0, 0);
    // A copy of the list: no lock is held while each is looked at.
    for tunnel in registry.all() {
        away += tunnel.waiting();
        let spec = tunnel.spec();
        checks += spec.auth.as_ref().map_or(0, |auth| auth.waiting());
        if let Some(policy) = &spec.policy {
            checks += policy.users.as_ref().map_or(0, |users| users.waiting());
            held += policy.held();
        }
        for session in tunnel.all_sessions() {
            idle += session.idle_lanes();
            unsent += session.unsaid();
        }
    }
    let (tunnels, tunnels_by_id) = registry.counts();
    Counts {
        descriptors: descriptors(),
        memory_bytes: memory(),
        tasks,
        connections: shared.room.taken(),
        exchanges: open.exchanges.get(),
        upgraded: open.upgraded.get(),
        raw: open.raw.get(),
        tcp_listeners: shared.ports.count(),
        viewer_tasks: shared.tasks.len(),
        client_tasks: shared.sessions.len(),
        sessions: pending.sessions(),
        control_sockets: open.control_sockets.get(),
        data_sockets_in_use: shared.in_use(idle),
        idle_data_sockets: idle,
        standby_data_sockets: pending.standby(),
        pinned_data_sockets: open.pinned.get(),
        pending: pending.announced(),
        waiting: pending.waiting(),
        waiting_for_client: away,
        password_checks: checks,
        signed_bytes: held,
        unsent_messages: unsent,
        tunnels,
        tunnels_by_id,
        tunnels_by_port: registry.ports(),
        keys_remembered: shared.keys.remembered(),
        store_queue: registry.unstored(),
        predecessors: usize::from(predecessor.is_alive()),
        questions_to_predecessor: predecessor.unasked(),
        questions_of_successor: shared.questions.len(),
        admin_connections: open.admin.get(),
        admin_sessions: shared.door.sessions(),
    }
}

/// Without the one that the look itself takes.
pub(super) fn descriptors() -> Option<u64> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(open).ok()?.checked_sub(1)
}

pub(super) fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}
