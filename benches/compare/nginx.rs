//! The two nginx servers: the backend that answers, and the reverse proxy that adit is compared with.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::http::wait_ready;
use crate::load::Load;
use crate::machine::Tools;
use crate::process::{Server, TempDir, free_address};
use crate::rounds::{System, Way};
use crate::targets::Targets;

/// Bytes of `/`.
pub const SMALL: usize = 100;
/// Bytes of `/big`.
const BIG: u64 = 64 * 1024 * 1024;

/// How the proxy treats bodies that come faster than they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffering {
    /// As nginx does by itself: it reads an upload whole, into a file if it is large, before it passes it on, and
    /// puts into a file what a viewer does not take at once.
    Default,
    /// It passes everything on as it comes and writes no files; the buffers in memory have their default sizes.
    Streaming,
}

impl Buffering {
    /// For the text beside the table.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Default => "with its default buffering, which puts large bodies into files on their way",
            Self::Streaming => "that streams bodies without files, with buffers of the default sizes",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Default => "",
            Self::Streaming => "  proxy_max_temp_file_size 0;\n  proxy_request_buffering off;\n",
        }
    }
}

impl System for Nginx {
    fn name(&self) -> String {
        "nginx".into()
    }

    fn way(&self, load: Load) -> Way<'_> {
        let address = if load.is_tls() { self.proxy.secure } else { self.proxy.address };
        Way { address, host: "localhost", hops: vec![&self.proxy.server] }
    }
}

/// Both servers, running.
pub struct Nginx {
    /// Where the backend listens.
    pub backend: SocketAddr,
    /// What adit is compared with.
    pub proxy: Proxy,
    _backend: Server,
}

/// A reverse proxy.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it does so for TLS.
    pub secure: SocketAddr,
    /// The process, whose CPU and memory count.
    pub server: Server,
    /// What it shows there.
    pub certificate: Certificate,
}

/// The paths of a certificate and its key.
pub struct Certificate {
    pub chain: String,
    pub key: String,
}

impl Certificate {
    /// A new one, of the kind that authorities issue (ECDSA with P-256).
    fn new(temp: &TempDir, name: &str) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let path = |kind: &str| temp.join(&format!("{name}.{kind}"));
        fs::write(path("crt"), made.cert.pem())?;
        fs::write(path("key"), made.signing_key.serialize_pem())?;
        Ok(Self { chain: path("crt").display().to_string(), key: path("key").display().to_string() })
    }
}

impl Nginx {
    /// Writes the configurations and files, and starts both on free ports.
    pub async fn start(
        tools: &Tools,
        temp: &TempDir,
        targets: &Targets,
        buffering: Buffering,
    ) -> Result<Self> {
        let root = temp.join("root");
        fs::create_dir(&root)?;
        fs::write(root.join("index.html"), "x".repeat(SMALL))?;
        fs::write(root.join("big"), vec![b'x'; BIG as usize])?;

        let backend = free_address()?;
        let mut first = start(tools, temp, "backend", &backend_config(backend, &root.display().to_string()))?;
        let body = wait_ready(&mut first, backend, "localhost", "/").await?;
        ensure!(body.len() == SMALL, "the backend answers something else");
        let proxy = start_proxy(tools, temp, "proxy", backend, targets, buffering).await?;
        Ok(Self { backend, proxy, _backend: first })
    }
}

/// Starts another proxy to `backend` and the targets, on a free port.
pub async fn start_proxy(
    tools: &Tools,
    temp: &TempDir,
    name: &str,
    backend: SocketAddr,
    targets: &Targets,
    buffering: Buffering,
) -> Result<Proxy> {
    let (address, secure, certificate) = (free_address()?, free_address()?, Certificate::new(temp, name)?);
    let listen = format!(
        "listen {address} backlog=4096;\n    listen {secure} ssl backlog=4096;\n    \
         ssl_protocols TLSv1.2 TLSv1.3;\n    ssl_certificate {};\n    ssl_certificate_key {};",
        certificate.chain, certificate.key
    );
    let mut server = start(tools, temp, name, &proxy_config(&listen, backend, targets, buffering))?;
    wait_ready(&mut server, address, "localhost", "/").await?;
    Ok(Proxy { address, secure, server, certificate })
}

/// Starts one nginx that keeps to a directory of its own.
fn start(tools: &Tools, temp: &TempDir, name: &str, http: &str) -> Result<Server> {
    let directory = temp.join(name);
    fs::create_dir(&directory)?;
    let config = directory.join("nginx.conf");
    fs::write(&config, format!("{}http {{\n{COMMON}{http}}}\n", user()?))?;
    let mut command = tokio::process::Command::new(&tools.nginx);
    command.arg("-p").arg(&directory).arg("-c").arg(&config).args(["-e", "stderr"]);
    Server::start(&format!("nginx ({name})"), &mut command, directory.join("log"))
}

/// The part outside `http`. Started by root, the workers stay root: nobody else can read our directory.
fn user() -> Result<String> {
    let mut text = String::new();
    if fs::metadata("/proc/self")?.uid() == 0 {
        let group = Command::new("id").arg("-gn").output().context("cannot run id")?;
        text = format!("user root {};\n", String::from_utf8_lossy(&group.stdout).trim());
    }
    // Two workers, as adit runs with two threads.
    text += "daemon off;\nworker_processes 2;\npid pid;\nerror_log stderr;\nevents { worker_connections 4096; }\n";
    Ok(text)
}

/// What both have in common. Connections live for the whole run; the paths are relative to `-p`.
const COMMON: &str = "\
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  sendfile on;
  tcp_nodelay on;
  keepalive_timeout 3600s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
";

fn backend_config(address: SocketAddr, root: &str) -> String {
    format!("  server {{\n    listen {address} backlog=4096;\n    root {root};\n  }}\n")
}

/// `/slow`, which never ends, is passed on as it comes with either buffering.
fn proxy_config(listen: &str, backend: SocketAddr, targets: &Targets, buffering: Buffering) -> String {
    let upstream = |name: &str, address: SocketAddr| {
        format!(
            "  upstream {name} {{\n    server {address};\n    keepalive 64;\n    keepalive_timeout 3600s;\n    \
             keepalive_requests 1000000000;\n  }}\n"
        )
    };
    format!(
        "{}{}{}{}  proxy_http_version 1.1;\n  proxy_set_header Connection \"\";\n  server {{\n    \
         {listen}\n    \
         location / {{ proxy_pass http://small; }}\n    \
         location /upload {{ proxy_pass http://sink; }}\n    \
         location /slow {{ proxy_pass http://slow; proxy_buffering off; proxy_read_timeout 3600s; }}\n  }}\n",
        buffering.config(),
        upstream("small", backend),
        upstream("sink", targets.sink),
        upstream("slow", targets.slow),
    )
}
