//! lighttpd's configuration read into blocks: settings, and the conditions under which they hold.

use std::collections::BTreeMap;

use super::lex::{Word, words};
use super::value::{TOO_LONG, Value};
use crate::proto::limits::bridge::lighttpd::{DEPTH, VALUE_BYTES};

/// `$HTTP["url"] =~ "…"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) line: usize,
    /// What is looked at, such as `$HTTP["url"]`.
    pub(super) subject: String,
    /// `==`, `=^`, `=$` or `=~`.
    pub(super) sign: &'static str,
    pub(super) text: String,
    /// It must not hold: `!=`, `!~`, or an `else` behind it.
    pub(super) negated: bool,
}

/// The settings that hold under the same conditions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// All of them must hold; none: everywhere.
    pub(super) conditions: Vec<Condition>,
    /// Each setting with its line.
    pub(super) settings: BTreeMap<String, (usize, Value)>,
    /// The block around it; the first block has none.
    pub(super) parent: Option<usize>,
}

/// A whole file: the first block is what holds everywhere.
#[derive(Debug)]
pub(super) struct File {
    pub(super) blocks: Vec<Block>,
    /// What was passed over, by line.
    pub(super) passed: Vec<(usize, String)>,
    /// Nothing of it stands in other files.
    pub(super) is_whole: bool,
}

/// Why there may be more than was read.
pub(super) const ELSEWHERE: &str =
    "; files that it includes are not read: put their text in the place of their lines";

impl File {
    /// A setting that holds in a block: its own, or that of one around it.
    pub(super) fn get(&self, block: usize, key: &str) -> Option<&(usize, Value)> {
        let mut at = Some(block);
        while let Some(block) = at.and_then(|at| self.blocks.get(at)) {
            if let Some(found) = block.settings.get(key) {
                return Some(found);
            }
            at = block.parent;
        }
        None
    }
}

/// Reads a file, or says in which line what is wrong.
pub(super) fn parse(text: &str) -> Result<File, String> {
    let words = words(text)?;
    let file = File { blocks: vec![Block::default()], passed: Vec::new(), is_whole: true };
    let mut parser = Parser { words: &words, at: 0, file, variables: BTreeMap::new(), block: 0, depth: 0 };
    parser.block(0)?;
    match parser.peek() {
        None => Ok(parser.file),
        Some(word) => Err(parser.wrong(format!("{word} closes nothing"))),
    }
}

struct Parser<'a> {
    words: &'a [(usize, Word)],
    at: usize,
    file: File,
    /// `var.NAME`, without the prefix.
    variables: BTreeMap<String, Value>,
    /// The block that is being read.
    block: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Word> {
        self.words.get(self.at).map(|(_, word)| word)
    }

    fn next(&mut self) -> Option<&'a Word> {
        let word = self.peek();
        self.at += 1;
        word
    }

    fn line(&self) -> usize {
        self.words.get(self.at.min(self.words.len().saturating_sub(1))).map_or(1, |(line, _)| *line)
    }

    fn wrong(&self, what: impl std::fmt::Display) -> String {
        format!("line {}: {what}", self.line())
    }

    fn must(&mut self, sign: &'static str) -> Result<(), String> {
        match self.peek() {
            Some(Word::Sign(found)) if *found == sign => {
                self.at += 1;
                Ok(())
            }
            found => Err(self.wrong(format!("{sign} is expected, not {}", shown(found)))),
        }
    }

    fn is_next(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(Word::Sign(found)) if *found == sign)
    }

    fn skip_lines(&mut self) {
        while self.peek() == Some(&Word::Line) {
            self.at += 1;
        }
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH { Err(self.wrong("too many brackets within each other")) } else { Ok(()) }
    }

    /// Statements up to a closing bracket, or the end.
    fn block(&mut self, block: usize) -> Result<(), String> {
        self.deeper()?;
        let around = std::mem::replace(&mut self.block, block);
        loop {
            self.skip_lines();
            match self.peek() {
                None | Some(Word::Sign("}")) => break,
                Some(Word::Subject(_)) => self.conditional(block)?,
                Some(Word::Name(name)) => {
                    let line = self.line();
                    self.at += 1;
                    self.statement(block, line, name)?;
                }
                found => return Err(self.wrong(format!("{} begins nothing", shown(found)))),
            }
        }
        self.block = around;
        self.depth -= 1;
        Ok(())
    }

    fn braces(&mut self, block: usize) -> Result<(), String> {
        self.skip_lines();
        self.must("{")?;
        self.block(block)?;
        self.must("}")
    }

    /// `$X["y"] == "z" { … } else $… { … } else { … }`: each block holds where those before it do not.
    fn conditional(&mut self, parent: usize) -> Result<(), String> {
        let mut before: Vec<Condition> = Vec::new();
        loop {
            let mut conditions = self.file.blocks[parent].conditions.clone();
            conditions.extend(
                before
                    .iter()
                    .cloned()
                    .map(|condition| Condition { negated: !condition.negated, ..condition }),
            );
            let own = match self.peek() {
                Some(Word::Subject(_)) => Some(self.condition()?),
                _ => None,
            };
            conditions.extend(own.clone());
            self.file.blocks.push(Block { conditions, settings: BTreeMap::new(), parent: Some(parent) });
            self.braces(self.file.blocks.len() - 1)?;
            let after = self.at;
            self.skip_lines();
            match (self.peek(), own) {
                (Some(Word::Name(name)), Some(own)) if name == "else" => {
                    self.at += 1;
                    before.push(own);
                }
                _ => {
                    self.at = after;
                    return Ok(());
                }
            }
        }
    }

    fn condition(&mut self) -> Result<Condition, String> {
        let line = self.line();
        let (Some(Word::Subject(subject)), Some(Word::Sign(sign))) = (self.next(), self.next()) else {
            return Err(self.wrong("a condition is $SUBJECT[\"name\"], an operator and a text"));
        };
        let (sign, negated) = match *sign {
            "!=" => ("==", true),
            "!~" => ("=~", true),
            sign @ ("==" | "=~" | "=^" | "=$") => (sign, false),
            sign => return Err(self.wrong(format!("{sign} compares nothing"))),
        };
        let text = self.value()?.shown();
        Ok(Condition { line, subject: subject.clone(), sign, text, negated })
    }

    fn statement(&mut self, block: usize, line: usize, name: &str) -> Result<(), String> {
        match name {
            "global" if self.is_next("{") => return self.braces(0),
            "else" => return Err(self.wrong("else stands behind no condition")),
            _ if name == "include" || name.starts_with("include_") => {
                let why = match name {
                    "include_shell" => "no program is run; put what it prints in the place of this line",
                    _ => "no other file is read; put its text in the place of this line",
                };
                let what = self.unread();
                self.file.passed.push((line, format!("{name} {what}: {why}")));
                self.file.is_whole = false;
                return Ok(());
            }
            _ => {}
        }
        let Some(Word::Sign(sign @ ("=" | "+=" | ":=" | "?="))) = self.next() else {
            return Err(format!("line {line}: behind {name} there is no =, += or :="));
        };
        let value = self.value()?;
        if !matches!(self.peek(), None | Some(Word::Line | Word::Sign("}"))) {
            return Err(self.wrong(format!("{} follows a whole value", shown(self.peek()))));
        }
        let variable = match name.strip_prefix("var.") {
            Some(variable) => Some(variable),
            None => (!name.contains('.')).then_some(name),
        };
        let before = match variable {
            Some(variable) => self.variables.get(variable).cloned(),
            None => self.file.get(block, name).map(|(_, value)| value.clone()),
        };
        let value = match (*sign, before) {
            ("+=", Some(before)) => before.plus(value).map_err(|error| format!("line {line}: {error}"))?,
            ("?=", Some(before)) => before,
            _ => value,
        };
        match variable {
            Some(variable) => _ = self.variables.insert(variable.to_owned(), value),
            None => _ = self.file.blocks[block].settings.insert(name.to_owned(), (line, value)),
        }
        Ok(())
    }

    /// The words of a value as they stand there: what is left out need not mean anything.
    fn unread(&mut self) -> String {
        let mut text: Vec<String> = Vec::new();
        while let Some(word) = self.peek() {
            let ends = matches!(word, Word::Line | Word::Sign("}"));
            // A value goes on behind a +, in the next line, too.
            if ends && text.last().is_none_or(|last| last != "+") {
                break;
            }
            if *word != Word::Line {
                text.push(word.to_string());
            }
            self.at += 1;
        }
        text.join(" ")
    }

    /// A value, and those that are added to it.
    fn value(&mut self) -> Result<Value, String> {
        let mut sum = self.one()?;
        while self.is_next("+") {
            self.at += 1;
            self.skip_lines();
            let line = self.line();
            sum = sum.plus(self.one()?).map_err(|error| format!("line {line}: {error}"))?;
        }
        Ok(sum)
    }

    fn one(&mut self) -> Result<Value, String> {
        match self.peek() {
            Some(Word::Text(text)) => {
                self.at += 1;
                Ok(Value::Text(text.clone()))
            }
            Some(Word::Number(number)) => {
                self.at += 1;
                Ok(Value::Number(*number))
            }
            Some(Word::Name(name)) => {
                let value = self.variable(name)?;
                self.at += 1;
                Ok(value)
            }
            Some(Word::Sign("(")) => self.list(),
            found => Err(self.wrong(format!("a value is expected, not {}", shown(found)))),
        }
    }

    fn variable(&mut self, name: &str) -> Result<Value, String> {
        if let Some(variable) = name.strip_prefix("env.") {
            // Whoever translates is not where lighttpd runs.
            let value = std::env::var(variable);
            let what = match &value {
                Ok(_) => format!("{name} is what it is here and now"),
                Err(_) => format!("{name} is not set here; it counts as empty"),
            };
            self.file.passed.push((self.line(), what));
            return Ok(Value::Text(value.unwrap_or_default()));
        }
        let known = match name.strip_prefix("var.") {
            Some(variable) => self.variables.get(variable),
            // A setting that holds here is a value, too.
            None if name.contains('.') => self.file.get(self.block, name).map(|(_, value)| value),
            None => self.variables.get(name),
        };
        known.cloned().ok_or_else(|| {
            let elsewhere = if self.file.is_whole { "" } else { ELSEWHERE };
            self.wrong(format!("there is no variable or setting {name}{elsewhere}"))
        })
    }

    fn list(&mut self) -> Result<Value, String> {
        self.deeper()?;
        self.must("(")?;
        let mut list = Vec::new();
        loop {
            self.skip_lines();
            if self.is_next(")") {
                self.at += 1;
                break;
            }
            let mut element = (None, self.value()?);
            self.skip_lines();
            if self.is_next("=>") {
                self.at += 1;
                self.skip_lines();
                element = (Some(element.1.shown()), self.value()?);
                self.skip_lines();
            }
            list.push(element);
            if !self.is_next(")") {
                self.must(",")?;
            }
        }
        self.depth -= 1;
        let list = Value::List(list);
        if list.size() > VALUE_BYTES { Err(self.wrong(TOO_LONG)) } else { Ok(list) }
    }
}

fn shown(word: Option<&Word>) -> String {
    word.map_or_else(|| "the end".to_owned(), Word::to_string)
}
