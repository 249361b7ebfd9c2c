//! `[scale]` of `meridian.toml`: who is told when a region's load crosses a threshold, or when it should have another size.

use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;

use super::check;
use super::diagnostic::{At, Diagnostic};
use super::settings::PrivateCa;
use super::tree::{Item, Table};
use super::units;

const ABOVE: f64 = 0.85;
const BELOW: f64 = 0.60;
const EVERY: Duration = Duration::from_secs(60);
/// Of a file that holds a token.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Where changes are told, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    pub url: Url,
    /// A planned utilisation of this or more is told once …
    pub above: f64,
    /// … and then that it is this or less.
    pub below: f64,
    /// Nothing is told of a region more often.
    pub every: Duration,
    /// Holds a bearer token (RFC 6750), which is read anew for each request.
    pub token: Option<PathBuf>,
    /// `None`: the public roots.
    pub ca: Option<Arc<PrivateCa>>,
}

/// `http[s]://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub tls: bool,
    /// As it is written in `Host`.
    pub authority: String,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    /// And query.
    pub path: String,
}

/// It is no such URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoUrl;

impl std::str::FromStr for Url {
    type Err = NoUrl;

    fn from_str(text: &str) -> Result<Url, NoUrl> {
        let uri: Uri = text.parse().map_err(|_| NoUrl)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(NoUrl),
        };
        let authority = uri.authority().ok_or(NoUrl)?;
        let host = authority.host().trim_matches(['[', ']']);
        // Port 0 cannot be connected to, and userinfo would be a secret in a file that many read.
        if host.is_empty() || authority.as_str().contains('@') || authority.port_u16() == Some(0) || text.contains('#')
        {
            return Err(NoUrl);
        }
        // A port that is no number is in the authority all the same.
        let behind = authority.as_str().rsplit(']').next().unwrap_or_default();
        if behind.contains(':') && authority.port_u16().is_none() {
            return Err(NoUrl);
        }
        Ok(Url {
            tls,
            authority: authority.as_str().to_owned(),
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: uri.path_and_query().map_or("/".into(), |path| match path.as_str() {
                rooted if rooted.starts_with('/') => rooted.to_owned(),
                query => format!("/{query}"),
            }),
        })
    }
}

impl fmt::Display for Url {
    /// Without the query, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

impl Url {
    /// Whether what is sent there stays on this machine.
    fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
    }
}

/// The token that a file holds: its only line. Errors: what is wrong, for people. Blocks on the file system.
pub fn token(file: &Path) -> Result<String, String> {
    let said = |error: std::io::Error| error.to_string();
    // Checked before opening: to open a pipe would wait for its writer.
    if !std::fs::metadata(file).map_err(said)?.is_file() {
        return Err("not a file".to_owned());
    }
    let mut text = String::new();
    std::fs::File::open(file).map_err(said)?.take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text).map_err(said)?;
    let token = text.trim_end_matches(['\r', '\n']);
    if text.len() as u64 > MAX_TOKEN_BYTES {
        return Err(format!("larger than {MAX_TOKEN_BYTES} bytes"));
    }
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds no token: one line of visible ASCII characters without blanks".to_owned());
    }
    Ok(token.to_owned())
}

/// Reads the table; `base` is the directory that relative paths count from. Blocks on the file system: files that it names
/// are read, so that their faults are told with all others.
pub(super) fn read(
    mut table: Table<'_>,
    base: &Path,
    mend: impl Fn(&str, &Item<'_>) -> Option<String>,
) -> Option<Webhook> {
    let webhook = table.take("webhook");
    if webhook.is_none() {
        table.file.report_missing(
            Diagnostic::error(table.at(), "[scale] names no webhook")
                .rule("its other keys tell when the webhook is called; GET /v1/scale and the metrics need none of them")
                .help("add webhook = \"https://…\", or remove the table"),
        );
    }
    let url = webhook.and_then(|item| url(&item));
    let above = table.take("above").map(|item| share(&item).map(|value| item.placed(value)));
    let below = table.take("below").map(|item| share(&item).map(|value| item.placed(value)));
    let every = table.take("every");
    let every =
        every.map_or(Some(EVERY), |item| units::read(&item, Duration::from_secs(1)..=Duration::from_secs(86_400)));
    let token = table.take("token").map(|item| {
        let path = token_file(&item, base)?;
        if let Some(url) = url.as_ref().filter(|url| !url.tls && !url.is_local()) {
            let fault = Diagnostic::warning(item.at(), format!("`{}` is sent to {url} in the clear", item.path));
            item.report(fault.rule("whoever carries plain HTTP can read it").help("use an https:// address"));
        }
        Some(path)
    });
    let ca = table.take("ca").map(|item| {
        if url.as_ref().is_some_and(|url| !url.tls) {
            let fault = item.key_fault(format!("`{}` has no meaning for an http:// webhook", item.path));
            item.report(fault.help("remove it, or use an https:// address"));
            return None;
        }
        check::ca(&item)
    });
    let (high, low) = (above.clone().flatten(), below.clone().flatten());
    let (above_value, below_value) =
        (high.as_ref().map_or(ABOVE, |placed| placed.value), low.as_ref().map_or(BELOW, |placed| placed.value));
    if let Some(placed) = low.as_ref().or(high.as_ref()).filter(|_| below_value >= above_value) {
        let fault = Diagnostic::error(
            placed.at.clone(),
            format!("`scale.below` is {below_value}, not less than `scale.above`, which is {above_value}"),
        );
        let fault = fault
            .rule("between the two nothing is told, so that a load near one of them does not call again and again");
        table.file.report(fault.help("lower `below`, or raise `above`"));
    }
    table.finish(mend);
    // What was written and could not be read is not as if it were not written.
    Some(Webhook {
        url: url?,
        above: above.map_or(Some(ABOVE), |read| Some(read?.value))?,
        below: below.map_or(Some(BELOW), |read| Some(read?.value))?,
        every: every?,
        token: token.map_or(Some(None), |read| read.map(Some))?,
        ca: ca.map_or(Some(None), |read| read.map(|placed| Some(placed.value)))?,
    })
}

fn url(item: &Item<'_>) -> Option<Url> {
    let text = item.string()?;
    let url = text.parse();
    if url.is_err() {
        item.report(
            item.fault(format!("`{}` is no address to send to", item.path))
                .rule("it has the form http[s]://HOST[:PORT][/PATH], without a name or password")
                .help("a secret goes into a file that `token` names"),
        );
    }
    url.ok()
}

fn share(item: &Item<'_>) -> Option<f64> {
    let value = item.number()?;
    if !(0.01..=10.0).contains(&value) {
        let fault = item.fault(format!("`{}` is {value}, outside 0.01 to 10", item.path));
        item.report(fault.rule("it is a part of the capacity: 1 is full").help("write it like 0.85"));
        return None;
    }
    Some(value)
}

fn token_file(item: &Item<'_>, base: &Path) -> Option<PathBuf> {
    let path = base.join(item.string()?);
    item.file.names(&path);
    if let Err(what) = token(&path) {
        item.report(
            item.fault(format!("`{}`: {}: {what}", item.path, path.display()))
                .help("give a file that holds the token alone; its path is relative to this file"),
        );
        return None;
    }
    if std::fs::metadata(&path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0) {
        item.report(
            Diagnostic::warning(At::start(&path), "everybody on this machine can read the token")
                .help(format!("chmod o-r {}", path.display())),
        );
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_addresses_that_can_be_sent_to_are_taken() {
        let plain: Url = "http://127.0.0.1/x?y=z".parse().unwrap();
        assert_eq!((plain.tls, &*plain.host, plain.port, &*plain.path), (false, "127.0.0.1", 80, "/x?y=z"));
        assert_eq!(plain.to_string(), "http://127.0.0.1/x", "a query may hold a secret");
        let v6: Url = "https://[::1]:8443".parse().unwrap();
        assert_eq!((v6.tls, &*v6.host, v6.port, &*v6.path, v6.is_local()), (true, "::1", 8443, "/", true));
        for bad in [
            "",
            "a.example",
            "/x",
            "https://",
            "ftp://a/",
            "https://u:p@a/",
            "http://a b/",
            "http://a:0/",
            "http://a:x/",
            "http://a:99999/",
            "http://a/#x",
        ] {
            assert_eq!(bad.parse::<Url>(), Err(NoUrl), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_taken_or_refused(text in "(https?://)?\\PC{0,40}") {
            if let Ok(url) = text.parse::<Url>() {
                prop_assert!(url.port > 0 && !url.host.is_empty() && url.path.starts_with('/'));
            }
        }
    }

    #[test]
    fn a_token_is_the_only_line_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let read = |text: &[u8]| {
            std::fs::write(&file, text).unwrap();
            token(&file)
        };
        assert_eq!(read(b"s3cret=\r\n").as_deref(), Ok("s3cret="));
        for bad in [&b""[..], b"\n", b"two words", b"two\nlines", b"\xff", &[b'x'; 5000]] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert_eq!(token(folder.path()), Err("not a file".to_owned()));
    }

    /// What is read of a `meridian.toml` with this `[scale]`, beside a token of its own, and what is said of it.
    fn read(table: &str) -> (Option<Webhook>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let (file, token) = (folder.path().join("meridian.toml"), folder.path().join("token"));
        std::fs::write(&file, format!("[scale]\n{table}\n")).unwrap();
        std::fs::write(&token, "s3cret\n").unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (node, _, faults) = crate::config::load_node(Some(&file)).unwrap();
        let folder = format!("{}/", folder.path().display());
        let said = faults.iter().map(|fault| format!("{}: {}", fault.at, fault.what).replace(&folder, ""));
        (node.scale, said.collect())
    }

    #[test]
    fn a_webhook_is_called_as_the_file_says() {
        let (webhook, said) = read("webhook = \"https://hooks.example:8443/scale?x=1\"");
        let webhook = webhook.unwrap();
        assert_eq!((said, webhook.url.to_string()), (vec![], "https://hooks.example:8443/scale".to_owned()));
        assert_eq!((webhook.above, webhook.below, webhook.every), (0.85, 0.60, Duration::from_secs(60)));
        assert_eq!((webhook.token, webhook.ca), (None, None));
        let all = "webhook = \"http://[::1]:9000\"\nabove = 1\nbelow = 0.5\nevery = \"5m\"\ntoken = \"token\"";
        let (webhook, said) = read(all);
        let webhook = webhook.unwrap();
        assert_eq!((said, webhook.above, webhook.below, webhook.every), (vec![], 1.0, 0.5, Duration::from_secs(300)));
        assert!(webhook.token.unwrap().ends_with("token"));
    }

    #[test]
    fn faults_of_the_webhook_are_told_at_their_places() {
        let (webhook, said) = read("above = 0.9");
        assert_eq!((webhook, said), (None, vec!["meridian.toml:1:2: [scale] names no webhook".to_owned()]));
        let (webhook, said) = read(
            "webhook = \"hooks.example/scale\"\nabove = 85\nbelow = \"60 %\"\nevery = \"10ms\"\ntoken = \"nowhere\"\n\
             url = 1",
        );
        let expected = [
            "meridian.toml:2:11: `scale.webhook` is no address to send to",
            "meridian.toml:3:9: `scale.above` is 85, outside 0.01 to 10",
            "meridian.toml:4:9: `scale.below` is a string, not a number",
            "meridian.toml:5:9: `scale.every` is 10ms, outside 1s to 1d",
            "meridian.toml:6:9: `scale.token`: nowhere: No such file or directory (os error 2)",
            "meridian.toml:7:1: unknown key `url` in [scale]",
        ];
        assert_eq!((webhook, said), (None, expected.map(str::to_owned).to_vec()));
        let plain = "webhook = \"http://hooks.example/scale\"\ntoken = \"token\"\nca = \"token\"\nbelow = 0.9";
        let expected = [
            "meridian.toml:3:9: `scale.token` is sent to http://hooks.example/scale in the clear",
            "meridian.toml:4:1: `scale.ca` has no meaning for an http:// webhook",
            "meridian.toml:5:9: `scale.below` is 0.9, not less than `scale.above`, which is 0.85",
        ];
        assert_eq!(read(plain).1, expected);
    }

    #[test]
    fn the_example_of_the_docs_is_in_order() {
        let docs = std::fs::read_to_string("docs/scaling.md").unwrap();
        let example = docs.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        let table = example.strip_prefix("[scale]\n").unwrap().replace("webhook.token", "token");
        let (webhook, said) = read(&table);
        assert_eq!(said, Vec::<String>::new());
        let webhook = webhook.unwrap();
        assert_eq!((webhook.above, webhook.below, webhook.every), (ABOVE, BELOW, EVERY), "it shows the defaults");
    }
}
