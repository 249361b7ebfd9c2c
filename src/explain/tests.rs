//! Explanations of streams with capacities, on the bundled database: what is shown is what the plan was made of.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use jiff::Timestamp;

use super::ask::{Ask, explain};
use super::*;
use crate::config::{Shared, read_zone};
use crate::control::measured::{Measured, key};
use crate::geo::{CellId, Database};
use crate::health::Verdict;
use crate::load::Trust;
use crate::load::known::Known;
use crate::pilot::market::Market;
use crate::pilot::testing;
use crate::pilot::view::{MarketView, RegionView, Stage};
use crate::snapshot::{Served, Snapshot};
use crate::steering::learn::{Block, Learned, Region, Reporter, Sample};
use crate::steering::plan::Rankings;
use crate::world::{Beliefs, View};

const ZONE: &str = r#"
    zone  = "live.example"
    ns    = ["ns1.example.net"]
    money = { ms_per_unit = 100, cap = "15ms" }
    [region.us]
    near = "Ashburn"
    a    = ["192.0.2.1"]
    cost = 0.08
    capacity = "10000 sessions"
    [region.eu]
    near = "London"
    a    = ["192.0.2.11"]
    cost = 0.05
    capacity = "10000 sessions"
    [region.ap]
    near = "Singapore"
    a    = ["192.0.2.21"]
    cost = 0.02
    capacity = "10000 sessions"
    [region.rest]
    near = "Sydney"
    a    = ["192.0.2.31"]
    cost = 0.001
    [stream.live]
    regions = ["us", "eu", "ap"]
    bias    = { us = -7 }
    [stream.spread]
    regions = ["us", "eu", "rest"]
    policy  = "weighted"
    weights = { us = 1, eu = 3, rest = 0 }
"#;

const LONDON: &str = "81.2.69.0/24";
const PRICES: [f64; 3] = [4.0, 90.0, 0.0];

/// Rankings that a plan made: in every cell but the first the regions and weights of `head`, the others behind them as written.
fn planned(snapshot: &Snapshot, group: u32, head: &[(u8, u16)]) -> Arc<Rankings> {
    let plan = &snapshot.geography().plans[snapshot.groups()[group as usize].plan as usize];
    let rank = |cell| match plan.prior.ranking(CellId(cell as u16)) {
        prior if cell == 0 => prior.into(),
        prior => plan.spec.rank_by(prior, head, 0..3),
    };
    Arc::new(Rankings::solved((0..plan.prior.cells()).map(rank)))
}

fn snapshot() -> Snapshot {
    let read = read_zone("zone.toml".as_ref(), ZONE.into(), 0, &Shared::default());
    let served = Served { zone: Arc::new(read.zone.expect("a sound zone")), serial: 1 };
    Snapshot::compile(vec![served], &Arc::new(Database::bundled()), |_| Verdict::Up, None)
}

fn group(snapshot: &Snapshot) -> u32 {
    let streams = 0..snapshot.groups().len() as u32;
    let is_live = |group: &u32| {
        let stream = snapshot.stream(snapshot.groups()[*group as usize].streams[0]);
        &*snapshot.settings_of(stream).label == "live"
    };
    streams.into_iter().find(is_live).expect("the zone has the stream")
}

/// London's way to eu takes 200 ms and loses 2 %, as was measured again and again.
fn learned(snapshot: &Snapshot) -> Learned {
    let facts = &snapshot.geography().facts;
    let place = Ask::read("live.live.example", "A", LONDON).unwrap();
    let view = View::of(Arc::new(snapshot.with_rankings(None)), Arc::new(Beliefs::new()));
    let cell = explain(&place, &view, Basis::Files, SystemTime::now()).steering.unwrap().cell.unwrap();
    let location = snapshot.zones()[0].zone.regions[1].location;
    let mut learned = Learned::new();
    for block in 0..300u32 {
        let sample = Sample {
            client: key(&facts[usize::from(cell)]),
            cell: None,
            block: Block::of(std::net::Ipv4Addr::from(block << 8).into()),
            region: Region { zone: Some("live.example"), name: "eu", location },
            rtt_ms: 200.0,
            loss: Some(0.02),
            reporter: Reporter::of("beacon"),
        };
        learned.feed(&sample, Timestamp::now()).unwrap();
    }
    learned
}

/// `head`: `None` where nothing is planned.
fn view(stage: Stage, head: Option<&[(u8, u16)]>) -> View {
    let bare = snapshot();
    let (group, learned) = (group(&bare), learned(&bare));
    let fleet = bare.groups()[group as usize].fleet;
    let change = head.map(|head| (group, planned(&bare, group, head)));
    let region = |(price_ms, region): (&f64, u8)| RegionView {
        uses: vec![(fleet, region)],
        price_ms: *price_ms,
        ..testing::region("any", 1.0)
    };
    let regions = PRICES.iter().zip(0..).map(region).collect();
    let market = MarketView { stage, regions, groups: vec![group], ..MarketView::default() };
    let mut view = View::of(Arc::new(bare.with_rankings(change)), Arc::new(Beliefs::new()));
    view.learned = Some(Arc::new(Mutex::new(learned)));
    view.steering = Arc::new(crate::pilot::View { markets: vec![market] });
    view
}

fn told(view: &View, name: &str, client: &str) -> Explanation {
    explain(&Ask::read(name, "A", client).unwrap(), view, Basis::Server, SystemTime::now())
}

fn steering(view: &View, client: &str) -> Steering {
    told(view, "live.live.example", client).steering.unwrap()
}

fn region<'a>(steering: &'a Steering, name: &str) -> &'a RegionFacts {
    steering.regions.iter().find(|region| region.name == name).unwrap()
}

/// The sum of the parts, ms.
fn sum(region: &RegionFacts) -> f64 {
    let cost = region.cost.unwrap();
    let way = cost.distance_ms + cost.country_ms + cost.asn_ms + cost.measured_ms + cost.loss_ms;
    way + f64::from(region.bias_ms) + region.money_ms
}

#[test]
fn the_cost_shown_is_the_plan_s_and_the_sum_of_its_parts() {
    let view = view(Stage::Steered, Some(&[(0, 1)]));
    let snapshot = &view.snapshot;
    let measured = Measured::new(Arc::clone(view.learned.as_ref().unwrap()));
    let (markets, _) = Market::all(snapshot, &Known::of(snapshot), &measured);
    for client in [LONDON, "1.1.1.0/24"] {
        let steering = steering(&view, client);
        let market = &markets[0];
        let member = market.groups.iter().find(|member| member.group == group(snapshot)).unwrap();
        let row = member.first_row.unwrap() + usize::from(steering.cell.unwrap());
        for (column, cost) in market.rows.sorted(row) {
            let shown = region(&steering, &market.regions[usize::from(column)].name);
            let (cost, ms) = (f64::from(cost), shown.cost_ms.unwrap());
            // Rows are kept with five digits.
            assert!((ms - cost).abs() < 0.01, "{client} {}: {ms} shown, {cost} planned with", shown.name);
            assert!((ms - sum(shown)).abs() < 1e-9, "{shown:?}");
        }
    }
    let steering = steering(&view, LONDON);
    let money: Vec<f64> = ["us", "eu", "ap"].map(|name| region(&steering, name).money_ms).into();
    assert!((money[0] - 6.0).abs() < 1e-9 && (money[1] - 3.0).abs() < 1e-9, "{money:?}");
    let json = serde_json::to_value(&steering.regions).unwrap();
    let of = |name: &str| json.as_array().unwrap().iter().find(|region| region["name"] == name).unwrap();
    assert_eq!((of("eu")["money_ms"].is_number(), of("ap").get("money_ms")), (true, None));
    let eu = region(&steering, "eu").cost.unwrap();
    assert!(eu.measured_ms > 100.0 && eu.loss_ms > 3.0, "{eu:?}");
}

#[test]
fn comparisons_are_of_cost_and_price() {
    let view = view(Stage::Steered, Some(&[(0, 1)]));
    let steering = steering(&view, LONDON);
    let whole =
        |name: &str| region(&steering, name).cost_ms.unwrap() + region(&steering, name).load.as_ref().unwrap().price_ms;
    assert_eq!(steering.chosen.as_deref(), Some("us"));
    for name in ["eu", "ap"] {
        let more = format!("{:.0} ms more in all", whole(name) - whole("us"));
        assert!(region(&steering, name).why.starts_with(&more), "{more}: {}", region(&steering, name).why);
    }
    assert_eq!(steering.order.as_deref(), Some("by the plan for the load: the least cost and price"));
    assert_eq!(steering.without_load.as_deref(), Some("eu"), "by distance alone");
    assert_eq!((steering.drawn_by, steering.regions[0].draw), (None, None), "nothing to draw between");
}

#[test]
fn the_parts_in_the_text_add_up_to_the_column_of_costs() {
    for (stage, head) in [(Stage::Steered, Some(&[(0, 1)][..])), (Stage::Unreported, None)] {
        let view = view(stage, head);
        let mut lines = 0;
        for client in [LONDON, "1.1.1.0/24", "8.8.8.0/24", "5.1.1.0/24"] {
            let explanation = told(&view, "live.live.example", client);
            let text = anstream::adapter::strip_str(&explanation.to_string()).to_string();
            for shown in &explanation.steering.as_ref().unwrap().regions {
                let Some(line) = text.lines().find_map(|line| line.strip_prefix(&format!("  {}  ", shown.name))) else {
                    continue;
                };
                let Some((whole, parts)) = line.split_once(" ms = ") else { continue };
                let parts = parts.split(';').next().unwrap();
                let parts: f64 = parts.split(' ').filter_map(|word| word.parse::<f64>().ok()).sum();
                assert_eq!(whole.parse::<f64>().unwrap(), parts, "{text}");
                assert_eq!(format!("{:.0}", shown.cost_ms.unwrap()), whole, "{text}");
                lines += 1;
            }
        }
        assert!(lines >= 4, "{stage:?}: {lines}");
    }
}

#[test]
fn without_a_plan_the_order_is_by_distance_and_measurements_are_told_apart() {
    let view = view(Stage::Unreported, None);
    let steering = steering(&view, LONDON);
    let eu = region(&steering, "eu");
    assert_eq!((steering.chosen.as_deref(), eu.why.as_str()), (Some("eu"), "the nearest that is up"));
    assert!(steering.order.as_ref().unwrap().starts_with("nearest by distance and bias alone"));
    assert!(steering.regions.iter().filter(|region| region.cost.is_some()).count() == 3);
    for region in steering.regions.iter().filter(|region| region.cost.is_some()) {
        assert!((region.cost_ms.unwrap() - sum(region)).abs() < 1e-9, "{region:?}");
        assert_eq!((region.money_ms, region.cost.unwrap().measured_ms), (0.0, 0.0));
    }
    assert!(eu.learned_ms.unwrap() > 150.0 && eu.cost_ms.unwrap() < 20.0, "{eu:?}");
    let us = region(&steering, "us");
    let more = us.cost_ms.unwrap() - eu.cost_ms.unwrap();
    assert_eq!((us.bias_ms, us.why.clone()), (-7, format!("{more:.0} ms more")));
}

#[test]
fn the_draw_of_a_split_cell_is_told_and_its_least_score_is_who_is_chosen() {
    let view = view(Stage::Steered, Some(&[(0, 30), (1, 70)]));
    let mut chosen = [0, 0];
    for client in (1..120u8).map(|net| format!("{net}.1.1.0/24")) {
        let steering = steering(&view, &client);
        // Where those are whom no database places.
        if steering.cell == Some(0) {
            continue;
        }
        assert_eq!(steering.drawn_by.as_deref(), Some("block"));
        let draw = |name: &str| region(&steering, name).draw.unwrap();
        let (us, eu) = (draw("us"), draw("eu"));
        assert!((us.share - 0.3).abs() < 1e-9 && (eu.share - 0.7).abs() < 1e-9);
        for draw in [us, eu] {
            assert!((draw.score + draw.hash.ln() / draw.share).abs() < 1e-9 && draw.takes, "{draw:?}");
        }
        let least = usize::from(eu.score < us.score);
        assert_eq!(steering.chosen.as_deref(), Some(["us", "eu"][least]), "{client}: {us:?} {eu:?}");
        assert!(region(&steering, ["us", "eu"][least]).why.starts_with("drawn for this block: "));
        assert_eq!(region(&steering, "ap").draw, None);
        chosen[least] += 1;
    }
    assert!(chosen[0] > 5 && chosen[1] > 20, "{chosen:?}");
    let text = told(&view, "live.live.example", LONDON).to_string();
    assert!(text.contains("  pick      drawn for the block by its hash: the least -ln(hash)/share\n"), "{text}");
    assert!(text.contains("  us  hash 0.") && text.contains(", share 30.0 %: "), "{text}");
}

#[test]
fn where_each_query_is_drawn_anew_that_is_told() {
    let explanation = told(&view(Stage::Steered, None), "spread.live.example", LONDON);
    let steering = explanation.steering.as_ref().unwrap();
    assert_eq!(steering.drawn_by.as_deref(), Some("query"), "the ranking is the same for all places");
    let chosen = steering.regions.iter().find(|region| region.chosen).unwrap();
    assert!(chosen.why.starts_with("drawn for this query: weight "), "{}", chosen.why);
    let least =
        steering.regions.iter().filter_map(|region| region.draw).map(|draw| draw.score).fold(f64::MAX, f64::min);
    assert_eq!(chosen.draw.unwrap().score, least);
    assert!(explanation.to_string().contains("drawn anew for every query by its id and port"));
}

#[test]
fn why_a_stream_is_not_steered_by_load_is_told_as_it_is() {
    for (trust, why) in [
        (Trust::Never, "no load is reported, viewers go to the nearest region"),
        (Trust::Lost, "no load is reported any more, viewers go to the nearest region"),
        (Trust::Fresh, "load is reported, but it is not yet known what a query stands for"),
    ] {
        let mut view = view(Stage::Unreported, None);
        let mut market = view.steering.markets[0].clone();
        market.regions.iter_mut().for_each(|region| region.majority = trust);
        view.steering = Arc::new(crate::pilot::View { markets: vec![market] });
        let by_load = steering(&view, LONDON).by_load.unwrap();
        assert!(by_load.starts_with(why), "{trust:?}: {by_load}");
    }
}
