//! What the fuzzer has kept (`fuzz/seeds/`), fed to the same functions: bytes that once broke something stay harmless.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[test]
fn nothing_that_was_kept_breaks_anything() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut broken = Vec::new();
    for (name, check) in fuzz::TARGETS {
        let files: Vec<_> =
            fs::read_dir(seeds.join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() >= 5, "{name} has no seeds to speak of");
        for path in files {
            let bytes = fs::read(&path).unwrap();
            if catch_unwind(|| check(&bytes)).is_err() {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_target_is_run_by_the_fuzzer_and_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stems = |dir: &str| -> BTreeSet<String> {
        let files = fs::read_dir(root.join(dir)).unwrap();
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let named: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(named, stems("fuzz/fuzz_targets"));
    assert_eq!(named, stems("fuzz/seeds"));
}
