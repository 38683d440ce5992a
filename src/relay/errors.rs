//! What can go wrong for a viewer: one closed list of causes, each with its status, its text and its label.

mod page;

pub(super) use page::escaped;
pub use page::{request_id, wants_html};

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::policy::Interstitial;
use crate::link::{OpenError, Rejection};
use crate::proto::api::Proto;
use crate::tunnel::UsedUp;

/// Every reason why the relay itself answers a viewer. The same name stands in the page, the log and the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The request breaks HTTP.
    BadRequest(&'static str),
    /// Not exactly one usable host.
    BadHost,
    /// The request target is over its limit.
    TargetTooLong,
    /// The headers are over their limit.
    HeadTooLarge,
    /// The body is over the limit, in bytes.
    BodyTooLarge(u64),
    /// The request came without TLS; where it should have gone, if that is known.
    HttpsOnly(Option<HeaderValue>),
    /// The handshake was for another tenant.
    Misdirected,
    /// CONNECT.
    MethodNotAllowed,
    /// No tunnel of that name.
    NoSuchTunnel,
    /// No worker of Taskcluster has that id now.
    NoWorker,
    /// The viewer's address is not let in.
    Forbidden,
    /// The viewer's address, or the tunnel, had as many requests as it may; there is room after this time.
    RateLimited(Duration),
    /// The request is not signed as its owner wants.
    SignatureRefused,
    /// As many bytes of bodies are held for their signatures as may.
    SignatureBusy,
    /// The body took too long.
    SlowBody,
    /// A browser is asked whether it wants to go on, or has said so.
    Interstitial(Box<Interstitial>),
    /// Another cause, of which the owner tells browsers by a page of its own.
    Told(Box<Self>, Bytes),
    /// The tunnel is for viewers that speak something else.
    NotHttp(Proto),
    /// No port of the relay leads to a tunnel that is there.
    NoTunnelAtPort,
    /// User and password are asked for.
    AuthRequired,
    /// Too many viewers have their passwords checked.
    AuthBusy,
    /// The owner has suspended the tunnel.
    Suspended,
    /// The tunnel is known and no client is connected.
    ClientOffline,
    /// The client left while the viewer waited.
    ClientGone,
    /// As many viewers wait as may.
    TooManyWaiting,
    /// The owner has as many viewers as it may.
    ViewersOfKey(UsedUp),
    /// As many viewers wait at the owner's tunnels as may.
    WaitingOfKey(UsedUp),
    /// The client did not open a data socket in time.
    NotClaimed,
    /// There are as many connections as there may be.
    Full,
    /// The relay is about to stop.
    Draining,
    /// The client says that it cannot reach the target.
    Rejected(Rejection),
    /// The connection to the target ended before an answer.
    TargetClosed,
    /// The target's answer is not HTTP, or breaks it.
    BadResponse,
    /// The target does not speak HTTP/2, for which the tunnel was opened.
    NotHttp2,
    /// The target has reset the request's stream, with this code (RFC 9113, section 7).
    TargetReset(u32),
    /// The target speaks HTTP/2 and takes no WebSockets there.
    NoWebSocket,
    /// The target said nothing for too long.
    TargetSilent,
    /// The tunnel was deleted, suspended or expired meanwhile.
    TunnelEnded,
    /// The request has come through this relay before.
    Loop,
    /// The head of the request took too long.
    SlowHead,
    /// The request body ended before its end.
    UploadCut,
    /// The viewer left; there is nobody to be told.
    ViewerLeft,
    /// An upgraded connection broke off, on either side.
    BrokeOff,
    /// The relay itself failed.
    Internal,
}

/// The labels of all causes.
pub const LABELS: [&str; 42] = [
    "auth_busy",
    "auth_required",
    "bad_host",
    "bad_request",
    "bad_response",
    "body_too_large",
    "broke_off",
    "client_gone",
    "client_offline",
    "draining",
    "forbidden",
    "head_too_large",
    "https_only",
    "internal",
    "interstitial",
    "loop",
    "method_not_allowed",
    "misdirected",
    "no_such_tunnel",
    "no_websocket",
    "no_worker",
    "not_claimed",
    "not_http",
    "not_http2",
    "rate_limited",
    "rejected",
    "relay_full",
    "signature_busy",
    "signature_refused",
    "slow_body",
    "slow_head",
    "suspended",
    "target_closed",
    "target_reset",
    "target_silent",
    "target_too_long",
    "too_many_waiting",
    "tunnel_ended",
    "upload_cut",
    "viewer_left",
    "viewers_per_key",
    "waiting_per_key",
];

/// Status, label, and what the viewer reads.
struct Text {
    status: u16,
    label: &'static str,
    title: &'static str,
    detail: &'static str,
}

impl Cause {
    fn text(&self) -> Text {
        let (status, label, title, detail) = match self {
            Self::BadRequest(detail) => (400, "bad_request", "Bad request", *detail),
            Self::BadHost => {
                (400, "bad_host", "Bad request", "The request must name exactly one valid host.")
            }
            Self::TargetTooLong => {
                (414, "target_too_long", "URI too long", "The request target is over this relay's limit.")
            }
            Self::HeadTooLarge => (
                431,
                "head_too_large",
                "Headers too large",
                "The request headers are over this relay's limit.",
            ),
            Self::BodyTooLarge(_) => {
                (413, "body_too_large", "Body too large", "The request body is over the limit here.")
            }
            Self::HttpsOnly(Some(_)) => {
                (308, "https_only", "Use https", "This address is to be reached by https.")
            }
            Self::HttpsOnly(None) => {
                (400, "https_only", "Use https", "This port speaks https: begin the address with https://.")
            }
            Self::Misdirected => (
                421,
                "misdirected",
                "Misdirected request",
                "This connection was opened for another host. Open one of its own for this host.",
            ),
            Self::MethodNotAllowed => {
                (405, "method_not_allowed", "Method not allowed", "This relay is no CONNECT proxy.")
            }
            Self::NoSuchTunnel => (404, "no_such_tunnel", "Not found", "There is no tunnel at this address."),
            Self::NoWorker => (404, "no_worker", "Not found", "No client is connected with that id"),
            Self::Forbidden => (403, "forbidden", "Forbidden", "This tunnel is not open to you."),
            Self::RateLimited(_) => (
                429,
                "rate_limited",
                "Too many requests",
                "There were too many requests for this tunnel. Try again shortly.",
            ),
            Self::SignatureRefused => (
                401,
                "signature_refused",
                "Not signed",
                "The request must be signed by its sender; the signature is missing, wrong or too old.",
            ),
            Self::SignatureBusy => {
                (503, "signature_busy", "Busy", "Too many signatures are being checked. Try again shortly.")
            }
            Self::SlowBody => {
                (408, "slow_body", "Request timeout", "The request body took too long to come.")
            }
            Self::Interstitial(page) => {
                (page.status(), "interstitial", "A tunnel", "A browser is asked first.")
            }
            Self::Told(cause, _) => return cause.text(),
            Self::NotHttp(proto) => (
                421,
                "not_http",
                "Not HTTP",
                match proto {
                    Proto::Tls => {
                        "This tunnel is reached by TLS, which goes on to the service behind it. Use https."
                    }
                    _ => {
                        "This tunnel is reached at a TCP port of its own, not by HTTP. Its owner knows the port."
                    }
                },
            ),
            Self::NoTunnelAtPort => (404, "no_such_tunnel", "Not found", "There is no tunnel at this port."),
            Self::AuthRequired => {
                (401, "auth_required", "Sign in", "This tunnel asks for a user and a password.")
            }
            Self::AuthBusy => {
                (503, "auth_busy", "Busy", "Too many sign-ins are being checked. Try again shortly.")
            }
            Self::Suspended => (503, "suspended", "Suspended", "This tunnel is suspended."),
            Self::ClientOffline => (
                503,
                "client_offline",
                "Not connected",
                "The tunnel exists, but its client is not connected. Try again shortly.",
            ),
            Self::ClientGone => (
                503,
                "client_gone",
                "Not connected",
                "The tunnel's client went away while this request waited. Try again shortly.",
            ),
            Self::TooManyWaiting => (
                503,
                "too_many_waiting",
                "Busy",
                "Too many requests are waiting for this tunnel. Try again shortly.",
            ),
            Self::ViewersOfKey(_) => (
                503,
                "viewers_per_key",
                "Busy",
                "The owner of this tunnel has as many viewers at the same time as it may.",
            ),
            Self::WaitingOfKey(_) => (
                503,
                "waiting_per_key",
                "Busy",
                "As many requests are waiting for clients of this tunnel's owner as may.",
            ),
            Self::NotClaimed => (
                504,
                "not_claimed",
                "No answer",
                "The tunnel's client was notified and did not take up the request in time.",
            ),
            Self::Full => (
                503,
                "relay_full",
                "Busy",
                "The relay has as many connections as it can take. Try again shortly.",
            ),
            Self::Draining => (503, "draining", "Restarting", "The relay restarts. Try again shortly."),
            Self::Rejected(_) => {
                (502, "rejected", "Bad gateway", "The tunnel's client cannot reach the service behind it.")
            }
            Self::TargetClosed => (
                502,
                "target_closed",
                "Bad gateway",
                "The service behind the tunnel closed the connection without an answer.",
            ),
            Self::BadResponse => (
                502,
                "bad_response",
                "Bad gateway",
                "The service behind the tunnel did not answer in valid HTTP.",
            ),
            Self::NotHttp2 => (
                502,
                "not_http2",
                "Bad gateway",
                "The service behind the tunnel does not speak HTTP/2. Its tunnel was opened with --target-proto h2.",
            ),
            Self::TargetReset(_) => (
                502,
                "target_reset",
                "Bad gateway",
                "The service behind the tunnel broke the request off without an answer.",
            ),
            Self::NoWebSocket => (
                501,
                "no_websocket",
                "No WebSocket",
                "The service behind the tunnel speaks HTTP/2 and takes no WebSockets there (RFC 8441).",
            ),
            Self::TargetSilent => {
                (504, "target_silent", "No answer", "The service behind the tunnel did not answer in time.")
            }
            Self::TunnelEnded => {
                (503, "tunnel_ended", "Closed", "The tunnel was closed while this request was under way.")
            }
            Self::Loop => (508, "loop", "Loop detected", "The tunnel's target leads back to this relay."),
            Self::SlowHead => (408, "slow_head", "Request timeout", "The request took too long to come."),
            Self::UploadCut => (400, "upload_cut", "Bad request", "The request body was cut short."),
            // Never sent; the number is the one that nginx writes.
            Self::ViewerLeft => (499, "viewer_left", "Left", "The viewer left."),
            Self::BrokeOff => (502, "broke_off", "Bad gateway", "The connection broke off."),
            Self::Internal => (500, "internal", "Internal error", "The relay failed."),
        };
        Text { status, label, title, detail }
    }

    /// Whether there are too many viewers of one tenant, so that another one may be waiting at once.
    pub fn is_of_a_quota(&self) -> bool {
        match self {
            Self::Told(cause, _) => cause.is_of_a_quota(),
            _ => matches!(self, Self::ViewersOfKey(_) | Self::WaitingOfKey(_) | Self::TooManyWaiting),
        }
    }

    /// The label in logs, metrics and machine-readable answers.
    pub fn label(&self) -> &'static str {
        self.text().label
    }

    /// The status that the viewer sees.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.text().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What happened, for the viewer.
    pub fn detail(&self) -> String {
        let text = self.text();
        match self {
            Self::Told(cause, _) => cause.detail(),
            Self::BodyTooLarge(limit) => format!("{} It is {limit} bytes.", text.detail),
            Self::ViewersOfKey(UsedUp(most)) | Self::WaitingOfKey(UsedUp(most)) => format!(
                "{} The limit ({}) is {most}; the operator of this relay can raise it. Try again shortly.",
                text.detail,
                text.label.replace('_', "-")
            ),
            Self::Rejected(Rejection { message: Some(message), .. }) => message.clone(),
            _ => text.detail.to_owned(),
        }
    }
}

impl From<OpenError> for Cause {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NotClaimed => Self::NotClaimed,
            OpenError::ClientGone => Self::ClientGone,
            OpenError::TooManyWaiting => Self::TooManyWaiting,
            OpenError::Rejected(rejection) => Self::Rejected(rejection),
            OpenError::Draining => Self::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_labels_has_those_of_all_causes_and_no_others() {
        let source = include_str!("errors.rs");
        let (_, texts) = source.split_once("fn text(&self)").unwrap();
        let (texts, _) = texts.split_once("fn is_of_a_quota").unwrap();
        let words: Vec<_> = texts.split([' ', ',', '(', '\n']).filter(|word| !word.is_empty()).collect();
        let is_status = |word: &str| word.len() == 3 && word.parse::<u16>().is_ok();
        let mut named: Vec<_> = words
            .windows(2)
            .filter(|pair| (is_status(pair[0]) || pair[0] == ")") && pair[1].starts_with('"'))
            .map(|pair| pair[1].trim_matches('"'))
            .collect();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named, LABELS);
    }
}
