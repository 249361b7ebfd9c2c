use std::time::{Duration, Instant};

use super::*;
use crate::demand::Estimator;
use crate::demand::asked::Asked;
use crate::demand::layout::Layout;
use crate::geo::{CellId, CountryCode, Point};
use crate::server::tap;
use crate::simulate::demand::{Basis, sum};
use crate::simulate::report::{Figures, Side};
use crate::simulate::tests::{THREE, database, figures, zone};
use crate::steering::cost::{Costs, Distance, Site};

/// Two more that are steered alike, one that is not, and one that nobody asks for.
const FOUR: &str =
    "[stream.vod]\n[stream.pair]\nregions = [\"us\", \"eu\"]\n[stream.dull]\nregions = [\"ap\", \"eu\"]\n";
const PARIS: (&str, f64, f64) = ("FR", 48.9, 2.3);
const NEW_YORK: (&str, f64, f64) = ("US", 40.7, -74.0);

fn at(second: u64) -> Timestamp {
    let start: Timestamp = "2026-11-23T20:00:00Z".parse().unwrap();
    Timestamp::from_second(start.as_second() + second as i64).unwrap()
}

fn zones(texts: &[&str]) -> Vec<Arc<Zone>> {
    texts.iter().map(|text| zone(text)).collect()
}

/// What a node of these zones writes after it was asked for so long: by group and place, queries/s.
fn record(zones: &[Arc<Zone>], seconds: u64, asks: &[(u32, (&str, f64, f64), u64)]) -> Saved {
    let served = zones.iter().map(|zone| Served { zone: Arc::clone(zone), serial: 1 }).collect();
    let snapshot = Snapshot::compile(served, &database(), |_| Verdict::Up, None);
    let (mut teller, reader) = tap::ring();
    let begin = Instant::now();
    let layout = Layout::of(&snapshot);
    let mut estimator = Estimator::new(vec![reader], layout, Saved::default(), begin, at(0));
    let cell = |(country, lat, lon): (&str, f64, f64)| {
        let (country, at) = (CountryCode::parse(country), Point::new(lat, lon).unwrap());
        let facts = snapshot.geography().facts.iter().enumerate();
        let there = facts.filter(|(_, facts)| facts.country == country && facts.blocks > 0);
        let km = |location: Option<Point>| location.map_or(f64::MAX, |location| location.distance_km(at));
        let nearest = there.min_by(|(_, a), (_, b)| km(a.location).total_cmp(&km(b.location)));
        CellId(nearest.unwrap().0 as u16)
    };
    let asks: Vec<(u32, CellId, u64)> = asks.iter().map(|&(group, place, rate)| (group, cell(place), rate)).collect();
    for second in 0..seconds {
        teller.begin(snapshot.epoch());
        for (group, cell, rate) in &asks {
            (0..*rate).for_each(|n| teller.tell(Asked::new(*group, *cell, (second * 1000 + n) << 33)));
        }
        teller.publish();
        estimator.drain(begin + Duration::from_secs(second + 1), at(second + 1), || ());
    }
    estimator.save(at(seconds))
}

fn learn(saved: &mut Saved, region: &str, scale: Option<f64>, dwell_s: f64) {
    saved.pilot.regions.insert(region.into(), Learned { scale, dwell_s: Some(dwell_s) });
}

fn world(zones: &[Arc<Zone>], costs: &dyn Costs) -> World {
    World::of(vec![zones.to_vec()], &database(), costs).unwrap()
}

fn side(world: &World, demand: &Demand) -> Side {
    let (scene, open) = (&world.scenes[0], vec![false; world.regions.len()]);
    let settled = Settled::of(world, scene, &Terms { demand, closed: &open, before: None });
    Side::of(world, scene, &settled, demand, &open, None)
}

fn loads(world: &World, side: &Side) -> [f64; 3] {
    ["us", "eu", "ap"].map(|name| figures(world, side, name).load)
}

fn is_near(value: f64, expected: f64) -> bool {
    (value / expected - 1.0).abs() < 0.02
}

/// Sessions of a stream.
fn of<'a>(demand: &'a Demand, stream: &str) -> &'a Viewers {
    let found = demand.iter().find(|((_, owner), _)| owner.to_ascii().starts_with(&format!("{stream}.")));
    found.unwrap().1
}

#[test]
fn sessions_are_of_the_streams_and_squares_that_were_asked_from_and_as_many_as_queries_stand_for_there() {
    let zones = zones(&[&(THREE.to_owned() + FOUR)]);
    let mut saved = record(&zones, 400, &[(0, PARIS, 12), (0, NEW_YORK, 6), (1, PARIS, 4), (1, NEW_YORK, 2)]);
    learn(&mut saved, "stream.example/eu", Some(0.5), 600.0);
    learn(&mut saved, "stream.example/us", Some(1.0), 300.0);
    // Over a file and back, as a node has it.
    let saved: Saved = serde_json::from_str(&serde_json::to_string(&saved).unwrap()).unwrap();
    let recorded = Recorded::of(&saved, &zones, None).unwrap();
    let world = world(&zones, &Distance);
    let scene = &world.scenes[0];
    let basis = Basis::of(None, Some(recorded));
    let demand = basis.demand(&world, scene, &|_| true);
    let expected = [("live", 2700.0), ("vod", 2700.0), ("pair", 1800.0)];
    for (stream, sessions) in expected {
        assert!(is_near(of(&demand, stream).sessions, sessions), "{stream}: {}", of(&demand, stream).sessions);
    }
    assert_eq!(of(&demand, "dull").sessions, 0.0);
    let side = side(&world, &demand);
    let [us, eu, ap] = loads(&world, &side);
    // 16 queries/s of Paris at 0.5 for 600 s, 8 of New York at 1 for 300 s.
    assert!(is_near(eu, 4800.0) && is_near(us, 2400.0) && ap < 1.0, "{us} {eu} {ap}");
    assert_eq!(
        basis.words(scene, &demand),
        format!(
            "{} sessions over 4 streams, as recorded 2026-11-23 20:06 UTC; nobody asked for dull; \
             no scale of ap: the mean of the others",
            sum(&demand).round()
        )
    );
}

#[test]
fn a_given_total_keeps_the_recorded_proportions() {
    let zones = zones(&[&(THREE.to_owned() + FOUR)]);
    let mut saved = record(&zones, 400, &[(0, PARIS, 12), (1, PARIS, 4)]);
    for scale in [None, Some(0.5)] {
        learn(&mut saved, "stream.example/eu", scale, 600.0);
        let recorded = Recorded::of(&saved, &zones, None).unwrap();
        let world = world(&zones, &Distance);
        let basis = Basis::of(Some(4000.0), Some(recorded));
        let demand = basis.demand(&world, &world.scenes[0], &|_| true);
        assert!(is_near(of(&demand, "live").sessions, 1500.0) && is_near(of(&demand, "pair").sessions, 1000.0));
        let [us, eu, ap] = loads(&world, &side(&world, &demand));
        assert!(is_near(eu, 4000.0) && us + ap < 1.0, "{us} {eu} {ap}");
        let words = basis.words(&world.scenes[0], &demand);
        assert!(words.starts_with("4000 sessions given over 4 streams, spread as recorded 2026-11-23 20:06 UTC"));
    }
}

#[test]
fn without_any_scale_the_sum_is_assumed_and_said_to_be() {
    let zones = zones(&[THREE]);
    let saved = record(&zones, 400, &[(0, PARIS, 12)]);
    let recorded = Recorded::of(&saved, &zones, None).unwrap();
    assert!(!recorded.has_scale());
    let world = world(&zones, &Distance);
    let basis = Basis::of(None, Some(recorded));
    let demand = basis.demand(&world, &world.scenes[0], &|_| true);
    assert!((sum(&demand) - 21_000.0).abs() < 1e-6);
    let european = |facts: &crate::steering::cells::Facts| facts.country == CountryCode::parse("FR");
    let cells = world.scenes[0].facts().iter().zip(&*of(&demand, "live").shape);
    let part: f64 = cells.filter(|(facts, _)| european(facts)).map(|(_, part)| part).sum();
    assert!(part > 0.95, "{part}");
    assert_eq!(
        basis.words(&world.scenes[0], &demand),
        "21000 sessions assumed (70 % of the capacities written; no region has told yet how many sessions a query stands \
         for), spread as recorded 2026-11-23 20:06 UTC"
    );
}

#[test]
fn groups_and_regions_that_zones_share_are_known_by_the_name_that_another_zone_gave_them() {
    let other = THREE.replace("stream.example", "other.example");
    let both = zones(&[THREE, &other]);
    let mut saved = record(&both, 400, &[(0, PARIS, 10)]);
    assert_eq!(saved.rates.keys().map(String::as_str).collect::<Vec<_>>(), ["live.stream.example."]);
    learn(&mut saved, "stream.example/eu", Some(1.0), 600.0);
    let recorded = Recorded::of(&saved, &both, None).unwrap();
    let world = world(&both[1..], &Distance);
    let demand = recorded.demand(&world, &world.scenes[0]);
    assert!(demand.len() == 1 && is_near(sum(&demand), 3000.0), "half of 6000: {}", sum(&demand));
}

#[test]
fn a_time_of_the_week_is_as_it_usually_is() {
    let zones = zones(&[THREE]);
    let mut saved = record(&zones, 3700, &[(0, PARIS, 10)]);
    learn(&mut saved, "stream.example/eu", Some(1.0), 600.0);
    let usual = |text: &str| {
        let recorded = Recorded::of(&saved, &zones, crate::demand::profile::time_of_week(text));
        recorded.map(|recorded| {
            let world = world(&zones, &Distance);
            let demand = recorded.demand(&world, &world.scenes[0]);
            (recorded.when(), loads(&world, &side(&world, &demand))[1])
        })
    };
    let (when, load) = usual("Mon 20:30").unwrap();
    assert_eq!(when, "as is usual on Mon at 20:30 UTC");
    // The first hour began with nothing.
    assert!((5_700.0..6_050.0).contains(&load), "{load}");
    let unknown = usual("Tue 04:00").unwrap_err();
    assert_eq!(unknown, Unrecorded::NeverSeen("Tue at 04:00 UTC".into()));
}

#[test]
fn a_record_of_nothing_or_of_other_streams_is_told_apart() {
    let zones = zones(&[THREE]);
    assert_eq!(Recorded::of(&Saved::default(), &zones, None).unwrap_err(), Unrecorded::Nothing);
    let saved = Saved { rates: [("tv.example.".to_owned(), 5.0)].into(), ..Saved::default() };
    let error = Recorded::of(&saved, &zones, None).unwrap_err();
    assert_eq!(error.to_string(), "no query for a stream of these files was recorded, only for tv.example.");
}

#[test]
fn no_figure_of_a_file_makes_a_figure_that_is_none() {
    let zones = zones(&[THREE]);
    let world = world(&zones, &Distance);
    for odd in [-1.0, 0.0, 1e308, 1e-308, f64::INFINITY, f64::NAN] {
        let mut saved = record(&zones, 60, &[(0, PARIS, 10)]);
        saved.shape.values_mut().for_each(|rate| *rate = odd);
        saved.rates.insert("dull.stream.example.".into(), odd);
        learn(&mut saved, "stream.example/eu", Some(odd), odd);
        learn(&mut saved, "stream.example/us", Some(2.0), 60.0);
        let demand = Recorded::of(&saved, &zones, None).unwrap().demand(&world, &world.scenes[0]);
        let side = side(&world, &demand);
        assert!(sum(&demand).is_finite() && side.sessions > 0.0, "{odd}: {}", side.sessions);
        assert!(side.regions.iter().flatten().all(|region| region.load.is_finite()), "{odd}");
    }
}

/// As distance has it, but for Europe: that is far away for all.
struct EuropeIsFar;

impl Costs for EuropeIsFar {
    fn fill(&self, cells: &[crate::steering::cells::Facts], to: &[Site<'_>], out: &mut Vec<f32>) {
        let start = out.len();
        Distance.fill(cells, to, out);
        for (i, ms) in out[start..].iter_mut().enumerate() {
            if to[i % to.len()].name == "eu" {
                *ms = 400.0;
            }
        }
    }
}

#[test]
fn viewers_go_where_costs_are_least_and_are_told_those_costs() {
    let zones = zones(&[THREE]);
    let sides = [&Distance as &dyn Costs, &EuropeIsFar].map(|costs| {
        let world = world(&zones, costs);
        let demand = Basis::Total(3000.0).demand(&world, &world.scenes[0], &|_| true);
        let side = side(&world, &demand);
        (figures(&world, &side, "eu").share, side)
    });
    let [(near, by_distance), (far, measured)] = sides;
    assert!(near > 0.2 && far < 1e-6, "{near} {far}");
    let ms = |figures: &Figures| figures.path.mean_ms.unwrap() - 8.0 - 0.02 * figures.path.mean_km.unwrap();
    assert!(by_distance.regions.iter().flatten().all(|region| ms(region).abs() < 0.1));
    assert!(measured.path.mean_ms > by_distance.path.mean_ms);
    let closed = {
        let world = world(&zones, &EuropeIsFar);
        let demand = Basis::Total(3000.0).demand(&world, &world.scenes[0], &|_| true);
        let (scene, closed) = (&world.scenes[0], world.regions.iter().map(|name| name != "eu").collect::<Vec<_>>());
        let settled = Settled::of(&world, scene, &Terms { demand: &demand, closed: &closed, before: None });
        Side::of(&world, scene, &settled, &demand, &closed, None)
    };
    assert_eq!((closed.path.mean_ms.map(f64::round), closed.path.p95_ms), (Some(400.0), Some(400.0)));
}
