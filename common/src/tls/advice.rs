//! What to do about a connection that TLS did not let come about.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, Error as TlsFailure};

/// Tells what to do, where `error` or one of its causes is a failure of TLS.
pub fn advice(error: &(dyn Error + 'static)) -> Option<String> {
    let failure = find(error)?;
    Some(match failure {
        TlsFailure::InvalidCertificate(problem) => about_certificate(problem),
        // The other side answers in plain text, or another program listens there.
        TlsFailure::InvalidMessage(_) => "what listens there does not speak TLS: begin the URL \
             with http:// (nats:// for NATS), or switch TLS on there"
            .to_owned(),
        TlsFailure::AlertReceived(AlertDescription::ProtocolVersion)
        | TlsFailure::PeerIncompatible(_) => {
            format!("no version of TLS fits both sides ({failure}): 1.2 or newer is needed")
        }
        other => format!("TLS failed: {other}"),
    })
}

fn about_certificate(problem: &CertificateError) -> String {
    match problem {
        // An authority of the same name, with another key, gives the second.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not of an authority that counts \
             here: name the file with the authority's certificate (rovicli: --ca-file or \
             ROVI_CA_FILE; services: tls.ca_file)"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("its certificate has expired ({problem}): whoever runs it has to renew it")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("its certificate does not count yet ({problem}): look at the clocks of both")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "its certificate is for another name ({problem}): use a URL with a name that it \
                 has, or have one made for this name"
            )
        }
        other => format!("its certificate is refused: {other}"),
    }
}

/// Finds the failure of TLS among the causes; I/O errors hide theirs.
fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsFailure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(failure) = error.downcast_ref::<TlsFailure>() {
            return Some(failure);
        }
        let hidden = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match hidden {
            Some(hidden) => Some(hidden as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_found_however_deep_it_lies_and_says_what_to_do() {
        let unknown = TlsFailure::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, unknown));
        let told = advice(&wrapped).unwrap();
        assert!(
            told.contains("--ca-file") && told.contains("tls.ca_file"),
            "{told}"
        );
        assert_eq!(advice(&io::Error::from(io::ErrorKind::BrokenPipe)), None);
    }
}
