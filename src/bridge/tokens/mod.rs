//! Tokens: which target a visitor is led to, by a text in the address or by the host asked for. One kind for each plugin
//! of websockify, under its name.

mod api;
mod directory;
mod file;
mod given;
mod lead;
mod redis;
mod signed;
mod stamp;

pub(super) use lead::{Led, Revoked, lead};

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use http::Request;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::api::Api;
use self::directory::Directory;
use self::file::TokenFile;
use self::redis::Redis;
use self::signed::Signed;
use self::stamp::Stamp;
use super::target::Target;
use crate::proto::limits::bridge::tokens::{LOOK_EVERY, LOOK_UP_WAIT};

/// The plugins, by the names of websockify's classes.
pub const PLUGINS: &[&str] = &[
    "TokenFile",
    "ReadOnlyTokenFile",
    "TokenFileName",
    "UnixDomainSocketDirectory",
    "BaseTokenAPI",
    "JSONTokenApi",
    "JWTTokenApi",
    "TokenRedis",
];

/// Why there are no tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenSetupError {
    /// No plugin of ours.
    #[error("there is no token plugin {0:?}; there are {list}, and no Python is run", list = PLUGINS.join(", "))]
    Unknown(String),
    /// It cannot be used.
    #[error("the source of the tokens ({plugin}) cannot be used: {reason}")]
    Source {
        /// The plugin's name.
        plugin: &'static str,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Only files are looked at again and again.
    #[error("{0} cannot tell when a token is revoked: that works with tokens in files that are read again")]
    NotWatched(&'static str),
}

/// Why a visitor has no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The request has no token (403).
    #[error(
        "this address needs a token: ask for one, and open the address with it, as in /websockify?token=TOKEN"
    )]
    Missing,
    /// Nobody knows it (404).
    #[error("this token leads nowhere: it is misspelt, or it has been revoked")]
    Unknown,
    /// Where tokens are kept, something is wrong (502). The text is for the operator.
    #[error("the token cannot be looked up now; try again later, and tell whoever runs this server")]
    Source(String),
}

/// A kind of tokens, and where they are kept.
pub struct Tokens {
    plugin: Arc<Plugin>,
    name: &'static str,
    by_host: bool,
    /// How often what is kept has changed; `None` where nobody looks.
    changes: Option<watch::Sender<u64>>,
}

/// Closed: what Python loads by a class's name is no idea for a program that strangers reach.
enum Plugin {
    File(TokenFile),
    Directory(Directory),
    Api(Api),
    Signed(Signed),
    Redis(Redis),
}

impl Tokens {
    /// The plugin of that name, with what its `--token-source` says. `websockify.token_plugins.TokenFile` is one, too.
    pub fn new(plugin: &str, source: &str) -> Result<Self, TokenSetupError> {
        let short = plugin.strip_prefix("websockify.").unwrap_or(plugin);
        let short = short.strip_prefix("token_plugins.").unwrap_or(short);
        let known = PLUGINS.iter().find(|name| **name == short);
        let name = *known.ok_or_else(|| TokenSetupError::Unknown(plugin.chars().take(100).collect()))?;
        if source.is_empty() {
            let reason = "name it with --token-source".to_owned();
            return Err(TokenSetupError::Source { plugin: name, reason });
        }
        // A daemon stands elsewhere.
        let path = std::path::absolute(source).unwrap_or_else(|_| PathBuf::from(source));
        let made = match name {
            "TokenFile" => Ok(Plugin::File(TokenFile::new(path, true))),
            "ReadOnlyTokenFile" => Ok(Plugin::File(TokenFile::new(path, false))),
            "TokenFileName" => Directory::of_files(path).map(Plugin::Directory),
            "UnixDomainSocketDirectory" => Directory::of_sockets(path).map(Plugin::Directory),
            "BaseTokenAPI" => Api::new(source, false).map(Plugin::Api),
            "JSONTokenApi" => Api::new(source, true).map(Plugin::Api),
            "JWTTokenApi" => Signed::new(path).map(Plugin::Signed),
            _ => Redis::new(source).map(Plugin::Redis),
        };
        let plugin = made.map_err(|reason| TokenSetupError::Source { plugin: name, reason })?;
        Ok(Self { plugin: Arc::new(plugin), name, by_host: false, changes: None })
    }

    /// The token is the host that is asked for, and not in the address (`--host-token`).
    pub fn by_host(mut self, by_host: bool) -> Self {
        self.by_host = by_host;
        self
    }

    /// Sessions end when their token goes, or leads elsewhere: [`Tokens::watch`] must be run.
    pub fn revoking(mut self) -> Result<Self, TokenSetupError> {
        match &*self.plugin {
            Plugin::File(file) if file.is_read_again() => {}
            Plugin::Directory(_) => {}
            _ => return Err(TokenSetupError::NotWatched(self.name)),
        }
        self.changes = Some(watch::Sender::new(0));
        Ok(self)
    }

    /// The plugin's name.
    pub fn plugin(&self) -> &'static str {
        self.name
    }

    /// The token of a request.
    pub fn of<B>(&self, request: &Request<B>) -> Result<String, TokenError> {
        let given = if self.by_host { given::by_host(request) } else { given::by_query(request) };
        given.ok_or(TokenError::Missing)
    }

    /// Whether sessions end with their tokens.
    pub fn is_revoking(&self) -> bool {
        self.changes.is_some()
    }

    /// Where a token leads to. Takes 10 seconds at most.
    pub async fn target(&self, token: &str) -> Result<Target, TokenError> {
        let late = |_| Err(TokenError::Source(format!("{}: no answer within 10 seconds", self.name)));
        timeout(LOOK_UP_WAIT, self.look_up(token)).await.unwrap_or_else(late)
    }

    async fn look_up(&self, token: &str) -> Result<Target, TokenError> {
        match &*self.plugin {
            Plugin::Api(api) => api.target(token).await,
            Plugin::Redis(redis) => redis.target(token).await,
            _ => {
                let token = token.to_owned();
                self.aside(move |plugin| match plugin {
                    Plugin::File(file) => file.target(&token),
                    Plugin::Directory(directory) => directory.target(&token),
                    Plugin::Signed(signed) => signed.target(&token),
                    Plugin::Api(_) | Plugin::Redis(_) => Err(TokenError::Unknown),
                })
                .await
                .unwrap_or_else(|| Err(TokenError::Source("the look-up panicked".to_owned())))
            }
        }
    }

    /// What a log may show of `target`, where `token` leads: a token is a secret as long as it does.
    fn shown(&self, token: &str, target: &Target) -> String {
        let hidden = match &*self.plugin {
            Plugin::Directory(directory) => directory.shown(token),
            _ => None,
        };
        hidden.unwrap_or_else(|| target.to_string())
    }

    /// Runs what waits for files on a thread for that.
    async fn aside<T: Send + 'static>(&self, work: impl FnOnce(&Plugin) -> T + Send + 'static) -> Option<T> {
        let plugin = Arc::clone(&self.plugin);
        tokio::task::spawn_blocking(move || work(&plugin)).await.ok()
    }

    /// Looks at the files once a second, for as long as it is polled. Does nothing if sessions do not end with their
    /// tokens.
    pub async fn watch(&self) {
        let Some(changes) = &self.changes else {
            return std::future::pending().await;
        };
        let mut every = interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None::<Stamp>;
        loop {
            every.tick().await;
            let now = self.aside(|plugin| match plugin {
                Plugin::File(file) => file.stamp(),
                Plugin::Directory(directory) => directory.stamp(),
                _ => None,
            });
            // What cannot be read at the moment revokes nothing.
            let Some(Some(now)) = now.await else { continue };
            // The first look counts as a change, as one may have come since the files were read.
            if told.as_ref() != Some(&now) {
                changes.send_modify(|count| *count += 1);
                told = Some(now);
            }
        }
    }

    /// What a session hears by that its token may have gone; to be had before the token is looked up. `None`: sessions do not
    /// end with their tokens.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.changes.as_ref().map(watch::Sender::subscribe)
    }

    /// Ready when `token` leads to `target` no more.
    async fn revoked(&self, mut changes: watch::Receiver<u64>, token: &str, target: &Target) {
        while changes.changed().await.is_ok() {
            // What is just being written revokes nothing: the token is gone at two looks in a row.
            if self.is_gone(token, target).await {
                sleep(LOOK_EVERY).await;
                if self.is_gone(token, target).await {
                    return;
                }
            }
        }
        std::future::pending().await
    }

    async fn is_gone(&self, token: &str, target: &Target) -> bool {
        match self.target(token).await {
            Ok(now) => now != *target,
            Err(TokenError::Source(_)) => false,
            Err(_) => true,
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokens").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests;
