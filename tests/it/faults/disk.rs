//! A disk that is full or may not be written, and a database that is damaged, gone or another one.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{halves, is_online, served, tunnel, under, until};
use crate::ports::free_address;
use crate::program::{Running, adit, keys, relay, relay_at, run};
use crate::rig::{ALICE, BOB, soon};

/// A name space for mounts, for every user that may have one: nobody else sees the disks in it.
const APART: [&str; 5] = ["unshare", "--user", "--map-root-user", "--mount", "sh"];

fn database(home: &Path) -> PathBuf {
    home.join("data/adit/adit.db")
}

/// The program, after `script` in a name space of its own. `$D` is the data directory.
fn apart(home: &Path, script: &str, inner: &tokio::process::Command) -> tokio::process::Command {
    let script = format!("{script} && exec \"$@\"");
    let mut command = under(&[&APART[..], &["-ec", &script, "sh"]].concat(), inner);
    command.env("D", home.join("data/adit"));
    command
}

const SMALL_DISK: &str = "mount -t tmpfs -o size=400k,mode=700 tmpfs \"$D\"";

/// A relay whose data directory is a disk of 400 KiB.
async fn on_a_small_disk(home: &Path) -> (Running, PathBuf) {
    std::fs::create_dir_all(home.join("data/adit")).unwrap();
    let running = Running::start(apart(home, SMALL_DISK, &relay(home, &[]))).await;
    let inside = PathBuf::from(format!("/proc/{}/root", running.id()));
    let data = inside.join(home.join("data/adit").strip_prefix("/").unwrap());
    assert!(data.join("adit.db").exists(), "{}", data.display());
    (running, data)
}

/// Fills the disk to the last byte.
fn fill(data: &Path) -> PathBuf {
    use std::io::Write;
    let path = data.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut size = 64 * 1024;
    while size > 0 {
        if file.write_all(&vec![1; size]).is_err() {
            size /= 2;
        }
    }
    path
}

#[tokio::test]
async fn on_a_full_disk_traffic_goes_on_writes_are_503_and_it_recovers_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let (running, data) = on_a_small_disk(home.path()).await;
    let address = running.addresses[0];
    let (target, _uploads) = halves().await;
    let _client = tunnel(address, "web").expose(&target.to_string()).await.unwrap();
    served(address, "web").await;
    let filler = fill(&data);
    // What the log has room for may still be written.
    let mut refused = None;
    for number in 0..500 {
        let (status, answer) = running.create(ALICE, &format!("more-{number}")).await;
        assert!(matches!(status, 201 | 503), "{status} {answer}");
        if status == 503 {
            refused = Some((number, answer));
            break;
        }
    }
    let (number, answer) = refused.expect("the disk is full, and all is written");
    assert_eq!(answer["code"], "store_unavailable");
    assert!(answer["error"].as_str().unwrap().contains("disk is full"), "{answer}");
    served(address, "web").await;
    let change = json!({"local_port": 1, "name": "web", "auth_user": "u", "auth_pass": "p"});
    assert_eq!(running.post(ALICE, "/v1/tunnels", change).await.0, 503);
    served(address, "web").await; // A change that was refused has changed nothing.
    // A client that comes back needs nothing written.
    let again = tunnel(address, "web").expose(&target.to_string()).await.unwrap();
    served(address, "web").await;
    drop(again);

    std::fs::remove_file(filler).unwrap();
    let name = format!("more-{number}");
    soon(async { while running.create(ALICE, &name).await.0 != 201 {} }).await;
    running.signal("TERM");
    assert_eq!(running.end().await.0, Some(0));
}

/// Nothing can be promised there, but it says why.
#[tokio::test]
async fn a_relay_that_starts_without_a_disk_to_write_to_says_why() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data/adit");
    std::fs::create_dir_all(&data).unwrap();
    let full = format!("{SMALL_DISK}; dd if=/dev/zero of=\"$D/filler\" bs=1k count=400 2>/dev/null || true");
    let (code, stdout, stderr) = run(&mut apart(home.path(), &full, &relay(home.path(), &[]))).await;
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains("adit.db") && stderr.contains("full"), "{stderr}");

    // A database is there, and room for nothing beside it.
    let running = Running::start(relay(home.path(), &[])).await;
    assert_eq!(running.create(ALICE, "web").await.0, 201);
    running.signal("TERM");
    running.end().await;
    let before = std::fs::read(database(home.path())).unwrap();
    let full = format!(
        "cp \"$D/adit.db\" \"$D/../copy\" && {SMALL_DISK} && cp \"$D/../copy\" \"$D/adit.db\" && \
         {{ dd if=/dev/zero of=\"$D/filler\" bs=1k count=400 2>/dev/null || true; }}"
    );
    let (code, stdout, stderr) = run(&mut apart(home.path(), &full, &relay(home.path(), &[]))).await;
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains("adit.db") && stderr.contains("disk"), "{stderr}");

    // The directory, and the file alone.
    for script in [
        "mount --bind \"$D\" \"$D\" && mount -o remount,bind,ro \"$D\"",
        "mount --bind \"$D/adit.db\" \"$D/adit.db\" && mount -o remount,bind,ro \"$D/adit.db\"",
    ] {
        let (code, stdout, stderr) = run(&mut apart(home.path(), script, &relay(home.path(), &[]))).await;
        assert_eq!((code, stdout.as_str()), (1, ""), "{script}: {stderr}");
        assert!(stderr.contains("adit.db") && stderr.contains("written"), "{script}: {stderr}");
    }
    assert_eq!(std::fs::read(database(home.path())).unwrap(), before);
    let running = Running::start(relay(home.path(), &[])).await;
    assert_eq!(running.create(BOB, "web").await.0, 409, "all of it is there");
}

#[tokio::test]
async fn a_database_that_is_not_whole_is_refused_and_left_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let running = Running::start(relay(home.path(), &[])).await;
    for number in 0..40 {
        assert_eq!(running.create(ALICE, &format!("web-{number}")).await.0, 201);
    }
    running.signal("TERM");
    running.end().await;
    let path = database(home.path());
    let whole = std::fs::read(&path).unwrap();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        bytes
    };
    for (what, bytes, says) in [
        ("half of it", changed(&|bytes| bytes.truncate(whole.len() / 2)), "damaged"),
        ("less than a page", changed(&|bytes| bytes.truncate(100)), "damaged"),
        ("garbage in a page", changed(&|bytes| bytes[4096 + 2..4096 + 2048].fill(0xa5)), "damaged"),
        ("another magic", changed(&|bytes| bytes[..6].copy_from_slice(b"sqlate")), "damaged"),
        ("zeros", vec![0; whole.len()], "damaged"),
        ("another program's", changed(&|bytes| bytes[68..72].fill(7)), "another program"),
        (
            "a newer version",
            changed(&|bytes| bytes[60..64].copy_from_slice(&9999_u32.to_be_bytes())),
            "newer",
        ),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let (code, stdout, stderr) = run(&mut relay(home.path(), &[])).await;
        assert_eq!((code, stdout.as_str()), (1, ""), "{what}: {stderr}");
        assert!(stderr.contains(says), "{what}: {stderr}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{what}: it was changed");
    }

    // A log without its database, and a directory in its place.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(path.with_file_name("adit.db-wal"), "what was written last").unwrap();
    let (code, _, stderr) = run(&mut relay(home.path(), &[])).await;
    assert!(code == 1 && stderr.contains("is missing") && !path.exists(), "{stderr}");
    std::fs::remove_file(path.with_file_name("adit.db-wal")).unwrap();
    std::fs::create_dir(&path).unwrap();
    let (code, _, stderr) = run(&mut relay(home.path(), &[])).await;
    assert!(code == 1 && stderr.contains("adit.db") && path.is_dir(), "{stderr}");
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, &whole).unwrap();
    let running = Running::start(relay(home.path(), &[])).await;
    assert_eq!(running.create(BOB, "web-39").await.0, 409);
}

/// What is in the log alone at a kill goes with it: the rest is whole, and no error.
#[tokio::test]
async fn a_log_that_was_deleted_leaves_what_was_in_the_database() {
    let home = tempfile::tempdir().unwrap();
    let running = Running::start(relay(home.path(), &[])).await;
    running.create(ALICE, "first").await;
    running.signal("TERM");
    running.end().await;
    let running = Running::start(relay(home.path(), &[])).await;
    running.create(ALICE, "second").await;
    running.signal("KILL");
    running.end().await;
    std::fs::remove_file(database(home.path()).with_file_name("adit.db-wal")).unwrap();
    let running = Running::start(relay(home.path(), &[])).await;
    assert_eq!(running.create(BOB, "first").await.0, 409);
    assert_eq!(running.create(BOB, "second").await.0, 201);
}

/// SQLite goes on writing to a file that has no name any more, and all of that is gone after a restart.
#[tokio::test]
async fn a_database_that_is_deleted_under_the_relay_takes_no_writes_until_it_is_back() {
    let home = tempfile::tempdir().unwrap();
    let address = free_address().await;
    let running = Running::start(relay_at(home.path(), address, &[])).await;
    let (target, _uploads) = halves().await;
    let mut client = tunnel(address, "web").expose(&target.to_string()).await.unwrap();
    let path = database(home.path());
    let away = home.path().join("away");
    std::fs::create_dir(&away).unwrap();
    let files = ["adit.db", "adit.db-wal", "adit.db-shm"];
    for file in files {
        std::fs::rename(path.with_file_name(file), away.join(file)).unwrap();
    }
    let (status, answer) = running.create(ALICE, "other").await;
    assert_eq!((status, &answer["code"]), (503, &json!("store_unavailable")), "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("was deleted"), "{answer}");
    served(address, "web").await;
    assert!(!path.exists(), "no empty one takes its place");
    for file in files {
        std::fs::rename(away.join(file), path.with_file_name(file)).unwrap();
    }
    soon(async { while running.create(ALICE, "other").await.0 != 201 {} }).await;

    // Another file of that name, such as a copy that was put back.
    running.signal("STOP");
    let copy = home.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in files {
        std::fs::copy(path.with_file_name(file), copy.join(file)).unwrap();
    }
    for file in files {
        std::fs::rename(copy.join(file), path.with_file_name(file)).unwrap();
    }
    running.signal("CONT");
    soon(async { while running.create(ALICE, "later").await.0 != 201 {} }).await;
    running.signal("KILL");
    running.end().await;
    let running = Running::start(relay_at(home.path(), address, &[])).await;
    until(&mut client, is_online).await;
    for name in ["web", "other", "later"] {
        assert_eq!(running.create(BOB, name).await.0, 409, "{name}");
    }
    let (code, list, _) = run(adit(home.path(), &["key", "list"]).env("ADIT_KEYS", keys())).await;
    assert_eq!(code, 0, "{list}");
}
