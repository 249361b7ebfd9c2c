//! Zones that are alike are looked at together, and what is said of one of them stays with it.

use super::*;

/// Zones of these names, all with the regions of [`zone`].
fn twins(names: &[&str], checked: bool) -> Vec<Served> {
    let like = zone(1);
    let named = |name: &&str| {
        let mut twin = crate::config::settings::Zone::clone(&like);
        twin.name = name.parse().unwrap();
        // A reload makes the prober probe, and nobody answers: only what the tests say of servers is to count.
        twin.regions.iter_mut().filter(|_| !checked).for_each(|region| region.check = None);
        twin.streams.iter_mut().for_each(|stream| stream.owner = format!("live.{name}").parse().unwrap());
        Served { zone: Arc::new(twin), serial: 1 }
    };
    names.iter().map(named).collect()
}

fn compiled(checked: bool, beliefs: &Beliefs, previous: Option<&Snapshot>) -> Snapshot {
    let database = previous.map_or_else(|| Arc::new(Database::empty()), |p| Arc::clone(&p.geography().database));
    Snapshot::compile(twins(&NAMES, checked), &database, |target| verdict(beliefs, target), previous)
}

const NAMES: [&str; 3] = ["a.example.", "b.example.", "c.example."];

fn rig(checked: bool) -> Rig {
    let load: Load = Arc::new(move |previous, beliefs| {
        let snapshot = compiled(checked, beliefs, Some(previous));
        Ok(Loaded { snapshot, warnings: vec![], seen: Seen::default() })
    });
    Rig::of(compiled(checked, &Beliefs::new(), None), load)
}

fn modes(rig: &Rig) -> Vec<Mode> {
    (0..3).map(|zone| rig.published.load().standing(zone, 0).mode).collect()
}

fn drain_of(zone: &str) -> Draft {
    Draft { zone: Some(zone.into()), ..drain("eu", Duration::ZERO) }
}

#[tokio::test]
async fn a_drain_of_one_zone_leaves_those_like_it_alone_also_over_reloads() {
    let mut rig = rig(false);
    rig.run();
    assert_eq!(rig.published.load().fleets(), 1, "they share one");
    rig.order(drain_of("b.example")).await.unwrap();
    assert_eq!(modes(&rig), [Mode::Steady, Mode::Drained, Mode::Steady]);
    rig.reload().await.await.unwrap().unwrap();
    assert_eq!(modes(&rig), [Mode::Steady, Mode::Drained, Mode::Steady]);
    rig.lift(Lift::Drains { subject: Subject::Region("eu".into()), zone: Some("b.example".into()) }).await.unwrap();
    assert_eq!(modes(&rig), [Mode::Steady, Mode::Ramping, Mode::Steady]);
    rig.reload().await.await.unwrap().unwrap();
    assert_eq!(modes(&rig), [Mode::Steady, Mode::Ramping, Mode::Steady], "no order names it any more");
}

#[tokio::test]
async fn what_goes_on_in_all_of_them_goes_on_after_a_reload() {
    let mut rig = rig(false);
    rig.run();
    rig.order(drain("eu", Duration::ZERO)).await.unwrap();
    assert_eq!(modes(&rig), [Mode::Drained; 3]);
    rig.lift(Lift::Drains { subject: Subject::Region("eu".into()), zone: None }).await.unwrap();
    rig.reload().await.await.unwrap().unwrap();
    assert_eq!(modes(&rig), [Mode::Ramping; 3]);
    assert_eq!(rig.published.load().fleets(), 1, "nobody has a way of its own");
}

#[tokio::test]
async fn a_verdict_reaches_zones_that_were_set_apart() {
    let mut rig = rig(true);
    rig.run();
    rig.order(drain_of("b.example")).await.unwrap();
    rig.say(rig.target(1), Verdict::Down).await;
    let view = rig.view().await;
    for zone in 0..3 {
        assert_eq!(view.snapshot.fleet(zone).1.up(Family::V4), 0b01, "zone {zone}");
    }
}

#[tokio::test]
async fn a_region_lost_to_many_zones_is_told_once() {
    let mut rig = rig(true);
    rig.run();
    rig.say(rig.target(0), Verdict::Down).await;
    rig.view().await;
    assert_eq!(rig.kinds(2), [Kind::ServerDown, Kind::RegionDown]);
    let lost = &rig.journal.since(0, 10)[1].note;
    assert_eq!((lost.zone.as_deref(), &*lost.cause), (None, "A: 0 of 1 servers up, 1 needed; in 3 zones"));
}

#[tokio::test]
async fn after_a_restart_each_goes_on_where_it_was() {
    let state = tempdir().unwrap();
    for (orders, expected) in [
        (vec![drain_of("b.example")], [Mode::Steady, Mode::Drained, Mode::Steady]),
        (vec![], [Mode::Steady, Mode::Ramping, Mode::Steady]),
        (vec![], [Mode::Steady, Mode::Ramping, Mode::Steady]),
    ] {
        let mut rig = rig(false);
        rig.keep_in(state.path());
        rig.run();
        let begins_with_order = orders.len() == 1;
        for order in orders {
            rig.order(order).await.unwrap();
        }
        if !begins_with_order && modes(&rig)[1] == Mode::Drained {
            let subject = Subject::Region("eu".into());
            rig.lift(Lift::Drains { subject, zone: Some("b.example".into()) }).await.unwrap();
        }
        assert_eq!(modes(&rig), expected);
        rig.end().await;
    }
}

fn force_down(region: &str, zone: &str) -> Draft {
    Draft { zone: Some(zone.into()), action: Action::ForceDown, ..drain(region, Duration::ZERO) }
}

#[tokio::test]
async fn a_region_forced_down_in_the_first_zone_moves_nobody_else_at_a_reload() {
    let mut rig = rig(false);
    rig.run();
    rig.order(force_down("eu", "a.example")).await.unwrap();
    for _ in 0..2 {
        rig.reload().await.await.unwrap().unwrap();
        assert_eq!(modes(&rig), [Mode::Steady; 3]);
        let up: Vec<bool> = (0..3).map(|zone| rig.published.load().fleet(zone).1.up(Family::V4) & 1 == 1).collect();
        assert_eq!(up, [false, true, true]);
    }
    assert_eq!(rig.kinds(4)[2..], [Kind::Reloaded; 2], "nothing else has happened");
}

#[tokio::test]
async fn what_most_zones_go_through_is_shared_whichever_comes_first() {
    let mut rig = rig(false);
    rig.run();
    rig.order(drain("eu", Duration::ZERO)).await.unwrap();
    rig.order(force_down("us", "a.example")).await.unwrap_err();
    rig.order(Draft { anyway: true, ..force_down("us", "a.example") }).await.unwrap();
    rig.reload().await.await.unwrap().unwrap();
    assert_eq!(modes(&rig), [Mode::Drained; 3]);
    assert_eq!(rig.published.load().fleets(), 2, "only the odd one is set apart");
}

#[tokio::test]
async fn a_shared_ramp_outlives_a_restart_beside_a_zone_that_is_forced_up() {
    let state = tempdir().unwrap();
    for restart in [false, true] {
        let mut rig = rig(false);
        rig.keep_in(state.path());
        rig.run();
        if !restart {
            rig.order(drain("eu", Duration::ZERO)).await.unwrap();
            rig.lift(Lift::Drains { subject: Subject::Region("eu".into()), zone: None }).await.unwrap();
            assert_eq!(modes(&rig), [Mode::Ramping; 3]);
            rig.order(Draft { action: Action::ForceUp, ..drain_of("a.example") }).await.unwrap();
        }
        assert_eq!(modes(&rig), [Mode::Steady, Mode::Ramping, Mode::Ramping], "restarted: {restart}");
        rig.end().await;
    }
}

#[tokio::test]
async fn when_every_zone_is_apart_their_fleet_is_told_of_no_more() {
    let mut rig = rig(true);
    rig.run();
    for zone in ["a.example", "b.example", "c.example"] {
        rig.order(Draft { action: Action::ForceUp, ..drain_of(zone) }).await.unwrap();
    }
    rig.say(rig.target(1), Verdict::Down).await;
    rig.view().await;
    rig.kinds(5);
    let lost = rig.journal.since(0, 50).into_iter().filter(|told| told.note.kind == Kind::RegionDown);
    let lost: Vec<_> = lost.map(|told| told.note.cause.to_string()).collect();
    assert_eq!(lost, ["A: 0 of 1 servers up, 1 needed; in 3 zones"]);
}
