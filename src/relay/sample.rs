//! A small site to look at through a tunnel: a page, server-sent events, a WebSocket echo and an upload.

use std::convert::Infallible;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::copy_buf;
use tokio::net::TcpListener;

use crate::proto::frame::Role;
use crate::stream::handshake::{check, switching};
use crate::stream::websocket::{Sizes, WebSocket};

const PAGE: &str = include_str!("sample.html");
/// Where the page shows the headers of its request.
const HEADERS_MARK: &str = "<!--headers-->";
/// An upload that says nothing for this long has ended.
const UPLOAD_IDLE: Duration = Duration::from_secs(60);

/// Serves the site until dropped.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    axum::serve(listener, site()).await
}

/// The site, without any state.
pub fn site() -> Router {
    Router::new()
        .route("/", get(page))
        .route("/events", get(events))
        .route("/echo", get(echo))
        .route("/upload", post(upload))
        .fallback(|| async {
            (StatusCode::NOT_FOUND, "The sample site has /, /events, /echo and /upload.\n")
        })
}

async fn page(headers: HeaderMap) -> Response {
    let rows = headers.iter().fold(String::new(), |rows, (name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        format!("{rows}<tr><th>{}<td>{}", escape(name.as_str()), escape(&value))
    });
    let page = Html(PAGE.replacen(HEADERS_MARK, &rows, 1));
    ([(header::CACHE_CONTROL, "no-store")], page).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// One event at once and then one each second.
async fn events() -> Response {
    let ticks = futures_util::stream::unfold(0_u64, |count| async move {
        if count > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let event = Bytes::from(format!("id: {count}\ndata: tick {count}\n\n"));
        Some((Ok::<_, Infallible>(event), count + 1))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(ticks)).into_response()
}

/// Sends back the bytes of each message as they come, as binary messages.
async fn echo(mut request: Request) -> Response {
    let accept = match check(&request) {
        Ok(accept) => accept,
        Err(error) => return (StatusCode::UPGRADE_REQUIRED, format!("{error}\n")).into_response(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    // Ends with its connection.
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let sizes = Sizes { buffer: 64 * 1024, message: 64 * 1024 };
        let socket = WebSocket::new(TokioIo::new(upgraded), Role::Server, BytesMut::new(), sizes);
        let (reading, mut writing) = tokio::io::split(socket);
        let mut reading = tokio::io::BufReader::with_capacity(16 * 1024, reading);
        let _ = copy_buf(&mut reading, &mut writing).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut writing).await;
    });
    switching::<Body>(accept)
}

/// Size and SHA-256 of what was sent.
async fn upload(request: Request) -> Response {
    let (mut body, mut hash, mut size) = (request.into_body(), digest::Context::new(&digest::SHA256), 0_u64);
    loop {
        let frame = match tokio::time::timeout(UPLOAD_IDLE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(error))) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
            Err(_) => return (StatusCode::REQUEST_TIMEOUT, "nothing came for a minute\n").into_response(),
        };
        if let Some(data) = frame.data_ref() {
            hash.update(data);
            size += data.len() as u64;
        }
    }
    let hex: String = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    axum::Json(serde_json::json!({ "bytes": size, "sha256": hex })).into_response()
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::tungstenite::Message;

    use super::*;

    async fn connect() -> (TcpStream, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, site()).await });
        (TcpStream::connect(address).await.unwrap(), format!("ws://{address}/echo"))
    }

    async fn ask(request: &str) -> String {
        let (mut stream, _) = connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_page_shows_headers_harmlessly_and_needs_nothing_from_elsewhere() {
        let page = ask("GET / HTTP/1.1\r\nHost: a\r\nX-Test: <script>\"&\r\nConnection: close\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("&lt;script&gt;&quot;&amp;"), "{page}");
        assert!(
            !page.contains("src=\"http") && !page.contains("href=\"http") && !page.contains(HEADERS_MARK)
        );
    }

    #[tokio::test]
    async fn an_upload_is_answered_with_size_and_checksum() {
        let answer =
            ask("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
                .await;
        assert!(
            answer.contains("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            "{answer}"
        );
        assert!(answer.contains("\"bytes\":3"), "{answer}");
    }

    #[tokio::test]
    async fn the_first_event_comes_at_once() {
        let (mut stream, _) = connect().await;
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        while !answer.contains("data: tick 0\n\n") {
            let mut part = [0; 512];
            let count = stream.read(&mut part).await.unwrap();
            assert!(count > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&part[..count]).unwrap());
        }
        assert!(answer.to_ascii_lowercase().contains("content-type: text/event-stream"), "{answer}");
    }

    #[tokio::test]
    async fn the_echo_sends_back_bytes_and_the_close() {
        let (stream, url) = connect().await;
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary("hello"));
        socket.close(None).await.unwrap();
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_))) | None));
        let plain = ask("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(plain.starts_with("HTTP/1.1 426 "), "{plain}");
    }
}
