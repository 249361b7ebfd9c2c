//! `application/health+json` (draft-inadarei-api-health-check §3): the checks of it that tell of load.
//!
//! Counted: `sessions:utilization`, `cpu:utilization`, `sessions:current` (also `active`, `count`), `sessions:capacity`
//! (also `max`, `limit`), `sessions:starts_per_s` and `bandwidth:bits_per_s`. A check has one observation or several, of
//! the nodes of a machine: counts are summed, of utilisations the highest counts.

use serde_json::{Map, Value};

use super::{Fault, Figures, Why, json_number, short};

/// Observations of one check.
const MAX_OBSERVATIONS: usize = 1024;
/// A utilisation without a unit that is above this is in percent, and has to say so.
const MAX_WITHOUT_UNIT: f64 = 1.5;

/// How the observations of a check are read and made one.
#[derive(Clone, Copy, PartialEq)]
enum Measure {
    Count,
    Share,
    Bits,
}

pub(super) fn read(object: &Map<String, Value>) -> Result<Figures, Fault> {
    // The aliases that the draft gives in §3.1.
    match object.get("status").and_then(Value::as_str).map(str::to_ascii_lowercase).as_deref() {
        Some("pass" | "ok" | "up" | "warn") => {}
        Some("fail" | "error" | "down") => {
            return Err(Fault::unreadable("its status is fail, under an HTTP status that says that all is well"));
        }
        Some(other) => return Err(Fault::unreadable(format!("its status is {:?}", short(other)))),
        None => return Err(Fault::unreadable("application/health+json without a status")),
    }
    let checks = match object.get("checks") {
        Some(Value::Object(checks)) => checks,
        Some(_) => return Err(Fault::unreadable("`checks` is no object")),
        None => return Err(Fault::new(Why::Nothing, "no checks in it")),
    };
    let first = |names: &[&str], measure| {
        names.iter().find_map(|name| checks.get(*name).map(|check| observed(name, check, measure))).transpose()
    };
    let flat = |found: Option<Option<f64>>| found.flatten();
    let sessions_share = flat(first(&["sessions:utilization", "connections:utilization"], Measure::Share)?);
    let cpu = flat(first(&["cpu:utilization"], Measure::Share)?);
    let sessions = ["sessions:current", "sessions:active", "sessions:count", "connections:current"];
    let capacity = ["sessions:capacity", "sessions:max", "sessions:limit"];
    Ok(Figures {
        sessions: flat(first(&sessions, Measure::Count)?),
        utilization: sessions_share.or(cpu),
        capacity: flat(first(&capacity, Measure::Count)?),
        bits_per_s: flat(first(&["bandwidth:bits_per_s"], Measure::Bits)?),
        starts_per_s: flat(first(&["sessions:starts_per_s"], Measure::Count)?),
    })
}

fn observed(name: &str, check: &Value, measure: Measure) -> Result<Option<f64>, Fault> {
    let observations = match check {
        Value::Array(observations) => &observations[..],
        Value::Object(_) => std::slice::from_ref(check),
        _ => return Err(Fault::unreadable(format!("{name} has no observations"))),
    };
    if observations.len() > MAX_OBSERVATIONS {
        return Err(Fault::unreadable(format!("{name} has more than {MAX_OBSERVATIONS} observations")));
    }
    let mut result = None;
    for observation in observations {
        let Some(value) = observation.get("observedValue").map(|value| json_number(name, value)).transpose()?.flatten()
        else {
            continue;
        };
        let unit = match observation.get("observedUnit") {
            None | Some(Value::Null) => None,
            Some(Value::String(unit)) => Some(unit.trim().to_ascii_lowercase()),
            Some(_) => return Err(Fault::new(Why::Unit, format!("the unit of {name} is no text"))),
        };
        let value = in_unit(name, value, unit.as_deref(), measure)?;
        result = Some(match (result, measure) {
            (None, _) => value,
            (Some(most), Measure::Share) => f64::max(most, value),
            (Some(sum), Measure::Count | Measure::Bits) => sum + value,
        });
    }
    Ok(result)
}

fn in_unit(name: &str, value: f64, unit: Option<&str>, measure: Measure) -> Result<f64, Fault> {
    let factor = match (measure, unit) {
        (Measure::Share, None) if value > MAX_WITHOUT_UNIT => {
            let what = format!("{name} is {value} without a unit; is it in percent?");
            return Err(Fault::new(Why::Unit, what));
        }
        (Measure::Share, None | Some("" | "1" | "fraction" | "ratio")) => 1.0,
        (Measure::Share, Some("percent" | "%" | "pct" | "percentage")) => return Ok(value / 100.0),
        (Measure::Count, None | Some("" | "1" | "sessions" | "session" | "connections" | "viewers" | "count")) => 1.0,
        (Measure::Count, Some("1/s" | "sessions/s" | "per second")) if name.ends_with("_per_s") => 1.0,
        (Measure::Bits, None | Some("" | "bit/s" | "bits/s" | "bps" | "bits")) => 1.0,
        (Measure::Bits, Some("kbit/s" | "kbps")) => 1e3,
        (Measure::Bits, Some("mbit/s" | "mbps")) => 1e6,
        (Measure::Bits, Some("gbit/s" | "gbps")) => 1e9,
        (_, Some(unit)) => return Err(Fault::new(Why::Unit, format!("{name} is in {:?}", short(unit)))),
    };
    Ok(value * factor)
}
