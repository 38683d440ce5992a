//! One user and one password (`BasicHTTPAuth`; basic authentication, RFC 7617), with few wrong guesses of each address.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};

use super::{Refusal, Visitor};
use crate::auth::{Secret, same, unbase64};
use crate::proto::limits::bridge::admit::{GUESS_EVERY, GUESSES};
use crate::rate::Limiter;

/// `user:password`, and who guessed lately.
pub(super) struct Basic {
    credentials: Secret,
    guesses: Limiter,
}

impl Basic {
    pub(super) fn new(source: &str) -> Result<Self, String> {
        match source.split_once(':') {
            Some((user, password)) if !user.is_empty() && !password.is_empty() => {}
            _ => return Err("write USER:PASSWORD, neither of them empty".to_owned()),
        }
        Ok(Self { credentials: Secret::new(source), guesses: Limiter::new(GUESS_EVERY, GUESSES) })
    }

    pub(super) fn check(&self, visitor: &Visitor<'_>) -> Result<(), Refusal> {
        let Some(given) = visitor.headers.get(header::AUTHORIZATION).and_then(credentials) else {
            return Err(unknown("a user and a password are needed here"));
        };
        // Where nobody has an address, one who guesses would lock out all the others.
        let guesser = Some(visitor.address).filter(|_| visitor.known);
        // Before the look: an answer to a guess too many would be one.
        guesser.map_or(Ok(()), |address| self.guesses.look(Some(address))).map_err(too_many)?;
        if same(&given, self.credentials.expose().as_bytes()) {
            return Ok(());
        }
        guesser.map_or(Ok(()), |address| self.guesses.take(Some(address))).map_err(too_many)?;
        Err(unknown("the user or the password is wrong"))
    }
}

fn unknown(text: &'static str) -> Refusal {
    let ask = HeaderValue::from_static("Basic realm=\"adit bridge\", charset=\"UTF-8\"");
    Refusal::new(StatusCode::UNAUTHORIZED, text).with(header::WWW_AUTHENTICATE, ask)
}

fn too_many(wait: Duration) -> Refusal {
    let text = "too many wrong passwords came from this address; try again a little later";
    let seconds = HeaderValue::from(wait.as_secs() + 1);
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, text).with(header::RETRY_AFTER, seconds)
}

/// `user:password` of a `Basic` header.
fn credentials(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim_start().trim_end_matches('=');
    scheme.eq_ignore_ascii_case("basic").then(|| unbase64(token, *b"+/"))?
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn status(basic: &Basic, authorization: &str, host: u8) -> u16 {
        status_of(basic, authorization, host, true)
    }

    fn status_of(basic: &Basic, authorization: &str, host: u8, known: bool) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        let address = [192, 0, 2, host].into();
        let visitor = Visitor { headers: &headers, address, known, client_cn: None };
        basic.check(&visitor).err().map_or(200, |refusal| refusal.status.as_u16())
    }

    // "ann:se:cret", "ann:wrong"
    const GOOD: &str = "Basic YW5uOnNlOmNyZXQ=";
    const WRONG: &str = "Basic YW5uOndyb25n";

    #[tokio::test(start_paused = true)]
    async fn an_address_that_guesses_is_not_even_told_that_it_is_right() {
        let basic = Basic::new("ann:se:cret").unwrap();
        assert_eq!(status(&basic, GOOD, 1), 200);
        assert_eq!(status(&basic, &GOOD.replace("Basic", "bAsIc"), 1), 200);
        for _ in 0..GUESSES {
            assert_eq!(status(&basic, WRONG, 1), 401);
        }
        assert_eq!((status(&basic, WRONG, 1), status(&basic, GOOD, 1)), (429, 429));
        assert_eq!(status(&basic, GOOD, 2), 200);
        tokio::time::advance(GUESS_EVERY).await;
        assert_eq!(
            (status(&basic, GOOD, 1), status(&basic, WRONG, 1), status(&basic, GOOD, 1)),
            (200, 401, 429)
        );
    }

    #[test]
    fn who_guesses_at_a_unix_socket_locks_out_nobody() {
        let basic = Basic::new("ann:se:cret").unwrap();
        for _ in 0..=GUESSES {
            assert_eq!(status_of(&basic, WRONG, 1, false), 401);
        }
        assert_eq!(status_of(&basic, GOOD, 1, false), 200);
    }

    #[test]
    fn what_is_no_password_is_asked_for_one_and_is_no_guess() {
        let basic = Basic::new("ann:se:cret").unwrap();
        for _ in 0..GUESSES {
            for none in ["Bearer abc", "Basic", "Basic !", ""] {
                assert_eq!(status(&basic, none, 1), 401, "{none}");
            }
        }
        assert_eq!(status(&basic, GOOD, 1), 200);
        for bad in ["", "ann", ":secret", "ann:"] {
            assert!(Basic::new(bad).is_err(), "{bad}");
        }
    }
}
