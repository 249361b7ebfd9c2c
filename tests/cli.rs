//! What the commands print, and their exit codes.

mod node;

use node::{Files, LONDON, ZONE};
use serde_json::Value;

/// Exit code, standard output and standard error.
fn run(files: &Files, arguments: &[&str]) -> (i32, String, String) {
    let output = files.command(arguments).env("NO_COLOR", "1").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Without the numbers that differ from run to run.
fn steady(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.parse::<u32>() {
        Ok(number) if number > 1_000_000_000 => "SERIAL".to_owned(),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn explain_tells_each_step_and_says_when_it_had_only_files() {
    let files = Files::new(ZONE);
    files.put("meridian.toml", "[admin]\nlisten = \"127.0.0.1:1\"\n");
    let (code, out, err) = run(&files, &["explain", "live.stream.example", "--client", LONDON]);
    assert_eq!((code, err.as_str()), (0, ""));
    insta::assert_snapshot!(steady(&out), @r"
    no running server was asked: verdicts unknown, all taken as up
    live.stream.example. A for 81.2.69.0/24
      zone      stream.example. serial SERIAL from zones/stream.example.toml
      location  51.51, -0.13  GB  Europe
                location, country: world.mmdb (bundled)
                continent: continent of GB
      stream    live: nearest by the stream's own settings
      cell      1; the answer is for 81.0.0.0/14

           region  cost ms    km  state  why
       ->  eu            8     0  up     the nearest that is up
           us          126  5917  up     118 ms more

      eu  192.0.2.21       unprobed  <- given

    ;; status: NOERROR, flags: qr aa
    ; CLIENT-SUBNET: 81.2.69.0/24/14
    ;; QUESTION SECTION:
    ;live.stream.example. IN A

    ;; ANSWER SECTION:
    live.stream.example. 20 IN A 192.0.2.21
    ");
}

#[test]
fn explain_asks_the_running_server_first() {
    let files = Files::new(ZONE);
    let node = files.serve();
    let url = format!("http://{}", node.admin);
    let (code, out, _) = run(&files, &["explain", "live.stream.example", "AAAA", "--client", LONDON, "--server", &url]);
    assert_eq!(code, 0);
    assert!(out.starts_with("live.stream.example. AAAA for 81.2.69.0/24\n"), "{out}");
    let (code, out, _) =
        run(&files, &["explain", "live.stream.example", "--client", LONDON, "--server", &url, "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert_eq!(json["basis"], "server");
    assert_eq!(json["steering"]["chosen"], "eu");
    assert_eq!(json["answer"]["answer"][0], "live.stream.example. 20 IN A 192.0.2.21");
    let path = format!("/v1/explain?name=live.stream.example&client={LONDON}");
    let (status, body) = node.http("GET", &path);
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &told["steering"]), (200, &json["steering"]));
    for path in ["/v1/explain", "/v1/explain?name=a&client=b", "/v1/explain?name=a..b&client=192.0.2.1"] {
        let (status, body) = node.http("GET", path);
        assert!(status == 400 && body.starts_with(r#"{"error":""#), "{path}: {status} {body}");
    }
}

#[test]
fn explain_takes_the_files_that_are_named_though_a_server_answers() {
    let files = Files::new(ZONE);
    let node = files.serve();
    files.put("meridian.toml", format!("[admin]\nlisten = \"{}\"\n", node.admin));
    std::fs::create_dir(files.path("next")).unwrap();
    files.put("next/stream.example.toml", ZONE.replace("192.0.2.21", "192.0.2.77"));
    let explain = |more: &[&str]| {
        let arguments = [&["explain", "live.stream.example", "--client", LONDON, "--json"], more].concat();
        let json: Value = serde_json::from_str(&run(&files, &arguments).1).unwrap();
        (json["basis"].clone(), json["answer"]["answer"][0].clone())
    };
    let answer = |address: &str| Value::from(format!("live.stream.example. 20 IN A {address}"));
    assert_eq!(explain(&[]), ("server".into(), answer("192.0.2.21")));
    assert_eq!(explain(&["--zones", "next"]), ("files".into(), answer("192.0.2.77")));
    let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/geoip/world.mmdb");
    assert_eq!(explain(&["--geoip", bundled]).0, "files");
    let both = ["explain", "a", "--client", LONDON, "--zones", "next", "--server", "http://127.0.0.1:1"];
    assert_eq!(run(&files, &both).0, 2, "one or the other");
}

#[test]
fn explain_with_words_that_make_no_question_is_wrong_usage() {
    let files = Files::new(ZONE);
    for arguments in [
        &["explain", "live.stream.example"][..],
        &["explain", "live.stream.example", "--client", "London"],
        &["explain", "live.stream.example", "ADDRESS", "--client", LONDON],
        &["explain", "a..b", "--client", LONDON],
    ] {
        assert_eq!(run(&files, arguments).0, 2, "{arguments:?}");
    }
    let named = ["explain", "live.stream.example", "--client", LONDON, "--server", "http://127.0.0.1:1"];
    let (code, out, err) = run(&files, &named);
    assert_eq!((code, out.as_str()), (1, ""), "a server that was named must answer");
    assert_eq!(err, "meridian: http://127.0.0.1:1: nobody listens there\n");
}

#[test]
fn check_exits_1_on_an_error_and_0_without() {
    let files = Files::new(ZONE);
    assert_eq!(run(&files, &["check"]), (0, "1 zone, 0 errors, 0 warnings\n".into(), String::new()));
    files.put("zones/stream.example.toml", ZONE.replace("London", "Nowhereville"));
    let (code, out, _) = run(&files, &["check"]);
    assert!(code == 1 && out.starts_with("zones/stream.example.toml:10:8: "), "{out}");
}

#[test]
fn delegation_prints_what_the_parent_needs() {
    let files = Files::new(ZONE);
    let (code, out, _) = run(&files, &["delegation", "stream.example"]);
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "; to put in the parent zone of stream.example.\n\
             stream.example. 86400 IN NS ns1.example.net.\n\
             stream.example. 86400 IN NS ns2.example.net.\n"
        )
    );
    assert_eq!(run(&files, &["delegation", "other.example"]).0, 1);
    assert_eq!(run(&files, &["delegation", "a..b"]).0, 2);
}

#[test]
fn geoip_inspect_tells_who_said_what() {
    let files = Files::new(ZONE);
    let (code, out, _) = run(&files, &["geoip", "inspect", "81.2.69.142", "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["country"]["value"]), (0, &Value::from("GB")));
    let missing = ["geoip", "inspect", "81.2.69.142", "--geoip", "none.mmdb"];
    let (code, out, err) = run(&files, &missing);
    assert!(code == 1 && out.is_empty() && err.starts_with("none.mmdb:1:1: "), "{err}");
}

#[test]
fn usage_and_attribution_are_told() {
    let files = Files::new(ZONE);
    assert_eq!(run(&files, &["frobnicate"]).0, 2);
    assert_eq!(run(&files, &["serve", "--listen", "localhost"]).0, 2);
    let (code, out, _) = run(&files, &["--version"]);
    assert!(code == 0 && out.contains("DB-IP") && out.contains("GeoNames") && out.contains("CC BY 4.0"), "{out}");
    let (code, out, _) = run(&files, &["completions", "bash"]);
    assert!(code == 0 && out.contains("complete -F _meridian"), "{out}");
}

#[test]
fn the_bundled_zone_has_no_fault_and_needs_no_server_to_be_up() {
    let zone = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/zones/stream.example.toml")).unwrap();
    let files = Files::new(&zone);
    assert_eq!(run(&files, &["check"]), (0, "1 zone, 0 errors, 0 warnings\n".into(), String::new()));
    let node = files.serve();
    assert_eq!(node.dig("www.stream.example", LONDON), "198.51.100.11 198.51.100.12 live.stream.example.");
}
