//! `adit token`: mints the tokens that a relay takes beside keys, and says what is in one and whether it is valid.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use super::key::{date, rfc3339};
use super::options::{self, Env, values};
use crate::auth::Secret;
use crate::auth::jwt::{Inspection, MAX_TOKEN, Object, Secrets, Signature, WorkerTokens};
use crate::client::WorkerId;
use crate::client::text::{visible, visible_json};
use crate::proto::duration;
use crate::proto::name::Name;
use crate::tunnel::unix_ms;

/// Claims that are times (RFC 7519, section 4.1).
const TIMES: [&str; 3] = ["exp", "nbf", "iat"];

/// What is read of stdin: more than the longest token, so that a longer one is told from it.
const MAX_INPUT: u64 = 2 * MAX_TOKEN as u64;

const NO_SECRET: &str = "no secret is known here; give the relay's as ADIT_JWT_SECRET, in the file that --config names, \
                         or with --jwt-secret";
const NO_WORKER_SECRET: &str = "no secret is known here; give the relay's as ADIT_WORKER_SECRET or TASKCLUSTER_PROXY_SECRET_A, or with \
                                --jwt-secret";

/// The subcommand with its own subcommands.
pub(super) fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let mint = Command::new("mint")
        .about("Signs a token and prints it; the first secret signs")
        .arg(
            option("sub", "NAME", "Owner of the tunnels, as the name of a key")
                .required_unless_present("worker"),
        )
        .arg(option("ttl", "DURATION", "How long it is valid from now on, at most 31d").default_value("1h"))
        .arg(option("tid", "NAME", "Limits it to the tunnel of this name"))
        .arg(
            option("worker", "ID", "Signs a token for the worker of this id instead (`adit wst`); without --jwt-secret with ADIT_WORKER_SECRET or TASKCLUSTER_PROXY_SECRET_A")
                .value_parser(worker_id)
                .conflicts_with_all(["sub", "tid"]),
        )
        .arg(option("audience", "NAME", "Audience of the relay that the worker's token is for").requires("worker"));
    let token = "Token to look at; - or nothing: from stdin, as other users of the machine see command lines";
    let inspect = Command::new("inspect")
        .about("Shows what a token says and every rule that it breaks; exit code 0: valid, 1: not valid")
        .arg(Arg::new("token").value_name("TOKEN").help(token))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON"))
        .arg(
            option("worker", "ID", "The exit code says whether it is valid for the worker of this id")
                .value_parser(worker_id),
        )
        .arg(option("audience", "NAME", "Audience of the relay, which a worker's token must name"));
    let place = |option: &options::Opt| matches!(option.key, "jwt-secret" | "config");
    Command::new("token")
        .about("Mints and inspects tokens, which a relay with --jwt-secret takes beside keys")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([mint, inspect].map(|subcommand| options::add(subcommand, place)))
}

/// Does what was asked. The token alone, or what is in it, goes to stdout.
pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Some((action, matches)) = matches.subcommand() else { return Ok(ExitCode::from(super::USAGE)) };
    let secrets = match secrets(action, matches, &Env::process()) {
        Ok(secrets) => secrets,
        Err(errors) => return Ok(usage(action, &errors)),
    };
    let (now, mut stdout) = (unix_ms(), std::io::stdout());
    if action == "mint" {
        let minted = match matches.get_one::<String>("worker") {
            Some(id) => mint_for_worker(matches, id, secrets, now),
            None => mint(matches, secrets, now),
        };
        return match minted {
            Ok((token, hint)) => {
                stdout.write_all(format!("{token}\n").as_bytes()).context("stdout")?;
                eprintln!("adit token mint: {hint}");
                Ok(ExitCode::SUCCESS)
            }
            Err(sentence) => Ok(usage(action, &[sentence])),
        };
    }
    let token = match matches.get_one::<String>("token").map(String::as_str) {
        None | Some("-") => from_stdin().context("stdin")?,
        Some(token) => token.trim().to_owned(),
    };
    if token.is_empty() {
        return Ok(usage(action, &["there is no token; give it as argument or on stdin".into()]));
    }
    let looked = Looked::at(&token, secrets, matches, now);
    let shown = if matches.get_flag("json") { looked.as_json(now)? } else { looked.as_text(now) };
    stdout.write_all(shown.as_bytes()).context("stdout")?;
    Ok(if looked.asked.is_valid() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Those of workers may be short, and are looked for in the place of others to look at a token, but not to sign one.
fn secrets(action: &str, matches: &ArgMatches, env: &Env) -> Result<Vec<Secret>, Vec<String>> {
    if matches.get_one::<String>("worker").is_some() {
        return options::worker_secrets(matches, env);
    }
    let secrets = options::jwt_secrets(matches, env)?;
    let others = secrets.is_empty() && action == "inspect";
    Ok(if others { options::taskcluster_secrets(env) } else { secrets })
}

/// Reads the id of a worker.
fn worker_id(text: &str) -> Result<String, String> {
    WorkerId::parse(text).map(|id| id.as_str().to_owned()).map_err(|error| error.to_string())
}

fn worker_tokens(matches: &ArgMatches, secrets: Vec<Secret>) -> WorkerTokens {
    let audience = matches.get_one::<String>("audience").cloned();
    WorkerTokens { secrets: Secrets::new(secrets), audience }
}

fn usage(action: &str, sentences: &[String]) -> ExitCode {
    super::http::usage(&format!("token {action}"), sentences)
}

fn from_stdin() -> std::io::Result<String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("adit token inspect: paste the token, then press Ctrl-D on a line of its own");
    }
    let mut bytes = Vec::new();
    stdin.take(MAX_INPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The token, and what to say of it. The error is a sentence.
fn mint(matches: &ArgMatches, secrets: Vec<Secret>, now: i64) -> Result<(String, String), String> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let (sub, ttl) = (text("sub").unwrap_or_default(), text("ttl").unwrap_or_default());
    values::key_name(sub).map_err(|error| format!("--sub: {error}"))?;
    let tid = text("tid").map(Name::parse).transpose().map_err(|error| format!("--tid: {error}"))?;
    let lifetime = duration::parse(ttl).map_err(|error| format!("--ttl: {error}"))?;
    if secrets.is_empty() {
        return Err(NO_SECRET.into());
    }
    let minted = Secrets::new(secrets).mint(sub, tid.as_ref(), lifetime, now);
    let token = minted.map_err(|error| format!("--ttl {}: {error}", visible(ttl)))?;
    let whose = tid.map_or_else(String::new, |tid| format!(", for the tunnel {tid} alone"));
    let end = end(now, lifetime);
    Ok((token, format!("a token of {sub:?}{whose}, valid until {end}; it cannot be revoked")))
}

/// The same for the worker `id`.
fn mint_for_worker(
    matches: &ArgMatches,
    id: &str,
    secrets: Vec<Secret>,
    now: i64,
) -> Result<(String, String), String> {
    let ttl = matches.get_one::<String>("ttl").map(String::as_str).unwrap_or_default();
    let lifetime = duration::parse(ttl).map_err(|error| format!("--ttl: {error}"))?;
    if secrets.is_empty() {
        return Err(NO_WORKER_SECRET.into());
    }
    let minted = worker_tokens(matches, secrets).mint(id, lifetime, now);
    let token = minted.map_err(|error| format!("--ttl {}: {error}", visible(ttl)))?;
    Ok((
        token,
        format!("a token for the worker {id}, valid until {}; it cannot be revoked", end(now, lifetime)),
    ))
}

fn end(now: i64, lifetime: Duration) -> String {
    rfc3339(now.saturating_add(i64::try_from(lifetime.as_secs() * 1000).unwrap_or(i64::MAX)))
}

/// What was found in a token.
struct Looked {
    /// How many secrets there were.
    known: usize,
    /// As what was asked for: one for tunnels, or that of a worker.
    asked: Inspection,
    /// As a worker's, where that was not asked for and there is a `tid`.
    worker: Option<Inspection>,
}

impl Looked {
    fn at(token: &str, secrets: Vec<Secret>, matches: &ArgMatches, now: i64) -> Self {
        let known = secrets.len();
        let ours = Secrets::new(secrets.clone()).inspect(token, now);
        let tokens = worker_tokens(matches, secrets);
        if let Some(id) = matches.get_one::<String>("worker") {
            return Self { known, asked: tokens.inspect(token, Some(id), now), worker: None };
        }
        let has_tid = ours.claims.as_ref().is_some_and(|claims| claims.contains_key("tid"));
        let worker = has_tid.then(|| tokens.inspect(token, None, now));
        Self { known, asked: ours, worker }
    }

    fn as_text(&self, now: i64) -> String {
        let worker = self.worker.as_ref().map(|worker| format!("for a worker: {}", verdict(worker, now)));
        as_text(&self.asked, self.known, now) + &worker.unwrap_or_default()
    }

    fn as_json(&self, now: i64) -> anyhow::Result<String> {
        let worker = self.worker.as_ref().map(|worker| {
            let errors: Vec<_> = worker.broken.iter().map(ToString::to_string).collect();
            json!({ "valid": worker.is_valid(), "errors": errors })
        });
        as_json(&self.asked, worker, now)
    }
}

fn as_text(inspection: &Inspection, known: usize, now: i64) -> String {
    let mut text = String::new();
    for (title, object) in [("header", &inspection.header), ("claims", &inspection.claims)] {
        match object {
            None => text += &format!("{title}: not readable\n"),
            Some(object) => {
                text += &format!("{title}:\n");
                for (name, value) in object {
                    // As JSON, a text that looks like a number is told from one.
                    text += &format!("  {}: {}", visible(name), visible(&value.to_string()));
                    text += &time_of(name, value).map_or_else(String::new, |at| when(at, now));
                    text.push('\n');
                }
            }
        }
    }
    text += &match inspection.signature {
        Signature::Fits(at) => format!("signature: fits secret {} of {known}\n", at + 1),
        Signature::FitsNone => format!("signature: fits none of the secrets known here ({known})\n"),
        Signature::NoSecret => format!("signature: not checked, as {NO_SECRET}\n"),
    };
    text + &verdict(inspection, now)
}

fn verdict(inspection: &Inspection, now: i64) -> String {
    let left = left(inspection, now).map(duration::format).unwrap_or_default();
    if inspection.is_valid() {
        return format!("valid: for {left} more\n");
    }
    if inspection.broken.is_empty() {
        return format!("not known to be valid: nothing else is wrong with it, for {left} more\n");
    }
    let broken = inspection.broken.iter().map(|error| format!("  - {error}\n"));
    "not valid:\n".to_owned() + &broken.collect::<String>()
}

fn as_json(inspection: &Inspection, worker: Option<Value>, now: i64) -> anyhow::Result<String> {
    let object = |object: &Option<Object>| object.clone().map_or(Value::Null, Value::Object);
    let time = |name: &str| millis(inspection, name).and_then(date);
    let (signature, secret) = match inspection.signature {
        Signature::Fits(at) => ("fits", Some(at + 1)),
        Signature::FitsNone => ("fits_none", None),
        Signature::NoSecret => ("no_secret", None),
    };
    let json = json!({
        "valid": inspection.is_valid(),
        "errors": inspection.broken.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "signature": signature,
        "secret": secret,
        "not_before": time("nbf"),
        "expires_at": time("exp"),
        "seconds_left": left(inspection, now).map(|left| left.as_secs()),
        "header": object(&inspection.header),
        "claims": object(&inspection.claims),
        "worker": worker,
    });
    Ok(visible_json(&serde_json::to_string_pretty(&json)?).into_owned() + "\n")
}

/// Unix milliseconds of a claim that is a time.
fn time_of(name: &str, value: &Value) -> Option<i64> {
    let seconds = TIMES.contains(&name).then(|| value.as_f64()).flatten()?;
    // Out of range it becomes the last there is.
    Some((seconds * 1000.0) as i64)
}

fn millis(inspection: &Inspection, name: &str) -> Option<i64> {
    time_of(name, inspection.claims.as_ref()?.get(name)?)
}

/// Until `exp`, if that is to come, to the second.
fn left(inspection: &Inspection, now: i64) -> Option<Duration> {
    let left = millis(inspection, "exp")?.saturating_sub(now);
    u64::try_from(left).ok().map(|left| Duration::from_secs(left / 1000))
}

/// A time in brackets, and how far it is away, to the second.
fn when(at: i64, now: i64) -> String {
    let Some(date) = date(at) else { return String::new() };
    let away = |from: i64, to: i64| duration::format(Duration::from_secs(from.abs_diff(to) / 1000));
    if at > now {
        format!(" ({date}, in {})", away(at, now))
    } else {
        format!(" ({date}, {} ago)", away(at, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2023-11-14T22:13:20.5Z.
    const NOW: i64 = 1_700_000_000_500;
    const ONE: &str = "one-one-one-one-one-one-one-one-one";
    const TWO: &str = "two-two-two-two-two-two-two-two-two";

    fn parsed(line: &[&str]) -> (ArgMatches, Vec<Secret>) {
        let matches = command().try_get_matches_from([&["token"], line].concat()).unwrap();
        let matches = matches.subcommand().unwrap().1.clone();
        let secrets = options::jwt_secrets(&matches, &Env::default()).unwrap();
        (matches, secrets)
    }

    fn minted(line: &[&str]) -> Result<String, String> {
        let (matches, secrets) = parsed(&[&["mint"], line].concat());
        mint(&matches, secrets, NOW).map(|(token, _)| token)
    }

    fn inspect(token: &str, texts: &[&str], now: i64) -> Inspection {
        Secrets::new(texts.iter().map(|text| Secret::new(*text)).collect()).inspect(token, now)
    }

    #[test]
    fn the_command_is_sound_and_warns_of_secrets_on_the_command_line() {
        command().debug_assert();
        for subcommand in command().get_subcommands_mut() {
            let help = subcommand.render_long_help().to_string();
            let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(help.contains("ADIT_JWT_SECRET") && help.contains("see command lines"), "{help}");
        }
    }

    #[test]
    fn the_first_secret_signs_for_an_hour_if_nothing_else_is_said() {
        let token = minted(&["--sub", "ci", "--jwt-secret", ONE, "--jwt-secret", TWO]).unwrap();
        let shown = as_text(&inspect(&token, &[ONE], NOW), 1, NOW);
        let expected = "header:\n  alg: \"HS256\"\n  typ: \"JWT\"\n\
                        claims:\n  aud: \"adit\"\n  exp: 1700003600 (2023-11-14T23:13:20Z, in 59m59s)\n  \
                        nbf: 1700000000 (2023-11-14T22:13:20Z, 0s ago)\n  sub: \"ci\"\n\
                        signature: fits secret 1 of 1\nvalid: for 59m59s more\n";
        // The order of claims is the map's.
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&shown), sorted(expected), "{shown}");
    }

    #[test]
    fn what_cannot_be_minted_is_told_with_its_option() {
        let secret = ["--jwt-secret", ONE];
        let all: [(&[&str], &[&str]); 7] = [
            (&["--sub", "a b"], &["--sub", "letters"]),
            (&["--sub", "ci", "--tid", "www"], &["--tid", "reserved"]),
            (&["--sub", "ci", "--ttl", "5x"], &["--ttl", "no duration"]),
            (&["--sub", "ci", "--ttl", "0"], &["--ttl 0", "1s to 31d"]),
            (&["--sub", "ci", "--ttl", "31d1s"], &["--ttl 31d1s", "1s to 31d"]),
            (&["--sub", "ci", "--ttl", "800h"], &["--ttl 800h", "1s to 31d"]),
            (&["--sub", "ci", "--ttl", "0.5s"], &["--ttl 0.5s", "1s to 31d"]),
        ];
        for (line, named) in all {
            let error = minted(&[line, &secret].concat()).unwrap_err();
            assert!(named.iter().all(|named| error.contains(named)), "{named:?} in {error}");
        }
        assert!(minted(&["--sub", "ci"]).unwrap_err().contains("ADIT_JWT_SECRET"));
        assert!(minted(&["--sub", "ci", "--ttl", "31d", "--tid", "web", "--jwt-secret", ONE]).is_ok());
        assert!(command().try_get_matches_from(["token", "mint"]).is_err(), "whose is it");
    }

    #[test]
    fn a_worker_s_token_is_minted_with_a_secret_of_any_length_and_looked_at_as_such() {
        let env = |name: &str, value: &str| Env {
            vars: [(name.to_owned(), value.into())].into(),
            ..Env::default()
        };
        let at = |line: &[&str], env: &Env| {
            let matches = command().try_get_matches_from([&["token"], line].concat()).unwrap();
            let (action, matches) = matches.subcommand().unwrap();
            (secrets(action, matches, env).unwrap(), matches.clone())
        };
        let given = env("TASKCLUSTER_PROXY_SECRET_A", "short");
        let (found, matches) = at(&["mint", "--worker", "a~%2F", "--audience", "us"], &given);
        let (token, hint) = mint_for_worker(&matches, "a~%2F", found, NOW).unwrap();
        assert!(hint.contains("worker a~%2F"), "{hint}");
        let look = |line: &[&str], env: &Env| {
            let (found, matches) = at(&[&["inspect"], line].concat(), env);
            Looked::at(&token, found, &matches, NOW)
        };
        let good = look(&["--worker", "a~%2F", "--audience", "us"], &given);
        assert!(good.asked.is_valid() && good.as_text(NOW).ends_with("\nvalid: for 59m59s more\n"));
        let ours = look(&["--audience", "us"], &given);
        assert!(!ours.asked.is_valid(), "it has no owner");
        assert!(
            ours.as_text(NOW).ends_with("for a worker: valid: for 59m59s more\n"),
            "{}",
            ours.as_text(NOW)
        );
        let json: Value = serde_json::from_str(&ours.as_json(NOW).unwrap()).unwrap();
        assert_eq!((&json["valid"], &json["worker"]["valid"]), (&json!(false), &json!(true)));
        for (line, named) in [
            (&["--worker", "other", "--audience", "us"][..], "ask for one that is made for this id"),
            (&["--worker", "a~%2F"], "was given no audience"),
            (&["--worker", "a~%2F", "--audience", "us", "--jwt-secret", "x"], "fits no secret"),
        ] {
            let bad = look(line, &given);
            assert!(!bad.asked.is_valid() && bad.as_text(NOW).contains(named), "{}", bad.as_text(NOW));
        }
        // A relay that has owners' tokens beside has another secret for those.
        let mut both = env("ADIT_JWT_SECRET", ONE);
        both.vars.insert("ADIT_WORKER_SECRET".to_owned(), TWO.into());
        let (found, _) = at(&["mint", "--worker", "a"], &both);
        assert_eq!(found.iter().map(Secret::expose).collect::<Vec<_>>(), [TWO]);
        let (found, matches) = at(&["mint", "--worker", "a"], &Env::default());
        let error = mint_for_worker(&matches, "a", found, NOW).unwrap_err();
        assert!(error.contains("TASKCLUSTER_PROXY_SECRET_A"), "{error}");
        let refused =
            |line: &[&str]| command().try_get_matches_from([&["token", "mint"], line].concat()).is_err();
        assert!(refused(&["--worker", "a/b"]) && refused(&["--worker", "a", "--sub", "b"]));
        let (found, _) = at(&["mint", "--sub", "ci"], &given);
        assert!(found.is_empty(), "a secret of workers signs no token of owners");
    }

    #[test]
    fn an_inspection_says_what_is_wrong() {
        let token = minted(&["--sub", "ci", "--jwt-secret", ONE]).unwrap();
        let later = NOW + 2 * 3_600_000;
        let shown = as_text(&inspect(&token, &[TWO], later), 1, later);
        for named in ["(2023-11-14T23:13:20Z, 1h0m0s ago)", "fits none", "not valid:\n  - ", "has expired"] {
            assert!(shown.contains(named), "{named} in\n{shown}");
        }
        let shown = as_text(&inspect(&token, &[], NOW), 0, NOW);
        assert!(shown.contains("no secret is known here") && shown.contains("59m59s"), "{shown}");
        let shown = as_text(&inspect("nbk_1", &[ONE], NOW), 1, NOW);
        assert!(shown.contains("header: not readable") && shown.contains("three parts"), "{shown}");
    }

    #[test]
    fn json_has_the_same() {
        let token = minted(&["--sub", "ci", "--jwt-secret", ONE]).unwrap();
        let of = |texts: &[&str], now| -> Value {
            serde_json::from_str(&as_json(&inspect(&token, texts, now), None, now).unwrap()).unwrap()
        };
        let valid = of(&[TWO, ONE], NOW);
        assert_eq!((&valid["valid"], &valid["errors"]), (&json!(true), &json!([])));
        assert_eq!((&valid["signature"], &valid["secret"]), (&json!("fits"), &json!(2)));
        assert_eq!(
            (&valid["expires_at"], &valid["seconds_left"]),
            (&json!("2023-11-14T23:13:20Z"), &json!(3599))
        );
        assert_eq!(valid["claims"]["sub"], "ci");
        let expired = of(&[TWO], NOW + 3_600_000);
        assert_eq!((&expired["valid"], &expired["seconds_left"]), (&json!(false), &Value::Null));
        assert_eq!(
            (&expired["signature"], expired["errors"].as_array().unwrap().len()),
            (&json!("fits_none"), 2)
        );
        assert_eq!(
            (&of(&[], NOW)["signature"], &of(&[], NOW)["valid"]),
            (&json!("no_secret"), &json!(false))
        );
    }

    #[test]
    fn claims_cannot_steer_the_terminal() {
        let claims = json!({"\u{1b}[2J": "\u{1b}\u{7f}\u{9b}31m\u{202e}\r\né𝄞", "exp": 1e300, "nbf": -1e300, "iat": "x"});
        let claims = claims.as_object().cloned();
        let inspection = Inspection { header: None, claims, signature: Signature::NoSecret, broken: vec![] };
        let harmless = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}');
        let text = as_text(&inspection, 0, NOW);
        assert!(harmless(&text), "{text:?}");
        let text = as_json(&inspection, None, NOW).unwrap();
        assert!(harmless(&text), "{text:?}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["claims"].as_object(), inspection.claims.as_ref());
    }
}
