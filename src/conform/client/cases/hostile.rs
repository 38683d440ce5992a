//! Relays that are broken or mean it badly: the client may leave them, but lives on and serves again.

use serde_json::json;

use super::cases;
use crate::conform::case::Ended;
use crate::conform::client::Stage;
use crate::conform::client::world::{RESPONSE, Session, World};
use crate::proto::frame::Opcode;

cases! {
    Required Base "hostile-pings" ["C-13", "C-32"], 45, endless_pings,
        "twenty thousand pings at once are answered, or the relay is left, and viewers are served again";
    Required Base "hostile-message" ["C-13"], 45, huge_message,
        "a control message of sixteen megabytes is survived";
    Required Base "hostile-length" ["C-13"], 45, |stage| breach(stage, b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        "a control message that promises 2^63 bytes is survived";
    Required Base "hostile-frames" ["C-12"], 45, |stage| breach(stage, b"\xf3\x05hello".to_vec()),
        "a frame with reserved bits and an unknown opcode is survived";
    Required Base "hostile-mask" ["C-12"], 45, |stage| breach(stage, b"\x81\x85\x01\x02\x03\x04hello".to_vec()),
        "a frame that is masked, as no relay's is, is survived";
    Required Base "hostile-text" ["C-12"], 45, |stage| breach(stage, b"\x81\x02\xff\xfe".to_vec()),
        "a text that is no UTF-8 is survived";
    Required Base "hostile-accept" ["C-12"], 45, wrong_accept,
        "a handshake whose answer does not fit its key is no control socket";
    Required Base "hostile-data" ["C-30"], 45, huge_data,
        "a data message that promises 2^40 bytes, and breaks off, harms no other";
    Required Base "hostile-answer" ["C-6"], 45, |stage| bad_answer(stage, "{\"id\":"),
        "after an answer to its creation that is no JSON, a client that was online comes back, or ends";
    Required Two "two-hostile-numbers" ["C-41"], 45, hostile_numbers,
        "numbers in `welcome` that make no sense are survived";
    Required Two "two-hostile-standby" ["C-44"], 45, hostile_standby,
        "a relay that wants four thousand million standby sockets is survived";
}

/// Viewers are served: on this session, or on the next if the client has left this one.
async fn lives(mut world: World, session: Session) -> Result<(), Ended> {
    let id = session.announce().await;
    let wait = world.wait();
    let came = tokio::select! {
        biased;
        call = world.relay.creations.recv() => call,
        served = tokio::time::timeout(wait, world.relay.datas.recv()) => match served {
            Ok(Some(call)) if call.query("id").as_deref() == Some(id.as_str()) => {
                call.refuse(404, "connection_not_found").await;
                return world.serves(&session).await;
            }
            Ok(_) => return Err(Ended::failed("the data socket of the connection that was announced", "another came")),
            Err(_) => None,
        },
    };
    let Some(call) = came else {
        return Err(Ended::failed(
            "the client to serve on, or to come back",
            format!("it did neither within {wait:?}"),
        ));
    };
    let tunnel = world.grant(call).await?;
    let again = world.open(tunnel, json!({})).await?;
    world.serves(&again).await
}

async fn endless_pings(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let ping = crate::conform::client::wire::frame(Opcode::Ping, true, &[b'!'; 125]);
    for _ in 0..20 {
        session.control.raw(ping.repeat(1000)).await;
    }
    lives(world, session).await
}

async fn huge_message(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let text = format!("{{\"type\":\"x-kit\",\"padding\":\"{}\"}}", "x".repeat(16_000_000));
    session.control.text(&text).await;
    lives(world, session).await
}

async fn breach(stage: Stage, bytes: Vec<u8>) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    session.control.raw(bytes).await;
    session.control.fin().await;
    lives(world, session).await
}

async fn wrong_accept(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    session.control.close(Some(1012), "restart").await;
    let creation = world.creation().await?;
    let tunnel = world.grant(creation).await?;
    let call = world.control_call(&tunnel).await?;
    let Ok(_not_a_socket) = call.switch_with(None, "bm90IGFuIGFuc3dlciBhdCBhbGw=").await else {
        return Err(Ended::failed("the client to wait for the answer of its handshake", "it left"));
    };
    let again = world.session().await?;
    world.serves(&again).await
}

async fn huge_data(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut other, mut other_visit) = world.viewer(&session).await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    data.raw(b"\x82\x7f\x00\x00\x01\x00\x00\x00\x00\x00").await?;
    let _ = data.raw(&vec![0; 1_000_000]).await;
    data.reset();
    // The client knows when its target has seen the end, however that looks.
    let _ = visit.rest(world.wait()).await;
    other_visit.write(RESPONSE).await;
    other.brings(RESPONSE).await?;
    world.serves(&session).await
}

async fn bad_answer(stage: Stage, body: &'static str) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    session.control.close(Some(1012), "restart").await;
    world.creation().await?.answer_with(201, "Content-Type: application/json\r\n", body).await;
    let quiet = world.settings.quiet / 4;
    if world.client()?.ends_within(quiet).await.is_some() {
        return Ok(());
    }
    let again = world.session().await?;
    world.serves(&again).await
}

async fn hostile_numbers(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world
        .session_with(json!({
            "ping_interval_ms": 0, "pong_timeout_ms": u64::MAX, "claim_ms": 0,
            "limits": { "control_message_bytes": 0, "data_message_bytes": 1, "waiting": 0, "standby": u64::MAX },
        }))
        .await?;
    world.serves(&session).await?;
    world.serves(&session).await
}

async fn hostile_standby(stage: Stage) -> Result<(), Ended> {
    const MOST: usize = 64;
    let mut world = stage.start()?;
    let session = world.session().await?;
    session.control.say(&json!({ "type": "standby", "want": u32::MAX })).await;
    let (mut open, quiet) = (Vec::new(), world.settings.quiet / 2);
    while let Ok(Some(call)) = tokio::time::timeout(quiet, world.relay.datas.recv()).await {
        open.push(crate::conform::client::data::Data::accept(call, world.wait()).await?);
        if open.len() > MOST {
            let came = format!("it opened more than {MOST}, of the 8 that `welcome` tells of");
            return Err(Ended::failed("the client to hold a bounded number of standby sockets", came));
        }
    }
    world.serves(&session).await
}
