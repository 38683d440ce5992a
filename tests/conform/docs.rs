//! The tables of `docs/conformance.md` that are made of the cases.

use adit::conform::{Case, Weight, requirements};

/// Asserts that the docs say which of `cases` test the requirements of this kind (`C` or `R`), behind `marker`.
pub fn assert_tell<World>(marker: &str, kind: char, cases: &[&Case<World>]) {
    let docs = include_str!("../../docs/conformance.md");
    let (_, rest) = docs.split_once(&format!("<!-- {marker} -->\n")).unwrap();
    let (told, _) = rest.split_once("<!-- end -->").unwrap();
    let row = |requirement: requirements::Requirement| {
        let cases = cases.iter().filter(|case| case.requirements.contains(&requirement.id));
        let name = |case: &&Case<World>| match case.weight {
            Weight::Required => case.name.to_owned(),
            Weight::Advised => format!("*{}*", case.name),
        };
        let names: Vec<_> = cases.map(name).collect();
        format!("| {} | {} | {} |\n", requirement.id, requirement.section, names.join(", "))
    };
    let asked = requirements::all().into_iter().filter(|requirement| requirement.id.starts_with(kind));
    let table: String = asked.map(row).collect();
    let wanted = format!("\n| requirement | section | cases |\n|---|---|---|\n{table}\n");
    assert!(told == wanted, "docs/conformance.md is to have this table:\n{wanted}");
}
