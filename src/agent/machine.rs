//! How busy this machine is, from `/proc`: CPU, and what its interfaces send. Pure but for [`Reading::take`].

use std::fs;
use std::io;
use std::time::Instant;

/// Counters at one instant; two of them make figures.
#[derive(Clone, Debug)]
pub struct Reading {
    pub at: Instant,
    pub cpu: Option<Cpu>,
    /// Bytes sent, of the interfaces that count.
    pub sent: Option<u64>,
}

/// Time of all cores since the start, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    pub busy: u64,
    pub total: u64,
}

impl Reading {
    /// `interface`: whose traffic counts; `None` for that of the default route, or all but `lo`. What cannot be read is
    /// left out. Blocks as briefly as `/proc` does.
    pub fn take(interface: Option<&str>) -> Reading {
        let read = |path: &str| -> io::Result<String> { fs::read_to_string(path) };
        let cpu = read("/proc/stat").ok().and_then(|text| parse_cpu(&text));
        let route = || {
            let v4 = read("/proc/net/route").ok().and_then(|text| default_v4(&text));
            v4.or_else(|| read("/proc/net/ipv6_route").ok().and_then(|text| default_v6(&text)))
        };
        let interface = interface.map(str::to_owned).or_else(route);
        let sent = read("/proc/net/dev").ok().and_then(|text| parse_sent(&text, interface.as_deref()));
        Reading { at: Instant::now(), cpu, sent }
    }

    /// Thousandths of all cores that were busy since `before`.
    pub fn cpu_permille(&self, before: &Reading) -> Option<u16> {
        let (now, before) = (self.cpu?, before.cpu?);
        let total = now.total.checked_sub(before.total).filter(|total| *total > 0)?;
        let busy = now.busy.saturating_sub(before.busy).min(total);
        Some((u128::from(busy) * 1000 / u128::from(total)) as u16)
    }

    /// Bits per second sent since `before`; `None` when a counter began anew.
    pub fn bits_per_s(&self, before: &Reading) -> Option<u64> {
        let bytes = self.sent?.checked_sub(before.sent?)?;
        let us = self.at.saturating_duration_since(before.at).as_micros();
        let bits = (u128::from(bytes) * 8_000_000).checked_div(us)?;
        u64::try_from(bits).ok()
    }
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
fn parse_cpu(text: &str) -> Option<Cpu> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let total = ticks.iter().try_fold(0u64, |sum, ticks| sum.checked_add(*ticks))?;
    let idle = ticks.get(3)?.checked_add(*ticks.get(4).unwrap_or(&0))?;
    Some(Cpu { busy: total.saturating_sub(idle), total })
}

/// Bytes sent, the ninth figure behind the name in `/proc/net/dev`.
fn parse_sent(text: &str, interface: Option<&str>) -> Option<u64> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let counted = lines.filter(|(name, _)| match interface {
        Some(interface) => name.trim() == interface,
        None => name.trim() != "lo",
    });
    let mut sum = None;
    for (_, figures) in counted {
        let sent: u64 = figures.split_ascii_whitespace().nth(8)?.parse().ok()?;
        sum = Some(sum.unwrap_or(0u64).saturating_add(sent));
    }
    sum
}

/// The interface of the default route of `/proc/net/route` with the lowest metric.
fn default_v4(text: &str) -> Option<String> {
    let routes = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let default = *fields.get(1)? == "00000000" && *fields.get(7)? == "00000000";
        default.then_some((fields.get(6)?.parse::<u32>().ok()?, fields[0].to_owned()))
    });
    routes.min().map(|(_, interface)| interface)
}

/// The same of `/proc/net/ipv6_route`; `lo` stands for "unreachable".
fn default_v6(text: &str) -> Option<String> {
    let routes = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let default = fields.first()?.bytes().all(|b| b == b'0') && *fields.get(1)? == "00";
        let interface = *fields.get(9)?;
        (default && interface != "lo").then_some((fields.get(5)?.to_owned(), interface.to_owned()))
    });
    routes.min().map(|(_, interface)| interface)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const DEV: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  900       9    0    0    0     0          0         0      900       9    0    0    0     0       0          0
  eth0: 5000      50    0    0    0     0          0         0     7000      70    0    0    0     0       0          0
eth1:1 1 0 0 0 0 0 0 11 1 0 0 0 0 0 0
";

    #[test]
    fn cpu_is_what_is_neither_idle_nor_waiting_for_disks() {
        let text = "cpu  100 10 50 800 40 5 5 0 99 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_cpu(text), Some(Cpu { busy: 170, total: 1010 }));
        for bad in ["", "cpu  1 2 x 4", "cpu  1 2", "cpu0 1 2 3 4"] {
            assert_eq!(parse_cpu(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn traffic_is_that_of_the_interface_or_of_all_but_loopback() {
        assert_eq!(parse_sent(DEV, Some("eth0")), Some(7000));
        assert_eq!(parse_sent(DEV, Some("eth1")), Some(11));
        assert_eq!(parse_sent(DEV, Some("lo")), Some(900));
        assert_eq!(parse_sent(DEV, None), Some(7011));
        assert_eq!(parse_sent(DEV, Some("eth9")), None);
        assert_eq!(parse_sent("eth0: 1 2", None), None);
    }

    #[test]
    fn the_default_route_with_the_lowest_metric_names_the_interface() {
        let header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let text = format!(
            "{header}wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
             eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        );
        assert_eq!(default_v4(&text).as_deref(), Some("eth0"));
        assert_eq!(default_v4(header), None);
        let zeros = "0".repeat(32);
        let v6 = format!(
            "{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200       lo\n\
             {zeros} 00 {zeros} 00 {zeros} 00000400 00000001 00000000 00000003     eth0\n"
        );
        assert_eq!(default_v6(&v6).as_deref(), Some("eth0"));
    }

    #[test]
    fn figures_are_differences_of_two_readings() {
        let at = Instant::now();
        let first = Reading { at, cpu: Some(Cpu { busy: 100, total: 1000 }), sent: Some(1000) };
        let second = Reading {
            at: at + Duration::from_millis(500),
            cpu: Some(Cpu { busy: 150, total: 1200 }),
            sent: Some(2000),
        };
        assert_eq!((second.cpu_permille(&first), second.bits_per_s(&first)), (Some(250), Some(16_000)));
        assert_eq!((first.cpu_permille(&first), first.bits_per_s(&first)), (None, None), "no time has passed");
        assert_eq!(first.bits_per_s(&second), None, "the counter began anew");
    }

    #[test]
    fn this_machine_can_be_read() {
        let reading = Reading::take(Some("lo"));
        assert!(reading.cpu.is_some() && reading.sent.is_some(), "{reading:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(?s)(cpu )?[ -~\n\t]{0,200}") {
            let _ = (parse_cpu(&text), parse_sent(&text, None), default_v4(&text), default_v6(&text));
        }
    }
}
