//! Scalers over minutes of virtual time, on views made by hand.

use proptest::prelude::*;

use super::*;
use crate::pilot::testing::{DWELL, region};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// The rate for which so many servers are 70 % full.
fn rate_of(servers: f64) -> f64 {
    servers * 1000.0 * AIM / DWELL
}

struct Run {
    scalers: Scalers,
    market: MarketView,
    now: Instant,
}

impl Run {
    fn new(regions: Vec<RegionView>) -> Run {
        let market = MarketView { stage: Stage::Steered, regions, is_length_known: true, ..MarketView::default() };
        Run { scalers: Scalers::default(), market, now: Instant::now() }
    }

    fn region(&mut self) -> &mut RegionView {
        &mut self.market.regions[0]
    }

    fn serve(&mut self, servers: f64) {
        self.region().unconstrained_rate = rate_of(servers);
    }

    fn look(&mut self) -> Result<Size, Unknown> {
        self.now += SECOND;
        self.market.at = Some(self.now);
        let view = View { markets: vec![self.market.clone()] };
        self.scalers.look(&view, self.now).regions[0].size.clone()
    }

    fn desired(&mut self) -> u32 {
        self.look().expect("it is known").desired.now
    }

    fn pass(&mut self, time: Duration) -> u32 {
        (0..time.as_secs()).map(|_| self.desired()).last().expect("a second at least")
    }
}

#[test]
fn a_surge_is_answered_at_once_and_its_end_a_quarter_of_an_hour_later() {
    let mut run = Run::new(vec![region("fra", rate_of(9.5))]);
    assert_eq!(run.pass(20 * MINUTE), 10);
    run.serve(25.2);
    assert_eq!(run.desired(), 26);
    run.serve(9.5);
    assert_eq!(run.pass(HOLD - 2 * SECOND), 26);
    assert_eq!(run.pass(3 * SECOND), 10, "and then all at once");
}

#[test]
fn until_it_was_seen_how_long_sessions_last_no_more_than_twice_of_what_there_is_is_expected() {
    let mut run = Run::new(vec![region("fra", rate_of(2.0)), region("ams", rate_of(2.0))]);
    run.market.is_length_known = false;
    assert_eq!(run.desired(), 10, "as there are: it begins with those that are up");
    // Many begin, and if they stayed for ten minutes both regions would need twenty servers.
    run.market.regions.iter_mut().for_each(|region| region.unconstrained_rate = rate_of(20.0));
    let size = run.look().unwrap();
    assert_eq!((size.desired.in_15m, size.unconstrained.map(|u| (u * 100.0).round())), (4, Some(28.0)), "{size:?}");
    run.market.is_length_known = true;
    let size = run.look().unwrap();
    assert_eq!((size.desired.now, size.desired.in_15m), (20, 20), "{size:?}");
}

#[test]
fn a_decline_is_followed_a_quarter_of_an_hour_behind() {
    let mut run = Run::new(vec![region("fra", rate_of(20.0 - 1e-9))]);
    run.pass(MINUTE);
    for servers in (1..20u32).rev() {
        run.serve(f64::from(servers) - 1e-9);
        let desired = run.pass(5 * MINUTE);
        assert_eq!(desired, (servers + 2).min(20), "of three steps of five minutes the first");
    }
    assert_eq!(run.pass(HOLD), 1, "and never below one");
    run.serve(0.001);
    assert_eq!(run.pass(2 * HOLD), 1);
}

#[test]
fn a_load_that_comes_again_and_again_keeps_its_servers() {
    let mut run = Run::new(vec![region("fra", rate_of(9.5))]);
    for _ in 0..8 {
        run.serve(19.5);
        run.desired();
        run.serve(9.5);
        assert_eq!(run.pass(14 * MINUTE), 20);
    }
}

#[test]
fn nothing_is_taken_away_while_a_price_flaps() {
    let mut run = Run::new(vec![region("fra", rate_of(19.5))]);
    run.pass(MINUTE);
    run.serve(9.5);
    for _ in 0..6 {
        run.region().price_ms = 0.0;
        assert_eq!(run.pass(14 * MINUTE), 20);
        run.region().price_ms = 0.5;
        assert_eq!(run.pass(2 * MINUTE), 20);
    }
    run.region().price_ms = 0.0;
    assert_eq!(run.pass(HOLD - 5 * SECOND), 20, "15 minutes without a price");
    assert_eq!(run.pass(10 * SECOND), 10);
}

#[test]
fn a_dear_region_gets_a_tenth_more() {
    let mut run = Run::new(vec![region("fra", rate_of(19.5))]);
    run.region().price_ms = 30.0;
    assert_eq!(run.desired(), 20);
    run.region().price_ms = 30.1;
    assert_eq!(run.desired(), 22);
}

#[test]
fn what_is_foreseen_is_there_before_it_is_needed() {
    let mut run = Run::new(vec![region("fra", rate_of(9.5))]);
    run.region().scaling.ahead = Some(2.0);
    assert_eq!(run.look().unwrap().desired, Desired { now: 19, in_15m: 19, after_loss: 19 });
    run.region().scaling.ahead = Some(0.5);
    run.pass(HOLD + MINUTE);
    assert_eq!(run.look().unwrap().desired, Desired { now: 10, in_15m: 5, after_loss: 10 }, "the load of now counts");
    for lie in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
        run.region().scaling.ahead = Some(lie);
        assert!(run.desired() <= 95, "{lie}");
    }
}

#[test]
fn the_loss_of_another_region_is_provided_for() {
    let mut run = Run::new(vec![region("fra", rate_of(9.5)), region("ams", rate_of(3.0))]);
    run.region().scaling.worst_loss = Some(("ams".into(), rate_of(3.0)));
    let size = run.look().unwrap();
    assert_eq!((size.desired.now, size.desired.after_loss, size.worst_loss.as_deref()), (10, 13, Some("ams")));
    // Other streams need their servers too.
    run.region().scaling.fixed_rate = rate_of(4.0);
    let size = run.look().unwrap();
    assert_eq!((size.desired.now, size.desired.after_loss), (14, 17));
    assert!((size.unconstrained.unwrap() - 0.945).abs() < 1e-9, "{size:?}");
}

#[test]
fn after_a_start_what_there_is_stays_for_a_quarter_of_an_hour() {
    let mut run = Run::new(vec![region("fra", rate_of(2.5))]);
    assert_eq!(run.pass(HOLD - 2 * SECOND), 10);
    assert_eq!(run.pass(4 * SECOND), 3);
}

#[test]
fn what_is_not_known_is_never_a_number() {
    let unknown = |change: &dyn Fn(&mut MarketView)| {
        let mut run = Run::new(vec![region("fra", rate_of(9.5))]);
        change(&mut run.market);
        run.look().map(|size| size.desired).unwrap_err()
    };
    assert_eq!(unknown(&|market| market.stage = Stage::Returning), Unknown::Unsteered(Stage::Returning));
    for (trust, wait) in [
        (Trust::Never, Wait::Reports),
        (Trust::Lost, Wait::ReportsAgain),
        (Trust::Fresh, Wait::Scale),
        (Trust::Poor, Wait::Scale),
    ] {
        let unsteered = |market: &mut MarketView| {
            (market.stage, market.regions[0].majority) = (Stage::Unreported, trust);
        };
        assert_eq!(unknown(&unsteered), Unknown::Waits(wait));
    }
    for trust in [Trust::Never, Trust::Lost] {
        assert_eq!(unknown(&|market| market.regions[0].majority = trust), Unknown::Unreported);
    }
    for capacity in [None, Some(0.0), Some(f64::NAN)] {
        assert_eq!(unknown(&|market| market.regions[0].scaling.server_capacity = capacity), Unknown::NoCapacity);
    }
    assert_eq!(unknown(&|market| market.regions[0].unconstrained_rate = 0.0), Unknown::NoDemand);
    assert_eq!(unknown(&|market| market.regions[0].closed = true), Unknown::Closed);
    let mut run = Run::new(vec![region("fra", rate_of(9.5))]);
    run.desired();
    let view = View { markets: vec![run.market.clone()] };
    let later = |after| run.scalers.look(&view, run.now + after).regions[0].size.clone().err();
    let mut later = later;
    assert_eq!((later(OLD), later(OLD + SECOND)), (None, Some(Unknown::Old)), "a view that nobody makes anew");
}

#[test]
fn what_was_held_outlives_a_time_in_which_nothing_is_known() {
    let mut run = Run::new(vec![region("fra", rate_of(25.5))]);
    assert_eq!(run.pass(MINUTE), 26);
    run.serve(5.0);
    run.pass(14 * MINUTE);
    run.region().majority = Trust::Lost;
    assert_eq!(run.look(), Err(Unknown::Unreported));
    run.region().majority = Trust::Fresh;
    assert_eq!(run.pass(HOLD - 5 * SECOND), 26, "counted from then");
    // The same when nobody looked at all.
    run.now += 2 * HOLD;
    assert_eq!(run.pass(MINUTE), 26);
    assert_eq!(run.pass(HOLD), 5);
}

#[test]
fn a_region_that_is_closed_keeps_its_servers_for_when_it_opens() {
    let mut run = Run::new(vec![region("fra", rate_of(9.5)), region("ams", rate_of(5.0))]);
    assert_eq!(run.pass(MINUTE), 10);
    (run.region().closed, run.region().unconstrained_rate, run.region().counted) = (true, 0.0, None);
    assert_eq!(run.pass(4 * HOLD), 10);
    assert_eq!(run.look().unwrap().unconstrained, None);
}

#[test]
fn a_reload_forgets_nothing_and_a_region_that_is_gone_is_forgotten() {
    let mut run = Run::new(vec![region("fra", rate_of(25.5))]);
    run.pass(MINUTE);
    run.serve(5.0);
    run.scalers.look(&View::default(), run.now);
    assert_eq!(run.desired(), 26);
    let now = run.now + HOLD + SECOND;
    run.scalers.look(&View::default(), now);
    assert!(run.scalers.by_region.is_empty());
}

#[test]
fn regions_of_one_name_are_told_apart_by_zone() {
    let of = |name: &str, zones: &[&str]| {
        let mut region = region(name, 1.0);
        region.scaling.zones = vec![zones.iter().map(|zone| Arc::from(*zone)).collect()];
        region
    };
    let regions = vec![of("fra", &["b.example", "c.example"]), of("fra", &["a.example"]), of("ams", &["a.example"])];
    let view = View { markets: vec![MarketView { stage: Stage::Steered, regions, ..MarketView::default() }] };
    let scale = Scalers::default().look(&view, Instant::now());
    let names: Vec<String> = scale.named().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b.example/fra", "a.example/fra", "ams"]);
    assert!(scale.regions[0].is_of("c.example") && !scale.regions[0].is_of("a.example"));
}

proptest! {
    #[test]
    fn whatever_is_believed_a_region_is_unknown_or_has_a_sound_size_and_little_is_kept(
        looks in prop::collection::vec(
            (any::<f64>(), any::<f64>(), any::<f64>(), 0.0..50.0f64, prop::option::of(any::<f64>()), 0u64..40),
            1..400,
        ),
    ) {
        let mut run = Run::new(vec![region("fra", 1.0)]);
        for (rate, dwell, price, capacity, lost, pause) in looks {
            run.now += Duration::from_secs(pause);
            let region = run.region();
            (region.unconstrained_rate, region.dwell_s, region.price_ms) = (rate, dwell, price);
            region.scaling.server_capacity = Some(capacity);
            region.scaling.worst_loss = lost.map(|lost| ("ams".into(), lost));
            if let Ok(size) = run.look() {
                let Desired { now, in_15m, after_loss } = size.desired;
                prop_assert!(now >= 1 && in_15m >= 1 && after_loss >= now && f64::from(after_loss) <= MOST);
            }
            for scaler in run.scalers.by_region.values() {
                prop_assert!(scaler.now.recent.len() <= 92 && scaler.loss.recent.len() <= 92);
            }
        }
    }
}

#[test]
fn a_long_decline_is_remembered_in_few_entries() {
    let mut held = Held::default();
    let start = Instant::now();
    held.restart(1_000_000, start);
    let most = (1..5000u32).map(|second| {
        held.push(1_000_000 - second, start + second * SECOND);
        held.recent.len()
    });
    assert!(most.max().unwrap() <= 92);
}
