//! The pages in a browser: noVNC before a real desktop, and the terminal before a service that speaks telnet;
//! `tests/browser` has what is done there.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;

use adit::bridge::{BridgeConfig, Page, Pair, Recorder, ServerTls, Target, Web, WebConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;

use crate::chromium::browse;
use crate::rig::{Rig, soon, target};
use crate::tools::{installed, root};

/// A desktop with a terminal in which `script` runs, ended when it is dropped.
async fn desktop(socket: &str, script: &str) -> [Child; 2] {
    let mut server = installed("Xtigervnc");
    server.args(["-displayfd", "1", "-rfbport", "-1", "-rfbunixpath", socket]);
    server.args(["-SecurityTypes", "None", "-geometry", "640x480", "-desktop", "A real desktop"]);
    let server = server.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn();
    let mut server = server.unwrap();
    let mut display = String::new();
    let mut told = BufReader::new(server.stdout.take().unwrap());
    soon(told.read_line(&mut display)).await.unwrap();
    let mut terminal = installed("xterm");
    terminal.args(["-display", &format!(":{}", display.trim()), "-geometry", "100x30+0+0"]);
    terminal.args(["-bg", "navy", "-fg", "white", "-e", "sh", "-c", script]);
    [server, terminal.stdin(Stdio::null()).spawn().unwrap()]
}

fn page(page: Page, files: Option<&str>) -> Option<Arc<Web>> {
    let config = WebConfig { page: Some(page), root: files.map(root), ..WebConfig::default() };
    Some(Arc::new(Web::new(config).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_desktop_is_seen_and_typed_at_through_novnc_plain_and_by_tls_and_played_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let typed = path("typed");
    let script = format!(
        "printf 'Type here: '; read line; printf %s \"$line\" >{typed}.new; mv {typed}.new {typed}; \
         echo \"You typed: $line\"; read line"
    );
    let _desktop = desktop(&path("vnc"), &script).await;
    let target = || Target::Unix(path("vnc").into());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(path("cert"), made.cert.pem()).unwrap();
    fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
    let recorder = Arc::new(Recorder::new(path("rec").into()));
    let rig = Rig::with(target(), |config: &mut BridgeConfig| {
        config.web = page(Page::NoVnc, Some("target/tools/node/node_modules/@novnc/novnc"));
        config.record = Some(recorder);
        let pair = Pair { certificate: path("cert").into(), key: path("key").into() };
        config.tls = Some(ServerTls::new(pair));
    })
    .await;
    let port = rig.address.port().to_string();
    let more = [("PORT", port.as_str()), ("TYPED", &typed), ("RECORDING", &path("rec.1"))];
    browse("desktop.mjs", rig.address, &more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_speaks_telnet_is_talked_to_from_the_terminal_page() {
    let (listener, target) = target().await;
    let rig = Rig::with(target, |config| config.web = page(Page::Terminal, None)).await;
    let service = async {
        // A browser takes its time to start beside all other tests; `browse` is who gives it up.
        let (mut stream, _) = listener.accept().await.unwrap();
        // WILL ECHO is not said yet: lines come whole. DO TERMINAL-TYPE is refused once, however often it is asked for.
        let greeting = b"\xff\xfd\x18\xff\xfd\x18\x1b[1mWho\x1b[0m are \xff\xff\xfa\x01 you? <b>";
        soon(stream.write_all(greeting)).await.unwrap();
        let mut answer = [0; 3];
        soon(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer, [255, 252, 24]);
        let mut line = [0; 5];
        soon(stream.read_exact(&mut line)).await.unwrap();
        assert_eq!(&line, b"ann\r\n");
        soon(stream.write_all(b"\xff\xfb\x01Password: ")).await.unwrap();
        soon(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer, [255, 253, 1]);
        // Keys one by one now, and not shown, as nobody echoes them.
        let mut keys = [0; 3];
        soon(stream.read_exact(&mut keys)).await.unwrap();
        assert_eq!(&keys, b"s\r\n");
        soon(stream.write_all("\r\nWelcome, änn\r\n".as_bytes())).await.unwrap();
        stream
    };
    let port = rig.address.port().to_string();
    let more = [("PORT", port.as_str())];
    let (_stream, _) = tokio::join!(service, browse("terminal.mjs", rig.address, &more));
}
