//! The rate limits of a caller: counts its connections and its refused flows.
//!
//! A caller over its rate is answered 429 after a short wait. Refusals do not limit flows that may
//! pass: an agent can still work while one of its programs floods the gate.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::gate::{CallerRates, Gate, RATE_LIMIT_DELAY, RateKey, RateKind};
use crate::identity::Caller;
use crate::proxy::flow::{Flow, Known};
use crate::proxy::refusal::{Code, Refusal};
use crate::record::Blame;

use super::Connection;

/// The buckets of the caller of a connection.
pub(in crate::proxy) struct ConnectionRates {
    caller: Option<Arc<Caller>>,
    rates: Arc<CallerRates>,
}

impl Connection {
    /// Counts a connection at its first request. Requests inside a tunnel are not counted: their
    /// connection was counted.
    pub(super) fn count_connection(&mut self, known: &Known) -> Result<(), Refusal> {
        let is_first = self.rates.as_ref().is_none_or(|it| it.caller.is_none());
        let is_same = |it: &ConnectionRates| {
            let caller = it.caller.as_ref();
            caller.is_some_and(|caller| Arc::ptr_eq(caller, &known.caller))
        };
        if self.rates.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let channel = &self.origin.channel;
        let key = known.caller.key(channel.peer.ip());
        let rates = self
            .gate()
            .rates
            .of(RateKey::of_caller(key, self.bound_address()));
        let caller = Some(known.caller.clone());
        let is_over =
            is_first && self.inside.is_none() && rates.take(RateKind::Connections).is_err();
        self.rates = Some(ConnectionRates { caller, rates });
        if is_over {
            self.gate()
                .metrics
                .rate_limited(RateKind::Connections.as_str());
            let detail = "more connections than `limits.connection-rate` allows";
            return Err(Refusal::because(Code::RateLimited, detail));
        }
        Ok(())
    }

    /// Counts a refusal, and delays its answer if the caller is over a rate. `Some`: the refusal
    /// that replaces it.
    pub(in crate::proxy) async fn limit_refusal(
        &mut self,
        flow: &Flow,
        refusal: &Refusal,
    ) -> Option<Refusal> {
        let is_over = refusal.code == Code::RateLimited;
        if !is_over && (!is_counted(refusal.code) || flow.open.is_some()) {
            return None;
        }
        let rates = self.caller_rates();
        if is_over {
            hold_back(self.gate(), &rates).await;
            return None;
        }
        let limited = over_refusals(self.gate(), &rates)?;
        hold_back(self.gate(), &rates).await;
        // A client without credentials has to receive the 407.
        (refusal.code != Code::IdentityRequired).then_some(limited)
    }

    /// The buckets of the caller; for an unidentified caller, of its address at this listener.
    fn caller_rates(&mut self) -> Arc<CallerRates> {
        if let Some(known) = &self.rates {
            return known.rates.clone();
        }
        let key = RateKey::of_address(self.origin.channel.peer.ip(), self.bound_address());
        let rates = self.gate().rates.of(key);
        self.rates = Some(ConnectionRates {
            caller: None,
            rates: rates.clone(),
        });
        rates
    }

    /// The bound address of the listener: a client can choose the address of this host that it
    /// connects to.
    fn bound_address(&self) -> SocketAddr {
        let bound = self.shared.listeners.get(self.origin.listener);
        bound.unwrap_or(&self.shared.unknown).address
    }
}

/// Counts one refusal; returns a 429 if there were too many.
pub(in crate::proxy) fn over_refusals(gate: &Gate, rates: &CallerRates) -> Option<Refusal> {
    rates.take(RateKind::Refusals).err()?;
    gate.metrics.rate_limited(RateKind::Refusals.as_str());
    let detail = "more refused flows than `limits.refusal-rate` allows";
    Some(Refusal::because(Code::RateLimited, detail))
}

/// Waits a moment, unless enough answers of this caller are waiting already.
pub(in crate::proxy) async fn hold_back(gate: &Gate, rates: &Arc<CallerRates>) {
    let Some(_delay) = rates.delay() else { return };
    tokio::select! {
        () = tokio::time::sleep(RATE_LIMIT_DELAY) => {}
        () = gate.draining.cancelled() => {}
    }
}

/// Whether the caller caused a refusal.
fn is_counted(code: Code) -> bool {
    matches!(code.blame(), Blame::Policy | Blame::Client)
}
