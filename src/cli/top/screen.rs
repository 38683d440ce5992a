//! What is on the screen, and what keys and answers make of it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;

use super::Outcome;
use super::operator::Trouble;
use super::told::Told;
use super::view::{View, Views};
use crate::auth::Secret;
use crate::client::text::visible;
use crate::proto::limits::admin::{ROWS, SEARCH_CHARS};

/// What there is to do after a key or an answer.
pub(super) enum Next {
    /// Nothing.
    Stay,
    /// Ask for what there is now.
    Ask,
    /// Log in with what was typed.
    LogIn(Secret),
    /// Have the relay do this.
    Do(Order),
    /// End.
    Quit,
}

/// Something that the relay is to do: a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) path: String,
    pub(super) body: String,
    /// What the operator is asked before.
    pub(super) question: String,
}

/// What keys are for.
#[derive(Debug)]
pub(super) enum Mode {
    /// The list.
    List,
    /// What is typed is searched for.
    Search,
    /// What is typed is a password or a link.
    Login { typed: String, why: String },
    /// `y` does it.
    Confirm(Order),
    /// Any key leads back.
    Help,
}

/// All of it.
pub(super) struct Screen {
    /// The admin listener.
    pub(super) at: String,
    pub(super) mode: Mode,
    pub(super) views: Views,
    /// Nothing changes by itself.
    pub(super) paused: bool,
    /// Rows that there is room for.
    pub(super) room: usize,
    pub(super) told: Option<Box<Told>>,
    /// Why what is shown is old.
    pub(super) trouble: Option<String>,
    /// What was done last.
    pub(super) done: Option<String>,
    /// Questions so far: answers to older ones are for a list that is not on the screen any more.
    number: u64,
    /// An answer is awaited.
    asked: bool,
}

impl Screen {
    pub(super) fn new(at: String) -> Self {
        let views = Views::default();
        let (told, trouble, done) = (None, None, None);
        Self {
            at,
            mode: Mode::List,
            views,
            paused: false,
            room: 20,
            told,
            trouble,
            done,
            number: 0,
            asked: false,
        }
    }

    /// Whether to ask again by itself.
    pub(super) fn is_live(&self) -> bool {
        !self.paused && !self.asked && !matches!(self.mode, Mode::Login { .. })
    }

    pub(super) fn ask_to_log_in(&mut self, why: &str) {
        self.mode = Mode::Login { typed: String::new(), why: why.to_owned() };
    }

    /// What to ask for, with the number of the question; nothing before the login.
    pub(super) fn question(&mut self) -> Option<(u64, String)> {
        if matches!(self.mode, Mode::Login { .. }) {
            return None;
        }
        self.asked = true;
        self.number += 1;
        Some((self.number, self.views.now().path(self.page_size())))
    }

    fn page_size(&self) -> usize {
        self.room.clamp(1, ROWS[1])
    }

    /// What came of it.
    pub(super) fn take(&mut self, outcome: Outcome) -> Next {
        match outcome {
            Outcome::Told(number, _) if number != self.number => Next::Stay,
            Outcome::Told(_, Ok(told)) => {
                (self.asked, self.trouble) = (false, None);
                let (total, size) =
                    (usize::try_from(told.list.total).unwrap_or(usize::MAX), self.page_size());
                self.told = Some(told);
                // There are fewer than before: the last page.
                if self.views.now_mut().fit(total, size) { Next::Ask } else { Next::Stay }
            }
            Outcome::LoggedIn(Ok(())) => {
                self.mode = Mode::List;
                Next::Ask
            }
            Outcome::Done(Ok(sentence)) => {
                self.done = Some(visible(&sentence).into_owned());
                Next::Ask
            }
            Outcome::Told(_, Err(trouble))
            | Outcome::LoggedIn(Err(trouble))
            | Outcome::Done(Err(trouble)) => {
                self.asked = false;
                match trouble {
                    Trouble::Login(why) => self.ask_to_log_in(&why),
                    Trouble::Other(why) => self.trouble = Some(visible(&why).into_owned()),
                }
                Next::Stay
            }
        }
    }

    /// What a key does.
    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Next::Quit;
        }
        match &mut self.mode {
            Mode::List => self.list_key(key.code),
            Mode::Search => self.search_key(key.code),
            Mode::Help => {
                self.mode = Mode::List;
                Next::Stay
            }
            Mode::Login { typed, .. } => match key.code {
                KeyCode::Esc => Next::Quit,
                KeyCode::Enter if !typed.is_empty() => Next::LogIn(Secret::new(std::mem::take(typed))),
                code => {
                    edit(typed, code, 1_000);
                    Next::Stay
                }
            },
            Mode::Confirm(_) => match std::mem::replace(&mut self.mode, Mode::List) {
                Mode::Confirm(order) if matches!(key.code, KeyCode::Char('y' | 'Y')) => Next::Do(order),
                _ => Next::Stay,
            },
        }
    }

    fn list_key(&mut self, code: KeyCode) -> Next {
        let (rows, size) = (self.rows(), self.page_size());
        let total =
            self.told.as_ref().map_or(0, |told| usize::try_from(told.list.total).unwrap_or(usize::MAX));
        let view = self.views.now_mut();
        let moved = match code {
            KeyCode::Char('q') | KeyCode::Esc => return Next::Quit,
            KeyCode::Char('?' | 'h') => {
                self.mode = Mode::Help;
                return Next::Stay;
            }
            KeyCode::Char('/') => {
                self.mode = Mode::Search;
                return Next::Stay;
            }
            KeyCode::Char(' ') => {
                self.paused = !self.paused;
                return if self.paused { Next::Stay } else { Next::Ask };
            }
            KeyCode::Char(number @ '1'..='3') => {
                return self.turn_to(View::ALL[number as usize - '1' as usize]);
            }
            KeyCode::Tab => return self.turn_to(self.views.view.next()),
            KeyCode::BackTab => return self.turn_to(self.views.view.next().next()),
            KeyCode::Char('s' | '>') | KeyCode::Right => view.sort_by_next(1),
            KeyCode::Char('S' | '<') | KeyCode::Left => view.sort_by_next(-1),
            KeyCode::Char('r') => view.reverse(),
            KeyCode::Char('f') => view.filter_by_next(),
            KeyCode::Down | KeyCode::Char('j') => view.go(1, rows, total, size),
            KeyCode::Up | KeyCode::Char('k') => view.go(-1, rows, total, size),
            KeyCode::PageDown => view.turn(1, total, size),
            KeyCode::PageUp => view.turn(-1, total, size),
            KeyCode::Home | KeyCode::Char('g') => view.turn(isize::MIN, total, size),
            KeyCode::End | KeyCode::Char('G') => view.turn(isize::MAX, total, size),
            KeyCode::Char(letter) => {
                if let Some(order) = self.order(letter) {
                    self.mode = Mode::Confirm(order);
                }
                return Next::Stay;
            }
            _ => return Next::Stay,
        };
        if moved { Next::Ask } else { Next::Stay }
    }

    fn search_key(&mut self, code: KeyCode) -> Next {
        let view = self.views.now_mut();
        let before = view.search.clone();
        match code {
            KeyCode::Enter => self.mode = Mode::List,
            KeyCode::Esc => {
                view.search.clear();
                self.mode = Mode::List;
            }
            code => edit(&mut view.search, code, SEARCH_CHARS),
        }
        let view = self.views.now_mut();
        if view.search == before {
            return Next::Stay;
        }
        view.start_over();
        Next::Ask
    }

    fn turn_to(&mut self, view: View) -> Next {
        self.views.view = view;
        // The rows of another list are not for this one.
        if let Some(told) = &mut self.told {
            told.list = super::told::List::default();
        }
        Next::Ask
    }

    /// Rows on the screen.
    pub(super) fn rows(&self) -> usize {
        self.told.as_ref().map_or(0, |told| match self.views.view {
            View::Clients => told.list.clients.len(),
            View::Tunnels => told.list.tunnels.len(),
            View::Events => told.list.events.len(),
        })
    }

    /// What a letter would have the relay do with the selected row.
    fn order(&self, letter: char) -> Option<Order> {
        let (list, at) = (&self.told.as_ref()?.list, self.views.now().selected);
        let order = |path: String, body: serde_json::Value, question: String| {
            Some(Order { path, body: body.to_string(), question: visible(&question).into_owned() })
        };
        match (self.views.view, letter) {
            (View::Clients, 'd' | 'x') => {
                let client = list.clients.get(at)?;
                let (action, what) = match letter {
                    'd' => ("drain", "Tell it to connect anew: the client"),
                    _ => ("disconnect", "Disconnect the client"),
                };
                let question = format!("{what} of {} at {}?", client.tunnel, client.address);
                order(format!("/api/clients/{}/{action}", client.id), json!({}), question)
            }
            (View::Tunnels, 'u') => {
                let tunnel = list.tunnels.get(at)?;
                let suspend = tunnel.state != "suspended";
                let what = if suspend { "Turn viewers away from" } else { "Let viewers in again to" };
                let path = format!("/api/tunnels/{}/suspend", tunnel.id);
                order(path, json!({ "suspended": suspend }), format!("{what} {}?", tunnel.name))
            }
            (View::Tunnels, 'c') => {
                let tunnel = list.tunnels.get(at)?;
                let question = format!("Close {} for good? Its clients stop.", tunnel.name);
                order(format!("/api/tunnels/{}/close", tunnel.id), json!({}), question)
            }
            _ => None,
        }
    }
}

/// A line that is typed, of `most` characters.
fn edit(line: &mut String, code: KeyCode, most: usize) {
    match code {
        KeyCode::Backspace => drop(line.pop()),
        KeyCode::Char(c) if line.chars().count() < most => line.push(c),
        _ => {}
    }
}
