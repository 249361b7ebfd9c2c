//! Viewers who lost their region and come back: a one-off mass, not a rate (STEERING §6).

use std::collections::HashMap;
use std::time::Instant;

use crate::steering::solve::loss::{FREEZE, RETURN_S, arriving, returning};
use crate::steering::solve::{Supply, Table};

use super::course::HORIZON_S;
use super::heritage::Heritage;

/// They follow an answer that their resolver has had since the loss for about so long, s: half a TTL.
const ANSWERED_S: f64 = 10.0;

/// Losses of less than this part of all viewers are not told from chance.
const FEW: f64 = 0.01;
/// A region that goes again within this, s, is not waited for again: else one whose servers start and die without end would
/// keep all that is learned and limited from going on.
const PATIENCE_S: f64 = 300.0;

/// As they come back now.
pub struct Back {
    /// By row, of those whom answers of now still reach: starts/s that they weigh as until the horizon.
    pub rates: Vec<f64>,
    /// By column: those who arrive now, 1/s.
    pub arrivals: Vec<f64>,
    /// By column: those who will arrive by answers that they have already.
    pub headed: Vec<f64>,
}

/// Of a market.
#[derive(Default)]
pub struct Comeback {
    losses: Vec<Loss>,
    /// Regions whose loss was no small one, by column, and when.
    upsets: Vec<(usize, Instant)>,
    /// Whether one of them was a moment ago.
    is_upset: bool,
}

/// A region that went away a moment ago.
struct Loss {
    at: Instant,
    supply: Supply,
    /// Its viewers by row, as the starts/s that keep so many there.
    rates: Vec<(usize, f64)>,
    /// Of these, starts/s by column as the answers that are cached send them; empty before the first answer.
    headed: Vec<f64>,
}

impl Comeback {
    /// A region went, and with it so many sessions of each row. `demand`: starts/s of all.
    pub fn lose(
        &mut self,
        column: usize,
        at: Instant,
        supply: Supply,
        sessions: impl Iterator<Item = (usize, f64)>,
        demand: f64,
    ) {
        let rates: Vec<_> = sessions.map(|(row, sessions)| (row, sessions / supply.dwell())).collect();
        let gone: f64 = rates.iter().map(|(_, rate)| rate).sum();
        // One that flaps has lost its viewers already.
        if rates.is_empty() {
            return;
        }
        if gone >= FEW * demand && self.upsets.iter().all(|(upset, _)| *upset != column) {
            self.upsets.push((column, at));
            self.is_upset = true;
        }
        self.losses.push(Loss { at, supply, rates, headed: vec![] });
    }

    /// Takes over those who come back to rows that were there before.
    pub fn inherit(&mut self, before: &Comeback, heritage: &Heritage) {
        let mut heirs: HashMap<usize, Vec<usize>> = HashMap::new();
        heritage.rows().for_each(|(row, was)| heirs.entry(was).or_default().push(row));
        let to_heirs = |&(was, rate): &(usize, f64)| {
            let rows = heirs.get(&was).map_or(&[][..], Vec::as_slice);
            rows.iter().map(move |&row| (row, rate / rows.len() as f64))
        };
        self.losses.extend(before.losses.iter().map(|loss| Loss {
            at: loss.at,
            supply: loss.supply,
            rates: loss.rates.iter().flat_map(to_heirs).collect(),
            // Follows from the table within seconds.
            headed: vec![],
        }));
        let upsets = before.upsets.iter().filter_map(|&(was, at)| Some((heritage.column(was as u8)?.into(), at)));
        self.upsets.extend(upsets);
        self.is_upset |= before.is_upset;
    }

    /// Forgets those who must be back.
    pub fn pass(&mut self, now: Instant) {
        let since = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        self.losses.retain(|loss| since(loss.at) < FREEZE);
        self.upsets.retain(|(_, at)| since(*at) < PATIENCE_S);
        self.is_upset = self.upsets.iter().any(|(_, at)| since(*at) < FREEZE);
    }

    /// Whether what is asked is what viewers want: hardly anybody comes back who lost a region.
    pub fn is_calm(&self) -> bool {
        !self.is_upset
    }

    /// `published`: where answers send them now. `None` where nobody comes.
    pub fn look(&mut self, published: &Table, columns: usize, elapsed_s: f64, now: Instant) -> Option<Back> {
        if self.losses.is_empty() {
            return None;
        }
        let mut back =
            Back { rates: vec![0.0; published.len()], arrivals: vec![0.0; columns], headed: vec![0.0; columns] };
        let renewed = -(-elapsed_s / ANSWERED_S).exp_m1();
        let sent = ANSWERED_S / (ANSWERED_S + RETURN_S);
        for loss in &mut self.losses {
            let since = now.saturating_duration_since(loss.at).as_secs_f64();
            if since > 0.0 {
                loss.follow(published, columns, renewed);
            }
            let answered = if loss.headed.is_empty() { 0.0 } else { sent };
            for (column, rate) in loss.headed.iter().enumerate() {
                let arriving = arriving(*rate, &loss.supply, since);
                back.arrivals[column] += arriving;
                back.headed[column] += answered * arriving * RETURN_S;
            }
            for &(row, rate) in &loss.rates {
                back.rates[row] += (1.0 - answered) * returning(rate, &loss.supply, since, HORIZON_S);
            }
        }
        Some(back)
    }
}

impl Loss {
    /// A part `renewed` of the answers that are cached becomes as the table is now.
    fn follow(&mut self, published: &Table, columns: usize, renewed: f64) {
        let mut by_table = vec![0.0; columns];
        for &(row, rate) in &self.rates {
            let mix = published.row(row);
            mix.parts().for_each(|(column, part)| by_table[usize::from(column)] += rate * part);
        }
        if self.headed.is_empty() {
            self.headed = by_table;
        } else {
            self.headed.iter_mut().zip(by_table).for_each(|(headed, new)| *headed += renewed * (new - *headed));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::steering::solve::Mix;

    #[test]
    fn all_come_back_once_where_answers_sent_them_when_they_asked() {
        let supply = Supply::of(Some(10_000.0));
        let (mut comeback, start) = (Comeback::default(), Instant::now());
        comeback.lose(0, start, supply, [(0, 600.0), (1, 400.0)].into_iter(), 1000.0);
        let table = Table::new(vec![Mix::only(1), Mix::only(2)]);
        let mut arrived = [0.0; 3];
        for tenth in 1..900 {
            let now = start + Duration::from_millis(tenth * 100);
            comeback.pass(now);
            let back = comeback.look(&table, 3, 0.1, now).expect("they are still coming");
            arrived.iter_mut().zip(&back.arrivals).for_each(|(all, now)| *all += now * 0.1);
        }
        assert!(arrived[0] == 0.0 && (arrived[1] - 600.0).abs() < 10.0 && (arrived[2] - 400.0).abs() < 10.0);
        comeback.pass(start + Duration::from_secs(90));
        assert!(comeback.is_calm() && comeback.look(&table, 3, 0.1, start + Duration::from_secs(90)).is_none());
    }

    #[test]
    fn a_region_that_nobody_watched_leaves_nothing_behind() {
        let mut comeback = Comeback::default();
        comeback.lose(0, Instant::now(), Supply::of(Some(10_000.0)), std::iter::empty(), 1000.0);
        assert!(comeback.is_calm() && comeback.losses.is_empty());
    }

    #[test]
    fn a_small_loss_or_one_that_comes_again_and_again_does_not_hold_up_the_others() {
        let calm_in = |viewers: f64| -> Vec<u64> {
            let (mut comeback, start) = (Comeback::default(), Instant::now());
            let minutes = 0..10;
            let calm = minutes.filter(|minute| {
                let now = start + Duration::from_secs(60 * minute);
                comeback.lose(0, now, Supply::of(Some(10_000.0)), [(0, viewers)].into_iter(), 1.0);
                comeback.pass(now);
                comeback.is_calm()
            });
            calm.collect()
        };
        assert_eq!(calm_in(9.0), (0..10).collect::<Vec<_>>());
        // Every minute, and a minute and a half are waited for once in five.
        assert_eq!(calm_in(300.0), [2, 3, 4, 5, 8, 9]);
    }

    #[test]
    fn another_table_reaches_those_whose_answers_run_out() {
        let (mut comeback, start) = (Comeback::default(), Instant::now());
        comeback.lose(0, start, Supply::of(Some(10_000.0)), [(0, 600.0)].into_iter(), 600.0);
        let share = |comeback: &mut Comeback, column: u8, second| {
            let table = Table::new(vec![Mix::only(column)]);
            let back = comeback.look(&table, 3, 1.0, start + Duration::from_secs(second)).expect("they are coming");
            back.arrivals[2] / back.arrivals.iter().sum::<f64>()
        };
        assert_eq!(share(&mut comeback, 1, 1), 0.0);
        let after_a_second = share(&mut comeback, 2, 2);
        assert!((after_a_second - 0.095).abs() < 0.001, "{after_a_second}");
    }
}
