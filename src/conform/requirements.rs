//! The numbered requirements of `protocol.md`, read from the page itself, so that a report can say where each stands.

/// The page that a client or a relay is written from.
const PROTOCOL: &str = include_str!("../../protocol.md");

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Such as `C-12`.
    pub id: &'static str,
    /// Of the section that it stands in, such as `8.3`.
    pub section: &'static str,
}

/// All requirements, in the order of the page.
pub fn all() -> Vec<Requirement> {
    let (mut found, mut section) = (Vec::new(), "");
    for line in PROTOCOL.lines() {
        if let Some(title) = line.strip_prefix("##") {
            let title = title.trim_start_matches('#').trim_start();
            section = title.split([' ', ':']).next().unwrap_or_default().trim_end_matches('.');
        }
        // Other bold text may begin on one line and end on another, and `***` is none.
        let bold = line.match_indices("**").filter_map(|(at, _)| line[at + 2..].split_once("**"));
        found.extend(bold.map(|(id, _)| id).filter(|id| is_id(id)).map(|id| Requirement { id, section }));
    }
    found
}

/// The section of `protocol.md` in which a requirement stands.
pub fn section_of(id: &str) -> Option<&'static str> {
    all().into_iter().find(|requirement| requirement.id == id).map(|requirement| requirement.section)
}

/// `ids` with their sections, for people: `C-12 (protocol.md, section 3.1)`.
pub fn named(ids: &[&str]) -> String {
    let one = |id: &&str| match section_of(id) {
        Some(section) => format!("{id} (protocol.md, section {section})"),
        None => (*id).to_owned(),
    };
    ids.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// `C-…` is asked of clients, `R-…` of relays.
fn is_id(text: &str) -> bool {
    let number = text.strip_prefix("C-").or_else(|| text.strip_prefix("R-"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_beside_other_bold_text() {
        for (id, section) in [("R-16", "2.4"), ("R-43", "4.1"), ("C-1", "1")] {
            assert_eq!(section_of(id), Some(section), "{id}");
        }
    }

    #[test]
    fn ids_are_letters_and_numbers() {
        assert!(is_id("C-1") && is_id("R-120"));
        assert!(!is_id("C-") && !is_id("X-1") && !is_id("C-1a") && !is_id("The end."));
    }
}
