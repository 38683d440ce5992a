//! The table in Markdown, and its place in a document.

use std::fs;

use anyhow::Result;

use crate::abuse::Kind;
use crate::probe::Latencies;
use crate::{QUOTAS, Row};

/// All rows: medians of the rounds.
pub fn to_markdown(rows: &[(Kind, Row)], rounds: u32, seconds: u32) -> Result<String> {
    let mut text = String::from(
        "| the other tenant | alone, idle machine | beside: it is at another relay | shared | of beside | shared, with \
         quotas | of beside |\n|---|---|---|---|---|---|---|\n",
    );
    let mut requests = 0;
    let mut failed = 0;
    for (kind, row) in rows {
        let p99 = |all: &[Latencies]| median(all, |one| one.p99.as_secs_f64() * 1000.0);
        let cell = |all: &[Latencies]| {
            format!("{:.2} / {:.2}", median(all, |one| one.p50.as_secs_f64() * 1000.0), p99(all))
        };
        let ratio = |all: &[Latencies]| format!("{:.2}", p99(all) / p99(&row.beside));
        let cells = [
            kind.title().to_owned(),
            cell(&row.alone),
            cell(&row.beside),
            cell(&row.shared),
            ratio(&row.shared),
            cell(&row.quotas),
            ratio(&row.quotas),
        ];
        text += &format!("| {} |\n", cells.join(" | "));
        for one in [&row.alone, &row.beside, &row.shared, &row.quotas].into_iter().flatten() {
            requests += one.count;
            failed += one.failed;
        }
    }
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let before = load.split(' ').nth(2).unwrap_or("?");
    text += &format!(
        "\np50 / p99 in milliseconds of the quiet tenant's requests, 500 a second; medians of {rounds} rounds of {seconds} s \
         each, {requests} requests in all, {failed} failed. Quotas: `{}`. {cores} cores, Linux {}, load average over the last \
         15 minutes {before}.\n",
        QUOTAS.join(" "),
        kernel.trim()
    );
    Ok(text)
}

fn median(all: &[Latencies], of: impl Fn(&Latencies) -> f64) -> f64 {
    let mut values: Vec<f64> = all.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
