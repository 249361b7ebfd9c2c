//! Servers that fail while they are watched, and connections that end.

use super::*;
use crate::demo::origin::Origin;
use crate::health::doubts::Doubt;

async fn origin() -> Origin {
    Origin::bind("127.0.0.31:0".parse().unwrap()).await.unwrap()
}

/// Reads the request, answers, and goes on so `times` times; then drops the connection.
async fn answers(mut stream: TcpStream, times: usize) {
    for _ in 0..times {
        if request(&mut stream).await.is_none() || stream.write_all(OK).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_refused() {
    assert_eq!(first_verdict(http(nobody().await)).await, down("refused"));
    assert_eq!(first_verdict(target(nobody().await, CheckKind::Tcp)).await, down("refused"));
}

#[tokio::test]
async fn a_server_that_never_answers_is_down_by_silence() {
    let address = server(|stream, _| async move {
        sleep(PLENTY).await;
        drop(stream);
    })
    .await;
    assert_eq!(first_verdict(http(address)).await, down("no answer in 80ms"));
}

#[tokio::test]
async fn a_server_that_is_down_by_silence_is_left_no_waiting_connections() {
    let open = Arc::new(());
    let held = open.clone();
    let address = server(move |mut stream, _| {
        let held = held.clone();
        async move {
            while !matches!(stream.read(&mut [0; 4096]).await, Ok(0) | Err(_)) {}
            drop(held);
        }
    })
    .await;
    // The next probe after the verdict is far away.
    let check = with(http(address), |check| (check.every, check.timeout) = (PLENTY * 100, ms(80)));
    let mut watched = Watched::new(&[check]);
    assert_eq!(watched.event().await.verdict, Verdict::Down);
    assert_eq!(watched.stats().connects(), 5);
    let enough = Instant::now() + PLENTY;
    while Arc::strong_count(&open) > 2 {
        assert!(Instant::now() < enough, "{} connections still open", Arc::strong_count(&open) - 2);
        sleep(ms(5)).await;
    }
}

#[tokio::test]
async fn a_killed_server_is_noticed_by_its_closed_connection_not_by_the_next_probe() {
    let origin = origin().await;
    let slow = with(http(origin.address()), |check| (check.every, check.timeout) = (PLENTY * 10, PLENTY));
    let mut watched = Watched::up(slow).await;
    let killed = Instant::now();
    origin.kill().await;
    let event = watched.event().await;
    println!("killed to verdict: {:?}", event.at.duration_since(killed));
    assert_eq!((event.verdict, &*event.cause), (Verdict::Down, "refused"));
    assert_eq!(watched.stats().results(Kind::Hard), 3);
}

#[tokio::test]
async fn a_hung_server_is_down_by_silence_and_up_again_after_rise_answers() {
    let origin = origin().await;
    let mut watched = Watched::up(http(origin.address())).await;
    let hung = Instant::now();
    origin.hang().await.unwrap();
    let event = watched.event().await;
    println!("hung to verdict: {:?}, bound {:?}", event.at.duration_since(hung), ms(100 + 2 * 80 + 3 * 20));
    assert_eq!((event.verdict, &*event.cause), (Verdict::Down, "no answer in 80ms"));
    assert!(event.at.duration_since(hung) >= ms(160), "two time-outs at least");
    origin.revive().await.unwrap();
    let event = watched.event().await;
    assert_eq!((event.verdict, &*event.cause), (Verdict::Up, "2 answers in a row"));
}

#[tokio::test]
async fn a_server_may_fail_and_come_back_again_and_again() {
    let origin = origin().await;
    let mut watched = Watched::up(http(origin.address())).await;
    for _ in 0..2 {
        origin.fail().await.unwrap();
        let event = watched.event().await;
        assert_eq!((event.verdict, &*event.cause), (Verdict::Down, "status 503"));
        origin.revive().await.unwrap();
        assert_eq!(watched.event().await.verdict, Verdict::Up);
        origin.kill().await;
        assert_eq!(watched.event().await.verdict, Verdict::Down);
        origin.revive().await.unwrap();
        assert_eq!(watched.event().await.verdict, Verdict::Up);
    }
}

#[tokio::test]
async fn many_probes_go_over_one_connection() {
    let mut watched = Watched::up(http(answering(OK).await)).await;
    watched.quiet_until(Kind::Success, 10).await;
    assert_eq!(watched.stats().connects(), 1);
}

#[tokio::test]
async fn probes_may_be_50_ms_apart() {
    let address = answering(OK).await;
    let fast = with(http(address), |check| (check.every, check.timeout) = (ms(50), ms(40)));
    let start = Instant::now();
    let mut watched = Watched::up(fast).await;
    watched.quiet_until(Kind::Success, 20).await;
    let took = start.elapsed();
    println!("20 probes in {took:?}");
    assert!(took >= ms(50) * 18 * 9 / 10, "no faster than asked: {took:?}");
    assert_eq!(watched.stats().connects(), 1);
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_is_up_and_not_probed_in_a_loop() {
    let closing = server(|stream, _| answers(stream, 1)).await;
    let announcing = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let old = answering(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let until_closed = server(|mut stream, _| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nok").await;
    })
    .await;
    for address in [closing, announcing, old, until_closed] {
        let start = Instant::now();
        let mut watched = Watched::up(with(http(address), |check| check.fall = 1)).await;
        watched.quiet_until(Kind::Success, 12).await;
        assert!(start.elapsed() >= ms(300), "12 probes, at most two every 100 ms, took {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_request_that_meets_a_closing_connection_is_no_failure() {
    // Takes the second request on each connection and closes without an answer, as a server does whose keep-alive
    // time-out ran out just then.
    let address = server(|mut stream, _| async move {
        if request(&mut stream).await.is_some() && stream.write_all(OK).await.is_ok() {
            request(&mut stream).await;
        }
    })
    .await;
    let mut watched = Watched::up(with(http(address), |check| check.fall = 1)).await;
    watched.quiet_until(Kind::Success, 6).await;
    let stats = watched.stats();
    assert!(stats.results(Kind::Stale) >= 4, "{stats:?}");
    assert_eq!(stats.results(Kind::Hard), 0);
}

#[tokio::test]
async fn data_that_nobody_asked_for_is_no_failure() {
    let address = server(|mut stream, _| async move {
        while request(&mut stream).await.is_some() {
            let _ = stream.write_all(OK).await;
            sleep(ms(5)).await;
            let _ = stream.write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let mut watched = Watched::up(with(http(address), |check| check.fall = 1)).await;
    watched.quiet_until(Kind::Success, 6).await;
}

#[tokio::test]
async fn one_lost_answer_is_no_failure_and_the_new_connection_is_kept() {
    // The first connection falls silent after its first answer; others work.
    let address = server(|mut stream, number| async move {
        if number > 0 {
            return answers(stream, usize::MAX).await;
        }
        request(&mut stream).await;
        let _ = stream.write_all(OK).await;
        sleep(PLENTY).await;
    })
    .await;
    let mut watched = Watched::up(http(address)).await;
    watched.quiet_until(Kind::Success, 8).await;
    let stats = watched.stats();
    assert_eq!((stats.results(Kind::Silence), stats.results(Kind::Hard)), (1, 0));
    assert_eq!(stats.connects(), 2);
}

#[tokio::test]
async fn an_answer_that_comes_while_silence_is_confirmed_clears_it() {
    // Slow on the first connection, silent on all others.
    let address = server(|mut stream, number| async move {
        while request(&mut stream).await.is_some() {
            sleep(if number == 0 { ms(120) } else { PLENTY }).await;
            let _ = stream.write_all(OK).await;
        }
    })
    .await;
    let mut watched = Watched::up(with(http(address), |check| check.every = ms(200))).await;
    watched.quiet_until(Kind::Success, 5).await;
    assert!(watched.stats().results(Kind::Silence) >= 4);
}

/// A server that the runtime of the prober cannot hold up.
fn on_its_own_threads() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(
                move || {
                    while matches!(stream.read(&mut [0; 4096]), Ok(1..)) && stream.write_all(OK).is_ok() {}
                },
            );
        }
    });
    address
}

/// The answer comes in time, but this machine looks up from other work long after the time-out.
#[tokio::test(flavor = "current_thread")]
async fn our_own_lateness_is_not_the_servers_silence() {
    let address = on_its_own_threads();
    let mut watched = Watched::up(with(http(address), |check| (check.every, check.timeout) = (ms(50), ms(20)))).await;
    while watched.stats().results(Kind::Success) < 12 {
        watched.quiet(ms(7)).await;
        std::thread::sleep(ms(60));
    }
    assert_eq!(watched.stats().results(Kind::Silence), 0);
}

#[tokio::test]
async fn a_doubted_server_is_probed_at_once_and_down_only_if_it_is_silent() {
    let origin = origin().await;
    let slow = with(http(origin.address()), |check| (check.every, check.timeout) = (PLENTY * 10, PLENTY));
    let mut watched = Watched::up(slow.clone()).await;
    let doubter = watched.prober.doubter();
    let doubt = Doubt { confirmations: 2, timeout: ms(100) };
    assert!(doubter.doubt(&slow, doubt));
    watched.quiet_until(Kind::Success, 2).await;
    origin.hang().await.unwrap();
    let hung = Instant::now();
    assert!(doubter.doubt(&slow, doubt));
    let event = watched.event().await;
    println!("doubt to verdict: {:?}", event.at.duration_since(hung));
    assert_eq!((event.verdict, &*event.cause), (Verdict::Down, "no answer in 100ms"));
    watched.prober.retarget(&[]);
    assert!(!doubter.doubt(&slow, doubt), "it is not probed any more");
}

#[test]
fn a_runtime_that_is_starved_for_seconds_takes_no_healthy_server_for_dead() {
    let address = on_its_own_threads();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Not on a worker of the runtime, which are all blocked at times.
    runtime.block_on(async {
        let mut watched = Watched::new(&[with(http(address), |check| (check.every, check.timeout) = (ms(50), ms(20)))]);
        assert_eq!(watched.event().await.verdict, Verdict::Up);
        for starved in [ms(300), ms(3_000)] {
            let before = watched.stats().results(Kind::Success);
            for _ in 0..6 {
                tokio::spawn(async move { std::thread::sleep(starved) });
            }
            std::thread::sleep(starved * 3);
            watched.quiet_until(Kind::Success, before + 5).await;
        }
        assert_eq!(watched.stats().results(Kind::Hard), 0);
    });
}
