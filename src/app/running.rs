//! A gate that runs in this process, whoever it is for.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{AdminListener, Door};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::gate::{Gate, Parts, Snapshot};
use crate::metrics::Metrics;
use crate::policy::Catalogue;
use crate::proxy;
use crate::record::{Event, Recorder};
use crate::tls;

use super::reload::{self, Follow};
use super::{LAST_WORDS, Plan, banner, interfaces, sample, sockets, trust};

/// A gate that runs in this process.
pub struct Running {
    /// The running whole.
    pub gate: Arc<Gate>,
    /// What it was started from.
    pub config: Config,
    /// What clients are pointed to, where the gate inspects.
    pub bundle: Option<tls::Bundle>,
    /// Own listeners, part of the floor.
    own: Vec<SocketAddr>,
    connections: usize,
    /// Ends what runs beside the data path.
    pub(super) quiet: CancellationToken,
}

/// A record file that reaches the limit of file sizes (`ulimit -f`) is a failed write, as any
/// other, and not the end of the gate. The handler stays; programs that are started do not inherit
/// it.
fn outlive_file_limit() {
    let kind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    if let Err(error) = signal(kind) {
        tracing::warn!(%error, "SIGXFSZ ends this gate");
    }
}

impl Running {
    /// Opens the log and puts the plan in force. Nothing is accepted yet; `own` are the addresses
    /// that it will be accepted at, `spare` is the log where another gate writes the usual one.
    pub fn start(plan: Plan, own: Vec<SocketAddr>, spare: Option<PathBuf>) -> anyhow::Result<Self> {
        let Plan {
            mut config,
            policy,
            tls,
            authority,
            upstreams,
            ..
        } = plan;
        let descriptors = sockets::raise_descriptors();
        outlive_file_limit();
        let clock = Clock::system();
        let metrics = Metrics::new(proxy::REASONS);
        // Those over the limit need room as well: their refusal is on record.
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
            tls,
            authority: authority.clone(),
            upstreams,
            clock: clock.clone(),
        };
        let bundle = authority
            .as_deref()
            .and_then(|it| trust::publish(&config.record, it));
        let first = Snapshot::new(1, &config, policy, &parts);
        let gate = Arc::new(Gate::new(first, recorder, metrics, clock));
        gate.recorder.event(&Event::PolicyLoaded {
            digest: config.digest.clone(),
            generation: 1,
        });
        Ok(Self {
            gate,
            connections: sockets::connections(config.limits.flows, descriptors),
            config,
            bundle,
            own,
            quiet: CancellationToken::new(),
        })
    }

    /// Takes flows on listeners that were bound.
    pub fn serve(&self, bound: Vec<proxy::Bound>) {
        proxy::serve(&self.gate, bound, self.connections);
    }

    /// Takes flows of a jail; at most `connections` clients at once.
    #[cfg(target_os = "linux")]
    pub fn serve_jail(&self, inside: proxy::Inside, connections: usize) -> io::Result<()> {
        proxy::serve_jail(&self.gate, inside, connections.min(self.connections))
    }

    /// Lets sessions speak for themselves at a listener that was bound: no other is good for more
    /// than reading.
    pub fn serve_admin(&self, socket: TcpListener) {
        let listener = AdminListener::Tcp(socket);
        super::serve_admin(&self.gate, Some(listener), Door::Admin, &self.quiet);
    }

    /// Reloads and samples until it ends, after the flows. `hangup`: the signal that asks for a
    /// reload; `adapt` is done to every plan that is loaded.
    pub fn attend(&self, catalogue: Catalogue, hangup: Option<Signal>, adapt: fn(Plan) -> Plan) {
        let follow = Follow {
            config: self.config.clone(),
            catalogue,
            adapt,
            own: self.own.clone(),
            hangup,
        };
        let tasks = &self.gate.attendants;
        tasks.spawn(reload::follow(
            self.gate.clone(),
            follow,
            self.quiet.clone(),
        ));
        tasks.spawn(sample(self.gate.clone(), self.quiet.clone()));
    }

    /// Ends every flow now; their ends are written.
    pub async fn cut(&self) {
        self.gate.draining.cancel();
        self.gate.tasks.close();
        self.gate.flows.end_all();
        let _ = tokio::time::timeout(LAST_WORDS, self.gate.tasks.wait()).await;
    }

    /// Ends what runs beside the flows, and the log.
    pub async fn close(self) {
        self.quiet.cancel();
        self.gate.attendants.close();
        self.gate.attendants.wait().await;
        self.gate.recorder.close().await;
    }
}
