//! For each case a relay that is broken in just that point, by a proxy in front of it.

use super::proxy::{Frame, On, Spoil, State};
use On::{Control, Data, Rest, Viewer};
use Spoil::{Deaf, Down, Ends, EndsUp, Hears, Keeps, Resets, Says, Up};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// The end of a chunked body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// A masked close frame with 1011.
const FAILED: &[u8] = &[CLOSE, 0x82, 0, 0, 0, 0, 0x03, 0xf3];

/// A name means nothing.
const NAMELESS: Spoil = Hears(Rest, "\"name\":", "\"nane\":");

const ALICE: &str = "Bearer nbk_alice_0123456789abcdef";
const BOB: &str = "Bearer nbk_bob_0123456789abcdef";
const NO_ALG: &str = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJraXQiLCJuYmYiOjAsImV4cCI6OTk5OTk5OTk5OX0.";

/// The case that must catch it, and what is broken.
pub const MUTANTS: &[(&str, Spoil)] = &[
    ("rest-health", Says(Rest, "\"status\":\"ok\"", "\"status\":1234")),
    ("rest-version", Says(Rest, "\"api_version\"", "\"api_versiox\"")),
    ("rest-create", Says(Rest, "\"mode\":\"relay\"", "\"mode\":\"local\"")),
    ("rest-made-up-name", Says(Rest, "\"0001-01-01T00", "\"0002-01-01T00")),
    ("rest-create-again", Says(Rest, "HTTP/1.1 200", "HTTP/1.1 201")),
    ("rest-list", Hears(Rest, "GET /v1/tunnels HTTP", "GET /v1/version HTTP")),
    ("rest-get", Hears(Rest, "GET /v1/tunnels/", "GET /v1/tunnelz/")),
    ("rest-delete", Says(Rest, "HTTP/1.1 204", "HTTP/1.1 200")),
    ("rest-delete-unless-connected", Hears(Rest, "unless_connected", "unless_connectex")),
    ("rest-suspend", Says(Rest, "\"suspended\":\"true\"", "\"suspended\":\"yes!\"")),
    ("rest-extend", Hears(Rest, "\"ttl\":\"5h\"", "\"ttl\":\"1m\"")),
    ("rest-resume", Hears(Rest, "\"resume\"", "\"resumx\"")),
    ("rest-policy", Says(Rest, "***", "abc")),
    ("rest-policy-kept", Says(Rest, "198.51.100.0/24", "192.000.2.0/024")),
    ("rest-requests", Says(Rest, "\"inspection_enabled\":false", "\"inspection_enabled\":true ")),
    ("rest-double-slashes", Hears(Rest, "POST //v1/", "POST //v2/")),
    ("rest-request-id", Says(Rest, "x-request-id", "x-request-no")),
    ("rest-unknown-fields", Hears(Rest, "\"zebra\"", "\"reuse\"")),
    ("refusal-shape", Says(Rest, "\"request_id\"", "\"request_no\"")),
    ("refusal-key", Says(Rest, "HTTP/1.1 401", "HTTP/1.1 403")),
    ("refusal-key-elsewhere", Hears(Rest, "X-Api-Key: ", "Authorization: Bearer ")),
    ("refusal-token", Hears(Rest, NO_ALG, ALICE)),
    ("refusal-body", Says(Rest, "invalid_body", "invalid_json")),
    ("refusal-large-body", Says(Rest, "HTTP/1.1 413", "HTTP/1.1 400")),
    ("refusal-names", Says(Rest, "invalid_name", "invalid_slug")),
    ("refusal-fields", Says(Rest, "invalid_ttl", "invalid_end")),
    ("refusal-policy", Says(Rest, "invalid_policy", "invalid_policx")),
    ("refusal-domain", Says(Rest, "invalid_domain", "invalid_domaix")),
    ("refusal-unknown-tunnel", Says(Rest, "tunnel_not_found", "tunnel_not_there")),
    ("refusal-unknown-path", Says(Rest, "HTTP/1.1 405", "HTTP/1.1 404")),
    ("refusal-foreign-tunnel", Hears(Rest, BOB, ALICE)),
    ("refusal-inspection", Says(Rest, "HTTP/1.1 501", "HTTP/1.1 500")),
    ("name-folded", Hears(Rest, "\"KIT-", "\"KIX-")),
    ("name-after-drop", NAMELESS),
    ("name-after-deletion", NAMELESS),
    ("name-made-up", NAMELESS),
    ("name-of-another", Says(Rest, "name_taken", "name_takex")),
    ("name-at-once", NAMELESS),
    ("control-handshake", Says(Control, "\r\nupgrade: ", "\r\nsec-websocket-extensions: x\r\nupgrade: ")),
    ("control-refusals", Says(Control, "not_websocket", "not_websockex")),
    ("control-foreign", Says(Control, "HTTP/1.1 403", "HTTP/1.1 404")),
    ("control-first-ping", Down(Control, no_pings)),
    ("control-ping-answered", Down(Control, no_pongs)),
    ("control-connection", Says(Control, "\"id\"", "\"no\"")),
    (
        "control-client-messages",
        Up(Control, |_, frame| match frame.first {
            TEXT => vec![Frame::new(0x83, b"")],
            _ => vec![frame],
        }),
    ),
    (
        "control-large-message",
        Up(Control, |_, mut frame| {
            frame.payload.truncate(64 * 1024);
            vec![frame]
        }),
    ),
    (
        "control-large-fragments",
        Up(Control, |_, frame| if frame.first & 0x0f == 0 { vec![] } else { vec![frame] }),
    ),
    (
        "control-bad-text",
        Up(Control, |_, frame| if frame.first == TEXT { vec![Frame::new(TEXT, b"x")] } else { vec![frame] }),
    ),
    ("control-broken-frame", Down(Control, |_, frame| code(frame, 1002, 1000))),
    ("control-close-answered", Down(Control, no_close)),
    (
        "control-next-ping",
        Down(Control, |state, frame| {
            state.count += usize::from(frame.first == PING);
            if frame.first == PING && state.count > 1 { vec![] } else { vec![frame] }
        }),
    ),
    ("control-silent-client", Down(Control, |_, frame| code(frame, 1001, 1000))),
    ("claim-in-time", Says(Viewer, "kit!", "KIT!")),
    // As if the time were over much earlier than the relay has said.
    ("claim-near-the-end", Says(Data, "HTTP/1.1 101", "HTTP/1.1 404")),
    ("claim-late", Says(Viewer, "HTTP/1.1 504", "HTTP/1.1 503")),
    ("claim-twice", Says(Data, "HTTP/1.1 404", "HTTP/1.1 403")),
    ("claim-unknown", Says(Data, "missing_parameter", "missing_paramexer")),
    ("claim-failed-handshake", Says(Data, "not_websocket", "not_websockex")),
    ("claim-wrong-key", Says(Data, "HTTP/1.1 403", "HTTP/1.1 404")),
    ("claim-of-viewer-that-left", Says(Data, "HTTP/1.1 404", "HTTP/1.1 410")),
    ("claim-many-at-once", Down(Control, |state, frame| not_announced(state, frame, 40))),
    ("frames-fragments", Up(Data, |_, frame| if frame.first & 0x0f == 0 { vec![] } else { vec![frame] })),
    ("frames-text", Up(Data, |_, frame| if frame.first == TEXT { vec![] } else { vec![frame] })),
    (
        "frames-empty",
        Up(Data, |_, frame| match (frame.first, frame.payload.len()) {
            (BINARY, 0) => vec![closing(1000)],
            _ => vec![frame],
        }),
    ),
    (
        "frames-large",
        Up(Data, |_, frame| if frame.payload.len() > 512 * 1024 { vec![closing(1009)] } else { vec![frame] }),
    ),
    // All becomes one message without an end.
    (
        "frames-of-the-relay",
        Down(Data, |state, mut frame| {
            if frame.first == BINARY {
                frame.first = if state.count == 0 { 0x02 } else { 0x00 };
                state.count += 1;
            }
            vec![frame]
        }),
    ),
    // A frame waits in the proxy until it is whole.
    ("frames-not-held-back", Up(Data, |_, frame| vec![frame])),
    (
        "frames-upload-not-held-back",
        Down(Data, |state, frame| {
            if frame.has("first") {
                state.held.push(frame);
                return vec![];
            }
            state.held.drain(..).chain([frame]).collect()
        }),
    ),
    ("frames-ping-answered", Down(Data, no_pongs)),
    ("frames-broken", Down(Data, |_, frame| code(frame, 1002, 1000))),
    ("bytes-request", Hears(Viewer, "/a%2Fb//c", "/a/b//c")),
    ("bytes-chunked", Hears(Viewer, "-kit!", "-kut!")),
    ("bytes-down", Up(Data, flip_the_twentieth)),
    ("bytes-up", Down(Data, flip_the_twentieth)),
    ("bytes-both-ways", Down(Data, flip_the_twentieth)),
    (
        "bytes-slow-viewer",
        Up(Data, |state, frame| {
            state.count += 1;
            if state.count == 20 { vec![] } else { vec![frame] }
        }),
    ),
    ("end-close-1000", Up(Data, |_, frame| code(frame, 1000, 1011))),
    ("end-close-1001", Up(Data, |_, frame| code(frame, 1001, 1011))),
    ("end-bare", EndsUp(Data, FAILED)),
    ("end-inside-frame", Ends(Viewer, LAST_CHUNK)),
    ("end-inside-header", Ends(Viewer, LAST_CHUNK)),
    ("end-between-fragments", Ends(Viewer, LAST_CHUNK)),
    ("end-close-1011", Ends(Viewer, LAST_CHUNK)),
    ("end-reset", Ends(Viewer, LAST_CHUNK)),
    ("end-short-body", Ends(Viewer, b"0123456")),
    ("end-before-answer", Says(Viewer, "HTTP/1.1 502", "HTTP/1.1 200")),
    ("end-of-viewer", Deaf(Viewer)),
    ("end-of-upgraded", Says(Viewer, "the last words", "the lost words")),
    ("end-broken-upgraded", Ends(Viewer, b"")),
    ("end-close-answered", Down(Data, no_close)),
    ("viewer-unknown-name", Says(Viewer, "HTTP/1.1 404", "HTTP/1.1 503")),
    ("viewer-problem", Says(Viewer, "application/problem+json", "application/json")),
    ("viewer-of-absent-client", Says(Viewer, "retry-after", "retry-never")),
    ("viewer-waits-for-client", Down(Control, |state, frame| not_announced(state, frame, 1))),
    ("viewer-of-lost-client", Down(Control, |state, frame| not_announced(state, frame, 2))),
    ("viewer-bad-answer", Says(Viewer, "HTTP/1.1 502", "HTTP/1.1 500")),
    ("viewer-suspended", Says(Viewer, "retry-after", "retry-never")),
    ("viewer-password", Says(Viewer, "www-authenticate", "www-unknown")),
    ("viewer-ambiguous-request", Hears(Viewer, "Content-Length: +3", "Content-Length: 3")),
    ("viewer-large-target", Says(Viewer, "HTTP/1.1 414", "HTTP/1.1 400")),
    ("viewer-large-head", Says(Viewer, "HTTP/1.1 431", "HTTP/1.1 400")),
    ("viewer-large-body", Says(Viewer, "HTTP/1.1 413", "HTTP/1.1 400")),
    ("viewer-connect", Says(Viewer, "HTTP/1.1 405", "HTTP/1.1 400")),
    ("viewer-address-denied", Says(Viewer, "HTTP/1.1 403", "HTTP/1.1 404")),
    ("viewer-rate", Says(Viewer, "retry-after", "retry-never")),
    ("viewer-keep-alive", Hears(Viewer, "/2 HTTP", "/3 HTTP")),
    ("viewer-early-answer", Says(Viewer, "HTTP/1.1 413", "HTTP/1.1 500")),
    ("header-host", Says(Data, "\r\nHost: ", "\r\nHosx: ")),
    ("header-host-wanted", Says(Data, "localhost:3000", "localhost:3001")),
    ("header-forwarded", Says(Data, "X-Forwarded-Proto", "X-Forwarded-Prato")),
    ("header-forwarded-claimed", Says(Data, "127.0.0.1\r\n", "192.0.2.66 ")),
    ("header-hop-by-hop", Says(Data, "x-kept: yes", "x-secret: 1")),
    ("header-answer", Says(Viewer, "x-kept", "x-secret")),
    ("header-target-raw", Says(Data, "/a//b///", "/a/b////")),
    ("header-prefix", Says(Data, "X-Forwarded-Prefix", "X-Forwarded-Prefax")),
    ("header-no-body", Says(Viewer, "\r\n\r\n", "\r\n\r\nbody")),
    ("header-policy", Says(Viewer, "x-frame-options", "x-frame-nothing")),
    ("upgrade-raw", Says(Viewer, "welcome", "wilkomm")),
    ("upgrade-not-asked", Says(Viewer, "HTTP/1.1 502", "HTTP/1.1 500")),
    ("reuse-next-request", Hears(Rest, "\"local_port\":80", "\"reuse\":  false")),
    ("reuse-client-that-closes", Down(Control, |state, frame| not_announced(state, frame, 3))),
    ("reuse-client-that-counts", Down(Control, |state, frame| not_announced(state, frame, 2))),
    ("reuse-off", Hears(Rest, "\"reuse\":false", "\"reuse\":true ")),
    ("reuse-byte-discards", Up(Data, |_, frame| if frame.payload == b"x" { vec![] } else { vec![frame] })),
    (
        "reuse-close-target",
        Up(Data, |_, mut frame| {
            let text =
                String::from_utf8_lossy(&frame.payload).replace("Connection: close", "X-Connection: x");
            frame.payload = text.into_bytes();
            vec![frame]
        }),
    ),
    ("reuse-dead-socket", Down(Control, |state, frame| not_announced(state, frame, 2))),
    ("reuse-only-once", Says(Viewer, "HTTP/1.1 502", "HTTP/1.1 200")),
    ("reuse-unsafe", Says(Viewer, "HTTP/1.1 502", "HTTP/1.1 200")),
    ("reuse-begun-answer", Says(Viewer, "HTTP/1.1 502", "HTTP/1.1 200")),
    ("reuse-ends-with-session", Keeps(Data)),
    ("reuse-waiting-ping", Down(Data, no_pings)),
    ("reuse-only-so-long", Down(Control, |state, frame| not_announced(state, frame, 2))),
    (
        "reuse-pong-behind-bytes",
        Up(Data, |state, frame| {
            state.count += 1;
            if state.count == 200 { vec![closing(1011)] } else { vec![frame] }
        }),
    ),
    ("takeover-serves-at-once", Down(Control, |state, frame| not_announced(state, frame, 1))),
    ("takeover-of-live", Down(Control, |_, frame| code(frame, 1000, 1001))),
    ("takeover-of-dead", Down(Control, |_, frame| code(frame, 1001, 1000))),
    ("takeover-running", Up(Data, cut_what_runs)),
    (
        "delete-closes",
        Down(Control, |_, mut frame| {
            if frame.first == CLOSE {
                frame.payload.truncate(2);
            }
            vec![frame]
        }),
    ),
    ("delete-cuts", Ends(Viewer, b"kit")),
    ("suspend-cuts", Ends(Viewer, b"kit")),
    ("expiry-closes", Down(Control, |_, frame| code(frame, 1000, 1001))),
    ("lost-running", Up(Data, cut_what_runs)),
    ("half-closed-viewer", Resets(Viewer)),
    ("tcp-bytes", Says(Data, "not HTTP", "not http")),
    ("tcp-socket-of-its-own", Down(Control, |state, frame| not_announced(state, frame, 2))),
    ("tcp-refusals", Says(Rest, "only_http", "only_httq")),
    ("tcp-port-kept", NAMELESS),
    ("tcp-nobody", Says(Viewer, "HTTP/1.1 421", "HTTP/1.1 404")),
    (
        "tls-hello",
        Down(Data, |_, mut frame| {
            if let Some(byte) = frame.payload.first_mut() {
                *byte ^= 1;
            }
            vec![frame]
        }),
    ),
    ("proxy-header", Says(Data, "PROXY TCP4", "PROXY UNKN")),
    ("replica-shares", Says(Rest, "\"clients\":2", "\"clients\":1")),
    ("replica-lost", Down(Control, |state, frame| not_announced(state, frame, 2))),
    ("replica-not-taken-up", Down(Control, |state, frame| not_announced(state, frame, 2))),
    ("replica-rejected", Down(Control, |state, frame| not_announced(state, frame, 2))),
    ("replica-taken-back", Down(Control, |_, frame| code(frame, 1000, 1001))),
    ("h2-preface", Says(Data, "PRI * HTTP/2.0", "PRI * HTTP/1.1")),
    ("h2-trailers", Says(Viewer, "x-kit: behind", "x-kut: behind")),
    ("h2-reset", Ends(Viewer, LAST_CHUNK)),
    ("two-welcome", Says(Control, "\"claim_ms\"", "\"claim_xs\"")),
    ("two-among-offers", Hears(Control, "chat, adit.1", "chat, adit.9")),
    ("two-connection", Says(Control, "\"proto\":\"http\"", "\"proto\":\"htxp\"")),
    (
        "two-unknown-messages",
        Up(Control, |_, frame| match frame.has("dance") {
            true => vec![Frame::new(TEXT, b"nonsense")],
            false => vec![frame],
        }),
    ),
    ("two-error", Down(Control, |_, frame| unless(frame, "\"type\":\"error\""))),
    ("two-cancel", Down(Control, |_, frame| unless(frame, "\"type\":\"cancel\""))),
    ("two-cancel-late", Down(Control, |_, frame| unless(frame, "\"type\":\"cancel\""))),
    ("two-cancel-not-for-half-closed", Resets(Viewer)),
    ("two-reject", Says(Viewer, "HTTP/1.1 502", "HTTP/1.1 504")),
    ("two-reject-after-claim", Up(Control, |_, frame| unless(frame, "\"reject\""))),
    ("two-reject-others", Says(Viewer, "HTTP/1.1 200", "HTTP/1.1 502")),
    ("two-auth", Says(Control, "\"accepted\":true", "\"accepted\":null")),
    ("two-auth-refused", Says(Control, "\"accepted\":false", "\"accepted\":true ")),
    // The first answer comes behind the second one.
    (
        "two-auth-order",
        Down(Control, |state, frame| {
            if !frame.has("\"type\":\"auth\"") {
                return vec![frame];
            }
            state.count += 1;
            match state.count {
                1 => {
                    state.held.push(frame);
                    vec![]
                }
                _ => std::iter::once(frame).chain(state.held.drain(..)).collect(),
            }
        }),
    ),
    ("two-expiring", Down(Control, |_, frame| unless(frame, "\"type\":\"expiring\""))),
    ("two-large-message", Down(Control, |_, frame| code(frame, 1009, 1002))),
    ("two-closed-deleted", Down(Control, |_, frame| unless(frame, "\"type\":\"closed\""))),
    ("two-closed-replaced", Says(Control, "\"replaced\"", "\"deletedx\"")),
    ("two-closed-stale", Says(Control, "\"stale\"", "\"fresh\"")),
    ("two-closed-protocol-error", Says(Control, "\"protocol_error\"", "\"protocol_errox\"")),
    ("two-successor", Hears(Control, "successor_of", "successor_on")),
    ("two-successor-of-nobody", Says(Control, "\"replaced\"", "\"succeede\"")),
    ("two-data-key", Says(Data, "HTTP/1.1 401", "HTTP/1.1 403")),
    ("two-half-close-of-viewer", Down(Data, |_, frame| no_empty(frame))),
    (
        "two-half-close-of-target",
        Up(Data, |_, frame| match (frame.first, frame.payload.len()) {
            (BINARY, 0) => vec![closing(1000)],
            _ => vec![frame],
        }),
    ),
    ("two-both-ended", Down(Data, no_close)),
    (
        "two-empty-last-fragment",
        Up(Data, |_, frame| match (frame.first, frame.payload.len()) {
            (0x80, 0) => vec![frame, Frame::new(BINARY, b"")],
            _ => vec![frame],
        }),
    ),
    ("two-end-bare", Ends(Viewer, LAST_CHUNK)),
    ("two-end-1000", Up(Data, |_, frame| code(frame, 1000, 1011))),
    ("two-end-1011", Ends(Viewer, LAST_CHUNK)),
    ("two-end-broken-upgraded", Ends(Viewer, b"")),
    ("two-end-then-1011", Up(Data, |_, frame| no_empty(frame))),
    ("two-data-ping", Down(Data, no_pings)),
    ("two-data-silent", Down(Control, |state, frame| not_announced(state, frame, 2))),
    ("two-data-silent-post", Says(Viewer, "HTTP/1.1 504", "HTTP/1.1 502")),
    ("standby-assigned", Says(Data, "\"type\":\"connection\"", "\"type\":\"connectiox\"")),
    ("standby-too-many", Says(Data, "too_many_standby", "too_many_standbx")),
    ("standby-id-in-use", Says(Data, "id_in_use", "id_in_usx")),
    ("standby-key", Says(Data, "foreign_tunnel", "foreign_tunnex")),
    ("standby-of-base-session", Says(Data, "no_session", "no_sessiox")),
    ("standby-rejected", Says(Viewer, "HTTP/1.1 502", "HTTP/1.1 504")),
    ("standby-dead", Down(Control, |state, frame| not_announced(state, frame, 1))),
    ("standby-ends-with-session", Keeps(Data)),
    ("standby-ping", Down(Data, no_pings)),
    ("token-rules", Says(Rest, "HTTP/1.1 401", "HTTP/1.1 403")),
    ("token-limited", Says(Rest, "token_limited", "token_limitex")),
    ("token-ends-session", Down(Control, |_, frame| code(frame, 1008, 1001))),
    ("two-token-expired", Says(Control, "token_expired", "token_expirex")),
    ("two-token-renewed", Up(Control, |_, frame| unless(frame, "\"type\":\"auth\""))),
];

fn no_pings(_: &mut State, frame: Frame) -> Vec<Frame> {
    if frame.first == PING { vec![] } else { vec![frame] }
}

fn no_pongs(_: &mut State, frame: Frame) -> Vec<Frame> {
    if frame.first == PONG { vec![] } else { vec![frame] }
}

fn no_close(_: &mut State, frame: Frame) -> Vec<Frame> {
    if frame.first == CLOSE { vec![] } else { vec![frame] }
}

fn no_empty(frame: Frame) -> Vec<Frame> {
    if frame.first == BINARY && frame.payload.is_empty() { vec![] } else { vec![frame] }
}

fn unless(frame: Frame, text: &str) -> Vec<Frame> {
    if frame.has(text) { vec![] } else { vec![frame] }
}

fn closing(code: u16) -> Frame {
    Frame::new(CLOSE, &code.to_be_bytes())
}

/// A close frame with `from` gets another code.
fn code(mut frame: Frame, from: u16, to: u16) -> Vec<Frame> {
    if frame.first == CLOSE && frame.payload.starts_with(&from.to_be_bytes()) {
        frame.payload[..2].copy_from_slice(&to.to_be_bytes());
    }
    vec![frame]
}

/// The `number`th viewer, and those behind it, are not announced.
fn not_announced(state: &mut State, frame: Frame, number: usize) -> Vec<Frame> {
    let announces = frame.has("\"type\":\"connection\"");
    state.count += usize::from(announces);
    if announces && state.count >= number { vec![] } else { vec![frame] }
}

fn flip_the_twentieth(state: &mut State, mut frame: Frame) -> Vec<Frame> {
    state.count += 1;
    if let (20, Some(byte)) = (state.count, frame.payload.first_mut()) {
        *byte ^= 1;
    }
    vec![frame]
}

/// The second part of an answer never comes.
fn cut_what_runs(_: &mut State, frame: Frame) -> Vec<Frame> {
    if frame.payload == b"kit" { vec![closing(1011)] } else { vec![frame] }
}
