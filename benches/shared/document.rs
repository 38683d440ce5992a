//! The place in a document that belongs to a bench: between the lines `<!-- NAME:begin -->` and `<!-- NAME:end -->`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// An error unless the document has the place of `name`: to be known before an hour of measuring.
pub fn check(file: &Path, name: &str) -> Result<()> {
    split(&read(file)?, name).map(drop).with_context(|| format!("{} has no place for {name}", file.display()))
}

/// Replaces what stands in the place of `name`.
pub fn write(file: &Path, name: &str, text: &str) -> Result<()> {
    let old = read(file)?;
    let (before, after) = split(&old, name)?;
    fs::write(file, format!("{before}\n\n{}\n\n{after}", text.trim()))
        .with_context(|| format!("cannot write {}", file.display()))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The document up to the end of the first marker, and from the second one on.
fn split<'a>(text: &'a str, name: &str) -> Result<(&'a str, &'a str)> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let at = text.find(&begin).with_context(|| format!("no line {begin}"))? + begin.len();
    let length = text[at..].find(&end).with_context(|| format!("no line {end} behind it"))?;
    Ok((&text[..at], &text[at + length..]))
}
