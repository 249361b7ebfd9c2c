//! Prometheus text (exposition format 0.0.4, and OpenMetrics where it is the same): the metrics that were asked for.
//!
//! A metric is asked for by name, with labels that must match if need be: `nginx_connections_active`,
//! `sessions{app="live"}`. Samples that match are summed; of utilisations the highest counts. Only gauges make sense: a
//! counter says how many there were, not how many there are.

use std::fmt;

use super::{Fault, Figures, Report, Why, bounded, parsed, sane, short};

/// A metric, and labels that a sample must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    name: String,
    labels: Vec<(String, String)>,
}

/// Which metric gives which figure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    pub sessions: Option<Selector>,
    /// A fraction: 1.0 is full.
    pub utilization: Option<Selector>,
    pub capacity: Option<Selector>,
    pub bits_per_s: Option<Selector>,
    pub starts_per_s: Option<Selector>,
}

impl Selector {
    /// Errors: what is wrong, in words for people.
    pub fn parse(text: &str) -> Result<Selector, String> {
        let text = text.trim();
        let (name, rest) = name(text).ok_or_else(|| "it does not begin with the name of a metric".to_owned())?;
        let (labels, rest) = labels(rest).ok_or_else(|| "its labels are not written {name=\"value\"}".to_owned())?;
        if !rest.trim().is_empty() {
            return Err(format!("{:?} stands behind the metric", short(rest.trim())));
        }
        // They would end up on terminals and in logs.
        if let Some((label, _)) = labels.iter().find(|(_, value)| value.chars().any(|c| c.is_control() && c != '\n')) {
            return Err(format!("the value of its label {} has control characters", short(label)));
        }
        Ok(Selector { name: name.to_owned(), labels })
    }

    fn matches(&self, name: &str, labels: &[(String, String)]) -> bool {
        self.name == name && self.labels.iter().all(|wanted| labels.contains(wanted))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (i, (label, value)) in self.labels.iter().enumerate() {
            // Not as Rust quotes: the format knows these three escapes and no others.
            let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
            write!(f, "{}{label}=\"{value}\"", if i == 0 { "{" } else { "," })?;
        }
        if self.labels.is_empty() { Ok(()) } else { f.write_str("}") }
    }
}

impl Wanted {
    pub fn is_empty(&self) -> bool {
        *self == Wanted::default()
    }

    /// Errors: a metric that was asked for is not there or cannot be true. A line that is broken is no fault unless it
    /// begins with the name of a metric that is wanted: exporters write all sorts of things beside.
    pub fn read(&self, body: &[u8]) -> Result<Report, Fault> {
        let text = bounded(body)?;
        let Wanted { sessions, utilization, capacity, bits_per_s, starts_per_s } = self;
        let wanted = [sessions, utilization, capacity, bits_per_s, starts_per_s];
        let mut found = [None; 5];
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some((name, rest)) = name(line) else { continue };
            if !wanted.iter().any(|selector| selector.as_ref().is_some_and(|selector| selector.name == name)) {
                continue;
            }
            let broken = || Fault::new(Why::Unreadable, format!("a broken sample of {}", short(name)));
            let (labels, rest) = labels(rest).ok_or_else(broken)?;
            // A timestamp and an exemplar may follow.
            let value = rest.split_ascii_whitespace().next().ok_or_else(broken)?;
            for (place, (selector, found)) in wanted.iter().zip(&mut found).enumerate() {
                if selector.as_ref().is_some_and(|selector| selector.matches(name, &labels)) {
                    let value = parsed(name, value)?;
                    let is_share = place == 1;
                    *found = Some(match *found {
                        None => value,
                        Some(most) if is_share => f64::max(most, value),
                        Some(sum) => sane(name, sum + value)?,
                    });
                }
            }
        }
        if let Some((Some(selector), _)) =
            wanted.iter().zip(found).find(|(wanted, found)| wanted.is_some() && found.is_none())
        {
            return Err(Fault::new(Why::Nothing, format!("no sample of {}", short(&selector.to_string()))));
        }
        let [sessions, utilization, capacity, bits_per_s, starts_per_s] = found;
        Report::new(Figures { sessions, utilization, capacity, bits_per_s, starts_per_s })
    }
}

/// The metric's name at the beginning, and the rest.
fn name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let starts_well = text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    (end > 0 && starts_well).then(|| text.split_at(end))
}

/// Labels at the beginning, if there are any, and the rest.
fn labels(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    let Some(mut rest) = text.trim_start().strip_prefix('{') else { return Some((labels, text)) };
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (label, after) = name(rest)?;
        rest = after.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, c) => value.push(c),
            }
        };
        labels.push((label.to_owned(), value));
        rest = rest[end + 1..].trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}
