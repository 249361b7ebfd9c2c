//! Errors of TOML syntax, with a mend for the traps that zone files set.
//!
//! The parser recovers from an error and goes on, so that one run shows them all. One thing it cannot recover from by
//! itself: a bracket that is never closed swallows the rest of the file. Here the statement with that bracket is cut
//! out and the rest read again.

use std::borrow::Cow;

use toml::de::DeTable;

use super::diagnostic::Diagnostic;
use super::tree::File;

/// More syntax errors than this of one file help nobody.
const MAX_ERRORS: usize = 100;
/// Lines that a statement may have for its first one to be found.
const MAX_STATEMENT: usize = 10_000;
/// Each costs another pass over the file.
const MAX_CUTS: usize = 10;

/// Reports every error of syntax, and gives the text that is left to be read: unclosed brackets are replaced by
/// blanks, so that every byte keeps its place.
pub fn check(file: &File) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(file.text.as_str());
    for cuts in 0.. {
        let (_, mut errors) = DeTable::parse_recoverable(&text);
        errors.sort_by_key(|error| offset(file, error));
        let unclosed = errors.iter().take(MAX_ERRORS).find_map(|error| unclosed(file, error));
        let unclosed = unclosed.filter(|_| cuts < MAX_CUTS);
        let Some(Unclosed { first, past }) = unclosed else {
            for error in errors.iter().take(MAX_ERRORS) {
                report(file, error);
            }
            break;
        };
        let (start, end) = (file.line_range(first).start, file.line_range(past).start);
        let statement = &file.text[start..end];
        let bracket = statement.find(['[', '{']).unwrap_or_default();
        let what = if statement[bracket..].starts_with('{') { "inline table" } else { "array" };
        file.report_syntax(
            Diagnostic::error(file.at(start + bracket), format!("not TOML: the {what} that begins here is not closed"))
                .help(format!("add the missing {}", if what == "array" { "]" } else { "}" })),
        );
        let blank = |c: char| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
        text = Cow::Owned(format!(
            "{}{}{}",
            &text[..start],
            statement.chars().map(blank).collect::<String>(),
            &text[end..]
        ));
    }
    text
}

/// As much of a line as tells what it is.
fn beginning(file: &File, line: usize) -> &str {
    let line = &file.text[file.line_range(line)];
    &line[..line.floor_char_boundary(500)]
}

fn offset(file: &File, error: &toml::de::Error) -> usize {
    error.span().map_or(file.text.len(), |span| span.start)
}

fn report(file: &File, error: &toml::de::Error) {
    let offset = offset(file, error);
    let line = beginning(file, file.line_of(offset)).trim();
    let mut fault = Diagnostic::error(file.at(offset), format!("not TOML: {}", error.message()));
    if let Some((rule, help)) = mend(line) {
        (fault.rule, fault.help) = (Some(rule.to_owned()), Some(help));
    } else if error.message() == "duplicate key" {
        fault = fault
            .rule("a key, and a [table], stands once in its table (TOML)")
            .help("remove one of them, or join them");
    }
    file.report_syntax(fault);
}

/// A statement whose bracket is not closed: its first line and the line behind its last.
struct Unclosed {
    first: usize,
    past: usize,
}

fn unclosed(file: &File, error: &toml::de::Error) -> Option<Unclosed> {
    let within =
        ["array elements", "in array", "key-value pairs", "in inline table", "unclosed array", "unclosed inline table"];
    if !within.iter().any(|word| error.message().contains(word)) {
        return None;
    }
    let at = offset(file, error);
    let line = file.line_of(at);
    let text = |line: usize| beginning(file, line);
    let past = if at >= file.text.trim_end().len() {
        line + 1
    } else if begins_statement(text(line)) {
        line
    } else {
        return None;
    };
    let first = (past.saturating_sub(MAX_STATEMENT)..past).rev().find(|line| begins_statement(text(*line)))?;
    // A statement that is wrong on its own line says so better itself.
    (first < line || text(first).matches(['[', '{']).count() > text(first).matches([']', '}']).count())
        .then_some(Unclosed { first, past })
}

/// Whether `line` is a `key = …` or a `[table]` that begins in the first column. What is indented may as well be part
/// of a value above.
fn begins_statement(line: &str) -> bool {
    if let Some(header) = line.strip_prefix('[') {
        return header.trim_start_matches('[').starts_with(|c: char| c.is_ascii_alphabetic()) && header.contains(']');
    }
    let key = line.split('=').next().unwrap_or_default().trim_end();
    let quoted =
        key.len() > 1 && (key.starts_with('"') && key.ends_with('"') || key.starts_with('\'') && key.ends_with('\''));
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.@*".contains(c);
    line.contains('=') && !key.is_empty() && (quoted || key.chars().all(plain))
}

/// What the writer of `line` probably did not know: the rule and the mend.
fn mend(line: &str) -> Option<(&'static str, String)> {
    const QUOTE: &str = "TOML wants names with other characters than letters, digits, - and _ in quotes";
    if let Some(header) = line.strip_prefix('[').filter(|line| line.contains(['*', '@'])) {
        let header = header.trim_start_matches('[').split(']').next()?;
        let (table, name) = header.split_once('.')?;
        (!name.starts_with(['"', '\''])).then_some(())?;
        return Some((QUOTE, format!("quote the name: [{}.\"{}\"]", table.trim(), name.trim())));
    }
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    if key.starts_with(['@', '*']) || key.contains(".*") {
        return Some((QUOTE, format!("quote the name: \"{key}\" = …")));
    }
    if key.contains('.') && !key.starts_with(['"', '\'']) && value.starts_with('{') {
        return Some(("a dot in an unquoted key nests tables (TOML)", format!("quote the name: \"{key}\" = {{ … }}")));
    }
    let bare = value.split('#').next()?.trim();
    let word = |c: char| c.is_ascii_alphanumeric() || "/.:-_ ".contains(c);
    if !bare.is_empty()
        && bare.chars().all(word)
        && bare.chars().any(|c| c.is_ascii_alphabetic() || c == '/' || c == ':')
    {
        return Some(("strings stand in quotes", format!("write {key} = \"{bare}\"")));
    }
    None
}
