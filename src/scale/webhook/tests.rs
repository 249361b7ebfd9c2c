//! Against a real server on loopback that takes what it is sent only after a while.

use std::collections::VecDeque;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::settings::PrivateCa;
use crate::pilot::scale::Scale;
use crate::scale::watch::Watch;
use crate::scale::watch::tests::region;

const MS: Duration = Duration::from_millis(1);
const EFFORT: Effort =
    Effort { patience: Duration::from_secs(5), pause: MS, longest_pause: Duration::from_millis(8), attempts: 4 };

/// What came, and what is answered in turn; 204 when nothing is left to say.
#[derive(Default)]
struct Told {
    bodies: Mutex<Vec<(HeaderMap, Value)>>,
    answers: Mutex<VecDeque<u16>>,
}

struct Rig {
    told: Arc<Told>,
    queue: Arc<Queue>,
    board: Arc<Board>,
    journal: Journal,
    stop: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn take(State(told): State<Arc<Told>>, headers: HeaderMap, body: String) -> StatusCode {
    told.bodies.lock().unwrap().push((headers, serde_json::from_str(&body).unwrap()));
    let answer = told.answers.lock().unwrap().pop_front().unwrap_or(204);
    StatusCode::from_u16(answer).unwrap()
}

fn news(size: (f64, u32), name: &str) -> BTreeMap<String, super::Told> {
    let mut watch = Watch::new(&webhook("http://127.0.0.1/".to_owned()));
    watch.look(&Scale { regions: vec![region(name, Ok(size))] }, Instant::now())
}

fn webhook(url: String) -> Webhook {
    let url = url.parse().unwrap();
    Webhook { url, above: 0.85, below: 0.60, every: Duration::from_secs(60), token: None, ca: None }
}

/// `own`: a certificate to serve TLS with.
async fn rig(
    answers: &[u16],
    own: Option<&rcgen::CertifiedKey<rcgen::KeyPair>>,
    change: impl FnOnce(&mut Webhook),
) -> Rig {
    let told = Arc::new(Told { answers: Mutex::new(answers.iter().copied().collect()), ..Told::default() });
    let router = Router::new().route("/hook", post(take)).with_state(Arc::clone(&told));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stop = CancellationToken::new();
    let scheme = if own.is_some() { "https" } else { "http" };
    let mut webhook = webhook(format!("{scheme}://localhost:{}/hook?x=1", listener.local_addr().unwrap().port()));
    change(&mut webhook);
    let acceptor = own.map(|own| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let chain = vec![own.cert.der().clone()];
        TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()))
    });
    tokio::spawn(crate::admin::listen::serve(listener, acceptor, router, stop.clone()));
    let (queue, board, journal) = (Arc::new(Queue::default()), Arc::new(Board::default()), Journal::in_memory());
    let hook = Hook::with(EFFORT, webhook, Arc::clone(&queue), Arc::clone(&board), journal.clone());
    tokio::spawn(hook.run(stop.clone()));
    Rig { told, queue, board, journal, stop }
}

impl Rig {
    /// Waits until so many requests came to an end.
    async fn ended(&self, delivered: u64, failed: u64) {
        let tally = &self.board.tally;
        for _ in 0..2000 {
            if (tally.delivered.load(Relaxed), tally.failed.load(Relaxed)) == (delivered, failed) {
                return;
            }
            sleep(5 * MS).await;
        }
        panic!("{tally:?}");
    }

    fn bodies(&self) -> Vec<(HeaderMap, Value)> {
        self.told.bodies.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn what_is_told_is_the_form_of_the_api_and_why() {
    let rig = rig(&[], None, |_| {}).await;
    rig.queue.add(news((0.9, 12), "fra"));
    rig.ended(1, 0).await;
    let (headers, body) = rig.bodies().remove(0);
    assert_eq!((&headers["content-type"], headers.get("authorization")), (&"application/json".parse().unwrap(), None));
    assert!(body["at"].as_f64().unwrap() > 1.7e9);
    let expected = json!({
        "because": ["first", "above"], "desired_replicas": 12, "desired_in_15m": 12, "desired_after_loss": 14,
        "worst_loss": "ams", "utilization": 0.81, "planned_utilization": 0.9, "unconstrained_utilization": 1.12,
        "price_ms": 22.5, "sessions": 48211, "unconstrained_starts_per_s": 80.0, "admission_per_s": 66.0,
    });
    assert_eq!(body["regions"], json!({ "fra": expected }));
}

#[tokio::test]
async fn what_was_not_taken_is_told_again_and_the_newest_of_each_region() {
    let rig = rig(&[500, 302], None, |_| {}).await;
    rig.queue.add(news((0.9, 12), "fra"));
    rig.queue.add(news((0.5, 3), "ams"));
    rig.ended(1, 2).await;
    rig.queue.add(news((0.5, 9), "fra"));
    rig.ended(2, 2).await;
    let desired: Vec<(u64, bool)> = rig
        .bodies()
        .iter()
        .map(|(_, body)| {
            let regions = &body["regions"];
            (regions["fra"]["desired_replicas"].as_u64().unwrap(), regions["ams"].is_object())
        })
        .collect();
    assert_eq!(desired.last(), Some(&(9, false)), "what was taken is not told again: {desired:?}");
    assert!(desired[..3].iter().all(|(fra, _)| *fra == 12) && desired[2].1, "{desired:?}");
    assert!(rig.journal.since(0, 10).is_empty());
}

#[tokio::test]
async fn after_some_attempts_it_is_given_up_and_noted_and_the_next_news_are_told() {
    let rig = rig(&[503; 4], None, |_| {}).await;
    rig.queue.add(news((0.9, 12), "fra"));
    rig.ended(0, 4).await;
    for _ in 0..400 {
        if !rig.journal.since(0, 10).is_empty() {
            break;
        }
        sleep(5 * MS).await;
    }
    assert_eq!(rig.board.tally.given_up.load(Relaxed), 1);
    let noted = rig.journal.since(0, 10);
    let note = &noted[0].note;
    assert_eq!(note.kind, Kind::Alarm);
    assert!(note.cause.contains("was not told of fra: 4 attempts failed, the last by: status 503"), "{}", note.cause);
    assert!(!note.cause.contains("x=1"), "a query may hold a secret");
    rig.queue.add(news((0.9, 7), "ams"));
    rig.ended(1, 4).await;
    let (_, last) = rig.bodies().pop().unwrap();
    assert!(last["regions"]["ams"].is_object() && last["regions"]["fra"].is_null(), "{last}");
}

#[tokio::test]
async fn the_token_is_read_anew_for_each_request_and_a_file_that_is_gone_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let rig = rig(&[], None, |webhook| webhook.token = Some(file.clone())).await;
    for (number, token) in [(1, "first"), (2, "second")] {
        std::fs::write(&file, token).unwrap();
        rig.queue.add(news((0.9, 12), "fra"));
        rig.ended(number, 0).await;
        assert_eq!(rig.bodies().pop().unwrap().0["authorization"], format!("Bearer {token}"));
    }
    std::fs::remove_file(&file).unwrap();
    rig.queue.add(news((0.9, 12), "fra"));
    rig.ended(2, 4).await;
    assert_eq!(rig.bodies().len(), 2, "nothing is sent without it");
}

#[tokio::test]
async fn over_tls_the_certificate_is_verified() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca = PrivateCa { file: "ca.pem".into(), certificates: vec![own.cert.der().to_vec()] };
    let trusting = rig(&[], Some(&own), |webhook| webhook.ca = Some(Arc::new(ca))).await;
    trusting.queue.add(news((0.9, 12), "fra"));
    trusting.ended(1, 0).await;
    let wary = rig(&[], Some(&own), |_| {}).await;
    wary.queue.add(news((0.9, 12), "fra"));
    wary.ended(0, 4).await;
    assert!(wary.bodies().is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_there_or_never_answers_holds_up_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (queue, board) = (Arc::new(Queue::default()), Arc::new(Board::default()));
    let effort = Effort { patience: 50 * MS, attempts: 2, ..EFFORT };
    let url = format!("http://127.0.0.1:{}/", silent.local_addr().unwrap().port());
    let hook = Hook::with(effort, webhook(url), Arc::clone(&queue), Arc::clone(&board), Journal::in_memory());
    let stop = CancellationToken::new();
    let telling = tokio::spawn(hook.run(stop.clone()));
    queue.add(news((0.9, 12), "fra"));
    for _ in 0..2000 {
        if board.tally.given_up.load(Relaxed) == 1 {
            break;
        }
        sleep(5 * MS).await;
    }
    assert_eq!(board.tally.failed.load(Relaxed), 2);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), telling).await.expect("it ends").unwrap();
}

#[test]
fn reasons_are_kept_until_they_are_told_and_of_two_crossings_the_later() {
    let queue = Queue::default();
    let add = |because: &[Because]| {
        let mut news = news((0.9, 12), "fra");
        news.get_mut("fra").unwrap().because = because.to_vec();
        queue.add(news);
    };
    add(&[Because::First, Because::Above]);
    add(&[Because::Below, Because::Desired]);
    let batch = queue.all();
    assert_eq!(batch["fra"].1.because, [Because::First, Because::Below, Because::Desired]);
    add(&[Because::Above]);
    queue.done(&batch);
    assert_eq!(queue.all().len(), 1, "what came meanwhile stays");
}

#[test]
fn only_so_many_regions_wait() {
    let queue = Queue::default();
    let one = news((0.9, 12), "fra").remove("fra").unwrap();
    queue.add((0..MOST_WAITING + 5).map(|number| (number.to_string(), one.clone())).collect());
    assert_eq!(queue.all().len(), MOST_WAITING);
    let known = queue.all().into_keys().next().unwrap();
    queue.add([(known.clone(), super::Told { because: vec![Because::Below], ..one })].into());
    assert!(queue.all()[&known].1.because.contains(&Because::Below), "news of what waits is taken");
}

#[test]
fn pauses_grow_to_a_bound() {
    let pauses: Vec<u64> = (1..9).map(|failures| Effort::default().pause_after(failures).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(Effort::default().pause_after(u32::MAX), Duration::from_secs(60));
}
