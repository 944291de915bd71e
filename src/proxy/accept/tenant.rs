//! The session of a jail, as the caller of what the jail itself refuses: look-ups of names, and
//! connections that nothing accepts.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::gate::{Delay, RateKey, Snapshot};
use crate::identity::{Channel, Family, Refused};
use crate::metrics::FlowKind;
use crate::name::Target;
use crate::proxy::Shared;
use crate::proxy::connection::rates;
use crate::proxy::flow::{Flow, Known};
use crate::proxy::refusal::Refusal;

/// Whose jail it is.
pub(super) struct Tenancy {
    pub(super) shared: Arc<Shared>,
    /// What is known of a caller before its process is looked up.
    pub(super) channel: Arc<Channel>,
    /// The processes of the command.
    pub(super) family: Option<Arc<Family>>,
}

/// What became of the record of a refusal.
pub(super) enum Outcome {
    /// It stands in the log; what the agent is told of it.
    Recorded(Box<Refused>),
    /// The caller is over its rate of refusals, which is on record; the place of an answer that waits.
    Limited(Option<Delay>),
    /// The log cannot be written.
    NotRecorded,
}

impl Tenancy {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
        let mut channel = Channel::plain(nowhere, nowhere);
        let tenant = shared.tenants.first().and_then(Option::as_ref);
        channel.grant = tenant.map(|tenant| tenant.grant.clone());
        let family = tenant.and_then(|tenant| tenant.family.clone());
        Self {
            shared,
            channel: Arc::new(channel),
            family,
        }
    }

    /// Who asks over a channel.
    pub(super) async fn known(&self, snapshot: &Snapshot, channel: &Arc<Channel>) -> Option<Known> {
        let listener = self.shared.listeners.first();
        let listener = snapshot.listener(listener.unwrap_or(&self.shared.unknown));
        let presented = snapshot.identity.present(&listener, channel, None);
        let presented = presented.await.ok()?;
        let caller = Arc::new(snapshot.caller(&presented)?);
        Some(Known {
            presented,
            caller,
            epoch: 0,
        })
    }

    /// Puts on record that the jail refused a target, for the reason that `judge` finds.
    pub(super) async fn refuse(
        &self,
        known: &Known,
        kind: FlowKind,
        target: &Target,
        judge: impl FnOnce(&mut Flow) -> Refusal,
    ) -> Outcome {
        let gate = &self.shared.gate;
        let begun = Flow::begin(gate, kind, Ipv4Addr::LOCALHOST.into());
        let Ok(mut flow) = begun.await else {
            return Outcome::NotRecorded;
        };
        flow.aim(target.clone());
        flow.identified(&known.caller);
        flow.note_checkout(&known.caller).await;
        let key = known.caller.key(Ipv4Addr::LOCALHOST.into());
        let rates = gate.rates.of(RateKey::of_caller(key, self.channel.local));
        let limited = rates::over_refusals(gate, &rates);
        let is_limited = limited.is_some();
        let refusal = limited.unwrap_or_else(|| judge(&mut flow));
        flow.refuse(&refusal);
        // The client was not sent a status.
        flow.facts.status = None;
        let failed = flow.recorded(&refusal).await.is_some();
        if is_limited {
            Outcome::Limited(rates.delay())
        } else if failed {
            Outcome::NotRecorded
        } else {
            Outcome::Recorded(Box::new(flow.refused_for_agent(refusal.code)))
        }
    }
}
