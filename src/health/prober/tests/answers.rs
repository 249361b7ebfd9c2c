//! What each kind of answer makes of the verdict.

use super::*;

async fn verdict_of(answer: &'static [u8]) -> (Verdict, String) {
    first_verdict(http(answering(answer).await)).await
}

async fn verdict_with(answer: &'static [u8], change: impl FnOnce(&mut HttpCheck)) -> (Verdict, String) {
    first_verdict(http_check(answering(answer).await, change)).await
}

/// A server that answers each request by this function, and then closes.
async fn once<F, Fut>(answer: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    server(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            if request(&mut stream).await.is_some() {
                answer(stream).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_server_that_answers_is_up() {
    let (verdict, cause) = verdict_of(OK).await;
    assert_eq!(verdict, Verdict::Up);
    assert!(cause.starts_with("answered in "), "{cause}");
}

#[tokio::test]
async fn the_request_names_host_and_path_as_configured() {
    let (sender, mut heads) = mpsc::channel(1);
    let address = server(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            while let Some(head) = request(&mut stream).await {
                let _ = sender.try_send(head);
                let _ = stream.write_all(OK).await;
            }
        }
    })
    .await;
    let check = http_check(address, |http| http.path = "/health?deep=1".into());
    let _watched = Watched::up(check).await;
    let head = heads.recv().await.unwrap();
    let agent = concat!("meridian/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        head.to_lowercase(),
        format!(
            "get /health?deep=1 http/1.1\r\nhost: live.stream.example\r\nuser-agent: {agent}\r\naccept: */*\r\n\r\n"
        )
    );
}

#[tokio::test]
async fn any_2xx_or_3xx_is_good_unless_the_check_says_otherwise() {
    let good: [&[u8]; 3] = [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    ];
    for answer in good {
        assert_eq!(verdict_of(answer).await.0, Verdict::Up, "{}", answer.escape_ascii());
    }
    assert_eq!(verdict_of(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await, down("status 404"));
    assert_eq!(verdict_of(b"HTTP/1.1 503 Sad\r\nContent-Length: 0\r\n\r\n").await, down("status 503"));
    assert_eq!(verdict_with(good[1], |http| http.status = vec![200, 206]).await, down("status 204"));
    assert_eq!(verdict_with(good[1], |http| http.status = vec![200, 204]).await.0, Verdict::Up);
    let teapot = b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(verdict_with(teapot, |http| http.status = vec![418]).await.0, Verdict::Up);
}

#[tokio::test]
async fn the_body_must_contain_the_text() {
    assert_eq!(verdict_with(OK, |http| http.contains = Some("ok".into())).await.0, Verdict::Up);
    assert_eq!(verdict_with(OK, |http| http.contains = Some("OK".into())).await, down(r#"body lacks "OK""#));
    assert_eq!(verdict_with(OK, |http| http.contains = Some("oki".into())).await, down(r#"body lacks "oki""#));
    let empty = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(verdict_with(empty, |http| http.contains = Some("ok".into())).await, down(r#"body lacks "ok""#));
    let long = "x".repeat(100);
    let (_, cause) = verdict_with(OK, |http| http.contains = Some(long)).await;
    assert_eq!(cause, format!("body lacks {:?}…", "x".repeat(40)));
}

#[tokio::test]
async fn the_text_is_found_across_chunks() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nal\r\n1\r\nl\r\n4\r\n is \r\n4\r\nwell\r\n0\r\n\r\n";
    assert_eq!(verdict_with(chunked, |http| http.contains = Some("all is well".into())).await.0, Verdict::Up);
}

#[tokio::test]
async fn only_the_first_64_kib_of_a_body_are_searched() {
    for (before, expected) in [(65_534, Verdict::Up), (65_535, Verdict::Down)] {
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n".to_vec();
        answer.extend(std::iter::repeat_n(b'.', before));
        answer.extend(b"ok");
        answer.extend(std::iter::repeat_n(b'.', 70_000 - before - 2));
        let (verdict, cause) = verdict_with(answer.leak(), |http| http.contains = Some("ok".into())).await;
        assert_eq!(verdict, expected, "{before} bytes before: {cause}");
    }
}

#[tokio::test]
async fn an_endless_body_is_not_read_to_its_end() {
    async fn endless(mut stream: TcpStream) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'.'; 8192]).await.is_ok() {}
    }
    let address = once(endless).await;
    let mut watched = Watched::up(http(address)).await;
    watched.quiet_until(Kind::Success, 5).await;
    let check = http_check(address, |http| http.contains = Some("ok".into()));
    assert_eq!(first_verdict(check).await, down(r#"body lacks "ok""#));
}

#[tokio::test]
async fn endless_headers_are_cut_short() {
    async fn many(mut stream: TcpStream) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"X-More: and more\r\n").await.is_ok() {}
    }
    async fn long(mut stream: TcpStream) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Long: ").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    }
    assert_eq!(first_verdict(http(once(many).await)).await, down("headers too long"));
    assert_eq!(first_verdict(http(once(long).await)).await, down("headers too long"));
}

#[tokio::test]
async fn endless_interim_responses_end_with_the_time_out() {
    async fn interim(mut stream: TcpStream) {
        while stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await.is_ok() {
            sleep(ms(1)).await;
        }
    }
    assert_eq!(first_verdict(http(once(interim).await)).await, down("no answer in 80ms"));
}

#[tokio::test]
async fn an_answer_that_trickles_is_no_answer() {
    async fn trickle(mut stream: TcpStream) {
        for byte in OK {
            let _ = stream.write_all(&[*byte]).await;
            sleep(ms(20)).await;
        }
    }
    assert_eq!(first_verdict(http(once(trickle).await)).await, down("no answer in 80ms"));
}

#[tokio::test]
async fn a_body_that_trickles_matters_only_if_it_is_looked_at() {
    async fn trickle(mut stream: TcpStream) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await;
        while stream.write_all(b".").await.is_ok() {
            sleep(ms(5)).await;
        }
    }
    let address = once(trickle).await;
    let mut watched = Watched::up(http(address)).await;
    watched.quiet_until(Kind::Success, 4).await;
    let stats = watched.stats();
    assert_eq!(stats.results(Kind::Silence), 0, "no probe waits for the rest of the last answer: {stats:?}");
    let check = http_check(address, |http| http.contains = Some("ok".into()));
    assert_eq!(first_verdict(check).await, down("no answer in 80ms"));
}

#[tokio::test]
async fn garbage_is_not_http() {
    let garbage: [&[u8]; 5] = [
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\0\x01\x02\x03\xff\xfe\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    ];
    for answer in garbage {
        assert_eq!(verdict_of(answer).await, down("the answer is not HTTP"), "{}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_is_a_failure() {
    let cut: [&'static [u8]; 3] = [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nall"];
    for part in cut {
        let address = once(move |mut stream: TcpStream| async move {
            let _ = stream.write_all(part).await;
        })
        .await;
        let check = http_check(address, |http| http.contains = Some("ok".into()));
        assert_eq!(first_verdict(check).await, down("closed without a whole answer"), "{}", part.escape_ascii());
    }
}

#[tokio::test]
async fn a_connection_closed_or_reset_at_once_is_a_failure() {
    let closing = server(|stream, _| async move { drop(stream) }).await;
    let (verdict, cause) = first_verdict(http(closing)).await;
    assert_eq!(verdict, Verdict::Down);
    assert!(["closed without a whole answer", "reset"].contains(&cause.as_str()), "{cause}");
    let resetting = server(|stream, _| async move {
        let _ = stream.set_zero_linger();
    })
    .await;
    assert_eq!(first_verdict(http(resetting)).await, down("reset"));
}

#[tokio::test]
async fn a_tcp_check_is_content_with_a_connection() {
    let address = server(|stream, _| async move { drop(stream) }).await;
    let mut watched = Watched::up(target(address, CheckKind::Tcp)).await;
    watched.quiet_until(Kind::Success, 5).await;
}

#[tokio::test]
async fn a_path_that_http_cannot_express_is_our_fault_and_counts_as_up() {
    let check = http_check(answering(OK).await, |http| http.path = "/a b".into());
    let watched = Watched::new(&[check]);
    assert_eq!(watched.prober.first_round(PLENTY).await, 0);
    let stats = watched.stats();
    assert_eq!((stats.verdict(), stats.results(Kind::Local)), (Verdict::Unknown, 1));
    assert!(stats.last_cause().unwrap().contains("/a b"), "{stats:?}");
}
