//! RDATA bytes held against the fields of their type: what `\#` gives must be what the type's own notation could give.

use super::super::Fault;
use super::types::{Field, Form};
use super::{location, service};

/// Refuses bytes that are not well-formed data of `form`'s type (RFC 3597 §5: a known type stays itself).
pub(super) fn check(form: &Form, wire: &[u8]) -> Result<(), Fault> {
    let mut rest = wire;
    for &(name, field) in form.fields {
        let took = match field {
            Field::U8 => take(rest, 1),
            Field::U16 => take(rest, 2),
            Field::V4 => take(rest, 4),
            Field::V6 => take(rest, 16),
            Field::Name => name_length(rest),
            Field::String => string_length(rest),
            Field::Tag => string_length(rest).filter(|&length| is_tag(&rest[1..length])),
            Field::Strings => all_strings(rest),
            Field::Text { may_be_empty } => Some(rest.len()).filter(|&length| may_be_empty || length > 0),
            Field::Hex | Field::Base64 => Some(rest.len()).filter(|&length| length > 0),
            Field::Location => Some(rest.len()).filter(|_| location::is_valid(rest)),
            Field::SvcParams => Some(rest.len()).filter(|_| service::is_valid(rest)),
        };
        let Some(took) = took else {
            return Err(Fault::new(format!("the bytes are no data of {}: malformed {name}", form.mnemonic))
                .rule(format!("the bytes of a known type must be its data (RFC 3597 §5, {})", form.rfc))
                .help(format!("the type's own notation is easier: `{}`", form.example)));
        };
        rest = &rest[took..];
    }
    if !rest.is_empty() {
        let what = format!("the bytes are no data of {}: {} too many", form.mnemonic, rest.len());
        return Err(Fault::new(what).rule(format!("the bytes of a known type must be its data ({})", form.rfc)));
    }
    Ok(())
}

fn take(rest: &[u8], length: usize) -> Option<usize> {
    (rest.len() >= length).then_some(length)
}

/// Bytes of the uncompressed name that `rest` begins with.
pub(super) fn name_length(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let &label = rest.get(at)?;
        at += 1 + usize::from(label);
        match label {
            0 => return Some(at).filter(|&length| length <= 255),
            // A pointer would point into a message that is not there yet.
            64.. => return None,
            _ => {}
        }
    }
}

fn string_length(rest: &[u8]) -> Option<usize> {
    take(rest, 1 + usize::from(*rest.first()?))
}

fn all_strings(rest: &[u8]) -> Option<usize> {
    let mut at = string_length(rest)?;
    while at < rest.len() {
        at += string_length(&rest[at..])?;
    }
    Some(at)
}

/// RFC 8659 §4.1: a tag is one or more ASCII letters and digits.
pub(super) fn is_tag(tag: &[u8]) -> bool {
    (1..=255).contains(&tag.len()) && tag.iter().all(u8::is_ascii_alphanumeric)
}

/// Refuses digests of the wrong length: a validator takes such a record for an attack or drops it, which is seldom
/// what a lost character was meant to do.
pub(super) fn check_lengths(form: &Form, wire: &[u8]) -> Result<(), Fault> {
    let (kind, digest, lengths): (u8, &[u8], &[(u8, usize)]) = match (form.mnemonic, wire) {
        // RFC 4034 §A.2, RFC 4509, RFC 5933, RFC 6605
        ("DS", [_, _, _, kind, digest @ ..]) => (*kind, digest, &[(1, 20), (2, 32), (3, 32), (4, 48)]),
        // RFC 6698 §2.1.3
        ("TLSA" | "SMIMEA", [_, _, kind, data @ ..]) => (*kind, data, &[(1, 32), (2, 64)]),
        // RFC 4255 §3.1.2, RFC 6594 §3.1
        ("SSHFP", [_, kind, fingerprint @ ..]) => (*kind, fingerprint, &[(1, 20), (2, 32)]),
        _ => return Ok(()),
    };
    match lengths.iter().find(|(known, _)| *known == kind) {
        Some(&(_, length)) if digest.len() != length => {
            Err(Fault::new(format!("a digest of {} bytes in {}", digest.len(), form.mnemonic))
                .rule(format!("a digest of type {kind} has {length} bytes ({})", form.rfc))
                .help("copy it again; some digits are missing or too many"))
        }
        _ => Ok(()),
    }
}
