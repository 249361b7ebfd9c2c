//! LOC (RFC 1876): where on Earth, in degrees, minutes, seconds and metres.
//!
//! All arithmetic is on whole thousandths of a second of arc and whole centimetres, so nothing is rounded.

use super::super::presentation::{Fault, Token};

const ARC: u32 = 1 << 31;
/// Centimetres from the reference spheroid down to altitude 0 of the wire.
const DATUM_CM: i64 = 10_000_000;

/// `d1 [m1 [s1]] {N|S} d2 [m2 [s2]] {E|W} alt[m] [size[m] [hp[m] [vp[m]]]]` (RFC 1876 §3) as 16 bytes.
pub(super) fn parse(tokens: &[Token<'_>]) -> Result<[u8; 16], Fault> {
    let mut tokens = tokens.iter().copied().peekable();
    let mut next = |what: &str| tokens.next().ok_or_else(|| Fault::new(format!("LOC ends before its {what}")));
    let latitude = angle(&mut next, "latitude", 90, ["N", "S"])?;
    let longitude = angle(&mut next, "longitude", 180, ["E", "W"])?;

    let token = next("altitude")?;
    let altitude = centimetres(token, -10_000_000, 4_284_967_295)? + DATUM_CM;
    // Defaults of RFC 1876 §3: size 1 m, horizontal precision 10 km, vertical precision 10 m.
    let mut sizes = [0x12, 0x16, 0x13];
    for size in &mut sizes {
        let Some(token) = tokens.next() else { break };
        *size = power_of_ten(centimetres(token, 0, 9_000_000_000)?);
    }
    if let Some(extra) = tokens.next() {
        return Err(Fault::at(extra.start, format!("`{}` follows the vertical precision", extra.raw)));
    }

    let mut wire = [0; 16];
    wire[1..4].copy_from_slice(&sizes);
    wire[4..8].copy_from_slice(&latitude.to_be_bytes());
    wire[8..12].copy_from_slice(&longitude.to_be_bytes());
    let altitude = u32::try_from(altitude).expect("the range of altitudes is that of the field");
    wire[12..].copy_from_slice(&altitude.to_be_bytes());
    Ok(wire)
}

fn angle<'a>(
    next: &mut impl FnMut(&str) -> Result<Token<'a>, Fault>,
    what: &str,
    most_degrees: u32,
    [positive, negative]: [&str; 2],
) -> Result<u32, Fault> {
    let place = |token: Token<'_>| Fault::at(token.start, format!("`{}` in the {what} of LOC", token.raw));
    let first = next(what)?;
    let degrees: u32 = whole(first.raw, most_degrees)
        .ok_or_else(|| place(first).rule(format!("degrees are a whole number up to {most_degrees}")))?;
    let mut arc_ms = degrees * 3_600_000;
    let mut token = next(what)?;
    if token.raw != positive && token.raw != negative {
        let minutes = whole(token.raw, 59)
            .ok_or_else(|| place(token).rule(format!("minutes up to 59, {positive} or {negative} belong here")))?;
        arc_ms += minutes * 60_000;
        token = next(what)?;
    }
    if token.raw != positive && token.raw != negative {
        let seconds = decimal(token.raw, 3).filter(|&thousandths| thousandths < 60_000);
        arc_ms += seconds
            .ok_or_else(|| place(token).rule(format!("seconds up to 59.999, {positive} or {negative} belong here")))?
            as u32;
        token = next(what)?;
    }
    if arc_ms > most_degrees * 3_600_000 {
        return Err(place(first).rule(format!("a {what} is at most {most_degrees} degrees")));
    }
    match token.raw {
        raw if raw == positive => Ok(ARC + arc_ms),
        raw if raw == negative => Ok(ARC - arc_ms),
        _ => Err(place(token).rule(format!("{positive} or {negative} belongs here"))),
    }
}

/// Metres with up to two decimals and perhaps an `m`, as centimetres.
fn centimetres(token: Token<'_>, least: i64, most: i64) -> Result<i64, Fault> {
    let number = token.raw.strip_suffix('m').unwrap_or(token.raw);
    let (sign, number) = number.strip_prefix('-').map_or((1, number), |number| (-1, number));
    decimal(number, 2).map(|value| sign * value).filter(|value| (least..=most).contains(value)).ok_or_else(|| {
        let metres = |cm: i64| format!("{}.{:02}", cm / 100, cm.abs() % 100);
        Fault::at(token.start, format!("`{}` in LOC", token.raw)).rule(format!(
            "metres from {} to {} with up to two decimals belong here (RFC 1876 §3)",
            metres(least),
            metres(most)
        ))
    })
}

fn whole(text: &str, most: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&value| digits && value <= most)
}

/// A number with up to `places` decimals, times 10 to the power of `places`.
fn decimal(text: &str, places: usize) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    // Ten digits hold the largest value of any field.
    if whole.is_empty() || whole.len() > 10 || fraction.len() > places || !digits(whole) || !digits(fraction) {
        return None;
    }
    format!("{whole}{fraction:0<places$}").parse().ok()
}

/// Mantissa and exponent in four bits each (RFC 1876 §2), rounded down.
fn power_of_ten(mut cm: i64) -> u8 {
    let mut exponent = 0;
    while cm > 9 {
        cm /= 10;
        exponent += 1;
    }
    (cm as u8) << 4 | exponent
}

/// Whether `wire` is RDATA of LOC that presentation format can express.
pub(super) fn is_valid(wire: &[u8]) -> bool {
    let Ok(wire) = <&[u8; 16]>::try_from(wire) else { return false };
    let size = |byte: u8| byte >> 4 <= 9 && byte & 15 <= 9;
    let arc = |at: usize| u32::from_be_bytes([wire[at], wire[at + 1], wire[at + 2], wire[at + 3]]).abs_diff(ARC);
    wire[0] == 0 && wire[1..4].iter().all(|&byte| size(byte)) && arc(4) <= 324_000_000 && arc(8) <= 648_000_000
}

#[cfg(test)]
mod tests {
    use super::super::super::presentation::tokens;
    use super::*;

    fn hex(text: &str) -> Result<String, Fault> {
        let wire = parse(&tokens(text)?)?;
        assert!(is_valid(&wire), "{text}");
        Ok(wire.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    #[test]
    fn locations_are_encoded_as_in_rfc_1876() {
        for (text, wire) in [
            // The field values are worked out by hand from RFC 1876 §2.
            ("42 21 54 N 71 06 18 W -24m 30m", "00331613 89172dd0 70be15f0 00988d20"),
            ("0 N 0 E 0", "00121613 80000000 80000000 00989680"),
            ("90 S 180 W -100000.00m", "00121613 6cb02700 59604e00 00000000"),
            ("0 0 0.001 N 0 0 59.999 E 42849672.95m 0m 0.09m 90000000m", "00009099 80000001 8000ea5f ffffffff"),
        ] {
            assert_eq!(hex(text).unwrap(), wire.replace(' ', ""), "{text}");
        }
    }

    #[test]
    fn locations_off_the_earth_or_incomplete_are_refused() {
        for text in [
            "",
            "51",
            "51 N",
            "51 N 0 E",
            "51 X 0 E 0m",
            "91 N 0 E 0m",
            "90 0 0.001 N 0 E 0m",
            "51 60 N 0 E 0m",
            "51 0 60 N 0 E 0m",
            "51 0 0.0001 N 0 E 0m",
            "51 N 181 E 0m",
            "51 E 0 N 0m",
            "51 N 0 E -100000.01m",
            "51 N 0 E 42849672.96m",
            "51 N 0 E 0m -1m",
            "51 N 0 E 0m 90000000.01m",
            "51 N 0 E 0m 1m 1m 1m 1m",
            "51 N 0 E 99999999999999999999m",
            "51 N 0 E 1e3m",
            "+51 N 0 E 0m",
        ] {
            assert!(hex(text).is_err(), "{text}");
        }
    }
}
