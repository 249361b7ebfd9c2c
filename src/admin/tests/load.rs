//! Reports sent to the admin address, and where they are seen.

use super::*;

/// As `curl --data-binary` sends lines.
async fn post(rig: &Rig, body: &str) -> (u16, Value) {
    let head = format!("POST /v1/load HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n", rig.address);
    let answer =
        rig.raw(format!("{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn reports_are_taken_one_by_one_and_seen_in_status_and_metrics() {
    let rig = open().await;
    let lines = "{\"region\":\"eu\",\"sessions\":300,\"capacity\":400}\n\
                 {\"region\":\"mars\",\"sessions\":1}\n\n\
                 {\"region\":\"us\",\"server\":\"192.0.2.11\",\"sessions\":1}\n\
                 {\"region\":\"us\",\"zone\":\"stream.example\",\"sessions\":-1}\n\
                 {\"region\":\"us\",\"sessions\":1,\"capacity\":0}\n\
                 {\"region\":\"us\",\"sessions\":1e308}\n\
                 {\"server\":\"192.0.2.99\",\"sessions\":1}\n";
    let (status, body) = post(&rig, lines).await;
    assert_eq!((status, &body["taken"]), (200, &json!(1)), "{body}");
    let refused: Vec<(u64, &str)> = body["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refused| (refused["line"].as_u64().unwrap(), refused["what"].as_str().unwrap()))
        .collect();
    assert_eq!(
        refused,
        [
            (2, "no zone has a region \"mars\""),
            (4, "192.0.2.11 is no server of region \"us\""),
            (5, "sessions is negative"),
            (6, "capacity is 0, less than one session"),
            (7, "sessions is 1e308, more than 2147483648"),
            (8, "no server has the address 192.0.2.99"),
        ]
    );
    let (_, status) = rig.ask(Method::GET, "/v1/status", None).await;
    let regions = &status["zones"][0]["regions"];
    let eu = &regions[0]["load"];
    assert_eq!(
        (&eu["sessions"], &eu["capacity"], &eu["utilization"]),
        (&json!(300.0), &json!(400.0), &json!(0.75)),
        "{eu}"
    );
    assert_eq!((&eu["trust"], &regions[1]["load"]), (&json!("fresh"), &Value::Null));
    let (_, metrics) = rig.ask(Method::GET, "/metrics", None).await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        "meridian_region_load_sessions{zone=\"stream.example\",region=\"eu\"} 300.0",
        "meridian_region_load_utilization{zone=\"stream.example\",region=\"eu\"} 0.75",
        "meridian_load_reports_total{outcome=\"believed\"} 1",
        "meridian_load_reports_total{outcome=\"figure\"} 3",
        "meridian_load_reports_total{outcome=\"unknown\"} 3",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert!(metrics.contains("meridian_load_report_age_seconds{zone=\"stream.example\",region=\"eu\"}"));
    assert!(!metrics.contains("region_load_sessions{zone=\"stream.example\",region=\"us\"}"), "not idle: unknown");
}

#[tokio::test]
async fn a_body_without_a_report_that_can_be_taken_is_refused() {
    let rig = open().await;
    for (body, wanted) in [("", 400), ("{\"region\":\"eu\"}", 422), ("nonsense", 422), (&"x\n".repeat(3000), 413)] {
        assert_eq!(post(&rig, body).await.0, wanted, "{:.20}", body);
    }
    assert_eq!(post(&rig, &" ".repeat(300 * 1024)).await.0, 413);
}

#[tokio::test]
async fn a_refusal_tells_what_is_taken_here_and_how_to_write_it() {
    let rig = open().await;
    for (body, what, rule) in [
        ("{\"region\":\"eu\",\"session\":1}", "unknown field `session`", "{\"region\": \"eu\", \"sessions\": 812}"),
        ("{\"region\":\"eu\",\"sessions\":\"1\"}", "invalid type: string", "{\"region\": \"eu\", \"sessions\": 812}"),
        ("[\"eu\", null, null, 5]", "no JSON object", "{\"region\": \"eu\", \"sessions\": 812}"),
        (
            "{\"region\":\"eu\",\"utilization\":81}",
            "utilization is 81, more than 10, where 1 is full: write 0.81 for 81 %",
            "believable",
        ),
        ("{\"sessions\":1}", "neither `region` nor `server`", "\"region\": \"eu\""),
        ("{\"region\":\"eu\"}", "no figure of load", "\"sessions\": 812"),
    ] {
        let (status, answer) = post(&rig, body).await;
        let refused = &answer["refused"][0];
        let has = |key: &str, part| refused[key].as_str().is_some_and(|text| text.contains(part));
        assert!(status == 422 && has("what", what) && has("rule", rule), "{body}: {answer}");
        assert!(!has("rule", "ORCA"), "{body}: {answer}");
    }
    for empty in ["", "\n", "[]", " [ ]\n"] {
        let (status, answer) = post(&rig, empty).await;
        let error = answer["error"].as_str().unwrap();
        assert!(status == 400 && error.starts_with("the body is empty; send a JSON object"), "{empty:?}: {answer}");
    }
}
