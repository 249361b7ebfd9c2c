//! A TOML file as a tree in which everything knows its place.
//!
//! A [`File`] holds the text and gathers its faults. A [`Table`] hands out its entries one by one as [`Item`]s; what
//! nobody asked for is an unknown key. An item reads itself as a string, a number, a list…, or reports what stands
//! there instead, so that readers only say what they need.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{At, Diagnostic};
use crate::zone::Fault;

/// A value of a file and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed<T> {
    pub value: T,
    pub at: At,
}

/// Bytes between two marks of [`File::marks`].
const MARK: usize = 256;

/// More faults of one file than this are only counted: memory has an end, and so has patience.
const MAX_FAULTS: usize = 10_000;

/// A file's text, and the faults found in it so far.
pub struct File {
    pub path: Arc<Path>,
    pub text: String,
    /// Byte offset of each line's first character.
    lines: Vec<usize>,
    /// Characters that begin before byte `i * MARK`. With them a column costs the same in the longest of lines.
    marks: Vec<u32>,
    faults: RefCell<Vec<Diagnostic>>,
    /// Faults beyond [`MAX_FAULTS`].
    unsaid: Cell<usize>,
    /// Lines with an error of syntax.
    broken: RefCell<BTreeSet<u32>>,
    /// Other files that were looked at because this one names them, whether they could be read or not.
    named: RefCell<BTreeSet<PathBuf>>,
}

impl File {
    pub fn new(path: &Path, text: String) -> File {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        let marks = std::iter::once(0)
            .chain(text.as_bytes().chunks(MARK).scan(0, |sum, chunk| {
                *sum += characters(chunk);
                Some(*sum)
            }))
            .collect();
        File {
            path: path.into(),
            text,
            lines,
            marks,
            faults: RefCell::default(),
            unsaid: Cell::new(0),
            broken: RefCell::default(),
            named: RefCell::default(),
        }
    }

    /// The place of a byte of the text; past the end means the end.
    pub fn at(&self, offset: usize) -> At {
        let offset = offset.min(self.text.len());
        let line = self.line_of(offset);
        let column = self.characters_before(offset) - self.characters_before(self.lines[line]) + 1;
        At { file: self.path.clone(), line: line as u32 + 1, column }
    }

    fn characters_before(&self, offset: usize) -> u32 {
        let mark = offset / MARK;
        self.marks[mark] + characters(&self.text.as_bytes()[mark * MARK..offset])
    }

    /// The line in which a byte stands, counted from 0.
    pub fn line_of(&self, offset: usize) -> usize {
        self.lines.partition_point(|&start| start <= offset) - 1
    }

    /// Where a line begins and ends, counted from 0, its line break included; the end of the text past the last one.
    pub fn line_range(&self, line: usize) -> Range<usize> {
        let bound = |line: usize| self.lines.get(line).copied().unwrap_or(self.text.len());
        bound(line)..bound(line + 1)
    }

    /// Adds a fault. On a line whose syntax is wrong there is already one, and what was made of the rest of that line
    /// is a guess.
    pub fn report(&self, fault: Diagnostic) {
        if !(self.broken.borrow().contains(&fault.at.line) && fault.at.file == self.path) {
            self.push(fault);
        }
    }

    fn push(&self, fault: Diagnostic) {
        let mut faults = self.faults.borrow_mut();
        if faults.len() < MAX_FAULTS {
            faults.push(fault);
        } else {
            self.unsaid.set(self.unsaid.get() + 1);
        }
    }

    /// Adds an error of syntax: part of what was written is not in the tree. One a line is enough.
    pub fn report_syntax(&self, fault: Diagnostic) {
        if self.broken.borrow_mut().insert(fault.at.line) {
            self.push(fault);
        }
    }

    /// To be called before a file that this one names is looked at.
    pub fn names(&self, other: &Path) {
        self.named.borrow_mut().insert(other.to_owned());
    }

    pub fn take_named(&self) -> Vec<PathBuf> {
        self.named.take().into_iter().collect()
    }

    pub fn is_broken(&self) -> bool {
        !self.broken.borrow().is_empty()
    }

    /// Adds a fault of something that is not there; kept back when the file is broken, as it may well be written.
    pub fn report_missing(&self, fault: Diagnostic) {
        if !self.is_broken() {
            self.report(fault);
        }
    }

    pub fn has_errors(&self) -> bool {
        self.unsaid.get() > 0 || self.faults.borrow().iter().any(Diagnostic::is_error)
    }

    /// All faults, in the order of the text.
    pub fn take_faults(&self) -> Vec<Diagnostic> {
        let mut faults = self.faults.take();
        faults.sort();
        faults.dedup();
        if self.unsaid.get() > 0 {
            let end = self.at(self.text.len());
            faults.push(Diagnostic::error(end, format!("{} more faults of this file", self.unsaid.get())));
        }
        faults
    }
}

/// Characters that begin in `bytes`, a part of UTF-8 text.
fn characters(bytes: &[u8]) -> u32 {
    bytes.iter().filter(|&&b| b & 0xC0 != 0x80).count() as u32
}

/// A table on its way through a reader.
pub struct Table<'t> {
    pub file: &'t File,
    /// Dotted, as in `region.us.check`; empty for the root.
    pub path: String,
    table: &'t DeTable<'t>,
    at: usize,
    asked: Vec<&'static str>,
}

impl<'t> Table<'t> {
    pub fn root(file: &'t File, table: &'t DeTable<'t>) -> Table<'t> {
        Table { file, path: String::new(), table, at: 0, asked: Vec::new() }
    }

    pub fn at(&self) -> At {
        self.file.at(self.at)
    }

    /// The entry `key`, if written. Whatever was asked for is a known key.
    pub fn take(&mut self, key: &'static str) -> Option<Item<'t>> {
        self.asked.push(key);
        let (key, value) = self.table.get_key_value(key)?;
        Some(self.item(key, value))
    }

    /// All entries, for tables whose keys the operator chooses.
    pub fn entries(&self) -> impl Iterator<Item = (&'t str, Item<'t>)> {
        self.table.iter().map(|(key, value)| (key.get_ref().as_ref(), self.item(key, value)))
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    fn item(&self, key: &'t Spanned<toml::de::DeString<'t>>, value: &'t Spanned<DeValue<'t>>) -> Item<'t> {
        let (dot, name) = (if self.path.is_empty() { "" } else { "." }, quoted_key(key.get_ref()));
        Item { file: self.file, path: format!("{}{dot}{name}", self.path), key: key.span().start, value }
    }

    /// Reports every entry that nobody asked for. `mend` may know what a wrong key was meant to be; otherwise the
    /// nearest known key is offered.
    pub fn finish(self, mend: impl Fn(&str, &Item<'t>) -> Option<String>) {
        for (key, item) in self.entries().filter(|(key, _)| !self.asked.contains(key)) {
            let place = if self.path.is_empty() { String::new() } else { format!(" in [{}]", self.path) };
            let help = mend(key, &item).unwrap_or_else(|| match nearest(key, self.asked.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known keys here: {}", self.asked.join(", ")),
            });
            self.file.report(item.key_fault(format!("unknown key `{}`{place}", quoted_key(key))).help(help));
        }
    }

    /// [`Table::finish`] without special mends.
    pub fn done(self) {
        self.finish(|_, _| None);
    }
}

/// An entry of a table, or of an array.
#[derive(Clone)]
pub struct Item<'t> {
    pub file: &'t File,
    /// Dotted, as in `region.us.a`.
    pub path: String,
    key: usize,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Item<'t> {
    /// Where the value stands; a table's place is its key.
    pub fn at(&self) -> At {
        if self.value.get_ref().is_table() { self.key_at() } else { self.file.at(self.value.span().start) }
    }

    pub fn key_at(&self) -> At {
        self.file.at(self.key)
    }

    /// A fault of the value.
    pub fn fault(&self, what: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.at(), what)
    }

    /// A fault of the key itself.
    pub fn key_fault(&self, what: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.key_at(), what)
    }

    /// The place of a byte of a string's text; its beginning where escapes stand between text and source.
    pub fn inside(&self, offset: usize) -> At {
        let (span, text) = (self.value.span(), self.value.get_ref().as_str());
        let inner = self.file.text.get(span.start + 1..span.end.saturating_sub(1));
        if text.is_some() && inner == text { self.file.at(span.start + 1 + offset) } else { self.at() }
    }

    pub fn report(&self, fault: Diagnostic) {
        self.file.report(fault);
    }

    /// Reports what is wrong with the text of a string, at its place in it.
    pub fn report_flaw(&self, flaw: Fault) {
        let at = flaw.offset.map_or_else(|| self.at(), |offset| self.inside(offset));
        self.report_flaw_at(at, flaw);
    }

    /// Reports what is wrong with the key as a name.
    pub fn report_key_flaw(&self, flaw: Fault) {
        self.report_flaw_at(self.key_at(), flaw);
    }

    fn report_flaw_at(&self, at: At, flaw: Fault) {
        let what = format!("`{}`: {}", self.path, flaw.what);
        self.report(Diagnostic { rule: flaw.rule, help: flaw.help, ..Diagnostic::error(at, what) });
    }

    pub fn placed<T>(&self, value: T) -> Placed<T> {
        Placed { value, at: self.at() }
    }

    pub fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub fn is_array(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// Whether the value is a list of tables (`[[…]]`).
    pub fn is_tables(&self) -> bool {
        self.value.get_ref().as_array().is_some_and(|list| list.iter().all(|v| v.get_ref().is_table()))
    }

    fn wrong_type(&self, needed: &str) {
        self.report(self.fault(format!("`{}` is {}, not {needed}", self.path, type_name(self.value.get_ref()))));
    }

    pub fn string(&self) -> Option<&'t str> {
        let text = self.value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type("a string");
        }
        text
    }

    pub fn is_number(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Integer(_) | DeValue::Float(_))
    }

    /// The text, if it is one; reports nothing.
    pub fn as_string(&self) -> Option<&'t str> {
        self.value.get_ref().as_str()
    }

    /// A TOML date or time as it is written in RFC 3339, if it is one; reports nothing.
    pub fn as_datetime(&self) -> Option<String> {
        match self.value.get_ref() {
            DeValue::Datetime(time) => Some(time.to_string()),
            _ => None,
        }
    }

    /// The value where it is a whole number, without a word where it is not.
    pub fn as_integer(&self) -> Option<i64> {
        let number = self.value.get_ref().as_integer()?;
        i64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        let value = self.value.get_ref().as_bool();
        if value.is_none() {
            self.wrong_type("true or false");
        }
        value
    }

    /// A whole number of `range`.
    pub fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let Some(number) = self.value.get_ref().as_integer() else {
            self.wrong_type("a whole number");
            return None;
        };
        match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(n) if range.contains(&n) => Some(n),
            _ => {
                let what = format!("`{}` is {number}, outside {} to {}", self.path, range.start(), range.end());
                self.report(self.fault(what));
                None
            }
        }
    }

    /// A number, whole or not.
    pub fn number(&self) -> Option<f64> {
        let value = self.value.get_ref();
        let number = match value {
            // Beyond 64 bits it is a number all the same, if rarely one that is meant.
            DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
                Ok(n) => Some(n as f64),
                Err(_) => Some(n.as_str().parse().unwrap_or(f64::INFINITY)),
            },
            DeValue::Float(n) => n.as_str().parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.wrong_type("a number");
        }
        number
    }

    pub fn table(&self) -> Option<Table<'t>> {
        let Some(table) = self.value.get_ref().as_table() else {
            self.wrong_type("a table");
            return None;
        };
        Some(Table { file: self.file, path: self.path.clone(), table, at: self.key, asked: Vec::new() })
    }

    /// The elements of an array.
    pub fn array(&self) -> Option<Vec<Item<'t>>> {
        if !self.is_array() {
            self.wrong_type("an array");
            return None;
        }
        Some(self.one_or_more())
    }

    /// The elements of an array, or the value itself when it is none: one string is as good as an array of one.
    pub fn one_or_more(&self) -> Vec<Item<'t>> {
        match self.value.get_ref() {
            DeValue::Array(list) => list
                .iter()
                .map(|value| Item { file: self.file, path: self.path.clone(), key: value.span().start, value })
                .collect(),
            _ => vec![self.clone()],
        }
    }

    /// The strings of an array, or one string, each with its item. What is no string is reported and left out.
    pub fn strings(&self) -> Vec<(&'t str, Item<'t>)> {
        self.one_or_more().into_iter().filter_map(|item| Some((item.string()?, item))).collect()
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The key as TOML wants it written: bare where it can be.
pub fn quoted_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { key.to_owned() } else { format!("{key:?}") }
}

/// The known word that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Beyond this length nothing is a slip of the finger, and the measure is quadratic.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= (k.chars().count().max(lower.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}
