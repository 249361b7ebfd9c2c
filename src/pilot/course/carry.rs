//! What goes over from one course to the next: when files are read anew, and when the server starts again.

use crate::steering::pick::Mask;
use crate::steering::solve::{Mix, Table};

use super::super::heritage::Heritage;
use super::super::market::{Market, MarketRegion};
use super::super::saved::{Learned, Saved};
use super::Course;

impl Course {
    /// Whether another market has the same rows and regions, so that what holds here would hold there.
    pub fn fits(&self, market: &Market) -> bool {
        let regions = |market: &Market| market.regions.iter().map(MarketRegion::label).collect::<Vec<_>>();
        let mut groups = self.market.groups.iter().zip(&market.groups);
        self.market.rows.len() == market.rows.len()
            && self.market.groups.len() == market.groups.len()
            && groups.all(|(before, now)| (&before.owner, before.first_row) == (&now.owner, now.first_row))
            && regions(&self.market) == regions(market)
    }

    /// Goes on with a market that [`Course::fits`]: files were read anew.
    pub fn with(mut self, market: Market) -> Course {
        self.prepared.iter_mut().for_each(|spare| *spare = None);
        // Files are read for a while, and what was published meanwhile is in none of them.
        Course { market, again: true, home: None, ..self }
    }

    /// Takes over what another course had for the same rows and regions: where they are sent, and what was learned of them.
    /// What is planned anew from there moves as slowly as anything else.
    pub fn inherit(&mut self, before: &Course, heritage: &Heritage) {
        if heritage.is_empty() {
            return;
        }
        for (column, was) in heritage.columns() {
            self.flows[column] = before.flows[was].clone();
            self.backlog[column] = before.backlog[was];
            self.brief[column] = before.brief[was];
        }
        self.asked.resize(self.market.rows.len(), 0.0);
        let mut rows = self.published.rows().to_vec();
        for (row, was) in heritage.rows() {
            let parts = before.published.row(was).parts();
            let mix = Mix::of(parts.filter_map(|(column, part)| Some((heritage.column(column)?, part))));
            if !mix.is_empty() {
                rows[row] = mix;
            }
            self.asked[row] = before.asked.get(was).copied().unwrap_or(0.0);
        }
        self.published = Table::new(rows);
        self.scales.inherit(&before.scales, heritage);
        self.comeback.inherit(&before.comeback, heritage);
        // From what went away just now the next step leads viewers elsewhere at once; who watched there is not known any more.
        let was = |mask: Mask, column: usize, now: Mask| match heritage.before(column) {
            Some(before) => mask >> before & 1,
            None => now >> column & 1,
        };
        let columns = 0..self.market.regions.len();
        let of = |mask: Mask, now: Mask| columns.clone().fold(0, |all, column| all | was(mask, column, now) << column);
        self.condition.closed = of(before.condition.closed, self.condition.closed);
        self.condition.down = of(before.condition.down, self.condition.down);
        (self.stage, self.heard, self.born) = (before.stage, before.heard, before.born);
        (self.stepped, self.home) = (before.stepped, None);
        (self.event, self.again) = (before.event, true);
    }

    pub fn save(&self, saved: &mut Saved) {
        let scales = self.region_scales();
        for ((region, flow), scale) in self.market.regions.iter().zip(&self.flows).zip(scales) {
            let learned = Learned {
                scale: self.scales.are_known().then_some(scale),
                dwell_s: flow.is_taught().then_some(flow.dwell_s()),
            };
            saved.regions.insert(region.label(), learned);
        }
    }
}
