use axum::body::Body;
use axum::http::request::Builder;
use proptest::prelude::*;

use super::*;
use crate::config::admin::Token;

const LOOPBACK: &str = "127.0.0.1:8053";

fn token(name: &str, role: Role) -> Token {
    let sum = digest::digest(&digest::SHA256, format!("mrd_{name}").as_bytes());
    Token { name: name.into(), role, sha256: sum.as_ref().try_into().unwrap() }
}

fn gate(tokens: &[(&str, Role)]) -> Gate {
    let tokens = tokens.iter().map(|(name, role)| token(name, *role)).collect();
    Gate::new(Access { tls: None, tokens }, LOOPBACK.parse().unwrap())
}

fn alice_and_rita() -> Gate {
    gate(&[("rita", Role::Read), ("alice", Role::Operate)])
}

/// `METHOD PATH` with headers, a line each.
fn request(line: &str, headers: &[&str]) -> Request {
    let (method, path) = line.split_once(' ').unwrap();
    let add = |request: Builder, header: &&str| {
        let (name, value) = header.split_once(": ").unwrap();
        request.header(name, value)
    };
    headers.iter().fold(Request::builder().method(method).uri(path), add).body(Body::empty()).unwrap()
}

/// The author, or the status and label of the refusal.
fn judged(gate: &Gate, line: &str, headers: &[&str]) -> Result<String, (u16, &'static str)> {
    let request = request(line, headers);
    match gate.judge(request.method(), request.uri(), request.headers()) {
        Ok(Author(name)) => Ok(name.to_string()),
        Err((status, why, _)) => Err((status.as_u16(), why.label())),
    }
}

const POST: [&str; 2] = ["host: 127.0.0.1:8053", "content-type: application/json"];

fn post_with(gate: &Gate, more: &[&str]) -> Result<String, (u16, &'static str)> {
    judged(gate, "POST /v1/orders", &[&POST, more].concat())
}

#[test]
fn without_tokens_whoever_reaches_the_address_is_local() {
    let open = gate(&[]);
    assert_eq!(judged(&open, "GET /v1/status", &[]), Ok("local".into()));
    assert_eq!(post_with(&open, &[]), Ok("local".into()));
}

#[test]
fn with_tokens_only_health_and_readiness_stay_open() {
    let gate = alice_and_rita();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(judged(&gate, &format!("GET {path}"), &[]), Ok("local".into()), "{path}");
        assert_eq!(judged(&gate, &format!("POST {path}"), &POST), Err((401, "no_token")), "{path}");
    }
    for path in ["/metrics", "/v1/status", "/v1/explain", "/nowhere", "/healthz/", "//healthz", "/"] {
        assert_eq!(judged(&gate, &format!("GET {path}"), &[]), Err((401, "no_token")), "{path}");
    }
}

#[test]
fn reading_needs_a_token_and_changing_one_that_may_operate() {
    let gate = alice_and_rita();
    let (alice, rita) = ("authorization: Bearer mrd_alice", "authorization: bearer  mrd_rita ");
    assert_eq!(judged(&gate, "GET /v1/status", &[rita]), Ok("rita".into()));
    assert_eq!(judged(&gate, "GET /v1/status", &[alice]), Ok("alice".into()));
    assert_eq!(post_with(&gate, &[alice]), Ok("alice".into()));
    assert_eq!(post_with(&gate, &[rita]), Err((403, "role")));
    assert_eq!(judged(&gate, "DELETE /v1/orders/1", &["host: localhost", rita]), Err((403, "role")));
    assert_eq!(judged(&gate, "BREW /coffee", &["host: localhost", rita]), Err((403, "role")));
}

#[test]
fn a_wrong_token_is_told_from_none_and_no_form_of_it_panics() {
    let gate = alice_and_rita();
    let long = format!("authorization: Bearer {}", "a".repeat(4096));
    for wrong in [
        "authorization: Bearer mrd_mallory",
        "authorization: Bearer mrd_alic",
        "authorization: Bearer mrd_alice2",
        "authorization: Bearer ",
        "authorization: Bearer",
        "authorization: Basic bXJkX2FsaWNlOg==",
        "authorization: mrd_alice",
        &long,
    ] {
        assert_eq!(judged(&gate, "GET /v1/status", &[wrong]), Err((401, "wrong_token")), "{wrong}");
    }
    let two = ["authorization: Bearer mrd_alice", "authorization: Bearer mrd_rita"];
    assert_eq!(judged(&gate, "GET /v1/status", &two), Err((401, "wrong_token")));
}

#[test]
fn a_page_of_a_browser_can_change_nothing() {
    let open = gate(&[]);
    for origin in ["https://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8053", "%", ""] {
        assert_eq!(post_with(&open, &[&format!("origin: {origin}")]), Err((403, "foreign")), "{origin}");
    }
    assert_eq!(post_with(&open, &["origin: http://127.0.0.1:8053"]), Ok("local".into()), "our own page");
    // What a form or a script without leave can send.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"] {
        let headers = [POST[0], &format!("content-type: {kind}")];
        assert_eq!(judged(&open, "POST /v1/orders", &headers), Err((415, "foreign")), "{kind}");
    }
    assert_eq!(judged(&open, "POST /v1/orders", &[POST[0]]), Err((415, "foreign")));
    let charset = [POST[0], "content-type: Application/JSON; charset=utf-8"];
    assert_eq!(judged(&open, "POST /v1/orders", &charset), Ok("local".into()));
}

#[test]
fn a_name_that_was_led_to_us_is_not_ours() {
    let open = gate(&[]);
    let with = |host: &str| judged(&open, "POST /v1/orders", &[&format!("host: {host}"), POST[1]]);
    for ours in ["127.0.0.1:8053", "[::1]:8053", "localhost", "LocalHost:9000", "192.0.2.1"] {
        assert_eq!(with(ours), Ok("local".into()), "{ours}");
    }
    for foreign in ["evil.example", "127.0.0.1.evil.example:8053", "localhost.evil.example", "", "a b", "[::1"] {
        assert_eq!(with(foreign), Err((403, "foreign")), "{foreign}");
    }
    assert_eq!(judged(&open, "POST /v1/orders", &[POST[1]]), Err((403, "foreign")), "no Host");
    let two = ["host: localhost", "host: evil.example", POST[1]];
    assert_eq!(judged(&open, "POST /v1/orders", &two), Err((403, "foreign")));
    // The target's authority counts, not the header.
    assert_eq!(judged(&open, "POST http://evil.example/v1/orders", &POST), Err((403, "foreign")));
    assert_eq!(judged(&open, "DELETE /v1/orders/1", &["host: evil.example"]), Err((403, "foreign")));
    // Reading is not changing.
    assert_eq!(judged(&open, "GET /v1/status", &["host: evil.example"]), Ok("local".into()));
}

#[test]
fn routes_that_are_not_of_the_api_need_no_json() {
    assert_eq!(judged(&gate(&[]), "POST /demo/kill/london", &["host: 127.0.0.1:8053"]), Ok("local".into()));
    let evil = ["host: 127.0.0.1:8053", "origin: https://evil.example"];
    assert_eq!(judged(&gate(&[]), "POST /demo/kill/london", &evil), Err((403, "foreign")));
}

/// A certificate for `name`, written to files.
pub(in crate::admin) fn certificate(name: &str, dir: &std::path::Path) -> Tls {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    Tls::read(cert, key).unwrap()
}

#[test]
fn a_name_of_the_certificate_is_ours() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Some(Arc::new(certificate("dns1.example.net", dir.path())));
    let gate = Gate::new(Access { tls, tokens: vec![] }, LOOPBACK.parse().unwrap());
    for (host, wanted) in [
        ("dns1.example.net:8053", Ok("local".into())),
        ("DNS1.example.net.", Ok("local".into())),
        ("dns2.example.net", Err((403, "foreign"))),
        ("example.net", Err((403, "foreign"))),
    ] {
        assert_eq!(judged(&gate, "POST /v1/orders", &[&format!("host: {host}"), POST[1]]), wanted, "{host}");
    }
}

#[test]
fn refusals_are_counted_and_told_once_a_second_with_their_number() {
    let (gate, began) = (gate(&[]), Instant::now());
    let later = |ms| began + Duration::from_millis(ms);
    assert_eq!(gate.note(Refused::NoToken, later(0)), Some(1));
    assert_eq!(gate.note(Refused::NoToken, later(10)), None);
    assert_eq!(gate.note(Refused::Role, later(999)), None);
    assert_eq!(gate.note(Refused::NoToken, later(1000)), Some(3));
    assert_eq!(gate.note(Refused::NoToken, later(900)), None, "a thread that comes late");
    assert_eq!((gate.refused(Refused::NoToken), gate.refused(Refused::Role)), (4, 1));
}

#[test]
fn a_reload_changes_tokens_and_certificate() {
    let gate = alice_and_rita();
    gate.replace(&Access { tls: None, tokens: vec![token("bob", Role::Read)] });
    assert_eq!(judged(&gate, "GET /metrics", &["authorization: Bearer mrd_bob"]), Ok("bob".into()));
    assert_eq!(judged(&gate, "GET /metrics", &["authorization: Bearer mrd_alice"]), Err((401, "wrong_token")));
    gate.replace(&Access::default());
    assert_eq!(judged(&gate, "GET /metrics", &[]), Ok("local".into()), "a loopback address may be opened");

    let dir = tempfile::tempdir().unwrap();
    let access = || Access {
        tls: Some(Arc::new(certificate("dns1.example.net", dir.path()))),
        tokens: vec![token("alice", Role::Operate)],
    };
    let gate = Gate::new(access(), "192.0.2.1:8053".parse().unwrap());
    let before = gate.certificate.load_full().unwrap();
    gate.replace(&access());
    assert_ne!(gate.certificate.load_full().unwrap().cert, before.cert);
}

#[test]
fn a_reload_opens_no_public_address_and_ends_no_tls() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Some(Arc::new(certificate("dns1.example.net", dir.path())));
    let access = Access { tls: tls.clone(), tokens: vec![token("alice", Role::Operate)] };
    let gate = Gate::new(access.clone(), "0.0.0.0:8053".parse().unwrap());
    for lesser in [
        Access::default(),
        Access { tls, tokens: vec![] },
        Access { tls: None, tokens: vec![token("mallory", Role::Operate)] },
    ] {
        gate.replace(&lesser);
        assert_eq!(**gate.access.load(), access);
    }
    assert!(gate.acceptor().is_some());
}

proptest! {
    #[test]
    fn no_header_lets_in_who_has_no_token(
        method in "GET|POST|DELETE|PUT|X",
        path in "/[a-z0-9/.%-]{0,20}",
        name in "authorization|host|origin|content-type|cookie",
        value in "(Bearer )?[ -~]{0,40}",
    ) {
        prop_assume!(!OPEN.contains(&&*path) && !value.contains("mrd_"));
        let Ok(request) = Request::builder().method(&*method).uri(&path).header(name, value).body(Body::empty()) else {
            return Ok(());
        };
        let judged = alice_and_rita().judge(request.method(), request.uri(), request.headers());
        prop_assert_eq!(judged.map_err(|(status, ..)| status), Err(StatusCode::UNAUTHORIZED));
    }
}
