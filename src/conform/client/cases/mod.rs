//! What is asked of a client, in the order in which an author meets it.

mod back;
mod bytes;
mod codes;
mod ends;
mod goodbye;
mod hostile;
mod news;
mod pings;
mod reject;
mod session;
mod standby;
mod start;

use super::Stage;
use crate::conform::case::Case;

/// Writes cases as a table: weight, level, name, requirements, seconds; then what does it, and the sentence about it.
macro_rules! cases {
    ($($weight:ident $level:ident $name:literal $requirements:expr, $seconds:literal, $run:expr, $about:literal;)*) => {
        pub(super) static CASES: &[crate::conform::case::Case<crate::conform::client::Stage>] = &[$(
            crate::conform::case::Case {
                name: $name,
                about: $about,
                level: crate::proto::message::Level::$level,
                weight: crate::conform::case::Weight::$weight,
                requirements: &$requirements,
                seconds: $seconds,
                run: |stage| Box::pin($run(stage)),
            },
        )*];
    };
}
use cases;

/// All cases.
pub fn all() -> Vec<&'static Case<Stage>> {
    let rooms = [
        start::CASES,
        bytes::CASES,
        news::CASES,
        ends::CASES,
        pings::CASES,
        reject::CASES,
        codes::CASES,
        back::CASES,
        session::CASES,
        standby::CASES,
        goodbye::CASES,
        hostile::CASES,
    ];
    rooms.into_iter().flatten().collect()
}
