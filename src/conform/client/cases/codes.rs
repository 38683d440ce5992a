//! The end of a control session: after which the client comes back, and after which it is over.

use serde_json::json;

use super::cases;
use crate::conform::case::Ended;
use crate::conform::client::Stage;

cases! {
    Required Base "close-1000" ["C-21"], 30, stops,
        "after 1000 the client stops for good";
    Required Base "close-1001" ["C-21"], 30, |stage| comes_back(stage, End::Code(1001)),
        "after 1001 the client comes back";
    Required Base "close-1002" ["C-21"], 30, |stage| comes_back(stage, End::Code(1002)),
        "after 1002 the client comes back";
    Required Base "close-1007" ["C-21"], 30, |stage| comes_back(stage, End::Code(1007)),
        "after 1007 the client comes back";
    Required Base "close-1008" ["C-21"], 30, |stage| comes_back(stage, End::Code(1008)),
        "after 1008 the client comes back";
    Advised Base "revoked" ["C-2"], 30, revoked,
        "a client that came back after 1008 stops when it gets 401";
    Required Base "close-1009" ["C-21"], 30, |stage| comes_back(stage, End::Code(1009)),
        "after 1009 the client comes back";
    Required Base "close-1012" ["C-21"], 30, |stage| comes_back(stage, End::Code(1012)),
        "after 1012 the client comes back";
    Required Base "close-without-code" ["C-21"], 30, |stage| comes_back(stage, End::NoCode),
        "after a close frame without a code the client comes back";
    Required Base "close-4321" ["C-21"], 30, |stage| comes_back(stage, End::Code(4321)),
        "after a code that nobody knows the client comes back";
    Required Base "dropped" ["C-21"], 30, |stage| comes_back(stage, End::Fin),
        "after a connection that just ends the client comes back";
    Required Base "dropped-by-reset" ["C-21"], 30, |stage| comes_back(stage, End::Reset),
        "after a reset the client comes back";
    Required Two "two-closed-deleted" ["C-21"], 30, |stage| closed(stage, "deleted", End::Code(1000), false),
        "`closed` with `deleted`, and 1000: the client stops for good";
    Required Two "two-closed-expired" ["C-21"], 30, |stage| closed(stage, "expired", End::Code(1000), false),
        "`closed` with `expired`, and 1000: the client stops for good";
    Required Two "two-closed-replaced" ["C-21"], 30, |stage| closed(stage, "replaced", End::Code(1000), false),
        "`closed` with `replaced`, and 1000: the client stops for good";
    Required Two "two-closed-succeeded" ["C-21"], 30, |stage| closed(stage, "succeeded", End::Code(1000), false),
        "`closed` with `succeeded`, and no newer session: the client stops for good";
    Required Two "two-closed-without-frame" ["C-47"], 30, |stage| closed(stage, "deleted", End::Fin, false),
        "`closed` counts also where the close frame does not arrive";
    Required Two "two-closed-restart" ["C-21"], 30, |stage| closed(stage, "restart", End::Code(1012), true),
        "`closed` with `restart`, and 1012: the client comes back";
    Required Two "two-closed-stale" ["C-21"], 30, |stage| closed(stage, "stale", End::Code(1001), true),
        "`closed` with `stale`, and 1001: the client comes back";
    Required Two "two-closed-token" ["C-21"], 30, |stage| closed(stage, "token_expired", End::Code(1008), true),
        "`closed` with `token_expired`, and 1008: the client comes back";
    Required Two "two-closed-later-reason" ["C-21"], 30, |stage| closed(stage, "x-kit", End::Code(1012), true),
        "`closed` with a reason that nobody knows goes by the code: after 1012 the client comes back";
    Required Two "two-closed-later-reason-1000" ["C-21"], 30, |stage| closed(stage, "x-kit", End::Code(1000), false),
        "`closed` with a reason that nobody knows goes by the code: after 1000 the client stops for good";
}

/// How the relay ends the session.
#[derive(Clone, Copy)]
enum End {
    Code(u16),
    NoCode,
    Fin,
    Reset,
}

impl End {
    async fn of(self, session: &crate::conform::client::world::Session) {
        match self {
            Self::Code(code) => session.control.close(Some(code), "so it is").await,
            Self::NoCode => session.control.close(None, "").await,
            Self::Fin => session.control.fin().await,
            Self::Reset => session.control.reset().await,
        }
    }
}

async fn stops(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    world.serves(&session).await?;
    End::Code(1000).of(&session).await;
    world.stays_away("after 1000").await
}

async fn comes_back(stage: Stage, end: End) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    end.of(&session).await;
    let again = world.session().await?;
    world.serves(&again).await
}

async fn revoked(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    End::Code(1008).of(&session).await;
    world.creation().await?.refuse(401, "unauthorized").await;
    world.stays_away("after 401").await
}

async fn closed(stage: Stage, reason: &'static str, end: End, back: bool) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    session.control.say(&json!({ "type": "closed", "reason": reason, "message": "so it is" })).await;
    end.of(&session).await;
    if back {
        let again = world.session().await?;
        return world.serves(&again).await;
    }
    world.stays_away(&format!("after `closed` with `{reason}`")).await
}
