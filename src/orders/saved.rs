//! The book as it stands in a file. What comes back is held to the same bounds as what is given.

use serde::{Deserialize, Serialize};

use super::book::{Book, Kept};
use super::bounds::{LONGEST_TEXT, MOST_ORDERS, SLOWEST_DRAIN};
use super::{Action, Order, Subject};

/// JSON numbers are doubles to many tools; ids above this are not ours.
const LARGEST_ID: u64 = 1 << 53;

#[derive(Serialize, Deserialize)]
pub(super) struct Written {
    next: u64,
    orders: Vec<Kept>,
}

impl From<Book> for Written {
    fn from(Book { next, kept }: Book) -> Written {
        Written { next, orders: kept }
    }
}

impl TryFrom<Written> for Book {
    type Error = String;

    fn try_from(Written { next, orders: kept }: Written) -> Result<Book, String> {
        if kept.len() > MOST_ORDERS {
            return Err(format!("{} orders, more than {MOST_ORDERS}", kept.len()));
        }
        let mut last = 0;
        for Kept { order, start, place, least, .. } in &kept {
            if order.id <= last || order.id >= next {
                return Err(format!("order {} is out of its turn", order.id));
            }
            last = order.id;
            sound(order).map_err(|why| format!("order {}: {why}", order.id))?;
            if *place > LARGEST_ID {
                return Err(format!("order {} began in place {place}", order.id));
            }
            if least.is_some_and(|least| !(0.0..=1.0).contains(&least)) {
                return Err(format!("order {} has an impossible share left", order.id));
            }
            if !(0.0..=1.0).contains(start) {
                return Err(format!("order {} begins with a share of {start}", order.id));
            }
        }
        if !(1..=LARGEST_ID).contains(&next) {
            return Err(format!("the next order would have number {next}"));
        }
        Ok(Book { next, kept })
    }
}

fn sound(order: &Order) -> Result<(), &'static str> {
    match (order.action, &order.subject) {
        (Action::Drain { .. }, Subject::Server(_)) => return Err("it drains a server"),
        (Action::Drain { over }, _) if over > SLOWEST_DRAIN => return Err("it drains too slowly"),
        _ => {}
    }
    if order.until.is_some_and(|until| until <= order.from) {
        return Err("it ends before it begins");
    }
    if order.reason.len() > LONGEST_TEXT || order.author.len() > LONGEST_TEXT {
        return Err("its reason or author is too long");
    }
    Ok(())
}

/// A [`std::time::Duration`] as whole milliseconds.
pub(super) mod ms {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
