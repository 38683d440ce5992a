//! The lists of the dashboard: figures, search, order and pages, against a naive computation.

use std::cmp::Ordering;
use std::collections::HashSet;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::{Desk, code};
use crate::rig::{ALICE, BOB, Control, Rig, echo_target, soon};
use crate::wire::Viewer;

/// A base client that calls itself `agent`.
async fn client(rig: &Rig, key: &str, name: &str, agent: &[u8]) -> Control {
    let id = rig.create(key, name).await["id"].as_str().unwrap().to_owned();
    let mut request = rig.control_request(key, &id);
    request.headers_mut().insert("user-agent", http::HeaderValue::from_bytes(agent).unwrap());
    let (mut socket, _) = soon(connect_async(request)).await.unwrap();
    assert!(matches!(soon(socket.next()).await, Some(Ok(Message::Ping(_)))));
    Control { id, socket }
}

/// Until the list at `path` has so many rows in all.
async fn until(desk: &Desk, path: &str, total: usize) -> Value {
    desk.until(path, |list| list["total"] == total).await
}

/// Compares as the contract says: what is absent comes last in both orders, and equal ones are by name.
fn compare(one: &Value, other: &Value, field: &str, name: &str, descending: bool) -> Ordering {
    let rank =
        |row: &Value| ["dead", "late", "alive", "away"].iter().position(|health| row[field] == *health);
    let main = match (&one[field], &other[field]) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        (a, b) => {
            let ordering = match (a, b) {
                _ if field == "health" => rank(one).cmp(&rank(other)),
                (Value::String(a), Value::String(b)) => a.cmp(b),
                (a, b) => a.as_f64().partial_cmp(&b.as_f64()).unwrap(),
            };
            if descending { ordering.reverse() } else { ordering }
        }
    };
    main.then_with(|| one[name].as_str().cmp(&other[name].as_str()))
}

#[tokio::test]
async fn clients_are_searched_sorted_and_paged_as_by_hand() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let mut controls = Vec::new();
    for at in 0..23_usize {
        let (key, agent) = if at % 3 == 0 { (BOB, "Other/2") } else { (ALICE, "curl/8") };
        controls.push(client(&rig, key, &format!("fleet-{at:02}"), agent.as_bytes()).await);
    }
    let closed = controls.pop().unwrap();
    drop(closed);
    let away = until(&desk, "/api/clients?health=dead,away", 1).await;
    assert_eq!(away["clients"][0]["tunnel"], "fleet-22");
    let sorts = [
        "tunnel",
        "owner",
        "health",
        "address",
        "agent",
        "since",
        "reconnects",
        "silence",
        "round_trip",
        "p99",
        "missed",
    ];
    for sort in sorts {
        for descending in [false, true] {
            let order = if descending { "desc" } else { "asc" };
            let list = desk.json(&format!("/api/clients?sort={sort}&order={order}&size=200")).await;
            let rows = list["clients"].as_array().unwrap();
            assert_eq!(
                (rows.len(), &list["total"], &list["page"], &list["size"]),
                (23, &json!(23), &json!(1), &json!(200))
            );
            let field = match sort {
                "silence" | "round_trip" | "p99" => format!("{sort}_ms"),
                _ => sort.to_owned(),
            };
            // Silences are told in whole milliseconds and sorted by less.
            let sorted = rows.windows(2).all(|two| {
                let equal = sort == "silence" && two[0][&field] == two[1][&field];
                equal || compare(&two[0], &two[1], &field, "tunnel", descending) != Ordering::Greater
            });
            assert!(sorted, "{sort} {order}: {rows:?}");
        }
    }
    let all = desk.json("/api/clients?sort=tunnel&size=200").await;
    let names = |list: &Value| -> Vec<String> {
        list["clients"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["tunnel"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut paged = Vec::new();
    for page in 1..=4 {
        let list = desk.json(&format!("/api/clients?sort=tunnel&size=7&page={page}")).await;
        assert_eq!(list["total"], 23);
        paged.extend(names(&list));
    }
    assert_eq!(paged, names(&all));
    let behind = desk.json("/api/clients?size=7&page=5").await;
    assert_eq!((behind["total"].as_u64(), behind["clients"].as_array().unwrap().len()), (Some(23), 0));
    for search in ["FLEET-1", "bob", "Curl", "127.0.0", "other/", "nobody", "%20bob%20"] {
        let list = desk.json(&format!("/api/clients?sort=tunnel&size=200&search={search}")).await;
        let needle = search.replace("%20", "").to_lowercase();
        let expected: Vec<_> = all["clients"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| {
                ["tunnel", "owner", "address", "agent"]
                    .iter()
                    .any(|field| row[field].as_str().unwrap_or_default().to_lowercase().contains(&needle))
            })
            .map(|row| row["tunnel"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names(&list), expected, "{search}");
    }
    let worst_first = desk.json("/api/clients").await;
    assert_eq!(worst_first["size"], 50);
    assert!(
        worst_first["clients"]
            .as_array()
            .unwrap()
            .windows(2)
            .all(|two| compare(&two[0], &two[1], "health", "tunnel", false) != Ordering::Greater)
    );
    for bad in ["sort=size", "order=up", "health=well", "page=0", "size=201", "size=x", "page=1&page=2"] {
        let answer = desk.get(&format!("/api/clients?{bad}")).await;
        assert_eq!((answer.status, code(&answer).as_str()), (400, "query"), "{bad}");
    }
}

#[tokio::test]
async fn a_client_is_shown_with_its_pings_and_their_spread() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let mut control = client(&rig, ALICE, "web", b"curl/8").await;
    // Its first pong goes out as it reads on.
    let reading = tokio::spawn(async move { while control.socket.next().await.is_some() {} });
    let shown = &desk.until("/api/clients", |list| list["clients"][0]["pongs"] == 1).await["clients"][0];
    for (field, value) in [
        ("tunnel", json!("web")),
        ("owner", json!("alice")),
        ("health", json!("alive")),
        ("address", json!("127.0.0.1")),
        ("agent", json!("curl/8")),
        ("level", json!("base")),
        ("reconnects", json!(0)),
        ("pings", json!(1)),
        ("missed", json!(0)),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    let strip = shown["strip"].as_str().unwrap();
    assert!(
        strip.len() == 120
            && strip[..119].chars().all(|tick| tick == '.')
            && strip.ends_with(|tick: char| tick.is_ascii_lowercase()),
        "{strip}"
    );
    assert!(shown["round_trip_ms"].as_f64() > Some(0.0) && shown["p99_ms"].as_f64() > Some(0.0));
    assert!((adit::tunnel::unix_ms() - shown["since"].as_i64().unwrap()).abs() < 60_000);
    let one = desk.json(&format!("/api/clients/{}", shown["id"].as_str().unwrap())).await;
    let spread = one["spread"].as_array().unwrap();
    assert_eq!((&spread[0]["below_ms"], &spread.last().unwrap()["below_ms"]), (&json!(0.128), &Value::Null));
    assert_eq!(spread.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum::<u64>(), 1);
    for id in ["x", "00000000-0000-0000-0000-000000000000", "%2e%2e"] {
        let answer = desk.get(&format!("/api/clients/{id}")).await;
        assert_eq!((answer.status, code(&answer).as_str()), (404, "not_found"), "{id}");
    }
    reading.abort();
}

#[tokio::test]
async fn tunnels_show_what_went_through_them() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let client = rig.client(ALICE, "busy", echo_target().await).await;
    let mut viewer = Viewer::new(&rig).await;
    for _ in 0..3 {
        assert_eq!(viewer.get("busy", "/").await.status, 200);
    }
    rig.create(BOB, "quiet").await;
    rig.create(ALICE, "closed").await;
    assert_eq!(rig.get("quiet", "/").await.status, 503);
    let id = rig.create(ALICE, "closed").await["id"].as_str().unwrap().to_owned();
    rig.api(ALICE, "POST", &format!("/v1/tunnels/{id}/suspend"), "{\"suspended\":true}").await;
    let shown = |list: &Value| {
        list["tunnels"][2]["failures"] != json!({}) && list["tunnels"][1]["state"] == "suspended"
    };
    let list = desk.until("/api/tunnels", shown).await;
    let rows = list["tunnels"].as_array().unwrap();
    let states: Vec<_> =
        rows.iter().map(|row| (row["name"].as_str().unwrap(), row["state"].as_str().unwrap())).collect();
    assert_eq!(states, [("busy", "online"), ("closed", "suspended"), ("quiet", "offline")]);
    let busy = &rows[0];
    assert_eq!(
        (&busy["id"], &busy["requests"], &busy["clients"], &busy["proto"]),
        (&json!(client.id), &json!(3), &json!(1), &json!("http"))
    );
    assert!(
        busy["url"].as_str().unwrap().starts_with("http://busy.relay.test:")
            && busy["bytes_out"].as_u64() > Some(0)
    );
    assert!(busy["last_active"].as_i64() >= busy["created_at"].as_i64() && busy["expires_at"].is_null());
    assert!(
        busy["wait"]["p99_ms"].as_f64() >= busy["wait"]["p50_ms"].as_f64()
            && busy["wait"]["p50_ms"].as_f64() > Some(0.0)
    );
    assert_eq!(rows[2]["failures"].as_object().unwrap().values().next(), Some(&json!(1)));
    assert_eq!(rows[2]["wait"], json!({"p50_ms": null, "p99_ms": null}));

    for (sort, first) in [
        ("name", "busy"),
        ("owner", "busy"),
        ("requests&order=desc", "busy"),
        ("bytes&order=desc", "busy"),
        ("wait", "busy"),
        ("wait&order=desc", "busy"),
        ("failures&order=desc", "quiet"),
        ("age&order=desc", "busy"),
        ("viewers", "busy"),
    ] {
        assert_eq!(
            desk.json(&format!("/api/tunnels?sort={sort}")).await["tunnels"][0]["name"],
            first,
            "{sort}"
        );
    }
    for (filter, names) in [
        ("state=online", &["busy"][..]),
        ("state=offline,suspended", &["closed", "quiet"]),
        ("search=BOB", &["quiet"]),
        ("search=closed&state=online", &[]),
    ] {
        let list = desk.json(&format!("/api/tunnels?{filter}")).await;
        let found: Vec<_> =
            list["tunnels"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!((found.as_slice(), &list["total"]), (names, &json!(names.len())), "{filter}");
    }
    let one = desk.json(&format!("/api/tunnels/{}", client.id)).await;
    assert_eq!((&one["name"], &one["sessions"][0]["tunnel"]), (&json!("busy"), &json!("busy")));
    assert_eq!(desk.get("/api/tunnels/x").await.status, 404);
}

#[tokio::test]
async fn the_summary_counts_what_is_there() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let _client = rig.client(ALICE, "web", echo_target().await).await;
    rig.create(BOB, "quiet").await;
    let mut viewer = Viewer::new(&rig).await;
    assert_eq!(viewer.get("web", "/").await.status, 200);
    assert_eq!(rig.get("quiet", "/").await.status, 503);
    let summary = desk
        .until("/api/summary", |summary| {
            summary["requests"] == 2
                && summary["clients"]["alive"] == 1
                && summary["pings"]["answered"] == 1
                && summary["tunnels"]["offline"] == 1
        })
        .await;
    assert_eq!(summary["clients"], json!({"alive": 1, "late": 0, "dead": 0, "away": 0}));
    assert_eq!(summary["tunnels"], json!({"online": 1, "offline": 1, "suspended": 0}));
    assert_eq!(summary["sessions"], json!({"base": 1, "two": 0, "wsmux": 0}));
    assert_eq!(summary["pings"]["sent"], 1);
    assert_eq!((&summary["claims"]["claimed"], &summary["claims"]["reused"]), (&json!(1), &json!(0)));
    assert_eq!(summary["relay"]["state"], "serving");
    assert_eq!(summary["relay"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(summary["relay"]["url"].as_str().unwrap().contains("relay.test"));
    assert!(summary["at"].as_i64() >= summary["relay"]["started_at"].as_i64());
    assert_eq!(summary["failures"].as_object().unwrap().values().next(), Some(&json!(1)));
    for quantiles in ["round_trip", "claim_wait", "first_byte"] {
        assert!(summary[quantiles]["p99_ms"].as_f64() > Some(0.0), "{quantiles}: {}", summary[quantiles]);
    }
    assert!(summary["round_trip"]["now_ms"].as_f64() > Some(0.0) && summary["bytes_out"].as_u64() > Some(0));
    assert_eq!(summary["data_sockets"]["in_use"], 0);
    assert!(summary["events"].as_u64() >= Some(3));
}

#[tokio::test]
async fn events_and_keys_are_listed() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    rig.store.create_key("carol".into(), [7; 32]).await.unwrap();
    rig.store.create_key("gone".into(), [8; 32]).await.unwrap();
    rig.store.revoke_key("gone".into()).await.unwrap();
    let control = rig.control(ALICE, "web").await;
    drop(control);
    let list = until(&desk, "/api/events?kind=created,connected,disconnected", 3).await;
    let kinds: Vec<_> =
        list["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["disconnected", "connected", "created"]);
    assert_eq!(list["events"][0]["number"], list["newest"]);
    assert_eq!(
        (&list["events"][0]["tunnel"], &list["events"][0]["address"]),
        (&json!("web"), &json!("127.0.0.1"))
    );
    assert_eq!(
        desk.json("/api/events?search=WEB&size=2&page=2").await["events"].as_array().unwrap().len(),
        1
    );
    assert_eq!(desk.json("/api/events?search=nobody").await["total"], 0);
    assert_eq!(desk.get("/api/events?kind=x").await.status, 400);

    let keys = desk.json("/api/keys").await;
    let keys: Vec<_> = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| {
            (
                key["name"].as_str().unwrap(),
                key["from"].as_str().unwrap(),
                &key["tunnels"],
                key["created_at"].is_null(),
            )
        })
        .collect();
    assert_eq!(
        keys,
        [
            ("alice", "configuration", &json!(1), true),
            ("bob", "configuration", &json!(0), true),
            ("carol", "store", &json!(0), false)
        ]
    );
}

#[tokio::test]
async fn whoever_is_turned_away_by_any_call_is_among_the_events() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    rig.create(ALICE, "web").await;
    let long = format!("<b>\u{1b}[1m{}", "x".repeat(10_000));
    let wanted = |name: &str| json!({"local_port": 1, "name": name}).to_string();
    // A wrong key is told of once, whichever call it comes with; of other refusals those of clients that come.
    for (key, method, path, body, status) in [
        ("nbk_wrong", "POST", "/v1/tunnels", wanted("web"), 401),
        ("nbk_wrong", "GET", "/v1/tunnels", String::new(), 401),
        (BOB, "POST", "/v1/tunnels", wanted("web"), 409),
        (BOB, "POST", "/v1/tunnels", wanted(&long), 400),
        (BOB, "GET", "/ws/control?tunnel_id=x", String::new(), 404),
        (BOB, "GET", "/nowhere", String::new(), 404),
        (BOB, "GET", "/v1/tunnels/x", String::new(), 404),
    ] {
        assert_eq!(rig.api(key, method, path, &body).await.0, status, "{method} {path}");
    }
    let list = desk.json("/api/events?kind=refused").await;
    let refused: Vec<_> = list["events"].as_array().unwrap().iter().rev().collect();
    let whose: Vec<_> = refused.iter().map(|event| event["owner"].as_str()).collect();
    assert_eq!(whose, [None, None, Some("bob"), Some("bob"), Some("bob")], "{refused:#?}");
    assert!(refused.iter().all(|event| event["address"] == "127.0.0.1"));
    assert!(refused[0]["reason"].as_str().unwrap().contains("unknown or was revoked"));
    assert_eq!(refused[2]["tunnel"], "web");
    assert!(refused[2]["reason"].as_str().unwrap().contains("web"), "{:?}", refused[2]);
    let cut: String = long.chars().take(200).collect();
    assert_eq!(refused[3]["tunnel"], cut.as_str());
}

#[tokio::test]
async fn what_strangers_call_themselves_comes_out_as_text() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let agents: [&[u8]; 4] = [
        b"</script><img src=x onerror=alert(1)>",
        b"\"},{\"id\":\"x\"}]//\\u0000\\",
        "Ä\u{202e}gent\u{2028}".as_bytes(),
        b"\xff\xfe\x80 data: x",
    ];
    let mut controls = Vec::new();
    for (at, agent) in agents.iter().enumerate() {
        controls.push(client(&rig, ALICE, &format!("name-{at}"), agent).await);
    }
    let list = until(&desk, "/api/clients?sort=tunnel", 4).await;
    let shown: Vec<_> = list["clients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["agent"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(shown[..2], ["</script><img src=x onerror=alert(1)>", "\"},{\"id\":\"x\"}]//\\u0000\\"]);
    assert!(list["clients"].as_array().unwrap().iter().all(|row| row.as_object().unwrap().len() == 18));
    assert_eq!(until(&desk, "/api/clients?search=onerror", 1).await["clients"][0]["tunnel"], "name-0");
    for search in ["%00", "%ff", "%27%22%3C", "\\", "%F0%9F%92%A9"] {
        assert!(
            matches!(desk.get(&format!("/api/clients?search={search}")).await.status, 200 | 400),
            "{search}"
        );
    }
}

#[tokio::test]
async fn a_thousand_pages_at_once_are_all_answered() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let mut controls = Vec::new();
    for at in 0..40 {
        controls.push(client(&rig, ALICE, &format!("fleet-{at:02}"), b"curl/8").await);
    }
    until(&desk, "/api/clients", 40).await;
    let mut asking = JoinSet::new();
    for at in 0..1_000 {
        let desk = Desk { admin: desk.admin, cookie: desk.cookie.clone() };
        asking.spawn(async move {
            let list = desk
                .json(&format!("/api/clients?sort=tunnel&size=10&page={}&search=fleet", at % 4 + 1))
                .await;
            list["clients"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["tunnel"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        });
    }
    let answers = asking.join_all().await;
    assert!(answers.iter().all(|names| names.len() == 10));
    assert_eq!(answers.concat().into_iter().collect::<HashSet<_>>().len(), 40);
}
