//! Why a region was chosen, or why it lost, in words.

use super::super::load::share;
use super::Chooser;
use crate::answer::trace::{Choosing, Standing};
use crate::config::settings::{Family, Policy};
use crate::snapshot::fleet::Member;
use crate::snapshot::standing::{Forced, Share};

impl Chooser<'_> {
    /// Which order holds, where another could.
    pub(super) fn order(&self) -> Option<&'static str> {
        if self.ways.iter().any(|way| way.planned) {
            return Some("by the plan for the load: the least cost and price");
        }
        let others = self.prices.is_some() || self.ways.iter().any(|way| way.learned_ms.is_some());
        (others && self.manners[0].policy == Policy::Nearest)
            .then_some("nearest by distance and bias alone; measurements, money and prices have no say")
    }

    fn up_count(&self, region: u8, members: &[Member]) -> usize {
        let (_, state) = self.view.snapshot.fleet(self.choosing.stream.zone);
        let verdicts = self.view.snapshot.verdicts();
        let is_up = |member: &&Member| state.is_up(usize::from(region), self.choosing.family, member, verdicts);
        members.iter().filter(is_up).count()
    }

    /// Why a region is down for the stream.
    fn why_down(&self, region: u8) -> String {
        let Choosing { family, stream, .. } = self.choosing;
        if self.standing(region).forced == Some(Forced::Down) {
            return "forced down by the operator".to_owned();
        }
        let (_, state) = self.view.snapshot.fleet(stream.zone);
        if state.up(*family) >> region & 1 == 1 {
            let names: Vec<String> = self.stream.needs.iter().map(|(name, _)| name.to_string()).collect();
            return format!("not all that the stream needs is up there: {}", names.join(", "));
        }
        let members = self.fleet.members(region, *family);
        let needed = self.fleet.min_up(region, *family);
        format!("{} of {} servers up, {needed} needed", self.up_count(region, members), members.len())
    }

    /// Why a region that is up and would come first does not take this client.
    fn why_closed(&self, region: u8) -> Option<String> {
        let standing = self.standing(region);
        let part = standing.share.part();
        match standing.share {
            Share::FULL => None,
            Share::NONE => Some("drained by the operator".to_owned()),
            _ => {
                Some(format!("{}: takes {:.0} % of its clients, and not this block", standing.describe(), part * 100.0))
            }
        }
    }

    pub(super) fn why_never(&self, region: u8) -> String {
        let named = self.manners.iter().any(|manner| manner.regions.contains(&region));
        if named { "weight 0 takes none" } else { "not among the regions of this name" }.to_owned()
    }

    /// Why a region was chosen, or why it lost.
    pub(super) fn why(&self, standing: &Standing) -> String {
        let Choosing { family, ranking, all_down, chosen, .. } = self.choosing;
        let region = standing.ranked.region;
        if !standing.declared {
            return format!("has no {} address", if *family == Family::V4 { "A" } else { "AAAA" });
        }
        if !standing.up && !all_down {
            return self.why_down(region);
        }
        let manner = self.manner_of(region);
        let total: u32 = ranking
            .iter()
            .filter(|other| other.candidate && other.ranked.tier_end == standing.ranked.tier_end)
            .map(|other| u32::from(other.ranked.weight))
            .sum();
        let weight = standing.ranked.weight;
        let winner = chosen.as_ref().and_then(|given| ranking.iter().find(|other| other.ranked.region == given.region));
        let Some(winner) = winner else { return "nothing was chosen".to_owned() };
        let place = |of: u8| ranking.iter().position(|other| other.ranked.region == of);
        let asked_before = match (self.draw(region), self.draw(winner.ranked.region)) {
            (Some(draw), Some(winner)) => draw.score < winner.score,
            _ => place(region) < place(winner.ranked.region),
        };
        if asked_before && let Some(why) = self.why_closed(region) {
            return why;
        }
        if let Some(why) = self.why_by_load(standing, winner) {
            return why;
        }
        if winner.ranked.region == region
            && !matches!(manner.policy, Policy::Weighted(_))
            && ![Share::FULL, Share::NONE].contains(&self.standing(region).share)
        {
            let part = self.standing(region).share.part() * 100.0;
            return format!(
                "{}: takes {part:.0} % of its clients, this block among them",
                self.standing(region).describe()
            );
        }
        if winner.ranked.region == region {
            return match &manner.policy {
                Policy::Weighted(_) if self.draw(region).is_none() => {
                    "the only one that is up of those with a weight".into()
                }
                Policy::Weighted(_) => format!("drawn for this {}: weight {weight} of {total}", self.drawn_for()),
                _ if *all_down => "the first: every region is down, so all are taken as up".to_owned(),
                _ if self.standing(region).share == Share::NONE => "drained, but no other region is up".to_owned(),
                Policy::Nearest if standing.cost_ms.is_some() => "the nearest that is up".to_owned(),
                Policy::Nearest => "the first that is up: without a location, the order written holds".to_owned(),
                Policy::Priority => "the first that is up".to_owned(),
            };
        }
        if !std::ptr::eq(manner, self.manner_of(winner.ranked.region)) {
            return "only when every region of the rule is down".to_owned();
        }
        match (&manner.policy, standing.cost_ms.zip(winner.cost_ms)) {
            (Policy::Weighted(_), _) => {
                format!("not drawn for this {}: weight {weight} of {total}", self.drawn_for())
            }
            (Policy::Nearest, Some((cost, best))) => format!("{:.0} ms more", cost - best),
            (Policy::Nearest | Policy::Priority, _) => "later in the order written".to_owned(),
        }
    }

    /// Why a region was chosen or not, where the plan of the solver decided.
    fn why_by_load(&self, standing: &Standing, winner: &Standing) -> Option<String> {
        let ranking = &self.choosing.ranking;
        let (prices, region) = (self.prices.as_ref()?, standing.ranked.region);
        if ![region, winner.ranked.region].iter().all(|region| self.way(*region).is_some_and(|way| way.planned)) {
            return None;
        }
        let whole = |standing: &Standing| {
            let region = standing.ranked.region;
            let price = prices.region(region).map_or(0.0, |region| region.price_ms);
            Some(self.way(region)?.ms()? + price)
        };
        let full = |region: u8| {
            let known = prices.region(region)?;
            let percent = known.utilization? * 100.0;
            (known.price_ms >= 0.5).then(|| format!(", {percent:.0} % full: costs {:.0} ms more", known.price_ms))
        };
        let full = full(region).unwrap_or_default();
        let part = share(standing, ranking);
        if winner.ranked.region != region && self.standing(region).share == Share::NONE {
            return self.why_closed(region);
        }
        if winner.ranked.region == region {
            return Some(match part {
                0.0 => format!("the cheapest that is up{full}"),
                1.0 => format!("the cheapest{full}"),
                _ if self.draw(region).is_none() => format!("the only one that is up of those planned for{full}"),
                part => format!("drawn for this {}: {:.0} % of the cell{full}", self.drawn_for(), part * 100.0),
            });
        }
        if part > 0.0 {
            return Some(format!("not drawn for this {}: {:.0} % of the cell{full}", self.drawn_for(), part * 100.0));
        }
        let (cost, best) = whole(standing).zip(whole(winner))?;
        Some(match cost - best {
            more if more >= 0.0 => format!("{more:.0} ms more in all{full}"),
            less => format!("{:.0} ms less in all, and next to take viewers{full}", -less),
        })
    }
}
