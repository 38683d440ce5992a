//! What a list is asked for: search, filter, order and page.

use std::cmp::Ordering;

use serde::Deserialize;

use super::problem::Problem;
use crate::proto::limits::admin::{ROWS, SEARCH_CHARS};

/// The query as it came; an empty value is none.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Query {
    /// Of a live stream: which list goes along.
    pub view: String,
    /// What to look for.
    search: String,
    /// Which clients, with commas.
    pub health: String,
    /// Which tunnels, with commas.
    pub state: String,
    /// Which events, with commas.
    pub kind: String,
    /// What to sort by.
    sort: String,
    /// `asc` or `desc`.
    order: String,
    /// From 1.
    page: String,
    /// Rows of a page.
    size: String,
}

/// A page of a list whose rows are filtered by `F` and sorted by `S`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ask<F, S> {
    /// Which rows, in which order.
    pub order: Order<F, S>,
    /// The number of the page, from 1.
    pub page: usize,
    /// Rows of a page.
    pub size: usize,
}

/// Which rows, in which order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Order<F, S> {
    /// In lower case; empty: all.
    pub search: String,
    /// Any of them; empty: all.
    pub filter: Vec<F>,
    /// By what.
    pub sort: S,
    /// The greatest first.
    pub descending: bool,
}

impl Query {
    /// Reads what a list is asked for. `filter` is the name of its filter, with the text; `filters` and `sorts` are what
    /// these may be, the default order first.
    pub fn ask<F: Copy, S: Copy>(
        &self,
        filter: (&str, &str),
        filters: &[(&'static str, F)],
        sorts: &[(&'static str, S)],
    ) -> Result<Ask<F, S>, Problem> {
        if self.search.chars().count() > SEARCH_CHARS {
            return Err(Problem::query(format!("search: at most {SEARCH_CHARS} characters")));
        }
        let (name, text) = filter;
        let wanted = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let filter = wanted.map(|word| one_of(name, word, filters)).collect::<Result<_, _>>()?;
        let sort = match (self.sort.as_str(), sorts.first()) {
            ("", Some((_, first))) => *first,
            (word, _) => one_of("sort", word, sorts)?,
        };
        let descending =
            !self.order.is_empty() && one_of("order", &self.order, &[("asc", false), ("desc", true)])?;
        let [usual, most] = ROWS;
        Ok(Ask {
            order: Order { search: self.search.trim().to_lowercase(), filter, sort, descending },
            page: number("page", &self.page, 1, usize::MAX)?,
            size: number("size", &self.size, usual, most)?,
        })
    }
}

fn one_of<T: Copy>(name: &str, word: &str, all: &[(&'static str, T)]) -> Result<T, Problem> {
    all.iter().find(|(known, _)| *known == word).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = all.iter().map(|(known, _)| *known).collect();
        Problem::query(format!("{name}: expected one of {}", known.join(", ")))
    })
}

fn number(name: &str, text: &str, usual: usize, most: usize) -> Result<usize, Problem> {
    if text.is_empty() {
        return Ok(usual);
    }
    text.parse().ok().filter(|number| (1..=most).contains(number)).ok_or_else(|| {
        let range = if most == usize::MAX { "from 1".to_owned() } else { format!("from 1 to {most}") };
        Problem::query(format!("{name}: expected a number {range}"))
    })
}

impl<F, S> Ask<F, S> {
    /// How many rows come before the page.
    pub fn skip(&self) -> usize {
        (self.page - 1).saturating_mul(self.size)
    }

    /// The part of `all` that is on the page.
    pub fn of<'a, T>(&self, all: &'a [T]) -> &'a [T] {
        let from = self.skip().min(all.len());
        &all[from..from.saturating_add(self.size).min(all.len())]
    }
}

impl<F: PartialEq, S> Order<F, S> {
    /// Whether the filter lets this through.
    pub fn lets(&self, value: &F) -> bool {
        self.filter.is_empty() || self.filter.contains(value)
    }

    /// Whether one of `texts` has what is searched for.
    pub fn finds<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> bool {
        self.search.is_empty() || texts.into_iter().any(|text| contains(text, &self.search))
    }

    /// Compares two values in the order that is asked for; what is absent comes last in both.
    pub fn compare<T: Ord>(&self, one: Option<T>, other: Option<T>) -> Ordering {
        match (one, other) {
            (Some(one), Some(other)) if self.descending => other.cmp(&one),
            (Some(one), Some(other)) => one.cmp(&other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }
}

/// Whether `text` has `lower`, whatever its case.
fn contains(text: &str, lower: &str) -> bool {
    if !text.is_ascii() {
        return text.to_lowercase().contains(lower);
    }
    text.as_bytes().windows(lower.len()).any(|part| part.eq_ignore_ascii_case(lower.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTERS: [(&str, u8); 2] = [("one", 1), ("two", 2)];
    const SORTS: [(&str, u8); 2] = [("name", 0), ("age", 1)];

    fn ask(query: Query) -> Result<Ask<u8, u8>, Problem> {
        query.ask(("health", &query.health), &FILTERS, &SORTS)
    }

    #[test]
    fn what_is_not_given_has_a_default_and_what_cannot_be_read_is_told() {
        let asked = ask(Query::default()).unwrap();
        assert_eq!((asked.page, asked.size, asked.order.sort, asked.order.descending), (1, 50, 0, false));
        let given = Query {
            search: " WEB ".into(),
            health: "two,one,".into(),
            sort: "age".into(),
            order: "desc".into(),
            page: "3".into(),
            size: "200".into(),
            ..Query::default()
        };
        let asked = ask(given).unwrap();
        assert_eq!((asked.skip(), asked.order.filter, asked.order.search), (400, vec![2, 1], "web".into()));
        for bad in [
            Query { health: "three".into(), ..Query::default() },
            Query { sort: "size".into(), ..Query::default() },
            Query { order: "up".into(), ..Query::default() },
            Query { page: "0".into(), ..Query::default() },
            Query { page: "-1".into(), ..Query::default() },
            Query { size: "201".into(), ..Query::default() },
            Query { search: "x".repeat(201), ..Query::default() },
        ] {
            assert!(ask(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_page_behind_the_end_is_empty() {
        let page = |page: &str, size: &str| {
            let asked = ask(Query { page: page.into(), size: size.into(), ..Query::default() }).unwrap();
            asked.of(&[1, 2, 3, 4, 5]).to_vec()
        };
        assert_eq!(page("1", "2"), [1, 2]);
        assert_eq!(page("3", "2"), [5]);
        assert!(page("4", "2").is_empty() && page(&usize::MAX.to_string(), "200").is_empty());
    }

    #[test]
    fn a_search_takes_no_heed_of_case_in_any_script() {
        let order = |search: &str| Order {
            search: search.to_lowercase(),
            filter: vec![0],
            sort: (),
            descending: false,
        };
        for (text, search, found) in [
            ("Web-1", "wEB", true),
            ("web", "webs", false),
            ("ÄGYPTEN", "ägy", true),
            ("agent", "ä", false),
            ("", "x", false),
        ] {
            assert_eq!(order(search).finds([text]), found, "{text} {search}");
        }
        assert!(order("").finds([]));
    }

    #[test]
    fn what_is_absent_comes_last_in_both_orders() {
        for descending in [false, true] {
            let order = Order { search: String::new(), filter: vec![0], sort: (), descending };
            let mut values = [None, Some(2), Some(1)];
            values.sort_by(|one, other| order.compare(*one, *other));
            assert_eq!(values, if descending { [Some(2), Some(1), None] } else { [Some(1), Some(2), None] });
        }
    }
}
