//! The admin listener: probes, and nothing else of the relay's.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::rig::{Answer, Rig, read_all, soon};

async fn get(address: std::net::SocketAddr, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    Answer::parse(&soon(read_all(&mut stream)).await)
}

#[tokio::test]
async fn probes_answer_on_the_admin_listener_only() {
    let rig = Rig::start().await;
    for (path, admin, public) in
        [("/healthz", 200, 404), ("/readyz", 200, 404), ("/v1/tunnels", 404, 401), ("/metrics", 404, 404)]
    {
        assert_eq!(get(rig.admin, path).await.status, admin, "{path}");
        assert_eq!(get(rig.address, path).await.status, public, "{path}");
    }
}
