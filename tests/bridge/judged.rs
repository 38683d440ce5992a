//! The framing cases of kosoku against a bridge to an echo: what is not passed is what a stream of bytes cannot keep.

use adit::bridge::{FrameType, TextMessages};

use crate::kosoku::{LARGE, MANY_MESSAGES, SMALL, assert_failed, judge_server};
use crate::rig::{Rig, echo};

#[tokio::test]
async fn kosoku_finds_nothing_but_what_a_stream_of_bytes_cannot_keep() {
    let rig = Rig::with(echo().await, |config| {
        config.service.text = TextMessages::Pass;
        config.service.frame_type = FrameType::Text;
    })
    .await;
    let url = format!("ws://{}", rig.address);
    for cases in [SMALL, MANY_MESSAGES, LARGE] {
        assert_failed(cases, "", async |cases, at_once| judge_server(&url, cases, at_once).await).await;
    }
}
