//! Who gets in and where to: what was typed of tokens, logins, files and recordings, read as the bridge takes it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::flags::Flags;
use super::settings::{Usage, absolute};
use crate::bridge::{Admit, BridgeConfig, Page, Recorder, Tokens, Web, WebConfig, extra_headers};

/// What websockify does not have of these.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Who gets in, and files")]
pub(super) struct DoorFlags {
    /// End the sessions of a token that is taken out of its file, with close code 1008
    #[arg(long)]
    pub token_revoke: bool,
    /// Let in only this address or network; may be repeated
    #[arg(long, value_name = "NETWORK")]
    pub allow: Vec<String>,
    /// Do not let in this address or network; may be repeated
    #[arg(long, value_name = "NETWORK")]
    pub deny: Vec<String>,
    /// A page at the root that comes along: novnc (beside noVNC's files, see --web) or terminal
    #[arg(long, value_name = "PAGE")]
    pub page: Option<Page>,
    /// The file that stands for a directory [default: index.html]
    #[arg(long, value_name = "NAME")]
    pub index: Option<String>,
    /// What the paths of files begin with, such as /vnc
    #[arg(long, value_name = "PATH")]
    pub prefix: Option<String>,
    /// A header of every answer, 'NAME: VALUE'; may be repeated
    #[arg(long, value_name = "HEADER")]
    pub header: Vec<String>,
    /// Pages of this origin may read the files, or * for all; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub cors: Vec<String>,
}

/// Puts all of it into the settings.
pub(super) fn settle(flags: &Flags, config: &mut BridgeConfig) -> Result<(), Usage> {
    config.service.tokens = tokens(flags)?.map(Arc::new);
    config.service.admit = admit(flags, config)?.map(Arc::new);
    config.web = web(flags)?.map(Arc::new);
    config.web_auth = flags.web_auth;
    config.headers = extra_headers(&flags.doors.header).map_err(|error| at("--header", error))?;
    config.record = recorder(flags)?.map(Arc::new);
    config.traffic = flags.traffic;
    Ok(())
}

fn at(flag: &str, error: impl std::fmt::Display) -> Usage {
    Usage(format!("{flag}: {error}"))
}

fn tokens(flags: &Flags) -> Result<Option<Tokens>, Usage> {
    let (plugin, source) = match (&flags.target_config, &flags.token_plugin) {
        (Some(file), _) => ("TokenFile", file.as_str()),
        (None, Some(plugin)) => (plugin.as_str(), flags.token_source.as_deref().unwrap_or_default()),
        (None, None) if flags.doors.token_revoke || flags.host_token => {
            return Err(Usage("--token-revoke and --host-token need tokens: give --token-plugin".to_owned()));
        }
        // Not a matter of the flags alone: the plugin may stand in a file, and this in the environment.
        (None, None) if flags.token_source.is_some() => {
            return Err(Usage("--token-source needs to be told what it is: give --token-plugin".to_owned()));
        }
        (None, None) => return Ok(None),
    };
    let tokens = Tokens::new(plugin, source).map_err(|error| at("--token-plugin", error))?;
    let tokens = tokens.by_host(flags.host_token);
    let tokens = if flags.doors.token_revoke { tokens.revoking() } else { Ok(tokens) };
    tokens.map(Some).map_err(|error| at("--token-revoke", error))
}

fn admit(flags: &Flags, config: &BridgeConfig) -> Result<Option<Admit>, Usage> {
    let DoorFlags { allow, deny, .. } = &flags.doors;
    if flags.auth_plugin.len() != flags.auth_source.len() {
        return Err(Usage("each --auth-plugin goes with an --auth-source, in the same order".to_owned()));
    }
    if flags.auth_plugin.is_empty() && allow.is_empty() && deny.is_empty() {
        return match flags.web_auth {
            true => Err(Usage("--web-auth needs to know what to ask for: give --auth-plugin".to_owned())),
            false => Ok(None),
        };
    }
    let mut admit = Admit::default();
    for (plugin, source) in flags.auth_plugin.iter().zip(&flags.auth_source) {
        admit.plugin(plugin, source).map_err(|error| at("--auth-plugin", error))?;
    }
    admit.allow(allow).map_err(|error| at("--allow", error))?;
    admit.deny(deny).map_err(|error| at("--deny", error))?;
    if admit.wants_certificate() && config.tls.as_ref().is_none_or(|tls| tls.verify.is_none()) {
        return Err(Usage(
            "--auth-plugin ClientCertCNAuth: nobody is asked for a certificate; give --cert and --verify-client".to_owned(),
        ));
    }
    Ok(Some(admit))
}

fn web(flags: &Flags) -> Result<Option<Web>, Usage> {
    let DoorFlags { page, index, prefix, cors, .. } = &flags.doors;
    if flags.web.is_none() && page.is_none() {
        let alone = [
            (flags.web_auth, "--web-auth"),
            (flags.file_only, "--file-only"),
            (index.is_some(), "--index"),
            (prefix.is_some(), "--prefix"),
            (!cors.is_empty(), "--cors"),
        ];
        return match alone.iter().find(|(asked, _)| *asked) {
            Some((_, flag)) => Err(Usage(format!("{flag} is about files: give --web DIR, or --page"))),
            None => Ok(None),
        };
    }
    let root: Option<PathBuf> = flags.web.as_deref().map(absolute).transpose()?;
    if *page == Some(Page::NoVnc) && !root.as_ref().is_some_and(|root| root.join("core/rfb.js").exists()) {
        return Err(Usage(
            "--page novnc: noVNC's own files are needed beside it: give --web with the directory that has core/rfb.js, \
             such as /usr/share/novnc or node_modules/@novnc/novnc"
                .to_owned(),
        ));
    }
    let (file_only, index) = (flags.file_only, index.clone());
    let web = WebConfig { page: *page, root, file_only, index, prefix: prefix.clone(), cors: cors.clone() };
    Web::new(web).map(Some).map_err(|error| at("--web", error))
}

fn recorder(flags: &Flags) -> Result<Option<Recorder>, Usage> {
    let path = flags.record.as_deref().map(absolute).transpose()?;
    let Some(path) = path else { return Ok(None) };
    // A session that cannot be recorded is too late to be told.
    match path.parent() {
        Some(directory) if directory.is_dir() => Ok(Some(Recorder::new(path))),
        _ => Err(Usage(format!("--record: there is no directory for {}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;
    use crate::cli::bridge::settings;

    fn settled(line: &str) -> Result<BridgeConfig, String> {
        let command = Flags::augment_args(Command::new("bridge"));
        let typed = std::iter::once("bridge").chain(line.split_whitespace());
        let flags = command.try_get_matches_from(typed).map_err(|error| error.to_string())?;
        let flags = Flags::from_arg_matches(&flags).unwrap();
        settings::config(&flags, None).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_typed_becomes_doors_tokens_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().to_str().unwrap();
        let line = format!(
            "6080 --web {dir} --file-only --web-auth --target-config {dir}/tokens --token-revoke --record {dir}/rec \
             --auth-plugin BasicHTTPAuth --auth-source a:b --auth-plugin ExpectOrigin --auth-source https://a.test \
             --allow 10.0.0.0/8 --deny 10.0.0.1 --header X-A:b --header X-A:c --cors * --traffic"
        );
        let config = settled(&line).unwrap();
        assert!(
            config
                .service
                .tokens
                .is_some_and(|tokens| tokens.is_revoking() && tokens.plugin() == "TokenFile")
        );
        assert!(config.service.admit.is_some() && config.web.is_some() && config.record.is_some());
        assert_eq!(
            (config.headers.get_all("x-a").iter().count(), config.traffic, config.web_auth),
            (2, true, true)
        );
        let none = settled("6080 h:1").unwrap();
        assert!(none.service.tokens.is_none() && none.service.admit.is_none() && none.web.is_none());
    }

    #[test]
    fn what_cannot_be_meant_so_is_told_with_what_can() {
        for (line, part) in [
            ("1 --token-plugin mine.Plugin --token-source x", "JWTTokenApi"),
            ("1 --token-plugin TokenFile", "--token-source"),
            ("1 --token-plugin TokenRedis --token-source h --token-revoke", "in files"),
            ("1 h:1 --token-revoke", "--token-plugin"),
            ("1 h:1 --token-source x", "--token-plugin"),
            ("1 h:1 --auth-source x", "--auth-plugin"),
            ("1 h:1 --cafile x", "--verify-client"),
            ("1 h:1 --auth-plugin BasicHTTPAuth", "--auth-source"),
            ("1 h:1 --auth-plugin Mine --auth-source x", "ExpectOrigin"),
            ("1 h:1 --auth-plugin BasicHTTPAuth --auth-source x", "USER:PASSWORD"),
            ("1 h:1 --auth-plugin ClientCertCNAuth --auth-source x", "--verify-client"),
            ("1 h:1 --deny 0.0.0.0/0 --deny ::/0", "every address"),
            ("1 h:1 --web /not/there", "/not/there"),
            ("1 h:1 --file-only", "--web"),
            ("1 h:1 --page terminal --web-auth", "--auth-plugin"),
            ("1 h:1 --page novnc", "core/rfb.js"),
            ("1 h:1 --page other", "terminal"),
            ("1 h:1 --header Connection:close", "--header"),
            ("1 h:1 --record /not/there/rec", "/not/there/rec"),
        ] {
            let error = settled(line).err().unwrap_or_else(|| panic!("{line} was taken"));
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
