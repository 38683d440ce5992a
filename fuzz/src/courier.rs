//! What another process says: any bytes at any cut give the same messages, and then what stands behind them.

use adit::stream::courier::Courier;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::pieces::cuts;

/// More would not fit into a socket that nobody reads yet.
const MOST: usize = 4096;

/// The messages, whether the last one failed, and what is behind the first one.
async fn receive(pieces: &[&[u8]]) -> (Vec<Value>, bool, Vec<u8>) {
    let (mut said, heard) = UnixStream::pair().expect("a pair of sockets");
    let mut courier = Courier::new(heard);
    let (mut messages, mut failed) = (Vec::new(), false);
    let saying = async {
        for piece in pieces {
            said.write_all(piece).await.expect("the other end is there");
            tokio::task::yield_now().await;
        }
        drop(said);
    };
    let hearing = async {
        loop {
            match courier.receive().await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        assert!(courier.take_descriptor().is_none());
        let (mut stream, rest) = courier.into_parts();
        let mut rest = rest.to_vec();
        stream.read_to_end(&mut rest).await.expect("the rest");
        rest
    };
    let ((), rest) = tokio::join!(saying, hearing);
    (messages, failed, rest)
}

/// See the top.
pub fn check(data: &[u8]) {
    let data = &data[..data.len().min(MOST)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let [whole, _, uneven] = cuts(data);
    assert_eq!(runtime.block_on(receive(&whole)), runtime.block_on(receive(&uneven)));
}
