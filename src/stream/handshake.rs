//! The WebSocket handshake (RFC 6455, section 4) in both roles, spoken by hyper.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use crate::proto::http1::list_contains;

/// Why a request is no WebSocket handshake; the text tells the author of a client what to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotWebSocket {
    /// Not an HTTP/1.1 GET with `Connection: Upgrade` and `Upgrade: websocket`.
    #[error("this is a WebSocket endpoint: send GET with 'Connection: Upgrade' and 'Upgrade: websocket'")]
    NoUpgrade,
    /// Another version than 13; answered by 426 with `Sec-WebSocket-Version: 13`.
    #[error("send 'Sec-WebSocket-Version: 13'")]
    Version,
    /// The key is not 16 bytes in base64.
    #[error("send a 'Sec-WebSocket-Key' of 16 random bytes in base64")]
    Key,
}

/// Checks a handshake: the value of `Sec-WebSocket-Accept` for the answer.
pub fn check<B>(request: &Request<B>) -> Result<HeaderValue, NotWebSocket> {
    check_of(request, &["13"])
}

/// The same of any of these versions.
pub fn check_of<B>(request: &Request<B>, versions: &[&str]) -> Result<HeaderValue, NotWebSocket> {
    let headers = request.headers();
    let upgrade = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && list_contains(headers, &header::CONNECTION, "upgrade")
        && list_contains(headers, &header::UPGRADE, "websocket");
    if !upgrade {
        return Err(NotWebSocket::NoUpgrade);
    }
    if !is_version(headers, versions) {
        return Err(NotWebSocket::Version);
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { return Err(NotWebSocket::Key) };
    let key = key.as_bytes();
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if key.len() != 24 || !key.ends_with(b"==") || !key[..22].iter().all(base64) {
        return Err(NotWebSocket::Key);
    }
    HeaderValue::try_from(derive_accept_key(key)).map_err(|_| NotWebSocket::Key)
}

/// Whether the version that is asked for is one of these.
pub fn is_version(headers: &HeaderMap, versions: &[&str]) -> bool {
    let asked = headers.get(header::SEC_WEBSOCKET_VERSION);
    asked.is_some_and(|asked| versions.iter().any(|version| asked == version))
}

/// The 101 that answers a checked handshake.
pub fn switching<B: Default>(accept: HeaderValue) -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// A key for a handshake that we ask for: 16 random bytes in base64.
pub fn new_key() -> String {
    generate_key()
}

/// What answers `key`.
pub fn accept_of(key: &str) -> String {
    derive_accept_key(key.as_bytes())
}

/// Whether `accept` answers `key`.
pub fn is_accepted(key: &str, accept: &HeaderValue) -> bool {
    accept.as_bytes() == accept_of(key).as_bytes()
}

/// Whether the request offers the subprotocol `name`; several may stand in one header or in several.
pub fn offers<B>(request: &Request<B>, name: &str) -> bool {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim() == name)
}

/// What hyper had read beyond the handshake, as a copy: a reference would keep all of its read buffer for as long as the
/// socket lives.
pub fn left_over(read: &Bytes) -> BytesMut {
    BytesMut::from(&read[..])
}

/// Why a handshake that we asked for failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The other end answered with a status other than 101; its body is kept, as it says why.
    #[error("the relay answered {status}: {}", body.trim())]
    Refused {
        /// The status.
        status: StatusCode,
        /// Up to 16 KiB of the body, as text.
        body: String,
    },
    /// The 101 is not an answer to our key.
    #[error("the answer is no WebSocket handshake")]
    BadAnswer,
    /// The connection failed, or spoke no HTTP.
    #[error("the connection failed during the WebSocket handshake: {0}")]
    Http(#[from] hyper::Error),
}

/// A WebSocket as it comes out of its handshake.
pub struct Opened<IO> {
    /// Carries the frames.
    pub io: IO,
    /// What came behind the handshake.
    pub already: BytesMut,
    /// The headers of the 101.
    pub headers: HeaderMap,
}

impl<IO> Opened<IO> {
    /// The subprotocol that the server chose.
    pub fn protocol(&self) -> Option<&HeaderValue> {
        self.headers.get(header::SEC_WEBSOCKET_PROTOCOL)
    }
}

/// Asks for a WebSocket at `uri` (path and query are used, and the authority as Host) over the connected `io`.
pub async fn connect<IO>(io: IO, uri: &Uri, headers: HeaderMap) -> Result<Opened<IO>, ConnectError>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    // Owned by the connection itself: it ends with the upgrade, or when `sender` is dropped.
    tokio::spawn(connection.with_upgrades());
    let key = new_key();
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() =
        uri.path_and_query().map_or_else(|| Uri::from_static("/"), |target| target.clone().into());
    *request.headers_mut() = headers;
    let all = request.headers_mut();
    if let Some(host) = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        all.insert(header::HOST, host);
    }
    all.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    all.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    all.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    all.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).map_err(|_| ConnectError::BadAnswer)?);
    let mut response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(response).await);
    }
    let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if accept.is_none_or(|accept| !is_accepted(&key, accept)) {
        return Err(ConnectError::BadAnswer);
    }
    let headers = std::mem::take(response.headers_mut());
    let upgraded = hyper::upgrade::on(response).await?;
    let parts = upgraded.downcast::<TokioIo<IO>>().map_err(|_| ConnectError::BadAnswer)?;
    Ok(Opened { io: parts.io.into_inner(), already: left_over(&parts.read_buf), headers })
}

async fn refused(response: Response<Incoming>) -> ConnectError {
    use http_body_util::{BodyExt, Limited};
    let status = response.status();
    let body = Limited::new(response.into_body(), 16 * 1024).collect().await;
    let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    ConnectError::Refused { status, body }
}
