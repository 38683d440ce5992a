//! The table of results in Markdown, and its place in a document.

use std::fmt::Write as _;

use crate::latency::Latency;
use crate::load::Load;
use crate::nginx::Buffering;
use crate::rounds::{Figures, Medians};
use crate::viewers::PerViewer;

/// Memory figures, as far as they were measured.
#[derive(Default)]
pub struct Memory {
    /// Idle clients, and the relay's KiB for each.
    pub idle: Vec<(usize, f64)>,
    /// For each open viewer.
    pub viewer: Option<PerViewer>,
}

/// All results.
pub struct Table {
    /// By load.
    pub speed: Vec<Figures>,
    /// First requests over a slow line.
    pub latency: Vec<Latency>,
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
        self.speed.iter().flat_map(|figures| figures.problems.iter().cloned()).collect()
    }

    /// The table, the shares of adit's two hops, the machine, and what went wrong.
    pub fn to_markdown(&self) -> String {
        let mut nginx = vec!["nginx (one hop)".to_owned()];
        let mut adit = vec!["**adit** (two hops)".to_owned()];
        let (mut relay, mut client) = (vec!["relay".to_owned()], vec!["client".to_owned()]);
        let mut titles = vec!["system".to_owned()];
        for figures in &self.speed {
            titles.push(figures.load.title().into());
            nginx.push(figures.cell(1.0, &figures.nginx));
            adit.push(figures.cell(figures.ratio, &figures.adit));
            relay.push(figures.hop(0));
            client.push(figures.hop(1));
        }
        let speed_titles = titles.clone();

        let counts: Vec<String> = self.memory.idle.iter().map(|(count, _)| thousands(*count)).collect();
        titles.push(format!("KiB per idle client ({})", or_none(counts.join(" / "))));
        let idle: Vec<String> = self.memory.idle.iter().map(|(_, kib)| format!("{kib:.1}")).collect();
        nginx.push("–".into());
        adit.push(or_none(idle.join(" / ")));
        titles.push("KiB per open viewer".into());
        let viewer = |of: fn(&PerViewer) -> f64| {
            or_none(
                self.memory.viewer.as_ref().map(|viewer| format!("{:.1}", of(viewer))).unwrap_or_default(),
            )
        };
        nginx.push(viewer(|viewer| viewer.nginx));
        adit.push(viewer(|viewer| viewer.relay));
        let mut hop_titles = speed_titles;
        hop_titles[0] = "CPU of each hop".into();
        hop_titles.push("KiB per open viewer".into());
        relay.push(viewer(|viewer| viewer.relay));
        client.push(viewer(|viewer| viewer.client));

        let mut text = format!(
            "Each cell: rate as a part of nginx's in the same round, the rate itself, CPU seconds of all hops per \
             10,000 requests or per GB. nginx is one reverse proxy {}; adit is relay and client. Memory is the \
             proxy's and the relay's.\n\n",
            self.buffering.describe()
        );
        text += &markdown(&titles, &[nginx, adit]);
        text.push('\n');
        text += &markdown(&hop_titles, &[relay, client]);
        text.push('\n');
        text += &self.latency_table();
        let _ = writeln!(text, "\n{}", self.machine);
        for problem in self.problems() {
            let _ = writeln!(text, "\nInvalid: {problem}.");
        }
        text
    }
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

impl Figures {
    /// A cell of the main table.
    fn cell(&self, ratio: f64, medians: &Medians) -> String {
        if !self.problems.is_empty() {
            return "invalid".into();
        }
        let rate = match self.load {
            Load::Down | Load::Up => self.load.show_rate(medians.rate),
            Load::KeepAlive | Load::NewConnection => {
                format!("{} req/s", thousands(medians.rate.round() as usize))
            }
        };
        let digits = if self.load.is_bulk() { 2 } else { 3 };
        let ratio = if ratio == 1.0 { "1".to_owned() } else { format!("{ratio:.2}") };
        format!("{ratio}, {rate}, {:.digits$}", medians.cpu)
    }

    /// CPU of one of adit's hops.
    fn hop(&self, hop: usize) -> String {
        let digits = if self.load.is_bulk() { 2 } else { 3 };
        if self.problems.is_empty() { format!("{:.digits$}", self.adit.hops[hop]) } else { "invalid".into() }
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

/// A dash for what was not measured.
fn or_none(text: String) -> String {
    if text.is_empty() { "–".into() } else { text }
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
