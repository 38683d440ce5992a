//! The tables of docs/conformance.md, which are made of the cases. `ADIT_BLESS=1` writes them.

use adit::conform::case::{Case, Weight};
use adit::conform::{client, relay, requirements};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/conformance.md");

/// What each requirement of a side is tested by; advised cases in italics.
fn table<World>(letter: char, cases: &[&Case<World>]) -> String {
    let row = |requirement: requirements::Requirement| {
        let name = |case: &&Case<World>| match case.weight {
            Weight::Required => case.name.to_owned(),
            Weight::Advised => format!("*{}*", case.name),
        };
        let tests = cases.iter().filter(|case| case.requirements.contains(&requirement.id));
        let names: Vec<_> = tests.map(name).collect();
        format!("| {} | {} | {} |\n", requirement.id, requirement.section, names.join(", "))
    };
    let asked = requirements::all().into_iter().filter(|requirement| requirement.id.starts_with(letter));
    let rows: String = asked.map(row).collect();
    format!("\n| requirement | section | cases |\n|---|---|---|\n{rows}\n")
}

#[test]
fn the_docs_say_which_case_tests_which_requirement() {
    let mut docs = std::fs::read_to_string(FILE).unwrap();
    for (side, wanted) in [("clients", table('C', &client::all())), ("relays", table('R', &relay::cases()))] {
        let begin = format!("<!-- requirements of {side} -->\n");
        let from = docs.find(&begin).unwrap() + begin.len();
        let to = from + docs[from..].find("<!-- end -->").unwrap();
        if std::env::var_os("ADIT_BLESS").is_some() {
            docs.replace_range(from..to, &wanted);
            std::fs::write(FILE, &docs).unwrap();
        } else {
            assert!(docs[from..to] == wanted, "write the table of {side} by ADIT_BLESS=1");
        }
    }
}
