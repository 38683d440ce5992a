//! The texts of a session for programs: they name methods where those of the command line name options.

use crate::client::event::{End, Event};

/// What the command line says, and what stands for it here; longer texts first.
const WORDS: &[(&str, &str)] = &[
    ("set ADIT_KEY, or give --key", "give one by key()"),
    ("ADIT_KEY or --key", "key()"),
    ("give another with --name", "give another by name()"),
];

/// `text` with other words.
pub(super) fn of_text(text: &str) -> String {
    WORDS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

pub(super) fn of_event(event: Event) -> Event {
    match event {
        Event::Offline { reason, retry_in } => Event::Offline { reason: of_text(&reason), retry_in },
        Event::Ended(end) => Event::Ended(of_end(end)),
        event => event,
    }
}

pub(super) fn of_end(end: End) -> End {
    match end {
        End::Refused(text) => End::Refused(of_text(&text)),
        End::Unauthorised(text) => End::Unauthorised(of_text(&text)),
        End::Unreachable(text) => End::Unreachable(of_text(&text)),
        end => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Secret;
    use crate::client::{Connector, Dialer, Proxies, RelayUrl};

    #[tokio::test]
    async fn no_option_of_the_command_line_is_named() {
        let user = RelayUrl::parse("https://u:p@relay.example").unwrap_err().to_string();
        assert_eq!(
            of_text(&user),
            "the relay's address must hold no user or password: give the key as key()"
        );
        let dialer = Dialer::new(RelayUrl::parse("https://relay.example").unwrap(), Proxies::none());
        let key = Connector::new(dialer, Some(&Secret::new("a b"))).err().unwrap().to_string();
        assert!(of_text(&key).contains("check key() for quotes"), "{}", of_text(&key));
    }
}
