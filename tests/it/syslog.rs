//! Log records at a syslog daemon: as its standards have them, whatever strangers send, and without waiting for it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::process::Command;

use crate::ports::free_address;
use crate::program::{RELAY, Running, adit, http};
use crate::rig::{ALICE, soon};
use crate::wire::Viewer;

/// A relay that writes to this daemon.
async fn relay(home: &Path, syslog: &str, more: &[&str]) -> Running {
    Running::start(crate::program::relay(home, &[&["--syslog", syslog], more].concat())).await
}

/// A message, read as RFC 5424, section 6 has it.
#[derive(Debug)]
struct Message {
    facility: u8,
    severity: u8,
    host: String,
    process: String,
    id: String,
    text: String,
}

/// A field of a head: visible ASCII.
fn field<'a>(rest: &mut &'a str, most: usize) -> &'a str {
    let (field, after) = rest.split_once(' ').expect("a field and a space");
    *rest = after;
    let good = (1..=most).contains(&field.len()) && field.bytes().all(|byte| (33..=126).contains(&byte));
    assert!(good, "{field:?}");
    field
}

impl Message {
    fn read(bytes: &[u8]) -> Self {
        assert!(bytes.len() <= 2048, "{} bytes", bytes.len());
        let text = std::str::from_utf8(bytes).unwrap();
        assert!(!text.contains(char::is_control), "{text:?}");
        let (priority, mut rest) = text.strip_prefix('<').unwrap().split_once('>').unwrap();
        assert!(priority == "0" || !priority.starts_with('0'), "{text}");
        let priority: u8 = priority.parse().unwrap();
        assert!(priority < 192, "{text}");
        let rest = &mut rest;
        assert_eq!(field(rest, 3), "1", "the version");
        let time = field(rest, 32);
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000Z", "{time}");
        let host = field(rest, 255).to_owned();
        assert_eq!(field(rest, 48), "adit");
        let (process, id) = (field(rest, 128).to_owned(), field(rest, 32).to_owned());
        assert_eq!(field(rest, 1), "-", "no structured data");
        let marked = rest.strip_prefix('\u{feff}');
        assert!(marked.is_some() || rest.is_ascii(), "more than ASCII without the mark: {rest:?}");
        let text = marked.unwrap_or(rest).to_owned();
        Self { facility: priority / 8, severity: priority % 8, host, process, id, text }
    }
}

/// The messages that `receive` gives until one has this text.
async fn until(mut receive: impl AsyncFnMut() -> Vec<u8>, text: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        messages.push(Message::read(&soon(receive()).await));
        if messages.last().unwrap().text.contains(text) {
            return messages;
        }
    }
}

async fn udp() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn by_udp(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65536];
    let count = socket.recv(&mut buffer).await.unwrap();
    buffer[..count].to_vec()
}

async fn by_path(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = vec![0; 65536];
    let count = socket.recv(&mut buffer).await.unwrap();
    buffer[..count].to_vec()
}

async fn request(relay: SocketAddr, path: &str) {
    http(relay, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
}

#[tokio::test]
async fn records_go_to_syslog_over_udp_and_stay_on_stderr() {
    let (socket, address) = udp().await;
    let home = tempfile::tempdir().unwrap();
    let mut relay = relay(home.path(), &format!("udp://{address}"), &[]).await;
    let begun = until(async || by_udp(&socket).await, "relay ready").await;
    let [.., first, ready] = begun.as_slice() else { panic!("{begun:?}") };
    assert!(first.text.starts_with("listening"), "{first:?}");
    assert_eq!((ready.facility, ready.severity), (3, 6));
    assert_eq!((&*ready.process, &*ready.id), (&*relay.id().to_string(), "adit::cli::relay"));
    let host = std::process::Command::new("uname").arg("-n").output().unwrap().stdout;
    assert_eq!(ready.host, String::from_utf8(host).unwrap().trim());
    assert!(ready.text.starts_with("relay ready url=\"http"), "{ready:?}");
    relay.create(ALICE, "web").await;
    until(async || by_udp(&socket).await, "tunnel created").await;
    relay.until("tunnel created").await;
    relay.signal("TERM");
    // The last ones, too.
    until(async || by_udp(&socket).await, "stopping").await;
    let (code, said) = relay.end().await;
    assert!(code == Some(0) && said.contains("stopping") && !said.contains("syslog"), "{said}");
}

#[tokio::test]
async fn records_go_to_a_socket_at_a_path_whole_and_harmless_whatever_a_stranger_sends() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    let syslog = format!("unix:{}", path.display());
    let more = ["--syslog-facility", "local6", "--log-exchanges", "on"];
    let relay = relay(home.path(), &syslog, &more).await;
    let long = format!("/t/nobody/{}", "é%0a\u{202e}".repeat(900));
    for path in ["/t/nobody/\u{85}\u{2028}é", &long, "/t/nobody/last"] {
        request(relay.addresses[0], path).await;
    }
    let messages = until(async || by_path(&socket).await, "/t/nobody/last").await;
    let exchanges: Vec<_> = messages.iter().filter(|message| message.id == "adit::exchange").collect();
    assert_eq!(exchanges.len(), 3, "{exchanges:#?}");
    assert!(exchanges.iter().all(|message| message.facility == 22 && message.severity == 6));
    assert!(exchanges[0].text.contains("\\u{85}\\u{2028}é"), "{:?}", exchanges[0]);
    assert!(exchanges[1].text.ends_with("...") && exchanges[1].text.len() > 1800, "{:?}", exchanges[1]);
}

#[tokio::test]
async fn a_daemon_that_was_started_anew_gets_what_was_said_meanwhile() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut relay = relay(home.path(), path.to_str().unwrap(), &[]).await;
    until(async || by_path(&socket).await, "relay ready").await;
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    relay.create(ALICE, "while-away").await;
    relay.until("syslog takes no records; they wait, or are lost").await;
    assert!(relay.said.contains("No such file"), "{}", relay.said);
    let socket = UnixDatagram::bind(&path).unwrap();
    relay.create(ALICE, "afterwards").await;
    let messages = until(async || by_path(&socket).await, "afterwards").await;
    assert!(messages[0].text.contains("while-away"), "{messages:#?}");
    // The same without a moment in which it was not there.
    let other = home.path().join("other");
    let next = UnixDatagram::bind(&other).unwrap();
    std::fs::rename(&other, &path).unwrap();
    drop(socket);
    relay.create(ALICE, "at-once").await;
    until(async || by_path(&next).await, "at-once").await;
}

#[tokio::test]
async fn a_daemon_that_reads_nothing_holds_up_no_request_and_what_it_misses_is_counted() {
    const MANY: usize = 6000;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    let more = ["--log-exchanges", "on"];
    let relay = relay(home.path(), path.to_str().unwrap(), &more).await;
    let (address, home_of) = (relay.addresses[0], relay.id());
    let hearing = tokio::spawn(relay.end());
    let stream = soon(tokio::net::TcpStream::connect(address)).await.unwrap();
    let mut viewer = Viewer(stream);
    for _ in 0..MANY {
        viewer.say("GET /t/nobody/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(viewer.answer().await.status, 404);
    }
    crate::program::signal(home_of, "TERM");
    let (code, said) = hearing.await.unwrap();
    assert_eq!(code, Some(0));
    let told = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told = told.filter(|record| record["message"] == "records did not reach syslog");
    let lost: u64 = told.map(|record| record["count"].as_u64().unwrap()).sum();
    let mut buffer = vec![0; 65536];
    let mut arrived = 0;
    while let Ok(count) = socket.try_recv(&mut buffer) {
        arrived += u64::from(Message::read(&buffer[..count]).id == "adit::exchange");
    }
    assert!(arrived > 0 && lost > 0, "{arrived} arrived, {lost} were lost");
    // A few records are not of exchanges.
    assert!(
        (MANY as u64..MANY as u64 + 20).contains(&(arrived + lost)),
        "{arrived} arrived, {lost} were lost"
    );
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_told_on_stderr() {
    let (socket, address) = udp().await;
    drop(socket);
    let home = tempfile::tempdir().unwrap();
    let mut relay = relay(home.path(), &address.to_string(), &[]).await;
    relay.create(ALICE, "web").await;
    relay.until("records did not reach syslog").await;
    assert!(
        relay.said.contains(&format!("udp://{address}")) && relay.said.contains("refused"),
        "{}",
        relay.said
    );
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_what_to_write() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, told) in [
        (["--syslog", "tcp://logs:514"], "write udp://HOST:PORT"),
        (["--syslog", "logs"], "write udp://HOST:PORT"),
        (["--syslog-facility", "loud"], "expected a facility"),
        (["--syslog-format", "rfc3164"], "expected rfc5424 or local"),
    ] {
        let (code, _, said) = crate::program::run(adit(home.path(), &RELAY).args(arguments)).await;
        assert!(code == 2 && said.contains(told) && said.contains(arguments[0]), "{said}");
    }
}

// ---- a daemon of others ----

/// What rsyslogd has understood, one object a message.
async fn understood(file: &Path, text: &str) -> Value {
    soon(async {
        loop {
            let all = std::fs::read_to_string(file).unwrap_or_default();
            let mut objects = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(found) =
                objects.find(|object| object["msg"].as_str().unwrap_or_default().contains(text))
            {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

#[tokio::test]
async fn rsyslogd_understands_each_way() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).display().to_string();
    let port = free_address().await.port();
    let conf = format!(
        "global(workDirectory=\"{dir}\")\n\
         module(load=\"imudp\")\n\
         module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")\n\
         input(type=\"imuxsock\" socket=\"{local}\")\n\
         input(type=\"imuxsock\" socket=\"{standard}\" useSpecialParser=\"off\" parseHostname=\"on\")\n\
         template(name=\"all\" type=\"list\" option.jsonf=\"on\") {{\n\
         property(outname=\"program\" name=\"app-name\" format=\"jsonf\")\n\
         property(outname=\"process\" name=\"procid\" format=\"jsonf\")\n\
         property(outname=\"id\" name=\"msgid\" format=\"jsonf\")\n\
         property(outname=\"host\" name=\"hostname\" format=\"jsonf\")\n\
         property(outname=\"facility\" name=\"syslogfacility-text\" format=\"jsonf\")\n\
         property(outname=\"severity\" name=\"syslogseverity-text\" format=\"jsonf\")\n\
         property(outname=\"msg\" name=\"msg\" format=\"jsonf\")\n}}\n\
         action(type=\"omfile\" file=\"{out}\" template=\"all\")\n",
        dir = home.path().display(),
        local = at("local"),
        standard = at("standard"),
        out = at("out"),
    );
    std::fs::write(at("conf"), conf).unwrap();
    let program = Path::new("/usr/sbin/rsyslogd");
    assert!(program.exists(), "rsyslogd is not installed; run `make setup`");
    let mut daemon = Command::new(program);
    daemon.args(["-n", "-f", &at("conf"), "-i", &at("pid")]).kill_on_drop(true);
    let _daemon = daemon.spawn().unwrap();
    let out = home.path().join("out");
    let marker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    crate::rig::until(async || {
        let _ = marker.send_to(b"<30>1 - - - - - - are you there", ("127.0.0.1", port)).await;
        std::fs::read_to_string(&out).unwrap_or_default().contains("are you there")
    })
    .await;
    crate::rig::until(async || Path::new(&at("local")).exists() && Path::new(&at("standard")).exists()).await;
    for (name, address, format, id) in [
        ("by-udp", format!("udp://localhost:{port}"), "rfc5424", "adit::relay::api::tunnels"),
        ("by-standard", at("standard"), "rfc5424", "adit::relay::api::tunnels"),
        ("by-local", at("local"), "local", "-"),
    ] {
        let relay =
            relay(home.path(), &address, &["--syslog-format", format, "--syslog-facility", "local3"]).await;
        relay.create(ALICE, name).await;
        let object = understood(&out, &format!("\"{name}\"")).await;
        assert_eq!(object["program"], "adit", "{object:#}");
        assert_eq!(object["process"], relay.id().to_string(), "{object:#}");
        assert_eq!(object["id"], id, "{object:#}");
        assert_eq!(
            (&object["facility"], &object["severity"]),
            (&"local3".into(), &"info".into()),
            "{object:#}"
        );
        let text = object["msg"].as_str().unwrap().trim_start();
        let text = text.strip_prefix("adit::relay::api::tunnels: ").unwrap_or(text);
        assert!(text.starts_with("tunnel created"), "{object:#}");
        relay.signal("TERM");
        relay.end().await;
    }
}
