//! What an agent has to say, asked for once a second: the machine's load, the number of sessions, whether the server is
//! ready.
//!
//! Commands run without a shell and within a time limit, and nothing that they start outlives them; a source that is still busy is not asked again. What is older
//! than ten seconds is left out of the beats.

use std::fmt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::Settings;
use super::machine::Reading;
use crate::health::beats::packet::{Load, State};
use crate::health::group::Group;

const EVERY: Duration = Duration::from_secs(1);
/// A source that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Older figures are not sent.
const STALE: Duration = Duration::from_secs(10);
/// Of what a source says.
const MAX_OUTPUT: usize = 1 << 20;
/// Between two words in the log about one source.
const COMPLAINT_GAP: Duration = Duration::from_secs(60);
/// Silences in a row after which the server is not ready: one may be a fit of work. A plain "no" counts at once.
const SILENCES: u32 = 2;

/// `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug)]
pub struct Url {
    authority: String,
    host: String,
    port: u16,
    path: String,
}

/// It is no such URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UrlFault;

impl fmt::Display for UrlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL has the form http://HOST[:PORT][/PATH]; put a command around anything else")
    }
}

impl std::error::Error for UrlFault {}

impl std::str::FromStr for Url {
    type Err = UrlFault;

    fn from_str(text: &str) -> Result<Url, UrlFault> {
        let uri: Uri = text.parse().map_err(|_| UrlFault)?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or(UrlFault)?;
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(UrlFault);
        }
        Ok(Url {
            authority: authority.as_str().to_owned(),
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(80),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

/// Where an answer comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A program and its arguments. Its exit code tells whether the server is ready, its output the number of sessions.
    Command(Vec<String>),
    /// Status 2xx or 3xx tells that the server is ready, the body the number of sessions.
    /// `field`: the body is JSON and the number stands there (RFC 6901); otherwise the body is the number.
    Url { url: Url, field: Option<String> },
}

/// How a source answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Yes(String),
    /// A plain no: another status, another exit code, refused.
    No(String),
    /// Nothing within the time limit.
    Silence,
}

impl Source {
    /// Takes two seconds at most; leaves no process behind.
    async fn ask(&self) -> Answer {
        let asked = async {
            match self {
                Source::Command(words) => command(words).await,
                Source::Url { url, .. } => get(url).await,
            }
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(text)) => Answer::Yes(text),
            Ok(Err(why)) => Answer::No(why),
            Err(_) => Answer::Silence,
        }
    }

    fn number(&self, text: &str) -> Option<u64> {
        match self {
            Source::Url { field: Some(field), .. } => {
                let json: serde_json::Value = serde_json::from_str(text).ok()?;
                let value = json.pointer(field)?;
                value.as_u64().or_else(|| whole(value.as_f64()?))
            }
            _ => text.trim().parse().ok().or_else(|| whole(text.trim().parse().ok()?)),
        }
    }
}

/// A count that was written as a fraction.
fn whole(value: f64) -> Option<u64> {
    (value.is_finite() && (0.0..9e15).contains(&value)).then_some(value as u64)
}

async fn command(words: &[String]) -> Result<String, String> {
    let (program, arguments) = words.split_first().ok_or("no program is named")?;
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut group = Group::spawn(&mut command).map_err(|error| format!("{program}: {error}"))?;
    let (stdout, _) = group.outputs();
    let mut output = Vec::new();
    let reading = async {
        if let Some(stdout) = stdout {
            // An error is as good as the end. More than this closes the pipe, which ends most programs.
            let _ = stdout.take(MAX_OUTPUT as u64 + 1).read_to_end(&mut output).await;
        }
    };
    let status = group.wait(reading).await.map_err(|error| error.to_string())?;
    if output.len() > MAX_OUTPUT {
        return Err(format!("{program} says more than 1 MiB"));
    }
    if !status.success() {
        return Err(format!("{program}: {status}"));
    }
    String::from_utf8(output).map_err(|_| format!("{program} says what is not UTF-8"))
}

async fn get(url: &Url) -> Result<String, String> {
    let failed = |error: &dyn fmt::Display| error.to_string();
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let request = Request::get(&url.path)
        .header("host", &url.authority)
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        if !(status.is_success() || status.is_redirection()) {
            return Err(format!("status {}", status.as_u16()));
        }
        let body = Limited::new(response.into_body(), MAX_OUTPUT).collect().await.map_err(|error| failed(&error))?;
        String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "the body is not UTF-8".to_owned())
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end before the body was handed over.
        _ = connection => exchange.await,
    }
}

/// What is known of the server's readiness.
#[derive(Clone, Copy, Debug, Default)]
enum Readiness {
    /// The source has not answered yet: until then nothing is said at all.
    #[default]
    Unasked,
    /// There is no source.
    Untold,
    /// The source said so then.
    Told { ready: bool, since: Instant },
}

impl Readiness {
    fn is_stale(self, now: Instant) -> bool {
        matches!(self, Readiness::Told { since, .. } if now.saturating_duration_since(since) > STALE)
    }
}

/// What is known, and since when.
#[derive(Clone, Debug, Default)]
pub struct Report {
    ready: Readiness,
    machine: Option<(Load, Instant)>,
    sessions: Option<(u64, Instant)>,
}

impl Report {
    /// What a beat of now says; `None`: not yet.
    pub fn at(&self, now: Instant) -> Option<(State, Load)> {
        let state = match self.ready {
            Readiness::Unasked => return None,
            Readiness::Told { ready: false, .. } if !self.ready.is_stale(now) => State::NotReady,
            // An agent that cannot tell any more speaks as one without a source. That it cannot tell says nothing about
            // the server: the node's probes judge it, and where it was down they want `rise` good answers.
            Readiness::Told { .. } | Readiness::Untold => State::Ready,
        };
        let fresh = |since: Instant| now.saturating_duration_since(since) <= STALE;
        let load = self.machine.filter(|(_, since)| fresh(*since)).map(|(load, _)| load).unwrap_or_default();
        let sessions = self.sessions.filter(|(_, since)| fresh(*since)).map(|(count, _)| count);
        Some((state, Load { sessions, ..load }))
    }
}

/// Gathers for ever.
pub async fn run(settings: Settings, report: watch::Sender<Report>) {
    let mut asking = Vec::new();
    match settings.ready {
        Some(source) => {
            asking.push(AbortOnDropHandle::new(tokio::spawn(readiness(source, report.clone()))));
        }
        None => report.send_modify(|report| report.ready = Readiness::Untold),
    }
    if let Some(source) = settings.sessions {
        asking.push(AbortOnDropHandle::new(tokio::spawn(sessions(source, report.clone()))));
    }
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Reading> = None;
    let mut mute = Complaint::default();
    loop {
        ticks.tick().await;
        if report.borrow().ready.is_stale(Instant::now()) {
            mute.say("beats tell nothing of the server's readiness", &format!("nobody has asked for {STALE:?}"));
        }
        let reading = Reading::take(settings.interface.as_deref());
        if let Some(before) = &before {
            let (bits_per_s, cpu_permille) = (reading.bits_per_s(before), reading.cpu_permille(before));
            let load = Load { sessions: None, bits_per_s, cpu_permille };
            report.send_modify(|report| report.machine = Some((load, reading.at)));
        }
        before = Some(reading);
    }
}

async fn readiness(source: Source, report: watch::Sender<Report>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut silences, mut complaint) = (0, Complaint::default());
    loop {
        ticks.tick().await;
        let ready = match source.ask().await {
            Answer::Yes(_) => {
                silences = 0;
                true
            }
            Answer::No(why) => {
                complaint.say("the server is not ready", &why);
                false
            }
            Answer::Silence => {
                silences += 1;
                complaint.say("nothing tells whether the server is ready", &format!("no answer in {PATIENCE:?}"));
                if silences < SILENCES {
                    continue;
                }
                false
            }
        };
        report.send_modify(|report| report.ready = Readiness::Told { ready, since: Instant::now() });
    }
}

async fn sessions(source: Source, report: watch::Sender<Report>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complaint = Complaint::default();
    let what = "the number of sessions is not known";
    loop {
        ticks.tick().await;
        match source.ask().await {
            Answer::Yes(text) => match source.number(&text) {
                Some(count) => report.send_modify(|report| report.sessions = Some((count, Instant::now()))),
                None => complaint.say(what, "what came holds no such number"),
            },
            Answer::No(why) => complaint.say(what, &why),
            Answer::Silence => complaint.say(what, &format!("no answer in {PATIENCE:?}")),
        }
    }
}

/// Says the same thing once a minute at most.
#[derive(Default)]
pub(super) struct Complaint {
    last: Option<Instant>,
}

impl Complaint {
    pub(super) fn say(&mut self, what: &str, why: &str) {
        if self.last.is_none_or(|last| last.elapsed() >= COMPLAINT_GAP) {
            self.last = Some(Instant::now());
            warn!("{what}: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Source {
        Source::Command(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
    }

    fn url(text: &str) -> Result<Url, UrlFault> {
        text.parse()
    }

    #[test]
    fn only_http_urls_are_taken() {
        let plain = url("http://127.0.0.1/x?y").unwrap();
        assert_eq!((plain.host.as_str(), plain.port, plain.path.as_str()), ("127.0.0.1", 80, "/x?y"));
        let v6 = url("http://[::1]:8080").unwrap();
        assert_eq!((v6.host.as_str(), v6.port, v6.path.as_str()), ("::1", 8080, "/"));
        for bad in ["", "127.0.0.1", "https://a/", "http://", "http://u:p@a/", "ftp://a/", "http://a b/"] {
            assert_eq!(url(bad).err(), Some(UrlFault), "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_plain_or_found_in_json() {
        let plain = shell("");
        for (text, count) in
            [("17\n", Some(17)), (" 3.0 ", Some(3)), ("-1", None), ("many", None), ("", None), ("NaN", None)]
        {
            assert_eq!(plain.number(text), count, "{text:?}");
        }
        let json = Source::Url { url: url("http://a/").unwrap(), field: Some("/stats/viewers".into()) };
        for (text, count) in [
            (r#"{"stats": {"viewers": 42}}"#, Some(42)),
            (r#"{"stats": {"viewers": 42.0}}"#, Some(42)),
            (r#"{"stats": {"viewers": "42"}}"#, None),
            (r#"{"stats": {"viewers": -1}}"#, None),
            (r#"{"viewers": 42}"#, None),
            ("42", None),
            ("{", None),
        ] {
            assert_eq!(json.number(text), count, "{text}");
        }
    }

    #[tokio::test]
    async fn a_command_is_judged_by_its_exit_code_and_read_within_bounds() {
        assert_eq!(shell("echo 12").ask().await, Answer::Yes("12\n".into()));
        assert!(matches!(shell("exit 3").ask().await, Answer::No(_)));
        assert!(matches!(Source::Command(vec!["/no/such/program".into()]).ask().await, Answer::No(_)));
        assert!(matches!(shell("head -c 2000000 /dev/zero").ask().await, Answer::No(why) if why.contains("1 MiB")));
        assert!(matches!(shell("printf '\\377'").ask().await, Answer::No(why) if why.contains("UTF-8")));
        // Arguments are no shell's.
        let words = ["/bin/echo", "$HOME;", "*"].map(str::to_owned).to_vec();
        assert_eq!(Source::Command(words).ask().await, Answer::Yes("$HOME; *\n".into()));
    }

    #[tokio::test]
    async fn a_command_that_is_stuck_is_ended() {
        let start = Instant::now();
        assert_eq!(Source::Command(["/bin/sleep", "600"].map(str::to_owned).to_vec()).ask().await, Answer::Silence);
        assert!(start.elapsed() < PATIENCE + Duration::from_secs(2), "{:?}", start.elapsed());
    }

    /// The process whose number stands in this file ends.
    async fn ended(file: &std::path::Path) {
        let id = std::fs::read_to_string(file).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", id.trim())).ok();
        let gone = async {
            // A zombie is its new parent's to reap.
            while state().is_some_and(|stat| !stat.contains(") Z ") && !stat.contains(") X ")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), gone).await.expect("the process ends");
    }

    #[tokio::test]
    async fn a_script_that_hangs_in_a_child_is_ended_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        assert_eq!(shell(&script).ask().await, Answer::Silence);
        ended(&file).await;
    }

    #[tokio::test]
    async fn what_a_command_leaves_in_the_background_neither_holds_up_its_answer_nor_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        let script = format!("echo 7; sleep 600 & echo $! > {}; exit 0", file.display());
        assert_eq!(shell(&script).ask().await, Answer::Yes("7\n".into()));
        ended(&file).await;
    }

    #[test]
    fn nothing_is_said_before_readiness_is_known_and_stale_figures_are_left_out() {
        let start = Instant::now();
        let load = Load { sessions: None, bits_per_s: Some(8), cpu_permille: Some(500) };
        let mut report = Report { ready: Readiness::Unasked, machine: Some((load, start)), sessions: Some((3, start)) };
        assert_eq!(report.at(start), None);
        report.ready = Readiness::Untold;
        assert_eq!(report.at(start + STALE), Some((State::Ready, Load { sessions: Some(3), ..load })));
        let later = start + STALE + Duration::from_millis(1);
        assert_eq!(report.at(later), Some((State::Ready, Load::default())));
    }

    #[test]
    fn an_agent_that_cannot_tell_any_more_speaks_as_one_without_a_source() {
        let start = Instant::now();
        let told = |ready| Report { ready: Readiness::Told { ready, since: start }, machine: None, sessions: None };
        let at = |ready, now| told(ready).at(now).map(|(state, _)| state);
        assert_eq!((at(false, start + STALE), at(true, start + STALE)), (Some(State::NotReady), Some(State::Ready)));
        let later = start + STALE + Duration::from_millis(1);
        assert_eq!((at(false, later), at(true, later)), (Some(State::Ready), Some(State::Ready)));
        assert!(told(true).ready.is_stale(later) && !told(true).ready.is_stale(start + STALE));
    }
}
