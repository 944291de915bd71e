//! One numbered generation: the state built from a configuration.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::config::{AdminTls, Config, CredentialKey, Limits, Listener, Notifier, Workspaces};
use crate::dial::{Dialer, Programs};
use crate::identity::{Caller, Identity, Presented, Reach};
use crate::metrics::{GenerationMetrics, Metrics};
use crate::policy::{Decision, Exceptions, Guard, InForce, Policy, Query};
use crate::record::Recorder;
use crate::tls;

use super::approvals::Asks;
use super::fetches::Fetches;
use super::{Ages, Gate, Shadow};

/// Everything that a reload changes, immutable; a flow keeps the snapshot of its start.
#[derive(Debug)]
pub struct Snapshot {
    /// The number of the generation, from 1.
    pub generation: u64,
    /// SHA-256 over every text of the configuration.
    pub digest: Arc<str>,
    /// The file of the configuration; `None`: the built-in policy.
    pub config_file: Option<Arc<str>>,
    /// The compiled policy.
    pub policy: Policy,
    /// The shadow policy, whose decisions have no effect.
    pub shadow: Option<Arc<Shadow>>,
    /// The exceptions in force, swapped as a whole.
    pub exceptions: ArcSwap<Exceptions>,
    /// The maximum duration of an exception.
    pub max_exception: std::time::Duration,
    /// The clock by which exceptions end.
    pub clock: Clock,
    /// `[refusal]`: the contact text of refusals by the policy.
    pub contact: Option<Arc<str>>,
    /// Identifies callers.
    pub identity: Identity,
    /// The configured limits.
    pub limits: Limits,
    /// Dials targets.
    pub dialer: Arc<Dialer>,
    /// The addresses of the gate itself, which it never dials.
    pub guard: Arc<Guard>,
    /// Handles of metrics whose labels name tiers.
    pub metrics: Arc<GenerationMetrics>,
    /// The TLS configuration of the listeners.
    pub tls: tls::Servers,
    /// The TLS configuration towards upstreams.
    pub upstreams: tls::Upstreams,
    /// The authority for inspected destinations; `None`: nothing is inspected.
    pub authority: Option<Arc<tls::Authority>>,
    /// The key for hashing credentials; `None`: no rule names a credential.
    pub credentials: Option<CredentialKey>,
    /// Whether records name the paths of requests.
    pub records_paths: bool,
    /// The publication times of package versions.
    pub ages: Ages,
    /// The admin listener for other hosts.
    pub admin_tls: Option<Arc<AdminTls>>,
    /// Names by which clients reach an admin listener.
    pub admin_names: Arc<[Arc<str>]>,
    /// The programs that the gate may start, with the record of each start.
    pub programs: Programs,
    /// The receivers of notifications about new requests for approval.
    pub notifiers: Arc<[Notifier]>,
    /// The folders that are mapped to repositories.
    pub workspaces: Workspaces,
    /// The listeners of this generation, in the order in which they were bound.
    pub listeners: Vec<Arc<Listener>>,
}

/// The parts of a snapshot besides its configuration.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The generation before, whose caches are kept.
    pub before: Option<&'a Snapshot>,
    /// The addresses of the gate itself, which it never dials.
    pub guard: Arc<Guard>,
    /// All metrics.
    pub metrics: &'a Metrics,
    /// Writes the decision log.
    pub recorder: &'a Recorder,
    /// The TLS configuration of the listeners.
    pub tls: tls::Servers,
    /// The authority for inspected destinations.
    pub authority: Option<Arc<tls::Authority>>,
    /// The TLS configuration towards upstreams.
    pub upstreams: tls::Upstreams,
    /// The shadow policy, whose decisions have no effect.
    pub shadow: Option<Arc<Shadow>>,
    /// The clock.
    pub clock: Clock,
    /// The programs that the gate may start.
    pub programs: Programs,
    /// The dialer of the generation before, if its configuration has not changed.
    pub dialer: Option<Arc<Dialer>>,
}

impl Snapshot {
    /// Builds a generation of a configuration whose policy compiled.
    pub fn new(generation: u64, config: &Config, policy: Policy, parts: &Parts<'_>) -> Self {
        let before = parts.before;
        let new_dialer = || {
            Arc::new(Dialer::new(
                &config.dial,
                &config.limits,
                parts.clock.clone(),
                &parts.programs,
                before.map(|before| &*before.dialer),
            ))
        };
        let dialer = parts.dialer.clone().unwrap_or_else(new_dialer);
        let reach = Reach {
            dialer: dialer.clone(),
            guard: parts.guard.clone(),
            metrics: parts.metrics.clone(),
            journal: Arc::new(Fetches {
                recorder: parts.recorder.clone(),
                digest: config.digest.clone(),
                generation,
            }),
        };
        let authority = parts.authority.as_ref().map(|new| {
            new.count_in(parts.metrics);
            // The certificates made by an unchanged authority stay valid.
            let kept = before.and_then(|before| before.authority.as_ref());
            kept.filter(|kept| kept.is_same(new)).unwrap_or(new).clone()
        });
        let inspecting = authority.iter().map(|it| ("inspect-ca", it.not_after()));
        let ends = parts.tls.ends().chain(parts.upstreams.ends());
        let parents = tls::Client::ends(&config.dial.parents);
        let ends = ends.chain(parents);
        parts.metrics.certificates(ends.chain(inspecting));
        Self {
            tls: match before {
                Some(before) => parts.tls.after(&before.tls),
                None => parts.tls.clone(),
            },
            authority,
            upstreams: match before {
                Some(before) => parts.upstreams.after(&before.upstreams),
                None => parts.upstreams.clone(),
            },
            generation,
            config_file: config.path.as_deref().map(absolute),
            digest: config.digest.clone(),
            identity: Identity::new(
                &config.identity,
                before.map(|before| &before.identity),
                parts.clock.clone(),
                reach,
            ),
            shadow: parts.shadow.clone(),
            contact: config.contact.clone(),
            limits: config.limits.clone(),
            dialer,
            guard: parts.guard.clone(),
            metrics: Arc::new(
                parts
                    .metrics
                    .generation(policy.tiers(), &config.digest, generation),
            ),
            credentials: policy.asks_credentials().then(|| {
                let key = config.inspect.credential_key.clone();
                // Loading requires a key. Without one, no credential matches a rule.
                key.unwrap_or_else(|| CredentialKey::new("", &config.digest))
            }),
            records_paths: config.record.paths,
            ages: Ages::default(),
            admin_tls: config.listen.admin_tls.clone(),
            admin_names: config.listen.admin_names.clone().into(),
            programs: parts.programs.clone(),
            notifiers: config.notifiers.clone().into(),
            workspaces: config.workspaces.clone(),
            exceptions: ArcSwap::default(),
            max_exception: config.max_exception,
            clock: parts.clock.clone(),
            listeners: config.listen.proxy.iter().cloned().map(Arc::new).collect(),
            policy,
        }
    }

    /// Decides a new flow by the policy and the exceptions in force.
    pub fn decide(&self, query: &Query<'_>) -> Decision {
        self.decide_at(query, false)
    }

    /// Decides an open flow again.
    pub fn decide_again(&self, query: &Query<'_>) -> Decision {
        self.decide_at(query, true)
    }

    fn decide_at(&self, query: &Query<'_>, is_open: bool) -> Decision {
        let exceptions = self.exceptions.load();
        if exceptions.is_empty() {
            return self.policy.decide(query);
        }
        let live = InForce {
            exceptions: &exceptions,
            now: self.clock.now(),
            is_open,
        };
        self.policy.decide_with(query, Some(live))
    }

    /// The configuration of a listener in this generation; the earlier one if the listener is no
    /// longer configured.
    pub fn listener(&self, before: &Arc<Listener>) -> Arc<Listener> {
        let mut listed = self.listeners.iter();
        let now = listed.find(|listener| listener.address == before.address);
        now.unwrap_or(before).clone()
    }

    /// The caller of presented evidence in this generation, under the present configuration of its
    /// listener.
    pub fn caller(&self, presented: &Presented) -> Option<Caller> {
        let listener = self.listener(&presented.listener);
        let presented = Presented {
            listener,
            ..presented.clone()
        };
        // The certificate may have been revoked or have expired, or its authority may be gone.
        let certificate = presented.channel.certificate.as_ref();
        if certificate.is_some_and(|it| !self.tls.still_accepts(&presented.listener, &it.chain)) {
            return None;
        }
        let caller = self.identity.caller(&presented, &self.policy)?;
        let beside = self.shadow.as_ref().and_then(|shadow| {
            let caller = self.identity.caller(&presented, &shadow.policy)?;
            Some(Arc::new(caller.who))
        });
        Some(Caller { beside, ..caller })
    }
}

impl Gate {
    /// Decides under the policy of a generation and the approvals in force. Returns the id of the
    /// approval that allows the flow, if there is one.
    pub fn decide(
        &self,
        snapshot: &Snapshot,
        query: &Query<'_>,
        asks: &Asks<'_>,
    ) -> (Decision, Option<Arc<str>>) {
        self.approved(snapshot, query, asks, snapshot.decide(query))
    }

    /// Like [`Gate::decide`], for an open flow.
    pub(super) fn decide_again(
        &self,
        snapshot: &Snapshot,
        query: &Query<'_>,
        asks: &Asks<'_>,
    ) -> Decision {
        let decision = snapshot.decide_again(query);
        self.approved(snapshot, query, asks, decision).0
    }
}

/// The absolute path of a file.
fn absolute(path: &Path) -> Arc<str> {
    let real = path.canonicalize().or_else(|_| std::path::absolute(path));
    let path = real.unwrap_or_else(|_| path.to_owned());
    path.to_string_lossy().into()
}
