//! Figures and times as people read them, and tables of them. Times are UTC, as the log has them.

use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;

pub use crate::texts::harmless;

pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// An instant in Unix seconds: `2026-05-01T22:00:00Z`.
pub fn time(at: f64) -> String {
    // A float that is no number becomes 0, one that is too large the largest.
    Timestamp::from_second(at as i64).map_or_else(|_| "?".to_owned(), |at| at.to_string())
}

/// An instant that is to come, and how far off it is.
pub fn until(at: f64, now: f64) -> String {
    format!("{} (in {})", time(at), span((at - now).max(0.0)))
}

/// Seconds: `0.4s`, `12s`, `3m 5s`, `2h 10m`, `5d 3h`.
pub fn span(seconds: f64) -> String {
    if seconds < 0.95 {
        return format!("{:.1}s", seconds.max(0.0));
    }
    let whole = seconds.round() as u64;
    let two = |big: u64, small: u64, units: (&str, &str)| match small {
        0 => format!("{big}{}", units.0),
        small => format!("{big}{} {small}{}", units.0, units.1),
    };
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => two(whole / 60, whole % 60, ("m", "s")),
        3600..86_400 => two(whole / 3600, whole % 3600 / 60, ("h", "m")),
        _ => two(whole / 86_400, whole % 86_400 / 3600, ("d", "h")),
    }
}

/// A share of one.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 9.95 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// Something a second, short: `0`, `7.5`, `420`, `17k`, `2.1M`, `8.1G`.
pub fn rate(value: f64) -> String {
    match value {
        v if v < 0.05 => "0".to_owned(),
        v if v < 9.95 => format!("{v:.1}"),
        v if v < 9_999.5 => format!("{v:.0}"),
        v if v < 999_500.0 => format!("{:.0}k", v / 1e3),
        v if v < 999_500_000.0 => format!("{:.1}M", v / 1e6),
        v => format!("{:.1}G", v / 1e9),
    }
}

/// A line a row, the first the header; the columns of `right` end alike.
pub fn table(header: &[&str], right: &[usize], rows: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|text| harmless(text)));
    }
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let shown: Vec<String> = [0.0, 0.42, 1.0, 59.6, 185.0, 7200.0, 7800.0, 442_800.0, -3.0].map(span).into();
        assert_eq!(shown, ["0.0s", "0.4s", "1s", "1m", "3m 5s", "2h", "2h 10m", "5d 3h", "0.0s"]);
    }

    #[test]
    fn figures_stay_short() {
        let rates: Vec<String> = [0.0, 0.04, 7.46, 9.96, 420.0, 9_999.4, 17_400.0, 2_100_000.0, 8.1e9].map(rate).into();
        assert_eq!(rates, ["0", "0", "7.5", "10", "420", "9999", "17k", "2.1M", "8.1G"]);
        let shares: Vec<String> = [0.0, 0.004, 0.0996, 0.5, 1.0].map(percent).into();
        assert_eq!(shares, ["0 %", "0.4 %", "10 %", "50 %", "100 %"]);
    }

    #[test]
    fn instants_that_make_no_sense_do_not_panic() {
        assert_eq!(time(1_777_672_800.0), "2026-05-01T22:00:00Z");
        for at in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            time(at);
            until(at, 0.0);
            span(at);
            rate(at);
            percent(at);
        }
    }

    #[test]
    fn a_terminal_is_not_steered_by_what_a_server_says() {
        let rows = table(&["reason"], &[], std::iter::once(vec!["a\u{1b}[2Jb\u{202e}c\n".to_owned()]));
        assert_eq!(rows[1].trim(), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
    }
}
