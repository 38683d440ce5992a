//! `adit conform relay`: a probe client and viewers against somebody's relay.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{KitArgs, NOTHING, Subject, bytes};
use crate::cli::http::usage;
use crate::client::RelayUrl;
use crate::client::text::visible;
use crate::conform::relay::{Found, Place, Settings, World, cases, start};
use crate::conform::trace::Trace;

pub(super) const HELP: &str = "The relay is tested as it runs, at its own times; no other tunnel of the key is touched, and all that is made is \
    deleted. Its names stay reserved for the key as long as the relay reserves names. Everybody connects to the address of URL, \
    whatever host a tunnel has, so that no DNS is needed for it.\n\n\
    Example: adit conform relay http://localhost:8080 --key $ALICE --key2 $BOB\n\n\
    Exit codes:\n  \
    0   all required cases passed\n  \
    1   a required case failed\n  \
    2   wrong usage\n  \
    69  the URL is no relay, or it refuses the key";

/// Most cases wait for the relay, so that many may run at the same time.
const JOBS: usize = 32;

/// `adit conform relay`.
#[derive(Debug, Args)]
pub(super) struct RelayArgs {
    #[command(flatten)]
    kit: KitArgs,
    /// The address of the relay, as `http://…` or `https://…`
    #[arg(value_name = "URL", required_unless_present = "list")]
    url: Option<String>,
    /// A key of the relay
    #[arg(long, value_name = "KEY", env = "ADIT_KEY", hide_env_values = true)]
    key: Option<String>,
    /// The key of another owner, for the cases between two
    #[arg(long, value_name = "KEY", env = "ADIT_KEY2", hide_env_values = true)]
    key2: Option<String>,
    /// The secret of the relay's tokens, for the cases about tokens
    #[arg(long, value_name = "SECRET", env = "ADIT_JWT_SECRET", hide_env_values = true)]
    jwt_secret: Option<String>,
    /// Bytes that go each way in the cases `bytes-*`
    #[arg(long, value_name = "SIZE", default_value = "8MB", value_parser = bytes)]
    bulk: u64,
    /// Seconds that something is waited for that happens at once
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    patience: u64,
}

pub(super) async fn run(args: RelayArgs) -> anyhow::Result<ExitCode> {
    let RelayArgs { kit, url, key, key2, jwt_secret, bulk, patience } = args;
    let cases = match kit.chosen("relay", cases()) {
        Ok(cases) => cases,
        Err(code) => return Ok(code),
    };
    let wrong = |sentence: String| Ok(usage("conform relay", &[sentence]));
    let url = match RelayUrl::parse(&url.unwrap_or_default()) {
        Ok(url) => url,
        Err(error) => return wrong(error.to_string()),
    };
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        return wrong("give a key of the relay by --key or ADIT_KEY: tunnels are made with it".into());
    };
    let name = url.to_string();
    let place = match Place::find(url).await {
        Ok(place) => place,
        Err(why) => return Ok(nothing(&why)),
    };
    let settings = Arc::new(Settings {
        key2: key2.filter(|key| !key.is_empty()),
        secret: jwt_secret.filter(|secret| !secret.is_empty()),
        bytes: bulk,
        ..Settings::new(place, key, Duration::from_secs(patience))
    });
    match start(&settings).await {
        Ok(Found { version, level }) => {
            let (version, level) = (visible(&version), level.as_str());
            eprintln!("adit conform relay: {name} answers: version {version}, level {level}");
        }
        Err(why) => return Ok(nothing(&why)),
    }
    let subject = Subject { side: "relay", name: &name, jobs: JOBS };
    let world = |_| {
        let trace = Trace::new(&settings.secrets());
        (World::new(Arc::clone(&settings), trace.clone()), trace)
    };
    let code = kit.run(&subject, &cases, world).await;
    // What cases have left that came to no end.
    World::new(Arc::clone(&settings), Trace::new(&[])).tidy_all().await;
    code
}

fn nothing(why: &str) -> ExitCode {
    eprintln!("adit conform relay: {}", visible(why));
    ExitCode::from(NOTHING)
}
