//! How many session starts a query of ours stands for.
//!
//! A resolver asks once for many viewers, and a player may ask again and again for one. Queries give the shape of demand, and
//! what regions report its scale (STEERING §7). It is kept by row: viewers take it with them wherever they are sent.

use crate::steering::solve::{Mix, Table};

use super::heritage::Heritage;

/// Time constant in which it is learned, s.
const MEMORY_S: f64 = 60.0;
/// Bounds: a player that resolves anew with every TTL asks a hundred times in one session, and one cached answer serves
/// hundreds of viewers.
pub(super) const RANGE: (f64, f64) = (0.001, 1000.0);
/// Starts that make no difference, of a region's part of all: where hardly anybody is sent, chance decides.
const FEW: f64 = 0.05;
/// How much a region's starts may differ from what is expected in one step of learning.
const SURPRISE: (f64, f64) = (0.1, 10.0);
/// Viewers do not multiply by more than this while reports lag behind queries. Where more is asked than that, not viewers
/// became so many more: answers did that come from us, as when a name is pointed here of which only a few asked before.
const SUDDEN: f64 = 2.0;
/// And by so many starts/s: of a few, chance decides.
const SLACK: f64 = 0.1;
/// When all are back who lost a region, a query stands for so many times as much at most: players ask anew and anew, and
/// demand may have changed meanwhile.
const SETTLING: (f64, f64) = (0.1, 2.0);
/// So many queries have to be seen before anything is said: of fewer, chance (or whoever tries out a new server) decides.
const SEEN: f64 = 30.0;
/// Queries and starts are both seen for so long before anything is said, s: queries/s are known only smoothed, and rise from
/// nothing when it all begins.
const SETTLED_S: f64 = 60.0;

/// By row.
pub struct Scales {
    by_row: Vec<f64>,
    /// Whether reports ever told.
    known: bool,
    /// How long there was something to learn from, s.
    seen_s: f64,
    /// And how much.
    seen: f64,
}

impl Scales {
    /// What was kept over a restart. `known`: by column of the table.
    pub fn restored(table: &Table, known: &[Option<f64>]) -> Scales {
        let sound = |scale: &Option<f64>| scale.filter(|scale| *scale > 0.0 && scale.is_finite());
        let told = || known.iter().filter_map(sound);
        let count = told().count();
        if count == 0 {
            return Scales { by_row: vec![1.0; table.len()], known: false, seen_s: 0.0, seen: 0.0 };
        }
        // A region that tells nothing is like the others.
        let mean = told().sum::<f64>() / count as f64;
        let of = |column: u8| known.get(usize::from(column)).and_then(sound).unwrap_or(mean);
        let scale = |mix: &Mix| match mix.is_empty() {
            true => mean,
            false => mix.parts().map(|(column, part)| part * of(column)).sum(),
        };
        let by_row = table.rows().iter().map(|mix| scale(mix).clamp(RANGE.0, RANGE.1)).collect();
        Scales { by_row, known: true, seen_s: SETTLED_S, seen: SEEN }
    }

    /// Takes over those of rows that were there before; the others are like their mean.
    pub fn inherit(&mut self, before: &Scales, heritage: &Heritage) {
        if !before.known {
            return;
        }
        if !self.known {
            let mean = before.by_row.iter().sum::<f64>() / before.by_row.len().max(1) as f64;
            self.by_row.fill(mean.clamp(RANGE.0, RANGE.1));
        }
        heritage.rows().for_each(|(row, was)| self.by_row[row] = before.by_row[was]);
        (self.known, self.seen_s, self.seen) = (true, before.seen_s, before.seen);
    }

    pub fn are_known(&self) -> bool {
        self.known
    }

    /// Starts/s from queries/s.
    pub fn apply(&self, asked: &[f64], demand: &mut Vec<f64>) {
        demand.clear();
        demand.extend(asked.iter().zip(&self.by_row).map(|(asked, scale)| asked * scale));
    }

    /// Where more (or fewer) sessions start than expected, those who are sent there start more for a query than was thought.
    ///
    /// By column: `starts`, starts/s as reports tell; `flowing`, starts/s as they follow from queries by these scales.
    pub fn learn(&mut self, table: &Table, starts: &[Option<f64>], flowing: &[f64], elapsed_s: f64) {
        let told = || starts.iter().zip(flowing).filter_map(|(starts, flowing)| Some(((*starts)?, flowing)));
        let (all_starts, all) = told().fold((0.0, 0.0), |sums, (starts, flow)| (sums.0 + starts, sums.1 + flow));
        let is_sound = |sum: f64| sum > 0.0 && sum.is_finite();
        if !is_sound(all) || !is_sound(all_starts) {
            return;
        }
        if !self.known {
            self.seen_s += elapsed_s;
            self.seen += all * elapsed_s;
            if self.seen_s >= SETTLED_S && self.seen >= SEEN {
                self.known = true;
                self.by_row.fill((all_starts / all).clamp(RANGE.0, RANGE.1));
            }
            return;
        }
        let excess = all / (SUDDEN * (all_starts + SLACK));
        if excess > 1.0 {
            self.by_row.iter_mut().for_each(|scale| *scale = (*scale / excess).clamp(RANGE.0, RANGE.1));
            return;
        }
        let few = FEW * all / told().count() as f64;
        let gain = elapsed_s.min(MEMORY_S) / MEMORY_S;
        let grown =
            |starts: f64, flowing: f64| ((starts + few) / (flowing + few)).clamp(SURPRISE.0, SURPRISE.1).powf(gain);
        // A region that tells nothing is like the others.
        let mean = grown(all_starts, all);
        let growth: Vec<f64> =
            starts.iter().zip(flowing).map(|(starts, flowing)| starts.map_or(mean, |s| grown(s, *flowing))).collect();
        self.grow(table, &growth, mean);
    }

    /// Starts of each region, by column, became so many times as many, though not more was asked: another length of sessions
    /// is believed.
    pub fn revise(&mut self, table: &Table, factors: &[f64]) {
        if self.known && factors.iter().any(|factor| *factor != 1.0) {
            let sound: Vec<f64> = factors.iter().map(|factor| factor.clamp(SURPRISE.0, SURPRISE.1)).collect();
            self.grow(table, &sound, sound.iter().sum::<f64>() / sound.len() as f64);
        }
    }

    /// By so much where viewers are sent to each column, by `mean` where they are sent nowhere.
    fn grow(&mut self, table: &Table, growth: &[f64], mean: f64) {
        for (scale, mix) in self.by_row.iter_mut().zip(table.rows()) {
            let of_mix: f64 = mix.parts().map(|(column, part)| part * growth[usize::from(column)]).sum();
            *scale = (*scale * if mix.is_empty() { mean } else { of_mix }).clamp(RANGE.0, RANGE.1);
        }
    }

    /// Demand is as much as it was, starts/s in all, though other queries stand for it; within limits, as it may have changed.
    pub fn settle(&mut self, asked: &[f64], total: f64) {
        let now: f64 = asked.iter().zip(&self.by_row).map(|(asked, scale)| asked * scale).sum();
        let part = (total / now).clamp(SETTLING.0, SETTLING.1);
        if now > 0.0 && part.is_finite() {
            self.by_row.iter_mut().for_each(|scale| *scale = (*scale * part).clamp(RANGE.0, RANGE.1));
        }
    }

    /// By column: the mean of those who are sent there; of all where nobody is.
    pub fn by_column(&self, table: &Table, asked: &[f64], columns: usize) -> Vec<f64> {
        let demand: Vec<f64> = asked.iter().zip(&self.by_row).map(|(asked, scale)| asked * scale).collect();
        let (queries, starts) = (table.rates(asked, columns), table.rates(&demand, columns));
        let all: f64 = queries.iter().sum();
        let mean = if all > 0.0 {
            starts.iter().sum::<f64>() / all
        } else {
            self.by_row.iter().sum::<f64>() / self.by_row.len().max(1) as f64
        };
        queries.iter().zip(&starts).map(|(asked, starts)| if *asked > 0.0 { starts / asked } else { mean }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows; the first goes to column 0, the other to column 1.
    fn apart() -> Table {
        Table::new(vec![Mix::only(0), Mix::only(1)])
    }

    fn taught(seconds: u32) -> Scales {
        let (table, asked, mut demand) = (apart(), [10.0, 10.0], vec![]);
        let mut scales = Scales::restored(&table, &[None, None]);
        for _ in 0..seconds {
            scales.apply(&asked, &mut demand);
            scales.learn(&table, &[Some(5.0), Some(80.0)], &demand, 1.0);
        }
        scales
    }

    #[test]
    fn nothing_is_said_before_a_minute_was_seen() {
        assert!(!taught(59).are_known());
        assert!(taught(60).are_known());
    }

    #[test]
    fn each_row_learns_what_its_region_reports_and_keeps_it_when_it_is_sent_elsewhere() {
        let scales = taught(900);
        let by_column = scales.by_column(&apart(), &[10.0, 10.0], 2);
        assert!((by_column[0] - 0.5).abs() < 0.02 && (by_column[1] - 8.0).abs() < 0.2, "{by_column:?}");
        let swapped = Table::new(vec![Mix::only(1), Mix::only(0)]);
        let by_column = scales.by_column(&swapped, &[10.0, 10.0], 2);
        assert!((by_column[1] - 0.5).abs() < 0.02 && (by_column[0] - 8.0).abs() < 0.2, "{by_column:?}");
    }

    #[test]
    fn a_few_queries_tell_nothing() {
        let (table, mut demand) = (apart(), vec![]);
        let mut scales = Scales::restored(&table, &[None, None]);
        for _ in 0..600 {
            scales.apply(&[0.01, 0.01], &mut demand);
            scales.learn(&table, &[Some(5.0), Some(80.0)], &demand, 1.0);
        }
        assert!(!scales.are_known());
    }

    #[test]
    fn when_a_name_is_pointed_here_its_viewers_do_not_count_a_hundred_times() {
        let (table, mut demand) = (apart(), vec![]);
        let mut scales = taught(900);
        for _ in 0..5 {
            scales.apply(&[1000.0, 1000.0], &mut demand);
            scales.learn(&table, &[Some(5.0), Some(80.0)], &demand, 1.0);
        }
        scales.apply(&[1000.0, 1000.0], &mut demand);
        assert!(demand.iter().sum::<f64>() < 2.1 * 85.0, "{demand:?}");
    }

    #[test]
    fn what_players_ask_when_they_come_back_is_no_more_demand() {
        let mut scales = taught(900);
        let mut demand = vec![];
        scales.settle(&[30.0, 20.0], 85.0);
        scales.apply(&[30.0, 20.0], &mut demand);
        assert!((demand.iter().sum::<f64>() - 85.0).abs() < 1e-6, "{demand:?}");
    }

    #[test]
    fn no_figure_makes_it_leave_its_bounds() {
        let table = apart();
        let odd = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e308];
        for starts in odd {
            for flowing in odd {
                let mut scales = Scales::restored(&table, &[Some(starts), Some(f64::NAN)]);
                scales.learn(&table, &[Some(starts), None], &[flowing, 1.0], 1e9);
                scales.settle(&[flowing, starts], flowing);
                assert!(scales.by_row.iter().all(|s| (RANGE.0..=RANGE.1).contains(s)), "{starts} {flowing}");
            }
        }
    }
}
