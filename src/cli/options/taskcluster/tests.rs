//! What the environment of websocktunnel makes of a relay, and what goes before it.

use super::super::{Resolved, add, resolve};
use super::*;

/// Nothing else than these is there, not even a home.
fn run(args: &[&str], vars: &[(&str, &str)]) -> Result<Resolved, Vec<String>> {
    let command = add(clap::Command::new("relay").no_binary_name(true), |_| true);
    let vars = vars.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
    resolve(&command.try_get_matches_from(args).unwrap(), &Env { vars, root: false })
}

const A: (&str, &str) = (SECRET, "secret-a");
const PREFIX: (&str, &str) = ("URL_PREFIX", "https://tunnel.example.com/");

/// Certificate and key, as they are in the environment.
fn pair(name: &str) -> [String; 2] {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    [made.cert.pem(), made.signing_key.serialize_pem()].map(|pem| base64(pem.as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let digit = digits[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at > group.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

fn secrets(config: &RelayConfig) -> Vec<&str> {
    config.worker_tokens.iter().flat_map(|tokens| tokens.secrets.iter()).map(Secret::expose).collect()
}

#[test]
fn the_environment_alone_is_a_relay_without_a_disk() {
    let vars = [A, (OTHER_SECRET, "b"), PREFIX, ("AUDIENCE", "ws"), ("ENV", "production")];
    let resolved = run(&[], &[&vars[..], &[("SYSLOG_ADDR", "log.example:514")]].concat()).unwrap();
    assert!(resolved.in_memory && resolved.is_taskcluster);
    let config = &resolved.config;
    assert_eq!(secrets(config), ["secret-a", "b"]);
    assert_eq!(config.worker_tokens.as_ref().unwrap().audience.as_deref(), Some("ws"));
    assert_eq!(config.public_url.as_ref().unwrap().to_string(), "https://tunnel.example.com");
    assert_eq!((config.listen.len(), config.listen[0].port()), (1, 80));
    assert!(config.listen[0].ip().is_unspecified() && config.listen_tls.is_empty());
    assert_eq!((config.log, config.https_redirect), (LogFormat::Json, false));
    assert_eq!(config.syslog.address.as_ref().unwrap().to_string(), "udp://log.example:514");
    let shown = resolved.to_toml();
    for line in [
        "worker-secret = [\"***\", \"***\"]  # environment TASKCLUSTER_PROXY_SECRET_A and TASKCLUSTER_PROXY_SECRET_B\n",
        "worker-audience = \"ws\"  # environment AUDIENCE\n",
        "public-url = \"https://tunnel.example.com\"  # environment URL_PREFIX\n",
        "log = \"json\"  # environment ENV\n",
        "syslog = \"udp://log.example:514\"  # environment SYSLOG_ADDR\n",
        "https-redirect = \"off\"  # environment TASKCLUSTER_PROXY_SECRET_A\n",
        "# data-dir is not set: everything is in memory\n",
    ] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
    assert!(!shown.contains("secret-a"));
}

#[test]
fn without_the_secret_none_of_it_is_read() {
    let vars = [
        ("HOME", "/home/ann"),
        ("HOSTNAME", "box"),
        ("PORT", "nonsense"),
        ("ENV", "production"),
        ("AUDIENCE", "ws"),
        ("TLS_KEY", "?"),
        (SECRET, ""),
    ];
    let resolved = run(&[], &vars).unwrap();
    assert!(!resolved.in_memory && !resolved.is_taskcluster);
    assert_eq!(resolved.to_toml(), run(&[], &vars[..1]).unwrap().to_toml());
    let errors = run(&[], &[vars[0], (OTHER_SECRET, "b")]).unwrap_err();
    assert!(errors.len() == 1 && errors[0].contains(&format!("set {SECRET}")), "{errors:?}");
}

#[test]
fn our_own_flags_variables_and_file_go_before_it() {
    let vars = [
        A,
        PREFIX,
        ("PORT", "8000"),
        ("ENV", "production"),
        ("AUDIENCE", "theirs"),
        ("ADIT_WORKER_SECRET", "ours-1, ours-2"),
        ("ADIT_WORKER_AUDIENCE", "ours"),
        ("ADIT_DATA_DIR", "/data"),
        ("ADIT_PUBLIC_URL", "http://our.example"),
    ];
    let args = ["--listen", "127.0.0.1:7000", "--log", "text", "--https-redirect", "on"];
    let resolved = run(&args, &vars).unwrap();
    assert!(!resolved.in_memory && resolved.is_taskcluster);
    let config = resolved.config;
    assert_eq!(secrets(&config), ["ours-1", "ours-2"]);
    assert_eq!(config.worker_tokens.as_ref().unwrap().audience.as_deref(), Some("ours"));
    assert_eq!(config.listen, ["127.0.0.1:7000".parse().unwrap()]);
    assert_eq!(config.public_url.unwrap().to_string(), "http://our.example");
    assert_eq!((config.log, config.https_redirect), (LogFormat::Text, true));
    assert_eq!(config.data_dir.to_str(), Some("/data"));
    // A listener for TLS alone takes the place of the one at PORT, too.
    let [certificate, key] = pair("a.test");
    let config =
        run(&["--listen-tls", "127.0.0.1:7443"], &[A, PREFIX, (CERTIFICATE, &certificate), (KEY, &key)]);
    let config = config.unwrap().config;
    assert_eq!((config.listen, config.listen_tls), (vec![], vec!["127.0.0.1:7443".parse().unwrap()]));
}

#[test]
fn a_secret_that_is_given_twice_counts_once() {
    let resolved = run(&[], &[A, (OTHER_SECRET, A.1), PREFIX]).unwrap();
    assert_eq!(secrets(&resolved.config), ["secret-a"]);
    assert!(resolved.to_toml().contains("[\"***\"]  # environment TASKCLUSTER_PROXY_SECRET_A\n"));
}

#[test]
fn a_host_name_makes_a_url_with_the_port_unless_that_goes_without_saying() {
    let [certificate, key] = pair("box");
    let tls = [(CERTIFICATE, certificate.as_str()), (KEY, &key)];
    let url = |vars: &[(&str, &str)]| {
        let vars = [&[A, ("HOSTNAME", "box")], vars].concat();
        run(&[], &vars).unwrap().config.public_url.unwrap().to_string()
    };
    assert_eq!(url(&[]), "http://box");
    assert_eq!(url(&[("PORT", "443")]), "http://box:443");
    assert_eq!(url(&tls), "https://box");
    assert_eq!(url(&[&tls[..], &[("PORT", "8443")]].concat()), "https://box:8443");
    assert_eq!(url(&[PREFIX]), "https://tunnel.example.com");
    assert!(
        run(&["--base-domain", "a.example"], &[A, ("HOSTNAME", "box")]).unwrap().config.public_url.is_none()
    );
}

#[test]
fn a_certificate_of_the_environment_makes_a_listener_for_tls() {
    let [certificate, key] = pair("tunnel.example.com");
    // As `base64` prints it.
    let lines: Vec<_> = certificate.as_bytes().chunks(76).map(|line| str::from_utf8(line).unwrap()).collect();
    let lines = lines.join("\n") + "\n";
    let resolved = run(&[], &[A, PREFIX, ("PORT", "8443"), (CERTIFICATE, &lines), (KEY, &key)]).unwrap();
    let config = &resolved.config;
    assert_eq!(config.tls_given[0].names, ["tunnel.example.com"]);
    assert_eq!((config.listen.len(), config.listen_tls[0].port()), (0, 8443));
    let shown = resolved.to_toml();
    assert!(shown.contains("# tls-key is not set: it is in environment TLS_KEY\n"), "{shown}");
    assert!(shown.contains("environment PORT"), "{shown}");
}

#[test]
fn what_cannot_be_used_is_named_and_not_shown() {
    let ([certificate, key], [other, _]) = (pair("a.test"), pair("b.test"));
    let nothing = base64(b"nothing");
    for (vars, named) in [
        (&[(CERTIFICATE, certificate.as_str())][..], "environment TLS_CERTIFICATE: TLS_KEY is not set"),
        (&[(KEY, &key)], "environment TLS_KEY: TLS_CERTIFICATE is not set"),
        (&[(CERTIFICATE, "?"), (KEY, &key)], "environment TLS_CERTIFICATE: the value is not base64"),
        (&[(CERTIFICATE, &certificate), (KEY, "?")], "environment TLS_KEY: the value is not base64"),
        (&[(CERTIFICATE, &nothing), (KEY, &key)], "no certificate in PEM is in environment TLS_CERTIFICATE"),
        (&[(CERTIFICATE, &certificate), (KEY, &nothing)], "no private key in PEM is in environment TLS_KEY"),
        (&[(CERTIFICATE, &other), (KEY, &key)], "cannot be used together"),
        (&[("PORT", "0")], "environment PORT: \"0\": expected a port from 1 to 65535"),
        (&[("PORT", "+80")], "environment PORT"),
        (&[("URL_PREFIX", "https://a.example/tunnel")], "without a path"),
        (&[("URL_PREFIX", ""), ("HOSTNAME", "a b")], "set URL_PREFIX"),
        (&[("URL_PREFIX", "")], "set URL_PREFIX"),
        (&[("ENV", "production"), ("SYSLOG_ADDR", "nowhere")], "environment SYSLOG_ADDR: \"nowhere\""),
        (&[(SECRET, "***")], "environment TASKCLUSTER_PROXY_SECRET_A: secret 1 is the ***"),
        (&[("ADIT_ACME_EMAIL", "me@example.com")], "give data-dir"),
    ] {
        let errors = run(&[], &[&[A, PREFIX], vars].concat()).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains(named), "{errors:?} should say {named}");
        assert!(!errors[0].contains(&key[..40]) && !errors[0].contains("secret-a"), "{errors:?}");
    }
}
