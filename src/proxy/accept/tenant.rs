//! The session of a jail, as the caller of refusals by the jail itself: look-ups of names, and
//! connections without a listener.

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

/// The session of a jail.
pub(super) struct Tenancy {
    pub(super) shared: Arc<Shared>,
    /// The channel of a caller before its process is looked up.
    pub(super) channel: Arc<Channel>,
    /// The processes of the command.
    pub(super) family: Option<Arc<Family>>,
}

/// The result of recording a refusal.
pub(super) enum Outcome {
    /// The refusal is recorded. Contains the report for the agent.
    Recorded(Box<Refused>),
    /// The caller is over its rate of refusals, and this is recorded. Contains the slot of a
    /// delayed answer.
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

    /// The caller of a channel.
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

    /// Records that the jail refused a target, for the reason that `judge` returns.
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
        // The client received no status.
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
