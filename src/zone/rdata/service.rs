//! The parameters of SVCB and HTTPS (RFC 9460 §2): read by hickory-proto, put in order, and checked.

use hickory_proto::rr::rdata::svcb::{SvcParamKey, SvcParamValue};
use hickory_proto::rr::{RData, RecordType};
use hickory_proto::serialize::binary::{BinDecoder, BinEncoder, NameEncoding, Restrict};

use super::super::presentation::{Fault, Token};

/// Appends `key=value…` parameters in the order of their keys.
pub(super) fn parse(tokens: &[Token<'_>], wire: &mut Vec<u8>) -> Result<(), Fault> {
    let mut params: Vec<(SvcParamKey, SvcParamValue)> = Vec::new();
    for token in tokens {
        let (key, mut value) = parse_one(*token)?;
        if params.iter().any(|(known, _)| u16::from(*known) == u16::from(key)) {
            return Err(Fault::at(token.start, format!("the parameter {key} twice"))
                .rule("a key appears at most once (RFC 9460 §2.1)"));
        }
        if let SvcParamValue::Mandatory(keys) = &mut value {
            keys.0.sort();
        }
        params.push((key, value));
    }
    params.sort_by_key(|(key, _)| u16::from(*key));
    let start = wire.len();
    for (key, value) in &params {
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_name_encoding(NameEncoding::Uncompressed);
        let emitted = encoder.emit_u16(u16::from(*key)).and_then(|()| {
            use hickory_proto::serialize::binary::BinEncodable;
            value.emit(&mut encoder)
        });
        emitted.map_err(|error| Fault::new(format!("the parameter {key} cannot be encoded: {error}")))?;
        wire.extend(bytes);
    }
    if !is_valid(&wire[start..]) {
        return Err(Fault::new("parameters that do not fit together").rule(
            "`mandatory` names other keys that are there; `no-default-alpn` needs `alpn`; no list is empty (RFC 9460 §7, §8)",
        ));
    }
    Ok(())
}

fn parse_one(token: Token<'_>) -> Result<(SvcParamKey, SvcParamValue), Fault> {
    let text = token.raw.replace('"', "");
    // hickory-proto has its own ideas of escapes, comments and lists here; without them no two readings exist.
    let plain = !token.quoted && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\;()@$".contains(&byte));
    if !plain {
        return Err(Fault::at(token.start, format!("the parameter `{}`", token.raw))
            .rule("a parameter is KEY or KEY=VALUE; blanks, escapes and any of ;()@$ in a value are not read here")
            .help(r"write the whole record as `\# LENGTH HEX` (RFC 3597 §5)"));
    }
    let malformed = |why: String| {
        Fault::at(token.start, format!("the parameter `{}`: {why}", token.raw))
            .rule("parameters are KEY or KEY=VALUE (RFC 9460 §2.1)")
            .help("for example `alpn=h2,h3`, `port=8443`, `ipv4hint=192.0.2.1`")
    };
    match RData::try_from_str(RecordType::SVCB, &format!("1 . {text}")) {
        Ok(RData::SVCB(mut svcb)) => svcb.svc_params.pop().ok_or_else(|| malformed("empty".into())),
        Ok(_) => Err(malformed("unreadable".into())),
        Err(error) => Err(malformed(error.to_string())),
    }
}

/// Whether `wire` is a well-formed, self-consistent list of parameters (RFC 9460 §2.2, §7, §8).
pub(super) fn is_valid(wire: &[u8]) -> bool {
    let mut keys = Vec::new();
    let mut mandatory = Vec::new();
    let mut rest = wire;
    while let [k0, k1, l0, l1, behind @ ..] = rest {
        let key = u16::from_be_bytes([*k0, *k1]);
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if behind.len() < length || keys.last().is_some_and(|&last| last >= key) {
            return false;
        }
        let (value, behind) = behind.split_at(length);
        let well_formed = match key {
            0 => {
                mandatory = value.as_chunks().0.iter().map(|&pair| u16::from_be_bytes(pair)).collect();
                length > 0 && length % 2 == 0 && mandatory.is_sorted_by(|a, b| a < b) && !mandatory.contains(&0)
            }
            1 => are_alpn_ids(value),
            2 => value.is_empty(),
            3 => length == 2,
            4 => length > 0 && length % 4 == 0,
            5 => length > 0,
            6 => length > 0 && length % 16 == 0,
            u16::MAX => false,
            _ => true,
        };
        if !well_formed {
            return false;
        }
        keys.push(key);
        rest = behind;
    }
    let consistent = !keys.contains(&2) || keys.contains(&1);
    rest.is_empty() && consistent && mandatory.iter().all(|key| keys.contains(key)) && hickory_agrees(wire)
}

fn are_alpn_ids(mut value: &[u8]) -> bool {
    let mut any = false;
    while let Some((&length @ 1.., rest)) = value.split_first() {
        let Some(behind) = rest.get(usize::from(length)..) else { return false };
        value = behind;
        any = true;
    }
    any && value.is_empty()
}

fn hickory_agrees(params: &[u8]) -> bool {
    let wire = [&[0, 1, 0][..], params].concat();
    let Ok(length) = u16::try_from(wire.len()) else { return false };
    RData::read(&mut BinDecoder::new(&wire), RecordType::SVCB, Restrict::new(length)).is_ok()
}
