//! Messages between two processes of one machine: JSON lines over a Unix socket, with descriptors beside them.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use bytes::BytesMut;
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// Descriptors that one message may bring along: as many as Linux takes (`SCM_MAX_FD`).
pub const MOST_DESCRIPTORS: usize = 253;
/// Bytes of one line.
const MOST_BYTES: usize = 64 * 1024;

/// One end of the conversation.
pub struct Courier {
    stream: UnixStream,
    /// What came and is not yet a whole line.
    input: BytesMut,
    /// What came along and nobody has taken yet, in the order in which it was sent.
    descriptors: VecDeque<OwnedFd>,
}

impl Courier {
    /// A conversation over `stream`.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, input: BytesMut::new(), descriptors: VecDeque::new() }
    }

    /// Says `message` and passes on copies of `descriptors`.
    pub async fn send<T: Serialize>(
        &mut self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        if descriptors.len() > MOST_DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
        }
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let sending = || {
            let mut space = vec![MaybeUninit::uninit(); cmsg_space!(ScmRights(descriptors.len()))];
            let mut beside = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                beside.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            Ok(sendmsg(&self.stream, &[IoSlice::new(&line)], &mut beside, SendFlags::empty())?)
        };
        // The descriptors go with the first byte.
        let sent = self.stream.async_io(Interest::WRITABLE, sending).await?;
        self.stream.write_all(&line[sent..]).await
    }

    /// The next message; `None` is the end. May be dropped and called again without a loss.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line = self.input.split_to(end + 1);
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.input.len() > MOST_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
            }
            if self.receive_some().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// A descriptor that came along with a message received before.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// The socket, and what was read behind the last message: from here on it carries something else.
    pub fn into_parts(self) -> (UnixStream, BytesMut) {
        (self.stream, self.input)
    }

    async fn receive_some(&mut self) -> io::Result<usize> {
        let (stream, input, descriptors) = (&self.stream, &mut self.input, &mut self.descriptors);
        let receiving = || {
            let mut bytes = [0; 4096];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut beside, flags())?;
            input.extend_from_slice(&bytes[..received.bytes]);
            for message in beside.drain() {
                if let RecvAncillaryMessage::ScmRights(passed) = message {
                    descriptors.extend(passed);
                }
            }
            Ok(received.bytes)
        };
        stream.async_io(Interest::READABLE, receiving).await
    }
}

/// What is received is not for programs that this one may start.
fn flags() -> RecvFlags {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return RecvFlags::CMSG_CLOEXEC;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return RecvFlags::empty();
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tokio::io::AsyncReadExt;

    use super::*;

    fn pair() -> (Courier, Courier) {
        let (one, two) = UnixStream::pair().unwrap();
        (Courier::new(one), Courier::new(two))
    }

    #[tokio::test]
    async fn messages_come_in_order_each_with_its_descriptors() {
        let (mut one, mut two) = pair();
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        one.send(&json!({"first": 1}), &[]).await.unwrap();
        one.send(&json!({"second": "ä\n"}), &[near.as_fd(), far.as_fd()]).await.unwrap();
        one.send(&json!({"third": 3}), &[near.as_fd()]).await.unwrap();
        drop((one, near));
        for expected in [json!({"first": 1}), json!({"second": "ä\n"}), json!({"third": 3})] {
            assert_eq!(two.receive::<Value>().await.unwrap(), Some(expected));
        }
        assert_eq!(two.receive::<Value>().await.unwrap(), None);
        let mut passed = Vec::new();
        while let Some(descriptor) = two.take_descriptor() {
            passed.push(std::os::unix::net::UnixStream::from(descriptor));
        }
        assert_eq!(passed.len(), 3);
        // What was passed on lives although its first owner is gone.
        io::Write::write_all(&mut passed.remove(0), b"x").unwrap();
        let mut byte = [0];
        io::Read::read_exact(&mut &far, &mut byte).unwrap();
        assert_eq!(byte, *b"x");
    }

    #[tokio::test]
    async fn what_stands_behind_a_message_is_not_lost() {
        let (mut one, mut two) = pair();
        one.send(&json!(1), &[]).await.unwrap();
        let (mut stream, _) = one.into_parts();
        stream.write_all(b"raw bytes").await.unwrap();
        drop(stream);
        assert_eq!(two.receive::<Value>().await.unwrap(), Some(json!(1)));
        let (mut stream, input) = two.into_parts();
        let mut rest = input.to_vec();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"raw bytes");
    }

    #[tokio::test]
    async fn nonsense_and_endless_lines_are_errors() {
        let (one, mut two) = pair();
        let (mut stream, _) = one.into_parts();
        stream.write_all(b"{\n").await.unwrap();
        assert!(two.receive::<Value>().await.is_err());
        let flood = async move { drop(stream.write_all(&vec![b'x'; 2 * MOST_BYTES]).await) };
        let (_, refused) = tokio::join!(flood, async {
            let refused = two.receive::<Value>().await;
            drop(two);
            refused
        });
        assert!(refused.is_err());
    }

    fn messages() -> impl Strategy<Value = Vec<Value>> {
        let one = prop_oneof![
            any::<String>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a\n\\\\\"]{0,3000}".prop_map(|text| json!({ "text": text })),
        ];
        prop::collection::vec(one, 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn messages_come_alike_however_they_are_cut(messages in messages(), behind in any::<Vec<u8>>(), cut in 1usize..5000) {
            let mut wire: Vec<u8> = messages.iter().flat_map(|message| format!("{message}\n").into_bytes()).collect();
            wire.extend_from_slice(&behind);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            let (received, rest) = runtime.block_on(async {
                let (mut said, heard) = UnixStream::pair().unwrap();
                let saying = async {
                    for piece in wire.chunks(cut) {
                        said.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    drop(said);
                };
                let hearing = async {
                    let (mut courier, mut received) = (Courier::new(heard), Vec::new());
                    for _ in &messages {
                        received.extend(courier.receive::<Value>().await.unwrap());
                    }
                    let (mut stream, rest) = courier.into_parts();
                    let mut rest = rest.to_vec();
                    stream.read_to_end(&mut rest).await.unwrap();
                    (received, rest)
                };
                tokio::join!(saying, hearing).1
            });
            prop_assert_eq!((received, rest), (messages, behind));
        }
    }
}
