//! An explanation as text, for people.

use std::fmt::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, presets};

use super::{Basis, DrawFacts, Explanation, Location, RegionFacts, ServerFacts, Steering};

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const HEAD: Style = Style::new().bold();

impl fmt::Display for Explanation {
    /// With colours; print it through a stream that strips them where they do not belong.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.basis == Basis::Files {
            writeln!(f, "no running server was asked: verdicts unknown, all taken as up")?;
        }
        let question = &self.question;
        writeln!(f, "{HEAD}{} {} for {}{HEAD:#}", question.name, question.rtype, question.client)?;
        match &self.zone {
            Some(zone) => writeln!(f, "  zone      {} serial {} from {}", zone.name, zone.serial, zone.file)?,
            None => writeln!(f, "  zone      none of ours")?,
        }
        self.location.write(f)?;
        if let Some(steering) = &self.steering {
            steering.write(f, self.at)?;
        }
        self.write_message(f)
    }
}

impl Location {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if let (Some(latitude), Some(longitude)) = (self.latitude, self.longitude) {
            words.push(format!("{latitude:.2}, {longitude:.2}"));
        }
        if let Some(country) = &self.country {
            words.push(match &self.subdivision {
                Some(subdivision) => format!("{country}-{subdivision}"),
                None => country.clone(),
            });
        }
        words.extend(self.continent.clone());
        words.extend(self.asn.map(|asn| format!("AS{asn}")));
        if words.is_empty() {
            words.push("unknown: no database places this client".to_owned());
        }
        writeln!(f, "  location  {}", words.join("  "))?;
        for said in &self.said_by {
            writeln!(f, "            {}: {}", said.attribute, said.by)?;
        }
        Ok(())
    }
}

impl Steering {
    fn write(&self, f: &mut fmt::Formatter<'_>, at: u64) -> fmt::Result {
        let by = match &self.rule {
            Some(rule) => format!("rule {} of {} (from {})", rule.number, rule.of, rule.from.join(", ")),
            None => "the stream's own settings".to_owned(),
        };
        writeln!(f, "  stream    {}: {} by {by}", self.stream, self.policy)?;
        let cell = self.cell.map_or("-".to_owned(), |cell| cell.to_string());
        writeln!(f, "  cell      {cell}; the answer is for {}", self.block)?;
        if let Some(order) = &self.order {
            writeln!(f, "  order     {order}")?;
        }
        if let Some(by) = &self.drawn_by {
            let of = match by.as_str() {
                "query" => "drawn anew for every query by its id and port; here for id 0 and port 0",
                _ => "drawn for the block by its hash",
            };
            writeln!(f, "  pick      {of}: the least -ln(hash)/share")?;
        }
        if let Some(stage) = &self.by_load {
            let otherwise = self.without_load.as_ref();
            let otherwise =
                otherwise.map(|region| format!("; by the policy alone it would be {region}")).unwrap_or_default();
            writeln!(f, "  load      {stage}{otherwise}")?;
        }
        if self.all_down {
            writeln!(f, "  {BAD}every region is down{BAD:#}")?;
        }
        writeln!(f)?;
        let weighted = self.regions.iter().any(|region| region.weight.is_some());
        let priced = self.regions.iter().any(|region| region.load.is_some());
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(
            ["", "region", "cost ms", "km"]
                .into_iter()
                .chain(weighted.then_some("weight"))
                .chain(priced.then_some(["price ms", "load", "share"]).into_iter().flatten())
                .chain(["state", "why"]),
        );
        for region in &self.regions {
            table.add_row(region.row(weighted, priced));
        }
        let figures = if priced { 3 } else { 0 };
        for number in [2, 3].into_iter().chain(4 + usize::from(weighted)..4 + usize::from(weighted) + figures) {
            table.column_mut(number).expect("the header has these").set_cell_alignment(CellAlignment::Right);
        }
        for line in table.to_string().lines() {
            writeln!(f, "  {}", line.trim_end())?;
        }
        writeln!(f)?;
        for region in &self.regions {
            region.write_cost(f)?;
        }
        for region in &self.regions {
            if let Some(DrawFacts { hash, share, score, takes }) = region.draw {
                let takes = if takes { "" } else { "; takes only a part, and not this one" };
                let share = share * 100.0;
                writeln!(f, "  {}  hash {hash:.4}, share {share:.1} %: {score:.3}{takes}", region.name)?;
            }
        }
        for region in self.regions.iter().filter(|region| region.chosen || !region.up) {
            for server in &region.servers {
                server.write(f, &region.name, at)?;
            }
        }
        Ok(())
    }
}

impl RegionFacts {
    /// The parts of the cost, where there are any beside the distance. Each is rounded so that they add up to the whole.
    fn write_cost(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(cost) = &self.cost else { return Ok(()) };
        let base = if self.distance_km.is_some() { "by distance" } else { "as nobody knows where" };
        let parts = [
            (cost.distance_ms, base),
            (cost.country_ms, "country"),
            (cost.asn_ms, "network"),
            (cost.measured_ms, "measured"),
            (cost.loss_ms, "loss"),
            (f64::from(self.bias_ms), "bias"),
            (self.money_ms, "money"),
        ];
        if parts[1..].iter().all(|(ms, _)| ms.abs() < 0.5) && cost.samples < 1.0 && self.learned_ms.is_none() {
            return Ok(());
        }
        let (mut sum, mut words) = (0.0f64, String::new());
        for (ms, name) in parts {
            let before = sum.round();
            sum += ms;
            match sum.round() - before {
                whole if words.is_empty() => write!(words, "{whole:.0} {name}")?,
                0.0 => {}
                whole => write!(words, " {whole:+.0} {name}")?,
            }
        }
        write!(f, "  {}  {:.0} ms = {words}", self.name, sum.round())?;
        if cost.samples >= 1.0 {
            write!(f, "; {:.0} measurements, ± {:.0} %", cost.samples, cost.sd * 100.0)?;
        }
        if let Some(learned) = self.learned_ms {
            write!(f, "; {learned:.0} ms as measured, which has no say")?;
        }
        writeln!(f)
    }

    fn row(&self, weighted: bool, priced: bool) -> Vec<String> {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
        let mut row = vec![
            if self.chosen { "->" } else { "" }.to_owned(),
            self.name.clone(),
            number(self.cost_ms),
            number(self.distance_km),
        ];
        if weighted {
            row.push(self.weight.map_or("-".to_owned(), |weight| weight.to_string()));
        }
        if priced {
            let load = self.load.as_ref();
            row.push(load.map_or("-".to_owned(), |load| format!("{:.0}", load.price_ms)));
            let full = load.and_then(|load| Some(load.sessions? / load.capacity.filter(|capacity| *capacity > 0.0)?));
            row.push(full.map_or("-".to_owned(), |full| format!("{:.0} %", full * 100.0)));
            row.push(load.map_or("-".to_owned(), |load| format!("{:.0} %", load.share * 100.0)));
        }
        row.push(if self.up { "up" } else { "down" }.to_owned());
        row.push(self.why.clone());
        row
    }
}

impl ServerFacts {
    fn write(&self, f: &mut fmt::Formatter<'_>, region: &str, at: u64) -> fmt::Result {
        let style = if matches!(&*self.verdict, "down" | "damped" | "forced down") { BAD } else { GOOD };
        let mut line = format!("  {region}  {:<15}  {style}{}{style:#}", self.address, self.verdict);
        if let Some(since) = self.since {
            write!(line, " for {}", ago(at.saturating_sub(since)))?;
        }
        if let Some(cause) = &self.cause {
            write!(line, " ({cause})")?;
        }
        if self.given {
            line.push_str("  <- given");
        }
        writeln!(f, "{line}")
    }
}

impl Explanation {
    /// As dig shows a message.
    fn write_message(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = &self.answer;
        writeln!(f, "\n;; status: {}, flags: {}", answer.rcode, answer.flags.join(" "))?;
        if let Some(scope) = answer.scope {
            writeln!(f, "; CLIENT-SUBNET: {}/{scope}", self.question.client)?;
        }
        writeln!(f, ";; QUESTION SECTION:\n;{} IN {}", self.question.name, self.question.rtype)?;
        for (section, records) in
            [("ANSWER", &answer.answer), ("AUTHORITY", &answer.authority), ("ADDITIONAL", &answer.additional)]
        {
            if !records.is_empty() {
                writeln!(f, "\n;; {section} SECTION:")?;
            }
            for record in records {
                writeln!(f, "{record}")?;
            }
        }
        Ok(())
    }
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{Answer, Question, RuleFacts, SaidBy, ZoneFacts};
    use crate::steering::learn::Cost;

    fn server(address: &str, verdict: &str, cause: Option<&str>, given: bool) -> ServerFacts {
        ServerFacts {
            address: address.into(),
            verdict: verdict.into(),
            cause: cause.map(str::to_owned),
            since: cause.map(|_| 1_790_000_000),
            given,
        }
    }

    fn region(name: &str, cost: f64, up: bool, chosen: bool, why: &str, servers: Vec<ServerFacts>) -> RegionFacts {
        RegionFacts {
            name: name.into(),
            cost_ms: Some(cost),
            distance_km: Some((cost - 8.0) / 0.02),
            bias_ms: 0,
            money_ms: 0.0,
            learned_ms: None,
            draw: None,
            weight: None,
            mode: "steady".into(),
            share_allowed: 1.0,
            load: None,
            cost: None,
            up,
            chosen,
            why: why.into(),
            servers,
        }
    }

    fn explanation() -> Explanation {
        Explanation {
            basis: Basis::Server,
            generation: 3,
            at: 1_790_000_042,
            question: Question {
                name: "live.stream.example.".into(),
                rtype: "A".into(),
                client: "203.0.113.0/24".into(),
            },
            zone: Some(ZoneFacts {
                name: "stream.example.".into(),
                serial: 1_790_000_000,
                file: "zones/stream.example.toml".into(),
            }),
            location: Location {
                network: "203.0.113.0/24".into(),
                latitude: Some(51.5074),
                longitude: Some(-0.1278),
                country: Some("GB".into()),
                subdivision: Some("ENG".into()),
                continent: Some("Europe".into()),
                asn: None,
                said_by: vec![SaidBy { attribute: "location, country".into(), by: "world.mmdb".into() }],
            },
            steering: Some(Steering {
                stream: "live".into(),
                policy: "nearest".into(),
                rule: Some(RuleFacts { number: 1, of: 2, from: vec!["GB".into(), "IE".into()] }),
                cell: Some(17),
                block: "203.0.112.0/20".into(),
                regions: vec![
                    region(
                        "eu-west",
                        12.4,
                        false,
                        false,
                        "0 of 1 servers up, 1 needed",
                        vec![server("192.0.2.11", "down", Some("connection refused"), false)],
                    ),
                    region(
                        "us-east",
                        126.0,
                        true,
                        true,
                        "the nearest that is up",
                        vec![
                            server("198.51.100.11", "up", Some("200 OK in 1.2 ms"), true),
                            server("198.51.100.12", "unknown", None, true),
                        ],
                    ),
                    region("ap", 225.0, true, false, "99 ms more", vec![]),
                ],
                chosen: Some("us-east".into()),
                order: None,
                drawn_by: None,
                by_load: None,
                without_load: None,
                all_down: false,
            }),
            answer: Answer {
                rcode: "NOERROR".into(),
                flags: vec!["qr".into(), "aa".into()],
                scope: Some(20),
                answer: vec![
                    "live.stream.example. 10 IN A 198.51.100.11".into(),
                    "live.stream.example. 10 IN A 198.51.100.12".into(),
                ],
                authority: vec![],
                additional: vec![],
            },
        }
    }

    fn plain(explanation: &Explanation) -> String {
        anstream::adapter::strip_str(&explanation.to_string()).to_string()
    }

    #[test]
    fn each_step_of_a_choice_is_told() {
        insta::assert_snapshot!(plain(&explanation()), @r"
        live.stream.example. A for 203.0.113.0/24
          zone      stream.example. serial 1790000000 from zones/stream.example.toml
          location  51.51, -0.13  GB-ENG  Europe
                    location, country: world.mmdb
          stream    live: nearest by rule 1 of 2 (from GB, IE)
          cell      17; the answer is for 203.0.112.0/20

               region   cost ms     km  state  why
               eu-west       12    220  down   0 of 1 servers up, 1 needed
           ->  us-east      126   5900  up     the nearest that is up
               ap           225  10850  up     99 ms more

          eu-west  192.0.2.11       down for 42 s (connection refused)
          us-east  198.51.100.11    up for 42 s (200 OK in 1.2 ms)  <- given
          us-east  198.51.100.12    unknown  <- given

        ;; status: NOERROR, flags: qr aa
        ; CLIENT-SUBNET: 203.0.113.0/24/20
        ;; QUESTION SECTION:
        ;live.stream.example. IN A

        ;; ANSWER SECTION:
        live.stream.example. 10 IN A 198.51.100.11
        live.stream.example. 10 IN A 198.51.100.12
        ");
    }

    #[test]
    fn parts_that_are_rounded_add_up_and_a_draw_is_told() {
        let mut explanation = explanation();
        let steering = explanation.steering.as_mut().unwrap();
        (steering.order, steering.drawn_by) = (Some("by the plan".into()), Some("block".into()));
        let parts = Cost {
            distance_ms: 125.4,
            country_ms: -3.2,
            asn_ms: 0.2,
            measured_ms: -68.4,
            loss_ms: 0.0,
            samples: 5.0,
            sd: 0.2,
        };
        let region = &mut steering.regions[1];
        (region.cost, region.bias_ms, region.money_ms) = (Some(parts), 2, 1.4);
        region.cost_ms = Some(parts.ms() + 3.4);
        region.draw = Some(DrawFacts { hash: 0.912, share: 0.6, score: 0.1536, takes: false });
        let text = plain(&explanation);
        for line in [
            "  order     by the plan",
            "  pick      drawn for the block by its hash: the least -ln(hash)/share",
            "  us-east  57 ms = 125 by distance -3 country -68 measured +2 bias +1 money; 5 measurements, ± 20 %",
            "  us-east  hash 0.9120, share 60.0 %: 0.154; takes only a part, and not this one",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}\n{text}");
        }
    }

    #[test]
    fn an_explanation_from_files_says_so_on_its_first_line() {
        let text = plain(&Explanation { basis: Basis::Files, ..explanation() });
        assert_eq!(text.lines().next(), Some("no running server was asked: verdicts unknown, all taken as up"));
    }

    #[test]
    fn a_client_that_no_database_knows_and_a_name_not_ours_are_told() {
        let refused = Answer {
            rcode: "REFUSED".into(),
            flags: vec!["qr".into()],
            scope: None,
            answer: vec![],
            authority: vec![],
            additional: vec![],
        };
        let text = plain(&Explanation {
            zone: None,
            location: Location::default(),
            steering: None,
            answer: refused,
            ..explanation()
        });
        insta::assert_snapshot!(text, @r"
        live.stream.example. A for 203.0.113.0/24
          zone      none of ours
          location  unknown: no database places this client

        ;; status: REFUSED, flags: qr
        ;; QUESTION SECTION:
        ;live.stream.example. IN A
        ");
    }

    #[test]
    fn json_comes_back_as_it_was() {
        let json = serde_json::to_string(&explanation()).unwrap();
        assert!(json.contains(r#""question":{"name":"live.stream.example.","type":"A","client":"203.0.113.0/24"}"#));
        assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), explanation());
    }
}
