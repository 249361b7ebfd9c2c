//! TLS of the probes: which roots are trusted, and what a failed handshake means in few words.
//!
//! Certificates are verified as a viewer's player would: chain, validity, name. A private CA replaces the public roots.
//! Sessions are never resumed, since a resumed handshake does not look at the certificate.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::config::settings::PrivateCa;

/// One TLS configuration for the public roots and one for each private CA, shared by all targets that use it.
#[derive(Default)]
pub(super) struct Connectors {
    public: Option<TlsConnector>,
    private: HashMap<Arc<PrivateCa>, TlsConnector>,
}

impl Connectors {
    /// Errors: a certificate of the private CA that cannot be a trust anchor.
    pub(super) fn connector(&mut self, ca: Option<&Arc<PrivateCa>>) -> Result<TlsConnector, String> {
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
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.trim_end_matches('.').to_owned())
        .map_err(|_| format!("{host} can not be a TLS server name"))
}

/// What an I/O error of a TLS stream says, when TLS is what failed.
pub(super) fn cause(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(fault) => match fault {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "TLS: certificate expired".into(),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "TLS: certificate not valid yet".into()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "TLS: certificate is for another name".into()
            }
            CertificateError::UnknownIssuer => "TLS: certificate of an unknown issuer".into(),
            CertificateError::BadSignature => "TLS: certificate with a wrong signature".into(),
            other => format!("TLS: certificate: {other}"),
        },
        rustls::Error::AlertReceived(alert) => format!("TLS: alert {alert:?}"),
        rustls::Error::InvalidMessage(_) => "TLS: the answer is not TLS".into(),
        other => format!("TLS: {other}"),
    })
}
