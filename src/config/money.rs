//! `money` of a zone file: how much farther a viewer may be sent to save money.

use std::time::Duration;

use super::tree::Item;
use super::units;
use crate::steering::money::Money;

/// A rate above it makes any difference in price reach the cap.
const MAX_RATE: f64 = 1e9;
/// More would send viewers around the world.
const MAX_CAP: Duration = Duration::from_secs(1);

const RULE: &str = "a region's `cost` a GB above the cheapest, times `ms_per_unit`, is added to its ms, up to `cap`";
const HELP: &str = "write money = { ms_per_unit = 100, cap = \"15ms\" }";

/// Reads `money = { ms_per_unit = 100, cap = "15ms" }`. Both must be written: nobody can guess the operator's unit.
pub fn read(item: &Item<'_>) -> Option<Money> {
    if !item.is_table() {
        item.report(item.fault(format!("`{}` is no table", item.path)).rule(RULE).help(HELP));
        return None;
    }
    let mut table = item.table()?;
    let (rate, cap) = (table.take("ms_per_unit"), table.take("cap"));
    let missing = [("ms_per_unit", rate.is_none()), ("cap", cap.is_none())];
    for (key, _) in missing.into_iter().filter(|(_, missing)| *missing) {
        let fault = item.key_fault(format!("`{}` has no `{key}`", item.path));
        table.file.report_missing(fault.rule(RULE).help(HELP));
    }
    table.done();
    let rate = rate.and_then(|item| {
        let rate = item.number()?;
        if !(0.0..=MAX_RATE).contains(&rate) {
            let fault = item.fault(format!("`{}` is {}, outside 0 to {MAX_RATE}", item.path, units::short(rate)));
            item.report(fault.rule("ms that one unit of money a GB is worth").help(HELP));
            return None;
        }
        Some(rate)
    });
    let cap = cap.and_then(|item| units::read(&item, Duration::ZERO..=MAX_CAP));
    Money::new(rate?, cap?).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use toml::de::DeTable;

    use super::*;
    use crate::config::tree::{File, Table};

    fn money(text: &str) -> (Option<Money>, Vec<String>) {
        let file = File::new(Path::new("z.toml"), text.to_owned());
        let (root, _) = DeTable::parse_recoverable(text);
        let item = Table::root(&file, root.get_ref()).take("money").unwrap();
        let read = read(&item);
        (read, file.take_faults().iter().map(|fault| fault.what.clone()).collect())
    }

    #[test]
    fn money_is_a_rate_and_a_cap() {
        let (read, faults) = money("money = { ms_per_unit = 100, cap = \"15ms\" }");
        let read = read.unwrap();
        assert_eq!((read.ms_per_unit(), read.cap(), faults.len()), (100.0, Duration::from_millis(15), 0));
    }

    #[test]
    fn each_fault_is_told() {
        for (text, what) in [
            ("money = 3", "`money` is no table"),
            ("money = { cap = \"15ms\" }", "`money` has no `ms_per_unit`"),
            ("money = { ms_per_unit = 1 }", "`money` has no `cap`"),
            ("money = { ms_per_unit = -1, cap = \"1ms\" }", "`money.ms_per_unit` is -1, outside 0 to 1000000000"),
            ("money = { ms_per_unit = nan, cap = \"1ms\" }", "`money.ms_per_unit` is NaN, outside 0 to 1000000000"),
            ("money = { ms_per_unit = 1, cap = \"2s\" }", "`money.cap` is 2s, outside 0s to 1s"),
            ("money = { ms_per_unit = 1, cap = \"1ms\", per = 1 }", "unknown key `per` in [money]"),
        ] {
            let (_, faults) = money(text);
            assert_eq!(faults, [what], "{text}");
        }
    }
}
