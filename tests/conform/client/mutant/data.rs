//! One data socket of the mutant, and its connection to the target.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use adit::proto::frame::Opcode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::session::Shared;
use super::wire::{In, Reader, Writer, close, send};
use super::{Client, Defect, Failure, Kind};

/// Takes up a connection that was announced.
pub(super) async fn serve(shared: Arc<Shared>, id: String, cancelled: CancellationToken) {
    let client = &shared.client;
    let _turn = match client.is(Defect::OneAfterTheOther) {
        true => Some(client.turn.lock().await),
        false => None,
    };
    if cancelled.is_cancelled() {
        return;
    }
    let target = TcpStream::connect(("127.0.0.1", client.start.port)).await;
    let target = match target {
        Err(_) if shared.two => return reject(&shared, &id).await,
        target => target,
    };
    let claim = *shared.claim.lock().unwrap();
    if claim.is_zero() {
        // Whoever believes this is too late before the first byte; a timer of 0 ms is not.
        return;
    }
    let claimed = tokio::select! {
        biased;
        () = cancelled.cancelled() => return,
        claimed = timeout(claim, claim_it(&shared, &id)) => claimed,
    };
    match claimed {
        Ok(Some(socket)) => join(&shared, &id, socket, Some(target)).await,
        _ if client.is(Defect::IgnoresCancel) => {
            // The connection to the target stays.
            std::future::pending::<()>().await;
            drop(target);
        }
        _ => {}
    }
}

async fn reject(shared: &Shared, id: &str) {
    let id = if shared.client.is(Defect::WrongRejectId) { "another" } else { id };
    let text =
        json!({ "type": "reject", "id": id, "reason": "refused", "message": "nobody listens" }).to_string();
    let _ = send(&shared.control, Opcode::Text, text.as_bytes()).await;
}

async fn claim_it(shared: &Shared, id: &str) -> Option<(Reader, Writer)> {
    let client = &shared.client;
    let id = match client.is(Defect::RawIds) {
        true => id.to_owned(),
        false => utf8_percent_encode(id, NON_ALPHANUMERIC).to_string(),
    };
    let mut lines = Vec::new();
    if shared.two {
        lines.push(client.bearer());
    }
    if client.is(Defect::DataOffersProtocol) {
        lines.push("Sec-WebSocket-Protocol: adit.1".into());
    }
    loop {
        match client.handshake(&format!("/ws/data?id={id}"), &lines).await {
            Ok(answer) => return Some(answer.socket()),
            Err(Failure::Passing(_)) if !client.is(Defect::TriesOnce) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(_) => {
                if client.is(Defect::LateClaimEndsSession) {
                    shared.over.cancel();
                }
                return None;
            }
        }
    }
}

/// Copies both ways. Without a target it is dialled here.
pub(super) async fn join(
    shared: &Shared,
    id: &str,
    (reader, writer): (Reader, Writer),
    target: Option<io::Result<TcpStream>>,
) {
    let client = &shared.client;
    let target = match target {
        Some(target) => target,
        None => TcpStream::connect(("127.0.0.1", client.start.port)).await,
    };
    let cut = client.state.lock().unwrap().cut.clone();
    match target {
        Ok(target) => {
            let mut copy =
                Copy { shared, reader, writer, target, dropping: false, chunks: 0, message: Vec::new() };
            tokio::select! {
                () = cut.cancelled() => {}
                () = copy.run() => {}
            }
        }
        Err(_) => refused(shared, id, reader, writer).await,
    }
}

/// The target cannot be reached, and the socket is open.
async fn refused(shared: &Shared, id: &str, mut reader: Reader, writer: Writer) {
    let client = &shared.client;
    if client.is(Defect::SaysAtBase) || shared.two {
        reject(shared, id).await;
    }
    if !shared.two {
        match client.kind {
            _ if client.is(Defect::MuteRefusal) => drop(close(&writer, 1011).await),
            Kind::Tcp if !client.is(Defect::PageOverTcp) => drop(close(&writer, 1011).await),
            _ => {
                let page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = send(&writer, Opcode::Binary, page).await;
                let _ = close(&writer, 1000).await;
            }
        }
    }
    if client.is(Defect::ClosesRejected) {
        let _ = close(&writer, 1000).await;
    }
    drain(&mut reader).await;
    if client.is(Defect::KeepsRejected) {
        std::future::pending().await
    }
}

/// Reads to the relay's end.
async fn drain(reader: &mut Reader) {
    let ended = async { while !matches!(reader.next().await, In::Close(_) | In::Fin | In::Cut) {} };
    let _ = timeout(Duration::from_secs(5), ended).await;
}

struct Copy<'a> {
    shared: &'a Shared,
    reader: Reader,
    writer: Writer,
    target: TcpStream,
    /// The target takes no more.
    dropping: bool,
    chunks: usize,
    message: Vec<u8>,
}

impl Copy<'_> {
    fn client(&self) -> &Client {
        &self.shared.client
    }

    fn is(&self, defect: Defect) -> bool {
        self.client().is(defect)
    }

    async fn run(&mut self) {
        let (mut relay_ended, mut target_ended) = (false, false);
        let mut buffer = vec![0; 64 * 1024];
        let hoard = self.is(Defect::Hoards).then(|| self.hoard());
        loop {
            if relay_ended && target_ended {
                let _ = close(&self.writer, 1000).await;
                return drain(&mut self.reader).await;
            }
            tokio::select! {
                heard = self.reader.next() => {
                    let ends = self.is_end(&heard);
                    match self.heard(heard, hoard.as_ref()).await {
                        Some(end) => return end.of(self).await,
                        None if ends => relay_ended = true,
                        None => {}
                    }
                }
                read = self.target.read(&mut buffer), if !target_ended => match read {
                    Ok(0) => {
                        match self.target_end().await {
                            true => target_ended = true,
                            false => return,
                        }
                    }
                    Ok(read) => if !self.sent(&buffer[..read]).await {
                        return self.reset();
                    },
                    Err(_) => return self.target_failed().await,
                },
            }
        }
    }

    /// Takes all that comes, whether the target does or not.
    fn hoard(&self) -> mpsc::Sender<bytes::Bytes> {
        let (sender, mut receiver) = mpsc::channel(1 << 20);
        self.shared.client.clone().spawn(async move {
            while receiver.recv().await.is_some() {
                std::future::pending::<()>().await;
            }
        });
        sender
    }

    /// Whether this is the end of the relay's sending, and nothing else.
    fn is_end(&self, heard: &In) -> bool {
        match heard {
            In::Empty => self.shared.two || self.is(Defect::EmptyEndsAtBase),
            In::EmptyFragment => self.is(Defect::EmptyFragmentEnds),
            _ => false,
        }
    }

    async fn heard(&mut self, heard: In, hoard: Option<&mpsc::Sender<bytes::Bytes>>) -> Option<End> {
        if self.is_end(&heard) {
            let _ = self.target.shutdown().await;
            return self.is(Defect::FirstEndEndsBoth).then_some(End::Orderly);
        }
        match heard {
            In::Data(data) => match hoard {
                Some(hoard) => drop(hoard.send(data).await),
                None => return self.received(&data).await,
            },
            In::Ping(payload) if !self.is(Defect::IgnoresDataPings) => {
                let _ = send(&self.writer, Opcode::Pong, &payload).await;
            }
            In::Close(code) => {
                let _ = close(&self.writer, code.unwrap_or(1000)).await;
                let in_order = matches!(code, None | Some(1000)) || (code == Some(1001) && !self.shared.two);
                return Some(self.end(in_order));
            }
            In::Fin => return Some(self.end(!self.shared.two && !self.is(Defect::FinIsCut))),
            In::Cut => return Some(self.end(false)),
            _ => {}
        }
        None
    }

    fn end(&self, in_order: bool) -> End {
        match in_order || self.is(Defect::CutIsEnd) {
            true if self.is(Defect::StaysAtTarget) => End::Stays,
            true => End::Orderly,
            false => End::Cut,
        }
    }

    /// Bytes of the relay, for the target.
    async fn received(&mut self, data: &[u8]) -> Option<End> {
        self.chunks += 1;
        let partial = !self.reader.at_rest();
        if self.dropping
            || (self.is(Defect::LosesFragments) && partial)
            || (self.is(Defect::IgnoresText) && self.reader.is_text())
            || (self.is(Defect::LosesChunk) && self.chunks == 10)
        {
            return None;
        }
        let mut bytes = data.to_vec();
        if self.is(Defect::WaitsForWholeMessage) {
            self.message.append(&mut bytes);
            if partial {
                return None;
            }
            bytes = std::mem::take(&mut self.message);
        }
        if self.is(Defect::TextOnly) {
            bytes = String::from_utf8_lossy(&bytes).into_owned().into_bytes();
        }
        if self.target.write_all(&bytes).await.is_err() {
            if self.is(Defect::WriteFailureEndsBoth) {
                return Some(End::Reset);
            }
            self.dropping = true;
        }
        None
    }

    /// Bytes of the target, for the relay; whether they went.
    async fn sent(&mut self, bytes: &[u8]) -> bool {
        let bytes = if self.is(Defect::LosesByte) { &bytes[..bytes.len() - 1] } else { bytes };
        let opcode = if self.is(Defect::SendsText) { Opcode::Text } else { Opcode::Binary };
        let sending = send(&self.writer, opcode, bytes);
        match self.is(Defect::ClosesInHaste) {
            true => matches!(timeout(Duration::from_millis(300), sending).await, Ok(Ok(()))),
            false => sending.await.is_ok(),
        }
    }

    /// The target sends no more; whether the other direction goes on.
    async fn target_end(&mut self) -> bool {
        if self.shared.two && !self.is(Defect::FirstEndEndsBoth) {
            let opcode = if self.is(Defect::TextEnd) { Opcode::Text } else { Opcode::Binary };
            let _ = send(&self.writer, opcode, b"").await;
            return true;
        }
        if self.is(Defect::ResetsAtEnd) {
            self.reset();
            return false;
        }
        let _ = close(&self.writer, 1000).await;
        drain(&mut self.reader).await;
        false
    }

    async fn target_failed(&mut self) {
        if self.dropping {
            // It hung up on what it did not want, and had said all.
            self.target_end().await;
            let _ = close(&self.writer, 1011).await;
        } else if self.is(Defect::FailureIsEnd) {
            let _ = send(&self.writer, Opcode::Binary, b"").await;
            let _ = close(&self.writer, 1000).await;
        } else {
            let _ = close(&self.writer, 1011).await;
        }
        drain(&mut self.reader).await;
    }

    fn reset(&self) {
        if let Ok(writer) = self.writer.try_lock() {
            writer.will_reset();
        }
    }
}

/// The end of both directions.
enum End {
    Orderly,
    Cut,
    /// The target is not told.
    Stays,
    Reset,
}

impl End {
    async fn of(self, copy: &mut Copy<'_>) {
        match self {
            Self::Orderly => drop(copy.target.shutdown().await),
            Self::Cut => {
                if copy.is(Defect::StreamsDieTogether) {
                    copy.client().state.lock().unwrap().cut.cancel();
                }
                let _ = socket2::SockRef::from(&copy.target).set_linger(Some(Duration::ZERO));
                if copy.is(Defect::KeepsCut) {
                    std::future::pending().await
                }
            }
            Self::Stays => std::future::pending().await,
            Self::Reset => copy.reset(),
        }
    }
}
