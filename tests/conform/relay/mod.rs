//! The relay side: the real relay passes all cases, and a proxy that breaks one thing in front of it is caught by the case for that.

mod rig;

use adit::conform::report::{Format, Run};
use adit::conform::run::Summary;
use rig::Rig;

/// At the relay's own times, as somebody else's relay is tested.
#[tokio::test(flavor = "multi_thread")]
async fn our_relay_passes_all_cases() {
    let rig = Rig::start(|_| {}).await;
    let outcomes = rig.run(&[], rig.settings(rig.address).await).await;
    let Summary { failed, advised, skipped, .. } = Summary::of(&outcomes);
    let took = std::time::Duration::ZERO;
    let report =
        Run { side: "relay", subject: "ours", outcomes: &outcomes, took }.render(Format::Table, false);
    assert_eq!((failed, advised, skipped), (0, 0, 0), "{report}");
    println!("{report}");
}
