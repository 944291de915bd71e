//! Why there is no TLS with an upstream, told apart so that a person knows whom to ask.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// Why there is no TLS with an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TlsFailure {
    /// A word of `tidegate_tls_handshakes_total{side="upstream",result}` and of `error.type`.
    pub word: &'static str,
    /// The same, for a person.
    pub sentence: &'static str,
}

impl TlsFailure {
    /// The connection broke off: no word about TLS.
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
        Self::in_error(error).unwrap_or(Self::NETWORK)
    }

    /// What TLS says in an error of an established stream: in TLS 1.3 a server that does not take
    /// our certificate says so only after the handshake.
    pub fn in_error(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref()?.downcast_ref::<Error>()?;
        Some(Self::of_tls(inner))
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
            _ => ("failed", "the handshake failed"),
        };
        Self::new(word, sentence)
    }
}

fn certificate(why: &CertificateError) -> (&'static str, &'static str) {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "certificate_expired",
            "the upstream's certificate has expired",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "certificate_name",
            "the upstream's certificate is for another name",
        ),
        CertificateError::UnknownIssuer => (
            "certificate_unknown_issuer",
            "no root that is trusted vouches for the upstream's certificate",
        ),
        CertificateError::Revoked => (
            "certificate_revoked",
            "the upstream's certificate is revoked",
        ),
        _ => (
            "certificate_invalid",
            "the upstream's certificate is not valid",
        ),
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
        | AlertDescription::AccessDenied => (
            "client_certificate_rejected",
            "the upstream does not take our client certificate",
        ),
        AlertDescription::ProtocolVersion => (
            "version",
            "the upstream speaks no version of TLS that is allowed",
        ),
        AlertDescription::UnrecognisedName => {
            ("unrecognized_name", "the upstream does not know the name")
        }
        _ => ("alert", "the upstream ended the handshake with an alert"),
    }
}
