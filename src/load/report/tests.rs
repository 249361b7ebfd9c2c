use proptest::prelude::*;

use super::exposition::{Selector, Wanted};
use super::*;

fn header(text: &str) -> Result<Figures, Fault> {
    Report::from_header(text.as_bytes()).map(|report| *report.figures())
}

fn body(kind: Option<&str>, text: &str) -> Result<Figures, Fault> {
    Report::from_body(kind, text.as_bytes()).map(|report| *report.figures())
}

fn why(outcome: Result<Figures, Fault>) -> Why {
    outcome.expect_err("a fault").why
}

const NONE: Figures =
    Figures { sessions: None, utilization: None, capacity: None, bits_per_s: None, starts_per_s: None };

#[test]
fn orca_reads_the_same_from_json_and_text_and_from_a_body() {
    let expected = Figures { sessions: Some(812.0), utilization: Some(0.81), capacity: Some(1000.0), ..NONE };
    let json =
        r#"{"application_utilization":0.81,"cpu_utilization":0.3,"named_metrics":{"sessions":812,"capacity":1e3}}"#;
    let camel =
        r#"{"cpuUtilization":0.3,"applicationUtilization":"0.81","namedMetrics":{"sessions":"812","capacity":1000}}"#;
    let text =
        "application_utilization=0.81,cpu_utilization=0.3,named_metrics.sessions=812,named_metrics.capacity=1000";
    for said in [header(&format!("JSON {json}")), header(&format!("JSON {camel}")), header(&format!("TEXT {text}"))] {
        assert_eq!(said, Ok(expected));
    }
    for said in
        [body(None, json), body(None, text), body(None, &text.replace(',', "\n")), body(None, &format!("TEXT {text}"))]
    {
        assert_eq!(said, Ok(expected));
    }
}

#[test]
fn the_application_knows_better_than_its_resources_and_these_better_than_the_cpu() {
    let full = |text| header(text).unwrap().utilization;
    assert_eq!(
        full("TEXT cpu_utilization=0.2,utilization.disk=0.5,utilization.net=0.7,application_utilization=0.4"),
        Some(0.4)
    );
    assert_eq!(full("TEXT cpu_utilization=0.2,utilization.disk=0.5,utilization.net=0.7"), Some(0.7));
    assert_eq!(full("TEXT cpu_utilization=0.2,application_utilization=0"), Some(0.2), "ORCA cannot tell 0 from absent");
    assert_eq!(full("TEXT cpu_utilization=0.2,mem_utilization=0.9"), Some(0.2), "caches fill any memory");
}

#[test]
fn requests_count_as_starts_only_where_sessions_would_last_a_minute() {
    let starts = |text| header(text).unwrap().starts_per_s;
    assert_eq!(starts("TEXT rps_fractional=10,named_metrics.sessions=6000"), Some(10.0));
    assert_eq!(starts("TEXT rps_fractional=2000,named_metrics.sessions=6000"), None, "segments");
    assert_eq!(starts("TEXT rps_fractional=2000,named_metrics.sessions=6000,named_metrics.starts_per_s=5"), Some(5.0));
}

#[test]
fn plain_json_has_our_own_names() {
    let said = body(
        Some("application/json"),
        r#"{"sessions": 3, "bits_per_s": 15000000, "starts_per_s": 0.5, "ready": true}"#,
    );
    let expected = Figures { sessions: Some(3.0), bits_per_s: Some(1.5e7), starts_per_s: Some(0.5), ..NONE };
    assert_eq!(said, Ok(expected));
}

#[test]
fn health_json_tells_by_its_checks_and_their_units() {
    let health = |checks: &str| {
        body(
            Some("application/health+json; charset=utf-8"),
            &format!("{{\"status\":\"warn\",\"checks\":{{{checks}}}}}"),
        )
    };
    let said = health(
        r#""sessions:current":[{"observedValue":400,"observedUnit":"sessions"},{"observedValue":412}],
           "sessions:utilization":{"observedValue":81.2,"observedUnit":"percent"},
           "cpu:utilization":[{"observedValue":0.2},{"observedValue":0.95,"observedUnit":"fraction"}]"#,
    );
    let said = said.unwrap();
    assert_eq!(said.sessions, Some(812.0));
    assert!((said.utilization.unwrap() - 0.812).abs() < 1e-9, "sessions before cpu");
    let cpu = health(
        r#""cpu:utilization":[{"observedValue":20,"observedUnit":"percent"},{"observedValue":95,"observedUnit":"%"}]"#,
    );
    assert_eq!(cpu.unwrap().utilization, Some(0.95), "the node that is fullest");
    assert_eq!(why(health(r#""cpu:utilization":[{"observedValue":81}]"#)), Why::Unit, "81 of what?");
    assert_eq!(why(health(r#""sessions:current":[{"observedValue":81,"observedUnit":"ms"}]"#)), Why::Unit);
    assert_eq!(why(health(r#""db:responseTime":[{"observedValue":81,"observedUnit":"ms"}]"#)), Why::Nothing);
}

#[test]
fn health_json_that_says_fail_under_a_good_status_is_no_report() {
    let with =
        |status: &str| body(None, &format!("{{{status}\"checks\":{{\"sessions:current\":{{\"observedValue\":1}}}}}}"));
    for status in ["\"status\":\"fail\",", "\"status\":\"down\",", "\"status\":\"purple\",", "\"status\":7,", ""] {
        assert_eq!(why(with(status)), Why::Unreadable, "{status}");
    }
    for status in ["\"status\":\"pass\",", "\"status\":\"UP\",", "\"status\":\"ok\",", "\"status\":\"warn\","] {
        assert_eq!(with(status).unwrap().sessions, Some(1.0), "{status}");
    }
}

#[test]
fn load_objects_read_the_same_from_xml_and_json() {
    let expected = Figures { sessions: Some(50.0), capacity: Some(120.0), ..NONE };
    let xml = "<?xml version=\"1.0\"?>\n<a:load-object xmlns:a=\"urn:x\" timestamp=\"2026-01-01T00:00:00Z\"><!-- now -->\
               <a:current-load> 50 </a:current-load><target-load>100</target-load><max-load><![CDATA[120]]></max-load></a:load-object>";
    assert_eq!(body(Some("text/xml"), xml), Ok(expected));
    assert_eq!(body(None, r#"{"domain":"x","current-load":50,"target-load":100,"max-load":"120"}"#), Ok(expected));
    let without = "<l><current-load>50</current-load><target-load>100</target-load></l>";
    assert_eq!(body(None, without).unwrap().capacity, Some(100.0));
}

#[test]
fn xml_that_is_more_than_numbers_is_refused() {
    let bomb = "<!DOCTYPE l [<!ENTITY a \"1\"><!ENTITY b \"&a;&a;\">]><l><current-load>&b;</current-load></l>";
    let cases = [
        (bomb, Why::Unreadable),
        ("<l><current-load>&#49;</current-load></l>", Why::Unreadable),
        ("<l><current-load>1</current-load><current-load>2</current-load></l>", Why::Unreadable),
        ("<l><current-load><b>1</b></current-load></l>", Why::Unreadable),
        ("<l><current-load>1</current-load>", Why::Unreadable),
        ("<l><current-load>1</max-load></l>", Why::Unreadable),
        ("<l><current-load/></l>", Why::Figure),
        ("<l><current-load>many</current-load></l>", Why::Figure),
        ("<l><current-load>NaN</current-load></l>", Why::Figure),
        ("<l><max-load>1</max-load></l>", Why::Nothing),
    ];
    for (text, expected) in cases {
        assert_eq!(why(body(None, text)), expected, "{text}");
    }
    assert_eq!(why(body(None, &"<a>".repeat(20_000))), Why::Unreadable, "nested");
}

fn wanted(sessions: &str) -> Wanted {
    Wanted { sessions: Some(Selector::parse(sessions).unwrap()), ..Wanted::default() }
}

const EXPOSITION: &str = "# HELP viewers Viewers now\n# TYPE viewers gauge\n\
    viewers{app=\"live\",proto=\"hls\"} 700 1700000000000\n viewers { app = \"live\" , proto=\"a\\\"}b\", } 112.0\n\
    viewers{app=\"vod\"} 5\nviewers_max 9\ngo_gc{q=\"broken 1\ncpu 0.2\n";

#[test]
fn samples_of_a_metric_are_summed_where_their_labels_match() {
    let sessions = |metric| wanted(metric).read(EXPOSITION.as_bytes()).unwrap().sessions();
    assert_eq!(sessions("viewers"), Some(817.0));
    assert_eq!(sessions("viewers{app=\"live\"}"), Some(812.0));
    assert_eq!(sessions("viewers{proto=\"a\\\"}b\"}"), Some(112.0));
    let fullest = Wanted { utilization: Some(Selector::parse("u").unwrap()), ..Wanted::default() };
    assert_eq!(fullest.read(b"u{c=\"0\"} 0.2\nu{c=\"1\"} 0.9").unwrap().utilization(), Some(0.9));
}

#[test]
fn a_metric_that_is_not_there_or_not_true_is_told() {
    let fault = |metric, text: &str| wanted(metric).read(text.as_bytes()).unwrap_err();
    assert_eq!(fault("viewers{app=\"x\"}", EXPOSITION).what, "no sample of viewers{app=\\\"x\\\"}");
    for text in ["viewers NaN", "viewers +Inf", "viewers -1", "viewers 1e308\nviewers 1e308", "viewers 1e300"] {
        assert_eq!(fault("viewers", text).why, Why::Figure, "{text}");
    }
    for text in ["viewers", "viewers{a=\"b\" 1", "viewers{a=b} 1"] {
        assert_eq!(fault("viewers", text).why, Why::Unreadable, "{text}");
    }
    for bad in ["", "1x", "a b", "a{b}", "a{b=\"c\"", "a{b=\"c\"} 1", "a{b=\"\0\"}"] {
        assert!(Selector::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn lies_are_refused_in_every_form() {
    for lie in ["NaN", "-1", "1e308", "inf", "-inf", "1e999"] {
        for said in [
            header(&format!("TEXT named_metrics.sessions={lie}")),
            header(&format!("JSON {{\"named_metrics\":{{\"sessions\":\"{lie}\"}}}}")),
            header(&format!("TEXT cpu_utilization={lie}")),
            body(None, &format!("<l><current-load>{lie}</current-load></l>")),
            body(
                None,
                &format!("{{\"status\":\"pass\",\"checks\":{{\"sessions:current\":{{\"observedValue\":\"{lie}\"}}}}}}"),
            ),
        ] {
            assert_eq!(why(said), Why::Figure, "{lie}");
        }
    }
    assert_eq!(
        why(header("TEXT named_metrics.sessions=1,named_metrics.capacity=0")),
        Why::Figure,
        "no capacity at all"
    );
    assert_eq!(why(header("TEXT cpu_utilization=81")), Why::Figure, "percent");
}

#[test]
fn what_is_no_report_says_so() {
    for (text, expected) in [
        ("BIN AAAA", Why::Unreadable),
        ("JSON {", Why::Unreadable),
        ("TEXT a", Why::Unreadable),
        ("TEXT a=1,a=2", Why::Unreadable),
        ("TEXT a=x", Why::Figure),
        ("hello", Why::Unreadable),
        ("TEXT other=1", Why::Nothing),
        ("TEXT", Why::Nothing),
    ] {
        assert_eq!(why(header(text)), expected, "{text}");
    }
    assert_eq!(why(body(Some("text/html"), "<!doctype html><p>ok")), Why::Unreadable);
    assert_eq!(why(body(None, "ok")), Why::Unreadable);
    assert_eq!(why(body(None, "")), Why::Nothing);
    assert_eq!(why(body(None, &" ".repeat(MAX_BYTES + 1))), Why::TooLong);
    assert_eq!(why(body(None, &format!("{{\"a\":{}", "[".repeat(60_000)))), Why::Unreadable);
}

fn is_sound(figures: &Figures) -> bool {
    let Figures { sessions, utilization, capacity, bits_per_s, starts_per_s } = *figures;
    let good = |value: Option<f64>, most: f64| value.is_none_or(|value| (0.0..=most).contains(&value));
    good(sessions, MAX_SESSIONS)
        && good(utilization, MAX_UTILIZATION)
        && capacity.is_none_or(|capacity| (MIN_CAPACITY..=MAX_SESSIONS).contains(&capacity))
        && good(bits_per_s, MAX_BITS_PER_S)
        && good(starts_per_s, MAX_SESSIONS)
        && *figures != NONE
}

/// Text that is often nearly a report.
fn nearly() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "\"",
        ":",
        ",",
        "=",
        "<l>",
        "</l>",
        "<current-load>",
        "</current-load>",
        "<max-load>",
        "</max-load>",
        "sessions",
        "\"sessions\":",
        "\"checks\":{",
        "\"status\":\"pass\",",
        "\"cpu:utilization\":[",
        "{\"observedValue\":",
        "]",
        "utilization.a=",
        "cpu_utilization=",
        "named_metrics.sessions=",
        "named_metrics.capacity=",
        "1",
        "0",
        "-1",
        "1e308",
        "NaN",
        "0.5",
        "TEXT ",
        "JSON ",
        "&amp;",
        "<![CDATA[",
        "]]>",
        "\n",
        " ",
        "viewers ",
        "viewers{a=\"b\"} ",
        "\\",
    ]);
    prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_give_sound_figures_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..400), health in any::<bool>()) {
        let kind = health.then_some("application/health+json");
        for report in [Report::from_header(&bytes), Report::from_body(kind, &bytes), wanted("viewers").read(&bytes)].into_iter().flatten() {
            prop_assert!(is_sound(report.figures()), "{report:?}");
        }
    }

    #[test]
    fn anything_like_a_report_gives_sound_figures_or_a_fault(text in nearly(), health in any::<bool>()) {
        let kind = health.then_some("application/health+json");
        let bytes = text.as_bytes();
        for report in [Report::from_header(bytes), Report::from_body(kind, bytes), wanted("viewers{a=\"b\"}").read(bytes)] {
            match report {
                Ok(report) => prop_assert!(is_sound(report.figures()), "{report:?}"),
                Err(fault) => prop_assert!(fault.what.len() < 600 && !fault.what.contains('\n'), "{fault}"),
            }
        }
    }

    #[test]
    fn a_selector_is_read_again_from_what_it_shows(text in "[a-z_]{1,5}(\\{[a-z]{1,3}=\".{0,6}\"\\})?") {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }
    }
}
