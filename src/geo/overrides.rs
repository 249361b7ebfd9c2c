//! `geoip/overrides.toml`: prefixes and ASNs that the operator places, against whatever the databases say.
//!
//! ```toml
//! "203.0.113.0/24"  = { near = "Mauritius" }                        # a built-in city; its country too
//! "2001:db8::/32"   = { at = [-20.16, 57.50], country = "MU" }
//! "AS64500"         = { at = [51.5, -0.1] }                         # the databases' country stays
//! ```
//!
//! The longest prefix wins, and any prefix beats an ASN. Nothing finer than /24 (IPv4) or /48 (IPv6): blocks are not told
//! apart below that.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::cities::{self, CityError};
use super::{CountryCode, Point};
use crate::config::{At, Diagnostic};

#[derive(Default)]
pub struct Overrides {
    /// No two equal; not sorted.
    pub prefixes: Vec<(IpNet, Override)>,
    pub asns: HashMap<u32, Override>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Override {
    pub location: Point,
    /// `None`: the databases' country stays.
    pub country: Option<CountryCode>,
}

/// What a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    Prefix(IpNet),
    Asn(u32),
}

impl Overrides {
    pub fn load(path: &Path) -> Result<Overrides, Vec<Diagnostic>> {
        match std::fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => Overrides::parse(path, &text),
            Ok(Err(_)) => Err(vec![Diagnostic::error(At::start(path), "not UTF-8 text").rule("TOML files are UTF-8")]),
            Err(error) => Err(vec![Diagnostic::error(At::start(path), format!("can't read the overrides: {error}"))]),
        }
    }

    /// Every fault is told; `path` is only for the diagnostics.
    pub fn parse(path: &Path, text: &str) -> Result<Overrides, Vec<Diagnostic>> {
        let mut reader = Reader { file: path.into(), text, faults: Vec::new() };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let fault = reader.fault(error.span().unwrap_or_default(), error.message().to_owned());
            fault.help = Some("prefixes are quoted: \"203.0.113.0/24\" = { near = \"Mauritius\" }".to_owned());
        }
        if !reader.faults.is_empty() {
            // What follows from a broken table would be noise.
            return Err(reader.faults);
        }
        let mut overrides = Overrides::default();
        let mut seen: HashMap<Target, Range<usize>> = HashMap::new();
        for (key, value) in table.get_ref() {
            let target = reader.target(key);
            let placed = reader.value(key.get_ref(), value);
            let Some(target) = target else { continue };
            if let Some(first) = seen.insert(target, key.span()) {
                let line = reader.at(first.start).line;
                reader.fault(key.span(), format!("{} is placed twice", key.get_ref())).help =
                    Some(format!("remove one of them; the first is at line {line}"));
            }
            let Some(placed) = placed else { continue };
            match target {
                Target::Prefix(prefix) => overrides.prefixes.push((prefix, placed)),
                Target::Asn(asn) => drop(overrides.asns.insert(asn, placed)),
            }
        }
        if reader.faults.is_empty() { Ok(overrides) } else { Err(reader.faults) }
    }
}

struct Reader<'t> {
    file: Arc<Path>,
    text: &'t str,
    faults: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn at(&self, offset: usize) -> At {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        At {
            file: self.file.clone(),
            line: before.matches('\n').count() as u32 + 1,
            column: before[line_start..].chars().count() as u32 + 1,
        }
    }

    fn fault(&mut self, span: Range<usize>, what: impl Into<String>) -> &mut Diagnostic {
        let at = self.at(span.start);
        self.faults.push(Diagnostic::error(at, what));
        self.faults.last_mut().expect("one was pushed just now")
    }

    fn target(&mut self, key: &Spanned<impl AsRef<str>>) -> Option<Target> {
        let (span, key) = (key.span(), key.get_ref().as_ref());
        if let Some(digits) = key.strip_prefix("AS").or_else(|| key.strip_prefix("as")) {
            return match digits.parse() {
                Ok(asn) if asn != 0 && !digits.starts_with('+') => Some(Target::Asn(asn)),
                _ => {
                    let fault = self.fault(span, format!("{key} is no AS number"));
                    fault.rule = Some("AS and a number from 1 to 4294967295 (RFC 6793)".to_owned());
                    None
                }
            };
        }
        let Ok(prefix) = key.parse::<IpNet>().or_else(|_| key.parse().map(|address: std::net::IpAddr| address.into()))
        else {
            let fault = self.fault(span, format!("{key} is neither a prefix nor an AS number"));
            fault.help = Some("write \"203.0.113.0/24\", \"2001:db8::/32\" or \"AS64500\"".to_owned());
            return None;
        };
        let finest = if prefix.addr().is_ipv4() { 24 } else { 48 };
        if prefix.prefix_len() > finest {
            let wider = IpNet::new(prefix.addr(), finest).map(|wider| wider.trunc());
            let fault = self.fault(span, format!("{key} is finer than /{finest}"));
            fault.rule = Some("nothing finer than /24 (IPv4) or /48 (IPv6) is told apart".to_owned());
            fault.help = wider.ok().map(|wider| format!("place \"{wider}\" as a whole"));
            return None;
        }
        if prefix.trunc() != prefix {
            let fault = self.fault(span, format!("{key} has bits behind its length"));
            fault.help = Some(format!("write \"{}\"", prefix.trunc()));
            return None;
        }
        Some(Target::Prefix(prefix))
    }

    fn value(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Override> {
        let DeValue::Table(table) = value.get_ref() else {
            let fault = self.fault(value.span(), format!("{key} needs a table"));
            fault.help = Some("write { near = \"City\" } or { at = [latitude, longitude] }".to_owned());
            return None;
        };
        let before = self.faults.len();
        let (mut near, mut at, mut country) = (None, None, None);
        for (name, value) in table {
            match name.get_ref().as_ref() {
                "near" => near = self.near(value).or(near),
                "at" => at = self.point(value).or(at),
                "country" => country = self.country(value).map(|country| (country, name.span())),
                other => {
                    let nearest = ["near", "at", "country"]
                        .into_iter()
                        .max_by(|a, b| strsim::jaro_winkler(a, other).total_cmp(&strsim::jaro_winkler(b, other)));
                    let fault = self.fault(name.span(), format!("{key} has an unknown key {other}"));
                    fault.rule = Some("the keys are near, at and country".to_owned());
                    fault.help = nearest.map(|nearest| format!("did you mean {nearest}?"));
                }
            }
        }
        if self.faults.len() > before {
            return None;
        }
        match (near, at, country) {
            (Some(_), Some(_), _) => {
                self.fault(value.span(), format!("{key} has both near and at")).help = Some("keep one".to_owned());
                None
            }
            (None, None, _) => {
                self.fault(value.span(), format!("{key} has no location")).help =
                    Some("write near = \"City\" or at = [latitude, longitude]".to_owned());
                None
            }
            (Some(_), None, Some((_, span))) => {
                let fault = self.fault(span, format!("{key} has country beside near"));
                fault.rule = Some("near brings the country of its city".to_owned());
                fault.help = Some("remove country, or write at = [latitude, longitude] instead of near".to_owned());
                None
            }
            (Some(city), None, None) => Some(Override { location: city.location, country: Some(city.country) }),
            (None, Some(location), country) => Some(Override { location, country: country.map(|(code, _)| code) }),
        }
    }

    fn near(&mut self, value: &Spanned<DeValue<'_>>) -> Option<cities::City> {
        let DeValue::String(near) = value.get_ref() else {
            self.fault(value.span(), "near is not text").help = Some("write near = \"City\"".to_owned());
            return None;
        };
        match cities::find(near) {
            Ok(city) => Some(city),
            Err(CityError::Unknown { nearest }) => {
                let fault = self.fault(value.span(), format!("near: no city {near} is known"));
                fault.help = Some(match nearest.is_empty() {
                    true => "write at = [latitude, longitude]".to_owned(),
                    false => format!("did you mean {}? Or write at = [latitude, longitude]", nearest.join(", ")),
                });
                None
            }
            Err(CityError::Ambiguous { choices }) => {
                let fault = self.fault(value.span(), format!("near: {near} is several cities"));
                fault.help = Some(format!("write one of \"{}\"", choices.join("\", \"")));
                None
            }
        }
    }

    fn point(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Point> {
        let point = match value.get_ref() {
            DeValue::Array(pair) => {
                match pair.iter().map(|degrees| number(degrees.get_ref())).collect::<Vec<_>>()[..] {
                    [Some(lat), Some(lon)] => Point::new(lat, lon),
                    _ => None,
                }
            }
            _ => None,
        };
        if point.is_none() {
            let fault = self.fault(value.span(), "at is not a latitude and a longitude");
            fault.rule = Some("degrees: -90 to 90 north, -180 to 180 east".to_owned());
            fault.help = Some("write at = [51.51, -0.13]".to_owned());
        }
        point
    }

    fn country(&mut self, value: &Spanned<DeValue<'_>>) -> Option<CountryCode> {
        let known = match value.get_ref() {
            DeValue::String(code) => CountryCode::parse(code).filter(|&code| cities::is_country(code)),
            _ => None,
        };
        if known.is_none() {
            let fault = self.fault(value.span(), "country is not the code of a country");
            fault.rule = Some("two letters of ISO 3166-1 alpha-2".to_owned());
        }
        known
    }
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Overrides, Vec<String>> {
        Overrides::parse(Path::new("overrides.toml"), text)
            .map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    fn faults(text: &str) -> Vec<String> {
        parse(text).err().unwrap_or_else(|| panic!("accepted: {text}"))
    }

    #[test]
    fn prefixes_and_asns_are_placed_by_city_or_coordinates() {
        let overrides = parse(
            r#"
            "203.0.113.0/24" = { near = "Mauritius" }
            "2001:db8::/32"  = { at = [-20, 57.5], country = "MU" }
            "AS64500"        = { at = [51.5, -0.1] }
            "#,
        )
        .unwrap();
        assert_eq!(overrides.prefixes.len(), 2);
        assert_eq!(overrides.prefixes[0].1.country, Some(CountryCode(*b"MU")));
        let placed = Override { location: Point::new(-20.0, 57.5).unwrap(), country: Some(CountryCode(*b"MU")) };
        assert_eq!(overrides.prefixes[1], ("2001:db8::/32".parse().unwrap(), placed));
        assert_eq!(overrides.asns[&64500].country, None);
        assert!(parse("").unwrap().prefixes.is_empty());
    }

    #[test]
    fn each_fault_is_told_with_place_rule_and_mend() {
        let cases = [
            (
                "\"203.0.113.7\" = { near = \"Mauritius\" }",
                "overrides.toml:1:1: 203.0.113.7 is finer than /24\n  nothing finer than /24 (IPv4) or /48 (IPv6) is told apart\n  help: place \"203.0.113.0/24\" as a whole",
            ),
            ("\"2001:db8::/56\" = { near = \"Mauritius\" }", "overrides.toml:1:1: 2001:db8::/56 is finer than /48"),
            (
                "\"203.0.113.7/16\" = { near = \"Mauritius\" }",
                "overrides.toml:1:1: 203.0.113.7/16 has bits behind its length\n  help: write \"203.0.0.0/16\"",
            ),
            ("\"AS0\" = { near = \"Mauritius\" }", "overrides.toml:1:1: AS0 is no AS number"),
            (
                "\"nonsense\" = { near = \"Mauritius\" }",
                "overrides.toml:1:1: nonsense is neither a prefix nor an AS number",
            ),
            ("AS1 = 5", "overrides.toml:1:7: AS1 needs a table"),
            ("AS1 = {}", "overrides.toml:1:7: AS1 has no location"),
            (
                "AS1 = { naer = \"Mauritius\" }",
                "overrides.toml:1:9: AS1 has an unknown key naer\n  the keys are near, at and country\n  help: did you mean near?",
            ),
            (
                "AS1 = { near = \"Hyderabad\" }",
                "overrides.toml:1:16: near: Hyderabad is several cities\n  help: write one of \"Hyderabad, IN\", \"Hyderabad, PK\"",
            ),
            (
                "AS1 = { near = \"Mauritus\" }",
                "overrides.toml:1:16: near: no city Mauritus is known\n  help: did you mean Mauritius",
            ),
            ("AS1 = { at = [91, 0] }", "overrides.toml:1:14: at is not a latitude and a longitude"),
            ("AS1 = { at = [1] }", "overrides.toml:1:14: at is not"),
            ("AS1 = { at = [nan, 0.0] }", "overrides.toml:1:14: at is not"),
            ("AS1 = { at = [0x10, 0] }", "overrides.toml:1:14: at is not"),
            ("AS1 = { at = [1, 2], country = \"QQ\" }", "overrides.toml:1:32: country is not the code of a country"),
            ("AS1 = { near = \"London\", at = [1, 2] }", "overrides.toml:1:7: AS1 has both near and at"),
            ("AS1 = { near = \"London\", country = \"GB\" }", "overrides.toml:1:26: AS1 has country beside near"),
        ];
        for (text, expected) in cases {
            let faults = faults(text);
            assert!(faults.len() == 1 && faults[0].starts_with(expected), "{text}: {faults:#?}");
        }
    }

    #[test]
    fn all_faults_come_in_one_run_and_one_prefix_has_one_place() {
        let faults =
            faults("\"2001:db8::/32\" = { near = \"London\" }\n\"2001:DB8::/32\" = { near = \"London\" }\nAS1 = 1\n");
        assert_eq!(faults.len(), 2, "{faults:#?}");
        assert!(faults[0].contains("overrides.toml:2:1: 2001:DB8::/32 is placed twice"), "{faults:#?}");
    }

    #[test]
    fn an_unquoted_prefix_is_told_to_be_quoted() {
        let faults = faults("203.0.113.0/24 = { near = \"Mauritius\" }");
        assert!(faults[0].contains("help: prefixes are quoted"), "{faults:#?}");
    }
}
