//! The control code in a small world of viewers, caches and regions, in virtual time. `cargo bench --bench loop` does the same
//! in one of 40,000 cells for many more scenarios; docs/steering.md has the figures.

#[path = "../benches/worlds/random.rs"]
#[allow(dead_code, reason = "the benches use the rest")]
mod random;
#[path = "../benches/worlds/regions.rs"]
#[allow(dead_code, reason = "the benches use the rest")]
mod regions;
#[path = "../benches/loop/scenes.rs"]
#[allow(dead_code, reason = "the bench uses the rest")]
mod scenes;
#[path = "../benches/loop/ways.rs"]
#[allow(dead_code, reason = "the bench uses the rest")]
mod ways;
#[path = "../benches/loop/world.rs"]
#[allow(dead_code, reason = "the bench uses the rest")]
mod world;

use scenes::{Demand, Outcome, Scene, What};

/// An event of ten minutes that triples what an eighth of all viewers ask for, at the most 80 % of all capacity.
const SURGE: Scene = Scene { demand: Demand::Event, load: 0.80, warm: 300.0, seconds: 1500.0, ..Scene::QUIET };

fn run(scene: &Scene, what: What) -> Outcome {
    let mut world = regions::RegionWorld::new(16, 2_000, 8);
    scenes::run(&mut world, scene, what)
}

#[test]
fn a_surge_overflows_no_region_where_nearest_and_spill_do() {
    let prices = run(&SURGE, What::Prices);
    assert!(prices.worst < 0.95 && prices.overload == 0.0, "{} {}", prices.worst, prices.overload);
    assert!(prices.gap < 0.002, "{}", prices.gap);
    let nearest = run(&SURGE, What::Nearest);
    assert!(nearest.worst > 1.2 && nearest.overload > 0.1, "{} {}", nearest.worst, nearest.overload);
    let spill = run(&SURGE, What::Spill);
    assert!(spill.moved_most > 4.0 * prices.moved_most, "{} {}", spill.moved_most, prices.moved_most);
}

#[test]
fn the_busiest_region_dies_in_a_surge_and_its_viewers_find_room_elsewhere() {
    let scene = Scene { lost: Some((900.0, 1400.0)), ..SURGE };
    let outcome = run(&scene, What::Prices);
    assert!(outcome.worst <= 1.05 && outcome.overload <= 0.005, "{} {}", outcome.worst, outcome.overload);
    assert!((1.0..120.0).contains(&outcome.back_s), "{}", outcome.back_s);
}

#[test]
fn sessions_of_five_minutes_that_nobody_tells_of_are_steered_as_well() {
    let scene = Scene { session_s: 300.0, ..SURGE };
    let outcome = run(&scene, What::Prices);
    assert!(outcome.worst < 0.97 && outcome.overload == 0.0, "{} {}", outcome.worst, outcome.overload);
}

#[test]
fn noise_moves_hardly_anybody() {
    let scene = Scene { noise: (0.05, 1.0), load: 0.9, seconds: 300.0, warm: 300.0, ..Scene::QUIET };
    let outcome = run(&scene, What::Prices);
    assert!(outcome.moved_step < 0.005 && outcome.worst < 0.97, "{} {}", outcome.moved_step, outcome.worst);
}
