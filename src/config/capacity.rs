//! How much a region takes and what its traffic costs: `capacity`, `session` and `cost`.

use std::sync::Arc;

use super::settings::{Capacity, SESSION_BITS, Units, Zone};
use super::tree::Item;
use super::units::short;

/// A million million sessions: more than there are people, and far below where sums lose their digits.
const MAX_SESSIONS: f64 = 1e12;
/// Bits/s of all the world's networks together, with room to grow.
const MAX_BITS: f64 = 1e18;
/// Money for a GB, in whatever currency.
const MAX_COST: f64 = 1e6;

const FORMS: &str = "write it like \"40Gbps\", \"800Mbps\" or \"20000 sessions\"";

/// The rule for capacities of two units.
pub const ONE_UNIT: &str = "the one is known in terms of the other only by what a session takes";

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

/// Why a text is no capacity of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoCapacity {
    /// In no form, or out of range.
    Form,
    /// The zone has the other unit, and no `session`. In words: what, rule and mend.
    OtherUnit(String),
}

/// Whether a text is a capacity of some zone.
pub fn is_capacity(text: &str) -> bool {
    Amount::parse(text).is_some_and(Amount::in_range)
}

/// Sessions that a text written outside a zone's file comes to in the zone, and the unit that others beside it may have.
pub fn capacity_of(text: &str, zone: &Zone) -> Result<(f64, Units), NoCapacity> {
    let amount = Amount::parse(text).filter(|amount| amount.in_range()).ok_or(NoCapacity::Form)?;
    let other = |own: &str, zones: &str, like: &str| {
        NoCapacity::OtherUnit(format!(
            "{text:?} is in {own}, and the capacities of zone {} are in {zones}; {ONE_UNIT}: write {like}, or \
             session = \"5Mbps\" at the top of {}",
            zone.label(),
            zone.file.display()
        ))
    };
    let units = match (amount, zone.units) {
        (Amount::Bits(_), Units::Sessions) => return Err(other("bits/s", "sessions", "\"20000 sessions\"")),
        (Amount::Sessions(_), Units::Bits) => return Err(other("sessions", "bits/s", "\"40Gbps\"")),
        (_, Units::Both) => Units::Both,
        (Amount::Bits(_), _) => Units::Bits,
        (Amount::Sessions(_), _) => Units::Sessions,
    };
    Ok((amount.sessions(zone.session_bits), units))
}

/// `session`: bits/s of one viewer.
pub fn session(item: &Item<'_>) -> Option<f64> {
    const RULE: &str = "a session is as many bits/s as one viewer takes";
    const HELP: &str = "write it like \"5Mbps\"";
    if item.is_number() {
        item.report(item.fault(format!("`{}` is a number without a unit", item.path)).rule(RULE).help(HELP));
        return None;
    }
    let text = item.string()?;
    match Amount::parse(text) {
        Some(Amount::Bits(bits)) if (1e3..=1e9).contains(&bits) => Some(bits),
        Some(Amount::Bits(_)) => {
            let fault = item.fault(format!("`{}` is {text:?}, outside 1kbps to 1Gbps", item.path));
            item.report(fault.rule(RULE).help(HELP));
            None
        }
        _ => {
            let fault = item.fault(format!("`{}` is {text:?}, which is no bit rate", item.path));
            item.report(fault.rule(RULE).help(HELP));
            None
        }
    }
}

/// `cost`: money for a GB.
pub fn cost(item: &Item<'_>) -> Option<f64> {
    const RULE: &str = "it is money for a GB, in a currency of your choice";
    const HELP: &str = "write it like cost = 0.02, without quotes";
    if let Some(text) = item.as_string() {
        item.report(item.fault(format!("`{}` is the string {text:?}, not a number", item.path)).rule(RULE).help(HELP));
        return None;
    }
    let cost = item.number()?;
    if !(0.0..=MAX_COST).contains(&cost) {
        let fault = item.fault(format!("`{}` is {}, outside 0 to 1000000", item.path, short(cost)));
        item.report(fault.rule(RULE).help(HELP));
        return None;
    }
    Some(cost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Shared, read_zone};

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
    fn each_fault_of_money_and_sessions_is_told_with_rule_and_mend_and_few_digits() {
        let read = |text: &str| {
            let text = format!("zone = \"s.example\"\nns = [\"ns1.example.net\"]\n{text}");
            read_zone("z.toml".as_ref(), text, 0, &Shared::default()).faults
        };
        let region = "[region.eu]\nat = [0, 0]\na = \"192.0.2.1\"\n";
        let huge = format!("1{}", "0".repeat(300));
        for (fault, what) in [
            (format!("{region}cost = -1"), "`region.eu.cost` is -1, outside 0 to 1000000"),
            (format!("{region}cost = 1e300"), "`region.eu.cost` is 1e300, outside 0 to 1000000"),
            (format!("{region}cost = {huge}"), "`region.eu.cost` is 1e300, outside 0 to 1000000"),
            (format!("{region}cost = \"0.02\""), "`region.eu.cost` is the string \"0.02\", not a number"),
            ("session = \"0Mbps\"\n".to_owned() + region, "`session` is \"0Mbps\", outside 1kbps to 1Gbps"),
            ("session = 5\n".to_owned() + region, "`session` is a number without a unit"),
            ("money = 5\n".to_owned() + region, "`money` is no table"),
            (
                "money = { ms_per_unit = 1e300, cap = \"1ms\" }\n".to_owned() + region,
                "`money.ms_per_unit` is 1e300, outside 0 to 1000000000",
            ),
        ] {
            let told = read(&fault);
            let [told] = &told[..] else { panic!("{fault}: {told:?}") };
            assert_eq!(told.what, what);
            assert!(told.rule.is_some() && told.help.is_some(), "{told}");
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
