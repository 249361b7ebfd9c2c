//! What is learned of honest samples, and what liars can make of it; in virtual time.

use proptest::prelude::*;

use super::*;
use crate::geo::{CountryCode, Square};

const T0: i64 = 1_800_000_000;
const HOUR: i64 = 3600;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(T0 + seconds).unwrap()
}

fn point(lat: f64, lon: f64) -> Option<Point> {
    Point::new(lat, lon)
}

fn london() -> Key {
    Key::new(point(51.5, -0.1), CountryCode::parse("GB"), Some(2856))
}

fn without_asn() -> Key {
    Key { asn: None, ..london() }
}

fn paris() -> Region<'static> {
    Region { zone: None, name: "paris", location: point(48.86, 2.35) }
}

fn block(n: u32) -> Block {
    Block::of(std::net::Ipv4Addr::from(n << 8).into())
}

fn sample(client: Key, n: u32, rtt_ms: f64) -> Sample<'static> {
    Sample {
        client,
        cell: None,
        block: block(n),
        region: paris(),
        rtt_ms,
        loss: None,
        reporter: Reporter::of("beacon"),
    }
}

/// One sample of each of `prefixes`, at `seconds`.
fn feed(learned: &mut Learned, client: Key, prefixes: std::ops::Range<u32>, rtt_ms: f64, seconds: i64) {
    for n in prefixes {
        learned.feed(&sample(client, n, rtt_ms), at(seconds)).unwrap();
    }
}

fn cost(learned: &Learned, key: Key, seconds: i64) -> Cost {
    learned.cost(&key, &paris(), at(seconds))
}

#[test]
fn nothing_learned_is_the_distance() {
    let cost = cost(&Learned::new(), london(), 0);
    assert!((cost.ms() - 14.9).abs() < 0.1, "{cost:?}");
    assert_eq!(
        (cost.ms(), cost.measured_ms, cost.loss_ms, cost.samples, cost.sd),
        (cost.distance_ms, 0.0, 0.0, 0.0, 0.3)
    );
}

#[test]
fn many_samples_are_believed_and_their_loss_is_a_part_of_its_own() {
    let mut learned = Learned::new();
    for n in 0..300 {
        let lossy = Sample { loss: Some(0.02), ..sample(london(), n, 42.0) };
        learned.feed(&lossy, at(0)).unwrap();
    }
    let cost = cost(&learned, london(), 0);
    assert!((cost.ms() - cost.loss_ms - 42.0).abs() < 1.3, "{cost:?}");
    assert!((cost.loss_ms - 400.0 * (0.02 * 300.0 / 310.0 - 0.005)).abs() < 0.1, "{cost:?}");
    assert!(cost.sd < 0.05 && cost.samples > 299.0);
}

#[test]
fn shrinkage_follows_its_formula() {
    let mut learned = Learned::new();
    // No country and no ASN: prior and cell alone.
    let client = Key::new(point(51.5, -0.1), None, None);
    feed(&mut learned, client, 0..10, 60.0, 0);
    let cost = cost(&learned, client, 0);
    let expected = ((10.0 * 60.0f64.ln() + 10.0 * cost.distance_ms.ln()) / 20.0).exp();
    assert!((cost.ms() / expected - 1.0).abs() < 0.02, "{} {expected}", cost.ms());
    assert!((cost.sd - 0.3 / 2.0f64.sqrt()).abs() < 1e-6);
}

#[test]
fn fewer_than_five_do_not_count_and_neither_does_last_week() {
    let mut learned = Learned::new();
    feed(&mut learned, london(), 0..4, 400.0, 0);
    assert_eq!(cost(&learned, london(), 0).measured_ms, 0.0);
    feed(&mut learned, london(), 4..400, 400.0, 0);
    assert!(cost(&learned, london(), 0).ms() > 50.0);
    assert_eq!(
        cost(&learned, london(), 48 * HOUR).samples,
        0.0,
        "500 samples are fewer than five after seven half-lives"
    );
    learned.expire(at(7 * 24 * HOUR - 1));
    assert!(!learned.is_empty());
    learned.expire(at(7 * 24 * HOUR));
    assert!(learned.is_empty() && learned.regions.is_empty());
}

#[test]
fn a_country_and_an_asn_that_are_slow_are_slow_where_nobody_measured() {
    let mut learned = Learned::new();
    feed(&mut learned, london(), 0..200, 80.0, 0);
    let elsewhere = Key::new(point(57.1, -2.1), CountryCode::parse("GB"), Some(64500));
    let cost = cost(&learned, elsewhere, 0);
    assert!((cost.country_ms - 65.0).abs() < 6.0, "{cost:?}");
    assert_eq!((cost.asn_ms, cost.samples), (0.0, 0.0));
    // The ASN elsewhere: its residual is not counted twice.
    let abroad = Key::new(point(53.3, -6.3), CountryCode::parse("IE"), Some(2856));
    assert!((super::tests::cost(&learned, abroad, 0).asn_ms - 65.0).abs() < 6.0);
    assert!(super::tests::cost(&learned, london(), 0).asn_ms.abs() < 5.0);
}

#[test]
fn cells_without_an_asn_learn_from_all_of_theirs() {
    let mut learned = Learned::new();
    feed(&mut learned, london(), 0..300, 60.0, 0);
    assert!((cost(&learned, without_asn(), 0).ms() - 60.0).abs() < 2.5);
}

#[test]
fn what_cannot_be_measured_is_refused_with_its_reason() {
    let mut learned = Learned::new();
    for rtt in [f64::NAN, -1.0, 0.0, 0.99, 2000.1, f64::INFINITY, 1e308] {
        assert!(matches!(learned.feed(&sample(london(), 1, rtt), at(0)), Err(Refused::Rtt(_))), "{rtt}");
    }
    for loss in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let lossy = Sample { loss: Some(loss), ..sample(london(), 1, 20.0) };
        assert!(matches!(learned.feed(&lossy, at(0)), Err(Refused::Loss(_))), "{loss}");
    }
    let nowhere = Key::new(None, CountryCode::parse("GB"), None);
    assert_eq!(learned.feed(&sample(nowhere, 1, 20.0), at(0)), Err(Refused::Nowhere));
    assert!(learned.is_empty() && learned.regions.is_empty());
}

#[test]
fn one_prefix_alone_moves_nothing_however_long_it_speaks() {
    let mut learned = Learned::new();
    let prior = cost(&learned, london(), 0).ms();
    let mut refused = HashMap::new();
    for second in 0..24 * HOUR {
        if let Err(why) = learned.feed(&sample(london(), 7, 2000.0), at(second)) {
            *refused.entry(format!("{why:?}")).or_insert(0) += 1;
        }
        if second % HOUR == 0 {
            assert_eq!(cost(&learned, london(), second).ms(), prior);
        }
    }
    assert!(refused["PrefixShare"] > 80_000, "{refused:?}");
}

#[test]
fn one_prefix_speaks_six_times_a_minute_where_much_is_known() {
    let mut learned = Learned::new();
    feed(&mut learned, london(), 0..400, 40.0, 0);
    let said = |learned: &mut Learned, second| {
        (0..100).filter(|_| learned.feed(&sample(london(), 7, 40.0), at(second)).is_ok()).count()
    };
    assert_eq!(said(&mut learned, 60), 6);
    assert_eq!(learned.feed(&sample(london(), 7, 40.0), at(61)), Err(Refused::TooOften));
    assert_eq!(said(&mut learned, 120), 6);
}

/// The bound of one source: below half of the samples, so the median stays among those of the others.
#[test]
fn a_prefix_that_floods_leaves_the_cost_among_what_the_others_measured() {
    for lie in [1.0, 2000.0] {
        for others in [3u32, 5, 20, 100] {
            let (mut honest, mut flooded) = (Learned::new(), Learned::new());
            let mut worst: f64 = 0.0;
            for minute in 0..12 * 60 {
                // Each of the others speaks once an hour, between 38 and 42 ms.
                for n in (0..others).filter(|n| i64::from(*n) % 60 == minute % 60) {
                    let true_one = sample(london(), n, 38.0 + f64::from((n * 7 + minute as u32) % 5));
                    let _ = honest.feed(&true_one, at(minute * 60));
                    let _ = flooded.feed(&true_one, at(minute * 60));
                }
                for second in 0..30 {
                    let _ = flooded.feed(&sample(london(), 9999, lie), at(minute * 60 + 2 * second));
                }
                let (a, b) = (cost(&honest, london(), minute * 60), cost(&flooded, london(), minute * 60));
                // Where the liar makes the difference between four samples and five, the honest ones are what counts.
                if a.samples > 0.0 {
                    worst = worst.max((b.ms() / a.ms() - 1.0).abs());
                }
                assert!(b.ms() < 46.0, "{lie} {others} {minute}: {b:?}");
            }
            assert!(worst < 0.15, "{lie} ms beside {others} others: {worst}");
        }
    }
}

#[test]
fn a_reporter_that_comes_later_leaves_the_cost_among_what_the_first_measured() {
    for lie in [1.0, 2000.0] {
        let mut learned = Learned::new();
        for n in 0..300 {
            learned.feed(&sample(london(), n, 38.0 + f64::from(n % 5)), at(0)).unwrap();
        }
        let before = cost(&learned, london(), 0).ms();
        // Any number of prefixes, all of them made up.
        for n in 1000..21_000 {
            let poison = Sample { reporter: Reporter::of("liar"), ..sample(london(), n, lie) };
            let _ = learned.feed(&poison, at(1));
        }
        let after = cost(&learned, london(), 1).ms();
        assert!((after / before - 1.0).abs() < 0.10, "{lie}: {before} {after}");
    }
}

#[test]
fn a_reporter_that_nobody_contradicts_moves_a_cost_by_a_factor_of_four_at_most() {
    for (lie, low, high) in [(1.0, 0.0, 1.0), (2000.0, 1.0, 4.0)] {
        let mut learned = Learned::new();
        for n in 0..20_000 {
            let _ = learned.feed(&Sample { loss: Some(1.0), ..sample(london(), n, lie) }, at(i64::from(n) / 100));
        }
        let lied = cost(&learned, london(), 200);
        let prior = lied.distance_ms + lied.country_ms + lied.asn_ms;
        let factor = (lied.ms() - lied.loss_ms) / prior;
        assert!(factor >= 0.2499 && (low..=high + 1e-9).contains(&factor), "{lied:?}");
        assert!(lied.country_ms <= 80.0 && lied.asn_ms <= 80.0 && lied.loss_ms <= 38.0, "{lied:?}");
    }
}

#[test]
fn a_zone_that_has_samples_of_its_own_goes_by_them() {
    let mut learned = Learned::new();
    feed(&mut learned, london(), 0..200, 60.0, 0);
    let own = Region { zone: Some("stream.example"), ..paris() };
    assert!(
        (learned.cost(&london(), &own, at(0)).ms() - 60.0).abs() < 2.5,
        "what holds for the name holds for the zone"
    );
    for n in 0..200 {
        learned.feed(&Sample { region: own, ..sample(london(), n, 30.0) }, at(0)).unwrap();
    }
    assert!((learned.cost(&london(), &own, at(0)).ms() - 30.0).abs() < 2.5);
    assert!((cost(&learned, london(), 0).ms() - 60.0).abs() < 2.5);
}

#[test]
fn an_unplaced_client_costs_the_same_everywhere_until_it_is_measured() {
    let mut learned = Learned::new();
    let nowhere = Key::new(None, CountryCode::parse("GB"), Some(2856));
    let other = Region { name: "tokyo", location: point(35.7, 139.7), ..paris() };
    assert_eq!(cost(&learned, nowhere, 0).ms(), learned.cost(&nowhere, &other, at(0)).ms());
    feed(&mut learned, nowhere, 0..200, 40.0, 0);
    assert!(cost(&learned, nowhere, 0).ms() < 45.0);
}

#[test]
fn a_region_is_unsure_until_it_was_measured_from_there() {
    let mut learned = Learned::new();
    assert!(cost(&learned, london(), 0).is_unsure());
    feed(&mut learned, london(), 0..60, 16.0, 0);
    assert!(!cost(&learned, london(), 0).is_unsure());
    // The next town of the same provider was not measured itself.
    let next_town = Key::new(point(55.9, -3.2), CountryCode::parse("GB"), Some(2856));
    assert!(cost(&learned, next_town, 0).is_unsure());
}

#[test]
fn a_prefix_holds_no_more_of_the_cell_it_is_steered_with_than_of_its_own_place() {
    let mut learned = Learned::new();
    feed(&mut learned, london(), 0..400, 40.0, 0);
    let cell = Some(Key::new(point(53.4, -2.2), CountryCode::parse("GB"), None));
    let said = |learned: &mut Learned, second| {
        (0..100).filter(|_| learned.feed(&Sample { cell, ..sample(london(), 7, 40.0) }, at(second)).is_ok()).count()
    };
    // Much is known of London, so six more would count; nothing of where the prefix is steered.
    assert_eq!(said(&mut learned, 60), 1);
    assert_eq!(said(&mut learned, 120), 0);
}

#[test]
fn an_imported_table_is_what_samples_are_shrunk_to() {
    let mut learned = Learned::new();
    let mut table = table::Builder::default();
    table.add(&london(), "paris", paris().location, 70.0, 256.0);
    table.add(&london(), "paris", paris().location, f64::NAN, 256.0);
    learned.import(table.finish());
    let imported = cost(&learned, london(), 0);
    assert!((imported.ms() - 70.0).abs() < 3.0 && imported.samples == 500.0, "{imported:?}");
    assert_eq!(cost(&learned, london(), 1000 * HOUR), imported, "it does not age");
    feed(&mut learned, london(), 0..100, 40.0, 0);
    assert!((cost(&learned, london(), 0).ms() - 40.0).abs() < 4.0, "what is measured now counts more");
    learned.import(Table::default());
    assert!((cost(&learned, london(), 40 * HOUR).measured_ms).abs() < 1e-9);
}

#[test]
fn a_lone_block_of_a_table_does_not_stand_for_its_country() {
    let mut learned = Learned::new();
    let mut table = table::Builder::default();
    table.add(&london(), "paris", paris().location, 75.0, 1.0);
    learned.import(table.finish());
    let elsewhere = Key::new(point(57.1, -2.1), CountryCode::parse("GB"), None);
    let cost = cost(&learned, elsewhere, 0);
    assert!((cost.country_ms - 20.0).abs() < 1.5, "five samples beside ten: a third of 60 ms; {cost:?}");
}

#[test]
fn floods_of_places_names_and_prefixes_stay_within_their_bounds() {
    let mut learned = Learned::new();
    for n in 0..90_000u32 {
        let client = Key::new(point(f64::from(n % 170) - 85.0, f64::from(n % 359) - 179.0), None, Some(n));
        learned.feed(&sample(client, n, 40.0), at(i64::from(n) / 1000)).unwrap();
        learned.feed(&sample(client, 100_000 + n, 40.0), at(i64::from(n) / 1000)).unwrap();
    }
    assert!(learned.len() <= MAX_SLOTS);
    let newest = Level::Asn(89_999);
    assert!(learned.slots.keys().any(|(level, _)| *level == newest), "those fed longest ago go first");
    assert!(!learned.slots.keys().any(|(level, _)| *level == Level::Asn(1)));
    let mut names = Learned::new();
    let mut refused = 0;
    for n in 0..MAX_REGIONS + 10 {
        let name = format!("r{n}");
        let region = Region { zone: None, name: &name, location: None };
        refused += usize::from(names.feed(&Sample { region, ..sample(london(), 1, 40.0) }, at(0)).is_err());
    }
    assert_eq!((names.regions.len(), refused), (MAX_REGIONS, 10));
}

#[test]
fn what_was_learned_outlives_a_restart_and_so_do_the_bounds() {
    let mut learned = Learned::new();
    feed(&mut learned, london(), 0..300, 42.0, 0);
    for n in 0..200 {
        let own = Region { zone: Some("stream.example"), ..paris() };
        learned.feed(&Sample { region: own, loss: Some(0.01), ..sample(london(), n, 30.0) }, at(0)).unwrap();
    }
    let saved: Saved = serde_json::from_slice(&serde_json::to_vec(&learned.saved()).unwrap()).unwrap();
    let mut again = Learned::restored(&saved, at(HOUR));
    assert!((cost(&again, london(), HOUR).ms() - cost(&learned, london(), HOUR).ms()).abs() < 0.1);
    let own = Region { zone: Some("stream.example"), ..paris() };
    let (a, b) = (again.cost(&london(), &own, at(HOUR)), learned.cost(&london(), &own, at(HOUR)));
    assert!((a.ms() - b.ms()).abs() < 0.1 && (a.loss_ms - b.loss_ms).abs() < 0.1, "{a:?} {b:?}");
    // A prefix does not get its part a second time.
    let few = {
        let mut few = Learned::new();
        feed(&mut few, london(), 1..2, 40.0, 0);
        feed(&mut few, london(), 1..2, 40.0, 1);
        few.saved()
    };
    let mut few = Learned::restored(&few, at(2));
    assert_eq!(few.feed(&sample(london(), 1, 40.0), at(3)), Err(Refused::PrefixShare));
    // A new name is not taken for an old one.
    let other = Region { name: "madrid", ..paris() };
    again.feed(&Sample { region: other, ..sample(london(), 1, 300.0) }, at(HOUR)).unwrap();
    assert_eq!(again.cost(&london(), &other, at(HOUR)).samples, 0.0);
}

#[test]
fn a_state_full_to_the_brim_fits_its_file() {
    let mut learned = Learned::new();
    let region = learned.intern(&paris()).unwrap();
    let mut slot = Slot::default();
    for i in 0..32 {
        slot.take(f64::from(200 + i) + 0.5, Some(0.05), Reporter::of(&format!("reporter {i}")), T0);
    }
    let line = serde_json::to_vec_pretty(&Saved::default()).unwrap().len();
    for asn in 0..1000 {
        learned.slots.insert(
            (Level::Cell(Square { row: -45, column: -90 }, CountryCode::parse("GB"), Some(u32::MAX - asn)), region),
            slot.clone(),
        );
    }
    let bytes = serde_json::to_vec_pretty(&learned.saved()).unwrap().len() - line;
    assert!(bytes / 1000 * saved::SAVED_SLOTS + feed::MAX_PREFIXES * 60 < 64 << 20, "{bytes} bytes for 1000");
}

proptest! {
    #[test]
    fn whatever_is_fed_costs_are_numbers_above_zero(
        words in prop::collection::vec((any::<f64>(), prop::option::of(any::<f64>()), 0..50u32, 0..3u8, -1000..100_000i64, 1.0..2000.0f64), 0..200),
    ) {
        let mut learned = Learned::new();
        for (i, (wild, loss, n, kind, second, tame)) in words.into_iter().enumerate() {
            let client = match kind { 0 => london(), 1 => without_asn(), _ => Key::new(None, None, Some(n)) };
            let rtt = if i % 4 == 0 { wild } else { tame };
            let _ = learned.feed(&Sample { loss, ..sample(client, n, rtt) }, at(second));
            for key in [london(), without_asn(), Key::default()] {
                let cost = cost(&learned, key, second);
                prop_assert!(cost.ms().is_finite() && cost.ms() > 0.0 && cost.sd.is_finite() && cost.loss_ms >= 0.0, "{:?}", cost);
                prop_assert!(cost.ms() < 4.0 * 400.0 + 200.0);
            }
        }
    }

    #[test]
    fn any_state_file_is_read_within_the_bounds(
        levels in prop::collection::vec("(cell 25 -1 GB 2856|asn 7|x)\\|[0-2]\\|-?[0-9]{1,19}\\|[0-9.NaN]{1,5}\\|0.1\\|[0-9a-f:. ]{0,20}\\|[0-9:. -]{0,30}", 0..20),
        prefixes in prop::collection::vec("[0-9a-f|.-]{0,30}", 0..20),
    ) {
        let json = serde_json::json!({ "regions": [{ "id": 1, "name": "paris" }, { "id": 4294967295u32, "name": "lyon" }], "levels": levels, "prefixes": prefixes });
        let saved: Saved = serde_json::from_value(json).unwrap();
        let mut learned = Learned::restored(&saved, at(0));
        let _ = learned.feed(&sample(london(), 1, 40.0), at(1));
        let cost = cost(&learned, london(), 1);
        prop_assert!(cost.ms().is_finite() && cost.ms() > 0.0, "{:?}", cost);
        prop_assert!(learned.slots.values().all(|slot| slot.sketch.total() <= slot::MAX_N * 1.01));
    }

    #[test]
    fn a_sample_always_moves_the_cost_of_the_cell_that_its_address_lies_in(
        lat in -60.0..60.0f64, lon in -170.0..170.0f64, asn in prop::option::of(1..5u32), country in any::<bool>(),
        split in any::<bool>(), (north, east) in (-9.0..9.0f64, -9.0..9.0f64), is_coarse in any::<bool>(),
    ) {
        let mut learned = Learned::new();
        let version = learned.version();
        let client = Key::new(point(lat, lon), CountryCode::parse("GB").filter(|_| country), asn);
        // The cell may have no ASN of its own, and on a coarse grid its middle lies elsewhere.
        let location = if is_coarse { point(lat + north, lon + east) } else { client.location };
        let cell = Key::new(location, client.country, asn.filter(|_| split));
        let before = cost(&learned, cell, 0).ms();
        for n in 0..8 {
            let sample = Sample { cell: Some(cell), ..sample(client, n, (3.0 * before).min(2000.0)) };
            learned.feed(&sample, at(0)).unwrap();
        }
        let after = cost(&learned, cell, 0);
        prop_assert!(after.samples >= 8.0 && after.ms() > 1.2 * before, "{before} {after:?}");
        prop_assert!(learned.version() > version);
    }

    #[test]
    fn an_imported_row_moves_the_cells_with_its_asn_and_without(asn in prop::option::of(1..5u32), split in any::<bool>()) {
        let mut learned = Learned::new();
        let client = Key { asn, ..london() };
        let cell = Key { asn: asn.filter(|_| split), ..client };
        let before = cost(&learned, cell, 0).ms();
        let mut table = table::Builder::default();
        table.add(&client, "paris", paris().location, 3.0 * before, 8.0);
        learned.import(table.finish());
        prop_assert!(cost(&learned, cell, 0).ms() > 1.5 * before);
    }
}
