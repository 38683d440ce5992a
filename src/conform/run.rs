//! Runs cases side by side, each in a world and with a deadline of its own, those that take long at the end.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::case::{Case, Ended, Weight};
use super::trace::Trace;
use crate::proto::message::Level;

/// How a case ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// As in [`Case`].
    pub name: &'static str,
    /// As in [`Case`].
    pub about: &'static str,
    /// As in [`Case`].
    pub level: Level,
    /// As in [`Case`].
    pub weight: Weight,
    /// As in [`Case`].
    pub requirements: &'static [&'static str],
    /// How long it took.
    pub took: Duration,
    /// Whether it passed, and if not, why.
    pub result: Result<(), Ended>,
    /// What crossed the wire last, line by line; empty for one that passed.
    pub trace: Vec<String>,
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Cases that passed.
    pub passed: usize,
    /// Required cases that failed.
    pub failed: usize,
    /// Advised cases that failed, which fails nothing.
    pub advised: usize,
    /// Cases that could not be asked.
    pub skipped: usize,
}

impl Summary {
    /// Counts.
    pub fn of(outcomes: &[Outcome]) -> Self {
        outcomes.iter().fold(Self::default(), |mut counts, outcome| {
            match (&outcome.result, outcome.weight) {
                (Ok(()), _) => counts.passed += 1,
                (Err(Ended::Skipped(_)), _) => counts.skipped += 1,
                (Err(Ended::Failed(_)), Weight::Required) => counts.failed += 1,
                (Err(Ended::Failed(_)), Weight::Advised) => counts.advised += 1,
            }
            counts
        })
    }

    /// No required case has failed, and there was something to see.
    pub fn is_pass(self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

/// Where a run stands, for who watches.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Cases that have ended.
    pub done: usize,
    /// All of them.
    pub total: usize,
    /// The one that has just ended; none at the start.
    pub last: Option<&'a Outcome>,
}

/// Those of `cases` that `only` names, all where it is empty. A name that ends with `*` is the beginning of names. The
/// error is a sentence about a name that leads to no case.
pub fn select<World>(
    cases: Vec<&'static Case<World>>,
    only: &[String],
) -> Result<Vec<&'static Case<World>>, String> {
    let means = |wanted: &str, name: &str| match wanted.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => wanted == name,
    };
    if let Some(wanted) = only.iter().find(|wanted| !cases.iter().any(|case| means(wanted, case.name))) {
        return Err(format!(
            "there is no case {wanted:?}: --list shows all, and NAME* means all that begin so"
        ));
    }
    let chosen = |case: &&Case<World>| only.is_empty() || only.iter().any(|wanted| means(wanted, case.name));
    Ok(cases.into_iter().filter(chosen).collect())
}

/// Runs `cases`, at most `jobs` at the same time, and gives their outcomes in the order of `cases`. `world` makes the
/// world of each, whose wire goes to the trace; `watch` is told of each end. Dropped, it ends those that run.
pub async fn run<World: Send + 'static>(
    cases: &[&'static Case<World>],
    jobs: usize,
    world: impl Fn(&'static Case<World>) -> (World, Trace),
    mut watch: impl FnMut(Progress<'_>),
) -> Vec<Outcome> {
    let mut order: Vec<usize> = (0..cases.len()).collect();
    order.sort_by_key(|at| cases[*at].seconds);
    let (mut waiting, mut running) = (order.into_iter(), JoinSet::new());
    let mut outcomes: Vec<Option<Outcome>> = cases.iter().map(|_| None).collect();
    let (mut done, total) = (0, cases.len());
    watch(Progress { done, total, last: None });
    loop {
        while running.len() < jobs.max(1) {
            let Some(at) = waiting.next() else { break };
            let case = cases[at];
            let (world, trace) = world(case);
            running.spawn(async move { (at, one(case, world, trace).await) });
        }
        // A panic of a case is a fault of the kit: the case stays without an outcome, and is told as failed below.
        match running.join_next().await {
            Some(Ok((at, outcome))) => {
                done += 1;
                watch(Progress { done, total, last: Some(&outcome) });
                outcomes[at] = Some(outcome);
            }
            Some(Err(_)) => done += 1,
            None => break,
        }
    }
    let ended = |(outcome, case): (Option<Outcome>, &&'static Case<World>)| {
        outcome.unwrap_or_else(|| outcome_of(case, Duration::ZERO, Err(broken()), Vec::new()))
    };
    outcomes.into_iter().zip(cases).map(ended).collect()
}

async fn one<World>(case: &'static Case<World>, world: World, trace: Trace) -> Outcome {
    let began = Instant::now();
    let result = match timeout(Duration::from_secs(case.seconds), (case.run)(world)).await {
        Ok(result) => result,
        Err(_) => Err(Ended::failed(
            format!("to be through within {} seconds", case.seconds),
            "it was not; what crossed the wire last is below",
        )),
    };
    let lines = if result.is_ok() { Vec::new() } else { trace.lines() };
    outcome_of(case, began.elapsed(), result, lines)
}

fn outcome_of<World>(
    case: &Case<World>,
    took: Duration,
    result: Result<(), Ended>,
    trace: Vec<String>,
) -> Outcome {
    let Case { name, about, level, weight, requirements, .. } = *case;
    Outcome { name, about, level, weight, requirements, took, result, trace }
}

fn broken() -> Ended {
    Ended::failed("the kit to run this case", "it broke: this is a fault of the kit, please tell us")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn case(name: &'static str, seconds: u64, run: fn(()) -> crate::conform::Running) -> Case<()> {
        let (about, level, weight, requirements) = ("", Level::Base, Weight::Required, &[] as &[&str]);
        Case { name, about, level, weight, requirements, seconds, run }
    }

    static CASES: [Case<()>; 4] = [
        case("slow", 60, |()| Box::pin(async { Ok(()) })),
        case("late", 0, |()| Box::pin(std::future::pending())),
        case("fast", 9, |()| Box::pin(async { Ok(()) })),
        case("fast-broken", 9, |()| Box::pin(async { panic!("on purpose") })),
    ];

    fn names(only: &[&str]) -> Result<Vec<&'static str>, String> {
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        Ok(select(CASES.iter().collect(), &only)?.iter().map(|case| case.name).collect())
    }

    #[test]
    fn cases_are_chosen_by_name_or_by_its_beginning() {
        assert_eq!(names(&["fast", "slow"]), Ok(vec!["slow", "fast"]));
        assert_eq!(names(&["fast*"]), Ok(vec!["fast", "fast-broken"]));
        assert!(names(&["fast", "quick*"]).unwrap_err().contains("quick*"));
    }

    #[tokio::test]
    async fn fast_ones_go_first_and_outcomes_keep_the_order_of_the_list() {
        let cases: Vec<_> = CASES.iter().collect();
        let mut ends = Vec::new();
        let outcomes = run(
            &cases,
            1,
            |_| ((), Trace::new(&[])),
            |progress| ends.extend(progress.last.map(|last| last.name)),
        )
        .await;
        assert_eq!(ends, ["late", "fast", "slow"]);
        assert_eq!(
            outcomes.iter().map(|outcome| outcome.name).collect::<Vec<_>>(),
            ["slow", "late", "fast", "fast-broken"]
        );
        assert!(outcomes[0].result.is_ok() && outcomes[1].result.is_err() && outcomes[3].result.is_err());
        assert_eq!(Summary::of(&outcomes), Summary { passed: 2, failed: 2, ..Summary::default() });
    }
}
