//! A network that can be disturbed: Toxiproxy between two ends, told what to do by its JSON API.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Child;

use crate::ports::free_address;
use crate::program::http;
use crate::rig::{Answer, soon};
use crate::tools::tool;

/// The program, ended when it is dropped.
pub struct Toxiproxy {
    api: SocketAddr,
    _child: Child,
}

/// One line through it.
#[derive(Clone)]
pub struct Line {
    api: SocketAddr,
    name: String,
    /// Where the line begins.
    pub address: SocketAddr,
}

impl Toxiproxy {
    pub async fn start() -> Self {
        loop {
            // It takes a port for its API and does not tell which one it was given.
            let api = free_address().await;
            let mut command = tool("toxiproxy");
            command.args(["-host", "127.0.0.1", "-port", &api.port().to_string()]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let answers = async {
                while child.try_wait().unwrap().is_none() {
                    if TcpStream::connect(api).await.is_ok()
                        && call(api, "GET", "/version", None).await.0 == 200
                    {
                        return true;
                    }
                    tokio::task::yield_now().await;
                }
                false
            };
            if soon(answers).await {
                return Self { api, _child: child };
            }
        }
    }

    /// A line to `upstream`.
    pub async fn line(&self, name: &str, upstream: SocketAddr) -> Line {
        let wanted =
            json!({"name": name, "listen": "127.0.0.1:0", "upstream": upstream.to_string(), "enabled": true});
        let (status, made) = call(self.api, "POST", "/proxies", Some(wanted)).await;
        assert_eq!(status, 201, "{made}");
        let address = made["listen"].as_str().unwrap().parse().unwrap();
        Line { api: self.api, name: name.to_owned(), address }
    }
}

impl Line {
    /// Disturbs what goes to the upstream end (`upstream`) or comes from it (`downstream`).
    pub async fn poison(&self, kind: &str, stream: &str, attributes: Value) {
        let toxic = json!({"name": format!("{kind}-{stream}"), "type": kind, "stream": stream, "attributes": attributes});
        let (status, answer) =
            call(self.api, "POST", &format!("/proxies/{}/toxics", self.name), Some(toxic)).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Disturbs both directions.
    pub async fn poison_both(&self, kind: &str, attributes: Value) {
        for stream in ["upstream", "downstream"] {
            self.poison(kind, stream, attributes.clone()).await;
        }
    }

    /// From now on everything vanishes, and nobody is told.
    pub async fn black_hole(&self) {
        self.poison_both("timeout", json!({"timeout": 0})).await;
    }

    /// Takes every disturbance away.
    pub async fn cure(&self) {
        let path = format!("/proxies/{}/toxics", self.name);
        let (_, toxics) = call(self.api, "GET", &path, None).await;
        for toxic in toxics.as_array().unwrap() {
            let name = toxic["name"].as_str().unwrap();
            assert_eq!(call(self.api, "DELETE", &format!("{path}/{name}"), None).await.0, 204);
        }
    }

    /// Closes the line with all its connections, or opens it again.
    pub async fn enable(&self, enabled: bool) {
        let wanted = json!({"enabled": enabled, "listen": self.address.to_string()});
        let (status, answer) = call(self.api, "POST", &format!("/proxies/{}", self.name), Some(wanted)).await;
        assert_eq!(status, 200, "{answer}");
    }
}

async fn call(api: SocketAddr, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let Answer { status, body, .. } = http(api, request).await;
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}
