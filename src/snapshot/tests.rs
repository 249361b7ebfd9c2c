//! A fleet that zones share gives each of them what a fleet of its own would.

use proptest::prelude::*;

use super::standing::{Forced, Share};
use super::*;
use crate::config::{Shared, load_zones};

const ZONES: u32 = 4;
const REGIONS: u8 = 3;

/// Zones with the same servers, and one that some of their names need. `alike`: they can share a fleet; else each has its
/// own ramp, which snapshots know nothing of.
fn world(alike: bool) -> Snapshot {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: String| {
        let text = format!("zone = \"{name}.example\"\nns = [\"ns1.example.net\"]\n[check]\ntcp = 9\n{text}");
        std::fs::write(dir.path().join(format!("{name}.toml")), text).expect("a new file");
    };
    for z in 0..ZONES {
        let ramp = if alike { 1 } else { z + 1 };
        let region = |r: u8| {
            format!(
                "[region.r{r}]\nat = [{r}, 9]\nramp = \"{ramp}s\"\na = [\"10.0.{r}.1\", \"10.0.{r}.2\"]\naaaa = [\"2001:db8::{r}\"]\n"
            )
        };
        let streams = "[stream.free]\nanswers = 2\n[stream.needy]\nneeds = [\"free.y.example.\"]\n";
        write(&format!("z{z}"), (0..REGIONS).map(region).collect::<String>() + streams);
    }
    let login =
        "[region.r0]\nat = [0, 9]\na = [\"10.9.0.1\"]\n[region.r1]\nat = [1, 9]\na = [\"10.9.1.1\"]\n[stream.free]\n";
    write("y", login.to_owned());
    let loaded = load_zones(&[dir.path().to_owned()], &Shared::default());
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let zones = loaded.zones.into_iter().map(|zone| Served { zone: Arc::new(zone), serial: 1 }).collect();
    Snapshot::compile(zones, &Arc::new(Database::empty()), |_| Verdict::Unknown, None)
}

/// All that answers see of each stream.
fn seen(snapshot: &Snapshot) -> Vec<String> {
    let mut seen = vec![];
    for stream in snapshot.streams() {
        let zone = &snapshot.zones()[stream.zone as usize].zone;
        let (fleet, state) = snapshot.fleet_for(stream);
        for family in Family::BOTH {
            let field = snapshot.field(stream, family);
            let usable = snapshot.usable(snapshot.fleet_of(stream.zone), family);
            seen.push(format!(
                "{} {family:?} {:b} {:b} {:b} {usable:b}",
                zone.name, field.up, field.declared, field.banned
            ));
            for region in 0..zone.regions.len() as u8 {
                let answers = zone.streams[stream.stream as usize].steering.answers;
                let ring = state.ring(fleet, region, family, answers);
                let window = if ring.answers() == 0 { &[][..] } else { ring.window(0) };
                seen.push(format!("{:?} {} {window:?}", state.standing(region), ring.is_spread()));
            }
        }
    }
    seen
}

/// Verdicts on targets, then what is said of a region of one zone.
type Round = (Vec<(usize, Verdict)>, Option<(u32, u8, Standing)>);

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let verdict = prop_oneof![Just(Verdict::Up), Just(Verdict::Down), Just(Verdict::Damped), Just(Verdict::Unknown)];
    let forced = prop_oneof![Just(None), Just(Some(Forced::Up)), Just(Some(Forced::Down))];
    let standing = (forced, 0..2usize, proptest::bool::ANY, 0..=4u8).prop_map(|(forced, server, of_server, share)| {
        let servers = if of_server { vec![(server, Forced::Down)] } else { vec![] };
        Standing { forced, servers: servers.into(), share: Share::of(f64::from(share) / 4.0), ..Standing::default() }
    });
    let said = proptest::option::of((1..=ZONES, 0..REGIONS, standing));
    proptest::collection::vec((proptest::collection::vec((0..64usize, verdict), 0..5), said), 1..12)
}

proptest! {
    #[test]
    fn zones_of_one_fleet_are_given_what_they_would_be_alone(rounds in rounds()) {
        let (mut shared, mut alone) = (world(true), world(false));
        prop_assert_eq!((shared.fleets(), alone.fleets()), (2, ZONES + 1));
        prop_assert_eq!(shared.targets(), alone.targets());
        for (verdicts, said) in rounds {
            let count = shared.targets().len();
            let verdicts: Vec<_> = verdicts.into_iter().map(|(t, v)| (TargetId((t % count) as u32), v)).collect();
            (shared, alone) = (shared.with_verdicts(&verdicts), alone.with_verdicts(&verdicts));
            if let Some((zone, region, standing)) = said {
                shared = shared.with_apart(&[zone]);
                let tell = |to: &Snapshot| to.with_standings([((to.fleet_of(zone), region), standing.clone())]);
                (shared, alone) = (tell(&shared), tell(&alone));
            }
            prop_assert_eq!(seen(&shared), seen(&alone));
            // Nothing is carried along that a compilation would not find.
            let fresh = FleetState::new(shared.fleet(0).0, shared.verdicts());
            prop_assert_eq!(fresh.up(Family::V4), shared.fleet(0).1.up(Family::V4));
        }
    }
}

#[test]
fn a_verdict_that_changes_no_answer_judges_nothing() {
    let before = world(true);
    let after = before.with_verdicts(&[(TargetId(0), Verdict::Up)]);
    assert_eq!(after.verdict(TargetId(0)), Verdict::Up);
    assert!(std::ptr::eq(before.fleet(1).1, after.fleet(1).1) && std::ptr::eq(before.fleet(0).1, after.fleet(0).1));
}
