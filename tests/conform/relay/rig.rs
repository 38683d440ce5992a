//! A relay in this process with everything that a case may ask for, and runs of cases against it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit::auth::{Keys, Secret, StaticKey};
use adit::client::RelayUrl;
use adit::conform::Case;
use adit::conform::relay::{Place, Settings, World, cases, start};
use adit::conform::run::{Outcome, run, select};
use adit::conform::trace::Trace;
use adit::relay::config::RelayConfig;
use adit::relay::{Listeners, Relay};
use adit::store::{Sqlite, Store};
use serde_json::json;
use tokio::net::TcpListener;

use super::proxy::{Proxy, Spoil};
use crate::ports::some_ports;

pub const ALICE: &str = "nbk_alice_0123456789abcdef";
const BOB: &str = "nbk_bob_0123456789abcdef";
const SECRET: &str = "s3cret-of-tokens-0123456789abcdef";

pub struct Rig {
    _relay: Relay,
    pub address: SocketAddr,
}

/// A relay that waits for nobody as long as it does by default.
pub fn hurry(config: &mut RelayConfig) {
    config.limits.claim_wait = Duration::from_secs(2);
    config.limits.ping_every = Duration::from_secs(2);
    config.limits.pong_wait = Duration::from_secs(4);
    config.limits.reconnect_wait = Duration::from_secs(2);
}

impl Rig {
    pub async fn start(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let key = |name: &str, secret: &str| StaticKey { name: name.into(), secret: Secret::new(secret) };
        let mut config = RelayConfig {
            base_domain: Some("relay.test".into()),
            static_keys: vec![key("alice", ALICE), key("bob", BOB)],
            jwt_secrets: vec![Secret::new(SECRET)],
            tcp_ports: Some(some_ports()),
            ..RelayConfig::default()
        };
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::memory().unwrap());
        let keys =
            Keys::new(Arc::clone(&store), config.static_keys.clone()).with_tokens(config.jwt_secrets.clone());
        let listeners = Listeners { tcp: vec![listener], ..Listeners::default() };
        let relay = Relay::start(config, listeners, keys, store).await.unwrap();
        Self { _relay: relay, address }
    }

    /// Settings of a run against `address`, behind which is this relay.
    pub async fn settings(&self, address: SocketAddr) -> Arc<Settings> {
        self.settings_of(&format!("http://{address}"), Duration::from_secs(5), 8_000_000).await
    }

    /// Settings of a run against `url`.
    pub async fn settings_of(&self, url: &str, patience: Duration, bytes: u64) -> Arc<Settings> {
        let url = RelayUrl::parse(url).unwrap();
        let place = Place::find(url).await.unwrap();
        let settings = Settings {
            key2: Some(BOB.into()),
            secret: Some(SECRET.into()),
            bytes,
            ..Settings::new(place, ALICE, patience)
        };
        Arc::new(settings)
    }

    /// How all cases end.
    pub async fn run(&self, settings: Arc<Settings>) -> Vec<Outcome> {
        self.run_some(settings, |_| true).await
    }

    /// How those end that are wanted.
    pub async fn run_some(
        &self,
        settings: Arc<Settings>,
        wanted: impl Fn(&Case<World>) -> bool,
    ) -> Vec<Outcome> {
        start(&settings).await.unwrap();
        let cases: Vec<_> = cases().into_iter().filter(|case| wanted(case)).collect();
        run(&cases, 32, world(&settings), |_| {}).await
    }

    /// How a case ends against this relay with something broken.
    pub async fn mutant(&self, case: &str, spoil: Spoil) -> Outcome {
        let proxy = Proxy::start(self.address, Some(spoil)).await;
        // What is waited for in vain is waited for so long.
        let url = format!("http://{}", proxy.address);
        let settings = self.settings_of(&url, Duration::from_secs(3), 2_000_000).await;
        let told =
            json!({ "session": "x", "ping_interval_ms": 2000, "pong_timeout_ms": 4000, "claim_ms": 2000 });
        assert!(settings.welcome.set(serde_json::from_value(told).unwrap()).is_ok());
        let cases = select(cases(), &[case.to_owned()]).unwrap();
        run(&cases, 1, world(&settings), |_| {}).await.remove(0)
    }
}

fn world(settings: &Arc<Settings>) -> impl Fn(&'static Case<World>) -> (World, Trace) {
    let settings = Arc::clone(settings);
    move |_| {
        let trace = Trace::new(&settings.secrets());
        (World::new(Arc::clone(&settings), trace.clone()), trace)
    }
}
