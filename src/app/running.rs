//! A gate that runs in this process, for `run` and for `exec`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{AdminListener, Door};
use crate::config::{self, Config, Owners};
use crate::dial::Programs;
use crate::gate::{Gate, Parts, ProgramRecord, Snapshot};
use crate::metrics::Metrics;
use crate::policy::Catalogue;
use crate::proxy;
use crate::record::{Event, Recorder};
use crate::tls;

use super::reload::{self, Follow, Source};
use super::repository_policies::RepositoryPolicies;
use super::{LAST_WORDS, Plan, banner, copies, interfaces, ledger, sample, sockets, trust};

/// A gate that runs in this process.
pub struct Running {
    /// The gate.
    pub gate: Arc<Gate>,
    /// The configuration of the start.
    pub config: Config,
    /// The policies of repositories that were part of the configuration at the start.
    repository_policies: RepositoryPolicies,
    /// The certificate files for clients, if the gate inspects.
    pub bundle: Option<tls::Bundle>,
    /// Own listener addresses, part of the floor.
    own: Vec<SocketAddr>,
    connections: usize,
    /// Stops the tasks beside the data path.
    pub(super) quiet: CancellationToken,
}

/// Ignores SIGXFSZ, so that a record file at the file size limit (`ulimit -f`) is a failed write
/// and not the end of the gate. Child programs do not inherit the handler.
fn outlive_file_limit() {
    let kind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    if let Err(error) = signal(kind) {
        tracing::warn!(%error, "cannot handle SIGXFSZ: a record file at the file size limit would end this gate");
    }
}

impl Running {
    /// Opens the log and puts the plan in force, without accepting connections. `own`: the
    /// addresses of the listeners. `spare`: the log file to use if another gate holds the
    /// configured one. `programs`: the programs the gate may start.
    pub fn start(
        plan: Plan,
        own: Vec<SocketAddr>,
        spare: Option<PathBuf>,
        programs: Programs,
    ) -> anyhow::Result<Self> {
        let Plan {
            mut config,
            policy,
            tls,
            authority,
            upstreams,
            shadow,
            clock,
            dialer,
            repository_policies,
            ..
        } = plan;
        let descriptors = sockets::raise_descriptors();
        outlive_file_limit();
        let metrics = Metrics::new(proxy::REASONS);
        // Flows over the limit need room as well: their refusals are recorded.
        let room = config.limits.flows + config.limits.flows / 16 + 64;
        let open = |record: &config::Record| Recorder::start(record, room, clock.clone(), &metrics);
        let mut recorder = open(&config.record);
        if let (Err(error), Some(spare)) = (&recorder, spare)
            && error.kind() == io::ErrorKind::ResourceBusy
        {
            config.record.file = Some(spare);
            recorder = open(&config.record);
        }
        let recorder = recorder.with_context(|| banner::record_place(&config.record))?;
        let parts = Parts {
            before: None,
            guard: interfaces::guard(&own),
            metrics: &metrics,
            recorder: &recorder,
            tls,
            authority: authority.clone(),
            upstreams,
            shadow,
            clock: clock.clone(),
            programs: programs.on_record(Arc::new(ProgramRecord(recorder.clone()))),
            dialer,
        };
        let bundle = authority
            .as_deref()
            .and_then(|it| trust::publish(&config.record, it));
        let before = copies::last(&config.record, &policy.built_over());
        let change = copies::keep_and_compare(&config, before.as_ref(), &policy);
        let first = Snapshot::new(1, &config, policy, &parts);
        let exceptions = ledger::open(config.ledger.as_ref(), &config.dial, &clock)?;
        let gate = Gate::new(first, recorder, metrics, clock).with_exceptions(exceptions);
        let gate = Arc::new(gate);
        gate.recorder.event(&Event::PolicyLoaded {
            digest: config.digest.clone(),
            generation: 1,
            copy: change.copy,
            change: change.words,
            repositories: repository_policies.names(),
        });
        let refused = repository_policies.newly_refused(&RepositoryPolicies::default());
        reload::record_refused(&gate.recorder, &config.digest, 1, refused);
        gate.begin_exceptions();
        Ok(Self {
            gate,
            connections: sockets::connections(config.limits.flows, descriptors),
            config,
            repository_policies,
            bundle,
            own,
            quiet: CancellationToken::new(),
        })
    }

    /// Accepts flows on bound listeners.
    pub fn serve(&self, bound: Vec<proxy::Bound>) {
        proxy::serve(&self.gate, bound, self.connections);
    }

    /// Accepts flows of a jail, from at most `connections` clients at once.
    #[cfg(target_os = "linux")]
    pub fn serve_jail(&self, inside: proxy::Inside, connections: usize) -> io::Result<()> {
        proxy::serve_jail(&self.gate, inside, connections.min(self.connections))
    }

    /// Serves the admin interface of sessions on a bound listener. Operators can only read there.
    pub fn serve_admin(&self, socket: TcpListener) {
        let listener = AdminListener::Tcp(socket);
        super::serve_admin(&self.gate, Some(listener), Door::Admin, &self.quiet);
    }

    /// Reloads the configuration when its files change, until `close`. Only `owners` may be able to
    /// change the files. `hangup`: the signal that requests a reload.
    pub fn follow_files(&self, catalogue: Catalogue, owners: Owners, hangup: Signal) {
        let source = Source::Files { owners, hangup };
        self.follow(catalogue, source);
    }

    /// Keeps the configuration of the start; changes of its files have no effect. `adapt` was
    /// applied to its plan, and is applied again when the machine's addresses change.
    pub fn keep_copy(&self, catalogue: Catalogue, adapt: fn(Plan) -> Plan) {
        self.follow(catalogue, Source::Copy { adapt });
    }

    fn follow(&self, catalogue: Catalogue, source: Source) {
        let follow = Follow {
            config: self.config.clone(),
            repository_policies: self.repository_policies.clone(),
            catalogue,
            source,
            own: self.own.clone(),
        };
        let (gate, quiet) = (self.gate.clone(), self.quiet.clone());
        let tasks = &self.gate.attendants;
        tasks.spawn(reload::follow(gate, follow, quiet));
    }

    /// Samples counters, closes idle connections, updates the exceptions in force and notifies
    /// reviewers, until `close`.
    pub fn sample(&self) {
        let (gate, quiet) = (self.gate.clone(), self.quiet.clone());
        self.gate.attendants.spawn(sample(gate, quiet.clone()));
        if let Some(ledger) = self.gate.exceptions.ledger.clone() {
            let quiet = quiet.clone();
            let follow = async move { ledger.run(quiet).await };
            self.gate.attendants.spawn(follow);
        }
        let notify = self.gate.clone().notify_reviewers(quiet.clone());
        self.gate.attendants.spawn(notify);
        let kept = self.gate.clone().keep_exceptions(quiet);
        self.gate.attendants.spawn(kept);
    }

    /// Closes every flow now, and waits until the close records are written.
    pub async fn cut(&self) {
        self.gate.draining.cancel();
        self.gate.tasks.close();
        self.gate.flows.end_all();
        let _ = tokio::time::timeout(LAST_WORDS, self.gate.tasks.wait()).await;
    }

    /// Stops the tasks beside the flows, and closes the log.
    pub async fn close(self) {
        self.quiet.cancel();
        self.gate.attendants.close();
        self.gate.attendants.wait().await;
        self.gate.recorder.close().await;
    }
}
