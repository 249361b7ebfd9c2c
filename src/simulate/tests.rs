use std::sync::{Arc, OnceLock};

use proptest::prelude::*;

use super::change::{self, Added};
use super::report::{Figures, transfers};
use super::scene::TooMuch;
use super::settle::Terms;
use super::*;
use crate::config::settings::Zone;
use crate::config::{Shared, read_zone};
use crate::geo::Database;
use crate::steering::cost::Distance;

pub(super) const THREE: &str = r#"
    zone = "stream.example"
    ns   = ["ns1.example.net"]
    session = "5Mbps"
    [region.us]
    near = "Ashburn"
    a  = ["192.0.2.1"]
    capacity = "10000 sessions"
    cost = 0.02
    [region.eu]
    near = "Frankfurt"
    a  = ["192.0.2.11"]
    capacity = "10000 sessions"
    [region.ap]
    near = "Singapore"
    a  = ["192.0.2.21"]
    capacity = "10000 sessions"
    [stream.live]
"#;

pub(super) fn database() -> Arc<Database> {
    static BUNDLED: OnceLock<Arc<Database>> = OnceLock::new();
    Arc::clone(BUNDLED.get_or_init(|| Arc::new(Database::bundled())))
}

pub(super) fn zone(text: &str) -> Arc<Zone> {
    let read = read_zone("zone.toml".as_ref(), text.into(), 0, &Shared::default());
    Arc::new(read.zone.unwrap_or_else(|| panic!("a sound zone: {:?}", read.faults)))
}

/// A world of zones that are or may be.
fn world(worlds: &[&str]) -> World {
    World::of(worlds.iter().map(|text| vec![zone(text)]).collect(), &database(), &Distance).unwrap()
}

fn closed(world: &World, names: &[&str]) -> Vec<bool> {
    world.regions.iter().map(|name| names.contains(&name.as_str())).collect()
}

/// The settled first scene, with these regions gone.
fn settled(world: &World, demand: &Demand, gone: &[&str], before: Option<&Settled>) -> (Settled, Side) {
    let (scene, closed) = (&world.scenes[0], closed(world, gone));
    let before = before.map(|settled| (scene, settled));
    let settled = Settled::of(world, scene, &Terms { demand, closed: &closed, before });
    let side = Side::of(world, scene, &settled, demand, &closed, before);
    (settled, side)
}

fn even(world: &World, total: f64) -> Demand {
    Basis::Total(total).demand(world, &world.scenes[0], &|_| true)
}

pub(super) fn figures<'a>(world: &World, side: &'a Side, name: &str) -> &'a Figures {
    side.regions[usize::from(world.region(name).unwrap())].as_ref().unwrap()
}

#[test]
fn without_a_total_regions_are_as_full_as_they_become_for_nothing() {
    let world = world(&[THREE]);
    let demand = Basis::UNKNOWN.demand(&world, &world.scenes[0], &|_| true);
    assert!((demand::sum(&demand) - 21_000.0).abs() < 1e-6);
    let (settled, side) = settled(&world, &demand, &[], None);
    assert!((side.regions.iter().flatten().map(|region| region.load).sum::<f64>() - 21_000.0).abs() < 1.0);
    assert!(!side.is_too_much() && side.moved_share == 0.0 && side.unserved == 0.0);
    assert!(settled.gap >= 0.0 && settled.gap < 0.01, "{}", settled.gap);
    // 5 Mbit/s are 2.25 GB an hour.
    let us = figures(&world, &side, "us");
    assert!((us.cost_per_hour.unwrap() - us.load * 2.25 * 0.02).abs() < 1e-6);
    assert!(figures(&world, &side, "eu").cost_per_hour.is_none());
    assert!(side.path.p95_ms > side.path.mean_ms && side.path.mean_km < side.path.p95_km);
}

#[test]
fn who_loses_a_region_goes_where_there_is_room() {
    let world = world(&[THREE]);
    let demand = even(&world, 15_000.0);
    let (settled_before, before) = settled(&world, &demand, &[], None);
    let (_, after) = settled(&world, &demand, &["us"], Some(&settled_before));
    assert_eq!(figures(&world, &after, "us").load, 0.0);
    assert!(figures(&world, &after, "us").closed);
    assert!(after.moved_share >= figures(&world, &before, "us").share - 1e-3);
    let used = |name| figures(&world, &after, name).utilization().unwrap();
    assert!(used("eu") < 0.95 && used("ap") < 0.95 && used("eu") + used("ap") > 1.49, "{} {}", used("eu"), used("ap"));
    assert!(after.path.mean_ms > before.path.mean_ms && !after.is_too_much());
}

#[test]
fn more_than_the_others_can_take_is_too_much_and_the_audit_says_by_how_much() {
    let world = world(&[&THREE.replacen("10000", "30000", 1)]);
    let demand = even(&world, 24_000.0);
    let (before, side) = settled(&world, &demand, &[], None);
    assert!(!side.is_too_much());
    let losses = audit::all(&world, &world.scenes[0], &before, &demand, &[false; 3]);
    assert_eq!(losses.len(), 3);
    assert_eq!(world.name(losses[0].lost), "us", "the worst first");
    let small = losses[0].too_small();
    assert!((small.iter().map(|small| small.short).sum::<f64>() - 4_000.0).abs() < 5.0, "{small:?}");
    for small in &small {
        assert!((small.needed - small.short - 10_000.0).abs() < 1e-6 && small.needed_bits == small.needed * 5e6);
    }
    assert!(losses[1..].iter().all(|loss| loss.too_small().is_empty() && !loss.side.is_too_much()));
}

#[test]
fn streams_without_capacity_are_reported_too_and_go_to_the_nearest() {
    let world = world(&[&THREE.replace("capacity", "# capacity").replace("session =", "# session =")]);
    let demand = Basis::UNKNOWN.demand(&world, &world.scenes[0], &|_| true);
    let (_, side) = settled(&world, &demand, &[], None);
    let shares: Vec<f64> = side.regions.iter().flatten().map(|region| region.share).collect();
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-4 && shares.iter().all(|share| *share > 0.05), "{shares:?}");
    let eu = figures(&world, &side, "eu");
    assert!(eu.capacity.is_none() && eu.utilization().is_none() && eu.price_ms.is_none());
    assert!(eu.path.mean_km.unwrap() < 4_000.0, "{:?}", eu.path);
    assert!(side.fullest().is_none() && !side.is_too_much());
}

#[test]
fn other_policies_keep_their_order_and_their_weights_and_bring_their_load() {
    let more = "
        [stream.backup]\npolicy = \"priority\"\nregions = [\"ap\", \"eu\"]
        [stream.split]\npolicy = \"weighted\"\nweights = { us = 3, eu = 1 }\nregions = [\"us\", \"eu\"]\n";
    let text = THREE.to_owned() + more;
    let world = world(&[&text]);
    let scene = &world.scenes[0];
    let of = |name: &str, gone: &[&str]| {
        let streams = demand::streams_of(scene, name).unwrap();
        let demand = Basis::Total(8_000.0).demand(&world, scene, &|key| streams.contains(key));
        let (_, side) = settled(&world, &demand, gone, None);
        ["us", "eu", "ap"].map(|name| (figures(&world, &side, name).load / 80.0).round())
    };
    assert_eq!(of("backup", &[]), [0.0, 0.0, 100.0]);
    assert_eq!(of("backup", &["ap"]), [0.0, 100.0, 0.0]);
    assert_eq!(of("split", &[]), [75.0, 25.0, 0.0]);
    assert_eq!(of("split.stream.example", &["us"]), [0.0, 100.0, 0.0]);
    assert_eq!(of("backup", &["ap", "eu"]), [0.0; 3], "nobody is left");
    // All together: what the others bring leaves less for the nearest.
    let demand = even(&world, 27_000.0);
    let (_, side) = settled(&world, &demand, &[], None);
    let used: Vec<f64> = side.regions.iter().flatten().filter_map(Figures::utilization).collect();
    assert!(used.iter().all(|used| *used < 1.0), "{used:?}");
}

#[test]
fn viewers_of_whose_regions_none_is_left_are_counted() {
    let world = world(&[&(THREE.to_owned() + "regions = [\"eu\", \"us\"]\n")]);
    let demand = even(&world, 6_000.0);
    let (before, _) = settled(&world, &demand, &[], None);
    let (_, after) = settled(&world, &demand, &["eu", "us"], Some(&before));
    assert!((after.unserved - 6_000.0).abs() < 1e-6 && after.is_too_much());
    assert!((after.moved_share - 1.0).abs() < 1e-3);
    assert!(after.regions.iter().flatten().all(|region| region.load == 0.0));
}

#[test]
fn a_rule_whose_regions_are_lost_falls_back_to_those_of_the_stream() {
    let world = world(&[&(THREE.to_owned() + "rules = [{ from = [\"Europe\"], regions = [\"ap\"] }]\n")]);
    let demand = even(&world, 9_000.0);
    let (_, before) = settled(&world, &demand, &[], None);
    let (_, after) = settled(&world, &demand, &["ap"], None);
    let share = |side: &Side, name| figures(&world, side, name).share;
    assert!(share(&before, "ap") > 0.4 && share(&before, "eu") < 0.2, "{}", share(&before, "eu"));
    assert!(after.unserved == 0.0 && share(&after, "eu") > 0.3, "{}", share(&after, "eu"));
}

#[test]
fn one_region_more_takes_load_of_the_others_and_is_compared_cell_by_cell() {
    let zone = zone(THREE);
    let added = Added::parse("sa=near:Sao Paulo,10000 sessions").unwrap();
    let more = Arc::new(change::with(&zone, &[added]).unwrap());
    let world = World::of(vec![vec![zone], vec![more]], &database(), &Distance).unwrap();
    let [before, after] = [&world.scenes[0], &world.scenes[1]];
    let demand = even(&world, 27_000.0);
    let open = [false; 4];
    let first = Settled::of(&world, before, &Terms { demand: &demand, closed: &open, before: None });
    let second = Settled::of(&world, after, &Terms { demand: &demand, closed: &open, before: Some((before, &first)) });
    let then = Some((before, &first));
    let old = Side::of(&world, before, &first, &demand, &open, None);
    let new = Side::of(&world, after, &second, &demand, &open, then);
    assert!(old.regions[usize::from(world.region("sa").unwrap())].is_none());
    let taken = figures(&world, &new, "sa").share;
    assert!(taken > 0.05 && new.moved_share >= taken - 1e-3 && new.moved_share < 0.6, "{taken} {}", new.moved_share);
    for name in ["us", "eu", "ap"] {
        assert!(figures(&world, &new, name).load <= figures(&world, &old, name).load + 1.0, "{name}");
    }
    let moves = transfers((before, &first), (after, &second), &demand);
    let to_sa: f64 =
        moves.values().flatten().filter(|((_, to), _)| world.name(*to) == "sa").map(|(_, part)| part).sum();
    assert!((to_sa - taken).abs() < 1e-3, "{to_sa} {taken}");
}

#[test]
fn a_region_twice_or_too_many_are_refused() {
    let zone = zone(THREE);
    let added = Added::parse("eu=near:Paris").unwrap();
    assert!(change::with(&zone, &[added]).unwrap_err().contains("already"));
}

#[test]
fn names_that_are_none_are_told_with_the_nearest() {
    let world = world(&[THREE]);
    assert_eq!(world.region("eu").map(|key| world.name(key).to_owned()), Ok("eu".to_owned()));
    assert_eq!(world.region("eus").unwrap_err(), "no stream has a region \"eus\"; did you mean \"eu\"?");
    assert!(world.region("moscow").unwrap_err().ends_with("there are ap, eu, us"));
    assert!(demand::streams_of(&world.scenes[0], "lives").unwrap_err().contains("did you mean \"live\"?"));
}

#[test]
fn regions_of_one_name_are_told_apart_by_their_zones() {
    let other = THREE.replace("stream.example", "other.example").replace("192.0.2", "198.51.100");
    let world = World::of(vec![vec![zone(THREE), zone(&other)]], &database(), &Distance).unwrap();
    assert_eq!((world.regions.len(), world.scenes[0].markets.len()), (6, 2));
    assert!(world.region("eu").unwrap_err().contains("eu (other.example), eu (stream.example)"));
    assert!(world.region("eu (other.example)").is_ok());
    // Regions with the same servers are one, whatever zones use them.
    let same = THREE.replace("stream.example", "other.example");
    let world = World::of(vec![vec![zone(THREE), zone(&same)]], &database(), &Distance).unwrap();
    assert_eq!((world.regions.len(), world.scenes[0].markets.len()), (3, 1));
}

#[test]
fn zones_without_streams_are_nothing_to_simulate() {
    let plain = zone("zone = \"plain.example\"\nns = [\"ns1.example.net\"]\n");
    assert!(matches!(World::of(vec![vec![plain]], &database(), &Distance), Err(TooMuch::Nothing)));
}

#[test]
fn the_json_has_these_keys_and_no_others() {
    let world = world(&[THREE]);
    let demand = even(&world, 12_000.0);
    let (_, side) = settled(&world, &demand, &["us"], None);
    let json = side.json(&world);
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&json), "moved_share p95_ms regions");
    assert_eq!(keys(&json["regions"]), "ap eu us");
    assert_eq!(
        keys(&json["regions"]["us"]),
        "capacity_sessions cost_per_hour load_sessions mean_km mean_ms price_ms share utilization"
    );
    assert_eq!(json["regions"]["us"]["load_sessions"], 0.0);
    assert!(json["regions"]["us"]["mean_km"].is_null());
}

#[test]
fn a_picture_has_maps_and_bars_and_its_texts_are_texts() {
    let world = world(&[THREE]);
    let demand = even(&world, 12_000.0);
    let (first, before) = settled(&world, &demand, &[], None);
    let (second, after) = settled(&world, &demand, &["us"], Some(&first));
    let scene = &world.scenes[0];
    let panel = |title: &str, settled, side| picture::Panel { title: title.to_owned(), scene, settled, side };
    let svg =
        picture::draw(&world, &[panel("before", &first, &before), panel("without <us>", &second, &after)]).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("without &lt;us&gt;") && svg.contains("us (gone)") && svg.contains("</text>"));
    assert!(svg.matches("<rect").count() > 2_000, "{}", svg.matches("<rect").count());
    assert!(!svg.contains("NaN") && svg.len() < 2 << 20, "{}", svg.len());
    picture::draw(&world, &[]).unwrap();
}

#[test]
fn what_differs_between_files_is_told_in_words_and_what_does_not_is_not() {
    let (old, same) = (zone(THREE), zone(&format!("# a comment\n{THREE}")));
    assert_eq!(words::changes(&old, &same), [""; 0]);
    let new = THREE
        .replace("near = \"Frankfurt\"", "near = \"London\"")
        .replacen("10000", "20000", 1)
        .replace("[stream.live]", "[stream.live]\nttl = \"10s\"\nregions = [\"us\", \"eu\"]\n[stream.vod]\n[records]\nwww = { A = \"192.0.2.9\" }");
    assert_eq!(
        words::changes(&old, &zone(&new)),
        [
            "~ region eu: place Frankfurt -> London",
            "~ region us: capacity 10000 sessions -> 20000 sessions",
            "+ stream vod",
            "~ stream live: TTL 20s -> 10s",
            "~ stream live: regions us eu ap -> us eu",
            "+ record www A",
        ]
    );
    let back = words::changes(&zone(&new), &old);
    assert!(back.contains(&"- stream vod".to_owned()) && back.contains(&"- record www A".to_owned()), "{back:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn shares_sum_to_one_and_every_figure_is_a_number(
        total in prop_oneof![Just(0.0), 1.0..100_000.0, Just(1e12)],
        gone in prop::sample::subsequence(vec!["us", "eu", "ap"], 0..=3),
    ) {
        static WORLD: OnceLock<World> = OnceLock::new();
        let world = WORLD.get_or_init(|| world(&[THREE]));
        let demand = even(world, total);
        let (before, _) = settled(world, &demand, &[], None);
        let (after, side) = settled(world, &demand, &gone, Some(&before));
        let shares: f64 = side.regions.iter().flatten().map(|region| region.share).sum();
        let expected = if total > 0.0 && gone.len() < 3 { 1.0 } else { 0.0 };
        prop_assert!((shares - expected).abs() < 1e-4, "{shares}");
        for name in &gone {
            prop_assert_eq!(figures(world, &side, name).load, 0.0);
        }
        for region in side.regions.iter().flatten() {
            prop_assert!(region.load.is_finite() && region.utilization().is_some_and(f64::is_finite));
            prop_assert!(region.price_ms.is_some_and(f64::is_finite));
        }
        prop_assert!((0.0..=1.0 + 1e-6).contains(&side.moved_share) && after.gap.is_finite());
        prop_assert!(!side.json(world).to_string().contains("NaN"));
    }
}
