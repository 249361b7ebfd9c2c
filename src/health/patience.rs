//! Time-outs that do not take this machine's lateness for the server's silence.
//!
//! When a machine is busy its timers fire late, and an answer that came in time may not have been read yet. A time-out
//! that was noticed late is therefore extended by as much as it was late, at most to twice its length in all.
//!
//! Timers here ring whatever the server does. tokio lets a task take only so many steps before it must yield, and a
//! server that always has one more byte to read takes them all; a plain timer of that task would then never be seen.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::task::coop::unconstrained;

use tokio::time::{Instant, sleep_until};

/// How late a timer may be on a machine that is well: tokio's timers have steps of 1 ms.
const SLACK: Duration = Duration::from_millis(4);

/// A timer that rings even when all else in its task never runs out of work.
pub(super) fn alarm(at: Instant) -> impl Future<Output = ()> {
    unconstrained(sleep_until(at))
}

/// Waits for `future`, for `patience` from the first poll. `None`: it gave nothing in that time; it can be polled on.
pub(super) async fn patiently<F: Future + Unpin>(future: &mut F, patience: Duration) -> Option<F::Output> {
    let mut deadline = Instant::now() + patience;
    let mut extension = patience;
    loop {
        let mut alarm = pin!(alarm(deadline));
        // Not `select!`: it looks at nothing, not even at the alarm, once the steps of the task are used up.
        let output = poll_fn(|cx| match Pin::new(&mut *future).poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => alarm.as_mut().poll(cx).map(|()| None),
        })
        .await;
        if output.is_some() {
            return output;
        }
        let late = deadline.elapsed();
        if late <= SLACK || extension.is_zero() {
            return None;
        }
        let more = late.min(extension);
        extension -= more;
        deadline = Instant::now() + more;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::{advance, sleep};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    async fn spawn_patient(mut answer: oneshot::Receiver<u8>) -> tokio::task::JoinHandle<Option<u8>> {
        let task = tokio::spawn(async move { patiently(&mut answer, PATIENCE).await.map(Result::unwrap) });
        tokio::task::yield_now().await;
        task
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_is_taken() {
        let (send, answer) = oneshot::channel();
        let task = spawn_patient(answer).await;
        sleep(PATIENCE - Duration::from_millis(1)).await;
        send.send(7).unwrap();
        assert_eq!(task.await.unwrap(), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_the_time_out() {
        let (_send, answer) = oneshot::channel();
        let start = Instant::now();
        let task = spawn_patient(answer).await;
        assert_eq!(task.await.unwrap(), None);
        assert!(start.elapsed() <= PATIENCE + SLACK, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_timer_gives_the_answer_more_time() {
        let (send, answer) = oneshot::channel();
        let task = spawn_patient(answer).await;
        advance(PATIENCE + Duration::from_millis(30)).await;
        sleep(Duration::from_millis(20)).await;
        assert!(!task.is_finished(), "30 ms late: 30 ms more");
        send.send(7).unwrap();
        assert_eq!(task.await.unwrap(), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn the_extension_is_no_longer_than_the_time_out_itself() {
        let (_send, answer) = oneshot::channel();
        let task = spawn_patient(answer).await;
        advance(PATIENCE * 100).await;
        let late = Instant::now();
        assert_eq!(task.await.unwrap(), None);
        assert!(late.elapsed() <= PATIENCE + SLACK, "{:?}", late.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_there_counts_however_late_it_is_noticed() {
        let (send, answer) = oneshot::channel();
        let task = spawn_patient(answer).await;
        send.send(7).unwrap();
        advance(PATIENCE * 100).await;
        assert_eq!(task.await.unwrap(), Some(7));
    }

    /// Never out of work, as a read of an endless stream.
    async fn work() {
        loop {
            tokio::task::coop::consume_budget().await;
        }
    }

    // Real time: the virtual clock stands still while there is work.
    #[tokio::test]
    async fn a_future_that_never_runs_out_of_work_is_silent_too() {
        let start = Instant::now();
        let mut task = tokio::spawn(async { patiently(&mut Box::pin(work()), PATIENCE).await });
        let ended = tokio::time::timeout(Duration::from_secs(20), &mut task).await;
        task.abort();
        assert_eq!(ended.expect("the time-out passes").unwrap(), None);
        assert!(start.elapsed() >= PATIENCE);
    }

    #[tokio::test]
    async fn an_alarm_rings_through_work() {
        let mut task = tokio::spawn(async {
            tokio::select! {
                biased;
                () = work() => {}
                () = alarm(Instant::now() + PATIENCE) => {}
            }
        });
        let ended = tokio::time::timeout(Duration::from_secs(20), &mut task).await;
        task.abort();
        ended.expect("the alarm rings").unwrap();
    }
}
