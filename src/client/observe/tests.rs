//! Talks that an observer must understand, in portions of every size.

use proptest::prelude::*;

use super::*;

/// What both directions said, in order: `>` to the target, `<` from it.
type Talk<'a> = &'a [(char, &'a str)];

/// Method, path, status, bytes in and out, whole.
type Seen = (String, String, Option<u16>, u64, u64, bool);

/// Observes a talk in portions of `cut` bytes.
fn observe(talk: Talk<'_>, cut: usize) -> (Vec<Seen>, Observer) {
    let mut observer = Observer::new();
    for (way, text) in talk {
        for portion in text.as_bytes().chunks(cut) {
            match way {
                '>' => observer.request(portion),
                _ => observer.response(portion),
            }
        }
    }
    let off = observer.off;
    observer.end();
    let seen = observer.done.drain(..);
    let seen = seen.map(|e| (e.method, e.path, e.status, e.bytes_in, e.bytes_out, e.whole)).collect();
    observer.off = off;
    (seen, observer)
}

/// Observes it with every cut: all must see the same.
fn same_at_every_cut(talk: Talk<'_>) -> (Vec<Seen>, Observer) {
    let whole = observe(talk, usize::MAX);
    let longest = talk.iter().map(|(_, text)| text.len()).max().unwrap();
    for cut in 1..=longest {
        let (seen, observer) = observe(talk, cut);
        assert_eq!((&seen, observer.off), (&whole.0, whole.1.off), "portions of {cut} bytes");
    }
    whole
}

fn seen(method: &str, path: &str, status: u16, bytes_in: u64, bytes_out: u64) -> Seen {
    (method.into(), path.into(), Some(status), bytes_in, bytes_out, true)
}

#[test]
fn requests_one_after_the_other_with_lengths_chunks_and_head() {
    let (all, observer) = same_at_every_cut(&[
        ('>', "GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"),
        ('<', "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        (
            '>',
            "POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n",
        ),
        ('<', "HTTP/1.1 201 Created\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ('>', "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ('<', "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ('>', "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
        ('<', "HTTP/1.1 204 No Content\r\n\r\n"),
    ]);
    let expected = [
        seen("GET", "/a?b=c", 200, 0, 5),
        seen("POST", "/up", 201, 23, 15),
        seen("HEAD", "/", 200, 0, 0),
        seen("PUT", "/", 204, 3, 0),
    ];
    assert_eq!(all, expected);
    assert!(!observer.off);
}

#[test]
fn pipelined_requests_and_interim_responses() {
    let (all, _) = same_at_every_cut(&[
        ('>', "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"),
        ('<', "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
        ('<', "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(all, [seen("GET", "/1", 200, 0, 1), seen("POST", "/2", 404, 2, 0)]);
}

#[test]
fn an_answer_before_the_end_of_its_request_keeps_the_order() {
    let (all, observer) = same_at_every_cut(&[
        ('>', "POST /1 HTTP/1.1\r\nContent-Length: 4\r\n\r\nab"),
        ('<', "HTTP/1.1 413 No\r\nContent-Length: 1\r\n\r\nx"),
        ('>', "cdGET /2 HTTP/1.1\r\n\r\n"),
        ('<', "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny"),
    ]);
    assert_eq!(all, [seen("POST", "/1", 413, 2, 1), seen("GET", "/2", 200, 0, 1)]);
    assert!(!observer.off);
}

#[test]
fn an_upgrade_is_told_at_its_beginning_and_then_not_looked_at() {
    let (all, observer) = same_at_every_cut(&[
        ('>', "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        ('<', "HTTP/1.1 101 Switching Protocols\r\n\r\n\u{81}\u{3}abc"),
        ('>', "GET /no HTTP/1.1\r\n\r\n"),
    ]);
    assert_eq!(all, [seen("GET", "/ws", 101, 0, 0)]);
    assert!(observer.off);
}

#[test]
fn the_end_completes_a_body_without_length_and_cuts_any_other() {
    let until_close =
        same_at_every_cut(&[('>', "GET / HTTP/1.0\r\n\r\n"), ('<', "HTTP/1.0 200 OK\r\n\r\nabc")]);
    assert_eq!(until_close.0, [seen("GET", "/", 200, 0, 3)]);
    let cut = same_at_every_cut(&[
        ('>', "GET / HTTP/1.1\r\n\r\n"),
        ('<', "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
    ]);
    assert_eq!(cut.0, [("GET".into(), "/".into(), Some(200), 0, 3, false)]);
    let unanswered = same_at_every_cut(&[('>', "GET / HTTP/1.1\r\n\r\n")]);
    assert_eq!(unanswered.0, [("GET".into(), "/".into(), None, 0, 0, false)]);
}

#[test]
fn what_is_not_understood_ends_the_observation() {
    for talk in [
        &[('>', "SSH-2.0-OpenSSH_9.2\r\n\r\n")][..],
        &[('>', "GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n")],
        &[('<', "HTTP/1.1 200 OK\r\n\r\n")],
        &[('>', "GET / HTTP/1.1\r\n\r\n"), ('<', "220 smtp ready\r\n\r\n")],
        &[('>', "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")],
        &[('>', "GET / HTTP/1.1\r\n\r\n"), ('<', "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n")],
    ] {
        assert!(observe(talk, usize::MAX).1.off, "{talk:?}");
    }
}

#[test]
fn a_target_that_speaks_tls_is_recognised() {
    let mut observer = Observer::new();
    observer.request(b"GET / HTTP/1.1\r\n\r\n");
    observer.response(b"\x15\x03\x01\x00\x02\x02\x46");
    assert!(observer.tls && observer.off);
}

/// A message with this first line, framed by its length, in chunks, or without a body.
fn message(first: &str, content: &str, framing: usize) -> String {
    match framing {
        0 => format!("{first}\r\nContent-Length: {}\r\n\r\n{content}", content.len()),
        1 if !content.is_empty() => {
            let size = content.len();
            format!("{first}\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{content}\r\n0\r\n\r\n")
        }
        _ => format!("{first}\r\nContent-Length: 0\r\n\r\n"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn exchanges_are_seen_alike_at_every_cut(
        talks in prop::collection::vec(("(GET|PUT|PROPFIND) /[a-z?=]{0,9}", "[ -~\r\n]{0,20}", 0usize..3, 200u16..204, "[ -~\r\n]{0,20}", 0usize..3), 1..4),
    ) {
        let texts: Vec<String> = talks.iter().flat_map(|(asked, up, framed, status, down, back)| {
            [message(&format!("{asked} HTTP/1.1"), up, *framed), message(&format!("HTTP/1.1 {status} X"), down, *back)]
        }).collect();
        let talk: Vec<(char, &str)> = ['>', '<'].into_iter().cycle().zip(texts.iter().map(String::as_str)).collect();
        let (seen, observer) = same_at_every_cut(&talk);
        prop_assert!(seen.len() == talks.len() && !observer.off);
    }

    #[test]
    fn noise_in_both_directions_harms_nothing(
        asked in "(GET / HTTP/1.1\r\n|)[ -~\r\n]{0,60}",
        answered in "(HTTP/1.1 200 X\r\n|)[ -~\r\n]{0,60}",
        cut in 1usize..70,
    ) {
        let (seen, _) = observe(&[('>', &asked), ('<', &answered)], cut);
        prop_assert!(seen.len() <= asked.len());
    }
}
