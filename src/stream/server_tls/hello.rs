//! The first message of a TLS handshake, read whole before anything is decided or answered.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::server::{StartHandshake, TlsStream};

use super::{ALPN_CHALLENGE, ciphers};
use crate::proto::limits::tls::HELLO_BYTES;

/// What a viewer has said that speaks TLS.
pub struct Hello {
    /// The host that it asks for (RFC 6066, section 3), in lower case.
    pub name: Option<Box<str>>,
    /// It offers the protocol of TLS-ALPN-01 (RFC 8737), which is no viewer's.
    pub is_challenge: bool,
    /// Of the ciphers that it offers, the first that is anything to us is AES.
    pub prefers_aes: bool,
    accepted: Accepted,
    stream: TcpStream,
    bytes: BytesMut,
}

impl Hello {
    /// Whether a connection that begins with this byte speaks TLS: a handshake record (RFC 8446, section 5.1). No method
    /// of HTTP begins so.
    pub fn begins_with(byte: u8) -> bool {
        byte == 22
    }

    /// Reads it; `first` has come already. What is none gets an alert where TLS has one for it.
    pub async fn read(mut stream: TcpStream, first: &[u8]) -> io::Result<Self> {
        let (mut acceptor, mut bytes, mut fed) = (Acceptor::default(), BytesMut::from(first), 0);
        loop {
            while fed < bytes.len() {
                match acceptor.read_tls(&mut &bytes[fed..])? {
                    0 => return Err(io::ErrorKind::InvalidData.into()),
                    count => fed += count,
                }
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let name = hello.server_name().map(|name| name.to_ascii_lowercase().into_boxed_str());
                    let mut offered = hello.alpn().into_iter().flatten();
                    let is_challenge = offered.any(|protocol| protocol == ALPN_CHALLENGE);
                    let prefers_aes = ciphers::prefers_aes(hello.cipher_suites());
                    drop((offered, hello));
                    return Ok(Self { name, is_challenge, prefers_aes, accepted, stream, bytes });
                }
                Ok(None) if bytes.len() >= HELLO_BYTES => return Err(io::ErrorKind::InvalidData.into()),
                Ok(None) => {
                    if stream.read_buf(&mut bytes).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err((error, mut alert)) => {
                    let mut text = Vec::new();
                    if alert.write_all(&mut text).is_ok() {
                        let _ = stream.try_write(&text);
                    }
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
    }

    /// Goes on with the handshake.
    pub async fn shake(self, config: Arc<ServerConfig>) -> io::Result<TlsStream<TcpStream>> {
        StartHandshake::from_parts(self.accepted, self.stream).into_stream(config).await
    }

    /// The connection as it came, and what was read of it: for whoever is to hear it as it is.
    pub fn into_raw(self) -> (TcpStream, Bytes) {
        (self.stream, self.bytes.freeze())
    }
}
