//! `adit status` of a running relay, as scripts and people read it.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::program::{Running, adit, run};
use crate::rig::{ALICE, Rig, soon, target};
use crate::wire::Viewer;

#[tokio::test]
async fn the_operator_sees_whether_the_relay_serves_and_what_it_holds() {
    let home = tempfile::tempdir().unwrap();
    let options = ["--drain", "20s", "--base-domain", "relay.test"];
    let relay = Running::start(crate::program::relay(home.path(), &options)).await;
    let admin = relay.admin.unwrap().to_string();
    let rig = Rig::of(relay.addresses[0], relay.admin.unwrap());
    // A request that lasts, so that the relay does not end at once.
    let (begun, mut reached) = tokio::sync::mpsc::channel(1);
    let silent = target(move |_, stream| {
        let begun = begun.clone();
        async move {
            begun.send(stream).await.unwrap();
        }
    });
    let _client = rig.client(ALICE, "web", silent.await).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let mut stream = soon(reached.recv()).await.unwrap();

    let ask = async |more: &[&str]| {
        // Who has a key and a relay is not asked for them.
        let mut command = adit(home.path(), &["status", "--admin", &admin]);
        command.args(more).env("ADIT_KEY", ALICE).env("ADIT_RELAY", "http://127.0.0.1:1");
        run(&mut command).await
    };
    let (code, out, err) = ask(&["--exit-code"]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with(&format!("relay http://{admin}: ready, it serves\n")), "{out}");
    assert!(
        out.contains("1 under way") && out.contains("1 connected") && out.contains("descriptors"),
        "{out}"
    );
    let (code, out, _) = ask(&["--json"]).await;
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert_eq!(told["relay"], json!({"url": format!("http://{admin}"), "status": "ready", "ready": true}));
    assert_eq!((&told["counts"]["tunnels"], &told["counts"]["exchanges"]), (&json!(1), &json!(1)));

    relay.signal("TERM");
    soon(async { while ask(&["--exit-code"]).await.0 == 0 {} }).await;
    for (more, code) in [(&["--exit-code"][..], 1), (&[], 0), (&["--exit-code", "--json"], 1)] {
        let (found, out, _) = ask(more).await;
        assert!(found == code && out.contains("closing"), "{more:?}: {found} {out}");
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    viewer.answer().await;
    drop((viewer, stream));
    assert_eq!(relay.end().await.0, Some(0));
    let (code, _, err) = ask(&["--exit-code"]).await;
    assert!(code == 69 && err.contains("that the relay runs"), "{code} {err}");
}

#[tokio::test]
async fn what_is_no_admin_listener_is_told_from_one() {
    let home = tempfile::tempdir().unwrap();
    let rig = Rig::start().await;
    let public = rig.address.to_string();
    let (code, _, err) = run(&mut adit(home.path(), &["status", "--exit-code", "--admin", &public])).await;
    assert!(code == 69 && err.contains("not the admin listener"), "{code} {err}");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let (code, _, err) = run(&mut adit(home.path(), &["status", "--admin", &nobody])).await;
    assert!(
        code == 69 && err.contains("check --admin, and that the relay runs; `adit relay"),
        "{code} {err}"
    );
    assert!(!err.contains("--relay"), "{err}");
    let (code, _, err) = run(&mut adit(home.path(), &["status", "--admin", "ftp://a"])).await;
    assert!(code == 2, "{code} {err}");
    let options = ["--metrics-listen", "127.0.0.1:0"];
    let relay = Running::start(crate::program::relay(home.path(), &options)).await;
    let metrics = relay.metrics.unwrap().to_string();
    let (code, out, err) = run(&mut adit(home.path(), &["status", "--admin", &metrics])).await;
    assert!(
        code == 0 && out.contains("it serves") && err.contains("address of its admin-listen"),
        "{code} {err}"
    );
    relay.signal("TERM");
    relay.end().await;
    // Users ask the relay itself.
    let relay = format!("http://{public}");
    let (code, out, _) = run(&mut adit(home.path(), &["status", "--exit-code", "--relay", &relay])).await;
    assert!(code == 0 && out.contains(": ok, version"), "{out}");
}
