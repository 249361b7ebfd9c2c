//! The notation of zone files (RFC 1035 §5.1): tokens, `\DDD` and `\X` escapes, character-strings and names.
//!
//! One text is the data of one record, so what goes beyond a record is a fault here: a comment, a newline, the
//! parentheses that join lines. hickory-proto's own reader is not used for this, because it takes `\DDD` for octal,
//! lower-cases names, reads on behind a `;` as if nothing had been there, and tells no places.

use std::fmt;
use std::net::IpAddr;

use hickory_proto::rr::Name;

/// What is wrong with a text, without the file around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub what: String,
    /// The rule that it breaks, with the RFC where there is one.
    pub rule: Option<String>,
    /// How to mend it.
    pub help: Option<String>,
    /// Where in the text: bytes before the fault.
    pub offset: Option<usize>,
}

impl Fault {
    pub(crate) fn new(what: impl Into<String>) -> Fault {
        Fault { what: what.into(), rule: None, help: None, offset: None }
    }

    pub(crate) fn at(offset: usize, what: impl Into<String>) -> Fault {
        Fault { offset: Some(offset), ..Fault::new(what) }
    }

    pub(crate) fn rule(mut self, rule: impl Into<String>) -> Fault {
        self.rule = Some(rule.into());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Fault {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(rule) = &self.rule {
            write!(f, " ({rule})")?;
        }
        if let Some(help) = &self.help {
            write!(f, "; help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// A part of a record's text, escapes not yet resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// Without the quotes.
    pub raw: &'a str,
    /// Offset of `raw` in the text.
    pub start: usize,
    pub quoted: bool,
}

/// Splits the text of one record at blanks, keeping quoted strings whole.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, Fault> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' => at += 1,
            b'"' => {
                let end = closing_quote(text, at)?;
                tokens.push(Token { raw: &text[at + 1..end], start: at + 1, quoted: true });
                at = end + 1;
                if !matches!(bytes.get(at), None | Some(b' ' | b'\t')) {
                    return Err(Fault::at(at, "no blank between a quoted string and what follows it")
                        .rule(r#"a quoted string ends at its second `"` (RFC 1035 §5.1)"#)
                        .help(r#"put a blank there, or write `\"` for a quote inside the string"#));
                }
            }
            _ => {
                let end = end_of_word(text, at)?;
                tokens.push(Token { raw: &text[at..end], start: at, quoted: false });
                at = end;
            }
        }
    }
    Ok(tokens)
}

/// The offset of the quote that closes the one at `open`.
fn closing_quote(text: &str, open: usize) -> Result<usize, Fault> {
    let bytes = text.as_bytes();
    let mut at = open + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return Ok(at),
            b'\\' if !bytes.get(at + 1).is_some_and(|&next| is_control(next)) => at += 2,
            b'\\' => at += 1,
            byte if is_control(byte) => return Err(control(byte, at)),
            _ => at += 1,
        }
    }
    Err(Fault::at(open, "a quoted string without its closing quote")
        .rule("a quoted string begins and ends with `\"` (RFC 1035 §5.1)")
        .help(r#"add the `"`; inside a string a quote is written `\"` and a backslash `\\`"#))
}

/// The offset behind the unquoted word at `start`. A quoted part may follow a `=` (`alpn="h2"`, RFC 9460 §2.1).
fn end_of_word(text: &str, start: usize) -> Result<usize, Fault> {
    let bytes = text.as_bytes();
    let mut at = start;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' => break,
            b'\\' if bytes.get(at + 1).is_none_or(|&next| is_control(next)) => {
                return Err(Fault::at(at, "a backslash with nothing to escape")
                    .rule(r"an escape is `\X` or `\DDD` (RFC 1035 §5.1)")
                    .help(r"write `\\` for a backslash"));
            }
            b'\\' => at += 2,
            b'"' if at > start && bytes[at - 1] == b'=' => at = closing_quote(text, at)? + 1,
            b'"' => {
                return Err(Fault::at(at, "a quote inside a word")
                    .rule("a quoted string begins behind a blank (RFC 1035 §5.1)")
                    .help(r#"put the whole word in quotes, or write `\"`"#));
            }
            b';' => {
                return Err(Fault::at(at, "a `;` outside quotes")
                    .rule("in zone files an unquoted `;` begins a comment (RFC 1035 §5.1)")
                    .help("put the string in quotes, or drop the comment; TOML's own comments begin with `#`"));
            }
            b'(' | b')' => {
                return Err(Fault::at(at, format!("a `{}` outside quotes", char::from(byte)))
                    .rule("in zone files parentheses join lines (RFC 1035 §5.1); a value here is one line")
                    .help("drop the parentheses"));
            }
            byte if is_control(byte) => return Err(control(byte, at)),
            _ => at += 1,
        }
    }
    Ok(at)
}

fn is_control(byte: u8) -> bool {
    byte < b' ' && byte != b'\t' || byte == 0x7f
}

fn control(byte: u8, at: usize) -> Fault {
    if matches!(byte, b'\n' | b'\r') {
        Fault::at(at, "a newline in a record")
            .rule("a value is the data of one record, on one line")
            .help(r"write several records as an array; a newline inside a string is `\010`")
    } else {
        Fault::at(at, format!("a control character (code {byte}) in a record")).help(format!(r"write it `\{byte:03}`"))
    }
}

impl<'a> Token<'a> {
    /// The bytes that the token stands for, `(byte, escaped)`.
    fn unescaped(self) -> impl Iterator<Item = Result<(u8, bool), Fault>> + 'a {
        let bytes = self.raw.as_bytes();
        let mut at = 0;
        std::iter::from_fn(move || {
            let &byte = bytes.get(at)?;
            let here = self.start + at;
            at += 1;
            if byte != b'\\' {
                return Some(Ok((byte, false)));
            }
            let malformed = || {
                Fault::at(here, "a malformed escape")
                    .rule(r"an escape is `\X`, or `\DDD` with three decimal digits up to 255 (RFC 1035 §5.1)")
            };
            let Some(&next) = bytes.get(at) else { return Some(Err(malformed())) };
            if !next.is_ascii_digit() {
                at += 1;
                return Some(Ok((next, true)));
            }
            let value = bytes
                .get(at..at + 3)
                .filter(|digits| digits.iter().all(u8::is_ascii_digit))
                .map(|digits| digits.iter().fold(0u16, |value, digit| value * 10 + u16::from(digit - b'0')));
            at += 3;
            Some(value.and_then(|value| u8::try_from(value).ok()).map(|byte| (byte, true)).ok_or_else(malformed))
        })
    }

    /// Escapes resolved; characters beyond ASCII as UTF-8.
    pub fn bytes(self) -> Result<Vec<u8>, Fault> {
        self.unescaped().map(|item| item.map(|(byte, _)| byte)).collect()
    }

    /// Appends a character-string (RFC 1035 §3.3): a length and up to 255 bytes.
    pub fn character_string(self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let bytes = self.bytes()?;
        let Ok(length) = u8::try_from(bytes.len()) else {
            return Err(Fault::at(self.start, format!("a string of {} bytes", bytes.len()))
                .rule("a character-string holds at most 255 bytes (RFC 1035 §3.3)")
                .help("write it as several strings, each in quotes"));
        };
        out.push(length);
        out.extend_from_slice(&bytes);
        Ok(())
    }

    /// Appends a domain name in wire form, uncompressed, its case kept.
    pub fn name(self, origin: &Name, out: &mut Vec<u8>) -> Result<(), Fault> {
        let fault = |what: String| Fault::at(self.start, what);
        if self.quoted {
            return Err(fault("a name in quotes".into()).help("write it without the quotes"));
        }
        if self.raw.parse::<IpAddr>().is_ok() {
            return Err(fault(format!("{} is an address where a name belongs", self.raw))
                .help("give the address to a name of its own with an A or AAAA record, and write that name here"));
        }
        let begin = out.len();
        if self.raw == "." {
            out.push(0);
            return Ok(());
        }
        let mut relative = true;
        if self.raw != "@" {
            let mut label = Vec::new();
            for item in self.unescaped() {
                let (byte, escaped) = item?;
                relative = escaped || byte != b'.';
                if relative {
                    if !escaped && !byte.is_ascii() {
                        return Err(self.beyond_ascii());
                    }
                    label.push(byte);
                } else {
                    self.label(&label, out)?;
                    label.clear();
                }
            }
            if relative {
                self.label(&label, out)?;
            }
        }
        if relative {
            for label in origin.iter() {
                self.label(label, out)?;
            }
        }
        out.push(0);
        let length = out.len() - begin;
        if length > 255 {
            return Err(fault(format!("a name of {length} bytes"))
                .rule("a name has at most 255 bytes on the wire (RFC 1035 §2.3.4)"));
        }
        Ok(())
    }

    fn label(self, label: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        match label.len() {
            0 => Err(Fault::at(self.start, format!("the name `{}` has an empty label", self.raw))
                .rule("only the root has an empty label (RFC 1035 §3.1)")
                .help("drop the superfluous dot")),
            length @ 1..64 => {
                out.push(length as u8);
                out.extend_from_slice(label);
                Ok(())
            }
            length => Err(Fault::at(self.start, format!("a label of {length} bytes"))
                .rule("a label has at most 63 bytes (RFC 1035 §2.3.4)")),
        }
    }

    fn beyond_ascii(self) -> Fault {
        let fault = Fault::at(self.start, format!("the name `{}` has characters beyond ASCII", self.raw))
            .rule("internationalised names are written with their A-labels (RFC 5890 §2.3.2.1)");
        match Name::from_utf8(self.raw) {
            Ok(name) => fault.help(format!("write {}", name.to_ascii())),
            Err(_) => fault,
        }
    }
}

/// Reads one name: relative to `origin` unless it ends in a dot, `@` is `origin` itself. Its case is kept.
pub fn name(text: &str, origin: &Name) -> Result<Name, Fault> {
    let token = match tokens(text)?[..] {
        [] => return Err(Fault::at(0, "no name")),
        [token] => token,
        [_, extra, ..] => return Err(Fault::at(extra.start, format!("`{}` follows the name", extra.raw))),
    };
    let mut wire = Vec::new();
    token.name(origin, &mut wire)?;
    Ok(name_from_wire(&wire))
}

/// `wire` is one whole uncompressed name, as [`Token::name`] writes it.
fn name_from_wire(mut wire: &[u8]) -> Name {
    let mut labels = Vec::new();
    while let Some((&length @ 1.., rest)) = wire.split_first() {
        let (label, rest) = rest.split_at(usize::from(length));
        labels.push(label);
        wire = rest;
    }
    Name::from_labels(labels).expect("its labels have 1 to 63 bytes and it has at most 255")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin() -> Name {
        Name::from_ascii("Example.com.").unwrap()
    }

    fn wire(text: &str) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        tokens(text)?[0].name(&origin(), &mut out).map(|()| out)
    }

    #[test]
    fn names_are_relative_unless_dotted() {
        assert_eq!(wire("www").unwrap(), b"\x03www\x07Example\x03com\0");
        assert_eq!(wire("WWW.net.").unwrap(), b"\x03WWW\x03net\0", "case is kept");
        assert_eq!(wire("@").unwrap(), b"\x07Example\x03com\0");
        assert_eq!(wire(".").unwrap(), b"\0");
        assert_eq!(wire(r"\@").unwrap(), b"\x01@\x07Example\x03com\0");
        assert_eq!(wire("0/26.").unwrap(), b"\x040/26\0", "RFC 2317");
        assert_eq!(wire("odd_.").unwrap(), b"\x04odd_\0");
    }

    #[test]
    fn escapes_in_names_are_decimal_and_escaped_dots_are_data() {
        assert_eq!(wire(r"a\.b.").unwrap(), b"\x03a.b\0");
        assert_eq!(wire(r"a\046b.").unwrap(), b"\x03a.b\0");
        assert_eq!(wire(r"a\255.").unwrap(), b"\x02a\xff\0");
        assert_eq!(wire(r"a\.").unwrap(), b"\x02a.\x07Example\x03com\0", "an escaped final dot leaves it relative");
        assert_eq!(name(r"\000.x.", &origin()).unwrap().iter().next(), Some(&b"\0"[..]));
    }

    #[test]
    fn malformed_names_are_faults_that_tell_the_place() {
        let long = "x".repeat(64);
        for (text, what) in [
            ("a..b", "empty label"),
            ("..", "empty label"),
            (".a", "empty label"),
            (r"a\25", "malformed escape"),
            (r"a\256", "malformed escape"),
            (r"a\", "nothing to escape"),
            ("192.0.2.1", "an address where a name belongs"),
            ("2001:db8::1", "an address where a name belongs"),
            (r#""www""#, "in quotes"),
            (&long, "a label of 64 bytes"),
            (&format!("{0}.{0}.{0}.{0}.{0}", &long[1..]), "a name of "),
            ("münchen", "beyond ASCII"),
        ] {
            let fault = wire(text).unwrap_err();
            assert!(fault.what.contains(what), "{text}: {fault}");
            assert!(fault.offset.is_some(), "{text}");
        }
        assert!(wire("münchen.").unwrap_err().help.unwrap().contains("xn--mnchen-3ya."));
        assert!(name("", &origin()).is_err() && name("a b", &origin()).is_err());
    }

    #[test]
    fn the_longest_names_are_allowed() {
        let label = "x".repeat(63);
        let text = format!("{label}.{label}.{label}.{}.", &label[2..]);
        assert_eq!(wire(&text).unwrap().len(), 255);
        assert!(wire(&format!("{label}.{label}.{label}.{}.", &label[1..])).is_err());
    }

    #[test]
    fn what_zone_files_use_beyond_one_record_is_a_fault_at_its_place() {
        for (text, offset) in [
            ("v=DMARC1; p=none", 8),
            ("10 mail ; the comment", 8),
            ("( 10 mail )", 0),
            ("10 mail)", 7),
            ("10\nmail", 2),
            ("\"a\nb\"", 2),
            ("a\u{7}b", 1),
            ("\"open", 0),
            ("x \"open\\\"", 2),
            (r#""a""b""#, 3),
            (r#"a"b""#, 1),
        ] {
            assert_eq!(tokens(text).unwrap_err().offset, Some(offset), "{text:?}");
        }
    }

    #[test]
    fn strings_keep_what_quotes_and_escapes_protect() {
        let strings = |text: &'static str| -> Vec<Vec<u8>> {
            tokens(text).unwrap().into_iter().map(|token| token.bytes().unwrap()).collect()
        };
        assert_eq!(strings(r#"a "b c;(" "" d\;\ e"#), [&b"a"[..], b"b c;(", b"", b"d; e"]);
        assert_eq!(strings(r#""\"\\\200é\é""#), [b"\"\\\xc8\xc3\xa9\xc3\xa9".to_vec()]);
        assert_eq!(strings(r"\é"), ["é".as_bytes()]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", noisy in r#"[ "\\;().@0-9aé=\n]{0,40}"#) {
            for text in [text, noisy] {
                let _ = name(&text, &origin());
                for token in tokens(&text).unwrap_or_default() {
                    let _ = token.bytes();
                    prop_assert_eq!(&text[token.start..][..token.raw.len()], token.raw);
                }
            }
        }

        #[test]
        fn every_name_survives_writing_and_reading(
            labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..8),
        ) {
            let text: String = labels
                .iter()
                .map(|label| label.iter().map(|byte| format!(r"\{byte:03}")).collect::<String>() + ".")
                .collect();
            let read = name(&text, &origin()).unwrap();
            prop_assert!(read.eq_case(&Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap()));
        }
    }
}
