//! The lists as rows of text, with as many columns as there is room for.

use ratatui::layout::Alignment;
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use time::OffsetDateTime;
use time::macros::format_description;

use super::draw::{millis, passed, quantiles};
use super::told::{Client, Event, Told, Tunnel};
use super::view::View;
use crate::client::text::{size, visible};

/// A column of the screen.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// What the API calls it when it sorts by it; empty: it does not.
    pub(super) sort: &'static str,
    pub(super) right: bool,
    pub(super) width: u16,
}

/// A column of numbers, on the right.
const fn number(title: &'static str, sort: &'static str) -> Column {
    Column { title, sort, right: true, width: 0 }
}

const fn text(title: &'static str, sort: &'static str) -> Column {
    Column { title, sort, right: false, width: 0 }
}

/// The most important ones come first: the last are left out where there is no room.
const CLIENTS: [Column; 12] = [
    text("HEALTH", "health"),
    text("TUNNEL", "tunnel"),
    text("OWNER", "owner"),
    number("PONG", "round_trip"),
    number("P99", "p99"),
    number("SILENCE", "silence"),
    number("MISSED", "missed"),
    number("AGAIN", "reconnects"),
    number("SINCE", "since"),
    text("ADDRESS", "address"),
    text("AGENT", "agent"),
    text("LAST HOUR", ""),
];

const TUNNELS: [Column; 13] = [
    text("STATE", ""),
    text("NAME", "name"),
    text("OWNER", "owner"),
    number("CLIENTS", ""),
    number("VIEWERS", "viewers"),
    number("REQ/S", ""),
    number("REQUESTS", "requests"),
    number("BYTES/S", ""),
    number("BYTES", "bytes"),
    number("CLAIM", "wait"),
    number("FAILED", "failures"),
    number("AGE", "age"),
    text("URL", ""),
];

const EVENTS: [Column; 6] = [
    text("TIME (UTC)", ""),
    text("EVENT", ""),
    text("TUNNEL", ""),
    text("OWNER", ""),
    text("ADDRESS", ""),
    text("REASON", ""),
];

/// Between two columns.
const GAP: u16 = 1;
/// No cell but those of the last column is wider.
const MOST: usize = 40;

/// A list that fits the screen.
pub(super) struct Rows {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Line<'static>>>,
}

impl Rows {
    /// Of one list, for a screen of this width.
    pub(super) fn of(view: View, told: &Told, width: u16) -> Self {
        let (now, list) = (told.summary.at, &told.list);
        let (columns, rows): (&[Column], Vec<Vec<Span>>) = match view {
            View::Clients => (&CLIENTS, list.clients.iter().map(|client| of_client(client, now)).collect()),
            View::Tunnels => (&TUNNELS, list.tunnels.iter().map(|tunnel| of_tunnel(tunnel, now)).collect()),
            View::Events => (&EVENTS, list.events.iter().map(of_event).collect()),
        };
        let columns = fit(columns, &rows, width);
        let cell = |(at, mut span): (usize, Span<'static>)| {
            let column = &columns[at];
            let room = usize::from(column.width);
            if span.content.chars().count() > room {
                span.content = match column.title {
                    // The newest is at its end.
                    "LAST HOUR" => span.content.chars().skip(span.content.chars().count() - room).collect(),
                    _ => span.content.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
                };
            }
            let line = match column.title {
                "LAST HOUR" => strip(&span.content),
                _ => Line::from(span),
            };
            line.alignment(if column.right { Alignment::Right } else { Alignment::Left })
        };
        let rows =
            rows.into_iter().map(|row| row.into_iter().take(columns.len()).enumerate().map(cell).collect());
        Self { rows: rows.collect(), columns: columns.clone() }
    }
}

/// The columns that fit, as wide as what is in them; the last one that fits in part takes what is left.
fn fit(columns: &[Column], rows: &[Vec<Span>], width: u16) -> Vec<Column> {
    let mut left = width;
    let mut fitting = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        // One more for the arrow.
        let title = column.title.chars().count() + usize::from(!column.sort.is_empty());
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.content.chars().count());
        let is_last = at + 1 == columns.len();
        let most = if is_last { usize::from(u16::MAX) } else { MOST };
        let natural = cells.chain([title]).max().unwrap_or_default().min(most.max(title));
        let natural = u16::try_from(natural).unwrap_or(u16::MAX);
        if natural > left {
            // Part of a text says something; part of a number says something else.
            if !column.right && usize::from(left) >= title.max(8) {
                fitting.push(Column { width: left, ..column.clone() });
            }
            break;
        }
        fitting.push(Column { width: natural, ..column.clone() });
        left = left.saturating_sub(natural + GAP);
    }
    fitting
}

fn plain(text: &str) -> Span<'static> {
    Span::raw(visible(text).into_owned())
}

/// Quiet where there is nothing.
fn count(count: u64) -> Span<'static> {
    if count == 0 { "0".dim() } else { count.to_string().into() }
}

fn coloured(word: &str) -> Span<'static> {
    let style = match word {
        "alive" | "online" | "connected" => Style::new().fg(Color::Green),
        "late" | "suspended" | "drained" | "took_over" => Style::new().fg(Color::Yellow),
        "dead" | "refused" | "revoked" => Style::new().fg(Color::Red),
        _ => Style::new(),
    };
    plain(word).style(style)
}

fn of_client(client: &Client, now: i64) -> Vec<Span<'static>> {
    vec![
        coloured(&client.health),
        plain(&client.tunnel),
        plain(&client.owner),
        millis(client.round_trip_ms).into(),
        millis(client.p99_ms).into(),
        passed(client.silence_ms).into(),
        count(client.missed),
        count(client.reconnects),
        passed((now - client.since) as f64).into(),
        plain(&client.address),
        plain(client.agent.as_deref().unwrap_or("-")),
        plain(&client.strip),
    ]
}

fn of_tunnel(tunnel: &Tunnel, now: i64) -> Vec<Span<'static>> {
    vec![
        coloured(&tunnel.state),
        plain(&tunnel.name),
        plain(&tunnel.owner),
        count(tunnel.clients),
        count(tunnel.viewers),
        format!("{:.1}", tunnel.requests_per_s).into(),
        count(tunnel.requests),
        size(tunnel.bytes_per_s as u64).into(),
        size(tunnel.bytes_in + tunnel.bytes_out).into(),
        quantiles(&tunnel.wait).into(),
        count(tunnel.failures.values().sum()),
        passed((now - tunnel.created_at) as f64).into(),
        plain(&tunnel.url),
    ]
}

fn of_event(event: &Event) -> Vec<Span<'static>> {
    let or_nothing = |text: &Option<String>| plain(text.as_deref().unwrap_or("-"));
    vec![
        moment(event.at).into(),
        coloured(&event.kind),
        or_nothing(&event.tunnel),
        or_nothing(&event.owner),
        or_nothing(&event.address),
        or_nothing(&event.reason),
    ]
}

/// Unix milliseconds as a date and time.
fn moment(at: i64) -> String {
    let form = format_description!("[month]-[day] [hour]:[minute]:[second]");
    let at = OffsetDateTime::from_unix_timestamp(at / 1000).ok();
    at.and_then(|at| at.format(form).ok()).unwrap_or_else(|| "-".to_owned())
}

/// Half minutes: a bar for how long the pong took, and what was missed.
fn strip(letters: &str) -> Line<'static> {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    letters
        .chars()
        .map(|letter| match letter {
            'x' => "x".red(),
            'a'..='p' => {
                let height = letter as usize - 'a' as usize;
                let bar = BARS[height / 2].to_string();
                if height >= 10 { bar.yellow() } else { bar.green() }
            }
            _ => "·".dim(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        let client = Client {
            tunnel: "w\u{1b}[2J".to_owned(),
            owner: "o".repeat(60),
            health: "late".to_owned(),
            strip: format!("{}xap", ".".repeat(117)),
            ..Client::default()
        };
        let mut told = Told::default();
        told.list.clients.push(client);
        told
    }

    fn shown(rows: &Rows) -> Vec<String> {
        rows.rows[0].iter().map(ToString::to_string).collect()
    }

    #[test]
    fn columns_that_do_not_fit_are_left_out() {
        for width in 0..400 {
            let rows = Rows::of(View::Clients, &told(), width);
            let widths: u16 = rows.columns.iter().map(|column| column.width + GAP).sum();
            assert!(widths <= width + GAP, "{width}: {:?}", rows.columns);
            for (cell, column) in shown(&rows).iter().zip(&rows.columns) {
                assert!(cell.chars().count() <= usize::from(column.width), "{width}: {cell:?}");
            }
        }
        let all = Rows::of(View::Clients, &told(), 400);
        assert_eq!(all.columns.len(), CLIENTS.len());
    }

    #[test]
    fn nothing_of_a_client_steers_the_terminal() {
        let row = shown(&Rows::of(View::Clients, &told(), 400));
        assert!(row[1].starts_with("w\\u{1b}") && row[2].chars().count() == MOST, "{row:?}");
    }

    #[test]
    fn the_newest_of_the_strip_is_what_stays() {
        let wide = shown(&Rows::of(View::Clients, &told(), 400));
        assert!(wide[11].ends_with("·x▁█"), "{wide:?}");
        let rows = Rows::of(View::Clients, &told(), 150);
        let narrow = shown(&rows);
        assert!(narrow.last().unwrap().ends_with("·x▁█"), "{narrow:?} {:?}", rows.columns);
    }
}
