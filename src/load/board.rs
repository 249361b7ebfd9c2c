//! The last believed report of every machine and region, and what follows for a region.
//!
//! A region's own report stands until every machine of it that is up has reported later; otherwise its load is the sum
//! of its machines'. Machines that are up but silent are taken to be as full as the others, by weight. Its capacity is
//! the configured one, or without it the sum of what its machines say, in both cases of those that are up; each
//! machine's part counts as far as its own report is trusted ([`Trust::factor`]).
//!
//! Pure: time is passed in, and what is worth noting is given back.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gauge::Heard;
use super::known::{Known, MachineId, NoRegion, Region, RegionId};
use super::report::{Fault, MAX_UTILIZATION, Report, Why};
use super::reporter::{Expected, Reading, Reporter, Trust};

/// What is believed of a region at an instant. Every number is finite and not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// Sessions now, as reported or predicted. `None`: not known.
    pub sessions: Option<f64>,
    /// 1.0 is full: sessions of the capacity, or what the servers say of themselves where that is more.
    pub utilization: Option<f64>,
    /// Sessions that it can carry, of what is up and as far as reports are trusted. `None`: neither configured nor
    /// reported.
    pub capacity: Option<f64>,
    /// The same as if all reports were fresh.
    pub nominal: Option<f64>,
    /// Sessions that begin, per second, where most by weight reported that lately ([`Trust::Predicted`] at worst).
    pub starts_per_s: Option<f64>,
    /// Of the oldest report that counts.
    pub age: Option<Duration>,
    /// In the oldest report that counts.
    pub trust: Trust,
    /// Of the newest report that counts.
    pub newest: Option<Duration>,
    /// At least so are the reports of half of the machines that ever reported, by weight: one whose agent died does not
    /// make us deaf to its fellows.
    pub majority: Trust,
    /// Machines that are up and have not reported, where the region does not report as a whole.
    pub silent: usize,
}

impl State {
    /// Its load in sessions: [`State::sessions`], or more where the servers are fuller than these would make them.
    /// `None`: not known.
    pub fn load(&self) -> Option<f64> {
        let by_share = self.utilization.zip(self.capacity).map(|(share, capacity)| share * capacity);
        match (self.sessions, by_share) {
            (Some(sessions), Some(by_share)) => Some(sessions.max(by_share)),
            (sessions, by_share) => sessions.or(by_share),
        }
    }

    /// Sessions that it can still take. `None`: load or capacity is not known.
    #[cfg(test)]
    fn room(&self) -> Option<f64> {
        Some((self.capacity? - self.load()?).max(0.0))
    }
}

/// Who reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// By a public address.
    Server(IpAddr),
    Machine(MachineId),
    /// A region as a whole.
    Region(RegionId),
}

/// Something about a region's reports that is worth noting.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub region: RegionId,
    pub name: Arc<str>,
    pub what: Change,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Reports that were of now have grown so old.
    Stale { age: Duration, trust: Trust },
    /// Reports are of now again, or for the first time.
    Fresh,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Change::Fresh => write!(f, "load of {} is reported", self.name),
            Change::Stale { age, trust } => {
                let (name, age) = (&self.name, age.as_secs());
                write!(f, "load reports of {name} went stale: {age} s old, {} of the capacity counts", trust.factor())
            }
        }
    }
}

/// Reports by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub believed: u64,
    pub doubted: u64,
    /// By [`Why`].
    pub refused: [u64; Why::ALL.len()],
}

#[derive(Clone, Debug)]
struct Site {
    own: Reporter,
    /// What was said to be sent there last. `None`: nobody said.
    expected: Option<Expected>,
    told: Trust,
}

impl Site {
    fn is_sent_viewers(&self) -> bool {
        self.expected.is_some_and(|expected| expected.starts_per_s > 0.0)
    }

    fn new() -> Site {
        Site { own: Reporter::new(), expected: None, told: Trust::Never }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Board {
    known: Arc<Known>,
    /// As [`Known::machines`].
    machines: Vec<Reporter>,
    /// As [`Known::regions`].
    sites: Vec<Site>,
    counts: Counts,
}

impl Board {
    /// From now on these report, and no others. Machines and regions that were known keep what is believed of them: a
    /// machine by any of its addresses, a region by its name and any of its machines.
    pub fn retain(&mut self, known: Arc<Known>) {
        let before = Arc::clone(&self.known);
        let machines = known.machines.iter().map(|machine| {
            let was = machine.addresses.iter().find_map(|address| before.machine(*address));
            was.map_or_else(Reporter::new, |id| self.machines[id.0 as usize].clone())
        });
        let machines = machines.collect();
        let mut named: HashMap<&str, Vec<(RegionId, &Region)>> = HashMap::new();
        for (id, region) in before.regions() {
            named.entry(&region.name).or_default().push((id, region));
        }
        let was = |region: &Region| {
            let mut members =
                region.members.iter().flat_map(|member| &known.machines[member.machine.0 as usize].addresses);
            let same = members.find_map(|address| {
                let machine = before.machine(*address)?;
                let is_of = |region: &Region| region.members.iter().any(|member| member.machine == machine);
                named.get(&*region.name)?.iter().find(|(_, region)| is_of(region)).map(|(id, _)| *id)
            });
            same.map_or_else(Site::new, |id| self.sites[id.0 as usize].clone())
        };
        let sites = known.regions.iter().map(was).collect();
        (self.known, self.machines, self.sites) = (known, machines, sites);
    }

    pub fn known(&self) -> &Arc<Known> {
        &self.known
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes a report. Errors, which are counted: nobody of that name is known, or there are more sessions than it could ever
    /// have.
    pub fn hear(&mut self, from: Source, report: &Report, now: Instant) -> Result<Heard, Fault> {
        let too_many = |(sessions, capacity): &(f64, f64)| *sessions > capacity * MAX_UTILIZATION;
        if let Some((sessions, capacity)) = report.sessions().zip(self.capacity_of(from)).filter(too_many) {
            let what = format!("{sessions} sessions, more than ten times the capacity of {capacity} that is written");
            return Err(self.refuse(Fault::new(Why::Figure, what)));
        }
        let heard = match from {
            Source::Server(address) => match self.known.machine(address) {
                Some(machine) => self.machine_said(machine, report, now),
                None => {
                    return Err(self.refuse(Fault::new(Why::Unknown, format!("no server has the address {address}"))));
                }
            },
            Source::Machine(machine) if (machine.0 as usize) < self.machines.len() => {
                self.machine_said(machine, report, now)
            }
            Source::Region(region) if (region.0 as usize) < self.sites.len() => {
                let site = &mut self.sites[region.0 as usize];
                let sending = site.is_sent_viewers();
                site.own.hear(report, sending, now)
            }
            Source::Machine(_) | Source::Region(_) => {
                return Err(self.refuse(Fault::new(Why::Unknown, "it is not known any more")));
            }
        };
        match heard {
            Heard::Believed => self.counts.believed += 1,
            Heard::Doubted => self.counts.doubted += 1,
        }
        Ok(heard)
    }

    /// Written sessions of a region, or of all regions of a machine; `None` where one has none.
    fn capacity_of(&self, from: Source) -> Option<f64> {
        let of_region = |id: &RegionId| self.known.regions.get(id.0 as usize)?.size.capacity;
        let machine = match from {
            Source::Region(id) => return of_region(&id),
            Source::Server(address) => self.known.machine(address)?,
            Source::Machine(machine) => machine,
        };
        self.known.machines.get(machine.0 as usize)?.regions.iter().map(of_region).sum()
    }

    fn machine_said(&mut self, machine: MachineId, report: &Report, now: Instant) -> Heard {
        let at = machine.0 as usize;
        let sending =
            self.known.machines[at].regions.iter().any(|region| self.sites[region.0 as usize].is_sent_viewers());
        self.machines[at].hear(report, sending, now)
    }

    /// Counts a report that did not come so far as to be heard, and gives its fault back.
    pub fn refuse(&mut self, fault: Fault) -> Fault {
        self.counts.refused[fault.why as usize] += 1;
        fault
    }

    /// The region of this name; see [`Known::find`]. Errors are not counted: [`Board::refuse`] them where a report is lost.
    pub fn find(&self, name: &str, zone: Option<&str>) -> Result<RegionId, Fault> {
        let what = match (self.known.find(name, zone), zone) {
            (Ok(id), _) => return Ok(id),
            (Err(NoRegion::UnknownZone), zone) => format!("no zone is called {:?}", zone.unwrap_or_default()),
            (Err(NoRegion::Ambiguous), _) => {
                format!("several zones have a region {name:?} of their own; give the zone")
            }
            (Err(NoRegion::Unknown), Some(zone)) => format!("{zone} has no region {name:?}"),
            (Err(NoRegion::Unknown), None) => format!("no zone has a region {name:?}"),
        };
        Err(Fault::new(Why::Unknown, what))
    }

    /// Tells what is being sent to a region from now on: to predict what its load becomes while reports are old, and to
    /// doubt reports of an idle one. Until somebody tells, the sessions of an old report are taken to stay.
    pub fn expect(&mut self, id: RegionId, expected: Expected) {
        if let Some(site) = self.sites.get_mut(id.0 as usize) {
            site.expected = Some(expected);
        }
    }

    /// What is believed of a region. `is_up`: whether viewers are given to a machine there.
    pub fn state(&self, id: RegionId, is_up: impl Fn(MachineId) -> bool, now: Instant) -> State {
        let (Some(site), Some(region)) = (self.sites.get(id.0 as usize), self.known.regions.get(id.0 as usize)) else {
            return State::UNKNOWN;
        };
        let up: Vec<_> = region.members.iter().filter(|member| is_up(member.machine)).collect();
        let weight = |members: &mut dyn Iterator<Item = f64>| members.sum::<f64>();
        let all = weight(&mut region.members.iter().map(|member| member.weight));
        let all_up = weight(&mut up.iter().map(|member| member.weight));
        let up_part = if all > 0.0 { all_up / all } else { 0.0 };
        let last_of_all = up.iter().map(|member| self.machines[member.machine.0 as usize].at()).min().flatten();
        if site.own.at().is_some_and(|own| last_of_all.is_none_or(|machines| machines <= own)) {
            return whole(site, region, up_part, now);
        }
        let mut sum = Sum::default();
        for member in &up {
            let reporter = &self.machines[member.machine.0 as usize];
            let nominal = region.size.capacity.map(|capacity| capacity * member.weight / all).or(reporter.capacity());
            let part = site.expected.map(|expected| expected.part(member.weight / all_up));
            let reading = reporter.reading(nominal, region.size.session_bits, part, now);
            sum.add(member.weight, nominal, reading);
            sum.starts(member.weight, reporter.starts_per_s(now));
        }
        sum.state(all_up, region.size.capacity.is_some(), up.len())
    }

    /// What has changed since the last time. To be called about once a second, after [`Board::state`].
    pub fn turn(&mut self, id: RegionId, state: &State) -> Option<Event> {
        let site = self.sites.get_mut(id.0 as usize)?;
        let is_stale = |trust: Trust| trust > Trust::Predicted;
        let told = site.told;
        if state.trust != Trust::Predicted || !is_stale(told) {
            // Of what is not fresh yet the word is still to come.
            site.told = state.trust;
        }
        let what = match state.trust {
            Trust::Fresh if is_stale(told) => Change::Fresh,
            // Once for each step. What never reported has nothing to lose.
            trust if is_stale(trust) && trust > told && trust != Trust::Never => {
                Change::Stale { age: state.age.unwrap_or_default(), trust }
            }
            _ => return None,
        };
        Some(Event { region: id, name: Arc::clone(&self.known.region_at(id).name), what })
    }
}

impl State {
    /// Of a region that nobody knows of.
    pub const UNKNOWN: State = State {
        sessions: None,
        utilization: None,
        capacity: None,
        nominal: None,
        starts_per_s: None,
        age: None,
        trust: Trust::Never,
        newest: None,
        majority: Trust::Never,
        silent: 0,
    };
}

/// Of a region that reports as a whole.
fn whole(site: &Site, region: &Region, up_part: f64, now: Instant) -> State {
    let nominal = region.size.capacity.or(site.own.capacity()).map(|capacity| capacity * up_part);
    let mut sum = Sum::default();
    sum.add(1.0, nominal, site.own.reading(nominal, region.size.session_bits, site.expected, now));
    sum.starts(1.0, site.own.starts_per_s(now));
    sum.state(1.0, nominal.is_some(), 1)
}

/// A region's machines, added up.
#[derive(Default)]
struct Sum {
    sessions: f64,
    /// Of the machines whose sessions are known.
    counted: f64,
    /// Utilisations by weight, and the weights of these machines.
    share: f64,
    shared: f64,
    capacity: f64,
    /// Not made smaller by the age of reports.
    nominal: f64,
    /// Of the machines whose capacity is known.
    sized: f64,
    starts: f64,
    /// Of the machines that tell starts.
    starting: f64,
    age: Option<Duration>,
    newest: Option<Duration>,
    /// Machines that reported: their trust and weight.
    trusts: Vec<(Trust, f64)>,
}

impl Sum {
    fn add(&mut self, weight: f64, nominal: Option<f64>, reading: Option<Reading>) {
        let trust = reading.map_or(Trust::Never, |reading| reading.trust);
        if let Some(nominal) = nominal {
            self.capacity += nominal * trust.factor();
            self.nominal += nominal;
            self.sized += weight;
        }
        let Some(reading) = reading else { return };
        self.age = self.age.max(Some(reading.age));
        self.newest = Some(self.newest.map_or(reading.age, |newest| newest.min(reading.age)));
        self.trusts.push((reading.trust, weight));
        if let Some(sessions) = reading.sessions {
            self.sessions += sessions;
            self.counted += weight;
        }
        if let Some(share) = reading.utilization {
            // The same load is a larger share of what counts of the capacity.
            self.share += weight * share / trust.factor();
            self.shared += weight;
        }
    }

    fn starts(&mut self, weight: f64, starts: Option<f64>) {
        if let Some(starts) = starts {
            self.starts += starts;
            self.starting += weight;
        }
    }

    /// The trust that half of those who reported have, by weight, or better.
    fn majority(&mut self) -> Trust {
        self.trusts.sort_by_key(|(trust, _)| *trust);
        let half = self.trusts.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
        let mut passed = 0.0;
        let median = self.trusts.iter().find(|(_, weight)| {
            passed += weight;
            passed >= half
        });
        median.map_or(Trust::Never, |(trust, _)| *trust)
    }

    /// `all`: the weight of all that are up.
    fn state(mut self, all: f64, configured: bool, up: usize) -> State {
        let majority = self.majority();
        let sessions = (self.counted > 0.0).then(|| self.sessions * (all / self.counted).max(1.0));
        // A machine that tells nothing is like its fellows, but counts for less.
        let silent = (self.sized > 0.0 && !configured).then(|| (all - self.sized).max(0.0) / self.sized);
        let likely = self.capacity * silent.unwrap_or(0.0) * Trust::Never.factor();
        let is_sized = self.sized > 0.0 || configured;
        let capacity = is_sized.then_some(self.capacity + likely);
        let by_count = sessions.zip(capacity).and_then(|(sessions, capacity)| {
            // Without any capacity it is as full as can be told.
            (sessions > 0.0 || capacity > 0.0).then(|| sessions / capacity.max(1.0))
        });
        let by_share = (self.shared > 0.0).then(|| self.share / self.shared);
        let utilization = match (by_count, by_share) {
            (Some(a), Some(b)) => Some(f64::max(a, b)),
            (a, b) => a.or(b),
        };
        State {
            sessions,
            utilization,
            capacity,
            nominal: is_sized.then_some(self.nominal * (1.0 + silent.unwrap_or(0.0))),
            // What few tell says little of the others.
            starts_per_s: (self.starting > 0.0 && self.starting * 2.0 >= all)
                .then(|| self.starts * (all / self.starting).max(1.0)),
            age: self.age,
            trust: self.trusts.last().map_or(Trust::Never, |(worst, _)| *worst),
            newest: self.newest,
            majority,
            silent: up - self.trusts.len().min(up),
        }
    }
}

#[cfg(test)]
mod tests;
