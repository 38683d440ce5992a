//! The program itself: options and exit codes, keys beside a running relay, signals, kills and restarts.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::ports::free_address;
use crate::program::{RELAY, Running, adit, http, keys, relay, relay_at, run};
use crate::rig::{ALICE, BOB};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

// ---- options ----

#[tokio::test]
async fn check_prints_the_configuration_with_origins_and_without_secrets() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("adit.toml");
    std::fs::write(&file, "claim-wait = \"7s\"\nping-every = \"5s\"\n").unwrap();
    let arguments = [
        "relay",
        "--check",
        "--listen",
        "127.0.0.1:1",
        "--listen",
        "[::1]:1",
        "--config",
        file.to_str().unwrap(),
    ];
    let mut command = adit(home.path(), &arguments);
    command.env("ADIT_KEYS", keys()).env("ADIT_PING_EVERY", "9s");
    let (code, stdout, stderr) = run(&mut command).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    let config: toml::Table = stdout.parse().unwrap();
    assert_eq!(config["listen"].to_string(), r#"["127.0.0.1:1", "[::1]:1"]"#);
    assert_eq!((config["claim-wait"].as_str(), config["ping-every"].as_str()), (Some("7s"), Some("9s")));
    for origin in ["flag --listen", "environment ADIT_PING_EVERY", "adit.toml key claim-wait", "default"] {
        assert!(stdout.contains(origin), "{origin} in\n{stdout}");
    }
    assert!(stdout.contains("alice:***") && !stdout.contains("nbk_"), "{stdout}");
    assert!(!home.path().join("data").exists(), "nothing is made");
}

#[tokio::test]
async fn all_errors_in_the_options_are_told_together_with_exit_code_2() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("adit.toml");
    std::fs::write(&file, "claim_wait = \"7s\"\npong-wait = \"long\"\n").unwrap();
    for check in [true, false] {
        let mut arguments =
            vec!["relay", "--listen", "nowhere", "--path-routing", "off", "--config", file.to_str().unwrap()];
        arguments.extend(check.then_some("--check"));
        let (code, stdout, stderr) = run(adit(home.path(), &arguments).env("ADIT_HEADERS", "few")).await;
        assert_eq!((code, stdout.as_str()), (2, ""));
        for named in
            ["--listen", "nowhere", "ADIT_HEADERS", "claim_wait", "claim-wait", "pong-wait", "base-domain"]
        {
            assert!(stderr.contains(named), "{named} in\n{stderr}");
        }
        assert_eq!(stderr.lines().count(), 5, "{stderr}");
    }
}

#[tokio::test]
async fn what_is_no_option_is_a_usage_error() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [&["relay", "--nonsense"][..], &["key"], &["key", "create"], &["key", "create", "a b"]] {
        let (code, stdout, stderr) = run(&mut adit(home.path(), arguments)).await;
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(!stderr.is_empty(), "{arguments:?}");
    }
}

// ---- keys ----

#[tokio::test]
async fn a_relay_that_others_reach_does_not_start_without_a_key() {
    let home = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) =
        run(&mut adit(home.path(), &["relay", "--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0"]))
            .await;
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("adit key create") && stderr.contains("ADIT_KEYS"), "{stderr}");
}

#[tokio::test]
async fn on_loopback_a_first_key_is_made_and_shown_once() {
    let home = tempfile::tempdir().unwrap();
    let relay = Running::start(adit(home.path(), &RELAY)).await;
    let key = relay
        .said
        .split_whitespace()
        .find(|word| word.starts_with("nbk_"))
        .expect("no key was shown")
        .to_owned();
    assert!(relay.takes(&key).await && !relay.takes("nbk_other").await);
    relay.signal("TERM");
    relay.end().await;
    let relay = Running::start(adit(home.path(), &RELAY)).await;
    assert!(!relay.said.contains("nbk_"), "{}", relay.said);
    assert!(relay.takes(&key).await);
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked_beside_a_running_relay() {
    let home = tempfile::tempdir().unwrap();
    let relay = Running::start(adit(home.path(), &RELAY)).await;
    let key = async |arguments: &[&str]| run(&mut adit(home.path(), &[&["key"], arguments].concat())).await;
    let (code, carol, stderr) = key(&["create", "carol"]).await;
    assert_eq!(code, 0);
    assert!(carol.starts_with("nbk_") && carol.lines().count() == 1, "the key alone: {carol:?}");
    assert!(!stderr.contains(carol.trim()), "and nowhere else: {stderr}");
    assert!(relay.takes(carol.trim()).await);
    assert_eq!(key(&["create", "carol"]).await.0, 1, "a live key has this name");

    let (code, list, _) = key(&["list", "--json"]).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|key| (&key["name"], &key["state"])).collect();
    assert_eq!(
        (code, names),
        (0, vec![(&json!("default"), &json!("live")), (&json!("carol"), &json!("live"))])
    );

    assert_eq!(key(&["revoke", "carol"]).await.0, 0);
    assert!(!relay.takes(carol.trim()).await);
    assert_eq!(key(&["revoke", "carol"]).await.0, 1);
    let (_, table, _) = key(&["list"]).await;
    assert!(table.lines().any(|line| line.starts_with("carol") && line.contains("revoked")), "{table}");
    assert!(!table.contains("nbk_"), "{table}");
}

#[tokio::test]
async fn listing_keys_makes_no_database() {
    let home = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = run(&mut adit(home.path(), &["key", "list"])).await;
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("--data-dir"), "{stderr}");
    assert!(!home.path().join("data").exists());
}

// ---- addresses ----

#[tokio::test]
async fn it_listens_on_every_address_of_both_families() {
    let home = tempfile::tempdir().unwrap();
    let port = free_address().await.port();
    let (four, six) = (format!("0.0.0.0:{port}"), format!("[::]:{port}"));
    let all = [
        "relay",
        "--admin-listen",
        "127.0.0.1:0",
        "--listen",
        &four,
        "--listen",
        &six,
        "--listen",
        "[::1]:0",
    ];
    let mut command = adit(home.path(), &all);
    command.env("ADIT_KEYS", keys());
    let relay = Running::start(command).await;
    assert_eq!(relay.addresses.len(), 3);
    let reached = [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), relay.addresses[2].to_string()];
    for address in reached {
        assert_eq!(http(address.parse().unwrap(), HEALTH).await.status, 200, "{address}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_named_with_its_option() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (option, listen, admin) in
        [("listen", taken.as_str(), "127.0.0.1:0"), ("admin-listen", "127.0.0.1:0", &taken)]
    {
        let mut command = adit(home.path(), &["relay", "--listen", listen, "--admin-listen", admin]);
        let (code, stdout, stderr) = run(command.env("ADIT_KEYS", keys())).await;
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains(&format!("{option}: cannot listen on {taken}")), "{stderr}");
    }
}

// ---- ends and returns ----

#[tokio::test]
async fn sigterm_tells_clients_to_come_back_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let home = tempfile::tempdir().unwrap();
        let relay = Running::start(relay(home.path(), &[])).await;
        let mut control = relay.control("web").await;
        relay.signal(signal);
        assert_eq!(control.close_code().await, Some(1012), "{signal}");
        let (code, said) = relay.end().await;
        assert_eq!(code, Some(0), "{signal}: {said}");
    }
}

#[tokio::test]
async fn names_and_keys_are_there_after_kill_9() {
    let home = tempfile::tempdir().unwrap();
    let address = free_address().await;
    let relay = Running::start(relay_at(home.path(), address, &[])).await;
    let (status, before) = relay.create(ALICE, "web").await;
    assert_eq!(status, 201);
    let (_, carol, _) = run(&mut adit(home.path(), &["key", "create", "carol"])).await;
    relay.signal("KILL");
    assert_eq!(relay.end().await.0, None);

    let relay = Running::start(relay_at(home.path(), address, &[])).await;
    assert!(relay.takes(carol.trim()).await);
    assert_eq!(relay.create(BOB, "web").await.0, 409);
    assert_eq!(relay.create(ALICE, "web").await, (200, before));
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_left_as_it_is() {
    for damage in [&b"this is no database, however long one looks at it"[..], b""] {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("data/adit");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("adit.db"), damage).unwrap();
        for arguments in [&RELAY[..], &["key", "list"]] {
            let (code, stdout, stderr) = run(adit(home.path(), arguments).env("ADIT_KEYS", keys())).await;
            assert_eq!((code, stdout.as_str()), (1, ""), "{arguments:?}");
            assert!(stderr.contains("damaged") && stderr.contains("adit.db"), "{stderr}");
        }
        assert_eq!(std::fs::read(dir.join("adit.db")).unwrap(), damage);
    }
}
