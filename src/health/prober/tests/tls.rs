//! HTTPS: certificates that are right and wrong, and what the server gets to see.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::settings::PrivateCa;

pub(super) const HOST: &str = "live.stream.example";

/// A private CA for one test.
pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(super) settings: Arc<PrivateCa>,
}

impl Ca {
    pub(super) fn new() -> Ca {
        Ca::named("our own CA")
    }

    fn named(name: &str) -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        let settings = PrivateCa { file: "ca.pem".into(), certificates: vec![certificate] };
        Ca { issuer: Issuer::new(params, key), settings: Arc::new(settings) }
    }

    pub(super) fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.into()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        acceptor(certificate.der().clone(), key)
    }
}

fn acceptor(certificate: CertificateDer<'static>, key: KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Serves HTTPS; what it saw of each request, SNI and head, goes to the channel.
async fn https_server(acceptor: TlsAcceptor) -> (SocketAddr, mpsc::Receiver<(String, String)>) {
    let (sender, seen) = mpsc::channel(64);
    let address = server(move |stream, _| {
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let sni = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
            while let Some(head) = request(&mut stream).await {
                let _ = sender.try_send((sni.clone(), head));
                let _ = stream.write_all(OK).await;
            }
        }
    })
    .await;
    (address, seen)
}

pub(super) fn https(address: SocketAddr, ca: Option<&Ca>) -> Target {
    let http = HttpCheck { path: "/healthz".into(), host: HOST.into(), status: vec![], contains: Some("ok".into()) };
    let ca = ca.map(|ca| ca.settings.clone());
    // A handshake of a debug build on a busy machine takes its time.
    with(target(address, CheckKind::Https { http, ca }), |check| (check.every, check.timeout) = (ms(500), ms(400)))
}

/// The verdict of a check by `ca` on a server that shows the certificate of `acceptor`.
async fn shown(acceptor: TlsAcceptor, ca: Option<&Ca>) -> (Verdict, String) {
    first_verdict(https(https_server(acceptor).await.0, ca)).await
}

#[tokio::test]
async fn a_certificate_of_the_private_ca_is_good_and_the_server_sees_sni_and_host() {
    let ca = Ca::new();
    let (address, mut seen) = https_server(ca.sign(HOST, |_| {})).await;
    let mut watched = Watched::up(https(address, Some(&ca))).await;
    let (sni, head) = seen.recv().await.unwrap();
    assert_eq!(sni, HOST);
    assert!(head.to_lowercase().contains("\r\nhost: live.stream.example\r\n"), "{head}");
    watched.quiet_until(Kind::Success, 4).await;
    assert_eq!(watched.stats().connects(), 1, "kept alive");
}

#[tokio::test]
async fn a_final_dot_of_the_host_goes_neither_into_sni_nor_into_host() {
    let ca = Ca::new();
    let (address, mut seen) = https_server(ca.sign(HOST, |_| {})).await;
    let mut target = https(address, Some(&ca));
    let CheckKind::Https { http, .. } = &mut Arc::make_mut(&mut target.check).kind else { unreachable!() };
    http.host += ".";
    let _watched = Watched::up(target).await;
    let (sni, head) = seen.recv().await.unwrap();
    assert_eq!(sni, HOST);
    assert!(head.contains(": live.stream.example\r\n"), "{head}");
}

#[tokio::test]
async fn a_wildcard_certificate_covers_the_host() {
    let ca = Ca::new();
    assert_eq!(shown(ca.sign("*.stream.example", |_| {}), Some(&ca)).await.0, Verdict::Up);
}

#[tokio::test]
async fn an_expired_certificate_is_down() {
    let ca = Ca::new();
    let expired = ca.sign(HOST, |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    assert_eq!(shown(expired, Some(&ca)).await, down("TLS: certificate expired"));
}

#[tokio::test]
async fn a_certificate_of_the_future_is_down() {
    let ca = Ca::new();
    let future = ca.sign(HOST, |params| params.not_before = date_time_ymd(3000, 1, 1));
    assert_eq!(shown(future, Some(&ca)).await, down("TLS: certificate not valid yet"));
}

#[tokio::test]
async fn every_new_connection_looks_at_the_certificate_anew() {
    let ca = Ca::new();
    let (sender, mut kinds) = mpsc::channel(64);
    let acceptor = ca.sign(HOST, |_| {});
    let address = server(move |stream, _| {
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = sender.try_send(stream.get_ref().1.handshake_kind());
            if request(&mut stream).await.is_some() {
                let _ = stream.write_all(OK).await;
                let _ = stream.shutdown().await;
            }
        }
    })
    .await;
    let mut watched = Watched::up(https(address, Some(&ca))).await;
    watched.quiet_until(Kind::Success, 4).await;
    for connection in 0..4 {
        assert_eq!(kinds.recv().await.flatten(), Some(HandshakeKind::Full), "connection {connection}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_down() {
    let ca = Ca::new();
    let other = ca.sign("other.example", |_| {});
    assert_eq!(shown(other, Some(&ca)).await, down("TLS: certificate is for another name"));
}

#[tokio::test]
async fn an_unknown_ca_is_down_whether_we_trust_the_public_roots_or_another_private_ca() {
    let (ca, stranger) = (Ca::new(), Ca::named("a stranger"));
    let unknown = down("TLS: certificate of an unknown issuer");
    assert_eq!(shown(ca.sign(HOST, |_| {}), None).await, unknown);
    assert_eq!(shown(ca.sign(HOST, |_| {}), Some(&stranger)).await, unknown);
    let impostor = Ca::new();
    let forged = down("TLS: certificate with a wrong signature");
    assert_eq!(shown(impostor.sign(HOST, |_| {}), Some(&ca)).await, forged);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![HOST.into()]).unwrap().self_signed(&key).unwrap();
    assert_eq!(shown(acceptor(certificate.der().clone(), key), Some(&ca)).await, unknown);
}

/// A certificate that signs itself, as the server's own and as `ca`.
fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> (Ca, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![HOST.into()]).unwrap();
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let settings = PrivateCa { file: "ca.pem".into(), certificates: vec![certificate.to_vec()] };
    let server = acceptor(certificate, KeyPair::from_pem(&key.serialize_pem()).unwrap());
    (Ca { issuer: Issuer::new(params, key), settings: Arc::new(settings) }, server)
}

#[tokio::test]
async fn a_self_signed_certificate_as_ca_is_good_unless_it_is_marked_as_a_ca() {
    let (ca, server) = self_signed(|params| params.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(shown(server, Some(&ca)).await.0, Verdict::Up);
    let (ca, server) = self_signed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let (verdict, cause) = shown(server, Some(&ca)).await;
    assert_eq!(verdict, Verdict::Down);
    assert_eq!(
        cause,
        "TLS: the server presents a CA's own certificate; issue one for the server, marked CA:FALSE, and let `ca` name \
         what signed it"
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_in_words() {
    let ca = Ca::new();
    let nameless = ca.sign(HOST, |params| params.subject_alt_names.clear());
    let words = down("TLS: certificate names no host; issue one with a subjectAltName");
    assert_eq!(shown(nameless, Some(&ca)).await, words);
    let client = ca.sign(HOST, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let words = down("TLS: certificate is not for servers; issue one whose extendedKeyUsage has serverAuth");
    assert_eq!(shown(client, Some(&ca)).await, words);
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_down() {
    let address = server(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    assert_eq!(first_verdict(https(address, None)).await, down("TLS: the answer is not TLS"));
}

#[tokio::test]
async fn tls_on_the_plain_http_port_is_down() {
    let ca = Ca::new();
    let (address, _seen) = https_server(ca.sign(HOST, |_| {})).await;
    assert_eq!(first_verdict(http(address)).await.0, Verdict::Down);
}

#[tokio::test]
async fn a_tls_alert_is_a_hard_failure() {
    let ca = Ca::new();
    // A fatal alert, unrecognized_name (RFC 6066 §3, RFC 8446 §6).
    let address = server(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70]).await;
    })
    .await;
    assert_eq!(first_verdict(https(address, Some(&ca))).await, down("TLS: alert UnrecognisedName"));
}

#[tokio::test]
async fn a_server_that_closes_in_the_handshake_is_down() {
    let address = server(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    assert_eq!(first_verdict(https(address, None)).await, down("closed during the TLS handshake"));
}

#[tokio::test]
async fn a_server_that_hangs_in_the_handshake_is_down_by_silence() {
    let address = server(|stream, _| async move {
        sleep(PLENTY).await;
        drop(stream);
    })
    .await;
    assert_eq!(first_verdict(https(address, None)).await, down("no answer in 400ms"));
}

#[tokio::test]
async fn a_file_that_is_no_ca_is_our_fault_and_counts_as_up() {
    let ca = Arc::new(PrivateCa { file: "ca.pem".into(), certificates: vec![b"not DER".to_vec()] });
    let http = HttpCheck { path: "/".into(), host: HOST.into(), status: vec![], contains: None };
    let watched = Watched::new(&[target(nobody().await, CheckKind::Https { http, ca: Some(ca) })]);
    assert_eq!(watched.prober.first_round(PLENTY).await, 0);
    let stats = watched.stats();
    assert_eq!(stats.verdict(), Verdict::Unknown);
    assert!(stats.last_cause().unwrap().starts_with("ca.pem: "), "{stats:?}");
}
