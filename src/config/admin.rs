//! `[admin]`: where the admin address listens, its certificate, and who may do what there.
//!
//! An address that others can reach needs a certificate and at least one token; what cannot be reached from elsewhere
//! may go without. Only SHA-256 sums of tokens stand in the file, so who reads it can log in nowhere.

use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::diagnostic::Diagnostic;
use super::tree::{Item, Table};

/// Who is at the machine itself and gave no token.
pub const LOCAL: &str = "local";

/// Each is compared with what a client presents.
const MAX_TOKENS: usize = 256;
const MAX_NAME: usize = 64;
const MAX_PEM_BYTES: u64 = 1 << 20;

/// Who may use the admin address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// `None`: plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Empty: whoever reaches the address may do everything.
    pub tokens: Vec<Token>,
}

/// A certificate chain and its key, as they were read; the key fits the first certificate.
#[derive(PartialEq, Eq)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    secret: PrivateKeyDer<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("cert", &self.cert).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads both files, PEM each. Errors: the file at fault, and what is wrong with it. Blocks on the file system.
    pub fn read(cert: PathBuf, key: PathBuf) -> Result<Tls, (PathBuf, String)> {
        let text = read(&cert).map_err(|error| (cert.clone(), error))?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|error| (cert.clone(), format!("not PEM: {error}")))?;
        if chain.is_empty() {
            return Err((cert, "holds no certificate".to_owned()));
        }
        let text = read(&key).map_err(|error| (key.clone(), error))?;
        let secret =
            PrivateKeyDer::from_pem_slice(&text).map_err(|error| (key.clone(), format!("no private key: {error}")))?;
        let tls = Tls { cert, key, chain, secret };
        match tls.build() {
            Ok(_) => Ok(tls),
            Err(error) => Err((tls.key, format!("does not go with {}: {error}", tls.cert.display()))),
        }
    }

    /// What a handshake needs.
    pub fn certified(&self) -> CertifiedKey {
        self.build().expect("built once already, when it was read")
    }

    /// The server's own certificate.
    pub fn end_entity(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    fn build(&self) -> Result<CertifiedKey, rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(self.chain.clone(), self.secret.clone_key(), &provider)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let said = |error: std::io::Error| error.to_string();
    let opened = std::fs::File::open(file).map_err(said)?;
    let meta = opened.metadata().map_err(said)?;
    if !meta.is_file() {
        return Err("not a file".to_owned());
    }
    let mut text = Vec::new();
    opened.take(MAX_PEM_BYTES + 1).read_to_end(&mut text).map_err(said)?;
    if text.len() as u64 > MAX_PEM_BYTES {
        return Err("larger than 1 MiB".to_owned());
    }
    Ok(text)
}

/// A person or program that may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The author of what is done with it. Several tokens may have one name, so that one can replace another.
    pub name: Arc<str>,
    pub role: Role,
    /// Of the token's text.
    pub sha256: [u8; 32],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Sends measurements, sees nothing: for what runs beside stream servers and in players' back ends
    Report,
    /// Sees everything, changes nothing
    Read,
    /// Gives orders and reloads too
    Operate,
}

impl Role {
    /// Whether what needs the role `needed` may be done with this one. Who reads does not report.
    pub fn may(self, needed: Role) -> bool {
        match needed {
            Role::Report => self != Role::Read,
            Role::Read | Role::Operate => self >= needed,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Role::Report => "report",
            Role::Read => "read",
            Role::Operate => "operate",
        }
    }
}

impl Access {
    /// What is missing before anybody may listen on `address`; `None`: nothing.
    pub fn missing_for(&self, address: SocketAddr) -> Option<&'static str> {
        if address.ip().to_canonical().is_loopback() {
            return None;
        }
        match (&self.tls, self.tokens.is_empty()) {
            (Some(_), false) => None,
            (None, true) => Some("a certificate and a token"),
            (None, false) => Some("a certificate"),
            (Some(_), true) => Some("a token"),
        }
    }
}

/// The rule and the mend for an address that others can reach.
pub fn exposed(fault: Diagnostic) -> Diagnostic {
    fault.rule("whoever reaches an address that is not loopback could read and change everything").help(
        "write tls = { cert = \"…\", key = \"…\" } and what `meridian token NAME --role operate` prints under [admin], \
         or listen on 127.0.0.1",
    )
}

/// Reads `[admin]`. `socket` reads an address and reports what is none.
pub(super) fn admin(
    mut table: Table<'_>,
    base: &Path,
    socket: impl Fn(&Item<'_>) -> Option<SocketAddr>,
    above: impl Fn(&str, &Item<'_>) -> Option<String>,
) -> (Option<SocketAddr>, Access) {
    let written = table.take("listen");
    let listen = written.as_ref().and_then(socket);
    let tls = table.take("tls");
    let token = table.take("token");
    // What was written and could not be read is not missing.
    let broken = |written: bool, read: bool| written && !read;
    let access = Access {
        tls: tls.as_ref().and_then(|item| tls_of(item, base)),
        tokens: token.as_ref().map(tokens).unwrap_or_default(),
    };
    let unsure = broken(tls.is_some(), access.tls.is_some()) || broken(token.is_some(), !access.tokens.is_empty());
    if let (Some(item), Some(address)) = (&written, listen)
        && let Some(missing) = access.missing_for(address).filter(|_| !unsure)
    {
        item.report(exposed(item.fault(format!("`{}` is {address}, and {missing} is missing", item.path))));
    }
    table.finish(above);
    (listen, access)
}

fn tls_of(item: &Item<'_>, base: &Path) -> Option<Arc<Tls>> {
    let mut table = item.table()?;
    let mut file = |key: &'static str| {
        let Some(item) = table.take(key) else {
            let fault = item.key_fault(format!("`{}` has no `{key}`", item.path));
            table.file.report_missing(fault.help("write tls = { cert = \"cert.pem\", key = \"key.pem\" }"));
            return None;
        };
        let path = base.join(item.string().filter(|text| !text.is_empty()).or_else(|| {
            item.report(item.fault(format!("`{}` names no file", item.path)).help("name a PEM file"));
            None
        })?);
        item.file.names(&path);
        Some(path)
    };
    let (cert, key) = (file("cert"), file("key"));
    table.done();
    match Tls::read(cert?, key?) {
        Ok(tls) => Some(Arc::new(tls)),
        Err((file, what)) => {
            item.report(
                item.fault(format!("`{}`: {}: {what}", item.path, file.display()))
                    .help("give PEM files: the chain with the server's certificate first, and its key"),
            );
            None
        }
    }
}

fn tokens(item: &Item<'_>) -> Vec<Token> {
    let Some(list) = item.array() else { return Vec::new() };
    if list.len() > MAX_TOKENS {
        item.report(item.fault(format!("`{}`: {} tokens, more than {MAX_TOKENS}", item.path, list.len())));
        return Vec::new();
    }
    let mut tokens: Vec<Token> = Vec::new();
    for item in list {
        let Some(token) = item.table().and_then(|table| token(&item, table)) else { continue };
        if let Some(same) = tokens.iter().find(|known| known.sha256 == token.sha256) {
            let fault = item.key_fault(format!("{} and {} have one token", same.name, token.name));
            item.report(fault.rule("a token tells who did what").help("make another with `meridian token`"));
            continue;
        }
        tokens.push(token);
    }
    tokens
}

fn token(item: &Item<'_>, mut table: Table<'_>) -> Option<Token> {
    let mut missing = Vec::new();
    let mut take = |key: &'static str| {
        let found = table.take(key);
        if found.is_none() {
            missing.push(key);
        }
        found
    };
    let (name, role, sum) = (take("name"), take("role"), take("sha256"));
    table.done();
    if !missing.is_empty() {
        let fault = item.key_fault(format!("`{}` has no `{}`", item.path, missing.join("`, no `")));
        item.file.report_missing(fault.help("`meridian token NAME --role operate` prints all the lines"));
    }
    let name = name.and_then(|item| named(&item));
    let role = role.and_then(|item| match item.string()? {
        "report" => Some(Role::Report),
        "read" => Some(Role::Read),
        "operate" => Some(Role::Operate),
        other => {
            let fault = item.fault(format!("`{}` is {other:?}, which is no role", item.path));
            item.report(fault.help("write \"report\", \"read\" or \"operate\""));
            None
        }
    });
    let sha256 = sum.and_then(|item| {
        let bytes = HEXLOWER_PERMISSIVE.decode(item.string()?.as_bytes()).ok();
        let sum = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        if sum.is_none() {
            let fault = item.fault(format!("`{}` is not 64 hexadecimal digits", item.path));
            item.report(
                fault
                    .rule("it is the SHA-256 sum of the token, not the token")
                    .help("take what `meridian token` prints, or of `printf %s TOKEN | sha256sum`"),
            );
        }
        sum
    });
    Some(Token { name: name?, role: role?, sha256: sha256? })
}

fn named(item: &Item<'_>) -> Option<Arc<str>> {
    let text = item.string()?;
    if let Err(what) = check_name(text) {
        item.report(item.fault(format!("`{}` is {text:?}: {what}", item.path)));
        return None;
    }
    Some(text.into())
}

/// Whether a token may have this name. Errors: why not.
pub fn check_name(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("names are 1 to {MAX_NAME} visible ASCII characters without blanks"));
    }
    if text == LOCAL {
        return Err(format!("{LOCAL} is who gives no token"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
