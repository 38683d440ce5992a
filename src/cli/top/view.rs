//! The lists: which one is looked at, and by which part, in which order.

use crate::client::text::percent_encode;

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Clients,
    Tunnels,
    Events,
}

impl View {
    pub(super) const ALL: [Self; 3] = [Self::Clients, Self::Tunnels, Self::Events];

    /// As the API and the operator call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Tunnels => "tunnels",
            Self::Events => "events",
        }
    }

    pub(super) fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// What it is sorted by, the first unless asked for, and whether the greatest is what one looks for.
    fn sorts(self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Clients => &[
                ("health", false),
                ("tunnel", false),
                ("owner", false),
                ("address", false),
                ("round_trip", true),
                ("p99", true),
                ("silence", true),
                ("missed", true),
                ("reconnects", true),
                ("since", true),
                ("agent", false),
            ],
            Self::Tunnels => &[
                ("requests", true),
                ("bytes", true),
                ("viewers", true),
                ("wait", true),
                ("failures", true),
                ("name", false),
                ("owner", false),
                ("age", false),
            ],
            Self::Events => &[],
        }
    }

    /// The name of its filter, and what it lets through; the first is all.
    fn filters(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Clients => ("health", &["", "late,dead", "alive", "away"]),
            Self::Tunnels => ("state", &["", "online", "offline", "suspended"]),
            Self::Events => ("kind", &["", "connected,disconnected,took_over,drained", "refused,revoked"]),
        }
    }
}

/// The part of a list that is looked at.
#[derive(Debug)]
pub(super) struct Part {
    view: View,
    pub(super) search: String,
    sort: usize,
    pub(super) descending: bool,
    filter: usize,
    /// From 0.
    page: usize,
    /// A row of the page, from 0.
    pub(super) selected: usize,
}

impl Part {
    fn new(view: View) -> Self {
        let descending = view.sorts().first().is_some_and(|(_, descending)| *descending);
        Self { view, search: String::new(), sort: 0, descending, filter: 0, page: 0, selected: 0 }
    }

    /// What it is sorted by; nothing: its order is always the same.
    pub(super) fn sort(&self) -> &'static str {
        self.view.sorts().get(self.sort).map_or("", |(name, _)| name)
    }

    /// Which rows are let through; nothing: all.
    pub(super) fn filter(&self) -> &'static str {
        self.view.filters().1[self.filter]
    }

    /// The path and query that ask for a page of `size` rows.
    pub(super) fn path(&self, size: usize) -> String {
        let order = match (self.sort(), self.descending) {
            ("", _) => "",
            (_, true) => "desc",
            (_, false) => "asc",
        };
        format!(
            "/api/{}?search={}&{}={}&sort={}&order={order}&page={}&size={size}",
            self.view.name(),
            percent_encode(&self.search),
            self.view.filters().0,
            self.filter(),
            self.sort(),
            self.page + 1,
        )
    }

    /// Rows before this page, when each has `size`.
    pub(super) fn before(&self, size: usize) -> usize {
        self.page * size
    }

    pub(super) fn start_over(&mut self) {
        (self.page, self.selected) = (0, 0);
    }

    pub(super) fn sort_by_next(&mut self, step: isize) -> bool {
        let sorts = self.view.sorts();
        if sorts.is_empty() {
            return false;
        }
        self.sort = self.sort.wrapping_add_signed(step).wrapping_add(sorts.len()) % sorts.len();
        self.descending = sorts[self.sort].1;
        self.start_over();
        true
    }

    pub(super) fn reverse(&mut self) -> bool {
        self.descending = !self.descending;
        self.start_over();
        !self.view.sorts().is_empty()
    }

    pub(super) fn filter_by_next(&mut self) -> bool {
        self.filter = (self.filter + 1) % self.view.filters().1.len();
        self.start_over();
        true
    }

    /// Selects the row `step` from here, of `rows` on this page and `total` in all. Whether that is on another page.
    pub(super) fn go(&mut self, step: isize, rows: usize, total: usize, size: usize) -> bool {
        match self.selected.checked_add_signed(step) {
            Some(row) if row < rows => self.selected = row,
            Some(_) if self.turn(1, total, size) => {
                self.selected = 0;
                return true;
            }
            None if self.turn(-1, total, size) => {
                self.selected = size - 1;
                return true;
            }
            _ => {}
        }
        false
    }

    /// Turns `step` pages on, or back. Whether there is such a page.
    pub(super) fn turn(&mut self, step: isize, total: usize, size: usize) -> bool {
        let last = total.saturating_sub(1) / size;
        let page = self.page.saturating_add_signed(step).min(last);
        let turned = page != self.page;
        if !turned {
            self.selected =
                if step < 0 { 0 } else { (total - self.before(size).min(total)).saturating_sub(1) };
        }
        self.page = page;
        turned
    }

    /// Goes to the last page and row if there are no more than `total`. Whether the page has changed.
    pub(super) fn fit(&mut self, total: usize, size: usize) -> bool {
        let last = total.saturating_sub(1) / size;
        let changed = self.page > last;
        self.page = self.page.min(last);
        let rows = total.saturating_sub(self.before(size)).min(size);
        self.selected = self.selected.min(rows.saturating_sub(1));
        changed
    }
}

/// All lists, each as it was left.
#[derive(Debug)]
pub(super) struct Views {
    pub(super) view: View,
    parts: [Part; 3],
}

impl Default for Views {
    fn default() -> Self {
        Self { view: View::Clients, parts: View::ALL.map(Part::new) }
    }
}

impl Views {
    pub(super) fn now(&self) -> &Part {
        &self.parts[self.view as usize]
    }

    pub(super) fn now_mut(&mut self) -> &mut Part {
        &mut self.parts[self.view as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_asked_for_as_the_api_has_it() {
        let mut part = Part::new(View::Clients);
        part.search = "a b&".to_owned();
        part.sort_by_next(-1);
        part.filter_by_next();
        assert_eq!(
            part.path(7),
            "/api/clients?search=a%20b%26&health=late,dead&sort=agent&order=asc&page=1&size=7"
        );
        let path = Part::new(View::Events).path(50);
        assert_eq!(path, "/api/events?search=&kind=&sort=&order=&page=1&size=50");
    }

    #[test]
    fn the_selected_row_stays_within_what_there_is() {
        let mut part = Part::new(View::Tunnels);
        let at = |part: &Part| part.before(10) + part.selected;
        assert!(!part.go(-1, 10, 25, 10) && at(&part) == 0);
        for _ in 0..9 {
            assert!(!part.go(1, 10, 25, 10));
        }
        assert!(part.go(1, 10, 25, 10) && at(&part) == 10);
        assert!(part.go(-1, 10, 25, 10) && at(&part) == 9);
        assert!(part.turn(isize::MAX, 25, 10) && at(&part) == 29);
        assert!(!part.fit(25, 10) && at(&part) == 24, "{part:?}");
        assert!(!part.go(1, 5, 25, 10) && at(&part) == 24);
        assert!(part.fit(3, 10) && at(&part) == 2);
        assert!(!part.fit(0, 10) && at(&part) == 0);
        assert!(!part.turn(-1, 0, 10) && !part.turn(1, 0, 10) && at(&part) == 0);
    }
}
