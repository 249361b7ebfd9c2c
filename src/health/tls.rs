//! TLS of the probes: which roots are trusted, and what a failed handshake means in few words.
//!
//! Certificates are verified as a viewer's player would: chain, validity, name. A private CA replaces the public roots.
//! Sessions are never resumed, since a resumed handshake does not look at the certificate.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, OtherError, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::config::settings::PrivateCa;

/// One TLS configuration for the public roots and one for each private CA, shared by all targets that use it.
#[derive(Default)]
pub(crate) struct Connectors {
    public: Option<TlsConnector>,
    private: HashMap<Arc<PrivateCa>, TlsConnector>,
}

impl Connectors {
    /// Errors: a certificate of the private CA that cannot be a trust anchor.
    pub(crate) fn connector(&mut self, ca: Option<&Arc<PrivateCa>>) -> Result<TlsConnector, String> {
        let Some(ca) = ca else {
            let public = self
                .public
                .get_or_insert_with(|| connector(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }));
            return Ok(public.clone());
        };
        if let Some(known) = self.private.get(ca) {
            return Ok(known.clone());
        }
        let mut roots = RootCertStore::empty();
        for der in &ca.certificates {
            roots
                .add(CertificateDer::from(der.clone()))
                .map_err(|error| format!("{}: not usable as a CA: {error}", ca.file.display()))?;
        }
        let new = connector(roots);
        self.private.insert(ca.clone(), new.clone());
        Ok(new)
    }

    /// Forgets the private CAs that nobody else holds any more.
    pub(super) fn tidy(&mut self) {
        self.private.retain(|ca, _| Arc::strong_count(ca) > 1);
    }
}

fn connector(roots: RootCertStore) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// The name to ask for (SNI) and to find in the certificate. SNI has no final dot (RFC 6066 §3).
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.trim_end_matches('.').to_owned())
        .map_err(|_| format!("{host} can not be a TLS server name"))
}

/// What an I/O error of a TLS stream says, when TLS is what failed.
pub(crate) fn cause(error: &io::Error) -> Option<String> {
    use rustls::Error::*;
    let said = match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        InvalidCertificate(fault) => match certificate(fault) {
            Some(said) => said.into(),
            None => format!("certificate: {fault}"),
        },
        NoCertificatesPresented => "the server presents no certificate".into(),
        AlertReceived(alert) => match refusal(*alert) {
            Some(said) => format!("alert {alert:?}: {said}"),
            None => format!("alert {alert:?}"),
        },
        InvalidMessage(_) => "the answer is not TLS".into(),
        PeerIncompatible(why) => format!("nothing in common with the server: {why:?}"),
        PeerMisbehaved(why) => format!("the server breaks the protocol: {why:?}"),
        PeerSentOversizedRecord => "the server breaks the protocol: a record is too long".into(),
        other => other.to_string(),
    };
    Some(format!("TLS: {said}"))
}

/// What is wrong with a certificate, and how to mend what is not plain from that. `None`: nothing better than rustls's
/// own words.
fn certificate(fault: &CertificateError) -> Option<&'static str> {
    use CertificateError::*;
    Some(match fault {
        Expired | ExpiredContext { .. } => "certificate expired",
        NotValidYet | NotValidYetContext { .. } => "certificate not valid yet",
        NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "certificate names no host; issue one with a subjectAltName"
        }
        NotValidForName | NotValidForNameContext { .. } => "certificate is for another name",
        UnknownIssuer => "certificate of an unknown issuer",
        BadSignature => "certificate with a wrong signature",
        BadEncoding => "certificate is malformed",
        Revoked => "certificate is revoked",
        UnhandledCriticalExtension => UNKNOWN_EXTENSION,
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "certificate is not for servers; issue one whose extendedKeyUsage has serverAuth"
        }
        UnsupportedSignatureAlgorithmContext { .. } | UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "certificate signed by an algorithm that is not supported, SHA-1 for example"
        }
        Other(OtherError(fault)) => chain(fault.downcast_ref()?)?,
        _ => return None,
    })
}

const UNKNOWN_EXTENSION: &str = "certificate with a critical extension that is not supported";

/// The faults that rustls has no words for.
fn chain(fault: &webpki::Error) -> Option<&'static str> {
    use webpki::Error::*;
    Some(match fault {
        CaUsedAsEndEntity => {
            "the server presents a CA's own certificate; issue one for the server, marked CA:FALSE, and let \
             `ca` name what signed it"
        }
        EndEntityUsedAsCa => "certificate signed by one that is no CA; issue it by a certificate marked CA:TRUE",
        PathLenConstraintViolated => "more intermediate certificates than a CA of the chain allows (pathlen)",
        NameConstraintViolation => "a CA of the chain may not issue for this name (nameConstraints)",
        UnsupportedCertVersion => "certificate is not of X.509 version 3; issue one with a subjectAltName",
        UnsupportedCriticalExtension => UNKNOWN_EXTENSION,
        MaximumPathDepthExceeded
        | MaximumPathBuildCallsExceeded
        | MaximumSignatureChecksExceeded
        | MaximumNameConstraintComparisonsExceeded => "certificate chain is too long or too tangled",
        EmptyEkuExtension
        | ExtensionValueInvalid
        | InvalidNetworkMaskConstraint
        | InvalidSerialNumber
        | MalformedDnsIdentifier
        | MalformedExtensions
        | MalformedNameConstraint
        | SignatureAlgorithmMismatch => "certificate is malformed",
        _ => return None,
    })
}

/// What a server means by an alert, where its name does not say it.
fn refusal(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::HandshakeFailure => "no cipher suite, group or signature in common",
        AlertDescription::ProtocolVersion => "the server wants neither TLS 1.2 nor 1.3",
        AlertDescription::CertificateRequired => "the server asks for a client certificate, which probes do not have",
        AlertDescription::NoApplicationProtocol => "the server does not offer HTTP/1.1",
        _ => return None,
    })
}
