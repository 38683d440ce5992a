//! `/metrics`: who may read it and where, what it says and by which names, and what it costs when many ask.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::counts::settle;
use crate::program::{Running, http, relay};
use crate::prometheus::promtool;
use crate::rig::{
    ALICE, Answer, BOB, CLOSE, LOOK_EVERY, PATIENCE, Rig, echo_target, read_all, request, soon,
};
use crate::tools::root;
use crate::wire::Viewer;

const OPENMETRICS: &str = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";

async fn ask(address: SocketAddr, path: &str, headers: &str) -> Answer {
    http(address, request("", "GET", path, &format!("{headers}{CLOSE}"), "")).await
}

/// The page at `address`, in the text format of Prometheus.
pub async fn page(address: SocketAddr) -> String {
    let answer = ask(address, "/metrics", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

/// Value of the sample that is written so, such as `adit_clients{health="alive"}`.
pub fn value(page: &str, sample: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

/// Until the page says so: all of it then.
pub async fn until(address: SocketAddr, says: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = page(address).await;
        if says(&page) {
            return page;
        }
        assert!(Instant::now() < deadline, "{page}");
        sleep(LOOK_EVERY).await;
    }
}

// ---- names ----

/// Names of series, as queries have them, by what was written of families: histograms have three.
fn series(golden: &str) -> BTreeSet<String> {
    let types = golden.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let suffixes = |kind: &str| if kind == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
    types
        .flat_map(|(name, kind)| suffixes(kind).iter().map(move |suffix| format!("{name}{suffix}")))
        .collect()
}

/// Labels of each family, with their values where all of them are there from the beginning.
fn labels(page: &str) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let mut families: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        for label in rest.split_once('}').unwrap().0.split(',') {
            let (key, value) = label.split_once('=').unwrap();
            if key != "le" {
                let values = families.entry(name.to_owned()).or_default().entry(key.to_owned()).or_default();
                values.insert(value.trim_matches('"').to_owned());
            }
        }
    }
    families
}

/// The table of docs/metrics.md.
fn table(page: &str) -> String {
    let labels = labels(page);
    let mut table = String::from("| name | type | labels | what it is |\n|---|---|---|---|\n");
    let mut help = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, text)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.insert(name, text);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let of_family = labels.get(name).into_iter().flatten().map(|(key, values)| {
                match key.as_str() {
                    // Only those that there were, or one for each program.
                    "cause" | "class" | "source" | "version" | "code" => format!("`{key}`"),
                    _ => format!("`{key}`: {}", values.iter().cloned().collect::<Vec<_>>().join(", ")),
                }
            });
            let of_family: Vec<_> = of_family.collect();
            let row = format!("| `{name}` | {kind} | {} | {} |\n", of_family.join("; "), help[name]);
            table.push_str(&row);
        }
    }
    table
}

const BEGIN: &str = "<!-- The table is written by ADIT_BLESS=1 cargo test metrics::names -->\n";
const END: &str = "<!-- end of the table -->\n";

/// `ADIT_BLESS=1 cargo test metrics::names` writes both anew.
#[tokio::test]
async fn names_and_help_are_those_of_the_golden_file_and_of_the_documents() {
    let (home, authority) = (tempfile::tempdir().unwrap(), crate::certs::Authority::new());
    let (certificate, key) = authority.write(home.path(), "relay", &["relay.test"]);
    let rig = Rig::with(|config| (config.tls_cert, config.tls_key) = (vec![certificate], vec![key])).await;
    let page = page(rig.admin).await;
    let described: String =
        page.lines().filter(|line| line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    let (golden, docs) = (root("tests/vectors/metrics.txt"), root("docs/metrics.md"));
    let text = std::fs::read_to_string(&docs).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (known, after) = rest.split_once(END).unwrap();
    if std::env::var_os("ADIT_BLESS").is_some() {
        std::fs::write(&golden, &described).unwrap();
        std::fs::write(&docs, format!("{before}{BEGIN}\n{}\n{END}{after}", table(&page))).unwrap();
        return;
    }
    let hint =
        "ADIT_BLESS=1 cargo test metrics::names writes it anew; dashboards of others count on the names";
    assert_eq!(described, std::fs::read_to_string(golden).unwrap(), "tests/vectors/metrics.txt: {hint}");
    assert_eq!(known.trim(), table(&page).trim(), "docs/metrics.md: {hint}");
}

#[test]
fn rules_and_the_dashboard_name_only_metrics_that_there_are() {
    let known = series(&std::fs::read_to_string(root("tests/vectors/metrics.txt")).unwrap());
    let mut files = vec![root("deploy/grafana/adit.json"), root("docs/metrics.md")];
    files.extend(crate::prometheus::rules());
    let mut wrong = Vec::new();
    let mut named = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| {
            word.starts_with("adit_") || word.strip_prefix("process_").is_some_and(|rest| !rest.is_empty())
        }) {
            named += 1;
            // A family is also named without the suffix of its series.
            if !known.contains(word) && !known.contains(&format!("{word}_bucket")) {
                wrong.push(format!("{}: {word}", file.display()));
            }
        }
    }
    assert!(named > 100 && wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_dashboard_shows_every_family_of_our_own_and_has_no_two_panels_at_one_place() {
    let text = std::fs::read_to_string(root("deploy/grafana/adit.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let golden = std::fs::read_to_string(root("tests/vectors/metrics.txt")).unwrap();
    let families = golden.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let missing: Vec<_> = families.filter(|name| name.starts_with("adit_") && !text.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let mut taken = HashSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{panel}");
        for cell in
            (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert(cell), "{} lies on another panel", panel["title"]);
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{}", panel["title"]);
        }
    }
}

// ---- who may read it ----

#[tokio::test]
async fn the_admin_listener_has_it_under_its_own_names_and_the_public_one_has_not() {
    let rig = Rig::start().await;
    assert_eq!(ask(rig.admin, "/metrics", "").await.status, 200);
    assert_eq!(ask(rig.address, "/metrics", "").await.status, 404);
    let evil = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(http(rig.admin, evil).await.status, 421);
    let post = "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(http(rig.admin, post).await.status, 405);
}

#[tokio::test]
async fn the_listener_for_scrapers_has_metrics_and_probes_alone_under_any_name() {
    let home = tempfile::tempdir().unwrap();
    let relay = start(home.path(), &["--metrics-listen", "127.0.0.1:0"]).await;
    let metrics = relay.metrics.unwrap();
    for (path, status) in [
        ("/metrics", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/counts", 404),
        ("/", 404),
        ("/v1/version", 404),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: relay:9464\r\n\r\n");
        let answer = http(metrics, request).await;
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{path}");
    }
    assert!(value(&page(metrics).await, "adit_ready") == Some(1.0));
}

#[tokio::test]
async fn without_the_option_nobody_listens_for_scrapers() {
    let home = tempfile::tempdir().unwrap();
    let relay = start(home.path(), &[]).await;
    assert_eq!(relay.metrics, None);
}

#[tokio::test]
async fn a_stop_shows_in_metrics_and_probes_as_long_as_it_lasts() {
    let rig = Rig::start().await;
    let (admin, mut viewer) = (rig.admin, rig.viewer().await);
    let _held = rig.control(ALICE, "web").await;
    viewer.write_all(b"GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await.unwrap();
    until(admin, |page| value(page, "adit_viewers_waiting{for=\"claim\"}") == Some(1.0)).await;
    let mut stopping = JoinSet::new();
    stopping.spawn(rig.shutdown());
    until(admin, |page| value(page, "adit_ready") == Some(0.0)).await;
}

async fn start(home: &Path, options: &[&str]) -> Running {
    Running::start(relay(home, options)).await
}

// ---- formats ----

#[tokio::test]
async fn whoever_asks_for_openmetrics_gets_it_and_others_the_older_text() {
    let rig = Rig::start().await;
    let plain = ask(rig.admin, "/metrics", "Accept: */*\r\n").await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(
        plain.text().contains("# TYPE adit_pings_total counter\nadit_pings_total 0\n"),
        "{}",
        plain.text()
    );
    let open = ask(rig.admin, "/metrics", OPENMETRICS).await;
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(open.text().ends_with("# EOF\n"));
    assert!(open.text().contains("# TYPE adit_pings counter\nadit_pings_total 0\n"), "{}", open.text());
    let samples = |text: String| {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(samples(plain.text()), samples(open.text()));
}

#[tokio::test]
async fn promtool_finds_nothing_to_say_about_a_page() {
    let rig = Rig::start().await;
    let _client = rig.client(ALICE, "web", echo_target().await).await;
    assert_eq!(rig.get("web", "/").await.status, 200);
    let page = page(rig.admin).await;
    let (good, said) = promtool(&["check", "metrics"], Some(&page)).await;
    assert!(good && said.trim().is_empty(), "{said}");
}

// ---- what it says ----

#[tokio::test]
async fn clients_viewers_and_refusals_are_counted_under_their_names() {
    let rig = Rig::with(|config| config.limits.tunnels_per_key = Some(2)).await;
    let client = rig.client(ALICE, "jade", echo_target().await).await;
    let mut viewer = Viewer::new(&rig).await;
    for _ in 0..3 {
        assert_eq!(viewer.get("jade", "/").await.status, 200);
    }
    assert_eq!(rig.get("nobody", "/").await.status, 404);
    rig.create(ALICE, "opal").await;
    let (status, _) = rig.api(ALICE, "POST", "/v1/tunnels", &json!({"local_port": 1}).to_string()).await;
    assert_eq!(status, 403);
    assert_eq!(rig.api("wrong", "GET", "/v1/tunnels", "").await.0, 401);
    rig.create(BOB, "onyx").await;
    for (sample, expected) in [
        ("adit_clients{health=\"alive\"}", 1.0),
        ("adit_clients{health=\"dead\"}", 0.0),
        ("adit_tunnels{state=\"online\"}", 1.0),
        ("adit_tunnels{state=\"offline\"}", 2.0),
        ("adit_control_sessions_begun_total{level=\"base\"}", 1.0),
        ("adit_claims_total{outcome=\"claimed\"}", 1.0),
        ("adit_claims_total{outcome=\"reused\"}", 2.0),
        ("adit_claim_wait_seconds_count", 1.0),
        ("adit_exchanges_total{cause=\"ok\",class=\"2xx\"}", 3.0),
        ("adit_exchanges_total{cause=\"no_such_tunnel\",class=\"4xx\"}", 1.0),
        ("adit_exchanges_total{cause=\"internal\",class=\"5xx\"}", 0.0),
        ("adit_first_byte_seconds_count", 3.0),
        ("adit_exchange_seconds_bucket{le=\"+Inf\"}", 4.0),
        ("adit_limits_hit_total{limit=\"tunnels_per_key\"}", 1.0),
        ("adit_api_refused_total{code=\"too_many_tunnels\"}", 1.0),
        ("adit_api_refused_total{code=\"unauthorized\"}", 1.0),
        ("adit_data_sockets{state=\"idle\"}", 1.0),
        ("adit_store_calls_total{outcome=\"failed\"}", 0.0),
    ] {
        until(rig.admin, |page| {
            value(page, sample).unwrap_or_else(|| panic!("{sample}: {page}")) == expected
        })
        .await;
    }
    let page = page(rig.admin).await;
    for sample in [
        "adit_store_calls_total{outcome=\"ok\"}",
        "adit_body_bytes_total{direction=\"out\"}",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "adit_runtime_tasks",
        "adit_runtime_workers",
    ] {
        assert!(value(&page, sample) > Some(0.0), "{sample}: {page}");
    }
    for secret in [ALICE, "alice", "jade", "opal", "onyx", "127.0.0.1", &client.id] {
        assert!(!page.contains(secret), "{secret}: {page}");
    }
}

#[tokio::test]
async fn an_address_with_too_many_connections_and_a_full_relay_are_limits_that_were_hit() {
    let rig = Rig::with(|config| config.limits.connections_per_address = Some(2)).await;
    let _two = [rig.viewer().await, rig.viewer().await];
    until(rig.admin, |page| value(page, "adit_connections") == Some(2.0)).await;
    assert_eq!(soon(read_all(&mut rig.viewer().await)).await, b"", "closed at once");
    let hit = |limit: &str| format!("adit_limits_hit_total{{limit=\"{limit}\"}}");
    until(rig.admin, |page| value(page, &hit("connections_per_address")) == Some(1.0)).await;

    let rig = Rig::with(|config| config.limits.connections = Some(1)).await;
    let _one = rig.viewer().await;
    let page = until(rig.admin, |page| value(page, &hit("accept")) == Some(1.0)).await;
    assert_eq!(value(&page, "adit_connections_limit"), Some(1.0));
}

#[tokio::test]
async fn the_first_certificate_to_end_is_told_and_none_where_there_is_none() {
    let (home, authority) = (tempfile::tempdir().unwrap(), crate::certs::Authority::new());
    let pair = |name: &str, year: i32| {
        let mut params = rcgen::CertificateParams::new(vec![format!("{name}.test")]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let (certificate, key) = authority.sign(params);
        let paths = (home.path().join(format!("{name}.crt")), home.path().join(format!("{name}.key")));
        std::fs::write(&paths.0, certificate).unwrap();
        std::fs::write(&paths.1, key).unwrap();
        paths
    };
    let (late, early) = (pair("late", 2100), pair("early", 2090));
    let rig = Rig::with(|config| {
        (config.tls_cert, config.tls_key) = (vec![late.0, early.0], vec![late.1, early.1]);
    })
    .await;
    let page = page(rig.admin).await;
    let family = "adit_certificate_expiry_timestamp_seconds{source=";
    assert_eq!(value(&page, &format!("{family}\"file\"}}")), Some(3_786_912_000.0));
    assert!(!page.contains(&format!("{family}\"acme\"")) && !page.contains("early"), "{page}");
    let without = Rig::start().await;
    assert!(!self::page(without.admin).await.contains(family));
}

// ---- many ask ----

#[tokio::test]
async fn a_thousand_scrapes_are_answered_by_few_pages_and_leave_nothing() {
    let home = tempfile::tempdir().unwrap();
    let relay = start(home.path(), &["--metrics-listen", "127.0.0.1:0"]).await;
    let (metrics, admin) = (relay.metrics.unwrap(), relay.admin.unwrap());
    let _hearing = relay.heard();
    let began = Instant::now();
    let mut scrapes = JoinSet::new();
    for _ in 0..1_000 {
        scrapes.spawn(page(metrics));
    }
    // One of those who never ask, and never read.
    let mute = TcpStream::connect(metrics).await.unwrap();
    let pages = scrapes.join_all().await;
    assert_eq!(pages.len(), 1_000);
    // The time on processors is another one on each page that is written.
    let different: HashSet<_> =
        pages.iter().map(|page| value(page, "process_cpu_seconds_total").unwrap().to_bits()).collect();
    assert!(different.len() as f64 <= began.elapsed().as_secs_f64() + 2.0, "{} pages", different.len());
    drop(mute);
    settle(admin, &json!({"admin_connections": 1})).await;
}

#[tokio::test]
async fn those_who_hold_connections_open_are_cut_and_others_get_their_turn() {
    let home = tempfile::tempdir().unwrap();
    let relay = start(home.path(), &["--metrics-listen", "127.0.0.1:0", "--head-wait", "1s"]).await;
    let metrics = relay.metrics.unwrap();
    let _hearing = relay.heard();
    let mut mute = Vec::new();
    for _ in 0..100 {
        mute.push(TcpStream::connect(metrics).await.unwrap());
    }
    assert!(page(metrics).await.contains("adit_ready 1"));
}

// ---- hand-over ----

#[tokio::test]
async fn a_successor_has_the_same_listener_for_scrapers() {
    let home = tempfile::tempdir().unwrap();
    let old = start(home.path(), &["--metrics-listen", "127.0.0.1:0"]).await;
    let new = start(home.path(), &["--metrics-listen", "127.0.0.1:0", "--take-over"]).await;
    assert_eq!((new.metrics, &new.addresses), (old.metrics, &old.addresses));
    assert!(page(new.metrics.unwrap()).await.contains("adit_ready 1"));
    assert_eq!(old.end().await.0, Some(0));
    let page = page(new.metrics.unwrap()).await;
    assert!(page.contains("adit_ready 1"), "{page}");
}

#[tokio::test]
async fn a_successor_may_begin_to_listen_for_scrapers_or_cease_to() {
    let home = tempfile::tempdir().unwrap();
    let first = start(home.path(), &[]).await;
    let second = start(home.path(), &["--metrics-listen", "127.0.0.1:0", "--take-over"]).await;
    let metrics = second.metrics.unwrap();
    assert!(page(metrics).await.contains("adit_ready 1"));
    assert_eq!(first.end().await.0, Some(0));
    let third = start(home.path(), &["--take-over"]).await;
    assert_eq!((third.metrics, &third.addresses), (None, &second.addresses));
    assert_eq!(second.end().await.0, Some(0));
    assert!(TcpStream::connect(metrics).await.is_err());
}
