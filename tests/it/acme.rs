//! Certificates from an authority: ordered for known names only, kept, renewed, and never worse than the one before.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adit::relay::acme::AcmeConfig;
use adit::store::Sqlite;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certs::{Secure, connect};
use crate::pebble::{Pebble, Wanted};
use crate::ports::free_address;
use crate::program::{Running, relay_at};
use crate::rig::{ALICE, Answer, Rig, echo_target, soon};

/// A relay and its authority.
struct Acme {
    rig: Rig,
    pebble: Pebble,
    trusting: ClientConfig,
}

const HOUR: u64 = 3600;

impl Acme {
    async fn start(seconds: u64) -> Self {
        let address = free_address().await;
        let pebble = Pebble::start(Wanted { http: address.port(), tls: address.port(), seconds }).await;
        Self::on(pebble, address, |_| {}).await
    }

    async fn on(pebble: Pebble, address: SocketAddr, change: impl FnOnce(&mut AcmeConfig)) -> Self {
        let store = Arc::new(Sqlite::memory().unwrap());
        let rig = Rig::on(store, address, |config| {
            config.acme = AcmeConfig {
                directory: Some(pebble.directory()),
                ca: Some(pebble.ca.clone()),
                ..AcmeConfig::default()
            };
            config.dns_server = Some(pebble.dns.names);
            change(&mut config.acme);
        })
        .await;
        let trusting = pebble.trusting(&[]).await;
        Self { rig, pebble, trusting }
    }

    async fn viewer(&self, host: &str) -> std::io::Result<Secure> {
        connect(self.rig.address, host, self.trusting.clone()).await
    }

    async fn issued(&self) -> Vec<String> {
        self.rig.store.certificates().await.unwrap().into_iter().map(|row| row.name).collect()
    }

    /// Until the relay has a certificate for itself.
    async fn own(&self) {
        soon(async { while self.viewer("relay.test").await.is_err() {} }).await;
    }
}

async fn get(viewer: &mut Secure, host: &str) -> Answer {
    let request =
        format!("GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    viewer.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    soon(viewer.read_to_end(&mut all)).await.unwrap();
    Answer::parse(&all)
}

fn certificate(viewer: &Secure) -> Vec<u8> {
    viewer.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn the_first_handshake_of_a_known_name_waits_for_its_certificate() {
    let acme = Acme::start(HOUR).await;
    let _client = acme.rig.client(ALICE, "web", echo_target().await).await;
    let mut viewer = acme.viewer("web.relay.test").await.unwrap();
    // What no order waits for is the target's.
    assert_eq!(get(&mut viewer, "web.relay.test").await.status, 200);
    acme.own().await;
    assert_eq!(acme.issued().await, ["relay.test", "web.relay.test"]);
    let again = acme.viewer("web.relay.test").await.unwrap();
    assert_eq!(certificate(&again), certificate(&viewer));
}

#[tokio::test]
async fn where_only_port_80_leads_here_the_proof_is_had_there() {
    let address = free_address().await;
    let nobody = free_address().await.port();
    let pebble = Pebble::start(Wanted { http: address.port(), tls: nobody, seconds: HOUR }).await;
    let acme = Acme::on(pebble, address, |_| {}).await;
    acme.own().await;
    assert_eq!(acme.issued().await, ["relay.test"]);
}

#[tokio::test]
async fn names_of_nobody_and_suspended_ones_are_not_ordered() {
    let acme = Acme::start(HOUR).await;
    acme.own().await;
    let tunnel = acme.rig.create(ALICE, "away").await;
    let path = format!("/v1/tunnels/{}/suspend", tunnel["id"].as_str().unwrap());
    assert_eq!(acme.rig.api(ALICE, "POST", &path, "{\"suspended\":true}").await.0, 200);
    let mut flood: Vec<String> = (0..100).map(|at| format!("n{at}.relay.test")).collect();
    flood.extend(
        ["away.relay.test", "a.b.relay.test", "evil.example", "relay.test.evil.example"].map(Into::into),
    );
    for name in &flood {
        assert!(acme.viewer(name).await.is_err(), "{name}");
    }
    assert_eq!(acme.issued().await, ["relay.test"]);
}

#[tokio::test]
async fn a_hook_for_dns_gets_one_certificate_for_all_names() {
    let address = free_address().await;
    let pebble = Pebble::start(Wanted { http: 1, tls: 1, seconds: HOUR }).await;
    let home = tempfile::tempdir().unwrap();
    let (hook, log) = (home.path().join("hook"), home.path().join("log"));
    let script = format!(
        "#!/bin/sh\necho \"$1 $2\" >> {}\n[ \"$1\" = present ] && call=set-txt || call=clear-txt\n\
         curl -sSf --noproxy '*' -d \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" http://{}/$call >/dev/null\n",
        log.display(),
        pebble.dns.management
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let acme = Acme::on(pebble, address, |acme| acme.dns_hook = Some(hook)).await;
    let _client = acme.rig.client(ALICE, "web", echo_target().await).await;
    acme.own().await;
    assert_eq!(get(&mut acme.viewer("web.relay.test").await.unwrap(), "web.relay.test").await.status, 200);
    assert_eq!(acme.issued().await, ["*.relay.test"]);
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.matches("present _acme-challenge.relay.test").count() == 2, "{said}");
    assert!(said.matches("cleanup _acme-challenge.relay.test").count() == 2, "{said}");
}

#[tokio::test]
async fn a_certificate_is_renewed_early_and_no_request_fails() {
    // Renewed after two thirds: a busy machine has six seconds for the order.
    let acme = Acme::start(20).await;
    let _client = acme.rig.client(ALICE, "web", echo_target().await).await;
    let first = certificate(&acme.viewer("web.relay.test").await.unwrap());
    let asked = AtomicUsize::new(0);
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    soon(async {
        loop {
            pace.tick().await;
            let mut viewer = acme.viewer("web.relay.test").await.unwrap();
            assert_eq!(get(&mut viewer, "web.relay.test").await.status, 200);
            asked.fetch_add(1, Ordering::Relaxed);
            if certificate(&viewer) != first {
                return;
            }
        }
    })
    .await;
    assert!(asked.into_inner() > 10);
}

#[tokio::test]
async fn a_failed_renewal_keeps_the_certificate_and_a_restart_finds_it() {
    let (home, address) = (tempfile::tempdir().unwrap(), free_address().await);
    let mut pebble = Pebble::start(Wanted { http: address.port(), tls: address.port(), seconds: 15 }).await;
    let (directory, ca) = (pebble.directory(), pebble.ca.display().to_string());
    let start = async || {
        let options = ["--base-domain", "relay.test", "--acme-directory", &directory, "--acme-ca", &ca];
        Running::start(relay_at(home.path(), address, &options)).await
    };
    let mut relay = start().await;
    relay.until("certificate issued").await;
    let trusting = pebble.trusting(&[]).await;
    let show = async || certificate(&connect(address, "relay.test", trusting.clone()).await.unwrap());
    let first = show().await;
    relay.signal("TERM");
    assert_eq!(relay.end().await.0, Some(0));
    pebble.child.kill().await.unwrap();
    let mut relay = start().await;
    assert_eq!(show().await, first);
    relay.until("certificate not renewed; the one before stays").await;
    assert_eq!(show().await, first);
}

#[tokio::test]
async fn a_domain_of_an_owners_own_is_ordered_when_it_leads_to_a_tunnel() {
    let acme = Acme::start(HOUR).await;
    let wanted = "{\"local_port\":1,\"name\":\"web\",\"domains\":[\"www.alice.example\"]}";
    let (status, refused) = acme.rig.api(ALICE, "POST", "/v1/tunnels", wanted).await;
    assert_eq!((status, refused["code"].as_str()), (403, Some("domain_not_proven")), "{refused}");
    assert!(acme.viewer("www.alice.example").await.is_err());
    acme.pebble.dns.set("_adit.www.alice.example", "adit-owner=alice").await;
    let (status, tunnel) = acme.rig.api(ALICE, "POST", "/v1/tunnels", wanted).await;
    assert_eq!(status, 201, "{tunnel}");
    let control = acme.rig.connect(ALICE, tunnel["id"].as_str().unwrap()).await;
    let _client = acme.rig.serve(control, echo_target().await).await;
    let mut viewer = acme.viewer("www.alice.example").await.unwrap();
    let answer = get(&mut viewer, "www.alice.example").await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("Host: www.alice.example"), "{}", answer.text());
    acme.own().await;
    assert_eq!(acme.issued().await, ["relay.test", "www.alice.example"]);
}

#[tokio::test]
async fn beside_the_certificate_for_all_names_a_domain_has_its_own() {
    let address = free_address().await;
    let pebble = Pebble::start(Wanted { http: address.port(), tls: address.port(), seconds: HOUR }).await;
    // It does nothing, so there is none for all names; the domain does not need it.
    let acme = Acme::on(pebble, address, |acme| acme.dns_hook = Some("/bin/true".into())).await;
    acme.pebble.dns.set("_adit.www.alice.example", "adit-owner=alice").await;
    let wanted = "{\"local_port\":1,\"name\":\"web\",\"domains\":[\"www.alice.example\"]}";
    assert_eq!(acme.rig.api(ALICE, "POST", "/v1/tunnels", wanted).await.0, 201);
    assert!(acme.viewer("web.relay.test").await.is_err());
    acme.viewer("www.alice.example").await.unwrap();
    assert_eq!(acme.issued().await, ["www.alice.example"]);
}
