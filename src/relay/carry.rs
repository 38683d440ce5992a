//! Bytes that nobody reads, both ways between a viewer and a target to their end: upgraded connections, and those of TCP
//! and TLS tunnels.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::ending::Ending;
use super::errors::Cause;
use super::exchange::Account;
use super::viewer::{Busy, Connection};
use crate::link::Rejected;
use crate::stream::Duplex;
use crate::stream::splice::{HalfClose, Moved, Splice};
use crate::sync::Held;
use crate::tunnel::{Meter, Metered};

/// For the goodbye to the target.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// What of a viewer's is carried.
pub enum Of {
    /// Its connection.
    Connection(Arc<Connection>),
    /// One stream of a connection of HTTP/2, which is held and counted as long.
    Stream(Busy, Held),
}

/// The two ends, and what has come of either before.
pub struct Ends<V> {
    /// The viewer.
    pub viewer: V,
    /// What it is.
    pub of: Of,
    /// The target.
    pub stream: Box<dyn Duplex>,
    /// Where the owner's bandwidth is limited.
    pub meter: Option<Box<Meter>>,
    /// For the target, before what the viewer sends.
    pub early: Bytes,
    /// For the viewer, before what the target sends.
    pub input: Bytes,
    /// The client may reject the connection until the first byte of the target.
    pub rejected: Option<Rejected>,
    /// The stream was opened in advance: within this time there is a sign of life of its client.
    pub sign_of_life: Option<Duration>,
}

/// How long an exchange or a connection lasts at most, and what may end it.
pub struct Terms {
    /// Silence of both ends.
    pub idle: Duration,
    /// The tunnel goes on.
    pub running: CancellationToken,
    /// Why it does not.
    pub ending: Arc<Ending>,
}

/// Copies until either side ends, the tunnel ends, or nothing moves for too long.
pub async fn carry<V>(ends: Ends<V>, terms: Terms, mut account: Account)
where
    V: AsyncRead + AsyncWrite + Send + Unpin,
{
    let Ends { mut viewer, of, mut stream, mut meter, early, input, rejected, sign_of_life } = ends;
    let half_close = if stream.half_closes() { HalfClose::Kept } else { HalfClose::EndsBoth };
    let copying = async {
        if !input.is_empty() {
            viewer.write_all(&input).await?;
            account.moved(Moved { inward: 0, outward: input.len() as u64 });
        }
        if !early.is_empty() {
            stream.write_all(&early).await?;
            stream.flush().await?;
            account.moved(Moved { inward: early.len() as u64, outward: 0 });
        }
        let mut copy = Copy { splice: Splice::new(half_close), account: &mut account };
        match &mut meter {
            None => copy.run(&mut viewer, stream.as_mut(), rejected, sign_of_life, terms.idle).await,
            Some(meter) => {
                let mut stream = Metered::new(stream.as_mut(), meter);
                copy.run(&mut viewer, &mut stream, rejected, sign_of_life, terms.idle).await
            }
        }
    };
    let ended = tokio::select! {
        ended = copying => ended,
        () = terms.running.cancelled() => {
            Err(Broken { cause: terms.ending.why_stopped(), error: io::Error::other("the tunnel has ended") })
        }
    };
    if ended.is_ok() {
        account.complete();
    }
    if let Err(Broken { cause, error }) = ended {
        account.fail(&cause);
        tracing::debug!(%error, tunnel = account.tunnel.name, "a connection broke off");
        // Neither side is to take this for an end in order. A stream is reset as it is dropped.
        if let Of::Connection(connection) = &of {
            connection.reset_on_close();
        }
        let goodbye = !stream.half_closes() && !matches!(cause, Cause::Rejected(_) | Cause::NotClaimed);
        drop((viewer, of, account));
        if goodbye {
            // What is still on its way to a base client is delivered.
            let _ = timeout(CLOSE_WAIT, stream.shutdown()).await;
        }
        return;
    }
    drop(account);
    let connection = match of {
        Of::Connection(connection) => Some(connection),
        // Its end is what a stream has for both, and a WebSocket says goodbye by itself.
        Of::Stream(busy, counted) => {
            drop((viewer, busy, counted));
            None
        }
    };
    let _ = timeout(CLOSE_WAIT, stream.shutdown()).await;
    if let Some(connection) = connection {
        // The viewer may be sending still: closing at once would reset the connection, and lose what it has not read yet.
        connection.linger().await;
    }
}

/// Why a connection did not end in order.
struct Broken {
    cause: Cause,
    error: io::Error,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        let silent = error.kind() == io::ErrorKind::TimedOut;
        Self { cause: if silent { Cause::TargetSilent } else { Cause::BrokeOff }, error }
    }
}

/// A splice whose bytes are counted as they move.
struct Copy<'a> {
    splice: Splice,
    account: &'a mut Account,
}

/// What happens first on a fresh stream.
enum First {
    Ended(io::Result<()>),
    /// The target has said something.
    Byte,
    Rejected(Cause),
}

impl Copy<'_> {
    async fn run<V, D>(
        &mut self,
        viewer: &mut V,
        stream: &mut D,
        rejected: Option<Rejected>,
        sign_of_life: Option<Duration>,
        idle: Duration,
    ) -> Result<(), Broken>
    where
        V: AsyncRead + AsyncWrite + Send + Unpin,
        D: Duplex + ?Sized,
    {
        if rejected.is_some() || sign_of_life.is_some() {
            // Boxed: it is over soon, and must not make room for as long as the connection lives.
            match Box::pin(self.begin(viewer, stream, rejected, sign_of_life, idle)).await? {
                First::Ended(ended) => return Ok(ended?),
                First::Rejected(cause) => {
                    return Err(Broken { cause, error: io::Error::other("the client rejects it") });
                }
                First::Byte => {}
            }
        }
        let (splice, account) = (&mut self.splice, &mut *self.account);
        let mut told = splice.moved;
        let note = |now: Moved| {
            account.moved(now.since(told));
            told = now;
        };
        Ok(splice.run(viewer, stream, idle, note).await?)
    }

    /// Until the target's first byte.
    async fn begin<V, D>(
        &mut self,
        viewer: &mut V,
        stream: &mut D,
        mut rejected: Option<Rejected>,
        mut sign_of_life: Option<Duration>,
        idle: Duration,
    ) -> Result<First, Broken>
    where
        V: AsyncRead + AsyncWrite + Send + Unpin,
        D: Duplex + ?Sized,
    {
        let (splice, account) = (&mut self.splice, &mut *self.account);
        loop {
            let before = splice.moved;
            let first = poll_fn(|cx| {
                let told = splice.moved;
                let copied = splice.poll(cx, viewer, stream);
                account.moved(splice.moved.since(told));
                if let Poll::Ready(ended) = copied {
                    return Poll::Ready(First::Ended(ended));
                }
                if splice.moved.outward > 0 {
                    return Poll::Ready(First::Byte);
                }
                match &mut rejected {
                    Some(rejected) => {
                        rejected.as_mut().poll(cx).map(|why| First::Rejected(Cause::Rejected(why)))
                    }
                    None => Poll::Pending,
                }
            });
            match timeout(sign_of_life.unwrap_or(idle), first).await {
                Ok(first) => return Ok(first),
                Err(_) if sign_of_life.take().is_some() => {
                    if !stream.ponged() {
                        let error = io::Error::other("no sign of life of the client");
                        return Err(Broken { cause: Cause::NotClaimed, error });
                    }
                }
                Err(_) if splice.moved == before => {
                    return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                }
                Err(_) => {}
            }
        }
    }
}
