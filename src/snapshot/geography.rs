//! Where clients are, compiled for the plans of one set of zones.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::settings::{Policy, Steering, Stream, Zone};
use crate::geo::{Atlas, Database, Match, Places};
use crate::steering::cells::{self, Cells, Facts};
use crate::steering::plan::{Choice, Contender, Plan, Spec};

/// Atlas and plans. They change with databases, regions, policies and rules; never with verdicts or static records.
pub struct Geography {
    pub database: Arc<Database>,
    pub places: Arc<Places>,
    pub atlas: Atlas,
    pub plans: Vec<Plan>,
    /// Cells in use, for people.
    pub cells: usize,
    /// By cell; empty where nothing is steered by load.
    pub facts: Vec<Facts>,
    wanted: Wanted,
}

/// What the zones ask of geography, each thing once.
#[derive(Default, PartialEq)]
pub struct Wanted {
    /// Distinct `from` sets.
    froms: Vec<Vec<Match>>,
    specs: Vec<Spec>,
}

impl Wanted {
    /// What `zones` ask for, and for each stream of each zone the position of its plan.
    pub fn by<'a>(zones: impl Iterator<Item = &'a Zone>) -> (Wanted, Vec<u32>) {
        let mut wanted = Wanted::default();
        let mut from_ids: HashMap<Vec<Match>, usize> = HashMap::new();
        let mut spec_ids: HashMap<Spec, u32> = HashMap::new();
        let mut plan_of_stream = Vec::new();
        for zone in zones {
            for stream in &zone.streams {
                let spec = spec(zone, stream, |from| {
                    *from_ids.entry(from).or_insert_with_key(|from| {
                        wanted.froms.push(from.clone());
                        wanted.froms.len() - 1
                    })
                });
                plan_of_stream.push(*spec_ids.entry(spec).or_insert_with_key(|spec| {
                    wanted.specs.push(spec.clone());
                    wanted.specs.len() as u32 - 1
                }));
            }
        }
        (wanted, plan_of_stream)
    }

    /// How many different plans.
    pub fn plans(&self) -> usize {
        self.specs.len()
    }

    /// The same with cells as fine as load needs them, whatever is steered by load.
    pub fn finely(mut self) -> Wanted {
        self.specs.iter_mut().for_each(|spec| spec.by_load = true);
        self
    }

    fn by_load(&self) -> bool {
        self.specs.iter().any(|spec| spec.by_load)
    }
}

fn spec(zone: &Zone, stream: &Stream, mut from_id: impl FnMut(Vec<Match>) -> usize) -> Spec {
    let rules = stream.rules.iter().map(|rule| {
        let from = rule.from.iter().map(|(item, _)| item.clone()).collect();
        (from_id(from), choice(zone, &rule.steering))
    });
    Spec { rules: rules.collect(), own: choice(zone, &stream.steering), by_load: by_load(zone, stream) }
}

/// Whether the stream leaves the choice to us, and some of its regions can be full.
pub(super) fn by_load(zone: &Zone, stream: &Stream) -> bool {
    let mut steerings = stream.rules.iter().map(|rule| &rule.steering).chain([&stream.steering]);
    steerings.any(|steering| {
        let can_be_full = |region: &u8| zone.regions[usize::from(*region)].capacity.is_some();
        steering.policy == Policy::Nearest && steering.regions.iter().any(can_be_full)
    })
}

fn choice(zone: &Zone, steering: &Steering) -> Choice {
    let contender = |(&region, &bias): (&u8, &i32)| Contender {
        region,
        location: zone.regions[usize::from(region)].location,
        bias,
    };
    Choice {
        options: steering.regions.iter().zip(&steering.bias).map(contender).collect(),
        policy: steering.policy.clone(),
        answers: steering.answers,
    }
}

impl Geography {
    /// Builds what `wanted` needs, or takes from `previous` what is the same.
    pub fn new(database: &Arc<Database>, wanted: Wanted, previous: Option<&Arc<Geography>>) -> Arc<Geography> {
        let previous = previous.filter(|previous| Arc::ptr_eq(&previous.database, database));
        if let Some(same) = previous.filter(|previous| previous.wanted == wanted) {
            return same.clone();
        }
        let same = |previous: &&Arc<Geography>| {
            previous.wanted.froms == wanted.froms && previous.wanted.by_load() == wanted.by_load()
        };
        let places = match previous.filter(same) {
            Some(previous) => previous.places.clone(),
            None if wanted.by_load() => Arc::new(Places::build_by_network(database, &wanted.froms)),
            None => Arc::new(Places::build(database, &wanted.froms)),
        };
        let Cells { of_place, plans, facts, grain, count } = cells::build(&places.list, &wanted.specs);
        if let Some(grain) = grain {
            tracing::warn!(grain, "more than {} cells: places are coarsened to {grain} degrees", cells::MAX_CELLS);
        }
        let atlas = Atlas::build(&places, &of_place);
        Arc::new(Geography { database: database.clone(), places, atlas, plans, cells: count, facts, wanted })
    }
}
