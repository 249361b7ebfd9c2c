//! One kind of complaint for every file an operator writes: where, what, which rule, and how to mend it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in a file. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct At {
    pub file: Arc<Path>,
    pub line: u32,
    pub column: u32,
}

impl At {
    /// A complaint about a file as a whole points at its first character.
    pub fn start(file: &Path) -> At {
        At { file: file.into(), line: 1, column: 1 }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Errors refuse the whole load; warnings are printed and the load goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Error,
    Warning,
}

/// A fault of a file, printed as
///
/// ```text
/// zones/stream.example.toml:14:1: www has a CNAME and an A record
///   a name with a CNAME can have no other data (RFC 1034 §3.6.2)
///   help: remove one of them; the CNAME is at line 9
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    pub at: At,
    pub severity: Severity,
    /// What is wrong, in the words of the file. It names the key.
    pub what: String,
    /// The rule it breaks, with the RFC where there is one.
    pub rule: Option<String>,
    /// How to mend it.
    pub help: Option<String>,
}

impl Diagnostic {
    pub fn error(at: At, what: impl Into<String>) -> Diagnostic {
        Diagnostic { at, severity: Severity::Error, what: what.into(), rule: None, help: None }
    }

    pub fn warning(at: At, what: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(at, what) }
    }

    pub fn rule(mut self, rule: impl Into<String>) -> Diagnostic {
        self.rule = Some(rule.into());
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// As `check --json` and a refused reload show it.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "file": self.at.file.to_string_lossy(),
            "line": self.at.line,
            "column": self.at.column,
            "severity": if self.is_error() { "error" } else { "warning" },
            "what": self.what,
            "rule": self.rule,
            "help": self.help,
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = if self.is_error() { "" } else { "warning: " };
        write!(f, "{}: {warning}{}", self.at, self.what)?;
        if let Some(rule) = &self.rule {
            write!(f, "\n  {rule}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}
