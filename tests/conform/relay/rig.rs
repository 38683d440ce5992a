//! A relay in this process with everything that a case may ask for, and runs of cases against it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit::auth::{Keys, Secret, StaticKey};
use adit::client::RelayUrl;
use adit::conform::relay::{Place, Settings, World, cases, start};
use adit::conform::run::{Outcome, run, select};
use adit::conform::trace::Trace;
use adit::relay::config::RelayConfig;
use adit::relay::{Listeners, Relay};
use adit::store::{Sqlite, Store};
use tokio::net::TcpListener;

use crate::ports::some_ports;

const ALICE: &str = "nbk_alice_0123456789abcdef";
const BOB: &str = "nbk_bob_0123456789abcdef";
const SECRET: &str = "s3cret-of-tokens-0123456789abcdef";

pub struct Rig {
    _relay: Relay,
    pub address: SocketAddr,
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
        let url = RelayUrl::parse(&format!("http://{address}")).unwrap();
        let place = Place::find(url).await.unwrap();
        let settings = Settings {
            key2: Some(BOB.into()),
            secret: Some(SECRET.into()),
            ..Settings::new(place, ALICE, Duration::from_secs(5))
        };
        Arc::new(settings)
    }

    /// How the cases that `only` names end.
    pub async fn run(&self, only: &[&str], settings: Arc<Settings>) -> Vec<Outcome> {
        start(&settings).await.unwrap();
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        let world = |_| {
            let trace = Trace::new(&settings.secrets());
            (World::new(Arc::clone(&settings), trace.clone()), trace)
        };
        run(&select(cases(), &only).unwrap(), 32, world, |_| {}).await
    }
}
