//! An authority of one's own and the certificates that it makes, for who has none of the company's.
//!
//! Keys are ECDSA on P-256, which everything that speaks TLS 1.2 understands.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;
use x509_cert::der::{DecodePem, asn1::Utf8StringRef};

use crate::credentials::write_secret;

const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const COMMON_NAME: &str = "2.5.4.3";

/// From when to when a certificate counts, in seconds since 1970.
pub type Counts = Range<i64>;

/// Who signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key, which only its owner may read.
    pub key: PathBuf,
}

impl Authority {
    /// Makes an authority and writes its certificate and key into a folder.
    ///
    /// # Errors
    /// There is one already, or nothing can be written.
    pub fn make(folder: &Path, name: &str, counts: &Counts) -> Result<(Self, Written)> {
        let written = Written {
            cert: folder.join(CA_CERT),
            key: folder.join(CA_KEY),
        };
        for file in [&written.cert, &written.key] {
            let shown = file.display();
            ensure!(
                !file.exists(),
                "{shown} exists already; what it certified would not count"
            );
        }
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let (params, key) = (params(name, counts)?, KeyPair::generate()?);
        let certificate = params.self_signed(&key)?;
        write(&written, &certificate.pem(), &key)?;
        let issuer = Issuer::new(params, key);
        Ok((Self { issuer }, written))
    }

    /// Reads the authority of a folder.
    ///
    /// # Errors
    /// There is none, or it was not made by [`Authority::make`].
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let file = folder.join(name);
            let advice = "`rovicli tls new-ca` makes an authority";
            fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}; {advice}", file.display()))
        };
        let name = common_name(&read(CA_CERT)?)
            .with_context(|| format!("{} is unusable", folder.join(CA_CERT).display()))?;
        let key = KeyPair::from_pem(&read(CA_KEY)?)
            .with_context(|| format!("{} is unusable", folder.join(CA_KEY).display()))?;
        // Only name and key of it go into what it signs.
        let params = params(&name, &(0..0))?;
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer })
    }

    /// Certifies a server under names and addresses, and writes certificate and key into a folder,
    /// in place of older ones of the same first name.
    ///
    /// # Errors
    /// A name cannot be one of a server, or nothing can be written.
    pub fn certify(&self, folder: &Path, names: &[String], counts: &Counts) -> Result<Written> {
        let first = names.first().context("a certificate needs a name")?;
        let is_name = |name: &String| !name.is_empty() && !name.contains(['/', ' ', ':', '\\']);
        for name in names {
            let is_address = name.parse::<std::net::IpAddr>().is_ok();
            ensure!(
                is_address || is_name(name),
                "{name:?} is no host name and no IP address"
            );
        }
        let mut params = CertificateParams::new(names.to_vec())?;
        (params.not_before, params.not_after) = span(counts)?;
        params.distinguished_name = distinguished(first);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let file = first.replace('*', "_");
        let written = Written {
            cert: folder.join(format!("{file}.pem")),
            key: folder.join(format!("{file}.key")),
        };
        write(&written, &certificate.pem(), &key)?;
        Ok(written)
    }
}

fn params(name: &str, counts: &Counts) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = span(counts)?;
    params.distinguished_name = distinguished(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn span(counts: &Counts) -> Result<(OffsetDateTime, OffsetDateTime)> {
    let time = |seconds| OffsetDateTime::from_unix_timestamp(seconds);
    let read = || Ok((time(counts.start)?, time(counts.end)?));
    read().map_err(|error: time::error::ComponentRange| anyhow!("so many days cannot be: {error}"))
}

/// Reads the name of an authority.
fn common_name(pem: &str) -> Result<String> {
    let certificate = x509_cert::Certificate::from_pem(pem)?;
    let parts = &certificate.tbs_certificate.subject.0;
    let mut parts = parts.iter().flat_map(|part| part.0.iter());
    let name = parts.find(|part| part.oid.to_string() == COMMON_NAME);
    let name = name.context("its subject has no common name")?;
    let name: Utf8StringRef<'_> = name.value.decode_as()?;
    Ok(name.as_str().to_owned())
}

/// Writes the key first: a service that looks in between keeps what it has and looks again.
fn write(written: &Written, cert: &str, key: &KeyPair) -> Result<()> {
    write_secret(&written.key, key.serialize_pem().trim_end())?;
    fs::write(&written.cert, cert)
        .with_context(|| format!("cannot write {}", written.cert.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn an_authority_that_was_kept_certifies_and_its_keys_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (_, ca) = Authority::make(folder.path(), "Acme Ü", &(0..1 << 31)).unwrap();
        let error = Authority::make(folder.path(), "again", &(0..1)).unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
        let authority = Authority::open(folder.path()).unwrap();
        assert_eq!(
            common_name(&fs::read_to_string(&ca.cert).unwrap()).unwrap(),
            "Acme Ü"
        );
        let names = ["*.acme.example".to_owned(), "10.0.0.7".to_owned()];
        let made = authority
            .certify(folder.path(), &names, &(0..1 << 31))
            .unwrap();
        assert!(made.cert.ends_with("_.acme.example.pem"), "{made:?}");
        for key in [&ca.key, &made.key] {
            assert_eq!(fs::metadata(key).unwrap().mode() & 0o777, 0o600);
        }
        // The right key and name signed it.
        let tls = rovi_common::tls::TlsSettings {
            cert_file: Some(made.cert),
            key_file: Some(made.key),
            ca_file: None,
        };
        assert!(rovi_common::tls::Tls::open(&tls).unwrap().is_some());
    }

    #[test]
    fn what_is_no_name_of_a_server_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Authority::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("rovicli tls new-ca"), "{error}");
        let (authority, _) = Authority::make(folder.path(), "a", &(0..1)).unwrap();
        for name in ["", "https://hub.example", "a/b", "a b"] {
            let made = authority.certify(folder.path(), &[name.to_owned()], &(0..1));
            assert!(made.is_err(), "{name}");
        }
    }
}
