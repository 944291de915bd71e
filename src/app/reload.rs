//! Reload: on SIGHUP, or when the content of the files changes; all or nothing.
//!
//! A gate that was given a copy follows nothing: what it read at its start decides until its end,
//! and only the addresses of the machine are looked up again.
//!
//! The files are read and digested every two seconds, without watchers: those miss what container
//! platforms do to mounted files. Two equal digests in a row are waited for, so that a half-written
//! file is not taken. What does not load changes nothing: the last good generation goes on, and
//! record, metric, log and admin listener say so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, Owners};
use crate::diag::{self, Diagnostic};
use crate::gate::{Gate, Parts, Snapshot};
use crate::policy::Catalogue;
use crate::record::Event;

use super::copies::{self, LoadedChange};
use super::{Plan, interfaces, trust};

const POLL: Duration = Duration::from_secs(2);

/// What is followed.
pub(super) struct Follow {
    /// What was loaded.
    pub(super) config: Config,
    /// What hosts are for.
    pub(super) catalogue: Catalogue,
    /// Where the next generation comes from.
    pub(super) source: Source,
    /// Own listeners, part of the floor.
    pub(super) own: Vec<SocketAddr>,
}

/// Where the next generation comes from.
pub(super) enum Source {
    /// The files of the configuration.
    Files {
        /// Who may own them and write to them.
        owners: Owners,
        /// SIGHUP asks for a reload. Listened for before the gate says that it is ready: one that
        /// comes sooner would end the process.
        hangup: Signal,
    },
    /// The configuration that was read at the start; no file is read again.
    Copy {
        /// What is made of its plan before it is put in force.
        adapt: fn(Plan) -> Plan,
    },
}

struct Follower {
    gate: Arc<Gate>,
    catalogue: Arc<Catalogue>,
    config: Config,
    loader: Loader,
    own: Vec<SocketAddr>,
    /// The digest that was tried last, good or bad.
    tried: Arc<str>,
    /// The digest seen at the last poll.
    seen: Arc<str>,
    /// The local addresses and networks that were tried last.
    interfaces: Vec<IpNet>,
}

/// How the next plan is made.
#[derive(Clone)]
enum Loader {
    Files(Owners),
    Copy(fn(Plan) -> Plan),
}

impl Loader {
    fn load(
        &self,
        config: Config,
        now: &Snapshot,
        catalogue: &Catalogue,
    ) -> Result<Plan, Vec<Diagnostic>> {
        match self {
            Self::Files(owners) => Plan::new(config.path.as_deref(), catalogue, owners),
            Self::Copy(adapt) => Plan::of_copy(config, now, catalogue).map(adapt),
        }
    }

    fn reads_files(&self) -> bool {
        matches!(self, Self::Files(_))
    }
}

/// Follows what is to be followed until `quiet`.
pub(super) async fn follow(gate: Arc<Gate>, follow: Follow, quiet: CancellationToken) {
    let (loader, mut hangup) = match follow.source {
        Source::Files { owners, hangup } => (Loader::Files(owners), Some(hangup)),
        Source::Copy { adapt } => (Loader::Copy(adapt), None),
    };
    let digest = follow.config.digest.clone();
    let mut follower = Follower {
        gate,
        catalogue: Arc::new(follow.catalogue),
        config: follow.config,
        loader,
        own: follow.own,
        tried: digest.clone(),
        seen: digest,
        interfaces: interfaces::own(),
    };
    let mut poll = tokio::time::interval(POLL);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = asked(&mut hangup) => {
                follower.gate.recorder.reopen();
                follower.reload().await;
            }
            _ = poll.tick() => follower.poll().await,
            () = quiet.cancelled() => return,
        }
    }
}

/// Waits for SIGHUP, where it is listened for.
async fn asked(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => {
            let _ = hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

impl Follower {
    async fn poll(&mut self) {
        let written = self.loader.reads_files() && self.files_changed().await;
        let interfaces = interfaces::own();
        let moved = interfaces != self.interfaces;
        self.interfaces = interfaces;
        if written || moved {
            self.reload().await;
        }
    }

    /// Whether the files say something new, and said the same at the last poll.
    async fn files_changed(&mut self) -> bool {
        let config = self.config.clone();
        let read = tokio::task::spawn_blocking(move || config::digest_of_files(&config)).await;
        let Ok(Ok(digest)) = read else { return false };
        let settled = digest == self.seen;
        self.seen = digest;
        settled && self.seen != self.tried
    }

    async fn reload(&mut self) {
        let (config, catalogue) = (self.config.clone(), self.catalogue.clone());
        let (loader, now) = (self.loader.clone(), self.gate.snapshot.load_full());
        let load = move || {
            let plan = loader.load(config, &now, &catalogue)?;
            let change = copies::keep_and_compare(&plan.config, Some(&now.policy), &plan.policy);
            Ok::<_, Vec<Diagnostic>>((plan, change))
        };
        match tokio::task::spawn_blocking(load).await {
            Ok(Ok((plan, change))) => self.adopt(plan, change),
            Ok(Err(findings)) => {
                if let (Loader::Files(_), Ok(digest)) =
                    (&self.loader, config::digest_of_files(&self.config))
                {
                    self.tried = digest;
                }
                self.reject(&findings);
            }
            Err(_) => tracing::error!("the reload itself failed; the last good policy goes on"),
        }
    }

    fn adopt(&mut self, plan: Plan, change: LoadedChange) {
        let Plan {
            config,
            policy,
            tls,
            authority,
            upstreams,
            shadow,
            warnings,
        } = plan;
        if !warnings.is_empty() {
            tracing::warn!(
                "the policy loaded with warnings:\n{}",
                diag::render(&warnings, false)
            );
        }
        if config.listen != self.config.listen || config.record != self.config.record {
            tracing::warn!(
                "[listen], [[listener]] addresses and [record] change at the next start"
            );
        }
        let reads_files = self.loader.reads_files();
        if let Some(authority) = authority.as_ref().filter(|_| reads_files) {
            let _ = trust::publish(&self.config.record, authority);
        }
        let gate = &self.gate;
        let before = gate.snapshot.load_full();
        let parts = Parts {
            before: Some(&before),
            guard: interfaces::guard(&self.own),
            metrics: &gate.metrics,
            recorder: &gate.recorder,
            tls,
            authority,
            upstreams,
            shadow,
            clock: gate.clock.clone(),
            programs: before.programs.clone(),
            dialer: (!reads_files).then(|| before.dialer.clone()),
        };
        let generation = gate.next_generation();
        let next = Snapshot::new(generation, &config, policy, &parts);
        self.tried = config.digest.clone();
        self.seen = config.digest.clone();
        let digest = config.digest.clone();
        self.config = config;
        gate.stale.store(Arc::new(None));
        gate.recorder.event(&Event::PolicyLoaded {
            digest,
            generation,
            copy: change.copy,
            change: change.words,
        });
        gate.adopt(next);
        // Only now: a client that waits for the count may rely on what it counts.
        gate.metrics.reloaded(true);
        // A policy of a million hosts takes a while to take apart: not on a thread that serves.
        tokio::task::spawn_blocking(move || drop(before));
        tracing::info!(generation, "policy loaded");
    }

    fn reject(&self, findings: &[Diagnostic]) {
        let gate = &self.gate;
        let detail: Box<str> = first_error(findings).chars().take(160).collect();
        let now = gate.snapshot.load();
        // First: a client that sees that the policy is stale may rely on what is counted.
        gate.metrics.reloaded(false);
        gate.stale.store(Arc::new(Some(detail.clone())));
        gate.recorder.event(&Event::PolicyRejected {
            digest: now.digest.clone(),
            generation: now.generation,
            detail,
        });
        tracing::error!(
            "the policy did not load; generation {} goes on:\n{}",
            now.generation,
            diag::render(findings, false)
        );
    }
}

fn first_error(findings: &[Diagnostic]) -> String {
    let first = findings.iter().max_by_key(|finding| finding.severity);
    first.map_or_else(String::new, |finding| match &finding.place {
        Some(place) => format!("{place}: {}", finding.message),
        None => finding.message.clone(),
    })
}
