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
        let bold = line.split("**").skip(1).step_by(2);
        found.extend(bold.filter(|id| is_id(id)).map(|id| Requirement { id, section }));
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
    fn ids_are_letters_and_numbers() {
        assert!(is_id("C-1") && is_id("R-120"));
        assert!(!is_id("C-") && !is_id("X-1") && !is_id("C-1a") && !is_id("The end."));
    }
}
