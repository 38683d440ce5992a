//! Log records on stderr, as text or JSON, chosen by `ADIT_LOG_FILTER`.

use std::io::{self, IsTerminal};

use anyhow::{Context, anyhow};
use tracing_subscriber::EnvFilter;

use crate::relay::config::LogFormat;

/// The variable that says which records are written, in the notation of tracing-subscriber's `EnvFilter`.
pub const FILTER: &str = "ADIT_LOG_FILTER";

/// Begins to write log records. To be called once in a process.
pub fn init(format: LogFormat) -> anyhow::Result<()> {
    let filter = filter(std::env::var(FILTER).ok())?;
    let set = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let done = match format {
        LogFormat::Json => set.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            // https://no-color.org: set and not empty.
            let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            set.with_ansi(colour && io::stderr().is_terminal()).try_init()
        }
    };
    done.map_err(|error| anyhow!("log records are already being written: {error}"))
}

fn filter(value: Option<String>) -> anyhow::Result<EnvFilter> {
    let value = value.filter(|value| !value.is_empty()).unwrap_or_else(|| "info".into());
    let filter = EnvFilter::builder().parse(&value).with_context(|| {
        format!("environment {FILTER}: {value:?}: expected for example info or adit::relay=debug")
    })?;
    // At finer levels it writes out what is sent, and the ids of connections are secrets.
    Ok(filter.add_directive("tungstenite=warn".parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_info_unless_another_is_given() {
        for (value, directives) in [(None, "info"), (Some(""), "info"), (Some("adit=debug"), "adit=debug")] {
            let filter = filter(value.map(str::to_owned)).unwrap().to_string();
            assert!(filter.split(',').eq(["tungstenite=warn", directives]), "{filter}");
        }
        let error = filter(Some("adit=loud".into())).unwrap_err().to_string();
        assert!(error.contains("ADIT_LOG_FILTER") && error.contains("adit=loud"), "{error}");
    }
}
