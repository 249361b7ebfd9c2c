//! How much a region takes and what its traffic costs: `capacity`, `session` and `cost`.

use std::sync::Arc;

use super::settings::{Capacity, SESSION_BITS};
use super::tree::Item;

/// A million million sessions: more than there are people, and far below where sums lose their digits.
const MAX_SESSIONS: f64 = 1e12;
/// Bits/s of all the world's networks together, with room to grow.
const MAX_BITS: f64 = 1e18;
/// Money for a GB, in whatever currency.
const MAX_COST: f64 = 1e6;

const FORMS: &str = "write it like \"40Gbps\", \"800Mbps\" or \"20000 sessions\"";

/// A capacity as written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Sessions(f64),
    /// Bits/s.
    Bits(f64),
}

impl Amount {
    pub fn parse(text: &str) -> Option<Amount> {
        let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = text[..unit].parse().ok()?;
        let bits = match text[unit..].trim_start() {
            "session" | "sessions" => return Some(Amount::Sessions(number)),
            "bps" => 1.0,
            "kbps" => 1e3,
            "Mbps" => 1e6,
            "Gbps" => 1e9,
            "Tbps" => 1e12,
            _ => return None,
        };
        Some(Amount::Bits(number * bits))
    }

    /// `session`: bits/s of one.
    fn sessions(self, session: f64) -> f64 {
        match self {
            Amount::Sessions(sessions) => sessions,
            Amount::Bits(bits) => bits / session,
        }
    }

    fn in_range(self) -> bool {
        match self {
            Amount::Sessions(sessions) => (1.0..=MAX_SESSIONS).contains(&sessions),
            Amount::Bits(bits) => (1.0..=MAX_BITS).contains(&bits),
        }
    }
}

/// What a region's keys say of its capacity.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    Region(Amount),
    /// By server, as many as there are.
    Servers(Arc<[Amount]>),
}

impl Written {
    fn amounts(&self) -> &[Amount] {
        match self {
            Written::Region(amount) => std::slice::from_ref(amount),
            Written::Servers(amounts) => amounts,
        }
    }

    pub fn resolve(&self, session: Option<f64>) -> Capacity {
        // Where all is in bits/s the length of the yardstick makes no difference.
        let session = session.unwrap_or(SESSION_BITS);
        let by_server = match self {
            Written::Region(_) => None,
            Written::Servers(amounts) => Some(amounts.iter().map(|amount| amount.sessions(session)).collect()),
        };
        Capacity { sessions: self.amounts().iter().map(|amount| amount.sessions(session)).sum(), by_server }
    }

    pub fn in_sessions(&self) -> bool {
        self.amounts().iter().any(|amount| matches!(amount, Amount::Sessions(_)))
    }

    pub fn in_bits(&self) -> bool {
        self.amounts().iter().any(|amount| matches!(amount, Amount::Bits(_)))
    }
}

/// `capacity` of a region or of a server.
pub fn read(item: &Item<'_>) -> Option<Amount> {
    if item.is_number() {
        item.report(item.fault(format!("`{}` is a number without a unit", item.path)).help(FORMS));
        return None;
    }
    let text = item.string()?;
    let Some(amount) = Amount::parse(text) else {
        item.report(item.fault(format!("`{}` is {text:?}, which is no capacity", item.path)).help(FORMS));
        return None;
    };
    if !amount.in_range() {
        let fault = item.fault(format!("`{}` is {text:?}, outside 1 session to 10^12, 1bps to 10^18", item.path));
        item.report(
            fault.rule("a capacity is what a region can serve at once").help(
                "a region that shall take nobody is left out of the stream's `regions`, drained, or given weight 0",
            ),
        );
        return None;
    }
    Some(amount)
}

/// A capacity, as written, in sessions of `session` bits/s; `None`: it is none.
pub fn capacity_in_sessions(text: &str, session: f64) -> Option<f64> {
    let amount = Amount::parse(text).filter(|amount| amount.in_range())?;
    Some(amount.sessions(session))
}

/// `session`: bits/s of one viewer.
pub fn session(item: &Item<'_>) -> Option<f64> {
    let text = item.string()?;
    match Amount::parse(text) {
        Some(Amount::Bits(bits)) if (1e3..=1e9).contains(&bits) => Some(bits),
        Some(Amount::Bits(_)) => {
            item.report(item.fault(format!("`{}` is {text:?}, outside 1kbps to 1Gbps", item.path)));
            None
        }
        _ => {
            let fault = item.fault(format!("`{}` is {text:?}, which is no bit rate", item.path));
            item.report(fault.rule("a session is as many bits/s as one viewer takes").help("write it like \"5Mbps\""));
            None
        }
    }
}

/// `cost`: money for a GB.
pub fn cost(item: &Item<'_>) -> Option<f64> {
    let cost = item.number()?;
    if !(0.0..=MAX_COST).contains(&cost) {
        let fault = item.fault(format!("`{}` is {cost}, outside 0 to 1000000", item.path));
        item.report(fault.rule("it is money for a GB, in a currency of your choice"));
        return None;
    }
    Some(cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_nothing_else_is() {
        assert_eq!(Amount::parse("40Gbps"), Some(Amount::Bits(40e9)));
        assert_eq!(Amount::parse("2.5 Tbps"), Some(Amount::Bits(2.5e12)));
        assert_eq!(Amount::parse("20000 sessions"), Some(Amount::Sessions(20_000.0)));
        for text in ["", "40", "Gbps", "-4Gbps", "4GBps", "1e9 sessions", "NaN sessions", "4 Gbps a day", "1.2.3Gbps"] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_session_converts_bits() {
        let written = Written::Servers([Amount::Bits(10e9), Amount::Sessions(500.0)].into());
        let capacity = written.resolve(Some(5e6));
        assert_eq!(capacity.sessions, 2_500.0);
        assert_eq!(capacity.part(2, |server| server == 1), 0.2);
        assert_eq!(Written::Region(Amount::Bits(1e9)).resolve(None).part(4, |server| server < 1), 0.25);
    }
}
