//! One request through a tunnel: policy, a lane, the exchange, and what the viewer gets of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use super::Shared;
use super::carry::Terms;
use super::errors::Cause;
use super::exchange::{Account, Exchange, Finish, NoHead, Record, ResponseBody, Rest, Upload, is_resendable};
use super::extended::{self, Wanted};
use super::forward;
use super::front::Content;
use super::multiplex;
use super::onward::{Onward, split_target};
use super::policy;
use super::reach;
use super::rewrite::{self, Address};
use super::secure;
use super::upgrade::{self, Viewer};
use super::viewer::{Connection, Pinned};
use crate::auth::password::Verdict;
use crate::link::{Ask, Lane, Link};
use crate::proto::api::Proto;
use crate::proto::http1::{Framing, RequestBody, ResponseHead, list_contains};
use crate::proto::limits::reuse;
use crate::proto::proxy_header;
use crate::tunnel::{Spec, Tunnel};

/// Forwards `request` to the target of `tunnel`. `by_path`: it came by path, and the name in it is this long. `record` is
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
    tunnel.traffic.request();

    let version = request.version();
    let extended = extended::is_asked(&request);
    let wanted = Wanted::upgrade(request.headers()).filter(|_| version == Version::HTTP_11);
    let on_upgrade = (extended || wanted.is_some()).then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
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
    let address = Address {
        host: host.to_str().unwrap_or_default(),
        prefix,
        target_host: spec.host_header.as_ref().and_then(|host| host.to_str().ok()),
    };
    if let Some(policy) = &spec.policy {
        // Before the rest: what an owner sets speaks for its own tunnel alone, too.
        policy.response.apply(&mut answer.headers);
    }
    rewrite::response_headers(&mut answer.headers, address);

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
        shared.tasks.spawn(shared.ending.cut.clone().run_until_cancelled_owned(splicing));
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
    let rest =
        Rest { tasks: shared.tasks.clone(), busy: connection.hold(), ending: Arc::clone(&shared.ending) };
    let account = Account::new(tunnel, viewing, answer.status.as_u16(), record.take());
    let mut body = ResponseBody::new(exchange, framing, finish, limits.idle_exchange, running, rest, account);
    if let Some(policy) = &spec.policy {
        body.keep_to(policy);
    }
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

/// How a response head is had: from a waiting lane where one suits, with one retry where nothing is risked by it.
pub(super) struct Fetch<'a> {
    pub(super) shared: &'a Shared,
    pub(super) tunnel: &'a Tunnel,
    pub(super) ask: Ask,
    /// What a fresh lane begins with.
    greeting: Option<BytesMut>,
    /// Several clients may serve the tunnel.
    shares: bool,
}

pub(super) type Fetched = Result<(Exchange, ResponseHead), Cause>;

impl Fetch<'_> {
    async fn run(&self, pinned: Option<Lane>, upload: Upload, again: Option<BytesMut>) -> Fetched {
        if self.shares && pinned.is_none() {
            return Box::pin(self.among(upload, again)).await;
        }
        let waiting = pinned.or_else(|| self.tunnel.session()?.ready(self.ask));
        let Some(lane) = waiting else { return self.fresh(upload).await };
        let Some(again) = again else {
            if lane.waited.is_some() && !lane.reused {
                return Box::pin(self.claimed_head(self.exchange(lane, upload))).await;
            }
            return self.first_head(self.exchange(lane, upload)).await;
        };
        self.reused(lane, upload, again).await
    }

    /// The head on a lane that has carried a request before, or was opened in advance.
    pub(super) async fn reused(&self, lane: Lane, upload: Upload, again: BytesMut) -> Fetched {
        let mut exchange = self.exchange(lane, upload);
        match self.watched(&mut exchange, &again).await {
            Watched::Head(head) => {
                exchange.lane.answered(true);
                Ok((exchange, head))
            }
            Watched::Dead => {
                exchange.lane.answered(false);
                drop(exchange);
                // Boxed, like the race: what is rare must not make every request's future larger.
                Box::pin(self.fresh(Upload::of_head(again))).await
            }
            Watched::Overtaken(fetched) => {
                exchange.lane.answered(false);
                *fetched
            }
            Watched::Failed(cause) => Err(cause),
        }
    }

    /// The head on a lane that was opened in advance, for a request that must not be sent twice: a client that gives no
    /// sign of life within the time for a claim has not claimed it.
    async fn claimed_head(&self, mut exchange: Exchange) -> Fetched {
        match timeout(self.shared.config.limits.claim_wait, exchange.head(self.idle())).await {
            Ok(Ok(head)) => return Ok((exchange, head)),
            Ok(Err(error)) => return Err(cause_of(error)),
            Err(_) if exchange.has_input() || exchange.lane.stream.ponged() => {}
            Err(_) => return Err(Cause::NotClaimed),
        }
        self.first_head(exchange).await
    }

    pub(super) async fn fresh(&self, upload: Upload) -> Fetched {
        let lane = reach::lane(self.shared, self.tunnel, self.ask).await?;
        self.first_head(self.exchange(lane, upload)).await
    }

    pub(super) fn exchange(&self, mut lane: Lane, upload: Upload) -> Exchange {
        let upload = match &self.greeting {
            Some(greeting) if !std::mem::replace(&mut lane.greeted, true) => upload.behind(greeting),
            _ => upload,
        };
        Exchange::new(lane, upload, self.tunnel.quota.meter())
    }

    async fn first_head(&self, mut exchange: Exchange) -> Fetched {
        match self.attended(&mut exchange).await {
            Ok(head) => Ok((exchange, head)),
            Err(error) => Err(cause_of(error)),
        }
    }

    /// The head, for which the target may take its time, as long as the client is there: one of level two is asked for a
    /// sign of life now and then. Not where a body was sent: a target that does not read it yet holds up the question.
    pub(super) async fn attended(&self, exchange: &mut Exchange) -> Result<ResponseHead, NoHead> {
        let (idle, wait) = (self.idle(), self.shared.config.limits.claim_wait);
        if !exchange.lane.stream.half_closes() || wait >= idle {
            return exchange.head(idle).await;
        }
        let (mut end, mut asked) = (None, false);
        loop {
            match exchange.head(wait).await {
                Err(NoHead::Silent) => {}
                head => return head,
            }
            let end = *end.get_or_insert_with(|| Instant::now() + idle.saturating_sub(wait));
            if exchange.has_input() || exchange.upload.received > 0 || !exchange.upload.is_done() {
                return exchange.head(idle).await;
            }
            if asked && !exchange.lane.stream.ponged() {
                return Err(NoHead::Gone);
            }
            if Instant::now() >= end {
                return Err(NoHead::Silent);
            }
            exchange.lane.stream.ping();
            asked = true;
            let _ = timeout(wait, exchange.lane.stream.flush()).await;
        }
    }

    pub(super) fn idle(&self) -> Duration {
        self.shared.config.limits.idle_exchange
    }

    /// Waits for the head on a lane that had waited. If the lane may be dead and shows no sign of life, a fresh claim
    /// is raced against it.
    async fn watched(&self, exchange: &mut Exchange, again: &BytesMut) -> Watched {
        let long = exchange.lane.waited.is_some_and(|waited| waited > reuse::PROBE_AFTER);
        if long || exchange.lane.trial {
            match timeout(reuse::PROBE_WAIT, exchange.head(self.idle())).await {
                Ok(head) => return Watched::from(head),
                Err(_) if exchange.has_input() || (!exchange.lane.trial && exchange.lane.stream.ponged()) => {
                }
                Err(_) => {
                    return tokio::select! {
                        head = exchange.head(self.idle()) => Watched::from(head),
                        fetched = Box::pin(self.fresh(Upload::of_head(again.clone()))) => Watched::Overtaken(Box::new(fetched)),
                    };
                }
            }
        }
        Watched::from(self.attended(exchange).await)
    }
}

/// A request's body: as the viewer sends it, or all of it where it had to be checked.
pub enum UploadBody {
    /// As it comes.
    Coming(Incoming),
    /// Held until it was checked. Boxed: it is rare, and large.
    Whole(Box<policy::Body>),
}

enum Watched {
    Head(ResponseHead),
    /// The lane was dead: nothing of a response came, so the request may go out again.
    Dead,
    /// The fresh claim was quicker.
    Overtaken(Box<Fetched>),
    Failed(Cause),
}

impl From<Result<ResponseHead, NoHead>> for Watched {
    fn from(head: Result<ResponseHead, NoHead>) -> Self {
        match head {
            Ok(head) => Self::Head(head),
            Err(NoHead::Nothing | NoHead::Gone) => Self::Dead,
            Err(error) => Self::Failed(cause_of(error)),
        }
    }
}

pub(super) fn cause_of(error: NoHead) -> Cause {
    tracing::debug!(%error, "no response");
    match error {
        NoHead::Nothing | NoHead::Cut(_) => Cause::TargetClosed,
        NoHead::Bad(_) => Cause::BadResponse,
        NoHead::Silent | NoHead::Gone => Cause::TargetSilent,
        NoHead::Rejected(rejection) => Cause::Rejected(rejection),
        NoHead::Upload(error) => error.cause(),
    }
}
