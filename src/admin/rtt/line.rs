//! One line of `POST /v1/rtt`.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

/// Longer lines are not read.
const MAX_LINE: usize = 1024;
const MAX_NAME: usize = 255;

pub(super) const FORM: &str =
    r#"a line is {"prefix": "198.51.100.0/24", "region": "eu-west", "rtt_ms": 42.5}, and perhaps zone and loss"#;

/// A line, read and within its own rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub prefix: IpNet,
    pub region: String,
    /// In lower case, without the final dot.
    pub zone: Option<String>,
    pub rtt_ms: f64,
    pub loss: Option<f64>,
}

/// What is wrong with a line, and the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub why: Why,
    pub what: String,
    pub rule: String,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is no line, or not of one client.
    Unreadable,
    /// No zone has such a region.
    Unknown,
    /// No round-trip time, or no loss.
    Figure,
    /// No database places the client.
    Nowhere,
    /// It says more of what was heard enough.
    Plenty,
}

impl Why {
    pub const ALL: [Why; 5] = [Why::Unreadable, Why::Unknown, Why::Figure, Why::Nowhere, Why::Plenty];

    /// As the metrics call it.
    pub fn label(self) -> &'static str {
        match self {
            Why::Unreadable => "unreadable",
            Why::Unknown => "unknown",
            Why::Figure => "figure",
            Why::Nowhere => "nowhere",
            Why::Plenty => "plenty",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.rule)
    }
}

impl std::error::Error for Fault {}

fn unreadable(what: impl Into<String>, rule: impl Into<String>) -> Fault {
    Fault { why: Why::Unreadable, what: what.into(), rule: rule.into() }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    prefix: String,
    region: String,
    zone: Option<String>,
    rtt_ms: f64,
    loss: Option<f64>,
}

impl Line {
    /// Whether the numbers can be believed is asked by who learns from them.
    pub fn read(text: &[u8]) -> Result<Line, Fault> {
        if text.len() > MAX_LINE {
            return Err(unreadable(format!("the line has {} bytes", text.len()), format!("at most {MAX_LINE}")));
        }
        let written: Written = serde_json::from_slice(text).map_err(|error| unreadable(error.to_string(), FORM))?;
        let Written { prefix, region, zone, rtt_ms, loss } = written;
        let net = prefix.parse::<IpNet>().or_else(|_| prefix.parse::<IpAddr>().map(IpNet::from));
        let Ok(net) = net else {
            let what = format!("{:?} is neither an address nor a prefix", short(&prefix));
            return Err(unreadable(what, "`prefix` is like 198.51.100.0/24, 2001:db8:1::/48 or an address"));
        };
        if net.prefix_len() < if net.addr().is_ipv4() { 24 } else { 48 } {
            return Err(unreadable(
                format!("{net} is too wide"),
                "a sample is of one client: a /24 or /48 at the widest",
            ));
        }
        if region.is_empty() || region.len() > MAX_NAME || zone.as_ref().is_some_and(|zone| zone.len() > MAX_NAME) {
            return Err(unreadable("no name of a region or zone", format!("names have 1 to {MAX_NAME} bytes")));
        }
        let zone = zone.map(|zone| zone.trim_end_matches('.').to_ascii_lowercase());
        Ok(Line { prefix: net, region, zone, rtt_ms, loss })
    }
}

/// What is shown of a text that somebody sent.
pub(super) fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn what(line: &str) -> String {
        Line::read(line.as_bytes()).unwrap_err().what
    }

    #[test]
    fn a_line_is_read_with_or_without_zone_and_loss() {
        let line = Line::read(br#"{"prefix": "198.51.100.0/24", "region": "eu", "rtt_ms": 42.5}"#).unwrap();
        assert_eq!((line.region.as_str(), line.zone, line.rtt_ms, line.loss), ("eu", None, 42.5, None));
        let all = br#"{"prefix":"2001:db8::1","region":"eu","zone":"Stream.Example.","rtt_ms":1,"loss":0.01}"#;
        let line = Line::read(all).unwrap();
        assert_eq!(
            (line.zone.as_deref(), line.loss, line.prefix.prefix_len()),
            (Some("stream.example"), Some(0.01), 128)
        );
    }

    #[test]
    fn each_fault_is_told() {
        let line = |prefix: &str, region: &str, more: &str| {
            format!("{{\"prefix\": \"{prefix}\", \"region\": \"{region}\", \"rtt_ms\": 4{more}}}")
        };
        assert!(what("{").contains("EOF"));
        assert!(what("[]").contains("invalid"));
        assert!(what(&line("198.51.100.0/24", "eu", ", \"rttms\": 3")).contains("unknown field"));
        assert!(what(&line("198.51.0.0/16", "eu", "")).contains("too wide"));
        assert!(what(&line("2001:db8::/32", "eu", "")).contains("too wide"));
        assert!(what(&line("nowhere", "eu", "")).contains("neither an address nor a prefix"));
        assert!(what(&line("198.51.100.0/24", "", "")).contains("no name"));
        assert!(what(&line("198.51.100.0/24", "eu", "e999")).contains("out of range"));
        assert!(what(&line("198.51.100.0/24", &"x".repeat(2000), "")).contains("bytes"));
        assert!(what(r#"{"prefix": "198.51.100.0/24", "region": "eu"}"#).contains("rtt_ms"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_line_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Line::read(&bytes);
        }

        #[test]
        fn what_is_read_is_of_one_client(
            prefix in "[0-9a-f:./]{1,20}", region in ".{0,10}", rtt in any::<f64>(), loss in prop::option::of(any::<f64>()),
        ) {
            let text = json!({ "prefix": prefix, "region": region, "rtt_ms": rtt, "loss": loss }).to_string();
            if let Ok(line) = Line::read(text.as_bytes()) {
                prop_assert!(line.prefix.prefix_len() >= 24 && !line.region.is_empty());
                prop_assert!(line.rtt_ms.is_finite(), "JSON has no other numbers");
            }
        }
    }
}
