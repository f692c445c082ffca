//! The authority of one sandbox: its certificate is trusted in that sandbox alone, and its key never leaves this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::NoServerSessionStorage;

use super::lock;
use crate::domain::base64;

/// Hosts whose certificates are kept; with more, all are made anew.
const MOST_KEPT: usize = 64;
/// The only protocol that is spoken where TLS is ended.
pub(super) const ALPN: &[u8] = b"http/1.1";

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuthorityError {
    #[error("a certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    #[error("a certificate cannot be used")]
    Tls(#[from] rustls::Error),
}

pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    servers: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

impl Authority {
    /// With a fresh key. It is valid for as long as anybody asks: it lives in memory, and ends with its sandbox.
    pub(super) fn make() -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Cloister, for one sandbox");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer, servers: Mutex::default() })
    }

    /// Its certificate as PEM (RFC 7468).
    pub(super) fn pem(&self) -> String {
        let text = base64::encode(self.issuer.der());
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for (at, letter) in text.char_indices() {
            if at > 0 && at % 64 == 0 {
                pem.push('\n');
            }
            pem.push(letter);
        }
        pem + "\n-----END CERTIFICATE-----\n"
    }

    /// The server's end of TLS for a host, a name or an address.
    pub(super) fn server(&self, host: &str) -> Result<Arc<ServerConfig>, AuthorityError> {
        if let Some(kept) = lock(&self.servers).get(host) {
            return Ok(Arc::clone(kept));
        }
        let made = Arc::new(self.make_server(host)?);
        let mut servers = lock(&self.servers);
        if servers.len() >= MOST_KEPT {
            servers.clear();
        }
        servers.insert(host.to_owned(), Arc::clone(&made));
        Ok(made)
    }

    fn make_server(&self, host: &str) -> Result<ServerConfig, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.distinguished_name = named(host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions()?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let chain = vec![certificate.der().clone()];
        let mut server = builder.with_no_client_auth().with_single_cert(chain, key.into())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // One request for each connection, and a sandbox makes few: nothing is worth remembering.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(server)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut made = DistinguishedName::new();
    // A common name has room for 64 characters (RFC 5280, ub-common-name); what counts is the alternative name.
    made.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    made
}
