//! `from = […]`: the clients that a rule is about.

use ipnet::IpNet;

use super::diagnostic::Diagnostic;
use super::tree::{Item, nearest};
use crate::geo::{Continent, CountryCode, Match, SubdivisionCode, cities};

const FORMS: &str = "write a country \"GB\", a subdivision \"US-CA\", a continent \"South America\", \"AS64500\" or a prefix \"203.0.113.0/24\"";

/// Reads one item, or reports what is wrong with it.
pub fn read(item: &Item<'_>) -> Option<Match> {
    let text = item.string()?;
    let found = if text.contains('/') || text.parse::<std::net::IpAddr>().is_ok() {
        prefix(text, item)
    } else if let Some(continent) = Continent::ALL.into_iter().find(|continent| continent.name() == text) {
        Ok(Match::Continent(continent))
    } else if let Some(digits) = text.strip_prefix("AS").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
        asn(digits).map(Match::Asn).ok_or_else(|| {
            item.fault(format!("`{}` has {text:?}, which is no AS number", item.path))
                .rule("AS numbers are AS0 to AS4294967295 (RFC 6793)")
        })
    } else {
        country(text, item)
    };
    found.map_err(|fault| item.report(fault)).ok()
}

fn asn(digits: &str) -> Option<u32> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn prefix(text: &str, item: &Item<'_>) -> Result<Match, Diagnostic> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        let around = block(IpNet::from(address));
        return Err(item
            .fault(format!("`{}` has the address {text:?} without a prefix length", item.path))
            .help(format!("write the block: \"{around}\"")));
    }
    let net: IpNet = text.parse().map_err(|_| {
        item.fault(format!("`{}` has {text:?}, which is no prefix", item.path))
            .help("write it like \"203.0.113.0/24\" or \"2001:db8::/32\"")
    })?;
    if net.prefix_len() > longest(net) {
        return Err(item
            .fault(format!("`{}` has {text:?}, longer than /{}", item.path, longest(net)))
            .rule("clients are told apart by /24 (IPv4) and /48 (IPv6) at the finest")
            .help(format!("write \"{}\"", block(net))));
    }
    if net.trunc() != net {
        return Err(item
            .fault(format!("`{}` has {text:?}, with host bits set", item.path))
            .help(format!("write \"{}\"", net.trunc())));
    }
    Ok(Match::Prefix(net))
}

fn longest(net: IpNet) -> u8 {
    match net {
        IpNet::V4(_) => 24,
        IpNet::V6(_) => 48,
    }
}

/// The block of the finest size that is kept around `net`.
fn block(net: IpNet) -> IpNet {
    IpNet::new(net.addr(), longest(net)).expect("/24 and /48 are valid lengths of their families").trunc()
}

fn country(text: &str, item: &Item<'_>) -> Result<Match, Diagnostic> {
    let upper = text.to_ascii_uppercase();
    if upper != text && upper.strip_prefix("AS").is_some_and(|digits| asn(digits).is_some()) {
        let fault = item.fault(format!("`{}` has {text:?} in lower case", item.path));
        return Err(fault.help(format!("write {upper:?}")));
    }
    let (country, subdivision) = match text.split_once('-') {
        Some((country, subdivision)) => (country, Some(subdivision)),
        None => (text, None),
    };
    let Some(code) = CountryCode::parse(country) else {
        let fault = item.fault(format!("`{}` has {text:?}, which is no place we know", item.path));
        return Err(match nearest(text, Continent::ALL.map(Continent::name)) {
            Some(continent) => fault.help(format!("did you mean {continent:?}?")),
            None => fault.help(FORMS),
        });
    };
    if upper != text {
        let fault = item.fault(format!("`{}` has {text:?} in lower case", item.path));
        return Err(fault.rule("codes are upper case").help(format!("write {upper:?}")));
    }
    if !cities::is_country(code) {
        let fault = item
            .fault(format!("`{}` has {country:?}, which is no country", item.path))
            .rule("two letters are an ISO 3166-1 country");
        return Err(match country {
            "UK" => fault.help("the United Kingdom is \"GB\""),
            "EL" => fault.help("Greece is \"GR\""),
            "EU" => fault.help("write the continent: \"Europe\""),
            _ => fault.help(FORMS),
        });
    }
    let Some(subdivision) = subdivision else { return Ok(Match::Country(code)) };
    SubdivisionCode::parse(subdivision).map(|subdivision| Match::Subdivision(code, subdivision)).ok_or_else(|| {
        item.fault(format!("`{}` has {text:?}, which is no subdivision", item.path))
            .rule("a subdivision is a country and one to three letters or digits (ISO 3166-2)")
            .help("write it like \"US-CA\"")
    })
}
