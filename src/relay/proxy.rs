//! One request through a tunnel: policy, a lane, the exchange, and what the viewer gets of it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::Shared;
use super::carry::Terms;
use super::errors::Cause;
use super::exchange::{Account, Delivery, Finish, LaneBody, Record, Rest, Upload, is_resendable};
use super::extended::{self, Wanted};
use super::fetch::Fetch;
use super::forward;
use super::front::Content;
use super::multiplex;
use super::onward::{Onward, split_target};
use super::policy;
use super::rewrite;
use super::secure;
use super::upgrade::{self, Viewer};
use super::viewer::{Connection, Pinned};
use crate::auth::password::Verdict;
use crate::link::{Ask, Lane};
use crate::proto::api::Proto;
use crate::proto::http1::{Framing, RequestBody, ResponseHead, list_contains};
use crate::proto::limits::reuse;
use crate::proto::proxy_header;
use crate::tunnel::{Spec, Tunnel};

/// Forwards `request` to the target of `tunnel`. `by_path`: it came by path, and the prefix in it is this long. `record` is
/// taken along with the response.
pub async fn forward(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    tunnel: Arc<Tunnel>,
    by_path: Option<usize>,
    host: &HeaderValue,
    mut request: Request<Incoming>,
    record: &mut Option<Box<Record>>,
) -> Result<Response<Content>, Cause> {
    let limits = &shared.config.limits;
    if let Some(record) = record {
        record.route(&tunnel);
    }
    let spec = tunnel.spec();
    let viewer = forward::viewer(connection.remote.ip(), request.headers(), &shared.config.trusted_proxies);
    // Taken before the look at the tunnel's state: a suspension after it ends this request.
    let running = tunnel.running();
    admit(&tunnel, &spec, &request, viewer, &shared.via).await?;
    if spec.policy.as_ref().is_some_and(|policy| policy.interstitial) {
        ask(shared, connection, &tunnel, by_path, host, &request)?;
    }
    let viewing = tunnel.quota.view().map_err(Cause::ViewersOfKey)?;
    tunnel.request();

    let version = request.version();
    let extended = extended::is_asked(&request);
    let wanted = Wanted::upgrade(request.headers()).filter(|_| version == Version::HTTP_11);
    let on_upgrade = (extended || wanted.is_some()).then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    if let Some(record) = record {
        record.pass_on(&mut parts.headers);
    }
    let wanted = if extended { Some(Wanted::translate(&mut parts)?) } else { wanted };
    let framing = body_framing(&parts.method, &parts.headers, &body);
    let policy_limit = spec.policy.as_ref().and_then(|policy| policy.max_body);
    let body_limit =
        policy_limit.map_or(limits.body_bytes, |limit| Some(limit.min(limits.body_bytes.unwrap_or(limit))));
    if let (RequestBody::Length(length), Some(limit)) = (framing, body_limit)
        && length > limit
    {
        return Err(Cause::BodyTooLarge(limit));
    }
    let has_body = !body.is_end_stream();
    let held = has_body && list_contains(&parts.headers, &header::EXPECT, "100-continue");
    let mut bound = forward::asks_for_connection(&parts.headers);

    let (body, framing) = match spec.policy.as_ref().filter(|policy| !policy.signatures.is_empty()) {
        None => (UploadBody::Coming(body), framing),
        Some(policy) => {
            // Boxed: what is rare must not make every request's future larger.
            let whole = Box::pin(policy::verified(policy, &parts.headers, body, framing));
            let whole = tokio::select! {
                biased;
                whole = whole => whole?,
                () = running.cancelled() => return Err(shared.ending.why_stopped()),
            };
            let framing = whole.framing(framing);
            (UploadBody::Whole(Box::new(whole)), framing)
        }
    };

    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let (prefix, target) = split_target(target, by_path);
    let protocols = wanted.as_ref().map(|wanted| wanted.protocols.clone());
    let original_path = tunnel.is_worker().then(|| match by_path {
        Some(_) => Cow::Borrowed(parts.uri.path()),
        None => Cow::Owned(format!("{}{}", tunnel.name, parts.uri.path())),
    });
    let onward = Onward {
        method: &parts.method,
        target: &target,
        prefix,
        host,
        told: spec.host_header.as_ref(),
        peer: connection.remote_text(),
        trusted: forward::is_trusted(connection.remote.ip(), &shared.config.trusted_proxies),
        secure: connection.is_secure(),
        via: &shared.via,
        guarded: policy::is_guarded(&spec),
        body: framing,
        upgrade: protocols.as_ref(),
        policy: spec.policy.as_deref(),
        original_path: original_path.as_deref(),
    };
    if spec.http2 {
        let asked = multiplex::Asked {
            shared,
            connection,
            tunnel,
            spec: &spec,
            viewing,
            running,
            version,
            upgrade: wanted.zip(on_upgrade),
            onward,
            headers: &parts.headers,
            body,
            body_limit,
            viewer,
            record,
        };
        // Boxed, as what is rare must not make every request's future larger.
        return Box::pin(multiplex::forward(asked)).await;
    }
    let head = onward.head(&parts.headers);

    let resendable = is_resendable(&parts.method, has_body);
    let again = if resendable { Some(head.clone()) } else { None };
    let mut upload = match body {
        UploadBody::Coming(body) => Upload::new(head, body, framing, held, body_limit),
        UploadBody::Whole(body) => Upload::whole(head, *body),
    };
    upload.tell(record.as_ref().map(|record| record.received()));
    if let Some(policy) = &spec.policy {
        upload.keep_to(policy);
    }
    let remote = viewer_address(connection, viewer);
    let ask = Ask { resendable, remote, proto: Proto::Http, unused: spec.proxy_protocol.is_some() };
    let greeting = spec.proxy_protocol.map(|version| proxy_header::write(version, connection.ends()));
    let fetch = Fetch { shared, tunnel: &tunnel, ask, greeting, shares: spec.replica.is_some() };
    let pinned = connection.unpin(tunnel.id);
    // Once bound, a lane stays so, though later requests say nothing of the login.
    bound |= pinned.as_ref().is_some_and(|pinned| pinned.login);
    // Another lane is as good where there is no login, and a risk is not taken.
    let pinned =
        pinned.filter(|pinned| bound || resendable || pinned.since.elapsed() < reuse::UNSAFE_MAX_IDLE);
    let fetched = tokio::select! {
        biased;
        fetched = fetch.run(pinned.map(|pinned| pinned.lane), upload, again) => fetched,
        () = running.cancelled() => Err(shared.ending.why_stopped()),
    };
    let (mut exchange, mut answer) = fetched.map_err(|cause| policy::told(&spec, cause))?;

    bound |= forward::offers_connection(&answer.headers);
    let framing = answer.framing(&parts.method).map_err(|_| Cause::BadResponse)?;
    let finish = may_serve_again(&answer, framing, &spec).map(|keep| {
        finish(shared, connection, &tunnel, (bound, spec.proxy_protocol.is_some()), version, keep)
    });
    let switched = answer.status == StatusCode::SWITCHING_PROTOCOLS;
    let protocols = answer.headers.get(header::UPGRADE).cloned();
    rewrite::response(&mut answer.headers, &spec, host, prefix);

    if switched {
        let (Some(on_upgrade), Some(wanted), Some(protocol)) = (on_upgrade, wanted, protocols) else {
            return Err(Cause::BadResponse);
        };
        // The rest of a body would pass for the first words of the new protocol.
        if !upgrade::is_among(&wanted.protocols, &protocol) || !exchange.upload.is_done() {
            return Err(Cause::BadResponse);
        }
        let status = wanted.answer(&mut answer.headers, protocol)?;
        let mut account = Account::new(tunnel, viewing, status.as_u16(), record.take());
        account.hold(exchange.lane.load.take());
        let viewer = Viewer::new(on_upgrade, connection, version, &shared.open.upgraded);
        let mut response = Response::new(Content::Page(Default::default()));
        *response.status_mut() = status;
        *response.headers_mut() = answer.headers;
        let terms = Terms { idle: limits.idle_upgraded, running, ending: Arc::clone(&shared.ending) };
        let splicing = Box::pin(upgrade::splice(viewer, exchange.into_parts(), terms, account));
        shared.spawn(splicing);
        return Ok(response);
    }
    if wanted.is_some_and(|wanted| wanted.is_mistaken(answer.status)) {
        return Err(Cause::BadResponse);
    }
    if framing == Framing::Chunked {
        answer.headers.remove(header::CONTENT_LENGTH);
    }
    if !exchange.upload.is_done() {
        connection.leave_unread();
    }
    if version == Version::HTTP_10 && matches!(framing, Framing::Chunked | Framing::UntilClose) {
        connection.close_ends_body();
    }
    let rest = Rest { tasks: shared.tasks.clone(), busy: connection.hold() };
    let terms = Terms { idle: limits.idle_exchange, running, ending: Arc::clone(&shared.ending) };
    let account = Account::new(tunnel, viewing, answer.status.as_u16(), record.take());
    let body = LaneBody::new(exchange, framing, finish, rest);
    let body = Delivery::new(body, terms, account, spec.policy.as_ref());
    let mut response = Response::new(Content::Target(Box::new(body)));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    Ok(response)
}

/// The viewer as its client is told. Which port one has behind a proxy is told by nobody.
pub fn viewer_address(connection: &Connection, viewer: IpAddr) -> SocketAddr {
    let remote = connection.remote_canonical();
    if remote.ip() == viewer { remote } else { SocketAddr::new(viewer, 0) }
}

/// Whether this tunnel takes this request now.
async fn admit(
    tunnel: &Tunnel,
    spec: &Spec,
    request: &Request<Incoming>,
    viewer: IpAddr,
    via: &HeaderValue,
) -> Result<(), Cause> {
    if forward::is_loop(request.headers(), via) {
        return Err(Cause::Loop);
    }
    if spec.proto.is_raw() {
        return Err(Cause::NotHttp(spec.proto));
    }
    if tunnel.is_suspended() {
        return Err(Cause::Suspended);
    }
    if let Some(policy) = &spec.policy {
        Box::pin(policy::admit(policy, &tunnel.quota, viewer, request.headers())).await?;
    }
    let Some(auth) = &spec.auth else { return Ok(()) };
    match auth.verify(request.headers().get(header::AUTHORIZATION), &tunnel.quota.hashing).await {
        Verdict::Accepted => Ok(()),
        Verdict::Refused => Err(Cause::AuthRequired),
        Verdict::Unchecked => Err(Cause::AuthBusy),
    }
}

/// A browser may be asked first whether it wants to go on.
fn ask(
    shared: &Shared,
    connection: &Connection,
    tunnel: &Tunnel,
    by_path: Option<usize>,
    host: &HeaderValue,
    request: &Request<Incoming>,
) -> Result<(), Cause> {
    let headers = request.headers();
    let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let asked = policy::Asked {
        method: request.method(),
        target,
        prefix: split_target(target, by_path).0,
        host,
        headers,
        secure: secure::is_by_https(shared, connection, headers),
    };
    policy::Interstitial::of(tunnel, &asked).map_or(Ok(()), |page| Err(Cause::Interstitial(page)))
}

/// How the body is framed towards the target: as the viewer framed it, or chunked where HTTP/2 tells no length.
fn body_framing(method: &Method, headers: &HeaderMap, body: &Incoming) -> RequestBody {
    if body.is_end_stream() {
        let expected = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
        return if expected || headers.contains_key(header::CONTENT_LENGTH) {
            RequestBody::Length(0)
        } else {
            RequestBody::None
        };
    }
    body.size_hint().exact().map_or(RequestBody::Chunked, RequestBody::Length)
}

/// For how long the lane may wait for a next request; `None` closes it.
fn may_serve_again(answer: &ResponseHead, framing: Framing, spec: &Spec) -> Option<Duration> {
    if !spec.reuse || framing == Framing::UntilClose || !answer.keeps_alive() {
        return None;
    }
    let keep =
        answer.keep_alive_timeout().map_or(reuse::MAX_IDLE, |timeout| timeout.saturating_sub(reuse::MARGIN));
    Some(keep.min(reuse::MAX_IDLE)).filter(|keep| !keep.is_zero())
}

/// Where the lane goes after the response. One that carries a connection-bound login, or that has told the target who the
/// viewer is, stays with its viewer.
fn finish(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    tunnel: &Tunnel,
    (login, greeted): (bool, bool),
    version: Version,
    keep: Duration,
) -> Finish {
    let (connection, tunnel) = (Arc::clone(connection), tunnel.id);
    match (login || greeted, version) {
        (false, _) => Box::new(move |lane: Lane| lane.give_back(keep)),
        (true, Version::HTTP_11) => {
            let _counted = shared.open.pinned.hold();
            Box::new(move |lane: Lane| {
                // One that waits keeps nobody busy.
                let (lane, since) = (lane.counted(None), Instant::now());
                connection.pin(Pinned { tunnel, since, until: since + keep, lane, login, _counted })
            })
        }
        (true, _) => Box::new(drop),
    }
}

/// A request's body: as the viewer sends it, or all of it where it had to be checked.
pub enum UploadBody {
    /// As it comes.
    Coming(Incoming),
    /// Held until it was checked. Boxed: it is rare, and large.
    Whole(Box<policy::Body>),
}
