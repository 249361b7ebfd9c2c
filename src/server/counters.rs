//! What was asked and answered, counted without locks.
//!
//! ```text
//! Snapshot ── Arc<Counters> ──► a shard a UDP worker, one for TCP ──► Ledger ──► Totals ──► metrics
//! ```
//!
//! [`Counters`] are laid out for the zones of one load, so that counting is an index and an increment: nothing is
//! looked up by name and nothing is allocated on the answer path. A reload makes new ones. The [`Ledger`] knows every
//! set that somebody may still count into, and keeps by name what the sets that nobody holds any more had counted, so
//! totals only rise as zones and regions come and go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::available_parallelism;

use crate::answer::{Outcome, Transport};
use crate::config::settings::Zone;

/// The names that the counters of one zone are reported under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    pub zone: Arc<str>,
    /// By position in the zone's regions.
    pub regions: Vec<Arc<str>>,
}

/// RCODEs that are told apart; all others are counted together as `OTHER`.
const RCODES: [(u16, &str); 7] =
    [(0, "NOERROR"), (1, "FORMERR"), (2, "SERVFAIL"), (3, "NXDOMAIN"), (4, "NOTIMP"), (5, "REFUSED"), (16, "BADVERS")];
const OTHER: usize = RCODES.len();

/// A cache line of counters: the RCODEs of one zone lie in one line, and no line is shared by two shards.
#[repr(align(64))]
#[derive(Default)]
struct Line([AtomicU64; OTHER + 1]);

// Lines of a shard: one for what belongs to no zone's RCODEs, one for queries outside all zones, one a zone, and then
// the regions of all zones, eight to a line.
const MISCELLANEOUS: usize = 0;
const OUTSIDE: usize = 1;
const ZONES: usize = 2;

// Places in the line MISCELLANEOUS.
const DROPPED: usize = 0;
const UNSENT: usize = 1;

/// Counters for the zones of one load, in the order of the snapshot's zones.
pub struct Counters {
    zones: Box<[Labels]>,
    /// Where the regions of each zone begin among the region counters; one more at the end.
    first_region: Box<[usize]>,
    /// One for each of the first UDP workers, one for all others, and one for TCP.
    shards: Box<[Box<[Line]>]>,
}

impl Counters {
    /// For the zones of a snapshot, with a UDP shard for each CPU that this process might use when it began.
    pub fn of<'a>(zones: impl Iterator<Item = &'a Zone>) -> Counters {
        let labels = zones.map(|zone| Labels {
            zone: zone.label(),
            regions: zone.regions.iter().map(|region| region.name.clone()).collect(),
        });
        // Later, threads may be kept off some CPUs.
        static CPUS: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, usize::from));
        Counters::new(*CPUS, labels.collect())
    }

    /// `workers`: UDP workers that are to count without disturbing each other. Should there be more, those share a shard,
    /// which is slower and counts as well.
    pub fn new(workers: usize, zones: Vec<Labels>) -> Counters {
        let mut first_region = vec![0];
        first_region.extend(zones.iter().scan(0, |sum, zone| {
            *sum += zone.regions.len();
            Some(*sum)
        }));
        let lines = ZONES + zones.len() + first_region[zones.len()].div_ceil(OTHER + 1);
        let shard = |_| (0..lines).map(|_| Line::default()).collect();
        let shards = (0..workers + 2).map(shard).collect();
        Counters { zones: zones.into(), first_region: first_region.into(), shards }
    }

    /// Where UDP worker number `worker` counts, and no other thread.
    pub fn udp(&self, worker: usize) -> Shard<'_> {
        let workers = self.shards.len() - 2;
        Shard { counters: self, lines: &self.shards[worker.min(workers)], is_shared: worker >= workers }
    }

    /// Where every TCP connection counts.
    pub fn tcp(&self) -> Shard<'_> {
        Shard { counters: self, lines: &self.shards[self.shards.len() - 1], is_shared: true }
    }

    /// `zeros`: regions without answers are told as well.
    fn add_to(&self, totals: &mut Totals, zeros: bool) {
        let last = self.shards.len() - 1;
        for (i, lines) in self.shards.iter().enumerate() {
            self.add_shard(lines, if i == last { Transport::Tcp } else { Transport::Udp }, totals, zeros);
        }
    }

    fn add_shard(&self, lines: &[Line], transport: Transport, totals: &mut Totals, zeros: bool) {
        let transport = transport_name(transport);
        *totals.dropped.entry(transport).or_default() += lines[MISCELLANEOUS].0[DROPPED].load(Relaxed);
        *totals.unsent.entry(transport).or_default() += lines[MISCELLANEOUS].0[UNSENT].load(Relaxed);
        let zones = std::iter::once(None).chain(self.zones.iter().map(|zone| Some(&zone.zone)));
        for (zone, line) in zones.zip(&lines[OUTSIDE..]) {
            for (i, counter) in line.0.iter().enumerate() {
                let count = counter.load(Relaxed);
                if count > 0 {
                    let rcode = RCODES.get(i).map_or("OTHER", |(_, name)| name);
                    *totals.queries.entry(Queries { transport, zone: zone.cloned(), rcode }).or_default() += count;
                }
            }
        }
        for (zone, first) in self.zones.iter().zip(&self.first_region) {
            for (i, region) in zone.regions.iter().enumerate() {
                let count = self.region(lines, first + i).load(Relaxed);
                // Its zero is what an operator looks for.
                if zeros || count > 0 {
                    *totals.answers.entry((zone.zone.clone(), region.clone())).or_default() += count;
                }
            }
        }
    }

    fn region<'a>(&self, lines: &'a [Line], position: usize) -> &'a AtomicU64 {
        &lines[ZONES + self.zones.len() + position / (OTHER + 1)].0[position % (OTHER + 1)]
    }
}

/// A part of the [`Counters`], of one writer or of several.
#[derive(Clone, Copy)]
pub struct Shard<'a> {
    counters: &'a Counters,
    lines: &'a [Line],
    is_shared: bool,
}

impl Shard<'_> {
    /// Counts what became of one query. Zones and regions that these counters were not laid out for are counted
    /// outside all zones, not at all.
    pub fn record(self, outcome: Outcome) {
        let Outcome::Answered { rcode, zone, region, .. } = outcome else {
            self.add(&self.lines[MISCELLANEOUS].0[DROPPED], 1);
            return;
        };
        let rcode = RCODES.iter().position(|(code, _)| *code == rcode).unwrap_or(OTHER);
        let zone = zone.map(|zone| zone as usize).filter(|zone| *zone < self.counters.zones.len());
        self.add(&self.lines[zone.map_or(OUTSIDE, |zone| ZONES + zone)].0[rcode], 1);
        if let (Some(zone), Some(region)) = (zone, region) {
            let position = self.counters.first_region[zone] + region as usize;
            if position < self.counters.first_region[zone + 1] {
                self.add(self.counters.region(self.lines, position), 1);
            }
        }
    }

    /// Counts answers that were made and could not be sent.
    pub fn unsent(self, answers: usize) {
        if answers > 0 {
            self.add(&self.lines[MISCELLANEOUS].0[UNSENT], answers as u64);
        }
    }

    /// Answers counted outside all zones, in this shard alone.
    #[cfg(test)]
    pub(super) fn outside(&self) -> u64 {
        self.lines[OUTSIDE].0.iter().map(|counter| counter.load(Relaxed)).sum()
    }

    /// Counters order nothing but themselves, so relaxed is enough; who folds them has synchronised by their `Arc`.
    fn add(self, counter: &AtomicU64, n: u64) {
        match self.is_shared {
            true => {
                counter.fetch_add(n, Relaxed);
            }
            // One writer needs no locked instruction, which waits for the stores before it.
            false => counter.store(counter.load(Relaxed) + n, Relaxed),
        }
    }
}

fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
    }
}

/// Sums since the start of the process, under names. They never fall.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Queries answered; only those that are not zero.
    pub queries: BTreeMap<Queries, u64>,
    /// Steered answers by zone and region; every region of the zones served, also the zeros.
    pub answers: BTreeMap<(Arc<str>, Arc<str>), u64>,
    /// By transport: messages to which nothing may be answered (no header, or a response).
    pub dropped: BTreeMap<&'static str, u64>,
    /// By transport: answers the kernel or the peer did not take. They are counted in `queries` too.
    pub unsent: BTreeMap<&'static str, u64>,
}

/// The labels of a number of queries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Queries {
    /// `udp` or `tcp`.
    pub transport: &'static str,
    /// `None`: outside all zones, or no question could be read.
    pub zone: Option<Arc<str>>,
    /// The RCODE's name, `OTHER` for the rare ones.
    pub rcode: &'static str,
}

/// Every set of counters there was: those in use, and the sum of those that are not.
#[derive(Default)]
pub struct Ledger {
    /// Taken by the control loop and by who reads totals, never on the way of a query.
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    in_use: Vec<Arc<Counters>>,
    folded: Totals,
}

impl Ledger {
    /// Makes `counters` part of the totals; call it before the snapshot that carries them is published. Adopting a
    /// set again (a snapshot that shares its predecessor's) does nothing.
    pub fn adopt(&self, counters: &Arc<Counters>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.fold();
        if !inner.in_use.iter().any(|known| Arc::ptr_eq(known, counters)) {
            inner.in_use.push(counters.clone());
        }
    }

    /// The sums of now.
    pub fn totals(&self) -> Totals {
        self.sums(true)
    }

    /// The same without the regions of which no answer was counted: of ten thousand zones most are quiet.
    pub fn active(&self) -> Totals {
        self.sums(false)
    }

    fn sums(&self, zeros: bool) -> Totals {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.fold();
        let mut totals = inner.folded.clone();
        for counters in &inner.in_use {
            counters.add_to(&mut totals, zeros);
        }
        totals
    }
}

impl Inner {
    /// Moves into the sum what nobody can count into any more: only the ledger holds it, and the ledger gives no
    /// clones, so no other holder can appear.
    fn fold(&mut self) {
        let Inner { in_use, folded } = self;
        in_use.retain_mut(|counters| match Arc::get_mut(counters) {
            Some(counters) => {
                counters.add_to(folded, true);
                false
            }
            None => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(zone: &str, regions: &[&str]) -> Labels {
        Labels { zone: zone.into(), regions: regions.iter().map(|region| Arc::from(*region)).collect() }
    }

    fn answered(rcode: u16, zone: Option<u32>, region: Option<u8>) -> Outcome {
        Outcome::Answered { length: 12, rcode, zone, region, asked: None }
    }

    /// One line a total, as a metrics page would show it.
    fn shown(totals: &Totals) -> String {
        let mut lines = Vec::new();
        for (Queries { transport, zone, rcode }, n) in &totals.queries {
            lines.push(format!("{transport} {} {rcode} {n}", zone.as_deref().unwrap_or("-")));
        }
        lines.extend(totals.answers.iter().map(|((zone, region), n)| format!("{zone}/{region} {n}")));
        lines.extend(totals.dropped.iter().filter(|(_, n)| **n > 0).map(|(t, n)| format!("{t} dropped {n}")));
        lines.extend(totals.unsent.iter().filter(|(_, n)| **n > 0).map(|(t, n)| format!("{t} unsent {n}")));
        lines.join("\n")
    }

    #[test]
    fn outcomes_are_counted_by_transport_zone_rcode_and_region() {
        let ledger = Ledger::default();
        let counters = Arc::new(Counters::new(2, vec![labels("a.example", &["eu", "us"]), labels("b.example", &[])]));
        ledger.adopt(&counters);
        counters.udp(0).record(answered(0, Some(0), Some(1)));
        counters.udp(1).record(answered(0, Some(0), Some(1)));
        counters.tcp().record(answered(0, Some(0), Some(0)));
        counters.tcp().record(answered(3, Some(1), None));
        counters.udp(0).record(answered(5, None, None));
        counters.udp(0).record(answered(16, Some(0), None));
        counters.udp(0).record(answered(23, Some(0), None));
        counters.udp(1).record(Outcome::Dropped);
        counters.tcp().unsent(3);
        assert_eq!(
            shown(&ledger.totals()),
            "tcp a.example NOERROR 1\n\
             tcp b.example NXDOMAIN 1\n\
             udp - REFUSED 1\n\
             udp a.example BADVERS 1\n\
             udp a.example NOERROR 2\n\
             udp a.example OTHER 1\n\
             a.example/eu 1\n\
             a.example/us 2\n\
             udp dropped 1\n\
             tcp unsent 3"
        );
    }

    #[test]
    fn every_region_of_every_zone_has_its_own_counter() {
        let names: Vec<String> = (0..64).map(|i| format!("r{i:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let zones: Vec<Labels> = [64, 0, 1, 7, 64].iter().map(|n| labels(&format!("z{n}"), &names[..*n])).collect();
        // Two zones have one name here; only their counters are looked at.
        let counters = Counters::new(1, zones.clone());
        for (z, zone) in zones.iter().enumerate() {
            for r in 0..zone.regions.len() {
                counters.udp(0).record(answered(0, Some(z as u32), Some(r as u8)));
            }
        }
        let mut totals = Totals::default();
        counters.add_to(&mut totals, true);
        assert!(totals.answers.iter().all(|((zone, _), n)| *n == if &**zone == "z64" { 2 } else { 1 }), "{totals:?}");
        assert_eq!(totals.answers.len(), 64 + 1 + 7);
    }

    #[test]
    fn totals_survive_reloads_and_removed_zones() {
        let ledger = Ledger::default();
        let old = Arc::new(Counters::new(1, vec![labels("gone.example", &["eu"]), labels("stays.example", &["eu"])]));
        ledger.adopt(&old);
        old.udp(0).record(answered(0, Some(0), Some(0)));
        old.udp(0).record(answered(0, Some(1), Some(0)));

        let new = Arc::new(Counters::new(1, vec![labels("stays.example", &["us", "eu"])]));
        ledger.adopt(&new);
        ledger.adopt(&new);
        new.udp(0).record(answered(0, Some(0), Some(1)));
        // A worker that still answers a batch from the old snapshot.
        old.udp(0).record(answered(0, Some(0), Some(0)));
        let before = ledger.totals();
        drop(old);
        assert_eq!(ledger.totals(), before, "folding changes no total");
        assert_eq!(ledger.inner.lock().unwrap().in_use.len(), 1, "the old counters were let go");
        assert_eq!(
            shown(&before),
            "udp gone.example NOERROR 2\n\
             udp stays.example NOERROR 2\n\
             gone.example/eu 2\n\
             stays.example/eu 2\n\
             stays.example/us 0"
        );
    }

    #[test]
    fn an_outcome_outside_the_layout_is_counted_outside_and_does_not_panic() {
        let ledger = Ledger::default();
        let counters = Arc::new(Counters::new(0, vec![labels("a.example", &["eu"]), labels("b.example", &["eu"])]));
        ledger.adopt(&counters);
        counters.udp(7).record(answered(0, Some(9), Some(200)));
        counters.udp(7).record(answered(0, Some(0), Some(1)));
        assert_eq!(
            shown(&ledger.totals()),
            "udp - NOERROR 1\n\
             udp a.example NOERROR 1\n\
             a.example/eu 0\n\
             b.example/eu 0"
        );
    }

    #[test]
    fn no_count_is_lost_when_threads_count_while_totals_are_read() {
        let ledger = Ledger::default();
        let counters = Arc::new(Counters::new(1, vec![labels("a.example", &["eu"])]));
        ledger.adopt(&counters);
        let per_thread = 20_000;
        std::thread::scope(|scope| {
            for worker in [0, 1, 2] {
                let counters = counters.clone();
                scope.spawn(move || {
                    (0..per_thread).for_each(|_| counters.udp(worker).record(answered(0, Some(0), Some(0))));
                });
            }
            let mut last = 0;
            for _ in 0..100 {
                let now = ledger.totals().answers[&("a.example".into(), "eu".into())];
                assert!(now >= last, "totals are monotonic");
                last = now;
            }
        });
        drop(counters);
        assert_eq!(ledger.totals().answers[&("a.example".into(), "eu".into())], 3 * per_thread);
    }
}
