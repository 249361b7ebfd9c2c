//! What operators do to a running server: drain, undrain, force, orders, lift, reload.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ask::{AskError, Client, Reply, ServerArgs, escape};
use super::complain;
use super::show::{harmless, now, percent, span, table, time, until};
use crate::admin::orders::{About, Asked, Word};
use crate::status::{OrderStatus, yes};

/// An order is kept on disk before it is answered.
const ORDER_TIME: Duration = Duration::from_secs(10);
/// Longer than the server gives a reload.
const RELOAD_TIME: Duration = Duration::from_secs(65);

/// When, why, and in spite of what.
#[derive(Args)]
struct Terms {
    /// In this zone only [default: in every zone that has it]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// End by itself after this long, such as 2h, counted from its beginning [default: until it is lifted]
    #[arg(long = "for", value_name = "TIME")]
    lasting: Option<String>,
    /// Begin then: a time like 2026-05-01T22:00:00Z, or +30m from now [default: now]
    #[arg(long, value_name = "WHEN")]
    at: Option<String>,
    /// What the next person is to read
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Even where it leaves too little
    #[arg(long)]
    anyway: bool,
}

#[derive(Args)]
pub struct DrainArgs {
    /// The region
    region: String,
    /// Its clients leave evenly over this time
    #[arg(long, value_name = "TIME", default_value = "120s")]
    over: String,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
pub struct UndrainArgs {
    /// The region
    region: String,
    /// The drains of this zone only
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    Up,
    Down,
    /// End what was forced
    Clear,
}

#[derive(Args)]
pub struct ForceArgs {
    way: Way,
    /// A region, or the public address of a server
    #[arg(value_name = "REGION|ADDRESS")]
    subject: String,
    /// In this zone only [default: in every zone that has it]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// End by itself after this long, such as 2h, counted from its beginning [default: until it is cleared]
    #[arg(long = "for", value_name = "TIME")]
    lasting: Option<String>,
    /// Begin then: a time like 2026-05-01T22:00:00Z, or +30m from now [default: now]
    #[arg(long, value_name = "WHEN")]
    at: Option<String>,
    /// What the next person is to read; needed for up and down
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Even where it leaves too little
    #[arg(long)]
    anyway: bool,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
pub struct OrdersArgs {
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
pub struct LiftArgs {
    /// The order's number, as `orders` shows it
    id: u64,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
struct AskArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl AskArgs {
    fn ask(&self, method: Method, path: &str, body: Option<&Value>, patience: Duration) -> Result<Reply, AskError> {
        Client::of(&self.server)?.change(method, path, body, patience)
    }

    fn failed(&self, error: &AskError) -> u8 {
        failed(&self.server, error)
    }
}

/// Says why there is no answer, or that it is no, and gives the exit code.
pub fn failed(server: &ServerArgs, error: &AskError) -> u8 {
    match error {
        AskError::Failed(what) => complain(what),
        error => complain(&format!("{}: {error}", server.server)),
    }
    if error.is_usage() { 2 } else { 1 }
}

/// An order as the server confirms it.
#[derive(Debug, Deserialize, Serialize)]
struct Confirmed {
    id: u64,
    action: String,
    subject: String,
    zone: Option<String>,
    from: f64,
    until: Option<f64>,
    over_s: Option<f64>,
    reason: String,
    author: String,
}

impl Confirmed {
    fn line(&self, now: f64) -> String {
        let zone = self.zone.as_ref().map(|zone| format!(" of {zone}")).unwrap_or_default();
        let over = self.over_s.map(|over| format!(" over {}", span(over))).unwrap_or_default();
        let begins = if self.from > now + 1.0 { format!(", begins {}", until(self.from, now)) } else { String::new() };
        let ends = self.until.map_or("until it is lifted".to_owned(), |end| format!("until {}", until(end, now)));
        let Confirmed { id, action, subject, reason, author, .. } = self;
        format!("order {id}: {action} {subject}{zone}{over}{begins}, {ends}; {author}: {reason}")
    }
}

/// What is not there after a restart is to be known before one.
pub fn not_kept(why: Option<&str>) -> String {
    harmless(&format!("not kept over a restart: {}", why.unwrap_or("the server does not say why")))
}

fn give(asked: &Asked, ask: &AskArgs, out: &mut dyn Write) -> io::Result<u8> {
    #[derive(Deserialize, Serialize)]
    struct Given {
        order: Confirmed,
        #[serde(default = "yes")]
        kept: bool,
        #[serde(default)]
        not_kept_because: Option<String>,
    }
    let reply = ask.ask(Method::POST, "/v1/orders", Some(&json!(asked)), ORDER_TIME);
    match reply.and_then(|reply| reply.read::<Given>()) {
        Ok(given) if ask.json => writeln!(out, "{:#}", json!(given))?,
        Ok(Given { order, kept, not_kept_because }) => {
            writeln!(out, "{}", harmless(&order.line(now())))?;
            if !kept {
                writeln!(out, "{}", not_kept(not_kept_because.as_deref()))?;
            }
        }
        Err(error) => return Ok(ask.failed(&error)),
    }
    Ok(0)
}

fn end(method: Method, path: &str, about: Option<&About>, ask: &AskArgs, out: &mut dyn Write) -> io::Result<u8> {
    #[derive(Deserialize, Serialize)]
    struct Lifted {
        lifted: Vec<Confirmed>,
    }
    let reply = ask.ask(method, path, about.map(|about| json!(about)).as_ref(), ORDER_TIME);
    match reply.and_then(|reply| reply.read::<Lifted>()) {
        Ok(lifted) if ask.json => writeln!(out, "{:#}", json!(lifted))?,
        Ok(Lifted { lifted }) => {
            for order in lifted {
                writeln!(out, "ended {}", harmless(&order.line(now())))?;
            }
        }
        Err(error) => return Ok(ask.failed(&error)),
    }
    Ok(0)
}

pub fn drain(args: DrainArgs, out: &mut dyn Write) -> io::Result<u8> {
    let DrainArgs { region, over, terms: Terms { zone, lasting, at, reason, anyway }, ask } = args;
    let asked = Asked { action: Word::Drain, subject: region, zone, over: Some(over), lasting, at, reason, anyway };
    give(&asked, &ask, out)
}

pub fn undrain(args: UndrainArgs, out: &mut dyn Write) -> io::Result<u8> {
    let about = About { subject: args.region, zone: args.zone };
    end(Method::POST, "/v1/undrain", Some(&about), &args.ask, out)
}

pub fn force(args: ForceArgs, out: &mut dyn Write) -> io::Result<u8> {
    let ForceArgs { way, subject, zone, lasting, at, reason, anyway, ask } = args;
    let action = match way {
        Way::Up => Word::ForceUp,
        Way::Down => Word::ForceDown,
        Way::Clear => {
            if lasting.is_some() || at.is_some() || anyway || reason.is_some() {
                complain("force clear ends at once what was forced; it takes no --for, --at, --reason or --anyway");
                return Ok(2);
            }
            return end(Method::POST, "/v1/unforce", Some(&About { subject, zone }), &ask, out);
        }
    };
    let Some(reason) = reason else {
        complain("give --reason TEXT: it is what the next person reads");
        return Ok(2);
    };
    give(&Asked { action, subject, zone, over: None, lasting, at, reason, anyway }, &ask, out)
}

pub fn lift(args: &LiftArgs, out: &mut dyn Write) -> io::Result<u8> {
    end(Method::DELETE, &format!("/v1/orders/{}", escape(&args.id.to_string())), None, &args.ask, out)
}

pub fn orders(args: &OrdersArgs, out: &mut dyn Write) -> io::Result<u8> {
    #[derive(Deserialize, Serialize)]
    struct List {
        orders: Vec<OrderStatus>,
    }
    let reply = Client::of(&args.ask.server).and_then(|client| client.get("/v1/orders"));
    match reply.and_then(|reply| reply.read::<List>()) {
        Ok(list) if args.ask.json => writeln!(out, "{:#}", json!(list))?,
        Ok(List { orders }) if orders.is_empty() => writeln!(out, "no orders")?,
        Ok(List { orders }) => {
            for line in order_lines(&orders, now()) {
                writeln!(out, "{line}")?;
            }
        }
        Err(error) => return Ok(args.ask.failed(&error)),
    }
    Ok(0)
}

/// A table, a line each, the first the header.
pub fn order_lines(orders: &[OrderStatus], now: f64) -> Vec<String> {
    let rows = orders.iter().map(|order| {
        let when = match order.state.as_str() {
            "to come" => format!("begins {}", until(order.from, now)),
            _ => order.until.map_or("until lifted".to_owned(), |end| format!("until {}", until(end, now))),
        };
        let left = order.left.map_or("-".to_owned(), percent);
        vec![
            order.id.to_string(),
            order.action.clone(),
            order.subject.clone(),
            order.zone.clone().unwrap_or_else(|| "all".to_owned()),
            order.state.clone(),
            left,
            when,
            order.author.clone(),
            order.reason.clone(),
        ]
    });
    let header = ["id", "order", "subject", "zone", "state", "left", "when", "author", "reason"];
    table(&header, &[0, 5], rows)
}

pub fn reload(args: &ReloadArgs, out: &mut dyn Write) -> io::Result<u8> {
    let reply = match args.ask.ask(Method::POST, "/v1/reload", None, RELOAD_TIME) {
        Ok(reply) => reply,
        Err(error) => return Ok(args.ask.failed(&error)),
    };
    if args.ask.json {
        let said: Value = match serde_json::from_str(&reply.body) {
            Ok(said) => said,
            Err(_) => return Ok(args.ask.failed(&reply.read::<Value>().err().unwrap_or(AskError::Refused))),
        };
        writeln!(out, "{said:#}")?;
        return Ok(u8::from(reply.status != 200));
    }
    #[derive(Deserialize)]
    struct Done {
        generation: u64,
    }
    #[derive(Deserialize)]
    struct Fault {
        file: String,
        line: u32,
        column: u32,
        severity: String,
        what: String,
        rule: Option<String>,
        help: Option<String>,
    }
    #[derive(Deserialize)]
    struct Refused {
        diagnostics: Vec<Fault>,
    }
    match reply.read::<Done>() {
        Ok(Done { generation }) => writeln!(out, "reloaded: generation {generation} at {}", time(now()))?,
        Err(error) => {
            let refused = serde_json::from_str::<Refused>(&reply.body);
            for fault in refused.map(|refused| refused.diagnostics).unwrap_or_default() {
                let warning = if fault.severity == "warning" { "warning: " } else { "" };
                writeln!(out, "{}:{}:{}: {warning}{}", fault.file, fault.line, fault.column, fault.what)?;
                for line in fault.rule.into_iter().chain(fault.help.map(|help| format!("help: {help}"))) {
                    writeln!(out, "  {line}")?;
                }
            }
            return Ok(args.ask.failed(&error));
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::cli::ask::TrustArgs;

    #[test]
    fn an_order_that_ends_with_the_process_is_confirmed_with_that_word() {
        let order = r#"{"id":1,"action":"drain","subject":"eu","zone":null,"from":0,"until":null,"over_s":120,
            "reason":"disk","author":"ann"}"#;
        for (more, wanted) in [
            (
                r#","kept":false,"not_kept_because":"in use by process 7""#,
                "\nnot kept over a restart: in use by process 7\n",
            ),
            (r#","kept":true,"not_kept_because":null"#, "ann: disk\n"),
            ("", "ann: disk\n"),
        ] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let server = format!("http://{}", listener.local_addr().unwrap());
            let body = format!("{{\"order\":{order}{more}}}");
            let reply = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let serving = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]);
                stream.write_all(reply.as_bytes()).unwrap();
            });
            let ask = AskArgs { server: ServerArgs { server, trust: TrustArgs::default() }, json: false };
            let about = Asked {
                action: Word::Drain,
                subject: "eu".to_owned(),
                zone: None,
                over: None,
                lasting: None,
                at: None,
                reason: "disk".to_owned(),
                anyway: false,
            };
            let mut out = Vec::new();
            assert_eq!(give(&about, &ask, &mut out).unwrap(), 0);
            let said = String::from_utf8(out).unwrap();
            assert!(said.starts_with("order 1: drain eu over 2m") && said.ends_with(wanted), "{said}");
            serving.join().unwrap();
        }
    }
}
