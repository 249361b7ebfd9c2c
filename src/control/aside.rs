//! Work that nobody waits for at this very moment: on threads that give way to those who answer and probe.
//!
//! Niceness is a thread's own on Linux, and threads started by a nice one are as nice. Where it cannot be had, work goes on
//! all the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use tokio::sync::oneshot;

use crate::turns;

/// How much less than the others: a core that both want goes to answers nine parts in ten.
const NICE: i32 = 10;

/// The outcome of work on a thread of its own: of the receiver an error when there is no thread, within it what the work
/// panicked with.
pub type Job<T> = oneshot::Receiver<thread::Result<T>>;

/// Lowers the priority of the thread that calls, for good.
pub fn give_way() {
    // Whoever may not even do that answers queries all the same.
    if turns::give_way(NICE).is_err() {
        let _ = rustix::process::nice(NICE);
    }
}

/// Runs `work` on a thread of its own that gives way. It runs to its end whether the outcome is waited for or not.
pub fn run<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Job<T> {
    let (done, job) = oneshot::channel();
    let work = move || {
        give_way();
        // Who waited may have gone.
        let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
    };
    // Without a thread `done` is dropped, which the receiver notices.
    let _ = thread::Builder::new().name(name.to_owned()).spawn(work);
    job
}

#[cfg(test)]
mod tests {
    use super::*;

    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).expect("it can be asked")
    }

    #[tokio::test]
    async fn only_the_thread_that_works_gives_way_and_threads_of_its_own_do() {
        let before = niceness();
        let job = run("test", || {
            let own = thread::spawn(niceness).join().expect("it only asks");
            (niceness(), own)
        });
        let (working, started_by_it) = job.await.expect("there is a thread").expect("no panic");
        assert_eq!((working, started_by_it), ((before + NICE).min(19), (before + NICE).min(19)));
        assert_eq!(niceness(), before);
    }

    #[tokio::test]
    async fn a_panic_is_the_outcome_and_nothing_more() {
        let job = run("test", || panic!("as planned"));
        assert!(job.await.expect("there is a thread").is_err());
    }
}
