//! A load report of any bytes, in every form: no panic, and figures that make sense or a fault that is one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meridian::load::report::exposition::{Selector, Wanted};
use meridian::load::report::{MAX_BITS_PER_S, MAX_SESSIONS, MAX_UTILIZATION, MIN_CAPACITY, Report};

fuzz_target!(|bytes: &[u8]| {
    let metric = |text: &str| Some(Selector::parse(text).expect("a metric"));
    let wanted =
        Wanted { sessions: metric("s{a=\"b\"}"), utilization: metric("u"), ..Wanted::default() };
    let health = Some("application/health+json");
    let reports = [
        Report::from_header(bytes),
        Report::from_body(None, bytes),
        Report::from_body(health, bytes),
        wanted.read(bytes),
    ];
    for report in reports {
        match report {
            Err(fault) => assert!(!fault.what.is_empty() && !fault.what.contains('\n')),
            Ok(report) => {
                let figures = [
                    (report.sessions(), 0.0, MAX_SESSIONS),
                    (report.utilization(), 0.0, MAX_UTILIZATION),
                    (report.capacity(), MIN_CAPACITY, MAX_SESSIONS),
                    (report.bits_per_s(), 0.0, MAX_BITS_PER_S),
                    (report.starts_per_s(), 0.0, MAX_SESSIONS),
                ];
                assert!(figures.iter().any(|(value, _, _)| value.is_some()));
                for (value, least, most) in figures {
                    assert!(value.is_none_or(|value| (least..=most).contains(&value)), "{report:?}");
                }
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(selector) = Selector::parse(text)
    {
        assert_eq!(Selector::parse(&selector.to_string()), Ok(selector), "shown as it is written");
    }
});
