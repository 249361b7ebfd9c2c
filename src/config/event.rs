//! `[[event]]`: what the operator knows to come.

use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::diagnostic::{At, Diagnostic};
use super::names;
use super::settings::{Event, Expect, Stream};
use super::tree::{Item, nearest};
use super::units;
use hickory_proto::rr::Name;

/// Where neither `for` nor `until` is written.
const DEFAULT_LENGTH: Duration = Duration::from_secs(2 * 3600);
const LENGTHS: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(7 * 86_400);
/// A season's fixtures, some times over.
const MAX_EVENTS: usize = 1000;
const MAX_SESSIONS: f64 = 1e9;
const MAX_TIMES: f64 = 1000.0;

/// An event, before its stream is known to exist.
pub struct Spec {
    stream: (Name, String, At),
    start: Timestamp,
    end: Timestamp,
    expect: Expect,
    at: At,
}

/// All events of a file, those in order.
pub fn read_all(item: &Item<'_>, apex: &Name) -> Vec<Spec> {
    if !item.is_tables() {
        let fault = item.key_fault("`event` is no list of tables").rule("each event is a table of its own");
        item.report(fault.help("write [[event]]"));
        return Vec::new();
    }
    let items = item.one_or_more();
    if items.len() > MAX_EVENTS {
        let fault = item.key_fault(format!("{} events, more than {MAX_EVENTS}", items.len()));
        item.report(fault.help("remove those that are over"));
        return Vec::new();
    }
    items.iter().filter_map(|item| read(item, apex)).collect()
}

fn read(item: &Item<'_>, apex: &Name) -> Option<Spec> {
    let mut table = item.table()?;
    let start = table.take("at");
    let (until, length) = (table.take("until"), table.take("for"));
    let (stream, expect) = (table.take("stream"), table.take("expect"));
    table.done();
    let missing = |key: &str, help: &str| {
        item.file
            .report_missing(Diagnostic::error(item.key_at(), format!("`{key}` of an event is missing")).help(help));
    };
    if start.is_none() {
        missing("at", "say when it begins: at = 2026-11-28T18:00:00Z");
    }
    if stream.is_none() {
        missing("stream", "name its stream: stream = \"live\", or \"@\" for the apex");
    }
    if expect.is_none() {
        missing("expect", "say how much is expected: expect = \"30000 sessions\", or \"x3\" of what is usual");
    }
    let start = start.and_then(|item| time(&item));
    let stream = stream.and_then(|item| {
        let label = item.string()?;
        let owner = names::relative(label, apex).map_err(|flaw| item.report_flaw(flaw)).ok()?;
        Some((owner, label.to_owned(), item.at()))
    });
    let expect = expect.and_then(|item| expectation(&item));
    let end = match (until, length) {
        (Some(until), Some(_)) => {
            let fault = until.key_fault("an event has `until` and `for`").rule("both say when it ends");
            until.report(fault.help("remove one of them"));
            return None;
        }
        (Some(until), None) => end(start?, time(&until)?, &until)?,
        (None, Some(length)) => after(start?, units::read(&length, LENGTHS)?, &length)?,
        (None, None) => after(start?, DEFAULT_LENGTH, item)?,
    };
    Some(Spec { stream: stream?, start: start?, end, expect: expect?, at: item.key_at() })
}

fn after(start: Timestamp, length: Duration, item: &Item<'_>) -> Option<Timestamp> {
    let end = SignedDuration::try_from(length).ok().and_then(|length| start.checked_add(length).ok());
    if end.is_none() {
        item.report(item.fault("the event ends after the year 9999").help("write an earlier `at`"));
    }
    end
}

fn end(start: Timestamp, end: Timestamp, until: &Item<'_>) -> Option<Timestamp> {
    let length = Duration::try_from(end.duration_since(start)).ok().filter(|length| LENGTHS.contains(length));
    if length.is_none() {
        let (low, high) = (units::written(*LENGTHS.start()), units::written(*LENGTHS.end()));
        let what = format!("`{}` is not {low} to {high} after `at`", until.path);
        until.report(until.fault(what).help("write a later time, or for = \"2h\""));
    }
    length.map(|_| end)
}

/// A TOML time with its offset, or the same as a string.
fn time(item: &Item<'_>) -> Option<Timestamp> {
    let text = match item.as_datetime() {
        Some(text) => text,
        None => item.string()?.to_owned(),
    };
    match Timestamp::from_str(&text) {
        Ok(time) => Some(time),
        Err(_) => {
            let fault = item.fault(format!("`{}` is {text:?}, which is no time", item.path));
            item.report(
                fault.rule("a time has a date and an offset (RFC 3339)").help("write it like 2026-11-28T18:00:00Z"),
            );
            None
        }
    }
}

fn expectation(item: &Item<'_>) -> Option<Expect> {
    let text = item.string()?;
    let fault = |what: String| {
        let help = "write \"30000 sessions\", or \"x3\" for three times what is usual";
        item.report(item.fault(what).help(help));
        None
    };
    // No sign, no exponent: nothing that an operator would write by hand.
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if plain { text.parse::<f64>().ok() } else { None }
    };
    let times = text.strip_prefix('x').and_then(number);
    let sessions = text.strip_suffix("sessions").map(str::trim_end).and_then(number);
    match (times, sessions) {
        (Some(times), _) if times > 1.0 && times <= MAX_TIMES => Some(Expect::Times(times)),
        (Some(_), _) => fault(format!("`{}` is {text:?}, not above x1 and up to x{MAX_TIMES}", item.path)),
        (_, Some(sessions)) if (1.0..=MAX_SESSIONS).contains(&sessions) => Some(Expect::Sessions(sessions)),
        (_, Some(_)) => fault(format!("`{}` is {text:?}, not 1 to 1000000000 sessions", item.path)),
        (None, None) => fault(format!("`{}` is {text:?}, which is no number of sessions or times", item.path)),
    }
}

/// The events of streams that there are, by their start; `report` gets what is wrong with the others.
pub fn resolve(specs: Vec<Spec>, streams: &[Stream], report: impl Fn(Diagnostic)) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for Spec { stream: (owner, label, place), start, end, expect, at } in specs {
        let Some(stream) = streams.iter().position(|stream| stream.owner == owner) else {
            let fault = Diagnostic::error(place, format!("stream {label:?} of an event is not there"))
                .rule("an event is of a steered name of this zone");
            let known = streams.iter().map(|stream| &*stream.label);
            report(fault.help(match nearest(&label, known.clone()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => match known.collect::<Vec<_>>() {
                    none if none.is_empty() => "add [stream.NAME], or remove the event".to_owned(),
                    known => format!("streams here: {}", known.join(", ")),
                },
            }));
            continue;
        };
        events.push(Event { stream, start, end, expect, at });
    }
    events.sort_by(|a, b| (a.start, &a.at).cmp(&(b.start, &b.at)));
    let mut last: Vec<Option<usize>> = vec![None; streams.len()];
    for (i, event) in events.iter().enumerate() {
        let before = last[event.stream].map(|before| &events[before]);
        if let Some(before) = before.filter(|before| event.start < before.end) {
            report(
                Diagnostic::error(
                    event.at.clone(),
                    format!("an event of {} overlaps another", streams[event.stream].label),
                )
                .rule("two expectations of one time contradict each other")
                .help(format!("move it or make them one; the other is at line {}", before.at.line)),
            );
        }
        if before.is_none_or(|before| before.end <= event.end) {
            last[event.stream] = Some(i);
        }
    }
    events
}

/// Warns of events that are over.
pub fn past(events: &[Event], now: Timestamp) -> impl Iterator<Item = Diagnostic> {
    events.iter().filter(move |event| event.end <= now).map(|event| {
        Diagnostic::warning(event.at.clone(), format!("this event ended at {}", event.end))
            .rule("it has no effect any more")
            .help("remove it, or give it its next time")
    })
}
