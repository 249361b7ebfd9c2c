//! Playlists that move, stand, lead elsewhere, and such as no origin should give.

use std::sync::atomic::AtomicUsize;

use super::hostile::{down_at_bounded_cost, flooding};
use super::tls::{Ca, HOST};
use super::*;
use crate::config::settings::Transport;

/// Of the playlists here; the edge may stand for twice that.
const TARGET: Duration = ms(200);
const HEAD: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:0.2\n";
const STEP: Duration = ms(100);

fn hls(address: SocketAddr) -> Target {
    hls_over(address, Transport::Plain)
}

fn hls_over(address: SocketAddr, transport: Transport) -> Target {
    let http = HttpCheck { path: "/live/index.m3u8".into(), host: HOST.into(), status: vec![200], contains: None };
    target(address, CheckKind::Hls { http, transport, stale: 2 })
}

/// A response with this playlist.
fn ok(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

const GONE: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

/// A server that answers each path so; on each connection so many times.
async fn pages<F>(times: usize, answer: F) -> SocketAddr
where
    F: Fn(&str) -> String + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    server(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            for _ in 0..times {
                let Some(head) = request(&mut stream).await else { return };
                let path = head.split(' ').nth(1).unwrap();
                if stream.write_all(answer(path).as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// What an encoder has made: something every [`STEP`], until it is frozen.
#[derive(Clone)]
struct Encoder(Arc<Mutex<(Instant, Option<u64>)>>);

impl Encoder {
    fn new() -> Encoder {
        Encoder(Arc::new(Mutex::new((Instant::now(), None))))
    }

    fn made(&self) -> u64 {
        let state = self.0.lock().unwrap();
        state.1.unwrap_or_else(|| (state.0.elapsed().as_millis() / STEP.as_millis()) as u64)
    }

    fn freeze(&self) -> Instant {
        let made = self.made();
        self.0.lock().unwrap().1 = Some(made);
        Instant::now()
    }

    fn go_on(&self) {
        self.0.lock().unwrap().1 = None;
    }

    /// A playlist with this many segments behind it.
    fn playlist(&self) -> String {
        ok(&format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:{}\n#EXTINF:0.2,\na.ts\n#EXTINF:0.2,\nb.ts\n", self.made()))
    }

    /// One segment, and parts of the next.
    fn parts(&self) -> String {
        let parts = "#EXT-X-PART:DURATION=0.1,URI=\"part\"\n".repeat(self.made() as usize);
        ok(&format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:0.2,\na.mp4\n{parts}"))
    }
}

async fn goes_down_and_comes_back(encoder: &Encoder, address: SocketAddr) {
    let mut watched = Watched::up(hls(address)).await;
    watched.quiet(TARGET * 6).await;
    let frozen = encoder.freeze();
    let event = watched.event().await;
    let took = event.at.duration_since(frozen);
    println!("frozen to verdict: {took:?}: {}", event.cause);
    assert_eq!(event.verdict, Verdict::Down);
    assert!(event.cause.starts_with("live edge stands at "), "{}", event.cause);
    // Since the last movement was seen, which may have been up to `every` before or after it froze.
    assert!(took >= TARGET * 2 - STEP - ms(100), "{took:?}");
    assert!(took <= TARGET * 2 + ms(2 * 100) + ms(600), "with room for a busy machine: {took:?}");
    encoder.go_on();
    let event = watched.event().await;
    assert_eq!((event.verdict, &*event.cause), (Verdict::Up, "2 answers in a row"));
}

#[tokio::test]
async fn a_frozen_playlist_is_down_and_up_again_when_it_moves() {
    let encoder = Encoder::new();
    let origin = encoder.clone();
    goes_down_and_comes_back(&encoder, pages(usize::MAX, move |_| origin.playlist()).await).await;
}

#[tokio::test]
async fn parts_move_the_edge_while_no_segment_ends() {
    let encoder = Encoder::new();
    let origin = encoder.clone();
    goes_down_and_comes_back(&encoder, pages(usize::MAX, move |_| origin.parts()).await).await;
}

#[tokio::test]
async fn an_edge_is_remembered_over_connections() {
    let encoder = Encoder::new();
    let origin = encoder.clone();
    goes_down_and_comes_back(&encoder, pages(1, move |_| origin.playlist()).await).await;
}

#[tokio::test]
async fn a_frozen_variant_of_a_multivariant_playlist_is_down_even_under_ever_new_names() {
    let encoder = Encoder::new();
    let (origin, sessions) = (encoder.clone(), AtomicUsize::new(0));
    let address = pages(usize::MAX, move |path| match path {
        "/live/index.m3u8" => {
            let session = sessions.fetch_add(1, Ordering::Relaxed);
            ok(&format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nchunklist_w{session}.m3u8\n"))
        }
        _ => origin.playlist(),
    })
    .await;
    goes_down_and_comes_back(&encoder, address).await;
}

#[tokio::test]
async fn a_multivariant_playlist_is_asked_for_once_and_its_first_variant_then() {
    let (sender, mut asked) = mpsc::channel(64);
    let encoder = Encoder::new();
    let address = pages(usize::MAX, move |path| {
        let _ = sender.try_send(path.to_owned());
        match path {
            "/live/index.m3u8" => ok("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=2\nv0/media.m3u8?s=1\n\
                 #EXT-X-STREAM-INF:BANDWIDTH=1\nv1/media.m3u8\n"),
            "/live/v0/media.m3u8?s=1" => encoder.playlist(),
            _ => GONE.into(),
        }
    })
    .await;
    let mut watched = Watched::up(hls(address)).await;
    watched.quiet_until(Kind::Success, 5).await;
    assert_eq!(watched.stats().connects(), 1, "all over one connection");
    assert_eq!(asked.recv().await.as_deref(), Some("/live/index.m3u8"));
    for _ in 0..5 {
        assert_eq!(asked.recv().await.as_deref(), Some("/live/v0/media.m3u8?s=1"));
    }
}

#[tokio::test]
async fn a_variant_that_went_leads_back_to_the_multivariant_playlist_without_a_failure() {
    let encoder = Encoder::new();
    let generation = Arc::new(AtomicUsize::new(0));
    let now = generation.clone();
    let address = pages(usize::MAX, move |path| {
        let media = format!("/v{}.m3u8", now.load(Ordering::Relaxed));
        match path {
            "/live/index.m3u8" => ok(&format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttps://{HOST}{media}\n")),
            path if path == media => encoder.playlist(),
            _ => GONE.into(),
        }
    })
    .await;
    let mut watched = Watched::up(with(hls(address), |check| check.fall = 1)).await;
    for successes in [4, 8] {
        watched.quiet_until(Kind::Success, successes).await;
        generation.fetch_add(1, Ordering::Relaxed);
    }
    watched.quiet_until(Kind::Success, 12).await;
    let stats = watched.stats();
    assert_eq!((stats.results(Kind::Stale), stats.results(Kind::Hard)), (2, 0), "{stats:?}");
}

#[tokio::test]
async fn a_server_that_closes_between_multivariant_playlist_and_variant_is_no_failure() {
    let saying = |text: String| text.replace("Content", "Connection: close\r\nContent");
    for said in [false, true] {
        let encoder = Encoder::new();
        let address = pages(1, move |path| {
            let answer = match path {
                "/live/index.m3u8" => ok("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nmedia.m3u8\n"),
                _ => encoder.playlist(),
            };
            if said { saying(answer) } else { answer }
        })
        .await;
        let mut watched = Watched::up(with(hls(address), |check| check.fall = 1)).await;
        watched.quiet_until(Kind::Success, 5).await;
    }
}

#[tokio::test]
async fn a_playlist_is_asked_for_as_it_is_and_by_the_name_of_the_host() {
    let (sender, mut heads) = mpsc::channel(1);
    let address = server(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            while let Some(head) = request(&mut stream).await {
                let _ = sender.try_send(head);
                let _ = stream.write_all(Encoder::new().playlist().as_bytes()).await;
            }
        }
    })
    .await;
    let _watched = Watched::up(hls(address)).await;
    let head = heads.recv().await.unwrap().to_lowercase();
    assert!(head.starts_with("get /live/index.m3u8 http/1.1\r\nhost: live.stream.example\r\n"), "{head}");
    assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
}

#[tokio::test]
async fn what_no_player_could_follow_is_down_and_says_why() {
    let media = |rest: &str| ok(&format!("{HEAD}{rest}"));
    let variant = |uri: &str| ok(&format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{uri}\n"));
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /other.m3u8\r\nContent-Length: 0\r\n\r\n";
    let encoded = |name: &str| media("a.ts\n").replacen("\r\n", &format!("\r\nContent-Encoding: {name}\r\n"), 1);
    for (answer, cause) in [
        (ok("<html>all is well</html>"), "not a playlist: it does not begin with #EXTM3U"),
        (ok(""), "not a playlist: it does not begin with #EXTM3U"),
        (media("#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n"), "the playlist has ended (EXT-X-ENDLIST)"),
        (media(""), "the playlist has no segments"),
        (ok("#EXTM3U\n#EXTINF:1,\na.ts\n"), "malformed playlist: EXT-X-TARGETDURATION is missing"),
        (media("#EXT-X-MEDIA-SEQUENCE:x\na.ts\n"), "malformed playlist: \"#EXT-X-MEDIA-SEQUENCE:x\""),
        (variant("index.m3u8"), "the variant is a multivariant playlist, too"),
        (variant("https://cdn.example/a.m3u8"), "the variant is on another server, cdn.example"),
        (variant("{$base}a.m3u8"), "the variant's URI has a variable (EXT-X-DEFINE), which is not supported"),
        (encoded("gzip"), "body is compressed (gzip), which was not asked for"),
        (encoded("\x1bbr"), "the answer is not HTTP"),
        (redirect.into(), "status 302"),
        (GONE.into(), "status 404"),
        ("HTTP/1.1 206 Partial Content\r\nContent-Length: 0\r\n\r\n".into(), "status 206"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n#EXTM3U\n".into(), "no answer in 80ms"),
    ] {
        let text = answer.clone();
        let address = pages(usize::MAX, move |_| text.clone()).await;
        assert_eq!(first_verdict(hls(address)).await, down(cause), "{answer}");
    }
}

#[tokio::test]
async fn a_variant_on_this_server_is_taken_though_the_first_is_elsewhere() {
    let address = pages(usize::MAX, |path| match path {
        "/live/index.m3u8" => ok("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=2\nhttps://cdn.example/a.m3u8\n\
             #EXT-X-STREAM-INF:BANDWIDTH=1\n/b.m3u8\n"),
        "/b.m3u8" => Encoder::new().playlist(),
        _ => GONE.into(),
    })
    .await;
    let _watched = Watched::up(hls(address)).await;
}

#[tokio::test]
async fn playlists_and_lines_without_end_are_down_at_bounded_cost() {
    for (piece, cause) in [
        ("#EXTINF:4,\nsegment.ts\n", "no whole answer in 512 KiB"),
        ("#EXT-X-STREAM-INF:BANDWIDTH=1\nvariant.m3u8\n", "no whole answer in 512 KiB"),
        ("\n\n\n\n", "no whole answer in 512 KiB"),
        ("segment", "malformed playlist: a line of more than 16 KiB"),
    ] {
        let head = if piece.contains("STREAM-INF") { "#EXTM3U\n" } else { HEAD };
        let address = flooding(move |mut stream| {
            Box::pin(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{head}").as_bytes()).await;
                let many = piece.repeat(16 * 1024 / piece.len());
                while stream.write_all(many.as_bytes()).await.is_ok() {}
            })
        });
        assert_eq!(down_at_bounded_cost(hls(address)).await, cause);
    }
}

#[tokio::test]
async fn a_playlist_over_tls_is_held_to_its_certificate() {
    let ca = Ca::new();
    let acceptor = ca.sign(HOST, |_| {});
    let encoder = Encoder::new();
    let address = server(move |stream, _| {
        let (acceptor, encoder) = (acceptor.clone(), encoder.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            while request(&mut stream).await.is_some() {
                let _ = stream.write_all(encoder.playlist().as_bytes()).await;
            }
        }
    })
    .await;
    let slow =
        |ca| with(hls_over(address, Transport::Tls(ca)), |check| (check.every, check.timeout) = (ms(500), ms(400)));
    let mut watched = Watched::up(slow(Some(ca.settings.clone()))).await;
    watched.quiet_until(Kind::Success, 3).await;
    assert_eq!(watched.stats().connects(), 1);
    assert_eq!(first_verdict(slow(None)).await, down("TLS: certificate of an unknown issuer"));
}
