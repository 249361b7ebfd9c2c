//! Steering by load in virtual time: the control code of the server, in a world of viewers, caches and regions.
//!
//! `cargo bench --bench loop` runs every scenario in a world of 40,000 cells and 16 regions, steered by prices, to the
//! nearest, and to the nearest that has room, and prints a table; `-- --help` tells the rest. docs/steering.md says what it
//! came to.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, ValueEnum};

mod pictures;
#[path = "../worlds/random.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod random;
#[path = "../worlds/regions.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod regions;
mod scenes;
mod ways;
mod world;

use regions::RegionWorld;
use scenes::{Demand, Outcome, Scene, What};

#[derive(Parser)]
struct Arguments {
    /// Only scenarios whose names begin so.
    scenarios: Vec<String>,
    /// Ways to steer.
    #[arg(long, value_delimiter = ',', default_values = ["prices", "nearest", "spill"])]
    ways: Vec<What>,
    /// Draw a picture of each scenario in this directory.
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Another number makes another world.
    #[arg(long, default_value_t = 16)]
    seed: u64,
    #[arg(long, default_value_t = 40_000)]
    cells: usize,
    #[arg(long, default_value_t = 16)]
    regions: usize,
    #[arg(long, hide = true, help = "passed by `cargo bench`")]
    bench: bool,
}

fn scenes() -> Vec<Scene> {
    let quiet = Scene::QUIET;
    let event = Scene { demand: Demand::Event, load: 0.80, seconds: 4800.0, ..quiet };
    let mut all: Vec<Scene> = [
        ("static 0.30", 0.30),
        ("static 0.50", 0.50),
        ("static 0.70", 0.70),
        ("static 0.85", 0.85),
        ("static 0.95", 0.95),
    ]
    .into_iter()
    .map(|(name, load)| Scene { name, load, ..quiet })
    .collect();
    all.extend([
        Scene { name: "noise 0.70", noise: (0.05, 1.0), load: 0.7, seconds: 600.0, ..quiet },
        Scene { name: "noise 0.90", noise: (0.05, 1.0), load: 0.9, seconds: 600.0, ..quiet },
        Scene { name: "day", demand: Demand::Day, load: 0.85, seconds: 86_400.0, warm: 7200.0, step: 10.0, ..quiet },
        Scene { name: "surge", ..event },
        Scene { name: "surge and loss", lost: Some((1800.0, 3600.0)), ..event },
        Scene { name: "loss", load: 0.8, lost: Some((300.0, 1500.0)), seconds: 2700.0, ..quiet },
        Scene { name: "surge, sessions of 5 minutes", session_s: 300.0, ..event },
        Scene { name: "surge, sessions of an hour", session_s: 3600.0, ..event },
        Scene {
            name: "loss, sessions of 5 minutes",
            session_s: 300.0,
            load: 0.8,
            lost: Some((300.0, 1500.0)),
            seconds: 2700.0,
            ..quiet
        },
        Scene { name: "silent minute", load: 0.85, silent: Some((300.0, 360.0)), ..quiet },
        Scene { name: "silent half hour", load: 0.85, silent: Some((300.0, 2100.0)), seconds: 3600.0, ..quiet },
    ]);
    all
}

fn line(scene: &str, way: &str, outcome: &Outcome, took: f64) {
    let Outcome { worst, extra_ms, moved_step, moved_most, moved_minute, overload, back_s, gap, .. } = outcome;
    println!(
        "| {scene} | {way} | {worst:.3} | {extra_ms:.2} | {:.3} | {:.2} | {:.1} | {overload:.5} | {back_s:.0} | {:.3} | {took:.0} |",
        moved_step * 100.0,
        moved_most * 100.0,
        moved_minute * 100.0,
        gap * 100.0
    );
}

fn main() {
    let arguments = Arguments::parse();
    println!(
        "| scenario | way | worst u | extra ms | moved a step, mean % | most % | a minute, most % | overload | back s | gap % | took s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let wanted = |scene: &&Scene| {
        let begins = |name: &String| scene.name.starts_with(name.as_str());
        arguments.scenarios.is_empty() || arguments.scenarios.iter().any(begins)
    };
    for scene in scenes().iter().filter(wanted) {
        let mut outcomes = vec![];
        for &way in &arguments.ways {
            let start = Instant::now();
            let mut world = RegionWorld::new(arguments.seed, arguments.cells, arguments.regions);
            let outcome = scenes::run(&mut world, scene, way);
            let name = way.to_possible_value().expect("none is hidden").get_name().to_owned();
            line(scene.name, &name, &outcome, start.elapsed().as_secs_f64());
            outcomes.push((name, outcome));
        }
        if let Some(directory) = &arguments.svg {
            pictures::draw(directory, scene.name, &outcomes).expect("the directory can be written to");
        }
    }
}
