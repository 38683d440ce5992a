//! Hosts of owners' own: who may have them, and that they lead to one tunnel only.

use adit::relay::domains::DomainProof;
use serde_json::{Value, json};

use crate::pebble::Dns;
use crate::ports::free_address;
use crate::rig::{ALICE, BOB, Rig, echo_target};

async fn create(rig: &Rig, key: &str, name: &str, domains: &[&str]) -> (u16, Value) {
    let wanted = json!({"local_port": 1, "name": name, "domains": domains}).to_string();
    rig.api(key, "POST", "/v1/tunnels", &wanted).await
}

async fn status(rig: &Rig, host: &str) -> u16 {
    rig.raw(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await.status
}

#[tokio::test]
async fn a_domain_is_had_by_whom_its_dns_names_and_leads_to_one_tunnel_until_that_ends() {
    let dns = Dns::start().await;
    let rig = Rig::with(|config| config.dns_server = Some(dns.names)).await;
    let host = "www.example.com";
    dns.set("_adit.www.example.com", "adit-owner=alice").await;
    let (code, refused) = create(&rig, BOB, "bobs", &[host]).await;
    assert_eq!((code, refused["code"].as_str()), (403, Some("domain_not_proven")));
    let text = refused["error"].as_str().unwrap();
    assert!(text.contains("_adit.www.example.com") && text.contains("adit-owner=bob"), "{text}");
    let (code, tunnel) = create(&rig, ALICE, "web", &["WWW.Example.com.", host]).await;
    assert_eq!((code, &tunnel["domains"]), (201, &json!([host])), "{tunnel}");
    let control = rig.connect(ALICE, tunnel["id"].as_str().unwrap()).await;
    let _client = rig.serve(control, echo_target().await).await;
    for host in ["www.example.com", "WWW.example.com:8080", "www.example.com."] {
        assert_eq!(status(&rig, host).await, 200, "{host}");
    }
    assert_eq!(status(&rig, "example.com").await, 404);
    let (code, refused) = create(&rig, ALICE, "other", &[host]).await;
    assert_eq!((code, refused["code"].as_str()), (409, Some("domain_taken")));
    // Without it in the next creation the tunnel has it no more.
    assert_eq!(create(&rig, ALICE, "web", &[]).await.0, 200);
    assert_eq!(status(&rig, host).await, 404);
    let (code, other) = create(&rig, ALICE, "other", &[host]).await;
    assert_eq!(code, 201);
    assert_eq!(status(&rig, host).await, 503, "its client is not there");
    let path = format!("/v1/tunnels/{}", other["id"].as_str().unwrap());
    assert_eq!(rig.api(ALICE, "DELETE", &path, "").await.0, 204);
    assert_eq!(status(&rig, host).await, 404);
}

#[tokio::test]
async fn a_domain_survives_a_restart() {
    let rig = Rig::with(|config| config.domain_proof = DomainProof::Off).await;
    assert_eq!(create(&rig, ALICE, "web", &["www.example.com"]).await.0, 201);
    let (store, address) = (rig.store.clone(), free_address().await);
    rig.shutdown().await;
    let rig = Rig::on(store, address, |_| {}).await;
    assert_eq!(status(&rig, "www.example.com").await, 503);
    // What it has is not proven again.
    assert_eq!(create(&rig, ALICE, "web", &["www.example.com"]).await.0, 200);
}

#[tokio::test]
async fn domains_that_cannot_be_are_refused_and_a_dns_that_does_not_answer_is_told() {
    let nobody = free_address().await;
    let rig = Rig::with(|config| config.dns_server = Some(nobody)).await;
    for (host, code, error) in [
        ("relay.test", 400, "invalid_domain"),
        ("web.relay.test", 400, "invalid_domain"),
        ("a b", 400, "invalid_domain"),
        ("localhost", 400, "invalid_domain"),
        // It went before the relay's own API for all who call the relay by its address.
        ("127.0.0.1", 400, "invalid_domain"),
        ("", 400, "invalid_domain"),
        ("https://www.example.com", 400, "invalid_domain"),
        ("www.example.com", 503, "dns_unavailable"),
    ] {
        let (found, answer) = create(&rig, ALICE, "web", &[host]).await;
        assert_eq!((found, answer["code"].as_str()), (code, Some(error)), "{host} {answer}");
    }
    // Told so only once an entry in DNS had been made in vain.
    let tcp = json!({"name": "raw", "proto": "tcp", "domains": ["www.example.com"]}).to_string();
    let (found, answer) = rig.api(ALICE, "POST", "/v1/tunnels", &tcp).await;
    assert_eq!((found, answer["code"].as_str()), (400, Some("only_http")), "{answer}");
    let many: Vec<String> = (0..21).map(|at| format!("w{at}.example.com")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(create(&rig, ALICE, "web", &many).await.0, 400);
}
