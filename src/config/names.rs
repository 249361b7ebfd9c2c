//! Domain names as written (RFC 1035 §5.1): relative or absolute, with escapes, within the limits of the wire.

use hickory_proto::rr::Name;

use super::diagnostic::{At, Diagnostic};

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub what: String,
    pub rule: Option<&'static str>,
    pub help: Option<String>,
}

impl Flaw {
    fn new(what: impl Into<String>) -> Flaw {
        Flaw { what: what.into(), rule: None, help: None }
    }

    fn rule(what: impl Into<String>, rule: &'static str) -> Flaw {
        Flaw { what: what.into(), rule: Some(rule), help: None }
    }

    /// As a complaint at `at`.
    pub fn at(self, at: At) -> Diagnostic {
        let mut fault = Diagnostic::error(at, self.what);
        fault.rule = self.rule.map(str::to_owned);
        fault.help = self.help;
        fault
    }
}

/// An absolute name; the final dot may be left out.
pub fn absolute(text: &str) -> Result<Name, Flaw> {
    let (labels, _) = labels(text)?;
    name(text, labels)
}

/// A name by the rules of zone files: `@` is the origin, and without a final dot the origin is appended.
pub fn relative(text: &str, origin: &Name) -> Result<Name, Flaw> {
    if text == "@" {
        return Ok(origin.clone());
    }
    let (mut labels, dotted) = labels(text)?;
    if !dotted {
        labels.extend(origin.iter().map(<[u8]>::to_vec));
    }
    name(text, labels)
}

/// The name of a host that clients connect to, without the final dot.
pub fn host(text: &str) -> Result<String, Flaw> {
    absolute(text)?;
    let host = text.strip_suffix('.').unwrap_or(text);
    if rustls::pki_types::DnsName::try_from(host).is_err() {
        let mut flaw = Flaw::new(format!("{text:?} is no host name"));
        flaw.rule = Some("host names are letters, digits and hyphens between dots (RFC 1123 §2.1)");
        return Err(flaw);
    }
    Ok(host.to_owned())
}

/// A mail address as the domain name of an SOA's RNAME (RFC 1035 §8: the local part is one label).
pub fn mailbox(text: &str) -> Result<Name, Flaw> {
    let (local, domain) =
        text.rsplit_once('@').filter(|(local, domain)| !local.is_empty() && !domain.is_empty()).ok_or_else(|| {
            let mut flaw = Flaw::new(format!("{text:?} is no mail address"));
            flaw.help = Some("write it like \"hostmaster@stream.example\"".into());
            flaw
        })?;
    if local.contains('@') || !local.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Flaw::new(format!("{text:?} is no mail address")));
    }
    let mut all = vec![local.as_bytes().to_vec()];
    all.extend(labels(domain)?.0);
    name(text, all)
}

/// `name` as one would write it in the zone: `@`, relative, or absolute with the final dot.
pub fn shown(name: &Name, origin: &Name) -> String {
    if name == origin {
        return "@".into();
    }
    let depth = usize::from(name_labels(name)).saturating_sub(usize::from(name_labels(origin)));
    let mut labels: Vec<String> = name.iter().map(label_text).collect();
    if !origin.zone_of(name) || depth == 0 {
        return labels.join(".") + ".";
    }
    labels.truncate(depth);
    labels.join(".")
}

/// The labels of a name, the root's not counted and a wildcard's counted (which `Name::num_labels` does not).
pub fn name_labels(name: &Name) -> u8 {
    name.iter().count() as u8
}

fn label_text(label: &[u8]) -> String {
    let mut text = String::new();
    for &byte in label {
        match byte {
            b'.' | b'\\' | b'"' | b';' | b'@' | b'(' | b')' | b'$' => text.extend(['\\', byte as char]),
            0x21..=0x7e => text.push(byte as char),
            _ => text.push_str(&format!("\\{byte:03}")),
        }
    }
    text
}

/// The labels of `text`, and whether it ends with a dot. Escapes are decimal (RFC 1035 §5.1), for which hickory-proto
/// reads octal.
fn labels(text: &str) -> Result<(Vec<Vec<u8>>, bool), Flaw> {
    if text.is_empty() {
        return Err(Flaw::new("an empty string is no name"));
    }
    if text == "." {
        return Ok((Vec::new(), true));
    }
    if !text.is_ascii() {
        let mut flaw = Flaw::new(format!("{text:?} has characters outside ASCII"));
        flaw.help = Some("write international names in their xn-- form (RFC 5890 §2.3.2.1)".into());
        return Err(flaw);
    }
    let mut labels = Vec::new();
    let mut label = Vec::new();
    let mut bytes = text.bytes().peekable();
    let mut dotted = false;
    while let Some(byte) = bytes.next() {
        dotted = byte == b'.';
        match byte {
            b'.' if label.is_empty() => return Err(Flaw::new(format!("{text:?} has an empty label"))),
            b'.' => labels.push(std::mem::take(&mut label)),
            b'\\' => label.push(escaped(&mut bytes).ok_or_else(|| {
                Flaw::rule(
                    format!("{text:?} has a broken escape"),
                    "an escape is \\ and a character, or \\ and three decimal digits (RFC 1035 §5.1)",
                )
            })?),
            b'!'..=b'~' if !matches!(byte, b'"' | b';' | b'@' | b'(' | b')') => label.push(byte),
            _ => {
                let what = format!("{text:?} has the character {:?}, which a name cannot hold", byte as char);
                return Err(Flaw::new(what));
            }
        }
        if label.len() > 63 {
            return Err(Flaw::rule(
                format!("{text:?} has a label of more than 63 bytes"),
                "a label has at most 63 bytes (RFC 1035 §2.3.4)",
            ));
        }
    }
    if !dotted {
        labels.push(label);
    }
    Ok((labels, dotted))
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let first = bytes.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let (second, third) = (bytes.next()?, bytes.next()?);
    if !second.is_ascii_digit() || !third.is_ascii_digit() {
        return None;
    }
    let value = u16::from(first - b'0') * 100 + u16::from(second - b'0') * 10 + u16::from(third - b'0');
    u8::try_from(value).ok()
}

fn name(text: &str, labels: Vec<Vec<u8>>) -> Result<Name, Flaw> {
    let too_long = || {
        Flaw::rule(
            format!("{text:?} makes a name of more than 255 bytes"),
            "a name has at most 255 bytes (RFC 1035 §2.3.4)",
        )
    };
    if labels.iter().map(|l| l.len() + 1).sum::<usize>() + 1 > 255 {
        return Err(too_long());
    }
    // The limits were checked above, so this only fails should hickory-proto have others.
    let mut name =
        Name::from_labels(labels.iter().map(Vec::as_slice)).map_err(|e| Flaw::new(format!("{text:?}: {e}")))?;
    name.set_fqdn(true);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Name {
        absolute("stream.example").unwrap()
    }

    #[test]
    fn the_final_dot_of_an_absolute_name_is_optional() {
        assert_eq!(absolute("stream.example").unwrap(), absolute("stream.example.").unwrap());
        assert!(absolute("stream.example").unwrap().is_fqdn());
        assert!(absolute(".").unwrap().is_root());
    }

    #[test]
    fn relative_names_get_the_origin() {
        assert_eq!(relative("live", &zone()).unwrap().to_ascii(), "live.stream.example.");
        assert_eq!(relative("@", &zone()).unwrap(), zone());
        assert_eq!(relative("*.game", &zone()).unwrap().to_ascii(), "*.game.stream.example.");
        assert_eq!(relative("other.example.", &zone()).unwrap().to_ascii(), "other.example.");
    }

    #[test]
    fn escapes_are_decimal() {
        let name = absolute(r"a\.b\065.example").unwrap();
        assert_eq!(name.iter().next(), Some(&b"a.bA"[..]));
        for text in [r"a\", r"a\06", r"a\0x5", r"a\256"] {
            assert!(absolute(text).unwrap_err().what.contains("broken escape"), "{text}");
        }
    }

    #[test]
    fn limits_of_the_wire_hold() {
        let label = "a".repeat(63);
        assert!(absolute(&label).is_ok());
        assert!(absolute(&"a".repeat(64)).unwrap_err().what.contains("63 bytes"));
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert!(absolute(&longest).is_ok());
        assert!(absolute(&format!("{longest}a")).unwrap_err().what.contains("255 bytes"));
    }

    #[test]
    fn malformed_names_are_refused() {
        for text in ["", "a..b", ".a", "a b", "a\tb", "bücher.example", "a@b", "a;b"] {
            assert!(absolute(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_mailbox_keeps_the_dots_of_its_local_part() {
        let name = mailbox("jane.doe@stream.example").unwrap();
        assert_eq!(name.iter().next(), Some(&b"jane.doe"[..]));
        assert_eq!(name_labels(&name), 3);
        for text in ["", "jane", "@x", "jane@", "a@b@c", "jane doe@x"] {
            assert!(mailbox(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_are_shown_as_written_in_the_zone() {
        for text in ["@", "live", "*.game", r"a\.b.c", "other.example."] {
            assert_eq!(shown(&relative(text, &zone()).unwrap(), &zone()), text);
        }
    }
}
