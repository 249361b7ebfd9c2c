//! ORCA load reports (`xds.data.orca.v3.OrcaLoadReport`) as JSON and as text, and plain JSON with our own names.
//!
//! The header is `endpoint-load-metrics: JSON {…}` or `TEXT key=value,…`, as Envoy reads it; the binary form is refused.
//! Of `named_metrics` those called as the fields of [`Figures`] count. Utilisation is `application_utilization`; without
//! it (ORCA cannot tell 0 from absent) the largest of `utilization`, the server's own resources; then `cpu_utilization`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Fault, Figures, Why, json_number, parsed, short};
use crate::steering::dwell;

/// More entries than this are no report.
const MAX_ENTRIES: usize = 1024;

/// The value of the header `endpoint-load-metrics`.
pub(super) fn header(text: &str) -> Result<Figures, Fault> {
    let text = text.trim();
    let (form, rest) = text.split_once(' ').unwrap_or((text, ""));
    match form {
        "JSON" => json_text(rest),
        "TEXT" => pairs(rest),
        "BIN" => Err(Fault::new(Why::Unreadable, "the binary form of ORCA is not read; send JSON or TEXT")),
        // Some leave the word out.
        _ if text.starts_with('{') => json_text(text),
        _ if text.contains('=') => pairs(text),
        _ => Err(Fault::new(Why::Unreadable, format!("neither JSON nor TEXT: {:?}", short(text)))),
    }
}

/// A body that is neither XML nor a JSON object: the text form, or either with the header's word before it. Pairs may
/// also stand on lines of their own.
pub(super) fn body(text: &str) -> Result<Figures, Fault> {
    match text.split_once(' ').map_or(text, |(form, _)| form) {
        "JSON" | "TEXT" | "BIN" => header(text),
        _ => pairs(text),
    }
}

fn json_text(text: &str) -> Result<Figures, Fault> {
    let object = serde_json::from_str(text)
        .map_err(|error| Fault::new(Why::Unreadable, format!("broken JSON: {}", short(&error.to_string()))))?;
    json(&object)
}

/// What an OrcaLoadReport says, by the names of the protobuf.
#[derive(Default)]
struct Said {
    application: Option<f64>,
    cpu: Option<f64>,
    /// The largest of the server's own resources.
    resource: Option<f64>,
    rps: Option<f64>,
    named: Figures,
}

impl Said {
    /// `name` as protobuf has it, with the name of a map's entry behind a dot. What is not known is left out.
    fn take(&mut self, name: &str, value: f64) {
        let (map, entry) = name.split_once('.').unwrap_or(("", name));
        match (map, entry) {
            ("", "application_utilization") => self.application = Some(value),
            ("", "cpu_utilization") => self.cpu = Some(value),
            ("", "rps_fractional") => self.rps = Some(value),
            ("utilization", _) => self.resource = Some(self.resource.map_or(value, |most| most.max(value))),
            ("" | "named_metrics", "sessions") => self.named.sessions = Some(value),
            ("" | "named_metrics", "utilization") => self.named.utilization = Some(value),
            ("" | "named_metrics", "capacity") => self.named.capacity = Some(value),
            ("" | "named_metrics", "bits_per_s") => self.named.bits_per_s = Some(value),
            ("" | "named_metrics", "starts_per_s") => self.named.starts_per_s = Some(value),
            _ => {}
        }
    }

    fn figures(self) -> Figures {
        // An application that says 0 may only not have set it.
        let application = self.application.filter(|value| *value > 0.0);
        let utilization = self.named.utilization.or(application).or(self.resource).or(self.cpu).or(self.application);
        // Requests are starts of sessions where a request is a session. Of a server of segments they are not: then
        // sessions would seem to last less than the shortest that there are.
        let starts = self.rps.zip(self.named.sessions).filter(|(rps, sessions)| *rps <= sessions / dwell::LEAST_S);
        let starts_per_s = self.named.starts_per_s.or(starts.map(|(rps, _)| rps));
        Figures { utilization, starts_per_s, ..self.named }
    }
}

/// As protobuf writes it, with names in snake or camel case.
pub(super) fn json(object: &Map<String, Value>) -> Result<Figures, Fault> {
    let mut said = Said::default();
    let mut count = 0;
    for (key, value) in object {
        let key = snake(key);
        match value {
            Value::Object(entries) if matches!(key.as_str(), "utilization" | "named_metrics" | "request_cost") => {
                for (entry, value) in entries {
                    count += 1;
                    let name = format!("{key}.{entry}");
                    if let Some(value) = json_number(&name, value)? {
                        said.take(&name, value);
                    }
                }
            }
            _ if is_figure(&key) => {
                if let Some(value) = json_number(&key, value)? {
                    said.take(&key, value);
                }
            }
            // Other words beside those of load, such as a status page has.
            _ => {}
        }
        count += 1;
        if count > MAX_ENTRIES {
            return Err(too_many());
        }
    }
    Ok(said.figures())
}

/// `key=value,key=value`; also `key:value`, as Envoy takes it.
fn pairs(text: &str) -> Result<Figures, Fault> {
    let mut seen: BTreeMap<&str, f64> = BTreeMap::new();
    for pair in text.split([',', '\n']).map(str::trim).filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once(['=', ':']) else {
            return Err(Fault::new(Why::Unreadable, format!("{:?} is no key=value", short(pair))));
        };
        let key = key.trim();
        if seen.insert(key, parsed(key, value)?).is_some() {
            return Err(Fault::new(Why::Unreadable, format!("{:?} stands there twice", short(key))));
        }
        if seen.len() > MAX_ENTRIES {
            return Err(too_many());
        }
    }
    let mut said = Said::default();
    seen.into_iter().for_each(|(key, value)| said.take(key, value));
    Ok(said.figures())
}

fn too_many() -> Fault {
    Fault::new(Why::Unreadable, format!("more than {MAX_ENTRIES} entries"))
}

/// Names at the top of an object whose value must be a number.
fn is_figure(key: &str) -> bool {
    matches!(
        key,
        "application_utilization"
            | "cpu_utilization"
            | "mem_utilization"
            | "rps_fractional"
            | "rps"
            | "eps"
            | "sessions"
            | "utilization"
            | "capacity"
            | "bits_per_s"
            | "starts_per_s"
    )
}

/// protobuf's JSON has lowerCamelCase, or the names as declared.
fn snake(key: &str) -> String {
    let mut name = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}
