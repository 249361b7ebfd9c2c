//! Where orders wait until they are on the disk: only then do they hold, and whoever gave them is told.
//!
//! One change of the book is written at a time, on a thread of its own; the others wait in line.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tracing::error;

use crate::orders::book::{Book, Given, Lifted, Turn};
use crate::orders::guard::Facts;
use crate::orders::{Draft, Lift, Order, Refusal};
use crate::state::keeper::Keeper;

/// Who gave an order is told of it.
type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

pub struct Desk {
    book: Book,
    /// The same for those who look.
    list: Arc<Vec<Order>>,
    keeper: Arc<Keeper>,
    line: VecDeque<Request>,
    writing: Option<(Change, JoinHandle<io::Result<()>>)>,
}

enum Request {
    Give(Draft, Reply<Order>),
    Lift(Lift, String, Reply<Vec<Order>>),
}

/// A change of the book on its way to the disk.
struct Change {
    book: Book,
    deed: Deed,
}

enum Deed {
    Given(Given, Reply<Order>),
    Lifted(Lifted, String, Reply<Vec<Order>>),
    /// By time; it holds already.
    Turned,
}

/// A change that came to its end. Dropping it tells those who wait nothing.
pub struct Kept(Change, Result<(), String>);

/// What the book says now that it did not before.
pub enum News {
    Given(Given),
    Lifted {
        lifted: Lifted,
        author: String,
        /// They hold again after a restart, for this reason.
        unkept: Option<String>,
    },
    Refused,
    Nothing,
}

impl Desk {
    pub fn new(book: Book, keeper: Arc<Keeper>) -> Desk {
        let list = Arc::new(book.list());
        Desk { book, list, keeper, line: VecDeque::new(), writing: None }
    }

    /// What holds.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Why orders are not kept over a restart; `None`: they are.
    pub fn not_kept(&self) -> Option<Arc<str>> {
        self.keeper.not_kept()
    }

    pub fn list(&self) -> Arc<Vec<Order>> {
        Arc::clone(&self.list)
    }

    pub fn give(&mut self, draft: Draft, reply: Reply<Order>) {
        self.line.push_back(Request::Give(draft, reply));
    }

    pub fn lift(&mut self, what: Lift, author: String, reply: Reply<Vec<Order>>) {
        self.line.push_back(Request::Lift(what, author, reply));
    }

    /// When the book changes by itself.
    pub fn due(&self) -> Option<Timestamp> {
        // Not while a change is on its way: it would be lost with the book that the change brings.
        self.book.due().filter(|_| self.writing.is_none())
    }

    /// Whether requests wait that can be begun.
    pub fn is_waiting(&self) -> bool {
        self.writing.is_none() && !self.line.is_empty()
    }

    /// Begins to write what the first request in line asks for. Gives a refusal's words, which were told already.
    pub fn begin(&mut self, facts: &Facts, now: Timestamp) -> Option<(String, Refusal)> {
        let mut book = self.book.clone();
        let deed = match self.line.pop_front()? {
            Request::Give(draft, reply) => {
                let author = draft.author.clone();
                match book.give(draft, facts, now) {
                    Ok(given) => Deed::Given(given, reply),
                    Err(refusal) => {
                        // Who asked may have gone.
                        let _ = reply.send(Err(refusal.clone()));
                        return Some((author, refusal));
                    }
                }
            }
            Request::Lift(what, author, reply) => match book.lift(&what, facts) {
                Ok(lifted) => Deed::Lifted(lifted, author, reply),
                Err(refusal) => {
                    let _ = reply.send(Err(refusal.clone()));
                    return Some((author, refusal));
                }
            },
        };
        self.write(Change { book, deed });
        None
    }

    /// What time did to the orders, which holds at once. Nothing while a change is on its way.
    pub fn turn(&mut self, facts: impl FnOnce() -> Facts, now: Timestamp) -> Vec<(Order, Turn)> {
        self.book.follow(now);
        if self.due().is_none_or(|due| due > now) {
            return vec![];
        }
        let turns = self.book.expire(&facts(), now);
        if !turns.is_empty() {
            self.list = Arc::new(self.book.list());
            self.write(Change { book: self.book.clone(), deed: Deed::Turned });
        }
        turns
    }

    fn write(&mut self, change: Change) {
        let (keeper, book) = (Arc::clone(&self.keeper), change.book.clone());
        self.writing = Some((change, spawn_blocking(move || keeper.save_orders(&book))));
    }

    /// The change that is being written, once it is; never, when none is. Can be dropped and called again.
    pub async fn kept(&mut self) -> Kept {
        let Some((_, writing)) = &mut self.writing else { return std::future::pending().await };
        let outcome: Result<io::Result<()>, JoinError> = writing.await;
        let (change, _) = self.writing.take().expect("what was awaited just now");
        let outcome = match outcome {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(died) => Err(format!("a fault of ours: {died}")),
        };
        Kept(change, outcome)
    }

    /// Takes a change that was written. The answer is to be sent once what is new holds.
    pub fn take(&mut self, Kept(Change { book, deed }, outcome): Kept) -> (News, Answer) {
        if let Err(error) = &outcome {
            error!(%error, "orders cannot be written to the state directory");
        }
        let refusal = |error: &String| {
            Refusal::NotKept(format!("the order cannot be kept over a restart, so it is not taken: {error}"))
        };
        match (deed, outcome) {
            (Deed::Turned, _) => (News::Nothing, Answer::None),
            (Deed::Given(_, reply), Err(error)) => (News::Refused, Answer::Given(reply, Err(refusal(&error)))),
            (Deed::Given(given, reply), Ok(())) => {
                self.adopt(book);
                (News::Given(given.clone()), Answer::Given(reply, Ok(given.order)))
            }
            // What was taken away must be had back even while the disk takes nothing.
            (Deed::Lifted(lifted, author, reply), outcome) => {
                self.adopt(book);
                let unkept = outcome.err();
                let dropped = lifted.dropped.iter().map(|(order, _)| order);
                let gone = lifted.orders.iter().chain(dropped).cloned().collect();
                (News::Lifted { lifted, author, unkept }, Answer::Lifted(reply, Ok(gone)))
            }
        }
    }

    fn adopt(&mut self, book: Book) {
        self.book = book;
        self.list = Arc::new(self.book.list());
    }
}

/// What to tell whoever gave the order, once it holds.
pub enum Answer {
    Given(Reply<Order>, Result<Order, Refusal>),
    Lifted(Reply<Vec<Order>>, Result<Vec<Order>, Refusal>),
    None,
}

impl Answer {
    pub fn send(self) {
        // Who asked may have gone.
        match self {
            Answer::Given(reply, outcome) => drop(reply.send(outcome)),
            Answer::Lifted(reply, outcome) => drop(reply.send(outcome)),
            Answer::None => {}
        }
    }
}
