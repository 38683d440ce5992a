//! One registration of a worker, and what a refusal means.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::time::timeout;

use super::{WorkerId, WorkerToken};
use crate::client::api::CallError;
use crate::client::connect::Failure;
use crate::client::connector::{Connector, SocketError, bearer};
use crate::client::dial::RelayIo;
use crate::client::event::End;
use crate::proto::limits::client::{CONNECT_WAIT, RETRY_AFTER};
use crate::proto::worker;
use crate::stream::handshake::{ConnectError, Opened};

const ID: HeaderName = HeaderName::from_static(worker::ID);
const CLIENT_URL: HeaderName = HeaderName::from_static(worker::CLIENT_URL);

/// Why there is no session now.
pub(super) enum NotRegistered {
    /// The relay does not take the token.
    Token(String),
    /// Anything else.
    Failed(Failure),
}

/// Registers `id`: the WebSocket and the URL at which viewers reach it. `again`: it was registered before, so that a
/// refusal may pass.
pub(super) async fn register(
    connector: &Connector,
    id: &WorkerId,
    token: &WorkerToken,
    again: bool,
) -> Result<(Opened<RelayIo>, String), NotRegistered> {
    let judge = |error| judge(connector, id, error, again);
    let mut headers = HeaderMap::new();
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| ConnectError::BadAnswer.into());
    headers.insert(ID, value(id.as_str()).map_err(judge)?);
    headers.insert(
        header::AUTHORIZATION,
        bearer(token.expose()).map_err(|_| judge(ConnectError::BadAnswer.into()))?,
    );
    let opened = timeout(CONNECT_WAIT, connector.open("/", headers)).await;
    let opened = opened.unwrap_or(Err(SocketError::Handshake(ConnectError::BadAnswer))).map_err(judge)?;
    let url = opened.headers.get(CLIENT_URL).and_then(|url| url.to_str().ok()).map(str::to_owned);
    match url.filter(|url| !url.is_empty()) {
        Some(url) => Ok((opened, url)),
        None => {
            let (relay, given_by) = (connector.relay(), connector.given_by());
            let text = format!(
                "{relay} does not say where viewers go (x-websocktunnel-client-url): check {given_by}"
            );
            Err(NotRegistered::Failed(refused(text, again)))
        }
    }
}

fn refused(text: String, again: bool) -> Failure {
    if again { Failure::Passing(text) } else { Failure::Final(End::Refused(text)) }
}

/// Whether an error is final: only before the first success. A refused token is a matter of its own.
fn judge(connector: &Connector, id: &WorkerId, error: SocketError, again: bool) -> NotRegistered {
    let (relay, given_by, id) = (connector.relay(), connector.given_by(), id.as_str());
    let error = CallError::from(error);
    let is_final = error.is_final();
    let failure = match error {
        CallError::Unauthorised { status, message } => {
            let sentence = format!(
                "{relay} does not accept the token for the id {id} ({}): {message}; `adit token inspect` shows what is \
                 in it",
                status.as_u16()
            );
            return NotRegistered::Token(sentence);
        }
        CallError::Refused { status, .. } if status.is_success() => {
            refused(format!("{relay} answers {status} instead of a WebSocket: check {given_by}"), again)
        }
        CallError::Refused { status, message, .. } if is_final => {
            let advice = match status {
                StatusCode::BAD_REQUEST => format!("check that the token is a whole one, and the id {id}"),
                StatusCode::NOT_FOUND => format!("it takes no workers, or not at its root: check {given_by}"),
                status if status.is_redirection() => format!("it sends us elsewhere: check {given_by}"),
                _ => format!("it refuses the id {id}"),
            };
            refused(format!("{relay} answers {}: {message}: {advice}", status.as_u16()), again)
        }
        CallError::Refused { status, message, .. } => {
            Failure::Passing(format!("{relay} answers {}: {message}", status.as_u16()))
        }
        CallError::TooSoon { wait: Some(wait), .. } => {
            Failure::Later(format!("{relay} wants us to wait"), wait.min(RETRY_AFTER))
        }
        CallError::TooSoon { message, .. } => {
            Failure::Passing(format!("{relay} wants us to wait: {message}"))
        }
        CallError::Unreachable(message) => Failure::Passing(message),
    };
    NotRegistered::Failed(failure)
}
