//! Durations and TTLs as written.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::tree::Item;

/// The forms a duration may have, for messages.
const FORMS: &str = "durations are written \"250ms\", \"20s\", \"5m\", \"1h\" or \"1d\"";

/// A number in as many digits as one reads.
pub fn short(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e12).contains(&size) && number.is_finite() {
        return format!("{number:e}");
    }
    number.to_string()
}

/// TTLs and SOA timers end at 2^31 - 1 seconds (RFC 2181 §8).
pub const MAX_SECONDS: u32 = i32::MAX as u32;

/// A whole number and its unit, nothing else: no sign, no blank, no fraction.
pub fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..unit].parse().ok()?;
    let seconds = match &text[unit..] {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

/// The shortest way to write `duration`.
pub fn written(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".into();
    }
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if ms.is_multiple_of(length) {
            return format!("{}{unit}", ms / length);
        }
    }
    format!("{ms}ms")
}

/// Reads a duration within `range`.
pub fn read(item: &Item<'_>, range: RangeInclusive<Duration>) -> Option<Duration> {
    let value = any(item)?;
    if !range.contains(&value) {
        let (low, high) = (written(*range.start()), written(*range.end()));
        let fault = item.fault(format!("`{}` is {}, outside {low} to {high}", item.path, written(value)));
        item.report(fault.help(format!("write \"{}\"", if value < *range.start() { low } else { high })));
        return None;
    }
    Some(value)
}

/// Reads a duration of any length.
pub fn any(item: &Item<'_>) -> Option<Duration> {
    if item.is_number() {
        item.report(item.fault(format!("`{}` is a number without a unit", item.path)).help(FORMS));
        return None;
    }
    let text = item.string()?;
    let value = duration(text);
    if value.is_none() {
        item.report(item.fault(format!("`{}` is {text:?}, which is no duration", item.path)).help(FORMS));
    }
    value
}

/// Reads whole seconds within `range`.
pub fn seconds(item: &Item<'_>, range: RangeInclusive<u32>) -> Option<u32> {
    let (low, high) = (Duration::from_secs((*range.start()).into()), Duration::from_secs((*range.end()).into()));
    let value = read(item, low..=high)?;
    if value.subsec_nanos() != 0 {
        let what = format!("`{}` is {}, not a whole number of seconds", item.path, written(value));
        item.report(item.fault(what).rule("DNS counts in seconds (RFC 1035 §3.2.1)"));
        return None;
    }
    Some(value.as_secs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let cases =
            [("250ms", 250), ("20s", 20_000), ("5m", 300_000), ("1h", 3_600_000), ("1d", 86_400_000), ("0s", 0)];
        for (text, ms) in cases {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_duration() {
        for text in ["", "20", "s", "-1s", "+1s", "1.5s", "20 s", " 20s", "20s ", "20S", "1w", "1us", "1h30m", "٣s"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
        assert_eq!(duration("99999999999999999999s"), None, "too large for a number");
        assert_eq!(duration("18446744073709551615d"), None, "too large in seconds");
    }

    #[test]
    fn a_duration_is_shown_as_one_would_write_it() {
        for text in ["250ms", "20s", "90s", "5m", "36h", "7d", "0s"] {
            assert_eq!(written(duration(text).unwrap()), text);
        }
    }
}
