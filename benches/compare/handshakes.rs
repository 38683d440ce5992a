//! Viewers that each make a full TLS handshake: wrk cannot, it takes its sessions up again.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::load::Outcome;
use crate::nginx::SMALL;

/// At the same time.
const VIEWERS: usize = 32;
/// For one request with all that belongs to it.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Viewers for so many seconds, who trust the certificate in the file `chain`.
pub async fn run(address: SocketAddr, host: &str, chain: &str, seconds: u32) -> Result<Outcome> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&fs::read(chain)?)?)?;
    // One group, as with OpenSSL 3.0: the share of a second one would be work of the viewer alone.
    let groups = vec![aws_lc_rs::kx_group::X25519];
    let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(config));
    let request: Arc<str> = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into();

    let started = Instant::now();
    let end = started + Duration::from_secs(seconds.into());
    let mut viewers = JoinSet::new();
    for _ in 0..VIEWERS {
        let (connector, request) = (connector.clone(), Arc::clone(&request));
        viewers.spawn(async move {
            let mut answered = 0;
            while Instant::now() < end {
                timeout(ANSWER_WAIT, ask(&connector, address, &request))
                    .await
                    .context("no answer in time")??;
                answered += 1;
            }
            anyhow::Ok(answered)
        });
    }
    let (mut amount, mut problem) = (0, None);
    for viewer in viewers.join_all().await {
        match viewer {
            Ok(answered) => amount += answered,
            Err(error) => problem = Some(format!("{error:#}")),
        }
    }
    Ok(Outcome { amount: f64::from(amount), seconds: started.elapsed().as_secs_f64(), problem })
}

async fn ask(connector: &TlsConnector, address: SocketAddr, request: &str) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // An address is not sent as the name asked for, so `Host` may be any.
    let mut stream = connector.connect(ServerName::IpAddress(address.ip().into()), stream).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(2 * SMALL);
    stream.read_to_end(&mut answer).await?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200 "),
        "answered with: {}",
        String::from_utf8_lossy(&answer[..answer.len().min(100)])
    );
    Ok(())
}
