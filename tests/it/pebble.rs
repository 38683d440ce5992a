//! An ACME authority of the tests' own: pebble, with its DNS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::task::JoinSet;

use crate::certs::Authority;
use crate::ports::free_address;
use crate::rig::{Answer, soon};
use crate::tools::tool;

/// A DNS server by which every host is on this machine.
pub struct Dns {
    _child: Child,
    /// Where it answers.
    pub names: SocketAddr,
    /// Where its entries are changed.
    pub management: SocketAddr,
}

impl Dns {
    pub async fn start() -> Self {
        let (names, management) = (free_address().await, free_address().await);
        let mut server = tool("pebble-challtestsrv");
        server.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", ""]);
        server.args(["-tlsalpn01", "", "-doh", "", "-dnsserver", &names.to_string()]);
        server.args(["-management", &management.to_string()]);
        let child = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        soon(async { while TcpStream::connect(management).await.is_err() {} }).await;
        Self { _child: child, names, management }
    }

    /// Sets a TXT entry.
    pub async fn set(&self, host: &str, text: &str) {
        let body = json!({"host": format!("{host}."), "value": text}).to_string();
        let mut stream = TcpStream::connect(self.management).await.unwrap();
        let head = format!(
            "POST /set-txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut all = Vec::new();
        soon(stream.read_to_end(&mut all)).await.unwrap();
        assert_eq!(Answer::parse(&all).status, 200);
    }
}

pub struct Pebble {
    pub child: Child,
    _reading: JoinSet<()>,
    directory: SocketAddr,
    management: SocketAddr,
    pub dns: Dns,
    /// Verifies the directory.
    pub ca: PathBuf,
    authority: Authority,
    _home: tempfile::TempDir,
}

/// Where the authority looks for proofs, and how long its certificates are good.
pub struct Wanted {
    pub http: u16,
    pub tls: u16,
    pub seconds: u64,
}

impl Pebble {
    pub async fn start(wanted: Wanted) -> Self {
        let (home, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let (certificate, key) = authority.write(home.path(), "pebble", &["localhost", "127.0.0.1"]);
        let (directory, management) = (free_address().await, free_address().await);
        let config = json!({"pebble": {
            "listenAddress": directory, "managementListenAddress": management,
            "certificate": certificate, "privateKey": key,
            "httpPort": wanted.http, "tlsPort": wanted.tls, "ocspResponderURL": "",
            "externalAccountBindingRequired": false, "domainBlocklist": [],
            "retryAfter": {"authz": 1, "order": 1},
            "profiles": {"default": {"description": "", "validityPeriod": wanted.seconds}},
        }});
        let file = home.path().join("pebble.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let dns = Dns::start().await;
        let mut pebble = tool("pebble");
        pebble.arg("-config").arg(&file).args(["-dnsserver", &dns.names.to_string()]);
        pebble.envs([
            ("PEBBLE_VA_NOSLEEP", "1"),
            ("PEBBLE_WFE_NONCEREJECT", "0"),
            ("PEBBLE_AUTHZREUSE", "0"),
        ]);
        let mut child = pebble.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        soon(async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains("ACME directory available") {
                    return;
                }
            }
            panic!("pebble has ended");
        })
        .await;
        // It says so before it listens.
        for address in [directory, management] {
            soon(async { while TcpStream::connect(address).await.is_err() {} }).await;
        }
        let mut reading = JoinSet::new();
        reading.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let ca = authority.file(home.path());
        Self { child, _reading: reading, directory, management, dns, ca, authority, _home: home }
    }

    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.directory.port())
    }

    /// A viewer's configuration that trusts what is issued.
    pub async fn trusting(&self, alpn: &[&str]) -> ClientConfig {
        let mut stream = self.authority.connect(self.management, "localhost", &[]).await.unwrap();
        stream
            .write_all(b"GET /roots/0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut all = Vec::new();
        let _ = soon(stream.read_to_end(&mut all)).await;
        let root = CertificateDer::from_pem_slice(&Answer::parse(&all).body).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config.resumption = rustls::client::Resumption::disabled();
        config
    }
}
