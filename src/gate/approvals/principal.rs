//! The person who settles a request, and the evidence for that person.

use std::sync::Arc;

use crate::ledger::Voter;
use crate::policy::{Facts, Policy, TierId};

/// A principal who may settle requests. The evidence is the connection: the user of a process at a
/// Unix socket, a client certificate, or a token of an issuer. A session token is no evidence:
/// agents have session tokens.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Principal {
    /// The user of the process at the other end of a Unix socket (`SO_PEERCRED`).
    pub uid: Option<u32>,
    /// The verified name of a certificate or a token.
    pub subject: Option<Arc<str>>,
    /// Claims of a verified token, for the members of groups.
    pub claims: Vec<(Arc<str>, Arc<str>)>,
    /// Subject alternative names of a verified certificate.
    pub sans: Vec<Arc<str>>,
    /// Groups named by a verified token.
    pub groups: Vec<Arc<str>>,
    /// Whether it is the first reader of the tier, a program of the operator. It can only deny.
    pub is_first_reader: bool,
}

impl Principal {
    /// The entry of a tier's `reviewers` that matches; `None`: the principal may not settle.
    pub fn named(&self, policy: &Policy, tier: TierId) -> Option<Arc<str>> {
        let facts = Facts {
            subject: self.subject.as_deref().unwrap_or_default(),
            claims: &self.claims,
            sans: &self.sans,
            groups: &self.groups,
            ..Facts::default()
        };
        policy.reviewer(tier, self.uid, &facts).cloned()
    }

    /// The principal as the ledger has it.
    pub(super) fn voter(&self) -> Voter {
        let texts = |all: &[Arc<str>]| all.iter().map(ToString::to_string).collect();
        let claims = self.claims.iter();
        Voter {
            name: self.name().to_string(),
            uid: self.uid,
            subject: self.subject.as_deref().map(str::to_owned),
            claims: claims
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            sans: texts(&self.sans),
            groups: texts(&self.groups),
        }
    }

    /// The principal of a vote in the ledger.
    pub(super) fn of(voter: &Voter) -> Self {
        let texts = |all: &[String]| all.iter().map(|it| it.as_str().into()).collect();
        let claims = voter.claims.iter();
        Self {
            uid: voter.uid,
            subject: voter.subject.as_deref().map(Into::into),
            claims: claims
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect(),
            sans: texts(&voter.sans),
            groups: texts(&voter.groups),
            is_first_reader: false,
        }
    }

    /// The name for records and people: `uid:0`, or the subject.
    pub fn name(&self) -> Arc<str> {
        if self.is_first_reader {
            return "first-reader".into();
        }
        match (&self.subject, self.uid) {
            (Some(subject), _) => format!("subject:{subject}").into(),
            (None, Some(uid)) => format!("uid:{uid}").into(),
            (None, None) => "unknown".into(),
        }
    }
}
