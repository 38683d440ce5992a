//! From what was typed to what a bridge is to do; what makes no sense is a usage error that says what does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::doors;
use super::flags::{FileWords, Flags, LogForm};
use crate::bridge::{Authorities, BridgeConfig, Pair, ServerTls, Target, TargetTls};
use crate::proto::api::ProxyProtocol;
use crate::relay::config::{Facility, LogFormat, SyslogAddress, SyslogConfig, SyslogFormat};

/// The certificate that is taken where none is named, as websockify does.
const USUAL_CERTIFICATE: &str = "self.pem";

/// What was typed cannot be meant so; the text says what can.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub String);

/// The words before `--`, by what they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// Where to listen; none: a socket is given, or a path.
    pub sources: Vec<String>,
    /// Where WebSockets lead to; `None`: something else says so.
    pub target: Option<Target>,
}

/// Sorts the words. `given`: listening sockets come from a supervisor.
pub(super) fn words(flags: &Flags, given: bool) -> Result<Words, Usage> {
    let (source_flag, target_flag) = in_place_of_words(flags);
    let (without_source, elsewhere) = (source_flag.is_some(), target_flag.is_some());
    if let Some(file) = &flags.file {
        return words_and_file(flags, file, without_source || given, elsewhere);
    }
    let (source, target) = match (&flags.words[..], without_source, elsewhere) {
        ([], true, true) => (None, None),
        ([], _, true) if given => (None, None),
        ([target], true, false) => (None, Some(target)),
        ([target], _, false) if given && target.contains(':') => (None, Some(target)),
        ([source], false, true) => (Some(source), None),
        ([source, target], false, false) => (Some(source), Some(target)),
        (words, ..) => {
            let wanted = [source_flag, target_flag].iter().filter(|flag| flag.is_none()).count();
            let how_many = if words.len() < wanted { "few" } else { "many" };
            let source = source_flag.unwrap_or("[ADDRESS:]PORT");
            let target = target_flag.unwrap_or("HOST:PORT");
            return Err(Usage(format!("too {how_many} arguments: write adit bridge {source} {target}")));
        }
    };
    let through = flags.through.through.is_some();
    let target = match (target, &flags.unix_target) {
        // What is behind a tunnel is mostly this machine.
        (Some(port), _) if through && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(self::target(&format!("localhost:{port}"))?)
        }
        (Some(target), _) => Some(self::target(target)?),
        (None, Some(path)) => Some(Target::Unix(absolute(path)?)),
        (None, None) => None,
    };
    Ok(Words { sources: source.cloned().into_iter().collect(), target })
}

/// The flags that say where to listen, and where WebSockets lead to, in the place of a word, as they are typed.
fn in_place_of_words(flags: &Flags) -> (Option<&'static str>, Option<&'static str>) {
    let sources = [
        (flags.inetd, "--inetd"),
        (flags.unix_listen.is_some(), "--unix-listen PATH"),
        (flags.through.through.is_some(), "--through RELAY"),
    ];
    let targets = [
        (flags.unix_target.is_some(), "--unix-target PATH"),
        (flags.token_plugin.is_some(), "--token-plugin NAME"),
        (flags.target_config.is_some(), "--target-config FILE"),
        (!flags.command.is_empty(), "-- COMMAND"),
    ];
    let first =
        |flags: &[(bool, &'static str)]| flags.iter().find(|(given, _)| *given).map(|(_, flag)| *flag);
    (first(&sources), first(&targets))
}

/// What was typed goes before what stands in the file.
fn words_and_file(
    flags: &Flags,
    file: &FileWords,
    without_source: bool,
    elsewhere: bool,
) -> Result<Words, Usage> {
    if flags.inetd && !flags.words.is_empty() {
        return Err(Usage("--inetd is in the place of [ADDRESS:]PORT: give one of them".into()));
    }
    let (sources, target) = match &flags.words[..] {
        [] => (file.listen.clone(), None),
        [source] => (vec![source.clone()], None),
        [source, target] => (vec![source.clone()], Some(target)),
        _ => return Err(Usage("too many arguments: [ADDRESS:]PORT HOST:PORT".into())),
    };
    if sources.is_empty() && !without_source {
        return Err(Usage(
            "nobody says where to listen: write listen = \"[ADDRESS:]PORT\" in the file".into(),
        ));
    }
    let target = match (target, &flags.unix_target, file.target.as_ref()) {
        (Some(target), _, _) | (None, None, Some(target)) => Some(self::target(target)?),
        (None, Some(path), _) => Some(Target::Unix(absolute(path)?)),
        (None, None, None) => None,
    };
    if target.is_none() && !elsewhere && !file.has_routes {
        return Err(Usage(
            "WebSockets lead nowhere: write a [[route]], or target = \"HOST:PORT\", in the file".into(),
        ));
    }
    Ok(Words { sources, target })
}

/// A flag that says something of what another one asks for. Of the command line and the file together, as either may have either.
fn alone(flags: &Flags) -> Result<(), Usage> {
    let ours = &flags.ours;
    for (given, flag, there, needed) in [
        (flags.legacy_syslog, "--legacy-syslog", flags.syslog.is_some(), "--syslog"),
        (
            flags.unix_listen_mode.is_some(),
            "--unix-listen-mode",
            flags.unix_listen.is_some(),
            "--unix-listen",
        ),
        (
            ours.accept_proxy_protocol,
            "--accept-proxy-protocol",
            !ours.trusted_proxy.is_empty(),
            "--trusted-proxy",
        ),
        (flags.through.name.is_some(), "--name", flags.through.through.is_some(), "--through"),
        (flags.cafile.is_some(), "--cafile", flags.verify_client, "--verify-client"),
    ] {
        if given && !there {
            return Err(Usage(format!("{flag} goes with {needed}: give both, or neither")));
        }
    }
    Ok(())
}

/// The settings of the bridge. Paths are absolute, as a daemon stands elsewhere.
pub(super) fn config(flags: &Flags, target: Option<Target>) -> Result<BridgeConfig, Usage> {
    alone(flags)?;
    let mut config = BridgeConfig::default();
    let ours = &flags.ours;
    config.tls = tls(flags)?;
    config.handshake_wait = ours.handshake_timeout;
    config.trusted_proxies.clone_from(&ours.trusted_proxy);
    config.accept_proxy_protocol = ours.accept_proxy_protocol;
    config.run_once = flags.run_once;
    config.timeout = unless_zero(flags.timeout);
    config.idle_timeout = unless_zero(flags.idle_timeout);
    config.drain = ours.drain;
    let service = &mut config.service;
    service.target = target;
    service.connect_first = ours.connect_first.unwrap_or_default();
    service.protocol.clone_from(&ours.protocol);
    service.frame_type = ours.frame_type;
    service.text = ours.text;
    service.max_frame = ours.max_frame.unwrap_or(service.max_frame);
    service.half_close = ours.half_close.0;
    service.heartbeat = unless_zero(flags.heartbeat);
    service.idle = unless_zero(ours.session_idle);
    let dialling = &mut service.dialling;
    dialling.wait = ours.connect_timeout;
    dialling.prefer_ipv6 = flags.prefer_ipv6;
    dialling.proxy_protocol = ours.proxy_protocol.map(|version| match version {
        1 => ProxyProtocol::V1,
        _ => ProxyProtocol::V2,
    });
    dialling.tls = match &ours.ssl_target_ca {
        Some(path) => Some(TargetTls::Authorities(absolute(path)?)),
        None if ours.ssl_target_insecure => Some(TargetTls::Unverified),
        None => flags.ssl_target.then_some(TargetTls::System),
    };
    doors::settle(flags, &mut config)?;
    Ok(config)
}

fn tls(flags: &Flags) -> Result<Option<ServerTls>, Usage> {
    if flags.key_password.is_some() {
        return Err(Usage(
            "--key-password: keys are read without a password only. Write this one without, readable by its owner alone: \
             umask 077; openssl pkey -in KEY -out PLAIN.pem; and give --key PLAIN.pem"
                .into(),
        ));
    }
    let only_tls13 = match flags.ssl_version.as_deref() {
        None | Some("default" | "tlsv1_2") => false,
        Some("tlsv1_3") => true,
        Some(other @ ("tlsv1_1" | "tlsv1" | "sslv3" | "sslv23")) => {
            return Err(Usage(format!(
                "--ssl-version {other}: nothing below TLS 1.2 is spoken, as it is broken (RFC 8996): give tlsv1_2 or tlsv1_3"
            )));
        }
        Some(other) => {
            return Err(Usage(format!("--ssl-version {other}: expected default, tlsv1_2 or tlsv1_3")));
        }
    };
    let wanted = flags.ssl_only || flags.verify_client || flags.key.is_some();
    let certificate = match &flags.cert {
        Some(path) if !path.exists() => {
            return Err(Usage(format!("--cert: {} is not found", path.display())));
        }
        Some(path) => absolute(path)?,
        None if Path::new(USUAL_CERTIFICATE).exists() => absolute(Path::new(USUAL_CERTIFICATE))?,
        None if wanted => {
            return Err(Usage(format!(
                "TLS is asked for, and {USUAL_CERTIFICATE} is not found: give --cert FILE"
            )));
        }
        None => return Ok(None),
    };
    if flags.cert.is_some() && flags.key.is_none() && lacks_key(&certificate) {
        return Err(Usage(format!(
            "--cert: there is no private key in {}: give the file that has it by --key",
            certificate.display()
        )));
    }
    let key = flags.key.as_deref().map_or_else(|| Ok(certificate.clone()), absolute)?;
    let mut tls = ServerTls::new(Pair { certificate, key });
    tls.only = flags.ssl_only;
    tls.only_tls13 = only_tls13;
    let suites = flags.ssl_ciphers.iter().flat_map(|list| list.split([':', ',', ' ']));
    tls.suites = suites.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    tls.verify = match &flags.cafile {
        Some(path) => Some(Authorities::File(absolute(path)?)),
        None => flags.verify_client.then_some(Authorities::System),
    };
    Ok(Some(tls))
}

/// Whether the file can be read, and has no key at all: what is wrong with one that it has is told when it is used.
fn lacks_key(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| !text.contains("PRIVATE KEY-----"))
}

/// How the log is written.
pub(super) fn log(flags: &Flags) -> Result<(LogFormat, SyslogConfig), Usage> {
    let format = match flags.ours.log_format {
        LogForm::Text => LogFormat::Text,
        LogForm::Json => LogFormat::Json,
    };
    let mut syslog = SyslogConfig::default();
    if let Some(server) = &flags.syslog {
        let address =
            SyslogAddress::parse(server).map_err(|error| Usage(format!("--syslog {server}: {error}")))?;
        syslog.address = Some(address);
        syslog.format = flags.legacy_syslog.then_some(SyslogFormat::Local);
        if !flags.daemon {
            syslog.facility = Facility::parse("user").map_err(Usage)?;
        }
    }
    Ok((format, syslog))
}

/// websockify has 0 for never.
fn unless_zero(time: Option<Duration>) -> Option<Duration> {
    time.filter(|time| !time.is_zero())
}

/// A target as it was typed.
pub(super) fn target(text: &str) -> Result<Target, Usage> {
    match text.parse().map_err(|error| Usage(format!("{error}")))? {
        Target::Unix(path) => absolute(&path).map(Target::Unix),
        target => Ok(target),
    }
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf, Usage> {
    std::path::absolute(path).map_err(|error| Usage(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn flags(line: &str) -> Flags {
        let command = Flags::augment_args(Command::new("bridge").infer_long_args(true));
        let typed = std::iter::once("bridge").chain(line.split_whitespace());
        Flags::from_arg_matches(&command.try_get_matches_from(typed).unwrap()).unwrap()
    }

    fn sorted(line: &str, given: bool) -> Result<(Option<String>, Option<String>), String> {
        let words = words(&flags(line), given).map_err(|error| error.to_string())?;
        Ok((words.sources.first().cloned(), words.target.map(|target| target.to_string())))
    }

    #[test]
    fn every_form_of_the_command_line_is_read() {
        let (source, target) = (|text: &str| Some(text.to_owned()), |text: &str| Some(text.to_owned()));
        for (line, given, expected) in [
            ("6080 localhost:5900", false, (source("6080"), target("localhost:5900"))),
            ("[::1]:6080 [::1]:5900 -v -D", false, (source("[::1]:6080"), target("[::1]:5900"))),
            ("--unix-target=/x/y 6080", false, (source("6080"), target("unix_socket:/x/y"))),
            ("--unix-listen=/x/l h:1", false, (None, target("h:1"))),
            ("--unix-listen=/x/l --unix-target=/x/y", false, (None, target("unix_socket:/x/y"))),
            ("--inetd h:1", false, (None, target("h:1"))),
            ("--token-plugin TokenFile --token-source t 6080", false, (source("6080"), None)),
            ("--target-config=t 127.0.0.1:6080", false, (source("127.0.0.1:6080"), None)),
            ("6080 --wrap-mode=respawn -- program --its-option 1", false, (source("6080"), None)),
            ("--through https://relay.test --name desk 5900", false, (None, target("localhost:5900"))),
            ("h:1", true, (None, target("h:1"))),
            ("6080 h:1", true, (source("6080"), target("h:1"))),
        ] {
            assert_eq!(sorted(line, given), Ok(expected), "{line}");
        }
        for line in ["", "6080", "--inetd", "--unix-target=/x"] {
            assert!(sorted(line, false).unwrap_err().starts_with("too few"), "{line}");
        }
        for line in ["1 h:1 more", "--inetd 1 h:1", "--unix-target=/x 1 h:1"] {
            assert!(sorted(line, false).unwrap_err().starts_with("too many"), "{line}");
        }
        for (line, form) in [
            ("", "[ADDRESS:]PORT HOST:PORT"),
            ("--inetd 1 h:1", "--inetd HOST:PORT"),
            ("--unix-listen /x 1 h:1", "--unix-listen PATH HOST:PORT"),
            ("--unix-target /x 1 h:1", "[ADDRESS:]PORT --unix-target PATH"),
            ("--target-config x 1 h:1", "[ADDRESS:]PORT --target-config FILE"),
            ("1 h:1 -- ls", "[ADDRESS:]PORT -- COMMAND"),
            ("-- sleep 1", "[ADDRESS:]PORT -- COMMAND"),
        ] {
            let error = sorted(line, false).unwrap_err();
            assert!(error.ends_with(&format!(": write adit bridge {form}")), "{line}: {error}");
        }
        assert!(sorted("6080 h:x", false).unwrap_err().contains("no port"));
        assert!(flags("--run 1 h:1 --timeout=3").run_once, "long options may be cut short");
    }

    #[test]
    fn what_is_not_kept_is_refused_with_what_to_do_instead() {
        for (line, said) in [
            ("--key-password x 1 h:1", "openssl pkey"),
            ("--ssl-version tlsv1_1 1 h:1", "tlsv1_2"),
            ("--ssl-version best 1 h:1", "tlsv1_3"),
            ("--cert /not/there.pem 1 h:1", "/not/there.pem"),
            ("--ssl-only 1 h:1", "--cert FILE"),
            ("--legacy-syslog 1 h:1", "--legacy-syslog goes with --syslog"),
            ("--unix-listen-mode 0660 1 h:1", "--unix-listen:"),
            ("--accept-proxy-protocol 1 h:1", "--trusted-proxy:"),
            ("--name desk 1 h:1", "--through:"),
        ] {
            let error = config(&flags(line), None).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let never = config(&flags("--heartbeat 0 --timeout 0 1 h:1"), None).unwrap();
        assert_eq!((never.service.heartbeat, never.timeout), (None, None));
        let off = config(&flags("--half-close off 1 h:1"), None).unwrap();
        assert_eq!(off.service.half_close, None);
    }
}
