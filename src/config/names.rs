//! Domain names as an operator writes them outside of record data, and as one would write them back.

use hickory_proto::rr::Name;

use super::diagnostic::Diagnostic;
use super::tree::Item;
use crate::zone::{Fault, presentation};

/// An absolute name; the final dot may be left out.
pub fn absolute(text: &str) -> Result<Name, Fault> {
    if text == "@" {
        return Err(Fault::new("@ is no absolute name").help("write the name in full"));
    }
    presentation::name(text, &Name::root())
}

/// The absolute name that `item` has as `text`, or a report of what is wrong with it. A single label without the final dot
/// gets a warning: in the records of the same file it would be relative to the zone.
pub fn read_absolute(item: &Item<'_>, text: &str, apex: &Name) -> Option<Name> {
    let name = absolute(text).map_err(|flaw| item.report_flaw(flaw)).ok()?;
    if name.iter().count() == 1 && !text.ends_with('.') && !apex.zone_of(&name) {
        let meant =
            relative(text, apex).map(|meant| format!("did you mean {}? ", meant.to_ascii().trim_end_matches('.')));
        item.report(
            Diagnostic::warning(item.at(), format!("`{}`: {text} is the top-level name {name}", item.path))
                .rule("names are relative to the zone in [records] and [stream.*] only")
                .help(format!("{}the top-level name is written \"{name}\"", meant.unwrap_or_default())),
        );
    }
    Some(name)
}

/// A name by the rules of zone files: `@` is the origin, and without a final dot the origin is appended.
pub fn relative(text: &str, origin: &Name) -> Result<Name, Fault> {
    presentation::name(text, origin)
}

/// The name of a host that clients connect to, without the final dot.
pub fn host(text: &str) -> Result<String, Fault> {
    absolute(text)?;
    let host = text.strip_suffix('.').unwrap_or(text);
    if rustls::pki_types::DnsName::try_from(host).is_err() {
        return Err(Fault::new(format!("{text:?} is no host name"))
            .rule("host names are letters, digits and hyphens between dots (RFC 1123 §2.1)"));
    }
    Ok(host.to_owned())
}

/// A mail address as the domain name of an SOA's RNAME (RFC 1035 §8: the local part is one label).
pub fn mailbox(text: &str) -> Result<Name, Fault> {
    let malformed =
        || Fault::new(format!("{text:?} is no mail address")).help("write it like \"hostmaster@stream.example\"");
    let (local, domain) = text.rsplit_once('@').ok_or_else(malformed)?;
    if local.is_empty() || local.contains('@') || !local.bytes().all(|b| b.is_ascii_graphic()) || domain.is_empty() {
        return Err(malformed());
    }
    let domain = absolute(domain)?;
    Name::from_labels([local.as_bytes()].into_iter().chain(domain.iter())).map_err(|_| {
        Fault::new(format!("{text:?} makes no name")).rule("a label has at most 63 bytes, a name 255 (RFC 1035 §2.3.4)")
    })
}

/// `name` as one would write it in the zone: `@`, relative, or absolute with the final dot.
pub fn shown(name: &Name, origin: &Name) -> String {
    if name == origin {
        return "@".into();
    }
    let mut labels: Vec<String> = name.iter().map(label_text).collect();
    if !origin.zone_of(name) {
        return labels.join(".") + ".";
    }
    labels.truncate(labels.len().saturating_sub(origin.iter().count()));
    labels.join(".")
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
        assert!(absolute("@").is_err());
    }

    #[test]
    fn a_mailbox_keeps_the_dots_of_its_local_part() {
        let name = mailbox("jane.doe@stream.example").unwrap();
        assert_eq!(name.iter().next(), Some(&b"jane.doe"[..]));
        assert_eq!(name.iter().count(), 3);
        for text in ["", "jane", "@x", "jane@", "a@b@c", "jane doe@x"] {
            assert!(mailbox(text).is_err(), "{text:?}");
        }
        assert!(mailbox(&format!("{}@x", "a".repeat(64))).is_err());
    }

    #[test]
    fn a_host_is_a_name_that_a_client_can_ask_for() {
        assert_eq!(host("live.stream.example.").unwrap(), "live.stream.example");
        for text in ["", "*.stream.example", "192.0.2.1", "live.stream.example:443", "http://live", "a..b"] {
            assert!(host(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_are_shown_as_written_in_the_zone() {
        for text in ["@", "live", "*.game", r"a\.b.c", r"\007", "other.example."] {
            assert_eq!(shown(&relative(text, &zone()).unwrap(), &zone()), text);
        }
    }
}
