//! Questions to a running server's admin address: HTTP or HTTPS, with a token, answers whole or as a stream of events.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::feed::Feed;
use crate::health::tls;

const WHOLE_TIME: Duration = Duration::from_secs(5);
const CONNECT_TIME: Duration = Duration::from_secs(5);
const BODY_BYTES: usize = 16 << 20;
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The environment's token, where no file is named.
const TOKEN: &str = "MERIDIAN_TOKEN";

/// Which server, and how it and we prove who we are.
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// The server's admin address, http or https
    #[arg(long, value_name = "URL", env = "MERIDIAN_SERVER", default_value = "http://127.0.0.1:8053")]
    pub server: String,
    #[command(flatten)]
    pub trust: TrustArgs,
}

#[derive(Args, Clone, Debug, Default)]
pub struct TrustArgs {
    /// A file with the token to show [default: the environment's MERIDIAN_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file of a private CA that signed the server's certificate [default: the public CAs]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// An answer of the server, whatever its status.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: String,
}

impl Reply {
    /// What an answer of status 2xx holds. Errors: what the server says instead, and what else is in the body.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, AskError> {
        #[derive(Deserialize)]
        struct Fault {
            error: String,
        }
        if (200..300).contains(&self.status)
            && let Ok(read) = serde_json::from_str(&self.body)
        {
            return Ok(read);
        }
        Err(AskError::Failed(match serde_json::from_str::<Fault>(&self.body) {
            Ok(Fault { error }) => error,
            Err(_) => format!("status {}, and no answer: is this the admin address of a server?", self.status),
        }))
    }
}

#[derive(Clone, Debug)]
pub enum AskError {
    /// The URL is not `http://HOST:PORT` or `https://HOST:PORT`.
    Url,
    /// The token or CA file is no use, or the token would go over the network in the clear.
    Trust(String),
    /// Nobody listens there.
    Refused,
    /// Somebody does, but gave no answer that we understand, or said no.
    Failed(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Url => f.write_str("the URL must have the form http://HOST:PORT or https://HOST:PORT"),
            AskError::Refused => f.write_str("nobody listens there"),
            AskError::Trust(why) | AskError::Failed(why) => f.write_str(why),
        }
    }
}

impl AskError {
    /// Whether it was asked for wrongly, so that asking again is no use.
    pub fn is_usage(&self) -> bool {
        matches!(self, AskError::Url | AskError::Trust(_))
    }
}

fn failed(error: impl fmt::Display) -> AskError {
    AskError::Failed(error.to_string())
}

/// Knows one server. A connection a question.
#[derive(Clone)]
pub struct Client {
    authority: Authority,
    host: String,
    port: u16,
    token: Option<String>,
    tls: Option<TlsConnector>,
}

impl Client {
    /// Reads token and CA. Blocks on the file system.
    pub fn new(base: &str, trust: &TrustArgs) -> Result<Client, AskError> {
        let base: Uri = base.trim_end_matches('/').parse().map_err(|_| AskError::Url)?;
        let secure = match base.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(AskError::Url),
        };
        let authority = base.authority().ok_or(AskError::Url)?.clone();
        if authority.as_str().contains('@') || !matches!(base.path(), "" | "/") || base.query().is_some() {
            return Err(AskError::Url);
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let token = token(trust)?;
        let here = host.parse::<IpAddr>().map_or(host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback());
        if token.is_some() && !secure && !here {
            let what = "a token is not sent over http to another machine, where anybody could read it; use https";
            return Err(AskError::Trust(what.to_owned()));
        }
        let tls = secure.then(|| connector(trust.ca.as_deref())).transpose()?;
        Ok(Client { authority, host, port, token, tls })
    }

    pub fn of(args: &ServerArgs) -> Result<Client, AskError> {
        Client::new(&args.server, &args.trust)
    }

    /// GETs `path_and_query`. Blocks for at most five seconds; must not be called within an async runtime.
    pub fn get(&self, path_and_query: &str) -> Result<Reply, AskError> {
        self.block(Method::GET, path_and_query, None, WHOLE_TIME)
    }

    /// As [`Client::get`], but changes something. A POST without anything to say has `{}` as its body.
    pub fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Reply, AskError> {
        self.block(method, path, body, patience)
    }

    fn block(&self, method: Method, path: &str, body: Option<&Value>, patience: Duration) -> Result<Reply, AskError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(self.ask(method, path, body, patience))
    }

    /// The whole answer, within `patience`.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Reply, AskError> {
        let body = match body {
            Some(body) => body.to_string(),
            None if method == Method::POST => "{}".to_owned(),
            None => String::new(),
        };
        self.exchange(method, path, body, "application/json", patience).await
    }

    /// POSTs lines of JSON; as [`Client::ask`].
    pub async fn post_lines(&self, path: &str, lines: String, patience: Duration) -> Result<Reply, AskError> {
        self.exchange(Method::POST, path, lines, "application/x-ndjson", patience).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: String,
        kind: &str,
        patience: Duration,
    ) -> Result<Reply, AskError> {
        let asked = async {
            // What has no body has no type.
            let headers = if body.is_empty() { &[][..] } else { &[("content-type", kind)] };
            let (_sender, response) = self.send(method, path, body, headers).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_BYTES).collect().await.map_err(failed)?;
            Ok(Reply { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
        };
        timeout(patience, asked).await.unwrap_or_else(|_| Err(failed("no answer in time")))
    }

    /// The events after `after` and all that come. Waits for the first words of the answer only.
    pub async fn follow(&self, path: &str, after: Option<u64>) -> Result<Feed, AskError> {
        let last = after.map(|id| id.to_string());
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(last.as_deref().map(|last| ("last-event-id", last)));
        let sent = timeout(WHOLE_TIME, self.send(Method::GET, path, String::new(), &headers)).await;
        let (sender, response) = sent.unwrap_or_else(|_| Err(failed("no answer in time")))?;
        if response.status() != 200 {
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_BYTES).collect();
            let body = timeout(WHOLE_TIME, body).await.map_err(failed)?.map_err(failed)?;
            let reply = Reply { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() };
            return Err(reply.read::<Value>().map_or_else(|error| error, |_| failed(format!("status {status}"))));
        }
        Ok(Feed::new(sender, response.into_body()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
        headers: &[(&str, &str)],
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), AskError> {
        let mut sender = timeout(CONNECT_TIME, self.connect()).await.map_err(|_| failed("no connection in time"))??;
        let mut request = Request::builder().method(method).uri(path).header("host", self.authority.as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(failed)?;
        let response = sender.send_request(request).await.map_err(|error| self.unanswered(&error))?;
        Ok((sender, response))
    }

    /// Why a request has no answer. A TLS server that is asked in plain text answers with an alert, or just closes.
    fn unanswered(&self, error: &hyper::Error) -> AskError {
        let what = if error.is_parse() { "the answer is not HTTP" } else { "the connection ended without an answer" };
        let help = if self.tls.is_none() { "; if TLS is spoken there, write https://" } else { "" };
        failed(format!("{what} ({error}){help}"))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, AskError> {
        let stream = TcpStream::connect((&*self.host, self.port)).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => AskError::Refused,
            _ => failed(error),
        })?;
        let stream: Box<dyn Io> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(|_| AskError::Url)?;
                Box::new(tls.connect(name, stream).await.map_err(|error| failed(not_trusted(&error)))?)
            }
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Ends with the sender and the body; what goes wrong shows there.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// Why there is no TLS with a server, and what to do where that is in our hands.
fn not_trusted(error: &io::Error) -> String {
    let said = tls::cause(error).unwrap_or_else(|| format!("TLS: {error}"));
    let help = match error.get_ref().and_then(|fault| fault.downcast_ref()) {
        Some(rustls::Error::InvalidMessage(_)) => "; if plain HTTP is spoken there, write http://",
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "; --ca FILE names the private CA that signed it"
        }
        None if error.kind() == io::ErrorKind::UnexpectedEof => "; if plain HTTP is spoken there, write http://",
        _ => "",
    };
    said + help
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

fn token(trust: &TrustArgs) -> Result<Option<String>, AskError> {
    let text = match &trust.token_file {
        Some(file) => {
            let text = read(file).map_err(AskError::Trust)?;
            String::from_utf8(text).map_err(|_| AskError::Trust(format!("{}: not a token", file.display())))?
        }
        None => match std::env::var(TOKEN) {
            Ok(text) if !text.trim().is_empty() => text,
            _ => return Ok(None),
        },
    };
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let place = trust.token_file.as_ref().map_or(TOKEN.to_owned(), |file| file.display().to_string());
        return Err(AskError::Trust(format!("{place}: not a token, which is one word")));
    }
    Ok(Some(text.to_owned()))
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let opened = File::open(file).and_then(|opened| opened.take(MAX_FILE_BYTES).read_to_end(&mut text));
    opened.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text)
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, AskError> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.roots = webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        Some(file) => {
            let text = read(file).map_err(AskError::Trust)?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let added = certificate
                    .map_err(|error| error.to_string())
                    .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
                added.map_err(|error| AskError::Trust(format!("{}: {error}", file.display())))?;
            }
            if roots.is_empty() {
                return Err(AskError::Trust(format!("{}: holds no certificate", file.display())));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A value within a URL's query (RFC 3986 §2.3: only unreserved characters stand for themselves).
pub fn escape(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value.bytes().fold(String::new(), |mut out, byte| {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A server that gives one connection `reply` and closes it.
    fn server(reply: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(reply.as_bytes());
        });
        url
    }

    fn get(base: &str, path: &str) -> Result<Reply, AskError> {
        Client::new(base, &TrustArgs::default())?.get(path)
    }

    #[test]
    fn a_reply_is_given_whatever_its_status() {
        let reply = get(&server("HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno\n"), "/v1/explain").unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (404, "no\n"));
    }

    #[test]
    fn a_server_that_is_not_there_and_one_that_talks_nonsense_are_told_apart() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(matches!(get(&format!("http://{free}"), "/"), Err(AskError::Refused)));
        for nonsense in ["", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"] {
            assert!(matches!(get(&server(nonsense), "/"), Err(AskError::Failed(_))), "{nonsense:?}");
        }
    }

    #[test]
    fn http_to_a_tls_port_and_https_to_an_http_port_are_told_with_the_remedy() {
        for tls in ["\u{15}\u{3}\u{3}\u{0}\u{2}\u{2}\u{32}", ""] {
            let error = get(&server(tls), "/").unwrap_err().to_string();
            assert!(error.contains("if TLS is spoken there, write https://"), "{error}");
        }
        for plain in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
            let error = get(&server(plain).replace("http:", "https:"), "/").unwrap_err().to_string();
            assert!(error.contains("if plain HTTP is spoken there, write http://"), "{error}");
        }
    }

    #[test]
    fn only_http_and_https_urls_of_a_server_are_taken() {
        for url in ["", "127.0.0.1:8053", "ftp://127.0.0.1:8053", "http://", "http://a@b", "http://a/b", "http://a?b"] {
            assert!(matches!(get(url, "/"), Err(AskError::Url)), "{url}");
        }
        assert!(Client::new("https://[::1]:8053/", &TrustArgs::default()).is_ok());
    }

    #[test]
    fn a_token_does_not_go_over_http_to_another_machine() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, " mrd_secret\n").unwrap();
        let trust = TrustArgs { token_file: Some(file.clone()), ca: None };
        assert!(matches!(Client::new("http://192.0.2.1:8053", &trust), Err(AskError::Trust(_))));
        let there = Client::new("https://192.0.2.1:8053", &trust).unwrap();
        assert_eq!(there.token.as_deref(), Some("mrd_secret"));
        for here in ["http://127.0.0.1:8053", "http://[::1]:8053", "http://localhost:8053"] {
            assert!(Client::new(here, &trust).is_ok(), "{here}");
        }
        for bad in ["", "two words", "new\nline", "\u{e9}"] {
            std::fs::write(&file, bad).unwrap();
            assert!(matches!(Client::new("http://localhost", &trust), Err(AskError::Trust(_))), "{bad:?}");
        }
    }

    #[test]
    fn values_are_escaped_for_a_query() {
        assert_eq!(escape("2001:db8::/32"), "2001%3Adb8%3A%3A%2F32");
        assert_eq!(escape("a b&c=\\046*"), "a%20b%26c%3D%5C046%2A");
    }
}
