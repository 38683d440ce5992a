//! Tests of all plugins as a bridge uses them, against servers on this machine.

use std::fs;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;

/// A server that reads a line `expected` for each answer; its port.
async fn answers(all: &'static [(&'static str, &'static str)]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut all = all.iter();
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            for (expected, answer) in all.by_ref() {
                let mut line = String::new();
                while line.trim_end() != *expected {
                    line.clear();
                    if stream.read_line(&mut line).await.unwrap() == 0 {
                        return;
                    }
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answer.starts_with("HTTP/") {
                    break;
                }
            }
        }
    });
    port
}

fn target(text: &str) -> Result<Target, TokenError> {
    Ok(text.parse().unwrap())
}

#[test]
fn a_plugin_is_known_by_its_class_in_every_spelling_and_others_are_told_which_there_are() {
    for name in ["TokenFile", "token_plugins.TokenFile", "websockify.token_plugins.TokenFile"] {
        assert_eq!(Tokens::new(name, "/x").unwrap().plugin(), "TokenFile");
    }
    let error = Tokens::new("mine.Plugin", "/x").err().unwrap().to_string();
    assert!(PLUGINS.iter().all(|name| error.contains(name)) && error.contains("mine.Plugin"), "{error}");
    let error = Tokens::new("TokenFile", "").err().unwrap().to_string();
    assert!(error.contains("--token-source"), "{error}");
    assert!(matches!(
        Tokens::new("TokenRedis", "h").unwrap().revoking().err(),
        Some(TokenSetupError::NotWatched("TokenRedis"))
    ));
}

#[tokio::test]
async fn a_web_service_is_asked_with_the_token_as_one_part_of_its_address() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nh:5900\n";
    let port = answers(&[
        ("GET /t?x=a%2Fb%3F%26c HTTP/1.1", OK),
        ("GET /t?x=none HTTP/1.1", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        ("GET /t?x=broken HTTP/1.1", "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
        ("GET /t?x=odd HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
        ("GET /t?x=long HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\nh:5900"),
    ])
    .await;
    let tokens = Tokens::new("BaseTokenAPI", &format!("http://127.0.0.1:{port}/t?x=%s")).unwrap();
    assert_eq!(tokens.target("a/b?&c").await, target("h:5900"));
    assert_eq!(tokens.target("none").await, Err(TokenError::Unknown));
    for (token, part) in [("broken", "500"), ("odd", "HOST:PORT"), ("long", "token service")] {
        match tokens.target(token).await {
            Err(TokenError::Source(reason)) => assert!(reason.contains(part), "{reason}"),
            other => panic!("{token}: {other:?}"),
        }
    }
    let port = answers(&[(
        "GET /a HTTP/1.1",
        "HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n{\"host\":\"::1\",\"port\":\"5901\"}",
    )])
    .await;
    let tokens = Tokens::new("JSONTokenApi", &format!("http://127.0.0.1:{port}/%s")).unwrap();
    assert_eq!(tokens.target("a").await, target("[::1]:5901"));
}

#[tokio::test]
async fn a_redis_server_is_told_who_asks_and_where() {
    let port =
        answers(&[("a:b", "+OK\r\n"), ("2", "+OK\r\n"), ("ns:one", "$22\r\n{\"host\": \"h:5900\"}    \r\n")])
            .await;
    let tokens = Tokens::new("TokenRedis", &format!("127.0.0.1:{port}:2:'a:b':ns")).unwrap();
    assert_eq!(tokens.target("one").await, target("h:5900"));

    let port = answers(&[("none", "$-1\r\n")]).await;
    let tokens = Tokens::new("TokenRedis", &format!("127.0.0.1:{port}")).unwrap();
    assert_eq!(tokens.target("none").await, Err(TokenError::Unknown));

    for answer in ["-NOAUTH say who you are\r\n", "$999999999\r\n", "$4\r\n{}\r", "*1\r\n", "nonsense"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tokens = Tokens::new("TokenRedis", &listener.local_addr().unwrap().to_string()).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let (answered, ()) = tokio::join!(tokens.target("x"), serve);
        assert!(matches!(answered, Err(TokenError::Source(_))), "{answer}: {answered:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_keeps_the_tokens_and_says_nothing_is_not_waited_for_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tokens = Tokens::new("TokenRedis", &listener.local_addr().unwrap().to_string()).unwrap();
    assert!(matches!(tokens.target("x").await, Err(TokenError::Source(_))));
}

#[tokio::test]
async fn a_signed_token_holds_its_target_and_another_one_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    assert!(Tokens::new("JWTTokenApi", key.to_str().unwrap()).is_err(), "a missing key is told at the start");
    fs::write(&key, "secret").unwrap();
    let tokens = Tokens::new("JWTTokenApi", key.to_str().unwrap()).unwrap();
    // {"alg":"HS256"} {"host":"h","port":5900}, signed with "secret" by openssl.
    let token =
        "eyJhbGciOiJIUzI1NiJ9.eyJob3N0IjoiaCIsInBvcnQiOjU5MDB9.oC7pH-uRFiJI1mdwtAwSrFu8IeTKwjTj6t2I5ECuKoc";
    assert_eq!(tokens.target(token).await, target("h:5900"));
    fs::write(&key, "other").unwrap();
    assert_eq!(tokens.target(token).await, Err(TokenError::Unknown), "the key was changed");
}

#[tokio::test(start_paused = true)]
async fn a_session_hears_that_its_token_was_revoked_or_leads_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    let write = |text: &str| {
        fs::write(path.with_extension("new"), text).unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
    };
    write("a: h:1\nb: h:2\nc: h:3\n");
    let tokens = Tokens::new("TokenFile", path.to_str().unwrap()).unwrap().revoking().unwrap();
    let [one, two, three] = ["h:1", "h:2", "h:3"].map(|text| text.parse::<Target>().unwrap());
    let revoked = |token, target| tokens.revoked(tokens.changes().unwrap(), token, target);
    let sessions = async {
        tokio::pin! {
            let stays = revoked("c", &three);
        }
        let change = async {
            // The watch has seen the file as it is, and empty, as who writes it leaves it for a moment.
            sleep(LOOK_EVERY * 3 + LOOK_EVERY / 2).await;
            write("");
            sleep(LOOK_EVERY).await;
            write("b: h:9\nc: h:3\n");
            std::future::pending::<()>().await
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(revoked("a", &one), revoked("b", &two)) } => {}
            () = &mut stays => panic!("it leads where it did"),
            () = change => {}
        }
        // A file that is gone for a moment is no file without tokens.
        fs::remove_file(&path).unwrap();
        assert!(timeout(LOOK_EVERY * 5, &mut stays).await.is_err());
        write("");
        stays.await;
    };
    tokio::select! {
        () = sessions => {}
        () = tokens.watch() => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_heard_of_though_other_tokens_come_and_go_all_the_time() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "h:1").unwrap();
    let source = dir.path().to_str().unwrap();
    let tokens = Tokens::new("TokenFileName", source).unwrap().revoking().unwrap();
    let target: Target = "h:1".parse().unwrap();
    let others = async {
        for number in 0.. {
            sleep(LOOK_EVERY / 2).await;
            fs::write(dir.path().join(format!("other-{number}")), "h:2").unwrap();
        }
    };
    let revoked = async {
        let heard = tokens.revoked(tokens.changes().unwrap(), "a", &target);
        tokio::pin!(heard);
        assert!(timeout(LOOK_EVERY * 5, &mut heard).await.is_err());
        fs::remove_file(dir.path().join("a")).unwrap();
        heard.await;
    };
    tokio::select! {
        () = revoked => {}
        () = tokens.watch() => {}
        () = others => {}
    }
}
