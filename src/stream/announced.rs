//! Reading the PROXY header with which a trusted proxy begins a connection.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::proto::limits::{proxy_header::V2_BYTES, read};
use crate::proto::proxy_header::{Ends, HeaderError, parse};

/// Why a connection of a proxy is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Unannounced {
    /// It does not begin with a header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It ended before.
    #[error("the connection ended before its PROXY header: {0}")]
    Io(#[from] std::io::Error),
    /// Most connections of a proxy that are given up unused are those of probes.
    #[error("the PROXY header did not come in time")]
    Late,
}

/// The ends that the header tells, if it does, and what was read behind it.
pub async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    wait: Duration,
) -> Result<(Option<Ends>, BytesMut), Unannounced> {
    timeout(wait, header(stream)).await.unwrap_or(Err(Unannounced::Late))
}

async fn header<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(Option<Ends>, BytesMut), Unannounced> {
    let mut bytes = BytesMut::with_capacity(read::LEAST);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(header) = parse(&bytes)? {
            let behind = bytes.split_off(header.length);
            return Ok((header.ends, behind));
        }
        debug_assert!(bytes.len() < V2_BYTES, "a header is judged before");
    }
}
