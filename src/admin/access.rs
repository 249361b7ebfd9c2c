//! Who may do what at the admin address.
//!
//! With tokens, everything but `/healthz` and `/readyz` needs one (RFC 6750): reading the role `read`, changing the role
//! `operate`, sending measurements `report` or `operate`. What a client presents is hashed before it is compared, so the time that takes tells nothing of a token.
//!
//! A browser on the machine of an operator can be led to post to loopback by any page it shows. So a request that
//! changes something must name this server in `Host` (a page that had its own name resolved to us does not), must not
//! come from a foreign `Origin`, and under `/v1/` must be `application/json`, which a page cannot send elsewhere without
//! asking first.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::digest;
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::json;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::listen::Peer;
use crate::config::admin::{Access, LOCAL, Role, Tls};

/// Open to everybody, so that load balancers and supervisors need no token.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];
/// One value, and lines of them. A page can send neither elsewhere without asking first.
const JSON: [&str; 2] = ["application/json", "application/x-ndjson"];
/// What measurements are posted to.
const REPORTS: [&str; 1] = ["/v1/rtt"];
/// Refusals are logged this often at most.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Longer than any token of ours.
const MAX_TOKEN: usize = 1024;

/// Who asks: the name of the token, or [`LOCAL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author(pub Arc<str>);

/// Why a request was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    NoToken = 0,
    WrongToken = 1,
    /// The token is good, its role is not enough.
    Role = 2,
    /// A page of a browser, as far as one can tell.
    Foreign = 3,
}

impl Refused {
    pub const ALL: [Refused; 4] = [Refused::NoToken, Refused::WrongToken, Refused::Role, Refused::Foreign];

    /// The value of the metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Refused::NoToken => "no_token",
            Refused::WrongToken => "wrong_token",
            Refused::Role => "role",
            Refused::Foreign => "foreign",
        }
    }
}

/// The rules in force. Cheap to share; a reload changes them for the requests that come after it.
#[derive(Debug)]
pub struct Gate {
    access: ArcSwap<Access>,
    certificate: Arc<ArcSwapOption<CertifiedKey>>,
    address: SocketAddr,
    /// Told of each reload that changed the rules.
    changes: watch::Sender<()>,
    refused: [AtomicU64; Refused::ALL.len()],
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    unsaid: u64,
}

/// What a request is let in as, or why it is not: status, reason and a text for who asked.
type Judged = Result<Author, (StatusCode, Refused, String)>;

impl Gate {
    /// `address`: where is listened.
    pub fn new(access: Access, address: SocketAddr) -> Gate {
        let certified = access.tls.as_ref().map(|tls| Arc::new(tls.certified()));
        Gate {
            access: ArcSwap::from_pointee(access),
            certificate: Arc::new(ArcSwapOption::new(certified)),
            address,
            changes: watch::Sender::new(()),
            refused: Default::default(),
            told: Mutex::default(),
        }
    }

    /// Takes what a reload brought: tokens and certificate, for what begins from now on, and tokens for what has a [`Stay`].
    /// Whether TLS is spoken at all
    /// stays as it was at the start, and so do all rules where the new ones would open a public address.
    pub fn replace(&self, access: &Access) {
        if access.missing_for(self.address).is_some() || access.tls.is_some() != self.access.load().tls.is_some() {
            warn!("[admin] tls and tokens as they are now take effect at the next start");
            return;
        }
        self.certificate.store(access.tls.as_ref().map(|tls| Arc::new(tls.certified())));
        self.access.store(Arc::new(access.clone()));
        self.changes.send_replace(());
    }

    /// For an answer without end to a request that was let in to read.
    pub fn stay(self: &Arc<Gate>, headers: &HeaderMap) -> Stay {
        let mut changes = self.changes.subscribe();
        // The rules may have changed after the request was let in.
        changes.mark_changed();
        Stay { gate: Arc::clone(self), headers: headers.clone(), changes }
    }

    /// `None`: plain HTTP. Handshakes take the certificate of the moment.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.access.load().tls.as_ref()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has cipher suites for TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Certificate(Arc::clone(&self.certificate))));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Some(TlsAcceptor::from(Arc::new(config)))
    }

    /// Requests that were not let in.
    pub fn refused(&self, why: Refused) -> u64 {
        self.refused[why as usize].load(Relaxed)
    }

    fn judge(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Judged {
        let access = self.access.load();
        let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        let author = if OPEN.contains(&uri.path()) && !changes {
            Author(LOCAL.into())
        } else {
            let needed = match changes {
                true if REPORTS.contains(&uri.path()) => Role::Report,
                true => Role::Operate,
                false => Role::Read,
            };
            known(&access, headers, needed)?
        };
        if changes {
            let foreign = |what: String| (StatusCode::FORBIDDEN, Refused::Foreign, what);
            own_host(access.tls.as_deref(), uri, headers).map_err(foreign)?;
            // DELETE has no body, and no page sends it elsewhere without asking first.
            if uri.path().starts_with("/v1/") && *method != Method::DELETE && !is_json(headers) {
                let what = "send it with Content-Type: application/json".to_owned();
                return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, Refused::Foreign, what));
            }
        }
        Ok(author)
    }

    /// Counts a refusal, and says how many there were since it last did; `None` while it is too early to.
    fn note(&self, why: Refused, now: Instant) -> Option<u64> {
        self.refused[why as usize].fetch_add(1, Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.unsaid += 1;
        if told.last.is_some_and(|last| now.saturating_duration_since(last) < TELL_EVERY) {
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.unsaid))
    }
}

/// What a reader was let in by, for as long as its answer goes on.
#[derive(Debug)]
pub struct Stay {
    gate: Arc<Gate>,
    headers: HeaderMap,
    changes: watch::Receiver<()>,
}

impl Stay {
    /// Returns once the rules let the reader in no more. Can be dropped and called again.
    pub async fn over(&mut self) {
        // The gate, which has the sender, is ours.
        while self.changes.changed().await.is_ok() {
            if known(&self.gate.access.load(), &self.headers, Role::Read).is_err() {
                // Also for who asks again.
                self.changes.mark_changed();
                return;
            }
        }
    }
}

/// To be laid around every route: lets a request in with its [`Author`], or answers it.
pub async fn guard(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    match gate.judge(request.method(), request.uri(), request.headers()) {
        Ok(author) => {
            request.extensions_mut().insert(author);
            next.run(request).await
        }
        Err((status, why, what)) => {
            if let Some(count) = gate.note(why, Instant::now()) {
                let from = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string());
                warn!(from, reason = why.label(), count, path = request.uri().path(), "admin request not let in");
            }
            let mut response = (status, Json(json!({ "error": what }))).into_response();
            if status == StatusCode::UNAUTHORIZED {
                // "If the protected resource request does not include authentication credentials or does not contain an
                // access token that enables access …, the resource server MUST include the HTTP "WWW-Authenticate"
                // response header field" (RFC 6750 §3), with a code only where there was a token (§3.1).
                let challenge = match why {
                    Refused::WrongToken => "Bearer realm=\"meridian\", error=\"invalid_token\"",
                    _ => "Bearer realm=\"meridian\"",
                };
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            response
        }
    }
}

fn known(access: &Access, headers: &HeaderMap, needed: Role) -> Judged {
    if access.tokens.is_empty() {
        return Ok(Author(LOCAL.into()));
    }
    let refuse = |why, what: &str| Err((StatusCode::UNAUTHORIZED, why, what.to_owned()));
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(first) = given.next() else {
        return refuse(Refused::NoToken, "give a token: Authorization: Bearer TOKEN");
    };
    let token = first.to_str().ok().filter(|_| given.next().is_none()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
    });
    let Some(token) = token.filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN) else {
        return refuse(Refused::WrongToken, "one header is needed: Authorization: Bearer TOKEN");
    };
    let sum = digest::digest(&digest::SHA256, token.as_bytes());
    let sum = sum.as_ref();
    // All of every sum is looked at, whichever fits.
    let differs = |other: &[u8; 32]| sum.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) != 0;
    let fits = access.tokens.iter().fold(None, |found, token| if differs(&token.sha256) { found } else { Some(token) });
    match fits {
        None => refuse(Refused::WrongToken, "the token is not known here"),
        Some(token) if !token.role.may(needed) => {
            let (needed, role) = (needed.name(), token.role.name());
            let what = format!("this needs the role {needed}; the token of {} has the role {role}", token.name);
            Err((StatusCode::FORBIDDEN, Refused::Role, what))
        }
        Some(token) => Ok(Author(Arc::clone(&token.name))),
    }
}

/// Whether the request was meant for this server by who sent it. Errors: a text for people.
fn own_host(tls: Option<&Tls>, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
    let single = |name: header::HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
    };
    // The target's own authority counts where there is one (RFC 9112 §3.2.2).
    let host = match uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => single(header::HOST).and_then(|host| host.parse::<Authority>().ok()),
    };
    let host = host.ok_or("a change needs one Host")?;
    if !is_ours(host.host(), tls) {
        return Err(format!(
            "{host} is not this server's address, localhost or a name of its certificate; use one of those"
        ));
    }
    if headers.contains_key(header::ORIGIN) {
        let origin = single(header::ORIGIN).and_then(|origin| origin.parse::<Uri>().ok());
        let same =
            |origin: Uri| origin.authority().is_some_and(|from| from.as_str().eq_ignore_ascii_case(host.as_str()));
        if !origin.is_some_and(same) {
            return Err("a page of another origin may change nothing here".to_owned());
        }
    }
    Ok(())
}

/// An address cannot be had by resolving a name to us, so any will do; names can.
fn is_ours(host: &str, tls: Option<&Tls>) -> bool {
    let bare = host.trim_matches(['[', ']']);
    if bare.parse::<IpAddr>().is_ok() || host.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return true;
    }
    let Some(tls) = tls else { return false };
    let (Ok(certificate), Ok(name)) =
        (webpki::EndEntityCert::try_from(tls.end_entity()), ServerName::try_from(host.trim_end_matches('.')))
    else {
        return false;
    };
    certificate.verify_is_valid_for_subject_name(&name).is_ok()
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = essence.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| JSON.iter().any(|json| essence.trim().eq_ignore_ascii_case(json)))
}

/// The certificate of the moment.
#[derive(Debug)]
struct Certificate(Arc<ArcSwapOption<CertifiedKey>>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

#[cfg(test)]
mod tests;
