//! Tests of files that are right, and of what is told of those that are not.

use std::time::Duration;

use clap::Arg;

use super::*;
use crate::bridge::{Dialling, Place, Service, Spawn};

fn command() -> Command {
    Command::new("bridge")
        .arg(Arg::new("source"))
        .arg(Arg::new("cert").long("cert"))
        .arg(Arg::new("heartbeat").long("heartbeat"))
        .arg(Arg::new("header").long("header").action(ArgAction::Append))
        .arg(Arg::new("file-only").long("file-only").action(ArgAction::SetTrue))
        .arg(Arg::new("ssl-only").long("ssl-only").action(ArgAction::SetTrue))
        .arg(Arg::new("inetd").long("inetd").action(ArgAction::SetTrue))
        .arg(Arg::new("unix-target").long("unix-target"))
        .arg(Arg::new("config").long("config"))
}

#[test]
fn five_lines_are_enough() {
    let text = "listen = 6080\nweb = '/x'\n[[route]]\npath = '/websockify'\ntarget = '127.0.0.1:5900'\n";
    let file = parse(&text.replace("web", "cert"), &command()).unwrap();
    assert_eq!((file.listen, file.flags), (vec!["6080".to_owned()], vec!["--cert=/x".into()]));
    let [route] = <[RouteFile; 1]>::try_from(file.routes).unwrap();
    let route = route.into_route(&Service::default(), None);
    assert_eq!(route.backends, ["127.0.0.1:5900".parse().unwrap()]);
    assert!(route.service.connect_first && route.service.target.is_none());
}

#[test]
fn flags_are_keys_and_only_those_that_are_on_are_given() {
    let text =
        "target = 'a:1'\nfile-only = true\nssl-only = false\nheartbeat = 5\nheader = ['A: b', 'C: d']\n";
    let file = parse(text, &command()).unwrap();
    assert_eq!(file.target.as_deref(), Some("a:1"));
    assert_eq!(file.flags, ["--file-only", "--heartbeat=5", "--header=A: b", "--header=C: d"]);
}

#[test]
fn what_a_route_does_not_say_is_what_the_command_line_says() {
    let usual = Service {
        heartbeat: Some(Duration::from_secs(9)),
        idle: Some(Duration::from_secs(8)),
        dialling: Dialling { wait: Duration::from_secs(7), ..Dialling::default() },
        ..Service::default()
    };
    let text = "[[route]]\npath = ''\ntarget = 'a:1'\nidle-timeout = 0\nread-timeout = '1m'\ndebug = 4\n\
                [[route]]\npath = ''\ntarget = 'a:1'\nping-interval = 30\n";
    let file = parse(text, &command()).unwrap();
    let [one, two] =
        <[RouteFile; 2]>::try_from(file.routes).unwrap().map(|route| route.into_route(&usual, None).service);
    assert_eq!((one.heartbeat, one.idle), (usual.heartbeat, None));
    assert_eq!((one.read_idle, one.debug), (Some(Duration::from_secs(60)), Some(4)));
    assert_eq!((two.heartbeat, two.idle), (Some(Duration::from_secs(30)), usual.idle));
    assert_eq!(one.dialling.wait, usual.dialling.wait);
}

#[test]
fn a_route_connects_first_unless_it_or_the_command_line_says_otherwise() {
    for (line, flag, expected) in [
        ("", None, true),
        ("", Some(false), false),
        ("", Some(true), true),
        ("connect-first = false", None, false),
        ("connect-first = false", Some(true), false),
        ("connect-first = true", Some(false), true),
    ] {
        let text = format!("[[route]]\npath = ''\ntarget = 'a:1'\n{line}\n");
        let [route] = <[RouteFile; 1]>::try_from(parse(&text, &command()).unwrap().routes).unwrap();
        let route = route.into_route(&Service::default(), flag);
        assert_eq!(route.service.connect_first, expected, "{line} {flag:?}");
    }
}

#[test]
fn a_program_is_run_as_the_file_says() {
    let text = "[[route]]\npath = '/x'\n[[route.spawn]]\ncommand = '/bin/x -a b'\nsocket = '/run/x'\nmin-procs = 2\n\
                kill-signal = 2\nenvironment = { A = 'b', C = 1 }\ncopy-environment = ['PATH']\n\
                [[route.spawn]]\ncommand = ['/bin/y', 'a b']\nlisten = '[::1]:7000'\nmax-procs = 3\nlisten-backlog = 5\n";
    let file = parse(text, &command()).unwrap();
    let [route] = <[RouteFile; 1]>::try_from(file.routes).unwrap();
    let [x, y] = <[Spawn; 2]>::try_from(route.into_route(&Service::default(), None).spawned).unwrap();
    assert_eq!(
        (x.command.as_slice(), x.place),
        (&["/bin/x", "-a", "b"].map(String::from)[..], Place::Unix("/run/x".into()))
    );
    assert_eq!((x.min_procs, x.max_procs, x.kill_signal), (2, 2, 2));
    assert_eq!(
        x.environment,
        [("A", "b"), ("C", "1")].map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(x.copy_environment, Some(vec!["PATH".to_owned()]));
    assert_eq!((y.command[1].as_str(), y.place), ("a b", Place::Tcp("[::1]:7000".parse().unwrap())));
    assert_eq!((y.min_procs, y.max_procs, y.listen_backlog, y.copy_environment), (1, 3, 5, None));
}

#[test]
fn a_file_says_once_where_to_listen_and_where_to_lead() {
    for (text, part) in [
        ("listen = 1\ninetd = true\n", "line 2: inetd is in the place of listen"),
        ("unix-target = '/x'\nlisten = 1\ntarget = 'h:1'\n", "line 1: unix-target is in the place of target"),
    ] {
        let errors = parse(text, &command()).unwrap_err();
        assert!(errors.len() == 1 && errors[0].starts_with(part), "{errors:?}");
    }
    assert!(parse("listen = 1\ninetd = false\nunix-target = '/x'\n", &command()).is_ok());
}

#[test]
fn everything_wrong_is_told_at_once_with_its_line() {
    let text = "certt = 'x'\nconfig = 'y'\nfile-only = 'yes'\nheader = [1.5]\nzebra = 1\nroute_ = 1\n\
                [[route]]\nballance = 'fair'\n\
                [[route]]\npath = 1.5\ntarget = 'here'\nbalance = 'best'\ndebug = 9\nurl = ['(', 'a']\nallow = '10.0.0.0/99'\n\
                connect-timeout = 0\nframe_type = 'text'\ntext = 'yes'\nidle-timeout = 'soon'\nspawn = 5\n\
                [[route]]\npath = ''\n[[route.spawn]]\nmin-procs = 3\nmax-procs = 2\nkill-signal = 0\nsockt = 'x'\nlisten = 'localhost:7000'\n";
    let errors = parse(text, &command()).unwrap_err();
    for part in [
        "line 1: there is no key certt; did you mean cert?",
        "line 2: there is no key config; ",
        "line 3: file-only: write true or false",
        "line 4: header: write a list",
        "line 5: there is no key zebra; `adit bridge --help`",
        "line 6: there is no key route_; did you mean route?",
        "line 7: the route has no path",
        "line 7: the route leads nowhere",
        "line 8: there is no key ballance; did you mean balance?",
        "line 10: path: write a text",
        "line 11: target: a target is HOST:PORT",
        "line 12: balance: \"best\": expected fair",
        "line 13: debug: write a number from 0 to 4",
        "line 14: url: \"(\" is no regular expression",
        "line 15: allow: \"10.0.0.0/99\"",
        "line 16: connect-timeout: ",
        "line 17: there is no key frame_type; did you mean frame-type?",
        "line 18: text: \"yes\": expected refuse",
        "line 19: idle-timeout: write a time",
        "line 20: spawn: write [[spawn]]",
        "line 23: there is nothing to run",
        "line 23: max-procs is 2",
        "line 26: kill-signal: write a number from 1 to 31",
        "line 27: there is no key sockt; did you mean socket?",
        "line 28: listen: \"localhost:7000\": write an address and a port, such as 127.0.0.1:7000",
    ] {
        assert!(errors.iter().any(|error| error.starts_with(part)), "{part} in {errors:#?}");
    }
    assert_eq!(errors.len(), 25, "{errors:#?}");
    let placeless = "[[route]]\npath = ''\n[[route.spawn]]\ncommand = '/x'\n";
    let errors = parse(placeless, &command()).unwrap_err();
    assert!(errors[0].starts_with("line 3: the program needs a socket"), "{errors:#?}");
    let [error] = &parse("a = 1\nb = [", &command()).unwrap_err()[..] else { panic!() };
    assert!(error.starts_with("line 2: "), "{error}");
}
