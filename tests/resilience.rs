//! docs/resilience.md as a test: every row of its tables names tests, each of which exists and runs.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod sources;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use sources::rust_files;

/// A test found in the sources.
#[derive(Clone, Copy)]
struct Found {
    ignored: bool,
}

/// `a/b.rs`, `a/b/mod.rs` and `a/b/tests.rs` are all `a::b::`.
fn module(path: &Path) -> String {
    let path = path.with_extension("");
    let mut parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
    parts.pop_if(|last| matches!(*last, "mod" | "main" | "lib" | "tests"));
    parts.iter().flat_map(|part| [*part, "::"]).collect()
}

/// The functions behind a test attribute.
fn tests_in(text: &str) -> Vec<(&str, Found)> {
    let (mut tests, mut is_test, mut ignored) = (Vec::new(), false, false);
    for line in text.lines().map(str::trim) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        ignored |= line.starts_with("#[ignore");
        let declared = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(name) = declared.and_then(|rest| rest.split(['(', '<']).next()) {
            if is_test {
                tests.push((name, Found { ignored }));
            }
            (is_test, ignored) = (false, false);
        }
    }
    tests
}

/// All tests by `module::name`, the module as the path of its file below one of the trees.
fn all_tests() -> HashMap<String, Found> {
    let mut tests = HashMap::new();
    for tree in ["tests/it", "tests", "src"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(tree);
        for file in rust_files(&root) {
            let module = module(file.strip_prefix(&root).unwrap());
            for (name, found) in tests_in(&fs::read_to_string(&file).unwrap()) {
                tests.insert(format!("{module}{name}"), found);
            }
        }
    }
    tests
}

/// What is wrong with the tables of `document`, and how many rows they have.
fn check(document: &str, tests: &HashMap<String, Found>, soak: &str) -> (Vec<String>, usize) {
    let (mut wrong, mut rows, mut is_map) = (Vec::new(), 0, false);
    for (number, line) in document.lines().enumerate() {
        let mut complain = |what: String| wrong.push(format!("line {}: {what}", number + 1));
        let Some(row) = line.strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
            is_map = false;
            continue;
        };
        let last = row.rsplit('|').next().unwrap_or_default().trim();
        is_map |= last == "shown by";
        if !is_map || last == "shown by" || last.starts_with("---") {
            continue;
        }
        rows += 1;
        let references: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        if references.is_empty() {
            complain("names no test".to_owned());
        }
        for reference in references {
            if let Some(kind) = reference.strip_prefix("soak ") {
                if !soak.contains(&format!("\"{kind}\"")) {
                    complain(format!("the soak has no {kind:?}"));
                }
                continue;
            }
            match tests.get(reference) {
                None => complain(format!("there is no test {reference}")),
                Some(found) if found.ignored => complain(format!("{reference} is ignored")),
                Some(_) => {}
            }
        }
    }
    (wrong, rows)
}

#[test]
fn every_row_names_a_test_that_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/resilience.md")).unwrap();
    let soak: String = fs::read_dir(root.join("benches/soak"))
        .unwrap()
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let (wrong, rows) = check(&document, &all_tests(), &soak);
    assert!(wrong.is_empty(), "docs/resilience.md:\n{}", wrong.join("\n"));
    assert!(rows > 80, "only {rows} rows were found: the tables are not read as they are written");
}

#[test]
fn no_test_is_ignored() {
    let ignored: Vec<String> =
        all_tests().into_iter().filter(|(_, found)| found.ignored).map(|(name, _)| name).collect();
    assert!(ignored.is_empty(), "{ignored:?}");
}

#[test]
fn a_row_without_a_test_that_runs_is_noticed() {
    let tests = HashMap::from([
        ("a::runs".to_owned(), Found { ignored: false }),
        ("a::rests".to_owned(), Found { ignored: true }),
    ]);
    let table = |cell: &str| format!("| row | shown by |\n|---|---|\n| x | {cell} |\n");
    let complaints = |cell: &str| check(&table(cell), &tests, "kind: \"upload\"").0.len();
    for good in ["`a::runs`", "`a::runs`, `soak upload`"] {
        assert_eq!(complaints(good), 0, "{good}");
    }
    for bad in
        ["", "a::runs", "`a::rests`", "`a::missing`", "`runs`", "`soak download`", "`a::runs` `a::rests`"]
    {
        assert_eq!(complaints(bad), 1, "{bad}");
    }
    let source =
        "#[test]\n#[ignore = \"slow\"]\nfn rests() {}\nfn helper() {}\n#[tokio::test]\nasync fn runs() {}\n";
    let found: Vec<_> = tests_in(source).into_iter().map(|(name, found)| (name, found.ignored)).collect();
    assert_eq!(found, [("rests", true), ("runs", false)]);
}
