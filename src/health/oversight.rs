//! The alarm for probes that have stopped: silence of the checker must not pass for health of the servers.
//!
//! A target is overdue when no probe of it has ended with a word about the target for much longer than its check
//! allows, for whatever reason: a stuck task, a starved runtime, a machine without file descriptors or route.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::alarm::{Alarm, Alarms};
use super::stats::{Stats, TargetStats};

/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);
/// Besides ten intervals: time for a machine to get over a fit of work.
const GRACE: Duration = Duration::from_secs(5);

/// Looks at all targets for ever, and raises an alarm when more are overdue than before and when none is any longer.
pub(super) async fn oversee(stats: Stats, alarms: Alarms) {
    let mut before = 0;
    loop {
        sleep(LOOK).await;
        let targets = stats.targets();
        let now = tokio::time::Instant::now().into_std();
        let overdue: Vec<&Arc<TargetStats>> = targets.iter().filter(|target| is_overdue(target, now)).collect();
        match overdue.first() {
            Some(example) if overdue.len() > before => alarms.raise(Alarm::Overdue {
                overdue: overdue.len(),
                of: targets.len(),
                example: Arc::clone(&example.target),
                cause: example.last_cause(),
            }),
            None if before > 0 => alarms.raise(Alarm::Resumed),
            _ => {}
        }
        before = overdue.len();
    }
}

/// Whether a target has gone without a result for too long.
pub(super) fn is_overdue(target: &TargetStats, now: Instant) -> bool {
    let check = &target.target.check;
    target.since_result(now) > check.every * 10 + check.timeout + GRACE
}

#[cfg(test)]
mod tests {
    use super::super::stats::Kind;
    use super::super::{Target, Verdict};
    use super::*;
    use crate::config::settings::{Check, CheckKind};

    #[tokio::test(start_paused = true)]
    async fn a_target_is_overdue_ten_intervals_and_some_grace_after_its_last_result() {
        let (every, timeout) = (Duration::from_millis(500), Duration::from_millis(250));
        let check = Check {
            kind: CheckKind::Tcp,
            every,
            timeout,
            adaptive: false,
            fall: 3,
            rise: 10,
            port: 1,
            heartbeat: None,
            load: Default::default(),
        };
        let target = Target { address: "127.0.0.1:1".parse().unwrap(), check: Arc::new(check), beats_of: None };
        let stats = TargetStats::new(Arc::new(target), Verdict::Unknown);
        let overdue = || is_overdue(&stats, tokio::time::Instant::now().into_std());
        for kind in [Kind::Success, Kind::Hard, Kind::Silence] {
            stats.count(kind);
            sleep(Duration::from_millis(10_250)).await;
            assert!(!overdue(), "{kind:?}");
            // What this machine could not send says nothing about the target.
            stats.count(Kind::Local);
            stats.count(Kind::Stale);
            sleep(Duration::from_millis(1)).await;
            assert!(overdue(), "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn probes_that_stop_and_go_on_raise_one_alarm_each() {
        let (every, timeout) = (Duration::from_millis(500), Duration::from_millis(250));
        let check = Check {
            kind: CheckKind::Tcp,
            every,
            timeout,
            adaptive: false,
            fall: 3,
            rise: 10,
            port: 1,
            heartbeat: None,
            load: Default::default(),
        };
        let target =
            Arc::new(Target { address: "127.0.0.1:1".parse().unwrap(), check: Arc::new(check), beats_of: None });
        let figures = Arc::new(TargetStats::new(Arc::clone(&target), Verdict::Unknown));
        let (stats, alarms) = (Stats::default(), Alarms::default());
        stats.publish(vec![Arc::clone(&figures)]);
        let mut heard = alarms.listen();
        let task = tokio::spawn(oversee(stats, alarms));
        let start = tokio::time::Instant::now();
        let overdue = Alarm::Overdue { overdue: 1, of: 1, example: target, cause: None };
        assert_eq!(heard.recv().await, Ok(overdue));
        assert!((10..=12).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        sleep(Duration::from_secs(60)).await;
        assert!(heard.is_empty(), "told once");
        figures.count(Kind::Success);
        assert_eq!(heard.recv().await, Ok(Alarm::Resumed));
        task.abort();
    }
}
