//! The program: build, bind, say what it does, run until drained.

mod banner;
mod interfaces;
mod reload;
mod running;
mod sockets;
mod trust;
#[cfg(target_os = "linux")]
mod walls;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, Door, Status};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::diag::{self, Diagnostic, Severity};
use crate::gate::Gate;
use crate::policy::{self, Catalogue, Policy};
use crate::tls;

pub use running::Running;

use sockets::Bound;

/// How often byte counters of open flows reach the metrics, and idle connections are looked over.
const SAMPLE: Duration = Duration::from_secs(5);
/// How long flows that were cut have to write their ends.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What to run: a configuration whose policy compiled.
#[derive(Debug)]
pub struct Plan {
    /// Everything that was written.
    pub config: Config,
    /// The compiled rules.
    pub policy: Policy,
    /// How listeners speak TLS.
    pub tls: tls::Servers,
    /// Who vouches for inspected destinations.
    pub authority: Option<Arc<tls::Authority>>,
    /// How upstreams are spoken TLS with.
    pub upstreams: tls::Upstreams,
    /// Findings that do not keep it from running.
    pub warnings: Vec<Diagnostic>,
}

impl Plan {
    /// Loads and compiles a file, or the embedded default. `Err` has every finding.
    pub fn new(path: Option<&Path>, catalogue: &Catalogue) -> Result<Self, Vec<Diagnostic>> {
        let (config, mut findings) = match path {
            Some(path) => config::load(path),
            None => (Some(config::embedded()), Vec::new()),
        };
        let Some(config) = config else {
            return Err(findings);
        };
        let (policy, more) = policy::compile(&config.policy, catalogue);
        findings.extend(more);
        let clock = Clock::system();
        let (tls, more) = tls::Servers::new(&config.listen, &clock);
        findings.extend(more);
        let names = policy.as_ref().map(Policy::inspected_names);
        let names = names.unwrap_or_default();
        let (authority, more) = tls::Authority::new(&config.inspect, &names, &clock);
        findings.extend(more);
        findings.extend(tls::Client::wrong_with(&config.dial.parents));
        let (upstreams, more) = tls::Upstreams::new(&config.upstreams, &Clock::system());
        findings.extend(more);
        match (policy, tls, upstreams) {
            (Some(policy), Some(tls), Some(upstreams)) if !has_errors(&findings) => Ok(Self {
                tls,
                authority: authority.map(Arc::new),
                upstreams,
                config,
                policy,
                warnings: findings,
            }),
            _ => Err(findings),
        }
    }

    /// The same, enforcing nothing: what would be refused passes, and is said to.
    #[must_use]
    pub fn observing(mut self) -> Self {
        self.policy.observe();
        self
    }
}

fn has_errors(findings: &[Diagnostic]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Error)
}

/// `tidegate run`: exit code 0 after a drain, 2 where the configuration is wrong, 4 where
/// something outside failed.
pub fn run_command(path: Option<&Path>) -> ExitCode {
    banner::log_to_stderr();
    let catalogue = policy::built_in();
    let plan = match Plan::new(path, &catalogue) {
        Ok(plan) => plan,
        Err(findings) => {
            banner::say(&diag::render(&findings, banner::colour()));
            return ExitCode::from(2);
        }
    };
    if !plan.warnings.is_empty() {
        banner::say(&diag::render(&plan.warnings, banner::colour()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let ran = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(plan, catalogue)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            banner::say(&format!("tidegate: {error:#}\n"));
            ExitCode::from(4)
        }
    }
}

/// Runs a plan until it is told to stop and its flows have ended.
async fn run(plan: Plan, catalogue: Catalogue) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let hangup = signal(SignalKind::hangup())?;
    let bound = Bound::new(&plan.config.listen)?;
    let running = Running::start(plan, bound.addresses(), None)?;
    let gate = running.gate.clone();
    banner::started(&running.config, &gate, &bound);
    serve_admin(&gate, bound.admin, Door::Admin, &running.quiet);
    serve_admin(&gate, bound.control, Door::Control, &running.quiet);
    running.serve(bound.proxies);
    running.attend(catalogue, Some(hangup), std::convert::identity);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    banner::say("tidegate: ready\n");

    stop.asked().await;
    drain(&gate, &mut stop).await;
    running.close().await;
    banner::say("tidegate: stopped\n");
    Ok(())
}

fn serve_admin(
    gate: &Arc<Gate>,
    listener: Option<crate::admin::AdminListener>,
    door: Door,
    stop: &CancellationToken,
) {
    let Some(listener) = listener else { return };
    let seen = gate.clone();
    let status = move || {
        let snapshot = seen.snapshot.load();
        let stale = seen.stale.load();
        let draining = seen.draining.is_cancelled();
        let kept = seen.recorder.available();
        let why_not = match kept {
            _ if draining => Some("draining".to_owned()),
            Err(why) => Some(why.to_string()),
            Ok(()) => None,
        };
        Status {
            ready: why_not.is_none(),
            why_not,
            draining,
            digest: snapshot.digest.clone(),
            generation: snapshot.generation,
            stale: stale.is_some(),
            error: stale.as_ref().as_deref().map(str::to_owned),
        }
    };
    let admin = Admin {
        metrics: gate.metrics.clone(),
        status: Arc::new(status),
        gate: Some(gate.clone()),
    };
    // Outlives the drain, so that it can be watched; its own token ends it.
    let stop = stop.clone();
    gate.attendants
        .spawn(crate::admin::serve(listener, door, admin, stop));
}

async fn sample(gate: Arc<Gate>, quiet: CancellationToken) {
    let mut tick = tokio::time::interval(SAMPLE);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = quiet.cancelled() => return,
        }
        for flow in gate.flows.list() {
            flow.sample();
        }
        gate.snapshot.load().dialer.pool.sweep(gate.clock.instant());
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

/// Takes nothing new, lets flows end by themselves until the deadline or a second signal, then
/// ends them.
async fn drain(gate: &Arc<Gate>, stop: &mut Stop) {
    let longest = gate.snapshot.load().limits.drain;
    banner::say(&format!(
        "tidegate: draining: {} flows open, at most {} s; a second signal ends them at once\n",
        gate.flows.count(),
        longest.as_secs()
    ));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    gate.metrics.draining();
    gate.draining.cancel();
    gate.tasks.close();
    tokio::select! {
        () = gate.tasks.wait() => return,
        () = tokio::time::sleep(longest) => {}
        () = stop.asked() => {}
    }
    gate.flows.end_all();
    if tokio::time::timeout(LAST_WORDS, gate.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(flows = gate.flows.count(), "flows did not end in time");
    }
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
