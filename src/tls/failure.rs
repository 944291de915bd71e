//! Why TLS with an upstream failed, by the side that has to fix it.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, OtherError};

use super::rejected::Rejected;

/// Maximum number of causes of an error that are searched.
const DEEPEST: usize = 16;
/// The alerts by which an upstream rejects the gate's client certificate.
const OF_CERTIFICATES: [AlertDescription; 9] = [
    AlertDescription::AccessDenied,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRequired,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
    AlertDescription::DecryptError,
    AlertDescription::UnknownCA,
    AlertDescription::UnsupportedCertificate,
];

/// Why TLS with an upstream failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TlsFailure {
    /// The label in `tidegate_tls_handshakes_total{side="upstream",result}` and in `error.type`.
    pub word: &'static str,
    /// The same as a sentence for a person.
    pub sentence: &'static str,
}

impl TlsFailure {
    /// The connection broke off without an alert.
    pub const NETWORK: Self = Self {
        word: "network",
        sentence: "the connection broke off during the handshake",
    };
    /// The handshake took too long.
    pub const TIMEOUT: Self = Self {
        word: "timeout",
        sentence: "the handshake took too long",
    };

    pub(super) fn of(error: &io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>());
        inner.map_or(Self::NETWORK, Self::of_tls)
    }

    /// The TLS failure that ended an established connection: in TLS 1.3 an upstream rejects the
    /// gate's certificate only after the handshake, so the first read returns the alert. `None` for
    /// a network error, or an error of another kind.
    ///
    /// `error` is the error of a read or write of a [`ClientStream`](super::ClientStream), or an
    /// error of an HTTP library with that error among its causes.
    pub fn in_error(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut next = Some(error);
        for _ in 0..DEEPEST {
            let here = next?;
            if let Some(tls) = here.downcast_ref::<Error>() {
                return Some(Self::of_tls(tls));
            }
            next = match here.downcast_ref::<io::Error>() {
                // The source of an I/O error skips the inner error itself.
                Some(error) => error.get_ref().map(|inner| inner as _),
                None => here.source(),
            };
            if next.is_none() {
                return Self::in_text(&here.to_string());
            }
        }
        None
    }

    /// Finds the failure in the text of an error: an HTTP/2 connection keeps only the text.
    fn in_text(text: &str) -> Option<Self> {
        let said = |alert: &&AlertDescription| Error::AlertReceived(**alert).to_string() == text;
        let alert = OF_CERTIFICATES.iter().find(said)?;
        Some(Self::of_tls(&Error::AlertReceived(*alert)))
    }

    pub(super) fn new(word: &'static str, sentence: &'static str) -> Self {
        Self { word, sentence }
    }

    fn of_tls(error: &Error) -> Self {
        let (word, sentence) = match error {
            Error::InvalidCertificate(why) => certificate(why),
            Error::AlertReceived(alert) => alert_received(*alert),
            Error::NoCertificatesPresented => {
                ("no_certificate", "the upstream shows no certificate")
            }
            Error::InvalidMessage(_) => ("not_tls", "the upstream does not speak TLS"),
            Error::PeerIncompatible(_) => (
                "version",
                "the upstream speaks no version of TLS that is allowed",
            ),
            _ => ("failed", "TLS with the upstream failed"),
        };
        Self::new(word, sentence)
    }
}

const INVALID: (&str, &str) = (
    "certificate_invalid",
    "the upstream's certificate is not valid",
);

fn certificate(why: &CertificateError) -> (&'static str, &'static str) {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "certificate_expired",
            "the upstream's certificate has expired",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "certificate_not_yet_valid",
            "the upstream's certificate is not valid yet: compare both clocks",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "certificate_name",
            "the upstream's certificate is for another name",
        ),
        CertificateError::UnknownIssuer => (
            "certificate_unknown_issuer",
            "no trusted root has signed the upstream's certificate",
        ),
        // The authority was found by its name, but another key signed the certificate.
        CertificateError::BadSignature => (
            "certificate_signature",
            "the upstream's certificate has a wrong signature: its authority may have a new key",
        ),
        CertificateError::Revoked => (
            "certificate_revoked",
            "the upstream's certificate is revoked",
        ),
        CertificateError::Other(OtherError(why)) => match why.downcast_ref::<Rejected>() {
            Some(rejected) => (rejected.word, rejected.sentence),
            None => INVALID,
        },
        _ => INVALID,
    }
}
fn alert_received(alert: AlertDescription) -> (&'static str, &'static str) {
    match alert {
        AlertDescription::CertificateRequired => (
            "client_certificate_required",
            "the upstream wants a client certificate: name one in `[upstream.NAME]`",
        ),
        AlertDescription::CertificateRevoked => (
            "client_certificate_revoked",
            "the upstream says that our client certificate is revoked",
        ),
        AlertDescription::CertificateExpired => (
            "client_certificate_expired",
            "the upstream says that our client certificate has expired",
        ),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => (
            "client_certificate_rejected",
            "the upstream refuses our client certificate",
        ),
        AlertDescription::ProtocolVersion => (
            "version",
            "the upstream speaks no version of TLS that is allowed",
        ),
        AlertDescription::UnrecognisedName => {
            ("unrecognized_name", "the upstream does not know the name")
        }
        AlertDescription::HandshakeFailure => (
            "handshake_failure",
            "the upstream ended the handshake: it may want a client certificate, or other ciphers",
        ),
        _ => ("alert", "the upstream ended TLS with an alert"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(inner: impl Into<Box<dyn StdError + Send + Sync>>) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, inner)
    }

    #[test]
    fn a_rejected_certificate_is_no_fault_of_the_network() {
        let word = |error: &io::Error| TlsFailure::in_error(error).map(|failure| failure.word);
        let revoked = Error::AlertReceived(AlertDescription::CertificateRevoked);
        let expected = Some("client_certificate_revoked");
        assert_eq!(word(&io(revoked.clone())), expected);
        assert_eq!(word(&io(io(revoked.clone()))), expected);
        // The text that HTTP/2 keeps of the error.
        assert_eq!(word(&io(io(revoked).to_string())), expected);
        for network in [
            io::ErrorKind::ConnectionReset.into(),
            io::ErrorKind::UnexpectedEof.into(),
            io("peer closed connection without sending TLS close_notify"),
            io("the page says: received fatal alert: CertificateRevoked"),
        ] {
            assert_eq!(word(&network), None, "{network}");
        }
    }

    #[test]
    fn every_alert_about_a_certificate_says_so() {
        for alert in OF_CERTIFICATES {
            let failure = TlsFailure::of_tls(&Error::AlertReceived(alert));
            assert!(failure.word.starts_with("client_certificate_"), "{alert:?}");
        }
    }
}
