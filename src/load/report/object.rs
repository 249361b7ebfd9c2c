//! Load objects, as Akamai's GTM fetches them: `current-load`, `target-load` and `max-load`, in XML or JSON.
//!
//! The numbers count sessions. The capacity is `max-load`, or without it `target-load`: what a region can carry, where
//! the target is where it would like to stop. XML is read event by event: nothing is expanded, a document type is
//! refused, and the nesting is bounded.

use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::{Map, Value};

use super::{Fault, Figures, Why, json_number, parsed, sane, short};

const NAMES: [&str; 3] = ["current-load", "target-load", "max-load"];
const MAX_DEPTH: usize = 16;

/// Whether a JSON object is a load object.
pub(super) fn is_one(object: &Map<String, Value>) -> bool {
    NAMES.iter().any(|name| object.contains_key(*name))
}

pub(super) fn json(object: &Map<String, Value>) -> Result<Figures, Fault> {
    let mut loads = [None; 3];
    for (load, name) in loads.iter_mut().zip(NAMES) {
        *load = object.get(name).map(|value| json_number(name, value)).transpose()?.flatten();
    }
    figures(loads)
}

pub(super) fn xml(text: &str) -> Result<Figures, Fault> {
    let mut reader = Reader::from_str(text);
    let mut loads = [None; 3];
    let mut depth = 0;
    // The element of a load that is open, and its text so far.
    let mut open: Option<(usize, String)> = None;
    loop {
        let event = reader
            .read_event()
            .map_err(|error| Fault::unreadable(format!("broken XML: {}", short(&error.to_string()))))?;
        match event {
            Event::Start(element) => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Fault::unreadable(format!("XML nested deeper than {MAX_DEPTH}")));
                }
                if let Some((load, _)) = open {
                    return Err(Fault::unreadable(format!("elements within {}", NAMES[load])));
                }
                let name = element.local_name();
                open = position(name.as_ref()).map(|load| (load, String::new()));
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                let Some((load, text)) = open.take() else { continue };
                if loads[load].replace(parsed(NAMES[load], &text)?).is_some() {
                    return Err(Fault::unreadable(format!("{} stands there twice", NAMES[load])));
                }
            }
            Event::Empty(element) => {
                if let Some(load) = position(element.local_name().as_ref()) {
                    return Err(Fault::new(Why::Figure, format!("{} is empty", NAMES[load])));
                }
            }
            Event::Text(piece) => append(&mut open, &piece),
            Event::CData(piece) => append(&mut open, &piece),
            // No number needs one.
            Event::GeneralRef(_) if open.is_some() => return Err(Fault::unreadable("an entity within a number")),
            Event::DocType(_) => return Err(Fault::unreadable("XML with a document type")),
            Event::Eof if depth > 0 => return Err(Fault::unreadable("XML that is cut off")),
            Event::Eof => return figures(loads),
            Event::GeneralRef(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

fn position(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

fn append(open: &mut Option<(usize, String)>, piece: &str) {
    if let Some((_, text)) = open {
        text.push_str(piece);
    }
}

fn figures([current, target, max]: [Option<f64>; 3]) -> Result<Figures, Fault> {
    let Some(current) = current else {
        return Err(Fault::new(Why::Nothing, "a load object without current-load"));
    };
    let sessions = Some(sane("current-load", current)?);
    Ok(Figures { sessions, capacity: max.or(target), ..Figures::default() })
}
