//! The table of results in Markdown, and its place in a document.

use std::fmt::Write as _;

use crate::idle::Idle;
use crate::latency::Latency;
use crate::load::Load;
use crate::nginx::Buffering;
use crate::recovery::Recovery;
use crate::rounds::Series;
use crate::viewers::PerViewer;

/// What is measured beside the speed, as far as it was.
#[derive(Default)]
pub struct Rest {
    /// First requests over a slow line.
    pub latency: Vec<Latency>,
    /// Clients that were cut off.
    pub recovery: Option<Recovery>,
    /// Idle clients.
    pub idle: Idle,
    /// Memory for each open viewer.
    pub viewer: Option<PerViewer>,
}

/// All results.
pub struct Table {
    /// By system and load.
    pub speed: Vec<Series>,
    /// The rest.
    pub rest: Rest,
    /// How nginx treated large bodies.
    pub buffering: Buffering,
    /// Where and when.
    pub machine: String,
}

impl Table {
    /// What makes figures invalid.
    pub fn problems(&self) -> Vec<String> {
        self.speed.iter().flat_map(Series::problems).collect()
    }

    /// The tables, the machine, and what went wrong.
    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "Each cell: rate as a part of nginx's in the same round, the rate itself, CPU seconds of all hops per \
             10,000 requests or per GB. nginx is one reverse proxy {}; the others are relay and client.\n\n",
            self.buffering.describe()
        );
        text += &self.speed_table();
        text.push('\n');
        text += &self.hops_table();
        if let Some(viewer) = &self.rest.viewer {
            text.push('\n');
            text += &self.memory_table(viewer);
        }
        if !self.rest.latency.is_empty() {
            text.push('\n');
            text += &self.latency_table();
        }
        if let Some(Recovery { clients, median, p99 }) = &self.rest.recovery {
            let _ = writeln!(
                text,
                "\n{} clients whose connections break at the same moment are served again after {:.2} s, 99 of 100 \
                 after {:.2} s.",
                thousands(*clients),
                median.as_secs_f64(),
                p99.as_secs_f64()
            );
        }
        let _ = writeln!(text, "\n{}", self.machine);
        for problem in self.problems() {
            let _ = writeln!(text, "\nInvalid: {problem}.");
        }
        text
    }

    fn speed_table(&self) -> String {
        self.by_load("system", |_| true, Series::cell)
    }

    fn hops_table(&self) -> String {
        self.by_load(
            "CPU of relay + client",
            |series| series.hops().len() > 1,
            |series| {
                let digits = if series.load.is_bulk() { 2 } else { 3 };
                let hops: Vec<String> = series.hops().iter().map(|hop| format!("{hop:.digits$}")).collect();
                hops.join(" + ")
            },
        )
    }

    /// A table with a row for each system that `counts`.
    fn by_load(
        &self,
        title: &str,
        counts: impl Fn(&Series) -> bool,
        cell: impl Fn(&Series) -> String,
    ) -> String {
        let mut rows: Vec<Vec<String>> = Vec::new();
        for series in self.speed.iter().filter(|series| counts(series)) {
            match rows.iter_mut().find(|row| row[0] == series.system) {
                Some(row) => row.push(cell(series)),
                None => rows.push(vec![series.system.clone(), cell(series)]),
            }
        }
        markdown(&titles(title, &self.speed), &rows)
    }

    fn memory_table(&self, viewer: &PerViewer) -> String {
        let Idle { kib, cpu } = &self.rest.idle;
        let mut titles = vec!["KiB of memory".to_owned()];
        titles.extend(kib.iter().map(|(count, _)| format!("per idle client, of {}", thousands(*count))));
        titles.push("per open viewer".into());
        let row = |name: &str, idle: Vec<String>, viewer: f64| {
            [vec![name.to_owned()], idle, vec![format!("{viewer:.1}")]].concat()
        };
        let none = || vec!["–".to_owned(); kib.len()];
        let rows = [
            row("nginx", none(), viewer.nginx),
            row("**adit** relay", kib.iter().map(|(_, kib)| format!("{kib:.1}")).collect(), viewer.relay),
            row("**adit** client", none(), viewer.client),
        ];
        markdown(&titles, &rows) + &format!("\n10,000 idle clients take {:.1} % of a core.\n", cpu * 100.0)
    }

    fn latency_table(&self) -> String {
        let titles = ["round trip between client and relay", "direct", "with standby", "without"];
        let ms = |time: std::time::Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
        let trips = |row: &Latency, time: std::time::Duration| {
            let over = time.saturating_sub(row.direct).as_secs_f64() / row.delay.as_secs_f64();
            format!("{} ({over:.2} round trips)", ms(time))
        };
        let rows: Vec<Vec<String>> = self
            .rest
            .latency
            .iter()
            .map(|row| {
                vec![
                    format!("{} ms", row.delay.as_millis()),
                    ms(row.direct),
                    trips(row, row.standby),
                    trips(row, row.without),
                ]
            })
            .collect();
        "The first response of a tunnel over a slow line, and what it takes beyond the target itself.\n\n"
            .to_owned()
            + &markdown(&titles.map(str::to_owned), &rows)
    }
}

/// The titles of a table by loads.
fn titles(first: &str, speed: &[Series]) -> Vec<String> {
    let mut loads: Vec<Load> = speed.iter().map(|series| series.load).collect();
    loads.dedup();
    let loads = Load::PLAIN.iter().chain(Load::TLS).filter(|load| loads.contains(load));
    std::iter::once(first).chain(loads.map(|load| load.title())).map(str::to_owned).collect()
}

impl Series {
    /// A cell of the main table.
    fn cell(&self) -> String {
        if self.problems().next().is_some() {
            return "invalid".into();
        }
        let rate = if self.load.is_bulk() {
            self.load.show_rate(self.rate())
        } else {
            format!("{} req/s", thousands(self.rate().round() as usize))
        };
        let digits = if self.load.is_bulk() { 2 } else { 3 };
        let ratio = if self.ratio() == 1.0 { "1".to_owned() } else { format!("{:.2}", self.ratio()) };
        format!("{ratio}, {rate}, {:.digits$}", self.cpu())
    }
}

/// A Markdown table.
fn markdown(titles: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(titles);
    text += &format!("|{}\n", "---|".repeat(titles.len()));
    rows.iter().for_each(|row| text += &line(row));
    text
}

/// Digits in groups of three.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
