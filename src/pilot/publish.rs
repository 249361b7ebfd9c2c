//! From the shares that the solver gave to rankings that answers are made of.

use crate::geo::CellId;
use crate::snapshot::Snapshot;
use crate::steering::pick::Mask;
use crate::steering::plan::Rankings;
use crate::steering::solve::REGIONS;

use super::course::Course;
use super::market::{EXPLORE_MS, MarketGroup};

/// Above this utilisation answers live no longer than ten seconds: what is nearly full may have to be left soon.
pub const NEARLY_FULL: f64 = 0.90;

/// Weights of a cell's only choice, and of its second where that is worth finding out about (STEERING §4: 1 %).
const EXPLORING: (u16, u16) = (99, 1);

/// The rankings of a group that is steered by load: the shares of the course's table first, then the other regions by cost
/// and price. `None`: the group is not steered by load.
pub fn rankings(snapshot: &Snapshot, course: &Course, member: &MarketGroup) -> Option<Rankings> {
    let (market, table, prices) = (course.market(), course.table(), course.prices());
    let (brief, closed) = (course.brief(), course.closed());
    let first = member.first_row?;
    let plan = &snapshot.geography().plans[member.plan as usize];
    let mut order: Vec<(f64, u8, u8)> = Vec::with_capacity(REGIONS);
    let mut head: Vec<(u8, u16)> = Vec::with_capacity(4);
    // What is nearly full has no room for the curious.
    let full =
        (0..).zip(brief).filter(|(_, brief)| **brief).fold(closed, |mask, (column, _): (u8, _)| mask | 1 << column);
    let cells = (0..plan.prior.cells()).map(|cell| {
        let row = first + cell;
        let prior = plan.prior.ranking(CellId(cell as u16));
        head.clear();
        head.extend(table.row(row).iter().filter_map(|(column, weight)| Some((member.region(column)?, weight))));
        if head.is_empty() {
            return prior.into();
        }
        order.clear();
        order.extend(market.rows.sorted(row).filter_map(|(column, cost)| {
            let price = prices.get(usize::from(column)).copied().unwrap_or(0.0);
            Some((f64::from(cost) + price, member.region(column)?, column))
        }));
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let unsure = market.unsure.get(cell).copied().unwrap_or(0) & !full;
        if let [(only, weight)] = &mut head[..]
            && unsure != 0
            && let Some((cost, ..)) = order.iter().find(|(_, region, _)| region == only)
            // The second choice of those that are open, and no other.
            && let Some((second, region, column)) =
                order.iter().find(|(_, region, column)| region != only && closed >> column & 1 == 0)
            && unsure >> column & 1 == 1
            && second - cost <= f64::from(EXPLORE_MS)
        {
            *weight = EXPLORING.0;
            head.push((*region, EXPLORING.1));
        }
        plan.spec.rank_by(prior, &head, order.iter().map(|(_, region, _)| *region))
    });
    let rankings = Rankings::solved(cells);
    let brief = (0u8..).zip(brief).filter(|(_, brief)| **brief).filter_map(|(column, _)| member.region(column));
    Some(rankings.with_brief(brief.fold(0 as Mask, |mask, region| mask | 1 << region)))
}
