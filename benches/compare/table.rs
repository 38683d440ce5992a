//! The table of results in Markdown, and its place in a document.

use std::fmt::Write as _;

use crate::idle::Idle;
use crate::latency::Latency;
use crate::load::Load;
use crate::nginx::Buffering;
use crate::recovery::Recovery;
use crate::rounds::Series;
use crate::viewers::PerViewer;

/// Memory figures, as far as they were measured.
#[derive(Default)]
pub struct Memory {
    /// Idle clients.
    pub idle: Idle,
    /// For each open viewer.
    pub viewer: Option<PerViewer>,
}

/// All results.
pub struct Table {
    /// By system and load.
    pub speed: Vec<Series>,
    /// First requests over a slow line.
    pub latency: Vec<Latency>,
    /// Clients that were cut off.
    pub recovery: Option<Recovery>,
    /// The rest.
    pub memory: Memory,
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
        if self.memory.viewer.is_some() {
            text.push('\n');
            text += &self.memory_table();
        }
        if !self.latency.is_empty() {
            text.push('\n');
            text += &self.latency_table();
        }
        if let Some(Recovery { clients, median, p99 }) = &self.recovery {
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

    /// The systems, in the order in which they were measured.
    fn systems(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for series in &self.speed {
            if !names.contains(&series.system.as_str()) {
                names.push(&series.system);
            }
        }
        names
    }

    fn of<'a>(&'a self, system: &'a str) -> impl Iterator<Item = &'a Series> {
        self.speed.iter().filter(move |series| series.system == system)
    }

    fn speed_table(&self) -> String {
        let row = |system: &&str| {
            std::iter::once((*system).to_owned()).chain(self.of(system).map(Series::cell)).collect::<Vec<_>>()
        };
        markdown(&titles("system"), &self.systems().iter().map(row).collect::<Vec<_>>())
    }

    fn hops_table(&self) -> String {
        let cell = |series: &Series| {
            let digits = if series.load.is_bulk() { 2 } else { 3 };
            let hops: Vec<String> = series.hops().iter().map(|hop| format!("{hop:.digits$}")).collect();
            hops.join(" + ")
        };
        let systems = self.systems();
        let two_hops = systems.iter().filter(|system| self.of(system).any(|series| series.hops().len() > 1));
        let row = |system: &&str| {
            std::iter::once((*system).to_owned()).chain(self.of(system).map(cell)).collect::<Vec<_>>()
        };
        markdown(&titles("CPU of relay + client"), &two_hops.map(row).collect::<Vec<_>>())
    }

    fn memory_table(&self) -> String {
        let Some(viewer) = &self.memory.viewer else { return String::new() };
        let mut titles = vec!["KiB of memory".to_owned()];
        titles.extend(
            self.memory
                .idle
                .kib
                .iter()
                .map(|(count, _)| format!("per idle client, of {}", thousands(*count))),
        );
        titles.push("per open viewer".into());
        let row = |name: &str, idle: Vec<String>, viewer: f64| {
            let mut row = vec![name.to_owned()];
            row.extend(idle);
            row.push(format!("{viewer:.1}"));
            row
        };
        let none = || vec!["–".to_owned(); self.memory.idle.kib.len()];
        let idle = self.memory.idle.kib.iter().map(|(_, kib)| format!("{kib:.1}")).collect();
        let rows = [
            row("nginx", none(), viewer.nginx),
            row("**adit** relay", idle, viewer.relay),
            row("**adit** client", none(), viewer.client),
        ];
        markdown(&titles, &rows)
            + &format!("\n10,000 idle clients take {:.1} % of a core.\n", self.memory.idle.cpu * 100.0)
    }
}

/// The titles of a table by loads.
fn titles(first: &str) -> Vec<String> {
    std::iter::once(first).chain(Load::ALL.map(Load::title)).map(str::to_owned).collect()
}

impl Table {
    fn latency_table(&self) -> String {
        let titles = ["round trip between client and relay", "direct", "with standby", "without"];
        let ms = |time: std::time::Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
        let trips = |row: &Latency, time: std::time::Duration| {
            let over = time.saturating_sub(row.direct).as_secs_f64() / row.delay.as_secs_f64();
            format!("{} ({over:.2} round trips)", ms(time))
        };
        let rows: Vec<Vec<String>> = self
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
