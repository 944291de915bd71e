//! The outcome of a flow, including its tunnel.

use std::sync::Arc;

use crate::policy::compiled::Policy;
use crate::policy::exception::InForce;
use crate::policy::facts::Inspect;
use crate::policy::query::{Attempt, Query};
use crate::policy::regions::Point;
use crate::policy::verdict::{Decision, Verdict};

/// The tunnel that a request over TLS goes through, in one policy.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Tunnel {
    pub(in crate::policy) decision: Arc<Decision>,
    /// Whether the requests inside are judged.
    pub(in crate::policy) is_inspected: bool,
}

/// The outcome of a flow in one policy.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Outcome {
    /// The decision: of the tunnel, if it does not pass or is not inspected; otherwise of the
    /// request.
    pub(in crate::policy) decision: Arc<Decision>,
    /// Whether the decision is about the tunnel of a request.
    pub(in crate::policy) by_tunnel: bool,
    /// Whether a tunnel may begin with an encrypted client hello.
    pub(in crate::policy) ech: bool,
}

impl Tunnel {
    pub(super) fn new(decision: Decision) -> Self {
        Self {
            is_inspected: decision.inspect == Inspect::Yes,
            decision: Arc::new(decision),
        }
    }
}

impl Outcome {
    /// Returns the outcome of one flow, with exceptions in force.
    pub(in crate::policy) fn of_point(
        policy: &Policy,
        point: &Point,
        live: Option<InForce<'_>>,
    ) -> Self {
        let decide = || policy.decide_with(&point.query(), live);
        if !point.request.as_ref().is_some_and(|request| request.tls) {
            return Self::of(decide());
        }
        let tunnel = Query {
            who: &point.who,
            target: &point.target,
            attempt: Attempt::Connect,
        };
        let tunnel = Tunnel::new(policy.decide_with(&tunnel, live));
        Self::within(&tunnel, decide)
    }

    /// The outcome of a tunnel, or of a request in plain HTTP.
    pub(super) fn of(decision: Decision) -> Self {
        Self {
            decision: Arc::new(decision),
            by_tunnel: false,
            ech: false,
        }
    }

    /// The outcome of a request through a tunnel.
    pub(super) fn within(tunnel: &Tunnel, request: impl FnOnce() -> Decision) -> Self {
        let by_tunnel = Self {
            decision: tunnel.decision.clone(),
            by_tunnel: true,
            ech: false,
        };
        if !tunnel.is_inspected {
            return by_tunnel;
        }
        let request = request();
        if ruled(&tunnel.decision) > ruled(&request) {
            return by_tunnel;
        }
        Self::of(request)
    }

    /// Returns the verdict of the rules. In `observe` mode a flow passes all the same.
    pub(in crate::policy) fn ruled(&self) -> Verdict {
        ruled(&self.decision)
    }
}

fn ruled(decision: &Decision) -> Verdict {
    decision.would.unwrap_or(decision.verdict)
}
