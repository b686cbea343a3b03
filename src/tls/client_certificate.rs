//! The certificate by which a server can recognise the gateway, and whether the server asked for one. Never shows the
//! private key. RFC 5280 §4.2.1, RFC 8446 §4.4.2.

use super::verify::date;
use super::{TlsError, certified};
use crate::text::cleaned;
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;

/// In seconds: from here on, the end of a certificate is worth a warning.
const SOON: i64 = 14 * 24 * 60 * 60;

/// A certificate as people recognise it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// As in "CN=gateway.example.com".
    pub subject: String,
    /// SHA-256 of the certificate: 32 octets in upper-case hexadecimal, with colons, as openssl and Postfix write it.
    pub fingerprint: String,
    /// `None`: not within the calendar.
    pub expires: Option<Timestamp>,
}

impl fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\", SHA-256 fingerprint {}", self.subject, self.fingerprint)
    }
}

/// A client certificate with its chain and its private key.
pub struct ClientIdentity {
    pub certificate: ClientCertificate,
    certified: Arc<CertifiedKey>,
}

impl ClientIdentity {
    /// `chain` begins with the client's own certificate.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        let mut subject = None;
        for (index, certificate) in chain.iter().enumerate() {
            let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
                .map_err(|error| TlsError::Certificate { number: index + 1, reason: error.to_string() })?;
            subject.get_or_insert_with(|| cleaned(&parsed.subject().to_string()));
        }
        let fingerprint = chain.first().map(|certificate| fingerprint(certificate)).unwrap_or_default();
        let expires = chain.first().and_then(expires);
        let certificate = ClientCertificate { subject: subject.unwrap_or_default(), fingerprint, expires };
        Ok(Self { certificate, certified: Arc::new(certified(chain, key)?) })
    }

    /// Why servers may refuse this certificate, and what to do. `now`: seconds since 1970.
    pub fn warnings(&self, now: i64) -> Vec<(String, &'static str)> {
        let parsed = self.certified.cert.first().and_then(|own| x509_parser::parse_x509_certificate(own).ok());
        let Some((_, parsed)) = parsed else { return Vec::new() };
        let mut warnings = Vec::new();
        let from = parsed.validity().not_before.timestamp();
        let until = parsed.validity().not_after.timestamp();
        if until < now {
            warnings.push((format!("the certificate expired on {}", date(until)), "renew it"));
        } else if until - now < SOON {
            warnings.push((format!("the certificate expires on {}", date(until)), "renew it in time"));
        }
        if from > now {
            let text = format!("the certificate is not valid before {}", date(from));
            warnings.push((text, "is this machine's clock right?"));
        }
        if !is_for_clients(&parsed) {
            let text = "the certificate is not meant for clients: its extended key usage lacks clientAuth";
            warnings.push((text.to_owned(), "servers that verify it will refuse it; reissue it with clientAuth"));
        }
        if !can_sign(&parsed) {
            let text = "the certificate's key usage lacks digitalSignature, which a client needs";
            warnings.push((text.to_owned(), "servers that verify it will refuse it; reissue it"));
        }
        warnings
    }
}

/// Without the key.
impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// When a certificate expires.
fn expires(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let octets: Vec<String> =
        digest(&SHA256, certificate).as_ref().iter().map(|octet| format!("{octet:02X}")).collect();
    octets.join(":")
}

/// RFC 5280 §4.2.1.12: without the extension, any use is allowed.
fn is_for_clients(certificate: &X509Certificate<'_>) -> bool {
    match certificate.extended_key_usage() {
        Ok(Some(usage)) => usage.value.client_auth || usage.value.any,
        Ok(None) | Err(_) => true,
    }
}

/// RFC 5280 §4.2.1.3.
fn can_sign(certificate: &X509Certificate<'_>) -> bool {
    match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.digital_signature(),
        Ok(None) | Err(_) => true,
    }
}

tokio::task_local! {
    /// Whether the handshake that runs in this task has asked for a certificate.
    static WAS_ASKED: Cell<bool>;
}

/// Runs a handshake and returns whether the server asked for a client certificate. A resumed session is not asked again.
pub async fn noting_request<T>(handshake: impl Future<Output = T>) -> (T, bool) {
    let noted = async {
        let result = handshake.await;
        (result, WAS_ASKED.with(Cell::get))
    };
    WAS_ASKED.scope(Cell::new(false), noted).await
}

/// Shows the certificate to every server that asks for one.
#[derive(Debug)]
pub(super) struct Presenter(Option<Arc<CertifiedKey>>);

impl Presenter {
    pub(super) fn of(identity: Option<&ClientIdentity>) -> Self {
        Self(identity.map(|identity| identity.certified.clone()))
    }
}

impl ResolvesClientCert for Presenter {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let _elsewhere = WAS_ASKED.try_with(|asked| asked.set(true));
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, date_time_ymd};

    /// A curve that TLS does not use.
    const SECP256K1: &str = "-----BEGIN EC PRIVATE KEY-----\n\
        MHQCAQEEIE9eZGE/vjaR0lmc5aA/K8FzLrg/mdpYFopXGC8FxbeVoAcGBSuBBAAK\n\
        oUQDQgAEY1UDypCBU/Dyz8rTnGwjYAXUZrT6GbwuXR+ZLmbJV5P4uzIk1iCnYlGm\n\
        bl4ylBX5xrB2Ypz4C5BrztfqDrYO4g==\n\
        -----END EC PRIVATE KEY-----";

    /// 2024-06-01.
    const NOW: i64 = 1_717_200_000;

    fn issued(adjust: impl FnOnce(&mut CertificateParams)) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["gateway.example.com".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2030, 1, 1));
        adjust(&mut params);
        let certificate = params.self_signed(&key).expect("a certificate");
        let key = crate::pem::private_key(key.serialize_pem().as_bytes()).expect("its key");
        (certificate.der().clone(), key)
    }

    #[test]
    fn what_servers_may_refuse_is_named() {
        use {ExtendedKeyUsagePurpose::*, KeyUsagePurpose::*};
        type Adjust = fn(&mut CertificateParams);
        let cases: [(Adjust, &[&str]); 9] = [
            (|_| {}, &[]),
            (|it| it.not_after = date_time_ymd(2024, 5, 31), &["expired on 2024-05-31"]),
            (|it| it.not_after = date_time_ymd(2024, 6, 10), &["expires on 2024-06-10"]),
            (|it| it.not_before = date_time_ymd(2025, 2, 3), &["not valid before 2025-02-03"]),
            (|it| it.extended_key_usages = vec![ServerAuth], &["lacks clientAuth"]),
            (|it| it.extended_key_usages = vec![ServerAuth, ClientAuth], &[]),
            (|it| it.extended_key_usages = vec![Any], &[]),
            (|it| it.key_usages = vec![KeyCertSign], &["lacks digitalSignature"]),
            (|it| it.key_usages = vec![DigitalSignature, KeyEncipherment], &[]),
        ];
        for (number, (adjust, expected)) in cases.into_iter().enumerate() {
            let (certificate, key) = issued(adjust);
            let warnings = ClientIdentity::new(vec![certificate], key).expect("an identity").warnings(NOW);
            let fits = warnings.iter().zip(expected).all(|((text, _), expected)| text.contains(expected));
            assert!(warnings.len() == expected.len() && fits, "{number}: {warnings:?}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_no_key_is_printed() {
        let (one, own) = issued(|_| {});
        let (_, other) = issued(|_| {});
        let refused = ClientIdentity::new(vec![one.clone()], other).expect_err("another key");
        assert!(matches!(refused, TlsError::KeyMismatch), "{refused}");
        let odd = crate::pem::private_key(SECP256K1.as_bytes()).expect("a key");
        let refused = ClientIdentity::new(vec![one.clone()], odd).expect_err("a key of another kind");
        assert!(matches!(refused, TlsError::UnsupportedKey), "{refused}");
        let identity = ClientIdentity::new(vec![one], own).expect("an identity");
        let shown = format!("{identity:?}");
        let fingerprint = &identity.certificate.fingerprint;
        assert!(shown.contains(fingerprint) && fingerprint.len() == 95 && !shown.contains("key"), "{shown}");
    }
}
