//! `POST /v1/load`: reports of servers and of whole regions, as one JSON object, an array or lines of them.
//!
//! Each is taken or refused by itself; the answer tells how many were taken, and of each refused one the line, what is
//! wrong and the rule.

use std::net::IpAddr;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{bytes, refuse};
use super::{Admin, orders};
use crate::load::board::Source;
use crate::load::gauge::Heard;
use crate::load::report::Why;
use crate::load::{Desk, Fault, Figures, Report};

const MAX_BODY: usize = 256 * 1024;
/// Reports in one body; more are refused as a whole.
const MAX_REPORTS: usize = 2000;
/// Refusals that are told; those beyond are only counted.
const MAX_TOLD: usize = 100;
/// No name of a region or zone is longer.
const MAX_NAME: usize = 256;

/// One report.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    /// May be left out of a server's report.
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    zone: Option<String>,
    /// A public address. Without it the report is of the whole region.
    #[serde(default)]
    server: Option<IpAddr>,
    #[serde(default)]
    sessions: Option<f64>,
    #[serde(default)]
    utilization: Option<f64>,
    #[serde(default)]
    capacity: Option<f64>,
    #[serde(default)]
    bits_per_s: Option<f64>,
    #[serde(default)]
    starts_per_s: Option<f64>,
}

pub async fn take(State(admin): State<Admin>, body: Body) -> Response {
    let body = match bytes(body, MAX_BODY).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let Ok(text) = std::str::from_utf8(&body) else {
        return refuse(StatusCode::BAD_REQUEST, "the body is not UTF-8");
    };
    let reports = split(text);
    if reports.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, format!("the body is empty; send {FORM}"));
    }
    if reports.len() > MAX_REPORTS {
        let what = format!("{} reports, more than {MAX_REPORTS} in one body", reports.len());
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, what);
    }
    let now = tokio::time::Instant::now().into_std();
    let (mut taken, mut doubted, mut refused) = (0, 0, Vec::new());
    for (line, outcome) in reports {
        match outcome.map_err(|fault| admin.loads.refuse(fault)).and_then(|said| hear(&admin.loads, &said, now)) {
            Ok(heard) => {
                taken += 1;
                doubted += usize::from(heard == Heard::Doubted);
            }
            Err(fault) => refused.push(json!({ "line": line, "what": fault.what, "rule": rule(fault.why) })),
        }
    }
    let status = if taken == 0 { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let untold = refused.len().saturating_sub(MAX_TOLD);
    refused.truncate(MAX_TOLD);
    let mut answer = json!({ "taken": taken, "doubted": doubted, "refused": refused });
    if untold > 0 {
        answer["refused_untold"] = json!(untold);
    }
    if taken == 0 {
        answer["error"] = json!("no report was taken");
    }
    (status, Json(answer)).into_response()
}

/// What a body may be.
const FORM: &str = "a JSON object like {\"region\": \"eu\", \"sessions\": 812}, one a line, or an array of them; \
    its keys are region, zone, server, sessions, utilization, capacity, bits_per_s and starts_per_s";

/// The rule that was broken. Servers that are asked may answer in more forms than are posted.
fn rule(why: Why) -> &'static str {
    match why {
        Why::Unreadable => FORM,
        Why::Nothing => {
            "a report has `sessions`, `utilization`, `capacity`, `bits_per_s` or `starts_per_s`, as in \"sessions\": 812"
        }
        Why::Unknown => {
            "`region` or `server` is one of the zone files, as in \"region\": \"eu\" or \"server\": \"192.0.2.11\""
        }
        why => why.rule(),
    }
}

/// The reports of a body, with their lines, or in an array their places from 1.
fn split(text: &str) -> Vec<(usize, Result<Said, Fault>)> {
    // One object or array may be written over several lines.
    match serde_json::from_str(text) {
        Ok(Value::Array(list)) => list.into_iter().zip(1..).map(|(value, place)| (place, said(value))).collect(),
        Ok(value) => vec![(1, said(value))],
        Err(_) => {
            let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
            lines.map(|(line, number)| (number, serde_json::from_str(line).map_err(broken).and_then(said))).collect()
        }
    }
}

fn said(value: Value) -> Result<Said, Fault> {
    // serde would take the elements of an array for the fields in their order.
    if !value.is_object() {
        return Err(Fault::new(Why::Unreadable, "not a report: no JSON object"));
    }
    serde_json::from_value(value).map_err(broken)
}

fn broken(error: serde_json::Error) -> Fault {
    Fault::new(Why::Unreadable, format!("not a report: {error}"))
}

/// Errors are counted by then.
fn hear(desk: &Desk, said: &Said, now: std::time::Instant) -> Result<Heard, Fault> {
    let Said { sessions, utilization, capacity, bits_per_s, starts_per_s, .. } = *said;
    let figures = Figures { sessions, utilization, capacity, bits_per_s, starts_per_s };
    let report = source(desk, said).and_then(|source| Ok((source, Report::new(figures)?)));
    let (source, report) = report.map_err(|fault| desk.refuse(fault))?;
    desk.hear(source, &report, now)
}

fn source(desk: &Desk, said: &Said) -> Result<Source, Fault> {
    let unknown = |what: String| Fault::new(Why::Unknown, what);
    if [&said.region, &said.zone].into_iter().flatten().any(|name| name.len() > MAX_NAME) {
        return Err(unknown("a name is too long".to_owned()));
    }
    let zone = said.zone.as_deref().map(orders::zone).transpose().map_err(unknown)?;
    let Some(name) = &said.region else {
        let server = said.server.ok_or_else(|| unknown("neither `region` nor `server` is given".to_owned()))?;
        return Ok(Source::Server(server));
    };
    let region = match desk.find(name, zone.as_deref()) {
        Ok(region) => region,
        // The server tells which of them is meant.
        Err(_) if said.server.is_some_and(|server| desk.is_of(server, name, zone.as_deref())) => {
            return Ok(Source::Server(said.server.expect("it was asked for just now")));
        }
        Err(fault) => return Err(fault),
    };
    match said.server {
        None => Ok(Source::Region(region)),
        Some(server) if desk.is_of(server, name, zone.as_deref()) => Ok(Source::Server(server)),
        Some(server) => Err(unknown(format!("{server} is no server of region {name:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_object_or_an_object_a_line() {
        let one = split("{\n  \"region\": \"eu\",\n  \"sessions\": 1\n}\n");
        assert_eq!(one.len(), 1);
        assert!(one[0].1.is_ok());
        let lines = split("{\"region\":\"eu\",\"sessions\":1}\n\n{\"region\":\"eu\",\"session\":1}\nNaN\n");
        assert_eq!(
            lines.iter().map(|(line, said)| (*line, said.is_ok())).collect::<Vec<_>>(),
            [(1, true), (3, false), (4, false)]
        );
        let fault = lines[1].1.as_ref().unwrap_err();
        assert!(fault.what.contains("unknown field `session`"), "{fault}");
    }

    #[test]
    fn an_array_of_objects_is_as_good_as_lines_and_told_by_place() {
        let list = split("[{\"region\":\"eu\",\"sessions\":1},\n 7, {\"region\":\"us\",\"sessions\":1}]");
        let told: Vec<(usize, bool)> = list.iter().map(|(place, said)| (*place, said.is_ok())).collect();
        assert_eq!(told, [(1, true), (2, false), (3, true)]);
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_refused() {
        for number in ["NaN", "Infinity", "1e999", "\"812\""] {
            let said = &split(&format!("{{\"region\":\"eu\",\"sessions\":{number}}}"))[0].1;
            assert!(said.is_err(), "{number}: {said:?}");
        }
    }
}
