//! Targets that come and go, the first round, the event channel, and this machine's own trouble.

use std::fs::File;

use tokio::sync::oneshot;

use super::*;
use crate::demo::origin::Origin;

async fn hanging() -> SocketAddr {
    server(|stream, _| async move {
        sleep(PLENTY).await;
        drop(stream);
    })
    .await
}

#[tokio::test]
async fn targets_that_stay_keep_their_state_and_connection() {
    let (stays, goes) = (http(answering(OK).await), http(answering(OK).await));
    let (sender, mut events) = mpsc::channel(64);
    let mut prober = Prober::new(sender);
    prober.retarget(&[stays.clone(), goes.clone()]);
    assert_eq!(prober.first_round(PLENTY).await, 0);
    let before = prober.stats().find(&stays).unwrap();
    let added = http(answering(OK).await);
    prober.retarget(&[added.clone(), stays.clone()]);
    assert_eq!(prober.first_round(PLENTY).await, 0);
    assert!(Arc::ptr_eq(&before, &prober.stats().find(&stays).unwrap()));
    assert!(prober.stats().find(&goes).is_none());
    let probes = before.results(Kind::Success);
    let enough = Instant::now() + PLENTY;
    while before.results(Kind::Success) < probes + 3 && Instant::now() < enough {
        sleep(ms(10)).await;
    }
    assert_eq!(before.connects(), 1);
    let mut told = vec![];
    while let Ok(event) = events.try_recv() {
        told.push((event.target.address, event.verdict));
    }
    told.sort_by_key(|(address, _)| *address != stays.address);
    assert_eq!(told[0], (stays.address, Verdict::Up), "told once");
    assert_eq!(told.len(), 3, "{told:?}");
}

#[tokio::test]
async fn a_target_that_goes_has_its_connections_closed() {
    let (closed, seen) = oneshot::channel();
    let mut closed = Some(closed);
    let address = server(move |mut stream, _| {
        let closed = closed.take();
        async move {
            while request(&mut stream).await.is_some() && stream.write_all(OK).await.is_ok() {}
            if let Some(closed) = closed {
                let _ = closed.send(());
            }
        }
    })
    .await;
    let mut watched = Watched::up(http(address)).await;
    watched.prober.retarget(&[]);
    timeout(PLENTY, seen).await.expect("the server sees the close").unwrap();
    assert!(watched.prober.stats().targets().is_empty());
    watched.quiet(ms(150)).await;
}

#[tokio::test]
async fn a_target_named_twice_is_probed_once() {
    let target = http(answering(OK).await);
    let mut watched = Watched::new(&[target.clone(), target.clone()]);
    watched.prober.retarget(&[target.clone(), target.clone(), target]);
    assert_eq!(watched.prober.stats().targets().len(), 1);
    assert_eq!(watched.event().await.verdict, Verdict::Up);
    watched.quiet(ms(300)).await;
}

#[tokio::test]
async fn the_first_round_ends_when_every_target_has_a_verdict() {
    let good = http(answering(OK).await);
    let bad = http(nobody().await);
    let slow = http(hanging().await);
    let mut watched = Watched::new(&[good.clone(), bad.clone(), slow.clone()]);
    assert_eq!(watched.prober.first_round(PLENTY).await, 0);
    let believed = [&good, &bad, &slow].map(|target| watched.prober.believed(target));
    assert_eq!(believed, [Verdict::Up, Verdict::Down, Verdict::Down]);
    for _ in 0..3 {
        watched.events.try_recv().expect("told by then");
    }
}

#[tokio::test]
async fn the_first_round_ends_at_its_deadline_with_the_rest_unknown() {
    let patient = with(http(hanging().await), |check| (check.every, check.timeout) = (PLENTY * 2, PLENTY));
    let good = http(answering(OK).await);
    let mut watched = Watched::new(&[patient.clone(), good]);
    assert_eq!(watched.event().await.verdict, Verdict::Up);
    assert_eq!(watched.prober.first_round(ms(100)).await, 1);
    assert_eq!(watched.prober.believed(&patient), Verdict::Unknown);
    watched.prober.retarget(&[]);
    assert_eq!(watched.prober.first_round(PLENTY).await, 0, "nobody waits for a target that went");
}

#[tokio::test]
async fn without_targets_the_first_round_is_over_at_once() {
    let (sender, _events) = mpsc::channel(1);
    let mut prober = Prober::new(sender);
    assert_eq!(prober.first_round(PLENTY).await, 0);
    prober.retarget(&[]);
    assert_eq!(prober.first_round(PLENTY).await, 0);
}

#[tokio::test]
async fn an_edited_check_starts_with_what_is_believed_of_the_address() {
    let origin = Origin::bind("127.0.0.32:0".parse().unwrap()).await.unwrap();
    let old = http(origin.address());
    let mut watched = Watched::up(old.clone()).await;
    let new = with(old.clone(), |check| check.fall = 2);
    assert_eq!(watched.prober.believed(&new), Verdict::Unknown, "up is to be earned by the new check");
    origin.kill().await;
    assert_eq!(watched.event().await.verdict, Verdict::Down);
    assert_eq!(watched.prober.believed(&new), Verdict::Down);
    watched.prober.retarget(std::slice::from_ref(&new));
    assert_eq!(watched.prober.believed(&new), Verdict::Down);
    let event = watched.event().await;
    assert_eq!((event.verdict, event.target.check.fall), (Verdict::Down, 2), "the first verdict is told");
    let other = http("127.0.0.99:1".parse().unwrap());
    assert_eq!(watched.prober.believed(&other), Verdict::Unknown);
}

#[tokio::test]
async fn a_full_channel_holds_up_no_probe_and_loses_no_last_verdict() {
    let origin = Origin::bind("127.0.0.33:0".parse().unwrap()).await.unwrap();
    let (sender, mut events) = mpsc::channel(1);
    let full = sender.clone();
    let mut prober = Prober::new(sender);
    prober.retarget(&[http(origin.address())]);
    assert_eq!(prober.first_round(PLENTY).await, 0);
    assert_eq!(full.capacity(), 0, "the first verdict fills the channel");
    let stats = prober.stats().targets()[0].clone();
    for verdict in [Verdict::Down, Verdict::Up, Verdict::Down] {
        match verdict {
            Verdict::Up => origin.revive().await.unwrap(),
            _ => origin.kill().await,
        }
        let enough = Instant::now() + PLENTY;
        while stats.verdict() != verdict {
            assert!(Instant::now() < enough, "probing goes on: {stats:?}");
            sleep(ms(5)).await;
        }
    }
    let told: Vec<_> = [events.recv().await, events.recv().await].map(|event| event.unwrap().verdict).into();
    assert_eq!(told, [Verdict::Up, Verdict::Down]);
    assert!(timeout(ms(250), events.recv()).await.is_err(), "verdicts in between were overtaken");
}

#[tokio::test]
async fn tasks_end_when_nobody_listens() {
    let Watched { prober, events } = Watched::new(&[http(nobody().await)]);
    drop(events);
    let enough = Instant::now() + PLENTY;
    while !prober.tasks.values().all(|running| running._tasks.iter().all(|task| task.is_finished())) {
        assert!(Instant::now() < enough);
        sleep(ms(5)).await;
    }
}

#[tokio::test]
async fn a_thousand_targets_settle_in_the_first_round_over_a_connection_each() {
    let mut targets = vec![];
    for _ in 0..20 {
        // No more connections to one listener at one time than its backlog holds.
        let address = answering(OK).await;
        targets.extend((0..50).map(|n| with(http_check(address, |http| http.path = format!("/{n}")), relaxed)));
    }
    fn relaxed(check: &mut Check) {
        (check.every, check.timeout) = (ms(2_000), ms(1_900));
    }
    let (sender, _events) = mpsc::channel(2_000);
    let mut prober = Prober::new(sender);
    let start = Instant::now();
    prober.retarget(&targets);
    assert_eq!(prober.first_round(PLENTY).await, 0);
    println!("first round of 1,000 targets: {:?}", start.elapsed());
    let stats = prober.stats().targets();
    assert!(stats.iter().all(|stats| stats.verdict() == Verdict::Up));
    let enough = Instant::now() + PLENTY;
    while !stats.iter().all(|stats| stats.results(Kind::Success) >= 2) && Instant::now() < enough {
        sleep(ms(20)).await;
    }
    assert_eq!(stats.iter().map(|stats| stats.connects()).max(), Some(1));
}

/// Run in a process of its own with few file descriptors, and then with none left.
#[tokio::test]
async fn running_out_of_file_descriptors_takes_no_server_down() {
    const CHILD: &str = "MERIDIAN_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let name = "health::prober::tests::lifecycle::running_out_of_file_descriptors_takes_no_server_down";
        let test = std::env::current_exe().unwrap();
        let child = std::process::Command::new("sh")
            .args(["-c", r#"ulimit -n 64 && exec "$0" --exact "$1""#, test.to_str().unwrap(), name])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        return assert!(child.status.success() && said.contains("1 passed"), "{child:?}");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut watched = Watched::up(with(target(address, CheckKind::Tcp), |check| check.fall = 1)).await;
    let mut hoard = vec![];
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    watched.quiet_until(Kind::Local, 5).await;
    let stats = watched.stats();
    assert_eq!((stats.verdict(), stats.results(Kind::Hard)), (Verdict::Up, 0));
    let before = stats.results(Kind::Success);
    drop(hoard);
    watched.quiet_until(Kind::Success, before + 3).await;
    drop(listener);
    assert_eq!(watched.event().await.verdict, Verdict::Down, "and failures are seen again");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_started_again() {
    let stats = TargetStats::new(Arc::new(http("127.0.0.1:1".parse().unwrap())), Verdict::Unknown);
    let alarms = Alarms::default();
    let mut heard = alarms.listen();
    let mut runs = 0;
    supervise(&stats, &alarms, ms(500), || {
        runs += 1;
        let run = runs;
        async move { assert!(run > 2, "run {run} goes wrong") }
    })
    .await;
    assert_eq!((runs, stats.restarts()), (3, 2));
    for run in 1..=2 {
        let message = format!("run {run} goes wrong");
        assert_eq!(heard.try_recv(), Ok(Alarm::Restarted { target: stats.target.clone(), message }));
    }
}

#[tokio::test]
async fn a_missing_route_is_our_fault() {
    // A broadcast address cannot be connected to: connect(2) itself fails, and no packet is sent.
    let mut watched = Watched::new(&[target("255.255.255.255:80".parse().unwrap(), CheckKind::Tcp)]);
    watched.quiet_until(Kind::Local, 3).await;
    assert_eq!(watched.stats().verdict(), Verdict::Unknown);
}
