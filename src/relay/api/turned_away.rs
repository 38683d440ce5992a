//! Clients that were turned away, as operators are told of them.

use axum::response::{IntoResponse, Response};
use http::Extensions;

use super::{ApiFailure, Caller};
use crate::proto::api::ApiError;
use crate::tunnel::events::{Event, Kind};

/// Who wanted what, as far as it is known when a client is turned away.
#[derive(Clone, Default)]
pub struct Who {
    /// Name of the tunnel, as the client wrote it.
    pub tunnel: Option<String>,
    /// Name of the key.
    pub owner: Option<String>,
}

impl Who {
    /// That one, for this reason.
    pub fn turned_away(self, failure: ApiFailure) -> TurnedAway {
        TurnedAway { who: self, failure }
    }
}

/// A failure of a call by which a client comes.
pub struct TurnedAway {
    who: Who,
    failure: ApiFailure,
}

impl IntoResponse for TurnedAway {
    fn into_response(self) -> Response {
        let mut response = self.failure.into_response();
        response.extensions_mut().insert(self.who);
        response
    }
}

/// What operators are told of a call that failed: all of a client that comes, and of other calls that the key is no good.
pub fn event(error: &ApiError, response: &Extensions, caller: Option<Caller>) -> Option<Event> {
    let who = response.get::<Who>().cloned();
    let Who { tunnel, owner } = who.or_else(|| (error.code == "unauthorized").then(Who::default))?;
    let address = caller.map(|Caller(address)| address);
    let event = Event { owner, address, ..Event::new(Kind::Refused) }.because(&error.error);
    Some(match tunnel {
        Some(tunnel) => event.named(&tunnel),
        None => event,
    })
}
