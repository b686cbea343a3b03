//! A certification authority and a server certificate for this process. Neither is written anywhere, and only the
//! gateway itself trusts them. RFC 5280 §4.2.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub(super) struct Identity {
    pub ca: CertificateDer<'static>,
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

pub(super) fn generate(server_name: &str) -> Result<Identity, rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, "waxseal sandbox CA");
    let authority_key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?.der().clone();
    let issuer = Issuer::new(authority, authority_key);

    let mut server = CertificateParams::new(vec![server_name.to_owned()])?;
    server.distinguished_name.push(DnType::CommonName, server_name);
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let server_key = KeyPair::generate()?;
    let certificate = server.signed_by(&server_key, &issuer)?.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    Ok(Identity { ca, certificate, key })
}
