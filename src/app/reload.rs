//! Reload: on SIGHUP, or when the content of the files changes; all or nothing.
//!
//! A gate with a copy of its configuration reads no file again: the configuration of its start
//! decides until its end. Only the addresses of the machine are looked up again.
//!
//! The files are read and digested every two seconds; files of more than a megabyte in all, only if
//! their state in the file system has changed, and once a minute. File watchers are not used: they
//! miss the way container platforms replace mounted files. A change is loaded after two equal digests in a row,
//! so that no half-written file is loaded. If the files do not load, the last good generation
//! stays, and record, metric, log and admin listener report the error.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, Owners, Stamp};
use crate::diag::{self, Diagnostic};
use crate::gate::{Gate, Parts, Snapshot};
use crate::policy::Catalogue;
use crate::record::{Event, Recorder};

use super::copies::{self, LoadedChange};
use super::repository_policies::{self, RepositoryPolicies};
use super::{Plan, interfaces, trust};

const POLL: Duration = Duration::from_secs(2);
/// Polls in a row that do not read large files, at most: some network file systems report an old
/// state of a file.
const MAX_POLLS_UNREAD: u32 = 29;

/// The inputs of [`follow`].
pub(super) struct Follow {
    /// The loaded configuration.
    pub(super) config: Config,
    /// The policies of repositories that are part of it.
    pub(super) repository_policies: RepositoryPolicies,
    /// The categories of hosts.
    pub(super) catalogue: Catalogue,
    /// The source of the next generation.
    pub(super) source: Source,
    /// Own listener addresses, part of the floor.
    pub(super) own: Vec<SocketAddr>,
}

/// The source of the next generation.
pub(super) enum Source {
    /// The files of the configuration.
    Files {
        /// The users who may own the files and write to them.
        owners: Owners,
        /// SIGHUP requests a reload. The handler is installed before the gate reports that it is
        /// ready: an earlier SIGHUP would end the process.
        hangup: Signal,
    },
    /// The configuration that was read at the start; no file is read again.
    Copy {
        /// Applied to the plan before it is put in force.
        adapt: fn(Plan) -> Plan,
    },
}

struct Follower {
    gate: Arc<Gate>,
    catalogue: Arc<Catalogue>,
    config: Arc<Config>,
    repository_policies: RepositoryPolicies,
    /// The commits of the branches of repositories with a policy, at the last attempt.
    branches: Vec<Option<String>>,
    loader: Loader,
    own: Vec<SocketAddr>,
    /// The digest of the last attempt, successful or not.
    tried: Arc<str>,
    /// The digest seen at the last poll.
    seen: Arc<str>,
    /// The state of the files when they were last read.
    read: Option<FilesRead>,
    /// The local addresses and networks of the last attempt.
    interfaces: Vec<IpNet>,
}

/// Files that were read, and need not be read again while their state is the same.
#[derive(Clone)]
struct FilesRead {
    stamp: Stamp,
    digest: Arc<str>,
    /// Polls since the files were read.
    polls: u32,
}

/// Makes the next plan.
#[derive(Clone)]
enum Loader {
    Files(Owners),
    Copy(fn(Plan) -> Plan),
}

impl Loader {
    fn load(
        &self,
        config: &Config,
        now: &Snapshot,
        catalogue: &Catalogue,
        before: &RepositoryPolicies,
    ) -> Result<Plan, Vec<Diagnostic>> {
        match self {
            Self::Files(owners) => Plan::after(config.path.as_deref(), catalogue, owners, before),
            Self::Copy(adapt) => Plan::of_copy(config.clone(), now, catalogue, before).map(adapt),
        }
    }

    fn reads_files(&self) -> bool {
        matches!(self, Self::Files(_))
    }
}

/// Reloads on changes and on SIGHUP until `quiet`.
pub(super) async fn follow(gate: Arc<Gate>, follow: Follow, quiet: CancellationToken) {
    let (loader, mut hangup) = match follow.source {
        Source::Files { owners, hangup } => (Loader::Files(owners), Some(hangup)),
        Source::Copy { adapt } => (Loader::Copy(adapt), None),
    };
    let digest = follow.config.digest.clone();
    let mut follower = Follower {
        gate,
        catalogue: Arc::new(follow.catalogue),
        config: Arc::new(follow.config),
        branches: follow.repository_policies.commits(),
        repository_policies: follow.repository_policies,
        loader,
        own: follow.own,
        tried: digest.clone(),
        seen: digest,
        read: None,
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

/// Waits for SIGHUP; without a handler, forever.
async fn asked(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => {
            let _ = hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

impl FilesRead {
    /// Returns the digest of the files at the time `now`, and their state if they need not be read
    /// at the next poll.
    fn look(
        config: &Config,
        before: Option<Self>,
        now: Timestamp,
    ) -> io::Result<(Arc<str>, Option<Self>)> {
        // Made before the files are read, so that the next poll sees a change made during the reading.
        let stamp = Stamp::of(config);
        if let (Some(before), Some(stamp)) = (before, &stamp)
            && before.stamp == *stamp
            && before.polls < MAX_POLLS_UNREAD
        {
            let polls = before.polls + 1;
            return Ok((before.digest.clone(), Some(Self { polls, ..before })));
        }
        let digest = config::digest_of_files(config)?;
        let stamp = stamp.filter(|stamp| stamp.replaces_reading(now));
        let read = stamp.map(|stamp| Self {
            stamp,
            digest: digest.clone(),
            polls: 0,
        });
        Ok((digest, read))
    }
}

impl Follower {
    async fn poll(&mut self) {
        let mut written = self.loader.reads_files() && self.files_changed().await;
        // A branch is followed only while no file is being written.
        if self.loader.reads_files() && self.seen == self.tried {
            written |= self.branches_moved().await;
        }
        let interfaces = interfaces::own();
        let moved = interfaces != self.interfaces;
        self.interfaces = interfaces;
        if written || moved {
            self.reload().await;
        }
    }

    /// Whether the files differ from the last attempt, and had the same digest at the last poll.
    async fn files_changed(&mut self) -> bool {
        let (config, before) = (self.config.clone(), self.read.take());
        let now = self.gate.clock.now();
        let look = move || FilesRead::look(&config, before, now);
        let Ok(Ok((digest, read))) = tokio::task::spawn_blocking(look).await else {
            return false;
        };
        self.read = read;
        let settled = digest == self.seen;
        self.seen = digest;
        settled && self.seen != self.tried
    }

    /// Whether a branch with the policy of its repository has another commit than at the last
    /// attempt, successful or not.
    async fn branches_moved(&mut self) -> bool {
        if self.config.repository_policies.is_empty() {
            return false;
        }
        let config = self.config.clone();
        let read =
            tokio::task::spawn_blocking(move || repository_policies::branch_commits(&config));
        let Ok(commits) = read.await else {
            return false;
        };
        let moved = commits != self.branches;
        self.branches = commits;
        moved
    }

    async fn reload(&mut self) {
        let (config, catalogue) = (self.config.clone(), self.catalogue.clone());
        let (loader, now) = (self.loader.clone(), self.gate.snapshot.load_full());
        let before = self.repository_policies.clone();
        let load = move || {
            let plan = loader.load(&config, &now, &catalogue, &before)?;
            let change = copies::keep_and_compare(&plan.config, Some(&now.policy), &plan.policy);
            Ok::<_, Vec<Diagnostic>>((plan, change))
        };
        match tokio::task::spawn_blocking(load).await {
            Ok(Ok((plan, change))) => self.adopt(plan, change),
            Ok(Err(findings)) => {
                self.note_tried_files().await;
                self.reject(&findings);
            }
            Err(_) => tracing::error!("the reload itself failed; the last good policy goes on"),
        }
    }

    /// Notes which files were rejected, so that they are not loaded again before they change.
    async fn note_tried_files(&mut self) {
        if !matches!(self.loader, Loader::Files(_)) {
            return;
        }
        let config = self.config.clone();
        // Files of many hosts take long to read, and flows may run on this thread.
        let digest = tokio::task::spawn_blocking(move || config::digest_of_files(&config));
        if let Ok(Ok(digest)) = digest.await {
            self.tried = digest;
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
            repository_policies,
            warnings,
            ..
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
        let old = std::mem::replace(&mut self.config, Arc::new(config));
        // The digest in `read` includes the former policies of repositories.
        self.read = None;
        let refused = repository_policies.newly_refused(&self.repository_policies);
        let repositories = repository_policies.names();
        self.branches = repository_policies.commits();
        self.repository_policies = repository_policies;
        gate.stale.store(Arc::new(None));
        gate.recorder.event(&Event::PolicyLoaded {
            digest,
            generation,
            copy: change.copy,
            change: change.words,
            repositories,
        });
        record_refused(&gate.recorder, &self.config.digest, generation, refused);
        gate.adopt(next);
        // After the adoption: a client that waits for this counter relies on the new policy.
        gate.metrics.reloaded(true);
        // Dropping a policy of a million hosts is slow: keep it off the threads that serve.
        tokio::task::spawn_blocking(move || drop((before, old)));
        tracing::info!(generation, "policy loaded");
    }

    fn reject(&self, findings: &[Diagnostic]) {
        let gate = &self.gate;
        let detail: Box<str> = diag::first_error(findings).chars().take(160).collect();
        let now = gate.snapshot.load();
        // Before `stale` is set: a client that sees a stale policy relies on the counter.
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

/// Records the policies of repositories that are refused.
pub(super) fn record_refused(
    recorder: &Recorder,
    digest: &Arc<str>,
    generation: u64,
    refused: Vec<String>,
) {
    for detail in refused {
        recorder.event(&Event::PolicyRejected {
            digest: digest.clone(),
            generation,
            detail: detail.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::SignedDuration;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn large_files_are_read_again_when_they_change_and_once_a_minute() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tidegate.toml");
        fs::write(&path, "# ".repeat(1 << 20)).expect("a file");
        let config = config::load(&path).0.expect("a configuration");
        let later = Clock::system().now() + SignedDuration::from_secs(10);
        let look = |before| FilesRead::look(&config, before, later).expect("files");
        let (first, mut read) = look(None);
        assert_eq!(first, config.digest);
        let mut unread = 0;
        while read.as_ref().is_some_and(|read| read.polls == unread) {
            read = look(read).1;
            unread += 1;
        }
        assert_eq!(unread, MAX_POLLS_UNREAD + 1, "then the files are read");
        fs::write(&path, "# x".repeat(1 << 20)).expect("a file");
        assert_ne!(look(read).0, first);
    }

    #[test]
    fn files_that_were_just_written_are_read_at_the_next_poll() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tidegate.toml");
        fs::write(&path, "# ".repeat(1 << 20)).expect("a file");
        let config = config::load(&path).0.expect("a configuration");
        let look = FilesRead::look(&config, None, Clock::system().now());
        assert!(look.expect("files").1.is_none());
    }
}
