//! A small world on the bundled database, steered for minutes of virtual time: regions answer with the sessions that the
//! plan sends them.

use std::time::Duration;

use super::view::Stage;
use super::*;
use crate::config::{Shared, read_zone};
use crate::geo::Database;
use crate::health::Verdict;
use crate::load::Trust;
use crate::snapshot::standing::{Forced, Share, Standing};
use crate::snapshot::{Served, TargetId};
use crate::steering::cells::Facts;
use crate::steering::cost::{Distance, Site};
use crate::steering::pick::Mask;

const ZONE: &str = r#"
    zone = "live.example"
    ns   = ["ns1.example.net"]
    [check]
    tcp = 1935
    [region.us]
    near = "Ashburn"
    a  = ["192.0.2.1"]
    capacity = "10000 sessions"
    [region.eu]
    near = "Frankfurt"
    a  = ["192.0.2.11"]
    capacity = "10000 sessions"
    [region.ap]
    near = "Singapore"
    a  = ["192.0.2.21"]
    capacity = "10000 sessions"
    [stream.live]
    [stream.home]
    policy = "priority"
    regions = ["eu"]
"#;

/// Mean length of a session, s.
const DWELL: f64 = 600.0;

struct Cells(Vec<Vec<f64>>);

impl Demand for Cells {
    fn by_cell(&self, group: u32) -> Option<&[f64]> {
        Some(&self.0[group as usize])
    }
}

struct World {
    snapshot: Arc<Snapshot>,
    known: Arc<Known>,
    pilot: Pilot,
    demand: Cells,
    sessions: Vec<f64>,
    /// As last told.
    told: Vec<f64>,
    /// Starts for a query.
    starts: f64,
    /// Reports come.
    telling: bool,
    /// So often.
    period: Duration,
    heard: Instant,
    now: Instant,
}

impl World {
    /// `total`: sessions that want to be served, in proportion to the addresses of each cell.
    fn new(zone: &str, total: f64) -> World {
        let read = read_zone("zone.toml".as_ref(), zone.into(), 0, &Shared::default());
        let served = Served { zone: Arc::new(read.zone.expect("a sound zone")), serial: 1 };
        let database = Arc::new(Database::bundled());
        let snapshot = Arc::new(Snapshot::compile(vec![served], &database, |_| Verdict::Up, None));
        let known = Arc::new(Known::of(&snapshot));
        let mut pilot = Pilot::default();
        pilot.adopt(&snapshot, &known, &Distance);
        let facts = &snapshot.geography().facts;
        let blocks: f64 = facts.iter().map(|facts| f64::from(facts.blocks)).sum();
        // A query for each start.
        let starts =
            |part: f64| facts.iter().map(|facts| total * part / DWELL * f64::from(facts.blocks) / blocks).collect();
        let demand = Cells(vec![starts(1.0), vec![0.0; facts.len()]]);
        let sessions = vec![0.0; known.regions.len()];
        let (told, now, period) = (sessions.clone(), Instant::now(), Duration::from_secs(1));
        World { snapshot, known, pilot, demand, sessions, told, starts: 1.0, telling: true, period, heard: now, now }
    }

    /// Where the answers of now send the viewers: starts/s by region.
    fn rates(&self) -> Vec<f64> {
        let mut rates = vec![0.0; self.known.regions.len()];
        let stream = self.snapshot.stream(0);
        let rankings = self.snapshot.rankings(stream);
        let field = self.snapshot.field(stream, crate::config::settings::Family::V4);
        for (cell, starts) in self.demand.0[0].iter().enumerate() {
            let ranking = rankings.ranking(crate::geo::CellId(cell as u16));
            let candidates = crate::steering::pick::candidates(ranking, &field);
            for (region, part) in crate::steering::pick::expected(ranking, candidates, field.open) {
                rates[usize::from(region)] += starts * part;
            }
        }
        rates
    }

    fn states(&self) -> Vec<State> {
        let age = self.now - self.heard;
        let trust = Trust::at(age, self.period);
        let state = |sessions: &f64| State {
            sessions: Some(*sessions),
            capacity: Some(10_000.0 * trust.factor()),
            nominal: Some(10_000.0),
            age: Some(age),
            trust,
            newest: Some(age),
            majority: trust,
            ..State::UNKNOWN
        };
        self.told.iter().map(state).collect()
    }

    /// A second later; gives the part of the traffic that is sent elsewhere.
    fn second(&mut self) -> f64 {
        let before = self.rates();
        self.now += Duration::from_secs(1);
        for (sessions, rate) in self.sessions.iter_mut().zip(&before) {
            *sessions += rate * self.starts - *sessions / DWELL;
        }
        if self.telling && self.now - self.heard >= self.period {
            self.heard = self.now;
            self.told.clone_from(&self.sessions);
        }
        let mut changes = self.pilot.react();
        self.publish(&mut changes);
        let mut changes = self.pilot.step(&self.states(), &self.demand, self.now);
        self.publish(&mut changes);
        let after = self.rates();
        let moved: f64 = before.iter().zip(&after).map(|(before, after)| (after - before).max(0.0)).sum();
        moved / after.iter().sum::<f64>()
    }

    fn publish(&mut self, changes: &mut Vec<Change>) {
        if !changes.is_empty() {
            self.snapshot = Arc::new(self.snapshot.with_rankings(changes.drain(..)));
            self.pilot.adopt(&self.snapshot, &self.known, &Distance);
        }
    }

    /// Files are read anew. Demand of the first group stays, that of all others is nothing.
    fn reload(&mut self, zone: &str) {
        let facts_before = self.snapshot.geography().facts.clone();
        let read = read_zone("zone.toml".as_ref(), zone.into(), 0, &Shared::default());
        let served = Served { zone: Arc::new(read.zone.expect("a sound zone")), serial: 2 };
        let database = Arc::clone(&self.snapshot.geography().database);
        let compiled = Snapshot::compile(vec![served], &database, |_| Verdict::Up, Some(&self.snapshot));
        self.snapshot = Arc::new(compiled);
        let known = Known::of(&self.snapshot);
        let name = |known: &Known, id: usize| Arc::clone(&known.regions[id].name);
        let was = |id| (0..self.sessions.len()).find(|before| name(&self.known, *before) == name(&known, id));
        self.sessions = (0..known.regions.len()).map(|id| was(id).map_or(0.0, |id| self.sessions[id])).collect();
        self.told.clone_from(&self.sessions);
        self.known = Arc::new(known);
        let facts = &self.snapshot.geography().facts;
        let all = |facts: &[Facts]| facts.iter().map(|facts| f64::from(facts.blocks)).sum::<f64>();
        let total: f64 = self.demand.0[0].iter().sum();
        assert!((all(facts) / all(&facts_before) - 1.0).abs() < 0.01);
        let shape = facts.iter().map(|cell| total * f64::from(cell.blocks) / all(facts)).collect();
        self.demand.0 = vec![vec![0.0; facts.len()]; self.snapshot.groups().len()];
        self.demand.0[self.snapshot.stream(0).group as usize] = shape;
        self.pilot.adopt(&self.snapshot, &self.known, &Distance);
    }

    fn seconds(&mut self, seconds: u32) -> f64 {
        (0..seconds).map(|_| self.second()).fold(0.0, f64::max)
    }

    fn verdict(&mut self, region: u32, verdict: Verdict) {
        self.snapshot = Arc::new(self.snapshot.with_verdicts(&[(TargetId(region), verdict)]));
        self.pilot.adopt(&self.snapshot, &self.known, &Distance);
    }

    fn shares(&self) -> Vec<f64> {
        let rates = self.rates();
        rates.iter().map(|rate| rate / rates.iter().sum::<f64>()).collect()
    }
}

#[test]
fn without_any_report_viewers_go_to_the_nearest_region_whatever_capacities_are_written() {
    let mut world = World::new(ZONE, 100_000.0);
    let mut states = world.states();
    states.iter_mut().for_each(|state| (state.majority, state.newest, state.sessions) = (Trust::Never, None, None));
    for _ in 0..3 {
        assert!(world.pilot.step(&states, &world.demand, world.now).is_empty());
    }
    assert_eq!(world.pilot.view().markets[0].stage, Stage::Unreported);
}

#[test]
fn a_region_that_would_overflow_sends_its_farthest_viewers_elsewhere_and_none_more() {
    let mut world = World::new(ZONE, 23_500.0);
    let nearest = world.shares();
    assert!(nearest.iter().any(|share| share * 23_500.0 > 10_000.0), "somebody would overflow: {nearest:?}");
    let most = world.seconds(2400);
    let view = world.pilot.view();
    let [market] = &view.markets[..] else { panic!("one market") };
    assert_eq!(market.stage, Stage::Steered);
    assert!(world.sessions.iter().all(|sessions| *sessions < 9_300.0), "{:?}", world.sessions);
    assert!(world.sessions.iter().sum::<f64>() > 22_000.0);
    assert!(market.certificate.unwrap().gap < 0.01, "{market:?}");
    assert!(most <= 0.023, "at most two percent in a second: {most}");
    // Other policies are none of ours.
    assert_eq!(market.regions.len(), 3);
}

#[test]
fn regions_that_report_four_times_a_minute_or_once_are_kept_from_overflowing_as_well() {
    for period in [15, 60] {
        let mut world = World { period: Duration::from_secs(period), ..World::new(ZONE, 23_500.0) };
        world.seconds(3600);
        assert_eq!(world.pilot.view().markets[0].stage, Stage::Steered);
        assert!(world.sessions.iter().all(|sessions| *sessions < 9_500.0), "{period} s: {:?}", world.sessions);
        assert!(world.sessions.iter().sum::<f64>() > 22_000.0);
    }
}

#[test]
fn where_all_have_room_everybody_goes_to_the_nearest() {
    let mut world = World::new(ZONE, 6_000.0);
    let nearest = world.shares();
    world.seconds(1200);
    let shares = world.shares();
    assert!(nearest.iter().zip(&shares).all(|(a, b)| (a - b).abs() < 0.005), "{nearest:?} {shares:?}");
}

#[test]
fn viewers_of_a_lost_region_go_where_there_is_room_at_once() {
    let mut world = World::new(ZONE, 16_000.0);
    world.seconds(2400);
    while world.pilot.prepare() {}
    world.verdict(0, Verdict::Down);
    let lost = std::mem::take(&mut world.sessions[0]);
    let mut changes = world.pilot.react();
    assert!(!changes.is_empty(), "a table was prepared");
    world.publish(&mut changes);
    let rates = world.rates();
    assert_eq!(rates[0], 0.0);
    // All who lost their region come back as the answers of now say.
    let rest: f64 = rates.iter().sum();
    for (sessions, rate) in world.sessions.iter_mut().zip(&rates) {
        *sessions += lost * rate / rest;
    }
    assert!(world.sessions.iter().all(|sessions| *sessions < 10_500.0), "{:?}", world.sessions);
    world.seconds(600);
    assert!(world.sessions.iter().all(|sessions| *sessions < 9_500.0), "{:?}", world.sessions);
    world.verdict(0, Verdict::Up);
    world.seconds(3000);
    assert!(world.sessions[0] > 3_000.0, "it is used again: {:?}", world.sessions);
}

#[test]
fn a_region_that_drains_is_left_as_its_capacity_goes() {
    let mut world = World::new(ZONE, 12_000.0);
    world.seconds(1200);
    let before = world.shares();
    for step in (0..=120u32).rev() {
        let standing = Standing { share: Share::of(f64::from(step) / 120.0), ..Standing::default() };
        world.snapshot = Arc::new(world.snapshot.with_standings([((0, 1), standing)]));
        world.pilot.adopt(&world.snapshot, &world.known, &Distance);
        world.second();
    }
    let after = world.shares();
    assert!(before[1] > 0.2 && after[1] == 0.0, "{before:?} {after:?}");
    let down = Standing { forced: Some(Forced::Down), ..Standing::default() };
    world.snapshot =
        Arc::new(world.snapshot.with_standings([((0, 0), down.clone()), ((0, 1), down.clone()), ((0, 2), down)]));
    world.pilot.adopt(&world.snapshot, &world.known, &Distance);
    world.second();
    assert!((world.shares().iter().sum::<f64>() - 1.0).abs() < 1e-9, "all down: an answer all the same");
}

#[test]
fn without_reports_the_plan_is_careful_for_a_while_and_then_goes_home_bit_by_bit() {
    let mut world = World::new(ZONE, 23_500.0);
    let nearest = world.shares();
    world.seconds(2400);
    let steered = world.shares();
    world.telling = false;
    let careful = world.seconds(880);
    assert_eq!(world.pilot.view().markets[0].stage, Stage::Blind);
    assert!(careful <= 0.023, "{careful}");
    let most = world.seconds(400);
    assert_eq!(world.pilot.view().markets[0].stage, Stage::Unreported);
    assert!(most <= 0.023, "at most two percent in a second: {most}");
    assert_eq!(world.shares(), nearest);
    world.telling = true;
    world.seconds(900);
    let again = world.shares();
    assert!(again.iter().zip(&steered).all(|(a, b)| (a - b).abs() < 0.05), "{again:?} {steered:?}");
}

#[test]
fn what_was_learned_outlives_a_reload() {
    let mut world = World::new(ZONE, 12_000.0);
    world.demand.0[0].iter_mut().for_each(|starts| *starts /= 5.0);
    world.starts = 5.0;
    let total = |world: &World| world.pilot.view().markets[0].demand;
    // A query stands for several starts, as sessions show.
    world.seconds(900);
    let asked: f64 = world.demand.0[0].iter().sum();
    assert!(total(&world) > 2.0 * asked, "{}", total(&world));
    let saved = serde_json::to_string(&world.pilot.saved()).unwrap();
    let mut restored = Pilot::restored(serde_json::from_str(&saved).unwrap());
    restored.adopt(&world.snapshot, &world.known, &Distance);
    restored.step(&world.states(), &world.demand, world.now);
    assert!(restored.view().markets[0].demand > 2.0 * asked);
    let (before, after) = (world.pilot.saved(), restored.saved());
    assert_eq!(before.regions.len(), after.regions.len());
    for (region, before) in before.regions {
        let after = after.regions[&region];
        let length = before.dwell_s.zip(after.dwell_s);
        assert!(length.is_some_and(|(before, after)| (before / after - 1.0).abs() < 0.001), "{region}: {length:?}");
        let (before, after) = (before.scale.unwrap(), after.scale.unwrap());
        assert!((before / after - 1.0).abs() < 0.01, "{region}: {before} {after}");
    }
}

/// What is planned moves bit by bit, whatever is read anew.
fn reloaded(zone: &str) {
    let mut world = World::new(ZONE, 23_500.0);
    let nearest = world.shares();
    world.seconds(2400);
    let steered = world.shares();
    assert!(nearest.iter().zip(&steered).any(|(a, b)| (a - b).abs() > 0.05), "{nearest:?} {steered:?}");
    world.reload(zone);
    assert!(world.pilot.is_disturbed(), "the next step does not wait");
    world.second();
    let after = world.shares();
    let moved: f64 = steered.iter().zip(&after).map(|(a, b)| (a - b).max(0.0)).sum();
    assert!(moved < 0.025, "{steered:?} {after:?}");
    assert!(!world.pilot.is_disturbed());
    let most = world.seconds(300);
    assert!(most <= 0.023, "at most two percent in a second: {most}");
    assert!(world.sessions.iter().all(|sessions| *sessions < 9_500.0), "{:?}", world.sessions);
}

#[test]
fn a_stream_more_sends_nobody_elsewhere() {
    reloaded(&format!("{ZONE}\n[stream.a]\n[stream.z]\nbias = {{ eu = 5 }}"));
}

#[test]
fn other_cells_send_nobody_elsewhere() {
    reloaded(&format!("{ZONE}\n[stream.zz]\nrules = [{{ from = [\"FR\", \"DE\"], regions = [\"eu\"] }}]"));
}

#[test]
fn a_region_more_takes_its_viewers_bit_by_bit() {
    let more = "[region.sa]\nnear = \"Sao Paulo\"\na = [\"192.0.2.31\"]\ncapacity = \"9000 sessions\"\n[stream.live]";
    reloaded(&ZONE.replace("[stream.live]", more));
}

#[test]
fn a_reload_amid_a_loss_does_not_take_those_who_come_back_for_demand() {
    let mut world = World::new(ZONE, 16_000.0);
    world.seconds(2400);
    world.verdict(0, Verdict::Down);
    world.second();
    let total = |world: &World| world.pilot.view().markets[0].demand;
    let before = total(&world);
    // Players ask again and again.
    world.demand.0[0].iter_mut().for_each(|asked| *asked *= 3.0);
    world.reload(&format!("{ZONE}\n[stream.zz]\nrules = [{{ from = [\"FR\", \"DE\"], regions = [\"eu\"] }}]"));
    world.verdict(0, Verdict::Down);
    world.seconds(30);
    assert!((total(&world) / before - 1.0).abs() < 0.05, "{} {before}", total(&world));
}

#[test]
fn the_size_of_a_region_follows_what_would_come_if_none_had_a_price() {
    let mut world = World::new(ZONE, 23_500.0);
    let nearest = world.shares();
    let mut scalers = super::scale::Scalers::default();
    let first = scalers.look(&world.pilot.view(), world.now);
    assert!(first.regions.iter().all(|region| region.size.is_err()), "nobody has looked yet: {first:?}");
    world.seconds(2400);
    let scale = scalers.look(&world.pilot.view(), world.now);
    let sizes: Vec<_> = scale.regions.iter().map(|region| region.size.clone().expect("it reports")).collect();
    assert!(sizes.iter().any(|size| size.price_ms > 0.0));
    for (size, share) in sizes.iter().zip(&nearest) {
        // One server of 10,000 sessions each.
        let wanted = share * 2.35;
        assert!((size.unconstrained.unwrap() - wanted).abs() < 0.1 * wanted + 0.02, "{size:?} {wanted}");
        let least = (0.9 * wanted / 0.70).ceil() as u32;
        assert!((least..=least + 2).contains(&size.desired.now), "{size:?} {wanted}");
        assert!(size.desired.after_loss >= size.desired.now);
    }
    // Whoever loses a region goes somewhere: all of it is expected at the others.
    let market = &world.pilot.view().markets[0];
    let total: f64 = market.regions.iter().map(|region| region.unconstrained_rate).sum();
    let lost: Vec<f64> =
        market.regions.iter().filter_map(|region| Some(region.scaling.worst_loss.as_ref()?.1)).collect();
    assert!(lost.iter().sum::<f64>() > 0.3 * total && lost.iter().all(|rate| *rate < total), "{lost:?} of {total}");
    // What is admitted is what the plan may send in the end, and more while there is room.
    for (region, size) in market.regions.iter().zip(&sizes) {
        let admission = size.admission.unwrap();
        assert!(admission > region.rate && admission < 10_000.0 / 60.0, "{admission} {region:?}");
    }
    world.verdict(0, Verdict::Down);
    world.seconds(30);
    let after = scalers.look(&world.pilot.view(), world.now);
    let size = |at: usize| after.regions[at].size.clone().unwrap();
    assert_eq!(size(0).desired.now, sizes[0].desired.now, "it keeps what it had");
    assert_eq!(size(0).admission, Some(0.0));
    assert!(size(1).unconstrained.unwrap() >= sizes[1].unconstrained.unwrap() - 0.02);
    let worst = |at: usize| world.pilot.view().markets[0].regions[at].scaling.worst_loss.clone();
    assert!((1..3).all(|at| worst(at).is_none_or(|(name, _)| &*name != "us")), "what is gone cannot be lost");
}

/// Twice as much is foreseen for the stream that is steered by load.
struct Doubling<'a>(&'a Cells, Vec<f64>);

impl Demand for Doubling<'_> {
    fn by_cell(&self, group: u32) -> Option<&[f64]> {
        self.0.by_cell(group)
    }

    fn ahead(&self, group: u32) -> Option<&[f64]> {
        (group == 0).then_some(&self.1)
    }
}

/// The ways to the first region take so many ms more.
struct Slower(f32);

impl Costs for Slower {
    fn fill(&self, cells: &[Facts], to: &[Site<'_>], out: &mut Vec<f32>) {
        Distance.fill(cells, to, out);
        out.chunks_exact_mut(to.len()).for_each(|row| row[0] += self.0);
    }
}

#[test]
fn ways_that_took_hardly_longer_change_no_answer() {
    let mut world = World::new(ZONE, 6_000.0);
    world.seconds(120);
    world.pilot.price(&Slower(1.5));
    assert!(!world.pilot.is_disturbed());
    world.pilot.price(&Slower(2.5));
    assert!(world.pilot.is_disturbed());
    world.seconds(2);
    world.pilot.price(&Slower(1.0));
    assert!(!world.pilot.is_disturbed(), "since the last that was passed on");
}

/// What an event is expected to bring.
struct Expecting<'a>(&'a Cells);

impl Demand for Expecting<'_> {
    fn by_cell(&self, group: u32) -> Option<&[f64]> {
        self.0.by_cell(group)
    }

    fn is_raised(&self, _: u32) -> bool {
        true
    }
}

#[test]
fn ahead_of_an_event_answers_are_brief_and_the_plan_stays() {
    let mut world = World::new(ZONE, 23_500.0);
    world.seconds(1200);
    let (group, shares) = (world.snapshot.stream(0).group, world.shares());
    let is_brief = |world: &World| world.snapshot.rankings_of(group).brief() == Mask::MAX;
    let others = world.pilot.be_brief(&[group, 1 - group].into());
    assert_eq!(others, [1 - group].into(), "those that are not steered by load");
    for expected in [true, true, false] {
        world.pilot.be_brief(&if expected { [group].into() } else { BTreeSet::new() });
        world.second();
        assert!(is_brief(&world) == expected && world.snapshot.rankings_of(group).is_solved());
        let moved: f64 = shares.iter().zip(world.shares()).map(|(a, b)| (a - b).max(0.0)).sum();
        assert!(moved < 0.05, "{shares:?} {:?}", world.shares());
    }
    world.pilot.be_brief(&[group].into());
    world.second();
    world.reload(&format!("{ZONE}\n[stream.z]"));
    world.pilot.be_brief(&[world.snapshot.stream(0).group].into());
    world.second();
    let group = world.snapshot.stream(0).group;
    assert_eq!(world.snapshot.rankings_of(group).brief(), Mask::MAX, "a reload changes nothing of that");
}

#[test]
fn what_an_event_is_expected_to_bring_teaches_nothing() {
    let mut world = World::new(ZONE, 6_000.0);
    world.told = vec![1_000.0; 3];
    for _ in 0..300 {
        world.now += Duration::from_secs(1);
        world.heard = world.now;
        world.pilot.step(&world.states(), &Expecting(&world.demand), world.now);
    }
    assert!(world.pilot.saved().regions.values().all(|learned| learned.scale.is_none()));
    assert_eq!(world.pilot.view().markets[0].stage, Stage::Unreported);
}

#[test]
fn what_is_foreseen_is_told_by_region() {
    let mut world = World::new(ZONE, 6_000.0);
    world.seconds(30);
    let view = world.pilot.view();
    let regions = &view.markets[0].regions;
    assert!(
        regions.iter().all(|region| region.scaling.worst_loss.is_none()),
        "it is not known what a query stands for"
    );
    world.seconds(60);
    assert!(world.pilot.view().markets[0].regions.iter().all(|region| region.scaling.ahead.is_none()));
    world.now += Duration::from_secs(20);
    world.heard = world.now;
    let twice = world.demand.0[0].iter().map(|starts| starts * 2.0).collect();
    world.pilot.step(&world.states(), &Doubling(&world.demand, twice), world.now);
    for region in &world.pilot.view().markets[0].regions {
        assert!((region.scaling.ahead.unwrap() - 2.0).abs() < 1e-6, "{region:?}");
    }
}

/// By distance, and none is sure.
struct Doubtful;

impl Costs for Doubtful {
    fn fill(&self, cells: &[Facts], to: &[Site<'_>], out: &mut Vec<f32>) {
        Distance.fill(cells, to, out);
    }

    fn unsure(&self, _: &[Facts], _: &[Site<'_>], _: &mut [Mask]) {}
}

#[test]
fn a_second_choice_that_nobody_knows_is_sent_one_in_a_hundred_where_it_costs_little_more() {
    let mut world = World::new(ZONE, 6_000.0);
    world.seconds(120);
    let explored = |world: &World| {
        let rankings = world.snapshot.rankings(world.snapshot.stream(0));
        let facts = &world.snapshot.geography().facts;
        let sites: Vec<_> = world.snapshot.sample(0).regions.iter().map(|region| region.location).collect();
        let mut explored = Vec::new();
        for (cell, facts) in facts.iter().enumerate() {
            let ranking = rankings.ranking(crate::geo::CellId(cell as u16));
            if (ranking[0].weight, ranking[0].tier_end, ranking[1].weight) == (99, 2, 1) {
                let ms = |rank: usize| {
                    let to = sites[usize::from(ranking[rank].region)];
                    facts.location.zip(to).map_or(0.0, |(from, to)| crate::steering::cost::predicted_ms(from, to))
                };
                assert!((0.0..=30.01).contains(&(ms(1) - ms(0))), "{} {}", ms(0), ms(1));
                explored.push((ranking[0].region, ranking[1].region));
            }
        }
        explored
    };
    assert!(explored(&world).is_empty(), "nothing is learned where nobody measures");
    world.pilot.price(&Doubtful);
    world.second();
    let before = explored(&world);
    assert!(before.iter().any(|(first, second)| *first == 2 || *second == 2), "{before:?}");
    assert!(before.len() < world.snapshot.geography().facts.len() / 2, "{}", before.len());
    world.verdict(2, Verdict::Down);
    world.second();
    let after = explored(&world);
    assert!(!after.is_empty() && after.iter().all(|(first, second)| *first != 2 && *second != 2), "{after:?}");
    world.pilot.price(&Distance);
    world.second();
    assert!(explored(&world).is_empty());
}
