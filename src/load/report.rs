//! A load report: every accepted form becomes one type with figures that make sense.
//!
//! | form | found by | module |
//! |---|---|---|
//! | ORCA (`xds.data.orca.v3.OrcaLoadReport`) | header `endpoint-load-metrics`; a body in its text form or as JSON | [`orca`] |
//! | `application/health+json` | that Content-Type; a JSON object with `checks` | [`health_json`] |
//! | load object | XML; a JSON object with `current-load` | [`object`] |
//! | plain JSON | a JSON object with the names of [`Figures`] | [`orca`] |
//! | Prometheus text | the metrics that are asked for | [`exposition`] |
//!
//! Whatever the bytes, reading them takes time and memory in proportion to their length, and gives figures that are
//! finite, not negative and below a named bound, or a [`Fault`].

use std::fmt;

pub mod exposition;
pub mod health_json;
pub mod object;
pub mod orca;

/// Longer reports are refused unread.
pub const MAX_BYTES: usize = 64 * 1024;
/// Sessions and capacities above this are lies. What Akamai's load objects allow.
pub const MAX_SESSIONS: f64 = 2_147_483_648.0;
/// 1 Pbit/s.
pub const MAX_BITS_PER_S: f64 = 1e15;
/// A machine is more than full at times, but not ten times: whoever says so has another unit in mind.
pub const MAX_UTILIZATION: f64 = 10.0;
/// A capacity below one session is none.
pub const MIN_CAPACITY: f64 = 1.0;

/// The figures of a report as somebody gave them: nothing is checked yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Viewers now.
    pub sessions: Option<f64>,
    /// 1.0 is full.
    pub utilization: Option<f64>,
    /// Viewers at most.
    pub capacity: Option<f64>,
    /// Sent, bits per second.
    pub bits_per_s: Option<f64>,
    /// Sessions begun per second.
    pub starts_per_s: Option<f64>,
}

/// A report that makes sense: each figure is finite, not negative and below its bound, a capacity is at least
/// [`MIN_CAPACITY`], and one figure at least is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report(Figures);

/// Why a report was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub why: Why,
    /// What is wrong, for people; short, and one line.
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is in no form that is read, or broken.
    Unreadable = 0,
    /// A figure cannot be true: not a number, negative, infinite, beyond its bound; a capacity of nothing.
    Figure = 1,
    /// In a unit that is not known for the figure.
    Unit = 2,
    /// Sound, but without any figure of load.
    Nothing = 3,
    /// Beyond [`MAX_BYTES`].
    TooLong = 4,
    /// Of a server or region that is not known.
    Unknown = 5,
    /// The request for it failed.
    Failed = 6,
}

impl Why {
    pub const ALL: [Why; 7] =
        [Why::Unreadable, Why::Figure, Why::Unit, Why::Nothing, Why::TooLong, Why::Unknown, Why::Failed];

    /// The value of the metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Why::Unreadable => "unreadable",
            Why::Figure => "figure",
            Why::Unit => "unit",
            Why::Nothing => "nothing",
            Why::TooLong => "too_long",
            Why::Unknown => "unknown",
            Why::Failed => "failed",
        }
    }

    /// The rule that was broken, for people.
    pub fn rule(self) -> &'static str {
        match self {
            Why::Unreadable => {
                "a report is ORCA, application/health+json, a load object, plain JSON or Prometheus text"
            }
            Why::Figure => "figures are finite, not negative and believable, and a capacity is at least one session",
            Why::Unit => "utilisation is a fraction, or says that it is in percent; sessions are counted",
            Why::Nothing => "a report names sessions, utilization, capacity, bits_per_s or starts_per_s",
            Why::TooLong => "a report has at most 64 KiB",
            Why::Unknown => "only servers and regions of the zone files report",
            Why::Failed => "a server answers with its load before it is asked again",
        }
    }
}

impl Fault {
    pub(crate) fn new(why: Why, what: impl Into<String>) -> Fault {
        Fault { why, what: what.into() }
    }

    fn unreadable(what: impl Into<String>) -> Fault {
        Fault::new(Why::Unreadable, what)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

impl Report {
    /// Errors: a figure that cannot be true, or none at all.
    pub fn new(figures: Figures) -> Result<Report, Fault> {
        let Figures { sessions, utilization, capacity, bits_per_s, starts_per_s } = figures;
        for (name, value, most) in [
            ("sessions", sessions, MAX_SESSIONS),
            ("utilization", utilization, MAX_UTILIZATION),
            ("capacity", capacity, MAX_SESSIONS),
            ("bits_per_s", bits_per_s, MAX_BITS_PER_S),
            ("starts_per_s", starts_per_s, MAX_SESSIONS),
        ] {
            let Some(value) = value else { continue };
            sane(name, value)?;
            if value > most {
                let hint = if name == "utilization" { ", where 1 is full: write 0.81 for 81 %" } else { "" };
                let what = format!("{name} is {}, more than {most}{hint}", crate::config::units::short(value));
                return Err(Fault::new(Why::Figure, what));
            }
        }
        if let Some(capacity) = capacity.filter(|capacity| *capacity < MIN_CAPACITY) {
            return Err(Fault::new(Why::Figure, format!("capacity is {capacity}, less than one session")));
        }
        if figures == Figures::default() {
            return Err(Fault::new(Why::Nothing, "no figure of load in it"));
        }
        // -0.0 is no lie, only ugly.
        let plain = |value: Option<f64>| value.map(|value| value + 0.0);
        Ok(Report(Figures {
            sessions: plain(sessions),
            utilization: plain(utilization),
            capacity,
            bits_per_s: plain(bits_per_s),
            starts_per_s: plain(starts_per_s),
        }))
    }

    #[cfg(test)]
    fn figures(&self) -> &Figures {
        &self.0
    }

    pub fn sessions(&self) -> Option<f64> {
        self.0.sessions
    }

    pub fn utilization(&self) -> Option<f64> {
        self.0.utilization
    }

    pub fn capacity(&self) -> Option<f64> {
        self.0.capacity
    }

    pub fn bits_per_s(&self) -> Option<f64> {
        self.0.bits_per_s
    }

    pub fn starts_per_s(&self) -> Option<f64> {
        self.0.starts_per_s
    }

    /// Of the header `endpoint-load-metrics`.
    pub fn from_header(value: &[u8]) -> Result<Report, Fault> {
        let text = bounded(value)?;
        orca::header(text).and_then(Report::new)
    }

    /// Of a body, by its Content-Type where that tells, otherwise by looking. Prometheus text is not looked for: which
    /// metrics count has to be known, see [`exposition::Wanted`].
    pub fn from_body(content_type: Option<&str>, body: &[u8]) -> Result<Report, Fault> {
        let text = bounded(body)?.trim_start_matches('\u{feff}').trim();
        let is_health = content_type.is_some_and(is_health_json);
        let figures = if text.is_empty() {
            return Err(Fault::new(Why::Nothing, "an empty body"));
        } else if text.starts_with('<') {
            object::xml(text)?
        } else if text.starts_with('{') {
            let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
                .map_err(|error| Fault::unreadable(format!("broken JSON: {}", short(&error.to_string()))))?;
            if is_health || json.contains_key("checks") {
                health_json::read(&json)?
            } else if object::is_one(&json) {
                object::json(&json)?
            } else {
                orca::json(&json)?
            }
        } else if is_health {
            return Err(Fault::unreadable("application/health+json that is no JSON object"));
        } else {
            orca::body(text)?
        };
        Report::new(figures)
    }
}

/// Whether a Content-Type says `application/health+json`, whatever its parameters.
pub fn is_health_json(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/health+json"))
}

/// Text of a length that is read.
fn bounded(bytes: &[u8]) -> Result<&str, Fault> {
    if bytes.len() > MAX_BYTES {
        return Err(Fault::new(Why::TooLong, format!("longer than {MAX_BYTES} bytes")));
    }
    std::str::from_utf8(bytes).map_err(|_| Fault::unreadable("not UTF-8"))
}

/// A figure that is finite and not negative.
fn sane(name: &str, value: f64) -> Result<f64, Fault> {
    let what = if value.is_nan() {
        "not a number"
    } else if value.is_infinite() {
        "infinite"
    } else if value < 0.0 {
        "negative"
    } else {
        return Ok(value);
    };
    Err(Fault::new(Why::Figure, format!("{} is {what}", short(name))))
}

/// A figure as text.
fn parsed(name: &str, text: &str) -> Result<f64, Fault> {
    let value = text.trim().parse::<f64>();
    let value = value.map_err(|_| Fault::new(Why::Figure, format!("{} is {:?}, no number", short(name), short(text))));
    sane(name, value?)
}

/// A figure as a JSON value: a number, or the text of one, which is how protobuf writes 64-bit integers and NaN. `None`
/// of null.
fn json_number(name: &str, value: &serde_json::Value) -> Result<Option<f64>, Fault> {
    match value {
        serde_json::Value::Null => Ok(None),
        serde_json::Value::Number(number) => number.as_f64().map(|value| sane(name, value)).transpose(),
        serde_json::Value::String(text) => parsed(name, text).map(Some),
        _ => Err(Fault::new(Why::Figure, format!("{} is no number", short(name)))),
    }
}

/// What somebody else wrote, fit for one line of a log.
fn short(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests;
