//! The framing cases of kosoku against a bridge to an echo: what is not passed is what a stream of bytes cannot keep.

use std::time::Duration;

use adit::bridge::{FrameType, Target, TextMessages};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::kosoku::{FEW, MANY, SMALL, Verdicts, judge_server};
use crate::rig::{Rig, target};

/// All cases of few bytes there are; a judge who leaves some out has judged nothing.
const COUNT: usize = 247;
/// They want whole messages back, with their ends or of no bytes at all, or none before the next fragment; a stream of bytes
/// has no messages.
const MESSAGES: &str =
    "1.1.1 1.1.6 1.1.7 1.1.8 1.2.1 1.2.6 1.2.7 1.2.8 10.1.1 5.19 5.20 6.1.1 6.1.2 6.4.1 6.4.2 6.4.3 6.4.4";

/// The pieces of a message come one behind the other; a target that sends each back at once makes several messages of it, and
/// how many is chance.
const PAUSE: Duration = Duration::from_millis(100);

/// A target that sends back what came when nothing more comes.
async fn patient_echo() -> Target {
    let (listener, target) = target().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                loop {
                    let wait = if bytes.is_empty() { Duration::MAX } else { PAUSE };
                    match timeout(wait, stream.read_buf(&mut bytes)).await {
                        Ok(Ok(1..)) => {}
                        Ok(_) => break,
                        Err(_) => {
                            if stream.write_all(&bytes).await.is_err() {
                                return;
                            }
                            bytes.clear();
                        }
                    }
                }
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    target
}

async fn judged(frame_type: FrameType, cases: &[&str], at_once: usize) -> Verdicts {
    let rig = Rig::with(patient_echo().await, |config| {
        config.service.text = TextMessages::Pass;
        config.service.frame_type = frame_type;
    })
    .await;
    judge_server(&format!("ws://{}", rig.address), cases, at_once).await
}

/// Text comes back as text of the one bridge, bytes as bytes of the other; each case is passed by one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kosoku_finds_nothing_but_what_a_stream_of_bytes_cannot_keep() {
    let messages: Vec<&str> = MESSAGES.split_whitespace().collect();
    let mut left: Vec<String> = SMALL.iter().map(|cases| (*cases).to_owned()).collect();
    // Most of the time of most cases is a wait, so a busy machine may want another look.
    for (frame_type, at_once) in
        [(FrameType::Text, MANY), (FrameType::Binary, MANY), (FrameType::Text, FEW), (FrameType::Binary, FEW)]
    {
        let cases: Vec<&str> = left.iter().map(String::as_str).collect();
        let verdicts = judged(frame_type, &cases, at_once).await;
        assert_eq!(verdicts.len(), if cases == SMALL { COUNT } else { cases.len() });
        let failed = verdicts.into_iter().filter(|(_, verdict)| !verdict.is_pass()).map(|(case, _)| case);
        left = failed.filter(|case| !messages.contains(&case.as_str())).collect();
        if left.is_empty() {
            return;
        }
    }
    panic!("{left:?}");
}
