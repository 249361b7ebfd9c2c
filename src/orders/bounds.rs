//! What any draft has to keep to, whatever the world looks like.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Action, Draft, Refusal, Subject};
use crate::texts::is_hidden;

/// Orders in force and to come; one more is refused.
pub const MOST_ORDERS: usize = 1000;
/// Bytes of a reason or an author.
pub const LONGEST_TEXT: usize = 500;
pub const SLOWEST_DRAIN: Duration = Duration::from_hours(24);
/// How long an order may last that has an end.
pub const LONGEST: Duration = Duration::from_hours(366 * 24);
/// How far ahead an order may be given.
pub const LATEST_BEGINNING: Duration = Duration::from_hours(366 * 24);
/// A beginning that lies back no further means now: clocks differ.
const SLACK: Duration = Duration::from_secs(60);

/// Beginning, whether it is to come, and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub from: Timestamp,
    pub to_come: bool,
    pub until: Option<Timestamp>,
}

impl Window {
    pub fn overlaps(&self, from: Timestamp, until: Option<Timestamp>) -> bool {
        self.until.is_none_or(|end| from < end) && until.is_none_or(|end| self.from < end)
    }
}

/// The window of a draft that keeps to the bounds.
pub(super) fn check(draft: &Draft, now: Timestamp) -> Result<Window, Refusal> {
    let wrong = |text: String| Err(Refusal::Invalid(text));
    text("the reason", &draft.reason)?;
    text("the author", &draft.author)?;
    if let (Action::Drain { .. }, Subject::Server(address)) = (draft.action, &draft.subject) {
        return wrong(format!("{address} is a server, and only regions are drained: force it down instead"));
    }
    let lasting = match draft.lasting {
        Some(lasting) if lasting.is_zero() => return wrong("it would last no time".to_owned()),
        Some(lasting) if lasting > LONGEST => {
            return wrong("it would last more than a year; leave its end out and lift it when it is done".to_owned());
        }
        lasting => lasting,
    };
    if let Action::Drain { over } = draft.action {
        if over > SLOWEST_DRAIN {
            return wrong("the drain would take more than 24 hours".to_owned());
        }
        if lasting.is_some_and(|lasting| lasting <= over) {
            return wrong("it would end before the region is drained: let it last longer, or drain faster".to_owned());
        }
    }
    let far = || Refusal::Invalid("it would begin or end later than any calendar reaches".to_owned());
    let from = draft.from.unwrap_or(now);
    if from.checked_add(SLACK).is_ok_and(|latest| latest < now) {
        return wrong(format!("it would begin at {from}, which is past: it is {now}"));
    }
    if now.checked_add(LATEST_BEGINNING).is_ok_and(|latest| from > latest) {
        return wrong(format!("it would begin at {from}, more than a year from now"));
    }
    let to_come = from > now;
    let from = from.max(now);
    let until = lasting.map(|lasting| from.checked_add(lasting)).transpose().map_err(|_| far())?;
    Ok(Window { from, to_come, until })
}

/// As zones are called here: lower case, without the final dot.
pub(super) fn zone_name(name: &str) -> Arc<str> {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into()
}

fn text(what: &str, text: &str) -> Result<(), Refusal> {
    if text.len() > LONGEST_TEXT {
        return Err(Refusal::Invalid(format!("{what} has {} bytes, more than {LONGEST_TEXT}", text.len())));
    }
    // Texts go to terminals and logs, and are to read as what they are.
    if text.chars().any(is_hidden) {
        return Err(Refusal::Invalid(format!(
            "{what} has a line break, or another control or format character, which does not show"
        )));
    }
    Ok(())
}
