//! The gate's own requests, as flows of the caller `tidegate` in the record.

use std::sync::Arc;

use uuid::Uuid;

use crate::identity::{Deciding, FetchEnd, Journal, OpenFetch, OwnFetch, Refusing};
use crate::policy::{Action, Basis, Category, Mode};
use crate::record::{Blame, CloseFacts, End, FlowFacts, FlowRecord, Outcome, Permit, Recorder};

/// The caller of these flows in the records.
const USER: &str = "tidegate";
const CHANNEL: &str = "gate";

/// Records the fetches of one generation.
#[derive(Clone, Debug)]
pub(super) struct Fetches {
    pub(super) recorder: Recorder,
    pub(super) digest: Arc<str>,
    pub(super) generation: u64,
}

/// A permitted fetch. Dropped without an end, it is recorded as cancelled.
struct Open {
    facts: FlowRecord,
    /// Bytes of its body.
    sends: u64,
    permit: Option<Permit>,
}

impl Fetches {
    fn facts(&self, fetch: &OwnFetch) -> FlowFacts {
        let (method, category, action) = match fetch.sends {
            Some(_) => ("POST", Category::Unknown, Action::Write),
            None => ("GET", Category::Auth, Action::Read),
        };
        FlowFacts {
            flow: Uuid::now_v7(),
            outcome: Outcome::Allow,
            mode: Some(Mode::Enforce),
            reason: "allowed",
            rule: Some(fetch.rule.as_str().into()),
            policy_digest: Some(self.digest.clone()),
            policy_generation: self.generation,
            category: Some(category),
            category_basis: Some(Basis::Rule),
            action: Some(action),
            evidence: "none",
            trust: "none",
            user: Some(USER.into()),
            channel: Some(CHANNEL.into()),
            server_address: Some(fetch.target.host.text()),
            server_port: Some(fetch.target.port),
            dns_answers: (!fetch.answers.is_empty()).then(|| fetch.answers.clone()),
            protocol: Some("http"),
            method: Some(method.into()),
            ..FlowFacts::default()
        }
    }
}

impl Journal for Fetches {
    fn decided<'j>(&'j self, fetch: &'j OwnFetch) -> Deciding<'j> {
        Box::pin(async move {
            let mut facts = FlowRecord::from(self.facts(fetch));
            let mut permit = self.recorder.permit().await.ok()?;
            let written = permit.decided(&mut facts).await;
            let open = Box::new(Open {
                facts,
                sends: fetch.sends.unwrap_or_default(),
                permit: Some(permit),
            });
            if written.is_err() {
                open.close(Err("record_unavailable"));
                return None;
            }
            Some(open as Box<dyn OpenFetch>)
        })
    }

    fn refused<'j>(&'j self, fetch: &'j OwnFetch, code: &'static str) -> Refusing<'j> {
        Box::pin(async move {
            let Ok(permit) = self.recorder.permit().await else {
                return;
            };
            let mut facts = self.facts(fetch);
            facts.reason = code;
            facts.outcome = match code {
                "address_denied" => Outcome::Deny,
                _ => Outcome::Error,
            };
            // No client waits for an answer: if the log fails, its health reports the failure.
            let _ = permit.refused(&facts).await;
        })
    }
}

impl OpenFetch for Open {
    fn close(mut self: Box<Self>, end: FetchEnd) {
        self.end(match end {
            Ok(bytes) => CloseFacts {
                end: End::Closed,
                bytes_out: self.sends,
                bytes_in: bytes,
                requests: 1,
                ..CloseFacts::default()
            },
            Err(code) => CloseFacts {
                end: End::Failed,
                blame: Some(Blame::Upstream),
                error: Some(code),
                ..CloseFacts::default()
            },
        });
    }
}

impl Open {
    fn end(&mut self, close: CloseFacts) {
        if let Some(permit) = self.permit.take() {
            permit.closed(&self.facts, &close);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(CloseFacts {
            end: End::Cancelled,
            blame: Some(Blame::Client),
            ..CloseFacts::default()
        });
    }
}
