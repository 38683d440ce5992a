//! The first steps: the key, the creation of the tunnel, and the handshakes.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::cases;
use crate::conform::case::Ended;
use crate::conform::client::Stage;
use crate::conform::client::call::Call;
use crate::conform::client::relay::{Port, Relay};
use crate::conform::client::settings::Variant;
use crate::conform::client::wire::first;
use crate::conform::client::world::World;
use crate::proto::message::ADIT_1;

cases! {
    Required Base "key-in-header" ["C-1"], 30, key_in_header,
        "the key goes behind `Authorization: Bearer`, and into no query";
    Required Base "handshakes" ["C-12"], 30, handshakes,
        "both handshakes are those of RFC 6455, and offer no extension; of subprotocols only adit.1 is offered, on the control socket";
    Required Base "falls-back" ["C-39"], 30, falls_back,
        "an answer without a subprotocol begins a session of the base level";
    Required Two "two-data-handshake" ["C-40", "C-50"], 30, data_handshake,
        "the data sockets of level two carry the key, and offer no subprotocol";
    Required Base "unknown-fields" ["C-6"], 30, unknown_fields,
        "fields of a tunnel that nobody knows are ignored";
    Required Base "untrusted-certificate" ["C-3"], 45, untrusted_certificate,
        "a relay whose certificate nobody vouches for does not get the key";
    Advised Base "redirect-creation" ["C-4"], 30, redirect_creation,
        "a redirect of the creation is not followed with the key";
    Advised Base "redirect-control" ["C-4"], 30, redirect_control,
        "a redirect of the control socket is not followed with the key";
    Advised Base "unauthorized" ["C-2"], 30, |stage| refused(stage, 401, "unauthorized"),
        "a key that the relay does not know (401) ends it";
    Advised Base "forbidden" ["C-2"], 30, |stage| refused(stage, 403, "too_many_tunnels"),
        "what the relay does not allow (403) ends it";
    Advised Base "control-forbidden" ["C-2"], 30, control_forbidden,
        "a control socket that the relay does not allow (403) ends it";
    Required Base "policy-unknown" ["C-9"], 30, policy_unknown,
        "a relay that knows no policies is not served by a client that asked for one";
    Advised Base "tcp-unknown" ["C-10"], 30, tcp_unknown,
        "a relay that knows only HTTP gets its tunnel back from a client that asked for TCP";
    Required Base "tcp-port-again" ["C-11"], 30, tcp_port_again,
        "who comes back asks for the port that the tunnel had";
}

async fn key_in_header(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    world.serves(&session).await?;
    let told = world.relay.log().into_iter().find(|request| request.contains(&world.key));
    match told {
        Some(request) => Err(Ended::failed("the key in a header only", format!("there was {request}"))),
        None => Ok(()),
    }
}

async fn handshakes(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let creation = world.creation().await?;
    let tunnel = world.grant(creation).await?;
    let control = world.control_call(&tunnel).await?;
    is_handshake(&control, &[ADIT_1])?;
    let session = world.open_by(control, tunnel, json!({})).await?;
    let id = session.announce().await;
    is_handshake(&world.data_call(&id).await?, &[])
}

async fn data_handshake(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let id = session.announce().await;
    is_handshake(&world.data_call(&id).await?, &[])
}

/// A handshake of version 13 that offers no extension, and no subprotocol but these.
fn is_handshake(call: &Call, protocols: &[&str]) -> Result<(), Ended> {
    let head = || format!("the request for {} had not", call.path);
    let has = |name: &str, token: &str| call.list(name).iter().any(|item| item.eq_ignore_ascii_case(token));
    for (name, token) in
        [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
    {
        if !has(name, token) {
            return Err(Ended::failed(format!("`{name}: {token}`"), head()));
        }
    }
    let key = call.header("sec-websocket-key").unwrap_or_default();
    if key.len() != 24 || !key.ends_with("==") {
        return Err(Ended::failed("a `Sec-WebSocket-Key` of 16 bytes in base64", head()));
    }
    if let Some(extension) = call.header("sec-websocket-extensions") {
        return Err(Ended::failed("no extension to be offered", format!("there was {extension}")));
    }
    match call.list("sec-websocket-protocol").iter().find(|name| !protocols.contains(&name.as_str())) {
        Some(name) => Err(Ended::failed(
            format!("no such subprotocol for {}", call.path),
            format!("{name} was offered"),
        )),
        None => Ok(()),
    }
}

async fn falls_back(stage: Stage) -> Result<(), Ended> {
    let offers = stage.settings.facts.offers_two;
    let mut world = stage.start()?;
    let mut session = world.session().await?;
    if !offers {
        return Err(Ended::Skipped("the client does not offer adit.1".into()));
    }
    world.serves(&session).await?;
    session.control.said_nothing(world.wait()).await
}

async fn unknown_fields(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let creation = world.creation().await?;
    let more = json!({ "x-kit": { "deep": [1, null, "two"] }, "x-another": 7, "expires": "perhaps" });
    let tunnel = world.grant_with(creation, more).await?;
    let session = world.open(tunnel, json!({ "x-kit": [] })).await?;
    world.serves(&session).await
}

async fn untrusted_certificate(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.prepare()?;
    let kit = |error: String| Ended::failed("the kit to make a certificate", error);
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])
        .map_err(|error| kit(error.to_string()))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key))
        .map_err(|error| kit(error.to_string()))?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let port = Port::any().and_then(|port| Ok((port.listen()?, port)));
    let (listener, port) = port.map_err(|error| kit(error.to_string()))?;
    world.launch_to(Variant::Plain, format!("https://127.0.0.1:{}", port.number()))?;
    let mut wait = world.settings.start;
    let (mut came, quiet) = (false, world.settings.quiet);
    loop {
        let accepted = tokio::select! {
            // A client may have come and ended before it is looked for.
            biased;
            accepted = timeout(wait, listener.accept()) => accepted,
            _ = world.client()?.ended() => break,
        };
        let Ok(Ok((stream, _))) = accepted else { break };
        (came, wait) = (true, quiet);
        let Ok(Ok(mut stream)) = timeout(quiet, acceptor.accept(stream)).await else { continue };
        let mut request = vec![0; 4096];
        if let Ok(Ok(read @ 1..)) = timeout(quiet, stream.read(&mut request)).await {
            let came = format!("it sent \"{}\"", first(&request[..read.min(24)]));
            return Err(Ended::failed("the client to hang up on a certificate of nobody", came));
        }
    }
    match came {
        true => Ok(()),
        false => Err(Ended::failed("the client to try the relay at https://…", "it did not connect")),
    }
}

async fn redirect_creation(stage: Stage) -> Result<(), Ended> {
    let (mut world, elsewhere) = beside(stage)?;
    let location = format!("Location: http://127.0.0.1:{}/v1/tunnels\r\n", elsewhere.port());
    world.creation().await?.answer_with(308, &location, "").await;
    not_followed(world, elsewhere).await
}

async fn redirect_control(stage: Stage) -> Result<(), Ended> {
    let (mut world, elsewhere) = beside(stage)?;
    let creation = world.creation().await?;
    let tunnel = world.grant(creation).await?;
    let query = format!("/ws/control?tunnel_id={}", tunnel.id);
    let location = format!("Location: http://127.0.0.1:{}{query}\r\n", elsewhere.port());
    world.control_call(&tunnel).await?.answer_with(302, &location, "").await;
    not_followed(world, elsewhere).await
}

/// A world, and another relay to which it may be sent.
fn beside(stage: Stage) -> Result<(World, Relay), Ended> {
    let elsewhere = Relay::start(&stage.trace)
        .map_err(|error| Ended::failed("the kit to listen on loopback", error.to_string()))?;
    Ok((stage.start()?, elsewhere))
}

async fn not_followed(mut world: World, mut elsewhere: Relay) -> Result<(), Ended> {
    let quiet = world.settings.quiet;
    let followed = async {
        tokio::select! {
            call = elsewhere.creations.recv() => call,
            call = elsewhere.controls.recv() => call,
        }
    };
    let followed = tokio::select! {
        biased;
        call = followed => call,
        _ = world.client()?.ended() => None,
        () = sleep(quiet) => None,
    };
    match followed.filter(|call| call.bearer().is_some()) {
        Some(call) => Err(Ended::failed(
            "the key to go to the relay only",
            format!("{} {} had it", call.method, call.path),
        )),
        None => Ok(()),
    }
}

async fn refused(stage: Stage, status: u16, code: &'static str) -> Result<(), Ended> {
    let mut world = stage.start()?;
    world.creation().await?.refuse(status, code).await;
    world.stays_away(&format!("after {status}")).await
}

async fn control_forbidden(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let creation = world.creation().await?;
    let tunnel = world.grant(creation).await?;
    world.control_call(&tunnel).await?.refuse(403, "foreign_tunnel").await;
    world.stays_away("after 403").await
}

async fn policy_unknown(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start_as(Variant::Policy)?;
    let creation = world.creation().await?;
    if creation.json()?["policy"].as_object().is_none_or(|policy| policy.is_empty()) {
        return Err(Ended::failed(
            "a `policy` in the creation",
            "the client that was started with one asks for none",
        ));
    }
    world.grant_with(creation, json!({ "policy": null })).await?;
    let quiet = world.settings.quiet;
    let control = tokio::select! {
        biased;
        call = world.relay.controls.recv() => call.is_some(),
        _ = sleep(quiet) => false,
    };
    match control {
        true => Err(Ended::failed("no control socket for a tunnel that lets everybody in", "it was opened")),
        false => Ok(()),
    }
}

async fn tcp_unknown(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start_as(Variant::Tcp)?;
    let creation = world.creation().await?;
    let tunnel = world.grant_with(creation, json!({ "proto": null, "remote_port": null })).await?;
    let deleted = format!("DELETE /v1/tunnels/{}", tunnel.id);
    let is_deleted = |world: &World| world.relay.log().iter().any(|request| request.starts_with(&deleted));
    world.until("the client to delete a tunnel that is none for TCP", is_deleted).await
}

async fn tcp_port_again(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start_as(Variant::Tcp)?;
    let session = world.session().await?;
    session.control.close(Some(1012), "").await;
    let asked = world.creation().await?.json()?;
    match asked["remote_port"].as_u64() {
        Some(31001) => Ok(()),
        other => {
            Err(Ended::failed("\"remote_port\": 31001, as the tunnel had it", format!("there was {other:?}")))
        }
    }
}
