//! The relay's counts before, at their peak and after, and the tables of `docs/resilience.md`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::house::{Counts, counts};
use crate::tally::Tally;

/// Between two looks at the counts.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// For the counts to be back where they were.
const SETTLE_WAIT: Duration = Duration::from_secs(90);

/// The counts of one relay.
pub struct Figures {
    name: &'static str,
    admin: SocketAddr,
    before: Counts,
    after: Counts,
    peaks: watch::Receiver<Counts>,
    sampler: JoinHandle<()>,
}

impl Figures {
    /// Takes the counts of a relay at rest, and samples them from now on.
    pub async fn begin(name: &'static str, admin: SocketAddr) -> Result<Self> {
        // What its start left to do is done by then.
        sleep(SAMPLE_EVERY * 4).await;
        let before = counts(admin).await?;
        let (peak, peaks) = watch::channel(before.clone());
        let sampler = tokio::spawn(async move {
            loop {
                // A relay that is away has none.
                if let Ok(now) = counts(admin).await {
                    peak.send_modify(|peak| {
                        for (name, count) in now {
                            let peak = peak.entry(name).or_default();
                            *peak = count.max(*peak);
                        }
                    });
                }
                sleep(SAMPLE_EVERY).await;
            }
        });
        Ok(Self { name, admin, before, after: Counts::new(), peaks, sampler })
    }

    /// Waits until all counts but the memory are back where they were; those that do not come are failures.
    pub async fn settle(&mut self, tally: &Tally) {
        self.sampler.abort();
        let deadline = Instant::now() + SETTLE_WAIT;
        loop {
            if let Ok(now) = counts(self.admin).await {
                self.after = now;
            }
            let leaked: Vec<_> = self
                .after
                .iter()
                .filter(|(name, count)| *name != "memory_bytes" && self.before.get(*name) != Some(count))
                .map(|(name, count)| format!("{name}: {:?} before, {count} after", self.before.get(name)))
                .collect();
            if leaked.is_empty() && !self.after.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                leaked.iter().for_each(|leak| tally.fail(format!("{}: {leak}", self.name)));
                return;
            }
            sleep(SAMPLE_EVERY).await;
        }
    }

    fn table(&self) -> String {
        let mut text = format!("\n| {} | before | peak | after |\n|---|---|---|---|\n", self.name);
        let peaks = self.peaks.borrow();
        for (name, before) in &self.before {
            let peak = peaks.get(name).copied().unwrap_or_default();
            let after = self.after.get(name).copied().unwrap_or_default();
            if peak == 0 && after == 0 {
                continue;
            }
            let cell = |count: u64| match name.as_str() {
                "memory_bytes" => format!("{:.1} MiB", count as f64 / 1048576.0),
                _ => count.to_string(),
            };
            text += &format!("| {name} | {} | {} | {} |\n", cell(*before), cell(peak), cell(after));
        }
        text
    }
}

impl Drop for Figures {
    fn drop(&mut self) {
        self.sampler.abort();
    }
}

/// The whole report as Markdown.
pub fn markdown(head: &str, figures: &[Figures], told: &[String], tallies: [&Tally; 2]) -> String {
    let mut text = format!("{head}\n\n");
    told.iter().for_each(|sentence| text += &format!("- {sentence}\n"));
    text += "\n| operation | ok | failed, announced | failed |\n|---|---|---|---|\n";
    for (kind, row) in tallies.iter().flat_map(|tally| tally.rows()) {
        text += &format!("| {kind} | {} | {} | {} |\n", row.ok, row.excused, row.failed);
    }
    text += &format!(
        "\nThe relay in mixed life was away for {:.1} s in all, as it was killed.\n",
        tallies[0].away()
    );
    figures.iter().for_each(|figures| text += &figures.table());
    text
}
