//! The screen as it is drawn: figures, a list, and what keys do.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Padding, Paragraph, Row, Table, TableState, Wrap};

use super::screen::{Mode, Screen};
use super::table::{Column, Rows};
use super::told::{Quantiles, Summary};
use super::view::View;
use crate::client::text::{elapsed, size, visible};

/// Lines of figures.
const FIGURES: u16 = 4;
/// Lines beside the rows of the list: figures, tabs, the head of the table, and the last line.
const OTHERS: u16 = FIGURES + 3;

const HELP: &str = "\
1 2 3, Tab    clients, tunnels, events
s S, < >      sort by the next column, or the one before
r             the other way round
f             only some: the next filter
/             search; Enter keeps it, Esc takes it away
Up Down j k   select a row
PgUp PgDn     turn pages; Home and End, g and G
Space         stop, and go on
d             tell the selected client to connect anew
x             disconnect the selected client
u             turn viewers away from the selected tunnel, or let them in again
c             close the selected tunnel for good
q, Ctrl-C     end

\u{20}Any key leads back.";

/// Rows of a list that a terminal with so many lines has room for.
pub(super) fn room(lines: u16) -> usize {
    usize::from(lines.saturating_sub(OTHERS)).max(1)
}

/// Draws all of it.
pub(super) fn all(frame: &mut Frame, screen: &Screen) {
    let [figures, tabs, list, last] = Layout::vertical([
        Constraint::Length(FIGURES),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    if let Some(told) = &screen.told {
        frame.render_widget(Paragraph::new(summary(&told.summary, screen.trouble.is_some())), figures);
    } else {
        frame.render_widget(Paragraph::new(format!("relay {}", visible(&screen.at))), figures);
    }
    frame.render_widget(self::tabs(screen), tabs);
    rows(frame, screen, list);
    frame.render_widget(self::last(screen), last);
    match &screen.mode {
        Mode::Help => dialog(frame, "Keys", HELP.lines().map(Line::from).collect(), 80),
        Mode::Confirm(order) => dialog(
            frame,
            "Sure?",
            vec![order.question.clone().into(), "".into(), "y does it, any other key does not".dim().into()],
            70,
        ),
        Mode::Login { typed, why } => dialog(
            frame,
            "Log in",
            vec![
                visible(why).into_owned().yellow().into(),
                "".into(),
                "Password of the dashboard, or the link that the relay wrote when it started:".into(),
                "*".repeat(typed.chars().count().min(60)).into(),
                "".into(),
                "Enter logs in, Esc ends".dim().into(),
            ],
            80,
        ),
        Mode::List | Mode::Search => {}
    }
}

/// A box in the middle.
fn dialog(frame: &mut Frame, title: &'static str, text: Vec<Line<'_>>, width: u16) {
    let area = frame.area();
    let width = width.min(area.width);
    // Borders and padding; words that do not fit at the end of a line may take one more.
    let inner = usize::from(width.saturating_sub(4)).max(1);
    let lines = |line: &Line| match line.width() {
        width if width <= inner => 1,
        width => width.div_ceil(inner) + 1,
    };
    let height = u16::try_from(text.iter().map(lines).sum::<usize>() + 2).unwrap_or(u16::MAX);
    let area = area.centered(Constraint::Length(width), Constraint::Length(height));
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(format!(" {title} ")).padding(Padding::horizontal(1));
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(block), area);
}

/// Milliseconds as people read them; nothing: not known.
pub(super) fn millis(millis: Option<f64>) -> String {
    match millis {
        None => "-".to_owned(),
        Some(millis) if millis < 10.0 => format!("{millis:.1}ms"),
        Some(millis) => passed(millis),
    }
}

/// A time that passed, in milliseconds.
pub(super) fn passed(millis: f64) -> String {
    elapsed(Duration::from_millis(millis.max(0.0) as u64))
}

/// Half of all, and 99 of 100.
pub(super) fn quantiles(of: &Quantiles) -> String {
    format!("{}/{}", millis(of.p50_ms), millis(of.p99_ms))
}

/// The figures; those of a relay that is `lost` are the last that it told.
fn summary(all: &Summary, lost: bool) -> Vec<Line<'static>> {
    let of = |map: &std::collections::BTreeMap<String, u64>, name: &str| {
        map.get(name).copied().unwrap_or_default()
    };
    let counted = |map, name: &'static str, colour: Color| {
        let count = of(map, name);
        let style = if count > 0 { Style::new().fg(colour) } else { Style::new().dim() };
        Span::styled(format!("{count} {name}  "), style)
    };
    let relay = &all.relay;
    let state = match relay.state.as_str() {
        _ if lost => "old figures, see below".red(),
        "serving" => "serving".green(),
        other => visible(other).into_owned().yellow(),
    };
    let up = passed((all.at - relay.started_at) as f64);
    let failures: Vec<_> =
        all.failures.iter().map(|(cause, count)| format!("{} {count}", visible(cause))).collect();
    let failures = if failures.is_empty() { "none".to_owned() } else { failures.join(", ") };
    vec![
        Line::from(vec![
            format!("adit {}  {}  ", visible(&relay.version), visible(&relay.url)).bold(),
            state,
            format!("  up {up}").into(),
        ]),
        Line::from(vec![
            "clients  ".dim(),
            counted(&all.clients, "alive", Color::Green),
            counted(&all.clients, "late", Color::Yellow),
            counted(&all.clients, "dead", Color::Red),
            counted(&all.clients, "away", Color::Reset),
            format!(
                "round trip {}, all {}  longest silence {}  missed {}  reconnects {}",
                millis(all.round_trip.now_ms),
                quantiles(&all.round_trip.all),
                passed(all.longest_silence_ms),
                all.pings.missed,
                all.reconnects
            )
            .into(),
        ]),
        Line::from(vec![
            "tunnels  ".dim(),
            counted(&all.tunnels, "online", Color::Green),
            counted(&all.tunnels, "offline", Color::Reset),
            counted(&all.tunnels, "suspended", Color::Yellow),
            format!(
                "viewers {} ({} waiting)  data sockets {} in use, {} idle, {} standby",
                all.viewers,
                all.waiting,
                of(&all.data_sockets, "in_use"),
                of(&all.data_sockets, "idle"),
                of(&all.data_sockets, "standby")
            )
            .into(),
        ]),
        Line::from(vec![
            "requests ".dim(),
            format!(
                "{}  {:.1}/s  {}/s  claim {}  first byte {}  failures: {failures}",
                all.requests,
                all.requests_per_s,
                size(all.bytes_per_s as u64),
                quantiles(&all.claim_wait),
                quantiles(&all.first_byte)
            )
            .into(),
        ]),
    ]
}

fn tabs(screen: &Screen) -> Line<'static> {
    let view = screen.views.view;
    let mut line = Line::default();
    for (number, tab) in View::ALL.into_iter().enumerate() {
        let text = format!(" {} {} ", number + 1, tab.name());
        line.push_span(if tab == view { text.reversed() } else { text.into() });
    }
    let part = screen.views.now();
    let total = screen.told.as_ref().map_or(0, |told| told.list.total);
    let before = part.before(screen.room);
    let rows = screen.rows();
    let shown =
        if rows == 0 { "none".to_owned() } else { format!("{}-{} of {total}", before + 1, before + rows) };
    line.push_span(format!("  {shown}"));
    if !part.filter().is_empty() {
        line.push_span(format!("  only {}", part.filter()).yellow());
    }
    if !part.search.is_empty() && !matches!(screen.mode, Mode::Search) {
        line.push_span(format!("  with \"{}\"", visible(&part.search)).yellow());
    }
    if screen.paused {
        line.push_span("  stopped: Space goes on".yellow());
    }
    line
}

fn rows(frame: &mut Frame, screen: &Screen, area: Rect) {
    let Some(told) = &screen.told else { return };
    let part = screen.views.now();
    let Rows { columns, rows } = Rows::of(screen.views.view, told, area.width);
    let head = columns.iter().map(|column| head(column, part.sort(), part.descending));
    let widths = columns.iter().map(|column| Constraint::Length(column.width));
    let style = if screen.trouble.is_some() { Style::new().dim() } else { Style::new() };
    let table = Table::new(rows.into_iter().map(Row::new), widths)
        .header(Row::new(head).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().reversed())
        .style(style);
    let mut state = TableState::new().with_selected(part.selected);
    frame.render_stateful_widget(table, area, &mut state);
}

fn head(column: &Column, sort: &str, descending: bool) -> Line<'static> {
    let sorted = !sort.is_empty() && column.sort == sort;
    let arrow = match (sorted, descending) {
        (false, _) => "",
        (true, true) => "↓",
        (true, false) => "↑",
    };
    let alignment = if column.right { Alignment::Right } else { Alignment::Left };
    Line::from(format!("{}{arrow}", column.title)).alignment(alignment)
}

fn last(screen: &Screen) -> Line<'static> {
    if let Mode::Search = screen.mode {
        return format!("search: {}_", visible(&screen.views.now().search)).into();
    }
    if let Some(trouble) = &screen.trouble {
        // What does not fit on the line is the end of it.
        return format!("trying again: {trouble}").red().into();
    }
    let keys = match screen.views.view {
        View::Clients => "s sort  r reverse  f filter  / search  d drain  x disconnect  ? keys  q end",
        View::Tunnels => "s sort  r reverse  f filter  / search  u suspend  c close  ? keys  q end",
        View::Events => "f filter  / search  ? keys  q end",
    };
    match &screen.done {
        Some(done) => Line::from(vec![format!("{done}  ").green(), keys.dim()]),
        None => keys.dim().into(),
    }
}
