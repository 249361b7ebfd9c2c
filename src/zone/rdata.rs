//! The data of a record, from presentation format to RDATA in wire form without compression.
//!
//! One table (`types`) tells the fields of every type. The text is read field by field, so that a fault has its
//! place; the form of RFC 3597 (`\# 4 0A000001`) is held against the same fields. Whatever hickory-proto can decode is
//! decoded once more by it, so that nothing gets into a zone that a common library would refuse.
//!
//! TXT is the exception to the notation of zone files, for the good of people: a text that does not begin with `"` is
//! one text, taken as it stands and cut into strings of 255 bytes.

mod location;
mod service;
mod types;
mod wire;

use std::net::IpAddr;

use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecoder, Restrict};

use super::presentation::{Fault, Token, tokens};
use types::{Field, Form, form_of};
pub use types::{mnemonic, mnemonics, record_type};

/// RDLENGTH has 16 bits (RFC 1035 §3.2.1).
const LONGEST: usize = 65_535;

/// The address of an A or AAAA record, told apart by its length; `None` for data of other lengths.
pub fn address(rdata: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(rdata).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(rdata).map(IpAddr::from)).ok()
}

/// Reads the data of one record; names are relative to `origin` unless they end in a dot.
pub fn parse(rtype: RecordType, text: &str, origin: &Name) -> Result<Box<[u8]>, Fault> {
    types::check_allowed(rtype)?;
    let form = form_of(rtype);
    let wire = if let Some(generic) = generic_form(text) {
        let wire = parse_generic(text, generic)?;
        if let Some(form) = form {
            wire::check(form, &wire)?;
        }
        wire
    } else {
        let Some(form) = form else {
            return Err(Fault::at(0, format!("the data of {} is not written as bytes", mnemonic(rtype)))
                .rule(r"the data of a type without a notation of its own is `\# LENGTH HEX` (RFC 3597 §5)")
                .help(r"for example `\# 4 0A000001`"));
        };
        if rtype == RecordType::TXT && !text.starts_with('"') {
            literal_text(text)
        } else {
            parse_fields(form, text, origin)?
        }
    };
    if wire.len() > LONGEST {
        return Err(Fault::new(format!("the data has {} bytes", wire.len()))
            .rule("the data of a record has at most 65,535 bytes (RFC 1035 §3.2.1)"));
    }
    if let Some(form) = form {
        wire::check_lengths(form, &wire)?;
        check_with_hickory(form, &wire)?;
    }
    Ok(wire.into_boxed_slice())
}

/// The text behind `\#`, when `text` has the form of RFC 3597.
fn generic_form(text: &str) -> Option<usize> {
    let blanks = text.len() - text.trim_start_matches([' ', '\t']).len();
    let rest = text[blanks..].strip_prefix(r"\#")?;
    (rest.is_empty() || rest.starts_with([' ', '\t'])).then_some(blanks + 2)
}

/// `\# LENGTH HEX…` (RFC 3597 §5).
fn parse_generic(text: &str, behind: usize) -> Result<Vec<u8>, Fault> {
    let fault = |at, what: String| {
        Fault::at(at, what)
            .rule(r"the form is `\# LENGTH HEX`, LENGTH in bytes and decimal (RFC 3597 §5)")
            .help(r"for example `\# 4 0A000001`")
    };
    let tokens = tokens(text)?;
    let Some((length, digits)) = tokens[1..].split_first() else {
        return Err(fault(behind, r"`\#` without a length".into()));
    };
    let announced =
        number(*length, u16::MAX).ok_or_else(|| fault(length.start, format!("`{}` for a length", length.raw)))?;
    let wire = hex(digits)?;
    if wire.len() != usize::from(announced) {
        return Err(fault(length.start, format!("a length of {announced} before {} bytes", wire.len())));
    }
    Ok(wire)
}

/// One text in strings of 255 bytes; none at all is one empty string, since TXT has at least one (RFC 1035 §3.3.14).
fn literal_text(text: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(text.len() + text.len() / 255 + 1);
    if text.is_empty() {
        wire.push(0);
    }
    for part in text.as_bytes().chunks(255) {
        wire.push(part.len() as u8);
        wire.extend_from_slice(part);
    }
    wire
}

fn parse_fields(form: &Form, text: &str, origin: &Name) -> Result<Vec<u8>, Fault> {
    let tokens = tokens(text)?;
    let mut rest = &tokens[..];
    let mut wire = Vec::new();
    for &(name, field) in form.fields {
        let incomplete = || {
            let fault = if text.is_empty() {
                Fault::at(0, "an empty value")
            } else {
                Fault::at(text.len(), format!("{} ends before its {name}", form.mnemonic))
            };
            explained(fault, form)
        };
        // These take all that is left, and SvcParams may be absent.
        match field {
            Field::SvcParams => {
                service::parse(std::mem::take(&mut rest), &mut wire)?;
                continue;
            }
            _ if rest.is_empty() => return Err(incomplete()),
            Field::Location => {
                wire.extend(location::parse(std::mem::take(&mut rest)).map_err(|fault| exemplified(fault, form))?);
                continue;
            }
            Field::Hex => {
                wire.extend(hex(std::mem::take(&mut rest))?);
                continue;
            }
            Field::Base64 => {
                wire.extend(base64(std::mem::take(&mut rest))?);
                continue;
            }
            Field::Strings => {
                for token in std::mem::take(&mut rest) {
                    token.character_string(&mut wire)?;
                }
                continue;
            }
            _ => {}
        }
        let (&token, behind) = rest.split_first().ok_or_else(incomplete)?;
        rest = behind;
        let misfit = |belongs: &str| {
            let what = format!("`{}` for the {name} of {}", token.raw, form.mnemonic);
            exemplified(Fault::at(token.start, what).rule(format!("{belongs} belongs here ({})", form.rfc)), form)
        };
        match field {
            Field::V4 => {
                let address: std::net::Ipv4Addr = token.raw.parse().map_err(|_| misfit("an IPv4 address"))?;
                wire.extend(address.octets());
            }
            Field::V6 => {
                let address: std::net::Ipv6Addr = token.raw.parse().map_err(|_| misfit("an IPv6 address"))?;
                wire.extend(address.octets());
            }
            Field::U8 => wire.push(number(token, u8::MAX).ok_or_else(|| misfit("a number from 0 to 255"))?),
            Field::U16 => {
                let value: u16 = number(token, u16::MAX).ok_or_else(|| misfit("a number from 0 to 65535"))?;
                wire.extend(value.to_be_bytes());
            }
            Field::Name => token.name(origin, &mut wire)?,
            Field::String => token.character_string(&mut wire)?,
            Field::Tag => {
                if token.quoted || !wire::is_tag(token.raw.as_bytes()) {
                    return Err(misfit("a tag of ASCII letters and digits"));
                }
                token.character_string(&mut wire)?;
            }
            Field::Text { may_be_empty } => {
                let bytes = token.bytes()?;
                if bytes.is_empty() && !may_be_empty {
                    return Err(misfit("a text that is not empty"));
                }
                wire.extend(bytes);
            }
            Field::Location | Field::Hex | Field::Base64 | Field::Strings | Field::SvcParams => {
                unreachable!("taken above")
            }
        }
    }
    match rest {
        [] => Ok(wire),
        [extra, ..] => {
            let what = format!("`{}` is left over behind the {}", extra.raw, form.fields[form.fields.len() - 1].0);
            let fault = Fault::at(extra.start, what).rule(usage(form));
            Err(fault.help("write several records as an array; quote a string that holds blanks"))
        }
    }
}

fn usage(form: &Form) -> String {
    let fields: Vec<_> = form.fields.iter().map(|(name, _)| name.replace(' ', "-").to_uppercase()).collect();
    format!("the data of {} is `{}` ({})", form.mnemonic, fields.join(" "), form.rfc)
}

fn exemplified(fault: Fault, form: &Form) -> Fault {
    fault.help(format!("for example `{}`", form.example))
}

fn explained(fault: Fault, form: &Form) -> Fault {
    exemplified(fault.rule(usage(form)), form)
}

/// A decimal number up to `most`, without sign or quotes.
fn number<N: TryFrom<u32> + Into<u32>>(token: Token<'_>, most: N) -> Option<N> {
    if token.quoted || token.raw.is_empty() || !token.raw.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    token.raw.parse::<u32>().ok().filter(|&value| value <= most.into()).and_then(|value| N::try_from(value).ok())
}

/// Hexadecimal digits, with blanks wherever they please.
fn hex(tokens: &[Token<'_>]) -> Result<Vec<u8>, Fault> {
    let mut wire = Vec::new();
    let mut high: Option<u8> = None;
    for token in tokens {
        for (at, byte) in token.raw.bytes().enumerate() {
            let Some(digit) = char::from(byte).to_digit(16).filter(|_| !token.quoted) else {
                return Err(Fault::at(token.start + at, format!("`{}` is not hexadecimal", token.raw))
                    .rule("pairs of the digits 0 to 9 and A to F belong here, without quotes"));
            };
            match high.take() {
                None => high = Some(digit as u8),
                Some(high) => wire.push(high << 4 | digit as u8),
            }
        }
    }
    match (high, tokens.last()) {
        (Some(_), Some(last)) => Err(Fault::at(last.start + last.raw.len() - 1, "half a byte at the end")
            .rule("two hexadecimal digits make a byte")
            .help("a digit is missing, or one too many")),
        _ => Ok(wire),
    }
}

/// Base64 (RFC 4648 §4) with its padding, with blanks wherever they please.
fn base64(tokens: &[Token<'_>]) -> Result<Vec<u8>, Fault> {
    let start = tokens.first().map_or(0, |token| token.start);
    let malformed = |at| {
        Fault::at(at, "malformed Base64").rule("the alphabet is A-Z a-z 0-9 + /, padded with = to fours (RFC 4648 §4)")
    };
    let mut sextets = Vec::new();
    let mut padding = 0;
    for token in tokens {
        for (at, byte) in token.raw.bytes().enumerate() {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' if padding < 2 => {
                    padding += 1;
                    continue;
                }
                _ => return Err(malformed(token.start + at)),
            };
            if padding > 0 || token.quoted {
                return Err(malformed(token.start + at));
            }
            sextets.push(value);
        }
    }
    if (sextets.len() + padding) % 4 != 0 {
        return Err(malformed(start));
    }
    let mut wire = Vec::with_capacity(sextets.len() / 4 * 3 + 2);
    for group in sextets.chunks(4) {
        let bits = group.iter().fold(0u32, |bits, &sextet| bits << 6 | u32::from(sextet)) << (6 * (4 - group.len()));
        let bytes = bits.to_be_bytes();
        let whole = group.len() - 1;
        if bytes[1 + whole..].iter().any(|&left| left != 0) {
            return Err(malformed(start));
        }
        wire.extend_from_slice(&bytes[1..1 + whole]);
    }
    if wire.is_empty() {
        return Err(malformed(start));
    }
    Ok(wire)
}

/// hickory-proto decodes what it knows of the types that we know.
fn check_with_hickory(form: &Form, wire: &[u8]) -> Result<(), Fault> {
    let length = u16::try_from(wire.len()).expect("RDATA of more than 65,535 bytes was refused before");
    match hickory_proto::rr::RData::read(&mut BinDecoder::new(wire), form.rtype, Restrict::new(length)) {
        Ok(_) => Ok(()),
        Err(error) => Err(explained(Fault::new(format!("malformed {}: {error}", form.mnemonic)), form)),
    }
}

#[cfg(test)]
mod tests;
