//! Servers far away, whose agents pause or die: the receiver beside a prober that probes an origin that takes its time.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::settings::HttpCheck;
use crate::health::{Prober, Verdict};

/// Answers the first request of a connection after one time, the others after another.
async fn origin(first: Duration, then: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut request, mut delay) = ([0; 1024], first);
                // A request is small and comes in one piece.
                while let Ok(1..) = stream.read(&mut request).await {
                    sleep(std::mem::replace(&mut delay, then)).await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    address
}

/// Lets the agent of such an origin pause for 450 ms at several phases, then die, once `probes` probes were answered.
/// Gives the number of beats that were late and of connections made for it.
async fn pauses(first: Duration, then: Duration, probes: u64) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heartbeat.keys");
    std::fs::write(&path, old()).unwrap();
    let http = HttpCheck { path: "/".into(), host: "live.example".into(), status: vec![], contains: None };
    let mut target = target();
    target.address = origin(first, then).await;
    let check = Arc::make_mut(&mut target.check);
    (check.kind, check.every) = (CheckKind::Http(http), ms(100));
    let (sender, mut verdicts) = mpsc::channel(16);
    let mut prober = Prober::new(sender);
    prober.retarget(std::slice::from_ref(&target));
    let beats = Beats::default();
    beats.retarget(std::slice::from_ref(&target));
    let receiver = Receiver::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let node = receiver.local_addr().unwrap();
    let (sender, _events) = mpsc::channel(16);
    let (keys, stop) = (KeyFile::open(&path).unwrap(), CancellationToken::new());
    let task = receiver.serve(keys, beats.clone(), prober.doubter(), sender, stop.clone()).unwrap();
    assert_eq!(verdicts.recv().await.unwrap().verdict, Verdict::Up);
    let stats = Arc::clone(prober.stats_of(&target).unwrap());
    while stats.buckets().iter().sum::<u64>() < probes {
        sleep(ms(10)).await;
    }
    let (tally, connects) = (beats.of(SERVER.parse().unwrap()).unwrap(), stats.connects());
    let mut hand = Hand::new(node, 0).await;
    hand.begin().await;
    for phase in [0, 20, 40, 60, 80] {
        for _ in 0..5 {
            sleep(EVERY).await;
            hand.send().await;
        }
        sleep(ms(450 + phase)).await;
        hand.send().await;
    }
    while tally.lost() == 0 {
        sleep(ms(10)).await;
    }
    if let Ok(event) = verdicts.try_recv() {
        panic!("{event:?}");
    }
    stop.cancel();
    task.await.unwrap();
    (tally.late(), stats.connects() - connects)
}

#[tokio::test]
async fn a_server_whose_new_connections_take_long_stays_up_when_its_agent_pauses_or_dies() {
    // A round trip of 50 ms. So many probes that the one over a new connection is not among the 95 of 100.
    let (late, connects) = pauses(ms(160), ms(50), 25).await;
    assert!(late >= 6 && connects > 0, "doubts, settled by probes: {late} late, {connects} connections");
}

#[tokio::test]
async fn a_server_too_far_away_to_be_confirmed_in_time_is_not_doubted_at_all() {
    let (late, connects) = pauses(ms(160), ms(160), 1).await;
    assert!(late >= 6, "{late}");
    assert_eq!(connects, 0, "regular probes alone judge it");
}

#[test]
fn the_time_out_of_confirming_probes_follows_the_round_trip() {
    let own = ms(250);
    for (p95, timeout) in [
        (1, Some(100)),
        (25, Some(100)),
        (30, Some(120)),
        (37, Some(148)),
        (38, Some(250)),
        (62, Some(250)),
        (63, None),
    ] {
        assert_eq!(confirm_timeout(Some(ms(p95)), own), timeout.map(ms), "{p95} ms");
    }
    assert_eq!(confirm_timeout(None, own), Some(own), "nothing is known yet");
    assert_eq!(confirm_timeout(Some(ms(1000)), ms(4000)), Some(ms(4000)), "a program that takes its time has it");
    assert_eq!(confirm_timeout(Some(Duration::MAX), own), None);
}
