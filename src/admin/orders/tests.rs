use proptest::prelude::*;

use super::*;

fn now() -> Timestamp {
    "2026-05-01T22:00:00Z".parse().unwrap()
}

fn draft(json: &str) -> Result<Draft, String> {
    let asked: Asked = serde_json::from_str(json).map_err(|error| error.to_string())?;
    asked.draft(&Author("alice".into()), now())
}

#[test]
fn a_drain_says_what_where_when_and_why() {
    let draft = draft(
        r#"{"action":"drain","subject":"eu-west","zone":"Stream.Example.","over":"5m","for":"2h",
            "at":"2026-05-02T01:00:00+02:00","reason":"kernel update","anyway":true}"#,
    );
    let wanted = Draft {
        subject: Subject::Region("eu-west".into()),
        zone: Some("stream.example".into()),
        action: Action::Drain { over: Duration::from_secs(300) },
        from: Some("2026-05-01T23:00:00Z".parse().unwrap()),
        lasting: Some(Duration::from_secs(7200)),
        reason: "kernel update".into(),
        author: "alice".into(),
        anyway: true,
    };
    assert_eq!(draft, Ok(wanted));
}

#[test]
fn what_is_left_out_has_defaults() {
    let short = draft(r#"{"action":"drain","subject":"eu","reason":"r"}"#).unwrap();
    assert_eq!(short.action, Action::Drain { over: OVER });
    assert_eq!((short.zone, short.from, short.lasting, short.anyway), (None, None, None, false));
    let forced = draft(r#"{"action":"force_down","subject":"2001:DB8::11","reason":"r","at":"+30m"}"#).unwrap();
    assert_eq!(forced.subject, Subject::Server("2001:db8::11".parse().unwrap()));
    assert_eq!((forced.action, forced.from), (Action::ForceDown, Some("2026-05-01T22:30:00Z".parse().unwrap())));
}

#[test]
fn what_makes_no_sense_is_refused_with_the_way_out() {
    for (json, wanted) in [
        (r#"{"action":"drain","subject":"eu"}"#, "missing field `reason`"),
        (r#"{"action":"drain","subject":"eu","reason":"  "}"#, "give a reason"),
        (r#"{"action":"drain","subject":"eu","reason":"a\nb"}"#, "one line"),
        (r#"{"action":"drain","subject":"eu","reason":"disk \u202epu"}"#, "format characters"),
        (r#"{"action":"drain","subject":"eu\u202e","reason":"r"}"#, "name of a region"),
        (r#"{"action":"drain","subject":"","reason":"r"}"#, "name of a region"),
        (r#"{"action":"drain","subject":"192.0.2.11","reason":"r"}"#, "drain its region"),
        (r#"{"action":"drain","subject":"eu","reason":"r","over":"soon"}"#, "durations are written"),
        (r#"{"action":"drain","subject":"eu","reason":"r","over":"2d"}"#, "more than 1d"),
        (r#"{"action":"drain","subject":"eu","reason":"r","over":"5m","for":"2m"}"#, "before it is done"),
        (r#"{"action":"drain","subject":"eu","reason":"r","over":"0s","for":"0s"}"#, "nothing to do"),
        (r#"{"action":"drain","subject":"eu","reason":"r","for":"367d"}"#, "more than 366d"),
        (r#"{"action":"drain","subject":"eu","reason":"r","at":"22:00"}"#, "RFC 3339"),
        (r#"{"action":"drain","subject":"eu","reason":"r","at":"2026-05-01T21:58:00Z"}"#, "past"),
        (r#"{"action":"drain","subject":"eu","reason":"r","at":"2028-05-01T00:00:00Z"}"#, "ahead"),
        (r#"{"action":"drain","subject":"eu","reason":"r","at":"+99999999999d"}"#, "more than 366d"),
        (r#"{"action":"drain","subject":"eu","reason":"r","zone":"a..b"}"#, "`zone`"),
        (r#"{"action":"force_up","subject":"eu","reason":"r","over":"5m"}"#, "of a drain"),
        (r#"{"action":"explode","subject":"eu","reason":"r"}"#, "unknown variant `explode`"),
        (r#"{"action":"drain","subject":"eu","reason":"r","overr":"5m"}"#, "unknown field `overr`"),
        (r#"{"action":"drain","subject":7,"reason":"r"}"#, "invalid type"),
        ("[]", "invalid length"),
        ("", "EOF"),
    ] {
        let error = draft(json).unwrap_err();
        assert!(error.contains(wanted), "{json}: {error}");
    }
    let long = format!(r#"{{"action":"drain","subject":"eu","reason":"{}"}}"#, "r".repeat(501));
    assert!(draft(&long).unwrap_err().contains("500 bytes"));
}

proptest! {
    #[test]
    fn any_words_are_a_draft_or_an_error(
        subject in "\\PC{0,40}", zone in prop::option::of("\\PC{0,40}"),
        over in prop::option::of("[0-9]{0,22}(ms|s|m|h|d|x)?"), lasting in prop::option::of("[0-9]{0,22}(s|d)?"),
        at in prop::option::of("\\+?[-0-9TZ:.+]{0,30}"), reason in "\\PC{0,20}", action in 0..3usize,
    ) {
        let action = [Word::Drain, Word::ForceUp, Word::ForceDown][action];
        let asked = Asked { action, subject, zone, over, lasting, at, reason, anyway: false };
        // As it goes over the wire.
        let again: Asked = serde_json::from_str(&serde_json::to_string(&asked).unwrap()).unwrap();
        prop_assert_eq!(&again, &asked);
        if let Ok(draft) = again.draft(&Author("a".into()), now()) {
            prop_assert!(!draft.reason.trim().is_empty());
            if let (Action::Drain { over }, Some(lasting)) = (draft.action, draft.lasting) {
                prop_assert!(over <= lasting);
            }
        }
    }

    #[test]
    fn any_bytes_are_a_draft_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = serde_json::from_slice::<Asked>(&bytes).map(|asked| asked.draft(&Author("a".into()), now()));
    }
}
